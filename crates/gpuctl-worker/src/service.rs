//! How long jobs take here, and so how many messages a worker may hold: those that it can begin soon.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_core::without::Fix;
use tokio::time::Instant;

/// The most messages held at once: what SQS returns for one call.
const HELD_MAX: i64 = 10;
/// A message may wait for a model for this part of its lease.
const WAIT_PART: i32 = 4;
/// How much the newest job counts in the mean.
const WEIGHT: i32 = 4;

/// The measured time of a job on its model.
pub(crate) struct Service(Mutex<State>);

struct State {
    mean: Option<TimeDelta>,
    /// A job could not begin in time: one message at a time, until the next job is done.
    is_cautious: bool,
    /// Until when one message is held at a time, after crashes.
    one_until: Option<Instant>,
}

impl State {
    fn holds_one(&self) -> bool {
        self.one_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Service {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { mean: None, is_cautious: false, one_until: None }))
    }

    /// What is known from other workers, while this one has measured nothing.
    pub(crate) fn expect(&self, mean: Option<TimeDelta>) {
        self.with(|state| state.mean = state.mean.or(mean));
    }

    /// Notes how long a job took.
    pub(crate) fn note(&self, took: TimeDelta) {
        self.with(|state| {
            let mean = state.mean.unwrap_or(took);
            state.mean = Some(mean + (took - mean) / WEIGHT);
            state.is_cautious = false;
        });
    }

    /// Holds one message at a time for this long: what crashes the worker next uses up no receive of another job then.
    pub(crate) fn hold_one_for(&self, span: Duration) {
        self.with(|state| state.one_until = Some(Instant::now() + span));
    }

    pub(crate) fn be_cautious(&self) {
        self.with(|state| state.is_cautious = true);
    }

    /// The most messages to hold under leases of this length: the one that runs, and those that begin within a part of the lease.
    pub(crate) fn held_max(&self, visibility: TimeDelta) -> u32 {
        if Fix::PrefetchTen.is_left_out() {
            return u32::try_from(HELD_MAX).unwrap_or(1);
        }
        let wait = visibility / WAIT_PART;
        let held = self.with(|state| match state.mean {
            Some(mean) if !state.is_cautious && !state.holds_one() => {
                1 + wait.num_microseconds().unwrap_or(i64::MAX)
                    / mean.num_microseconds().unwrap_or(i64::MAX).max(1)
            }
            _ => 1,
        });
        u32::try_from(held.clamp(1, HELD_MAX)).unwrap_or(1)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_jobs_are_fetched_ahead_and_long_ones_are_left_to_other_workers() {
        let lease = TimeDelta::seconds(60);
        let held = |seconds: i64| {
            let service = Service::new();
            service.note(TimeDelta::seconds(seconds));
            service.held_max(lease)
        };
        assert_eq!([0, 1, 5, 15, 60].map(held), [10, 10, 4, 2, 1]);
    }

    #[test]
    fn before_a_job_was_measured_and_after_one_that_waited_too_long_one_is_held() {
        let (service, lease) = (Service::new(), TimeDelta::seconds(60));
        assert_eq!(service.held_max(lease), 1);
        service.expect(Some(TimeDelta::milliseconds(10)));
        assert_eq!(service.held_max(lease), 10);
        service.be_cautious();
        assert_eq!(service.held_max(lease), 1);
        service.note(TimeDelta::milliseconds(10));
        assert_eq!(service.held_max(lease), 10);
    }
}
