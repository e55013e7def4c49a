#!/usr/bin/env bash
# Runs the fuzz targets of gpuctl-core, each for some minutes, with libFuzzer's coverage but without its sanitizers: so the stable compiler will do, and
# no cargo-fuzz. Not part of scripts/test.sh. What is found stays in the cache, and is where the next run begins; a text that fails is printed.
#   usage: scripts/fuzz.sh [SECONDS] [TARGET…]        default: 240 calendar expression fields policy span
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

seconds=${1:-240}
[ $# -eq 0 ] || shift
targets=("$@")
[ $# -gt 0 ] || targets=(calendar expression fields policy span)
folder=$PWD/crates/gpuctl-core/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares)

# With a target named, the flags are not those of build scripts and macros, which could not be linked.
RUSTFLAGS="${coverage[*]} --cfg fuzzing -Cdebug-assertions" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR=$cache/fuzz/target \
  cargo build --quiet --release --bins --target "$host" --manifest-path "$folder/Cargo.toml"

for target in "${targets[@]}"; do
  mkdir -p "$cache/fuzz/$target"
  "$cache/fuzz/target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$cache/fuzz/$target-" "$cache/fuzz/$target" "$folder/corpus/$target"
done
