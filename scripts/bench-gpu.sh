#!/usr/bin/env bash
# The figures of workers in crates/FIGURES.md, measured here and now, with all cores and with four. Leave the machine alone meanwhile.
#   usage: scripts/bench-gpu.sh [--device cpu] [--gpus 2] [--before GPU_WORKER] [--pages FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

cargo build --release --locked --quiet -p gpuctl
cargo build --release --locked --quiet -p gpu-worker --bin gpu-worker --example bare
export GPUCTL_MODELS=${GPUCTL_MODELS:-$GPUCTL_CACHE/random-models}
echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
"$python" scripts/bench-gpu.py "$CARGO_TARGET_DIR/release" "$@"
if [ "$(nproc)" -gt 4 ]; then
  taskset -c 0-3 "$python" scripts/bench-gpu.py "$CARGO_TARGET_DIR/release" "$@"
fi
