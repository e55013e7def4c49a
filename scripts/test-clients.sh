#!/usr/bin/env bash
# Real clients against `gpuctl serve`, changed by their base URL alone: openai from PyPI, and the lines of crates/gpuctl-http/README.md.
# Not part of scripts/test.sh: it installs packages.
#   usage: scripts/test-clients.sh [--built]      --built takes the programs that the tests have built
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/lib/python-environment.sh
. scripts/lib/python-environment.sh

clients_environment
if [ "${1:-}" != --built ]; then
  # Without AWS, whose SDKs take longer to build than all the rest.
  cargo build --locked --quiet --no-default-features -p gpuctl -p gpu-worker
fi
"$python" scripts/fetch-models.py
unset GPUCTL_CONFIG GPUCTL_STATE GPUCTL_MODELS GPUCTL_LOG
exec "$cache/clients/bin/python" -B scripts/test-clients.py --programs "$CARGO_TARGET_DIR/debug" --samples "$cache/samples"
