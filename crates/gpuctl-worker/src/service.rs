//! How long jobs take here, and so how many messages a worker may hold: those that it can begin soon.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_core::without::Fix;
use tokio::time::Instant;

/// The most messages held at once: twice as many as are decoded or wait for a model, since others are fetched and committed meanwhile.
pub(crate) const HELD_MAX: u32 = 256;
/// The most of jobs that are not fast: what SQS returns for one call.
const HELD_SLOW_MAX: i64 = 10;
/// A message may wait for a model for this part of its lease.
const WAIT_PART: i32 = 4;
/// Of fast jobs as many are held as take this long, decoding included: another worker that is idle misses no more than that.
const AHEAD: TimeDelta = TimeDelta::seconds(2);
/// How much the newest job counts in the mean.
const WEIGHT: i32 = 4;

/// The measured times of jobs.
pub(crate) struct Service(Mutex<State>);

struct State {
    /// The mean time of a job on its model.
    mean: Option<TimeDelta>,
    /// The same with its decoding.
    worked: Option<TimeDelta>,
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
        Self(Mutex::new(State { mean: None, worked: None, is_cautious: false, one_until: None }))
    }

    /// What is known from other workers, while this one has measured nothing.
    pub(crate) fn expect(&self, mean: Option<TimeDelta>) {
        self.with(|state| state.mean = state.mean.or(mean));
    }

    /// Notes how long a job took on its model, and with its decoding.
    pub(crate) fn note(&self, took: TimeDelta, worked: TimeDelta) {
        self.with(|state| {
            state.mean = Some(moved(state.mean, took));
            state.worked = Some(moved(state.worked, worked));
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

    /// The most messages to hold under leases of this length: the one that runs, and those that begin within a part of the lease; of
    /// fast jobs those that are done within [`AHEAD`].
    pub(crate) fn held_max(&self, visibility: TimeDelta) -> u32 {
        if Fix::PrefetchTen.is_left_out() {
            return u32::try_from(HELD_SLOW_MAX).unwrap_or(1);
        }
        let wait = visibility / WAIT_PART;
        let held = self.with(|state| match state.mean {
            Some(mean) if !state.is_cautious && !state.holds_one() => {
                let soon = (1 + count(wait, mean)).min(HELD_SLOW_MAX);
                // Not before this worker has measured it: how long decoding takes, no other can tell.
                let fast = state.worked.map_or(1, |worked| 1 + count(wait.min(AHEAD), worked));
                soon.max(fast)
            }
            _ => 1,
        });
        u32::try_from(held).unwrap_or(HELD_MAX).clamp(1, HELD_MAX)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many jobs of this length fit into a time.
fn count(span: TimeDelta, job: TimeDelta) -> i64 {
    let micros = |span: TimeDelta| span.num_microseconds().unwrap_or(i64::MAX);
    micros(span) / micros(job).max(1)
}

/// The mean, moved by a new value.
fn moved(mean: Option<TimeDelta>, new: TimeDelta) -> TimeDelta {
    let mean = mean.unwrap_or(new);
    mean + (new - mean) / WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_jobs_are_fetched_ahead_and_long_ones_are_left_to_other_workers() {
        let lease = TimeDelta::seconds(60);
        let held = |millis: [i64; 2]| {
            let service = Service::new();
            let [took, worked] = millis.map(TimeDelta::milliseconds);
            service.note(took, worked);
            service.held_max(lease)
        };
        let alike = |millis: i64| held([millis; 2]);
        assert_eq!([1_000, 5_000, 15_000, 60_000].map(alike), [10, 4, 2, 1]);
        // Two seconds' worth of fast jobs.
        assert_eq!([0, 1, 5, 15, 50, 100, 400].map(alike), [256, 256, 256, 134, 41, 21, 10]);
        // A model that is fast does not make up for decoding that is not: ten at most.
        assert_eq!(held([1, 5_000]), 10);
    }

    #[test]
    fn before_a_job_was_measured_and_after_one_that_waited_too_long_one_is_held() {
        let (service, lease) = (Service::new(), TimeDelta::seconds(60));
        let short = TimeDelta::milliseconds(10);
        assert_eq!(service.held_max(lease), 1);
        service.expect(Some(short));
        assert_eq!(service.held_max(lease), 10, "measured by others only");
        service.be_cautious();
        assert_eq!(service.held_max(lease), 1);
        service.note(short, short);
        assert_eq!(service.held_max(lease), 201);
    }
}
