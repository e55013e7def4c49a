//! A flag that is set once, and can be waited for or polled: by tasks here, and by a model between two of its stages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Tells a job to stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    // Not tokio's `watch`, which wakes its listeners in a random order.
    changed: Arc<Notify>,
}

impl Cancel {
    /// One that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Completes once it is set.
    pub async fn cancelled(&self) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        // Registered before the flag is read, or a change between the two would be missed.
        changed.as_mut().enable();
        if !self.is_cancelled() {
            changed.await;
        }
    }
}
