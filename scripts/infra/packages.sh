# Scenes of a release: its archives, and an image of a box.
# shellcheck disable=SC2154 # root, work, cache and python are of scripts/test-infra.sh

# The programs of the tests: a release build would say nothing more here. Built as scripts/test.sh builds them, with the features of the whole
# workspace: others would build every AWS SDK again.
need_programs() {
  [ -e "$work/built" ] || fetch "the crates" cargo fetch --locked --quiet
  [ -e "$work/built" ] || cargo test --workspace --locked --quiet --no-run --test it --test boxes --test function
  touch "$work/built"
}

# The real models and samples, and ONNX Runtime.
need_models() {
  fetch "the models" "$python" scripts/fetch-models.py
}

# The same programs give the same archives, and the archives have what they must.
scene_package() {
  need_models
  need_programs
  # Without the function, whose zip has a limit that a debug build exceeds.
  mkdir -p "$work/programs"
  ln -s "$CARGO_TARGET_DIR/debug/gpuctl" "$CARGO_TARGET_DIR/debug/gpu-worker" "$work/programs/"
  scripts/package.sh --programs "$work/programs" "$work/one" >/dev/null
  sleep 1.1 # so that a time would differ
  scripts/package.sh --programs "$work/programs" "$work/two" >/dev/null
  expect "equal archives" diff -r "$work/one" "$work/two"
  (cd "$work/one" && sha256sum --check --quiet SHA256SUMS && cd worker && sha256sum --check --quiet SHA256SUMS)
  tar -tzf "$work/one/gpuctl-$(uname -m).tar.gz" >"$work/list"
  local name
  for name in ./gpuctl ./LICENSE-MIT ./LICENSES-OF-DEPENDENCIES.txt ./man/man1/gpuctl-submit.1 ./completions/gpuctl.bash ./completions/_gpuctl; do
    expect "$name in the archive" grep -qxF "$name" "$work/list"
  done
  "$python" - "$work/one/sbom.cdx.json" <<'PYTHON'
import json, sys

bill = json.load(open(sys.argv[1]))
names = {one["name"] for one in bill["components"]}
assert {"gpuctl", "gpu-worker", "ort", "clap", "aws-sdk-sqs"} <= names, names
refs = {one["bom-ref"] for one in bill["components"]}
assert all(set(one["dependsOn"]) <= refs for one in bill["dependencies"])
assert all("hashes" in one for one in bill["components"] if one["type"] == "library")
PYTHON
}

# An image of a box: what is refused, what a dry run says, and what is asked of EC2. The AWS CLI is a stand-in.
scene_bake_ami() {
  mkdir -p "$work/bake"
  cat >"$work/bake/aws" <<'AWS'
#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
  *describe-instances*) echo "$STATE" ;;
  *create-image*--dry-run*) echo "An error occurred (DryRunOperation) when calling the CreateImage operation" >&2; exit 254 ;;
  *create-image*) echo ami-0123456789abcdef0 ;;
  *describe-images*BlockDevice*) echo snap-1 ;;
  *describe-images*) printf 'ami-new\tami-old\n' ;;
esac
AWS
  chmod +x "$work/bake/aws"
  export PATH=$work/bake:$PATH CALLS=$work/bake/calls STATE="running test"
  bake() { scripts/bake-ami.sh "$@" 2>&1; }
  expect "a wrong id to be refused" test "$(bake i-1 box | head -1)" = "error: i-1 is not the id of an instance"
  expect "a running box to be refused" test "$(bake i-0123456789abcdef0 box | head -1)" = "error: i-0123456789abcdef0 is running, and must be stopped"
  STATE="stopped None"
  expect "another's box to be refused" test "$(bake i-0123456789abcdef0 box | head -1)" = "error: i-0123456789abcdef0 has no tag gpuctl:stack"
  STATE="stopped test"
  bake i-0123456789abcdef0 box --keep 1 --dry-run >"$work/bake/said"
  expect "the dry run's words" grep -qx 'would delete ami-old and its snapshots' "$work/bake/said"
  expect "a dry run to change nothing" sh -c "! grep -E 'deregister|delete' '$CALLS'"
  bake i-0123456789abcdef0 box --keep 1 >"$work/bake/said"
  expect "the older image to go" grep -qx 'ec2 delete-snapshot --snapshot-id snap-1' "$CALLS"
  expect "the newer image to stay" sh -c "! grep -q 'deregister-image --image-id ami-new' '$CALLS'"
}
