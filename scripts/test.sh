#!/usr/bin/env bash
# Every check there is: format, architecture, words, scripts, infrastructure, licences, lints, tests, docs, other feature sets, and the demo.
#   usage: scripts/test.sh [--quick] [--infra] [--no-install] [--kills[=TIMES]]
#     --quick         leaves out the demo
#     --infra         also tests infra/ as a whole, by scripts/test-infra.sh
#     --no-install    says which Debian packages are missing and ends, where it would install them
#     --kills[=TIMES] only the kill tests, with many more jobs, as often as TIMES says, each time with another seed: about twenty minutes a time
# Installs what it needs, and says so first; asks for nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

quick=0 infra=0 install=1 kills=0
usage="usage: scripts/test.sh [--quick] [--infra] [--no-install] [--kills[=TIMES]]"
for argument in "$@"; do
  case $argument in
    --quick) quick=1 ;;
    --infra) infra=1 ;;
    --no-install) install=0 ;;
    --kills) kills=1 ;;
    --kills=[1-9]*) kills=${argument#*=} ;;
    *)
      echo "error: unknown argument $argument; $usage" >&2
      exit 2
      ;;
  esac
done

step() { printf '\n== %s\n' "$*"; }

install_packages() {
  local missing=()
  command -v flac >/dev/null || missing+=(flac)
  command -v lame >/dev/null || missing+=(lame)
  command -v espeak-ng >/dev/null || missing+=(espeak-ng)
  command -v pdftoppm >/dev/null || missing+=(poppler-utils)
  command -v heif-enc >/dev/null || missing+=(libheif-examples)
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  if [ ${#missing[@]} = 0 ]; then return; fi
  local sudo=
  if [ "$(id -u)" != 0 ]; then sudo=$(command -v sudo) || install=0; fi
  if [ "$install" = 0 ]; then
    echo "error: the tests need these packages: ${missing[*]}" >&2
    echo "hint: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "installing with apt-get: ${missing[*]}"
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# One kill test: its seed, the number of its jobs, and its name.
kill_test() {
  KILLS_SEED=$1 KILLS_JOBS=$2 cargo test --workspace --locked --quiet --test it -- --include-ignored --exact "kills::$3" --nocapture
}

kill_tests() {
  local seed
  # Also builds the programs that the tests run.
  cargo test --workspace --all-targets --locked --quiet --no-run
  for seed in $(seq "$kills"); do
    step "kill tests, $seed of $kills"
    kill_test "$seed" 10000 a_small_graph_on_this_machine
    kill_test "$seed" 400 a_small_graph_on_emulated_aws
    kill_test "$seed" 200 real_models_on_this_machine
  done
}

step "what the tests need"
scripts/lib/check-space.sh
install_packages
# rustup's minimal profile leaves these out.
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
"$python" scripts/fetch-models.py
"$python" scripts/make-graphs.py
"$python" scripts/make-references.py
scripts/install-emulators.sh

# `cargo clippy` would compile every dependency a second time, without code. Here the linter compiles the workspace's own crates
# as the tests run them, so each dependency is compiled once; and two of them without `deploy`, too.
export RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/lib/lint-and-compile.sh

if [ "$kills" != 0 ]; then
  kill_tests
  exit
fi

step "format, architecture, words, references"
cargo fmt --all --check
"$python" scripts/check-edges.py
"$python" scripts/tidy.py

step "scripts, infrastructure, licences and sources"
scripts/lint-scripts.sh
scripts/check-infra.sh
scripts/check-dependencies.sh

step "lints"
cargo test --workspace --all-targets --locked --quiet --no-run

step "tests, and the libraries' documentation"
# Many tests wait for emulators and programs: two for each core leave no core idle.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
RUSTDOC=$PWD/scripts/lib/rustdoc-and-lint.sh cargo test --workspace --locked --quiet

step "other feature sets: without AWS, and a worker's part of AWS alone"
cargo check --locked --quiet -p gpuctl -p gpu-worker --no-default-features
cargo check --locked --quiet -p gpuctl-aws --no-default-features --features queue

if [ "$quick" = 0 ]; then
  step "the demo"
  scripts/demo.sh --built
fi

if [ "$infra" = 1 ]; then
  step "infrastructure"
  scripts/test-infra.sh
fi

step "all checks passed"
