//! How long a worker waits, retries and holds on: read by `gpu-worker`, and by the fault simulation, which must do the same.
//!
//! Only values and the rules that derive one from the policy; nothing here waits. How often a worker reports and reconciles
//! depends on the backend and stands in [`WorkerPace`].

use chrono::TimeDelta;

/// How often a worker asks its queue and its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerPace {
    /// The longest poll of one receive. A drain waits for the poll under way, so this is also the longest delay of a drain.
    pub receive_wait: TimeDelta,
    /// The time between two reports, each followed by a reconcile of the worker's own box.
    pub reconcile_every: TimeDelta,
}

impl WorkerPace {
    /// On the local backend, where a report is a write to a file: microseconds.
    pub const LOCAL: Self = Self {
        receive_wait: TimeDelta::milliseconds(500),
        reconcile_every: TimeDelta::milliseconds(500),
    };

    /// On AWS, where each reconcile is a few paid calls. Not slower than 5 s: the EC2 User Guide, "Spot Instance interruption
    /// notices", recommends to check for a notice every 5 seconds; it comes two minutes ahead.
    pub const AWS: Self =
        Self { receive_wait: TimeDelta::seconds(5), reconcile_every: TimeDelta::seconds(5) };
}

/// How long reports may fail before a worker that holds no message shuts its box down: without reports no controller knows
/// that the box is idle, and a box without a controller would cost money until someone notices.
pub const REPORT_FAILURE_MAX: TimeDelta = TimeDelta::minutes(5);

/// How long a job may go on after its cancellation before the worker restarts to get rid of it. A model checks for
/// cancellation only between two of its stages, and the longest stage on a slow processor takes tens of seconds.
pub const HANG_GRACE: TimeDelta = TimeDelta::seconds(60);

/// The longest wait before a message whose result could not be stored is delivered again.
pub const RETRY_DELAY_MAX: TimeDelta = TimeDelta::minutes(5);

/// The wait before a message is delivered again whose result could not be stored: 2 s after the first receive, doubled with
/// each further one, up to [`RETRY_DELAY_MAX`].
#[must_use]
pub fn retry_delay(receive_count: u32) -> TimeDelta {
    let seconds = 1_i64 << receive_count.min(16);
    TimeDelta::seconds(seconds).min(RETRY_DELAY_MAX)
}

/// The time between two extensions of a lease: a third of its length, so that two may fail before the lease is lost.
#[must_use]
pub fn heartbeat_every(visibility: TimeDelta) -> TimeDelta {
    visibility / 3
}

/// The longest time for which messages are received one at a time after a crash: under long leases it would cost more than it saves.
pub const ONE_AT_A_TIME_MAX: TimeDelta = TimeDelta::minutes(10);

/// How long messages are received one at a time after a run that crashed: two lease lengths. By then the leases of that run are
/// over and its messages were received alone, so that one which crashes the worker uses up no receive of another. At most
/// [`ONE_AT_A_TIME_MAX`].
#[must_use]
pub fn one_at_a_time(visibility: TimeDelta) -> TimeDelta {
    (visibility * 2).min(ONE_AT_A_TIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_later_each_time_up_to_the_longest_delay() {
        let delays = [1, 2, 8, 9, 40].map(|count| retry_delay(count).num_seconds());
        assert_eq!(delays, [2, 4, 256, 300, 300]);
    }

    #[test]
    fn one_at_a_time_is_for_two_leases_but_not_for_hours() {
        let spans = [60, 300, 3_600].map(|lease| one_at_a_time(TimeDelta::seconds(lease)));
        assert_eq!(spans.map(|span| span.num_seconds()), [120, 600, 600]);
    }
}
