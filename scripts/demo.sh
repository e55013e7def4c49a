#!/usr/bin/env bash
# The main job on this machine, visibly: jobs arrive, the box starts, models run, the box stops; then a client of OpenAI's asks for a
# transcription while it is off. No account needed.
# Needs Rust (with a C compiler, as every Rust) and Python 3. The first run builds and downloads (about 500 MB), the
# second does neither.
#   usage: scripts/demo.sh [--built]      --built takes the programs that the tests have built
# Exits non-zero when a job fails, a printed line is read wrong, or the box is not stopped at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/lib/python-environment.sh
. scripts/lib/python-environment.sh

BOX_STOP_SECONDS_MAX=60
SERVER_SECONDS_MAX=30

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

say "build, and fetch ONNX Runtime and the models"
if [ "${1:-}" != --built ]; then
  # Without AWS, whose SDKs take longer to build than all the rest.
  cargo build --locked --quiet --no-default-features -p gpuctl -p gpu-worker -p gpu-inference --bins --example print_pages
fi
"$python" scripts/fetch-models.py
clients_environment
folder=$(mktemp -d "${TMPDIR:-/tmp}/gpuctl-demo.XXXXXX")
"$CARGO_TARGET_DIR/debug/examples/print_pages" "$folder/pages"
# The demonstration is by its own configuration alone, in its own folder.
unset GPUCTL_CONFIG GPUCTL_STATE GPUCTL_MODELS GPUCTL_ONNXRUNTIME GPUCTL_LOG
PATH=$CARGO_TARGET_DIR/debug:$PATH
samples=$cache/samples

cat >"$folder/gpuctl.toml" <<TOML
[pool.gpu]
queue = "jobs"
max_wait = "0s"      # start at the first job
idle_stop = "3s"     # stop soon: this is a demonstration
TOML
cd "$folder"

until_stopped() {
  for _ in $(seq $((BOX_STOP_SECONDS_MAX * 5))); do
    state=$(gpuctl status gpu --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["pools"][0]["state"])')
    [ "$state" = stopped ] && break
    sleep 0.2
  done
}

finish() {
  for job in $(jobs -p); do kill "$job" 2>/dev/null && wait "$job" || true; done
}
trap finish EXIT

say "before: gpuctl status"
gpuctl status

say "the daemon watches the queue (gpuctl run); two bursts of jobs arrive"
gpuctl run &
gpuctl submit voice.transcribe "$samples/beckett.wav" "$samples/two_cities.wav" --wait >voice.txt &
voice=$!
gpuctl submit vision.ocr pages/invoice.png pages/notice.png "$samples/page.png" "$samples/astronaut.png" --wait >vision.txt &
vision=$!
failed=0
wait "$voice" || failed=1
wait "$vision" || failed=1

say "what was heard and read"
cat voice.txt vision.txt

say "printed lines, read back"
for page in invoice notice; do
  gpuctl jobs --json | "$python" -c '
import json, sys
page = sys.argv[1]
printed = open(f"pages/{page}.txt").read().splitlines()
jobs = [job for job in json.load(sys.stdin)["jobs"] if job["input"].endswith(f"/{page}.png")]
read = ((jobs[0]["output"] or {}).get("text") or "").splitlines()
right = sum(a == b for a, b in zip(printed, read))
print(f"{page}: {right} of {len(printed)} lines exact")
sys.exit(printed != read)' "$page" || failed=1
done

say "the box is idle, and stops"
state=unknown
until_stopped

say "why it ran, and why it stopped: gpuctl explain gpu"
gpuctl explain gpu

say "what it cost and saved in these minutes: gpuctl cost report"
gpuctl cost report

say "the box is off; a program asks for a transcription with OpenAI's own client (gpuctl serve)"
finish
gpuctl serve --address 127.0.0.1:0 2>serve.log &
for _ in $(seq $((SERVER_SECONDS_MAX * 5))); do
  address=$(sed -n 's|.*listening on http://||p' serve.log)
  [ -n "$address" ] && break
  sleep 0.2
done
"$cache/clients/bin/python" -B - "$address" "$samples/beckett.wav" <<'PYTHON' || failed=1
import sys
from openai import OpenAI

gpu = OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="none")
heard = gpu.audio.transcriptions.create(model="whisper-1", file=open(sys.argv[2], "rb")).text
print(heard)
sys.exit("fail better" not in heard)
PYTHON
gpuctl status
until_stopped

if [ "$failed" = 0 ] && [ "$state" = stopped ]; then
  say "done: every job has its answer, and the box is stopped"
  finish && rm -rf "$folder"
else
  say "FAILED: box $state, jobs $([ "$failed" = 0 ] && echo answered || echo not all right)"
  echo "its log is $folder/.gpuctl/boxes/gpu-1.log" >&2
  exit 1
fi
