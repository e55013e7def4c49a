# Scenes of a release's archives.
# shellcheck disable=SC2154 # root, work, cache and python are of scripts/test-infra.sh

# The programs of the tests: a release build would say nothing more here.
need_programs() {
  if ! [ -x "$CARGO_TARGET_DIR/debug/gpuctl" ] || ! [ -x "$CARGO_TARGET_DIR/debug/gpu-worker" ]; then
    cargo build --locked --quiet -p gpuctl -p gpu-worker
  fi
}

# The same programs give the same archives, and the archives have what they must.
scene_package() {
  need_programs
  scripts/package.sh --programs "$CARGO_TARGET_DIR/debug" "$work/one" >/dev/null
  sleep 1.1 # so that a time would differ
  scripts/package.sh --programs "$CARGO_TARGET_DIR/debug" "$work/two" >/dev/null
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
