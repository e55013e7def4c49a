#!/usr/bin/env bash
# The AWS emulators that the tests of gpuctl-aws run against, pinned, each in an environment of its own outside the checkout.
#   usage: scripts/install-emulators.sh      prints nothing when they are there already
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

# environment NAME PACKAGE... : beside each other pip picks older versions of both, so each has its own.
environment() {
  local folder=$cache/emulators/$1 packages=${*:2}
  if [ "$(cat "$folder/packages" 2>/dev/null)" = "$packages" ]; then return; fi
  echo "installing $packages"
  rm -rf "$folder"
  "$python" -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
  echo "$packages" >"$folder/packages"
}

environment ministack 'ministack==1.5.33'
environment moto 'moto[server,dynamodb,s3,sns,sqs]==5.2.5'
environment microburst 'microburst==0.10.0'
