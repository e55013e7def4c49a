#!/usr/bin/env bash
# The figures of crates/FIGURES.md, measured here and now. Leave the machine alone meanwhile.
#   usage: scripts/bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

"$python" scripts/fetch-models.py >/dev/null
cargo build --release --locked --quiet -p gpuctl -p gpu-worker
echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
cargo bench --locked --quiet -p gpuctl-core --bench decide
cargo bench --locked --quiet -p gpuctl-core --bench schedule
cargo bench --locked --quiet -p gpuctl-local --bench queue
cargo bench --locked --quiet -p gpu-worker --bench overhead
cargo bench --locked --quiet -p gpu-worker --bench throughput

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$CARGO_TARGET_DIR/release/gpuctl" init >/dev/null
"$python" - "$CARGO_TARGET_DIR/release/gpuctl" <<'PYTHON'
import subprocess, sys, time

def once():
    began = time.perf_counter()
    subprocess.run([sys.argv[1], "status"], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3

times = sorted(once() for _ in range(101))
print(f"gpuctl status, start to finish, 101 runs: p50 {times[50]:.1f} ms, slowest {times[100]:.1f} ms")
PYTHON
