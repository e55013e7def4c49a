//! What the outside asks of a worker: to stop after a drain, and, asked a second time, to end at once.

use crate::Cancel;

/// Asks a worker to stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    drain: Cancel,
    end: Cancel,
}

impl Signals {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the worker to stop: to drain the first time, to end at once the second time.
    pub fn stop(&self) {
        if self.drain.is_cancelled() {
            self.end.cancel();
        }
        self.drain.cancel();
    }

    /// Completes once a stop is asked for.
    pub async fn stop_wanted(&self) {
        self.drain.cancelled().await;
    }

    /// Completes once the worker is to end at once.
    pub(crate) async fn end_wanted(&self) {
        self.end.cancelled().await;
    }
}
