#!/usr/bin/env bash
# The AWS emulators that the tests of gpuctl-aws run against, pinned, each in an environment of its own outside the checkout.
#   usage: scripts/install-emulators.sh      prints nothing when they are there already
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/lib/python-environment.sh
. scripts/lib/python-environment.sh

python_environment "$cache/emulators/ministack" 'ministack==1.5.33'
python_environment "$cache/emulators/moto" 'moto[server,dynamodb,s3,sns,sqs]==5.2.5'
python_environment "$cache/emulators/microburst" 'microburst==0.10.0'
