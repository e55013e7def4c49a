#!/usr/bin/env bash
# Powers the box off, whatever the worker does: at the end of its lifetime, or when its units failed for good.
#   usage: deadman.sh lifetime|slow-first-boot|first-boot|UNIT
set -u
# shellcheck source=infra/boot/lib.sh
. "$(dirname "$0")/lib.sh"

KEEP_UNTIL_HOURS_MAX=12

# Minutes until when a user who looks at a failing box keeps it on, by the file that the worker reads, too; else 1.
minutes() {
  local until now
  now=$(date +%s)
  until=$(date --date "$(head -c 100 $state/state/keep-until 2>/dev/null)" +%s 2>/dev/null) || until=0
  if [ ! -s $state/state/keep-until ] || [ "$until" -le "$now" ] || [ "$until" -gt $((now + KEEP_UNTIL_HOURS_MAX * 3600)) ]; then
    echo 1
  else
    echo $(((until - now) / 60 + 1))
  fi
}

case ${1:-} in
  lifetime) power_off 1 "this box has been up for its lifetime_max, and its worker did not end" ;;
  slow-first-boot) power_off 1 "its first boot takes too long; see /var/log/cloud-init-output.log" ;;
  first-boot) power_off "$(minutes)" "its first boot failed; see /var/log/cloud-init-output.log" ;;
  *) power_off "$(minutes)" "its ${1:-units} failed again and again; see \`journalctl -u 'gpu*'\`" ;;
esac
