#!/usr/bin/env bash
# The tests of infra/ with the real tools: each function `scene_…` of scripts/infra/*.sh is one scene.
#   usage: scripts/test-infra.sh [SCENE…]      default: all; --list prints their names
# What they install and build is kept in the cache. What this machine cannot do, or cannot fetch, is skipped with a line that says so.
set -euo pipefail
# A command that fails in `$(…)` ends the scene, too.
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/lib/fetch.sh
. scripts/lib/fetch.sh

root=$PWD
# What the scenes share: a folder for each run.
work=$(mktemp -d "${TMPDIR:-/tmp}/gpuctl-infra.XXXXXX")
export root work

# skip REASON: ends a scene that this machine cannot run. The last line of its log is the reason, also out of a pipe.
skip() {
  echo "$*" >&2
  exit "$unreachable"
}

# expect WHAT COMMAND…: the scene fails unless the command succeeds.
expect() {
  local what=$1
  shift
  "$@" || {
    echo "error: expected $what" >&2
    exit 1
  }
}

# within SECONDS WHAT COMMAND…: waits until the command succeeds.
within() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "error: not in time: $what" >&2
      return 1
    fi
    sleep 0.2
  done
}

for file in scripts/infra/*.sh; do
  # shellcheck source=/dev/null
  . "$file"
done
mapfile -t scenes < <(declare -F | awk '{ print $3 }' | sed -n 's/^scene_//p')
if [ "${1:-}" = --list ]; then
  printf '%s\n' "${scenes[@]}"
  exit
fi
if [ $# -gt 0 ]; then scenes=("$@"); fi

passed=0 failed=0 skips=0
for scene in "${scenes[@]}"; do
  began=$SECONDS
  # Each in a shell of its own, with its own log; not after `||`, where `set -e` has no effect.
  set +e
  (
    set -e
    "scene_$scene"
  ) >"$work/$scene.log" 2>&1
  code=$?
  set -e
  case $code in
    0) passed=$((passed + 1)) outcome=ok ;;
    "$unreachable") skips=$((skips + 1)) outcome="skipped: $(tail -1 "$work/$scene.log")" ;;
    *) failed=$((failed + 1)) outcome="FAILED ($code)" ;;
  esac
  printf '%-28s %4s s  %s\n' "$scene" $((SECONDS - began)) "$outcome"
  # What a scene has measured.
  grep -E '^ +[0-9.]+ s  ' "$work/$scene.log" || true
  if [ "$outcome" = "FAILED ($code)" ]; then sed 's/^/    /' "$work/$scene.log"; fi
done
for stop in $(compgen -A function stop_ || true); do "$stop"; done
echo "$passed passed, $failed failed, $skips skipped"
if [ $failed = 0 ]; then rm -rf "$work"; else exit 1; fi
