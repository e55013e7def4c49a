#!/usr/bin/env bash
# After each end of the worker, as root: powers the box off where its exit code says so. The worker itself needs no right to do it.
# systemd sets EXIT_CODE (exited, killed, …) and EXIT_STATUS. The codes are those of crates/gpuctl-worker/src/exit.rs.
set -u
# shellcheck source=infra/boot/lib.sh
. "$(dirname "$0")/lib.sh"

[ "${EXIT_CODE:-}" = exited ] || exit 0
case ${EXIT_STATUS:-} in
  10) reason="idle" ;;
  11) reason="lifetime over" ;;
  13) reason="hung" ;;
  14) reason="no report reached the ledger" ;;
  15) reason="it cannot run jobs" ;;
  # 0: told to stop. 12: EC2 takes the box; after a stop of our own it could not be started again.
  *) exit 0 ;;
esac
say "the worker ended: $reason; powering off"
systemctl --no-block poweroff || power_off 0 "$reason"
