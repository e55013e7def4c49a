#!/usr/bin/env bash
# What a release consists of, as archives: the same programs give the same archives, byte by byte.
#   usage: scripts/package.sh [--programs FOLDER] [--cuda] [OUT]      default: package/ in the target folder
#          scripts/package.sh lambda [ZIP]                            the function's zip alone
#          scripts/package.sh context cpu|gpu                         the folder for `docker build`, whose path is printed
#     --programs     take gpuctl, gpu-worker and, where it is there, bootstrap from FOLDER, where this would build them
#     --cuda         also ONNX Runtime for CUDA 12 and 13 with CUDA's libraries, which boxes with a GPU need: 3 GB by pip
# Building takes 15 to 30 minutes the first time (aws-sdk-ec2, optimised, on one core) and up to 8 GB of memory.
#
# OUT/gpuctl-MACHINE.tar.gz     the command line with man pages, completions and licences
# OUT/gpuctl-lambda.zip         the function
# OUT/worker/                   what boxes fetch: `gpuctl deploy --worker OUT/worker`
# OUT/sbom.cdx.json             bill of materials (CycloneDX)
# OUT/SHA256SUMS
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

# Amazon Linux 2023, on which `provided.al2023` runs; Ubuntu 22.04 and later have a newer one.
glibc_max=2.34
# Far below Lambda's 50 MB; it is here so that growth is noticed.
zip_bytes_max=10000000
machine=$(uname -m)

die() {
  echo "error: $1" >&2
  [ $# -lt 2 ] || echo "hint: $2" >&2
  exit 1
}

main() {
  case ${1:-} in
    lambda) lambda "${2:-$CARGO_TARGET_DIR/gpuctl-lambda.zip}" ;;
    context) context "${2:-}" ;;
    *) release "$@" ;;
  esac
}

release() {
  local programs="" cuda="" out=$CARGO_TARGET_DIR/package
  while [ $# -gt 0 ]; do
    case $1 in
      --programs) programs=${2:?--programs needs a folder} && shift ;;
      --cuda) cuda=1 ;;
      -*) die "unknown option $1" "$(sed -n 's/^#   usage: //p' "$0")" ;;
      *) out=$1 ;;
    esac
    shift
  done
  mkdir -p "$out/worker"
  if [ -z "$programs" ]; then
    cargo build --release --locked -p gpuctl -p gpu-worker
    programs=$CARGO_TARGET_DIR/release
    lambda "$out/gpuctl-lambda.zip"
  elif [ -e "$programs/bootstrap" ]; then
    zip_function "$programs/bootstrap" "$out/gpuctl-lambda.zip"
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "$python" scripts/lib/bill_of_materials.py "$work" gpuctl gpu-worker gpuctl-lambda
  mv "$work/sbom.cdx.json" "$out/"
  pack_cli "$programs" "$out"
  pack_worker "$programs" "$out/worker"
  pack_runtime cpu "$out/worker"
  if [ -n "$cuda" ]; then
    pack_runtime cuda12 "$out/worker"
    pack_runtime cuda13 "$out/worker"
  fi
  checksums "$out/worker"
  checksums "$out"
  (cd "$out" && find . -type f -printf '%s  %P\n' | sort -k 2)
}

# pack ARCHIVE FOLDER: nothing in it depends on when, where or by whom it was made.
pack() {
  tar --create --directory "$2" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+w,go-w,a+rX --format=gnu . |
    gzip --no-name >"$1"
}

licences() {
  cp LICENSE-MIT LICENSE-APACHE "$work/LICENSES-OF-DEPENDENCIES.txt" "$1/"
}

stripped() {
  [ -x "$1/$2" ] || die "there is no program $1/$2" "build it, or leave out --programs"
  strip -o "$3/$2" "$1/$2"
}

pack_cli() {
  local folder=$work/cli
  mkdir -p "$folder/man/man1" "$folder/completions"
  stripped "$1" gpuctl "$folder"
  licences "$folder"
  "$folder/gpuctl" man "$folder/man/man1" >/dev/null
  "$folder/gpuctl" completions bash >"$folder/completions/gpuctl.bash"
  "$folder/gpuctl" completions zsh >"$folder/completions/_gpuctl"
  "$folder/gpuctl" completions fish >"$folder/completions/gpuctl.fish"
  cp README.md "$folder/"
  pack "$2/gpuctl-$machine.tar.gz" "$folder"
}

pack_worker() {
  local folder=$work/worker
  mkdir -p "$folder"
  stripped "$1" gpu-worker "$folder"
  licences "$folder"
  pack "$2/gpu-worker-$machine.tar.gz" "$folder"
}

# pack_runtime cpu|cuda12|cuda13 FOLDER
pack_runtime() {
  local folder=$work/$1
  runtime "$1" "$folder"
  pack "$2/onnxruntime-$1-$machine.tar.gz" "$folder"
}

# runtime cpu|cuda12|cuda13 FOLDER: ONNX Runtime's library, and for a GPU its providers and CUDA's libraries.
runtime() {
  if [ "$1" = cpu ]; then
    "$python" scripts/fetch-models.py silero-vad-v6 >/dev/null
    mkdir -p "$2"
    cp "$cache"/onnxruntime/*/libonnxruntime.so.* "$2/libonnxruntime.so"
  else
    "$python" scripts/lib/cuda_libraries.py "$1" "$2"
  fi
}

checksums() {
  rm -f "$1/SHA256SUMS"
  (cd "$1" && find . -maxdepth 1 -type f -printf '%P\0' | sort -z | xargs -0 sha256sum >"$work/sums")
  cp "$work/sums" "$1/SHA256SUMS"
}

lambda() {
  local tools=$cache/cargo-lambda
  if ! [ -x "$tools/bin/cargo-lambda" ]; then
    "$python" -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check cargo-lambda==1.9.2
  fi
  # For its size: it waits for AWS more than it computes, and a smaller one is loaded faster.
  PATH=$tools/bin:$PATH CARGO_PROFILE_RELEASE_OPT_LEVEL=s cargo lambda build --release --x86-64 --skip-target-check --locked -p gpuctl-lambda
  zip_function "$CARGO_TARGET_DIR/lambda/bootstrap/bootstrap" "$1"
}

# zip_function PROGRAM ZIP: checked for what Lambda wants.
zip_function() {
  local program glibc bytes
  program=$(mktemp)
  strip -o "$program" "$1"
  glibc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -Vu | tail -1)
  if [ "$(printf '%s\n' "$glibc" "$glibc_max" | sort -V | tail -1)" != "$glibc_max" ]; then
    die "the program needs glibc $glibc, Lambda has $glibc_max" "build it on Debian 12, Amazon Linux 2023 or older"
  fi
  "$python" - "$program" "$2" <<'PYTHON'
import sys, zipfile

with zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o755 << 16
    with open(sys.argv[1], "rb") as program:
        archive.writestr(entry, program.read(), zipfile.ZIP_DEFLATED, 9)
PYTHON
  bytes=$(stat -c %s "$2")
  [ "$bytes" -le $zip_bytes_max ] || die "$2 has $bytes bytes, more than $zip_bytes_max"
  echo "$2: $bytes bytes, $(stat -c %s "$program") unpacked, needs glibc $glibc" >&2
  rm "$program"
}

# The programs that `--programs` or PROGRAMS names, else release builds.
context() {
  local folder=$CARGO_TARGET_DIR/context programs=${PROGRAMS:-$CARGO_TARGET_DIR/release}
  case $1 in cpu | gpu) ;; *) die "context needs cpu or gpu" ;; esac
  if [ -z "${PROGRAMS:-}" ]; then cargo build --release --locked --quiet -p gpuctl -p gpu-worker; fi
  mkdir -p "$folder"
  stripped "$programs" gpuctl "$folder"
  stripped "$programs" gpu-worker "$folder"
  rm -rf "$folder/onnxruntime" "$folder/onnxruntime-gpu"
  if [ "$1" = cpu ]; then runtime cpu "$folder/onnxruntime"; else runtime "${CUDA:-cuda13}" "$folder/onnxruntime-gpu"; fi >&2
  echo "$folder"
}

main "$@"
