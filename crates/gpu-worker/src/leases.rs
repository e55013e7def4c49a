//! The messages that this worker holds, and the one ticker that keeps their leases alive, waiting ones too.
//!
//! A lease that is lost cancels its job: another worker may have the message, so nothing is committed and nothing acked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use gpu_inference::Cancel;
use gpuctl_control::ports::{PortErrorClass, Ports, Receipt};
use gpuctl_core::units::Timestamp;

/// How long a cancelled job may take to notice: a model looks between two of its stages.
const HANG_GRACE: TimeDelta = TimeDelta::seconds(60);

/// The held messages.
pub(crate) struct Leases {
    held: Mutex<Held>,
}

struct Held {
    jobs: HashMap<Receipt, (Cancel, Timestamp)>,
    idle_since: Option<Timestamp>,
}

impl Leases {
    pub(crate) fn new(idle_since: Timestamp) -> Self {
        Self { held: Mutex::new(Held { jobs: HashMap::new(), idle_since: Some(idle_since) }) }
    }

    /// Holds a message from now on; the flag is set if its lease is lost.
    pub(crate) fn hold(&self, receipt: &Receipt, now: Timestamp) -> Cancel {
        let cancel = Cancel::new();
        self.with(|held| {
            held.jobs.insert(receipt.clone(), (cancel.clone(), now));
            held.idle_since = None;
        });
        cancel
    }

    /// Lets a message go: from here on the ticker leaves it alone.
    pub(crate) fn let_go(&self, receipt: &Receipt, now: Timestamp) {
        self.with(|held| {
            held.jobs.remove(receipt);
            if held.jobs.is_empty() {
                held.idle_since = held.idle_since.or(Some(now));
            }
        });
    }

    /// How many are held, and since when none has been.
    pub(crate) fn count(&self) -> (u32, Option<Timestamp>) {
        self.with(|held| (u32::try_from(held.jobs.len()).unwrap_or(u32::MAX), held.idle_since))
    }

    /// Cancels jobs that have been held for longer than `job_max`; says whether one goes on for `HANG_GRACE` regardless.
    pub(crate) fn cancel_overdue(&self, now: Timestamp, job_max: TimeDelta) -> bool {
        self.with(|held| {
            let mut hangs = false;
            for (cancel, since) in held.jobs.values().filter(|(_, since)| now - *since > job_max) {
                cancel.cancel();
                hangs |= now - *since > job_max + HANG_GRACE;
            }
            hangs
        })
    }

    /// Cancels every job and gives its message back at once.
    pub(crate) async fn give_back_all(&self, ports: &Ports) {
        let all: Vec<(Receipt, (Cancel, Timestamp))> =
            self.with(|held| held.jobs.drain().collect());
        for (receipt, (cancel, _)) in all {
            cancel.cancel();
            if let Err(error) = ports.queue.change_visibility(&receipt, TimeDelta::zero()).await {
                tracing::warn!(%error, "a message could not be given back: it comes back when its lease runs out");
            }
        }
    }

    /// Extends every lease at a third of its length, so that two beats may fail before one is lost.
    pub(crate) async fn keep_alive(&self, ports: &Ports, visibility: TimeDelta) {
        let beat = visibility.to_std().unwrap_or_default() / 3;
        loop {
            tokio::time::sleep(beat).await;
            let all: Vec<Receipt> = self.with(|held| held.jobs.keys().cloned().collect());
            for receipt in all {
                // The message may have been let go since: then its receipt is void, and that means nothing.
                let Err(error) = ports.queue.change_visibility(&receipt, visibility).await else {
                    continue;
                };
                if error.class == PortErrorClass::LeaseLost {
                    if let Some((cancel, _)) = self.with(|held| held.jobs.get(&receipt).cloned()) {
                        tracing::warn!("a lease was lost: its job is cancelled here");
                        cancel.cancel();
                    }
                } else {
                    tracing::warn!(%error, "a lease could not be extended; the next beat tries again");
                }
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
