//! When a model began with a job: from there its time is limited.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Tells the worker that the model has begun with a job.
#[derive(Debug, Default)]
pub struct JobTimer {
    started: Mutex<Option<(Instant, u32)>>,
    changed: Notify,
}

impl JobTimer {
    /// Not started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The model begins now with a batch of this many inputs: the job may take as many times its limit. Called again, e.g. for half of a
    /// batch that failed, it starts anew.
    pub fn start(&self, inputs: u32) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), inputs.max(1)));
        self.changed.notify_waiters();
    }

    fn started(&self) -> Option<(Instant, u32)> {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.started().is_some()
    }

    /// The job's share of the time since the model began; none before.
    pub(crate) fn spent(&self) -> TimeDelta {
        let share = self.started().map(|(began, inputs)| began.elapsed() / inputs);
        TimeDelta::from_std(share.unwrap_or_default()).unwrap_or_default()
    }

    /// Completes once the model has begun.
    pub(crate) async fn begun(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.started().is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Completes once the job has taken its limit.
    pub(crate) async fn over(&self, limit: Duration) {
        self.begun().await;
        while let Some((began, inputs)) = self.started() {
            let end = began + limit.saturating_mul(inputs);
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}
