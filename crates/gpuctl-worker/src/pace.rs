//! How long a worker waits: between tries, for one call, for a drain. Only values and the rule for the next wait.

use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::worker_timing::HANG_GRACE;

/// The first wait after something failed; each further one is twice as long, up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two tries of the same thing.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long one call of a port may take before it counts as failed: a hanging call must not hold up what else a worker watches.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// How much longer than its wait a receive may take before it is given up.
pub(crate) const RECEIVE_OVERTIME_MAX: Duration = Duration::from_secs(10);
/// How long a drain waits for a heartbeat that is under way: one that comes after its release would overwrite it.
pub(crate) const HEARTBEAT_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long jobs may take to put away what they have once the drain's deadline is over.
pub(crate) const ENDING_MAX: Duration = Duration::from_secs(3);
/// How long before the cloud takes the box a drain is over: to release messages and to report.
pub(crate) const DRAIN_MARGIN: TimeDelta = TimeDelta::seconds(5);
/// How long a worker whose box or device cannot run jobs tries again before it ends.
pub(crate) const BOX_FAULT_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a worker that cannot reach a service tries again before it ends. What it has finished is kept on disk then.
pub(crate) const SERVICE_FAULT_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a job may go on after its cancellation before the worker counts as hung.
pub(crate) const HANG_GRACE_MAX: Duration =
    Duration::from_secs(HANG_GRACE.num_seconds().unsigned_abs());
/// How long a model may run nothing while a job waits for it alone: then it hangs, e.g. while it opens, and only an end of the process helps.
pub(crate) const OPENING_MAX: Duration = Duration::from_secs(10 * 60);
/// How far ahead a user may put off the power-off of a box by the file `keep-until`.
pub(crate) const KEEP_UNTIL_MAX: TimeDelta = TimeDelta::hours(12);

/// The waits between tries: longer each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(RETRY_WAIT_FIRST)
    }

    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(RETRY_WAIT_MAX);
        wait
    }
}

/// For tokio, which takes no negative times; the policy has none.
pub(crate) fn std_time(span: TimeDelta) -> Duration {
    span.to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let waits: Vec<u64> = (0..7).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }
}
