#!/usr/bin/env bash
# Every check there is: format, dependency edges, lints, tests, and the demo. Installs what it needs; asks for nothing.
#   usage: scripts/test.sh [--quick]      --quick leaves out the demo
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

step() { printf '\n== %s\n' "$*"; }

step "what the tests need"
need_packages=()
command -v flac >/dev/null || need_packages+=(flac)
command -v lame >/dev/null || need_packages+=(lame)
command -v espeak-ng >/dev/null || need_packages+=(espeak-ng)
command -v cc >/dev/null || need_packages+=(gcc libc6-dev)
"$python" -c 'import ensurepip, venv' 2>/dev/null || need_packages+=(python3-venv)
if [ ${#need_packages[@]} -gt 0 ]; then
  sudo=
  if [ "$(id -u)" != 0 ]; then
    sudo=$(command -v sudo) || {
      echo "error: the tests need ${need_packages[*]}; install them as root, or install sudo" >&2
      exit 1
    }
  fi
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${need_packages[@]}" >/dev/null
fi
# rustup's minimal profile leaves these out.
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
"$python" scripts/fetch-models.py
"$python" scripts/make-graphs.py
scripts/install-emulators.sh

step "format"
cargo fmt --all --check

step "dependency edges"
"$python" scripts/check-edges.py

step "lints"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

step "tests"
cargo test --workspace --locked --quiet

if [ "${1:-}" != --quick ]; then
  step "the demo"
  scripts/demo.sh
fi

step "all checks passed"
