#!/usr/bin/env bash
# Ends with an error where the disk has too little free space for builds and tests: a full one fails late, in a linker or a test's database.
#   usage: scripts/lib/check-space.sh [ALL_GIB [SPARE_GIB]]
#     ALL_GIB    what a first run leaves in the target folder and the cache; what they already hold counts for it     default: 16
#     SPARE_GIB  what is needed even if they hold all of it: for what is linked anew, and the tests' own files        default: 5
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

all_gib_min=${1:-16} spare_gib_min=${2:-5}

# gib FOLDER…: what they hold, in whole GiB; a folder within another counts once.
gib() {
  local folders=() folder
  for folder; do if [ -d "$folder" ]; then folders+=("$folder"); fi; done
  if [ ${#folders[@]} = 0 ]; then echo 0; return; fi
  # Files may go while they are counted.
  { du -sk "${folders[@]}" 2>/dev/null || true; } | awk '{ sum += $1 } END { printf "%d\n", sum / 1048576 }'
}

mkdir -p "$CARGO_TARGET_DIR"
free=$(df -Pk "$CARGO_TARGET_DIR" | awk 'NR == 2 { printf "%d\n", $4 / 1048576 }')
needed=$((all_gib_min - $(gib "$cache" "$CARGO_TARGET_DIR")))
if [ "$needed" -lt "$spare_gib_min" ]; then needed=$spare_gib_min; fi
if [ "$free" -ge "$needed" ]; then exit 0; fi
echo "error: $free GiB are free on the disk of $CARGO_TARGET_DIR, and builds and tests need $needed" >&2
echo "hint: what can go: $CARGO_TARGET_DIR ($(gib "$CARGO_TARGET_DIR") GiB: \`cargo clean\` where older trees were built, or its folders" \
  "\`debug/incremental\` and \`release\`), $cache ($(gib "$cache") GiB: all of it is fetched and built again)" >&2
exit 1
