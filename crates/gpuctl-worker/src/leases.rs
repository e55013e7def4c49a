//! The messages that this worker holds, and the heartbeat that extends their leases, also of those that still wait.
//!
//! A lease that is lost cancels its job: another worker may have the message, so nothing is committed and nothing acked. What
//! becomes of a message is decided in `job`, not here.

use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::ports::{PortErrorClass, Ports, Receipt};
use gpuctl_control::worker_timing::{HANG_GRACE, heartbeat_every};
use gpuctl_core::units::Timestamp;
use tokio::time::Instant;

use crate::Cancel;
use crate::worker::std_time;

/// The held messages; shared by all of the worker's tasks.
pub(crate) struct Leases {
    held: Mutex<Held>,
}

struct Held {
    /// In the order in which they were received.
    jobs: Vec<Lease>,
    idle_since: Option<Timestamp>,
}

#[derive(Clone)]
struct Lease {
    receipt: Receipt,
    cancel: Cancel,
    since: Instant,
}

impl Leases {
    pub(crate) fn new(idle_since: Timestamp) -> Self {
        Self { held: Mutex::new(Held { jobs: Vec::new(), idle_since: Some(idle_since) }) }
    }

    /// Holds a message from now on; the flag is set if its lease is lost.
    pub(crate) fn hold(&self, receipt: &Receipt, _now: Timestamp) -> Cancel {
        let cancel = Cancel::new();
        self.with(|held| {
            held.jobs.retain(|lease| lease.receipt != *receipt);
            held.jobs.push(Lease {
                receipt: receipt.clone(),
                cancel: cancel.clone(),
                since: Instant::now(),
            });
            held.idle_since = None;
        });
        cancel
    }

    /// Forgets a message: from here on the heartbeat no longer extends its lease.
    pub(crate) fn forget(&self, receipt: &Receipt, now: Timestamp) {
        self.with(|held| {
            held.jobs.retain(|lease| lease.receipt != *receipt);
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
    pub(crate) fn cancel_overdue(&self, job_max: TimeDelta) -> bool {
        self.with(|held| {
            let mut hangs = false;
            let limit = std_time(job_max);
            for lease in held.jobs.iter().filter(|lease| lease.since.elapsed() > limit) {
                lease.cancel.cancel();
                hangs |= lease.since.elapsed() > limit + std_time(HANG_GRACE);
            }
            hangs
        })
    }

    /// Cancels every job and releases its message to the queue, to be delivered again at once.
    pub(crate) async fn release_all(&self, ports: &Ports) {
        let all = self.with(|held| std::mem::take(&mut held.jobs));
        if all.is_empty() {
            return;
        }
        let receipts: Vec<Receipt> = all.iter().map(|lease| lease.receipt.clone()).collect();
        all.iter().for_each(|lease| lease.cancel.cancel());
        for released in ports.queue.change_visibility(&receipts, TimeDelta::zero()).await {
            if let Err(error) = released {
                tracing::warn!(%error, "a message could not be released: it is delivered again when its lease runs out");
            }
        }
    }

    /// Extends every lease at each heartbeat, for ever.
    pub(crate) async fn keep_alive(&self, ports: &Ports, visibility: TimeDelta) {
        let heartbeat = std_time(heartbeat_every(visibility));
        loop {
            tokio::time::sleep(heartbeat).await;
            let all = self.with(|held| held.jobs.clone());
            if all.is_empty() {
                continue;
            }
            let receipts: Vec<Receipt> = all.iter().map(|lease| lease.receipt.clone()).collect();
            let extended = ports.queue.change_visibility(&receipts, visibility).await;
            for (lease, extended) in all.iter().zip(extended) {
                // If the message was forgotten meanwhile, its receipt is void, and a failure means nothing.
                let Err(error) = extended else { continue };
                if error.class == PortErrorClass::LeaseLost {
                    if self.holds(&lease.receipt) {
                        tracing::warn!("a lease was lost: its job is cancelled here");
                        lease.cancel.cancel();
                    }
                } else {
                    tracing::warn!(%error, "a lease could not be extended; the next heartbeat tries again");
                }
            }
        }
    }

    fn holds(&self, receipt: &Receipt) -> bool {
        self.with(|held| held.jobs.iter().any(|lease| lease.receipt == *receipt))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
