#!/usr/bin/env bash
# Runs the fuzz targets of gpuctl-core and of gpu-inference's decoders, each for some minutes, with libFuzzer's coverage but without its sanitizers: so
# the stable compiler will do, and no cargo-fuzz. Not part of scripts/test.sh. What is found stays in the cache, and is where the next run begins; an
# input that fails is printed. A decoder's seeds are made by its tests, and no other program is asked, such as ffmpeg.
#   usage: scripts/fuzz.sh [SECONDS] [TARGET…]        default: 240 texts; also `decoders`, which stands for all of these
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

texts=(calendar expression fields policy span)
recordings=(wav aiff au flac mp3 ogg matroska mp4)
pictures=(tiff jpeg png gif bmp webp heif pdf)
tensors=(npz npy json)
decoders=("${recordings[@]}" "${pictures[@]}" "${tensors[@]}" text)

seconds=${1:-240}
[ $# -eq 0 ] || shift
targets=()
for target in "${@:-texts}"; do
  case $target in
    texts) targets+=("${texts[@]}") ;;
    decoders) targets+=("${decoders[@]}") ;;
    *) targets+=("$target") ;;
  esac
done
built=$cache/fuzz/target
host=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares)

# programs CRATE: builds them, of the versions that the program has. With a target named, the flags are not those of build scripts and macros, which
# could not be linked.
programs() {
  cp Cargo.lock "crates/$1/fuzz/"
  RUSTFLAGS="${coverage[*]} --cfg fuzzing -Cdebug-assertions" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR=$built \
    cargo build --quiet --release --bins --target "$host" --manifest-path "crates/$1/fuzz/Cargo.toml"
}

# program TARGET: the one that decodes files of this kind, or reads such texts.
program() {
  case " ${recordings[*]} : ${pictures[*]} : ${tensors[*]} " in
    *" $1 "*:*:*) echo recording ;;
    *:*" $1 "*:*) echo picture ;;
    *:*:*" $1 "*) echo tensors ;;
    *) echo "$1" ;;
  esac
}

# is_decoder TARGET
is_decoder() { case " ${decoders[*]} " in *" $1 "*) ;; *) return 1 ;; esac }

for target in "${targets[@]}"; do
  if is_decoder "$target" && [ -z "${seeded-}" ]; then
    seeded=$cache/fuzz/seeds
    GPUCTL_SEEDS=$seeded cargo test --quiet --locked -p gpu-inference --test it -- seeds::
    programs gpu-inference
  elif ! is_decoder "$target" && [ -z "${built_core-}" ]; then
    built_core=1
    programs gpuctl-core
  fi
  found=$cache/fuzz/$target
  if is_decoder "$target"; then seeds=$seeded/$target; else seeds=crates/gpuctl-core/fuzz/corpus/$target; fi
  mkdir -p "$found"
  TMPDIR=/dev/shm PATH=/nowhere "$built/$host/release/$(program "$target")" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$found-" "$found" "$seeds"
done
