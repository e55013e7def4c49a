#!/usr/bin/env bash
# The function's zip, built and checked for what Lambda wants. The first build takes 15 to 30 minutes: aws-sdk-ec2, optimised, on one core.
#   usage: scripts/package-lambda.sh [ZIP]      default: gpuctl-lambda.zip in the target folder
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

# Amazon Linux 2023, on which `provided.al2023` runs.
glibc_max=2.34
# Far below Lambda's 50 MB; it is here so that growth is noticed.
zip_bytes_max=10000000
zip=${1:-$CARGO_TARGET_DIR/gpuctl-lambda.zip}

tools=$cache/cargo-lambda
if ! [ -x "$tools/bin/cargo-lambda" ]; then
  "$python" -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check cargo-lambda==1.9.2
fi
PATH=$tools/bin:$PATH cargo lambda build --release --x86-64 --skip-target-check --locked -p gpuctl-lambda

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
strip -o "$work/bootstrap" "$CARGO_TARGET_DIR/lambda/bootstrap/bootstrap"
glibc=$(objdump -T "$work/bootstrap" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -Vu | tail -1)
if [ "$(printf '%s\n' "$glibc" "$glibc_max" | sort -V | tail -1)" != "$glibc_max" ]; then
  echo "error: the program needs glibc $glibc, Lambda has $glibc_max; build it on Debian 12, Amazon Linux 2023 or older" >&2
  exit 1
fi
"$python" - "$work/bootstrap" "$zip" <<'PYTHON'
import sys, zipfile

with zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o755 << 16
    with open(sys.argv[1], "rb") as program:
        archive.writestr(entry, program.read(), zipfile.ZIP_DEFLATED, 9)
PYTHON
bytes=$(stat -c %s "$zip")
if [ "$bytes" -gt $zip_bytes_max ]; then
  echo "error: $zip has $bytes bytes, more than $zip_bytes_max" >&2
  exit 1
fi
echo "$zip: $bytes bytes, $(stat -c %s "$work/bootstrap") unpacked, needs glibc $glibc"
