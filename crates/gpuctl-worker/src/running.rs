//! What runs now: so that a job which waits is known from one whose model hangs, e.g. while it opens.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The jobs that run, by what runs them; shared by all of the worker's tasks.
#[derive(Default)]
pub(crate) struct Running {
    /// How many run on it, and since when that is so.
    counts: Mutex<BTreeMap<Runner, (usize, Instant)>>,
    changed: Notify,
}

/// What runs a job: its model, or decoding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Runner {
    Decoding,
    Model(Option<String>),
}

/// A job that runs, until this is dropped.
pub(crate) struct Run<'a> {
    running: &'a Running,
    on: Runner,
}

impl Running {
    pub(crate) fn begin(&self, on: Runner) -> Run<'_> {
        self.add(&on, |count| count + 1);
        Run { running: self, on }
    }

    /// Completes once nothing has run on it for this long, from now at the earliest.
    pub(crate) async fn nothing_runs_for(&self, span: Duration, on: &Runner) {
        let began = Instant::now();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let last = self.with(|counts| counts.get(on).copied());
            let (count, since) = last.unwrap_or((0, began));
            let end = since.max(began) + span;
            if count == 0 && Instant::now() >= end {
                return;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(end), if count == 0 => {}
            }
        }
    }

    /// Whether a job has run on it at some time since then.
    pub(crate) fn has_run_since(&self, then: Instant, on: &Runner) -> bool {
        let last = self.with(|counts| counts.get(on).copied());
        last.is_some_and(|(count, since)| count > 0 || since > then)
    }

    fn add(&self, on: &Runner, change: impl FnOnce(usize) -> usize) {
        self.with(|counts| {
            let before = counts.get(on).map_or(0, |(count, _)| *count);
            counts.insert(on.clone(), (change(before), Instant::now()));
        });
        self.changed.notify_waiters();
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<Runner, (usize, Instant)>) -> T) -> T {
        work(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.running.add(&self.on, |count| count.saturating_sub(1));
    }
}
