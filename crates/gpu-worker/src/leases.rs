//! The messages that this worker holds, and the heartbeat that extends their leases, also of those that still wait.
//!
//! A lease that is lost cancels its job: another worker may have the message, so nothing is committed and nothing acked. What
//! becomes of a message is decided in `job`, not here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use gpu_inference::Cancel;
use gpuctl_control::ports::{PortErrorClass, Ports, Receipt};
use gpuctl_control::worker_timing::{HANG_GRACE, heartbeat_every};
use gpuctl_core::units::Timestamp;

/// The held messages; shared by all of the worker's tasks.
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

    /// Forgets a message: from here on the heartbeat no longer extends its lease.
    pub(crate) fn forget(&self, receipt: &Receipt, now: Timestamp) {
        self.with(|held| {
            held.jobs.remove(receipt);
            if held.jobs.is_empty() {
                held.idle_since = held.idle_since.or(Some(now));
            }
        });
    }

    /// How many messages are held, and, if none is, since when.
    pub(crate) fn count(&self) -> (u32, Option<Timestamp>) {
        self.with(|held| (u32::try_from(held.jobs.len()).unwrap_or(u32::MAX), held.idle_since))
    }

    /// Cancels jobs that have been held for longer than `job_max`. Returns whether one is still held `HANG_GRACE` later.
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

    /// Cancels every job and releases its message to the queue, to be delivered again at once.
    pub(crate) async fn release_all(&self, ports: &Ports) {
        let all: Vec<(Receipt, (Cancel, Timestamp))> =
            self.with(|held| held.jobs.drain().collect());
        for (receipt, (cancel, _)) in all {
            cancel.cancel();
            if let Err(error) = ports.queue.change_one(&receipt, TimeDelta::zero()).await {
                tracing::warn!(%error, "a message could not be released: it is delivered again when its lease runs out");
            }
        }
    }

    /// Extends every lease at each heartbeat, for ever.
    pub(crate) async fn keep_alive(&self, ports: &Ports, visibility: TimeDelta) {
        let heartbeat = heartbeat_every(visibility).to_std().unwrap_or_default();
        loop {
            tokio::time::sleep(heartbeat).await;
            let all: Vec<Receipt> = self.with(|held| held.jobs.keys().cloned().collect());
            for receipt in all {
                // If the message was forgotten meanwhile, its receipt is void, and a failure means nothing.
                let Err(error) = ports.queue.change_one(&receipt, visibility).await else {
                    continue;
                };
                if error.class == PortErrorClass::LeaseLost {
                    if let Some((cancel, _)) = self.with(|held| held.jobs.get(&receipt).cloned()) {
                        tracing::warn!("a lease was lost: its job is cancelled here");
                        cancel.cancel();
                    }
                } else {
                    tracing::warn!(%error, "a lease could not be extended; the next heartbeat tries again");
                }
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
