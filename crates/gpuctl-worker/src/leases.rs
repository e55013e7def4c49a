//! The messages that this worker holds, and the heartbeat that extends their leases, also of those that still wait.
//!
//! A lease that is lost cancels its job: another worker may have the message. What becomes of a message is decided in `job`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobId};
use gpuctl_control::ports::{Ended, PortError, PortErrorClass, Ports, Receipt};
use gpuctl_core::units::Timestamp;
use gpuctl_core::without::Fix;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::timeout;

use crate::Cancel;
use crate::pace::{CALL_TIME_MAX, HEARTBEAT_WAIT_MAX};

/// The held messages; shared by all of the worker's tasks.
pub(crate) struct Leases {
    held: Mutex<Held>,
    /// Held while a heartbeat is under way.
    beating: AsyncMutex<()>,
    pub(crate) changed: Notify,
}

struct Held {
    /// In the order in which they were received.
    leases: Vec<Arc<Lease>>,
    idle_since: Option<Timestamp>,
}

/// The lease of one message.
pub(crate) struct Lease {
    pub(crate) receipt: Receipt,
    /// Set if the lease is lost or given up before its job is done.
    pub(crate) cancel: Cancel,
    is_lost: AtomicBool,
    /// The job's id and generation, once its message was read.
    job: OnceLock<(JobId, u32)>,
    /// Set if the job has ended without this worker.
    has_ended: AtomicBool,
    /// Whether the model has begun with its job: then a drain lets it finish.
    has_begun: AtomicBool,
    /// Whether its job was tried, be it in vain: then this receive counts.
    is_tried: AtomicBool,
    /// Whether a try of it has ended: then it counts, however long it waits later.
    has_ended_try: AtomicBool,
    /// Whether the heartbeat leaves it out.
    is_left: AtomicBool,
    /// Whether its message may be deleted with the commit of its result, which is under way.
    is_ending: AtomicBool,
    /// Whether a heartbeat did not find it in either case: if its message is not deleted by then, the lease is lost.
    is_missed: AtomicBool,
}

impl Lease {
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::Relaxed)
    }

    /// Notes whose lease it is.
    pub(crate) fn is_of(&self, job: &Job) {
        // A message is read once.
        let _ = self.job.set((job.id.clone(), job.generation));
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        self.note_try();
    }

    pub(crate) fn note_try(&self) {
        self.is_tried.store(true, Ordering::Relaxed);
    }

    pub(crate) fn note_ended_try(&self) {
        self.has_ended_try.store(true, Ordering::Relaxed);
        self.note_try();
    }

    /// What was noted as a try was only a wait behind another job.
    pub(crate) fn note_mere_wait(&self) {
        let has_ended_try = self.has_ended_try.load(Ordering::Relaxed);
        self.is_tried.store(has_ended_try, Ordering::Relaxed);
    }

    pub(crate) fn is_tried(&self) -> bool {
        self.is_tried.load(Ordering::Relaxed)
    }

    /// Commits the result, and with it perhaps the ack. The heartbeat goes on meanwhile, since a store may need long.
    pub(crate) async fn end_by(
        &self,
        commit: impl Future<Output = Result<Ended, PortError>>,
    ) -> Result<Ended, PortError> {
        let ending = Ending::new(self);
        let ended = within("the commit", commit).await?;
        if ended.is_acked {
            ending.stays();
        }
        Ok(ended)
    }

    /// A heartbeat did not find it.
    fn lose(&self) {
        tracing::warn!("a lease was lost: its job is cancelled here");
        self.is_lost.store(true, Ordering::Relaxed);
        self.cancel.cancel();
    }

    /// Whether a heartbeat, a release or a cancellation has nothing to do with it.
    fn is_left_out(&self) -> bool {
        self.is_left.load(Ordering::Relaxed) || self.is_ending.load(Ordering::Relaxed)
    }
}

/// A lease that may end with the commit of its result, as long as this lives.
struct Ending<'a>(&'a Lease);

impl<'a> Ending<'a> {
    fn new(lease: &'a Lease) -> Self {
        lease.is_ending.store(true, Ordering::Relaxed);
        Self(lease)
    }

    /// The message is deleted.
    fn stays(self) {
        std::mem::forget(self);
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_ending.store(false, Ordering::Relaxed);
        if self.0.is_missed() {
            self.0.lose();
        }
    }
}

impl Leases {
    pub(crate) fn new(idle_since: Timestamp) -> Self {
        let held = Held { leases: Vec::new(), idle_since: Some(idle_since) };
        Self { held: Mutex::new(held), beating: AsyncMutex::new(()), changed: Notify::new() }
    }

    /// Holds a message from now on.
    pub(crate) fn hold(&self, receipt: &Receipt) -> Arc<Lease> {
        let lease = Arc::new(Lease {
            receipt: receipt.clone(),
            cancel: Cancel::new(),
            is_lost: AtomicBool::new(false),
            job: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            is_tried: AtomicBool::new(false),
            has_ended_try: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_missed: AtomicBool::new(false),
        });
        self.with(|held| {
            held.leases.push(Arc::clone(&lease));
            held.idle_since = None;
        });
        lease
    }

    /// Forgets a message: from here on the heartbeat no longer extends its lease.
    pub(crate) fn forget(&self, lease: &Arc<Lease>, now: Timestamp) {
        self.with(|held| {
            held.leases.retain(|one| !Arc::ptr_eq(one, lease));
            if held.leases.is_empty() {
                held.idle_since = held.idle_since.or(Some(now));
            }
        });
        self.changed.notify_waiters();
    }

    /// How many messages are held, and, if none is, since when.
    pub(crate) fn count(&self) -> (u32, Option<Timestamp>) {
        self.with(|held| (u32::try_from(held.leases.len()).unwrap_or(u32::MAX), held.idle_since))
    }

    /// Completes once no message is held.
    pub(crate) async fn none_held(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count().0 == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Deletes the message, after a heartbeat that is under way: one that meets a message which is being deleted reports a lost lease.
    pub(crate) async fn ack(&self, ports: &Ports, lease: &Lease) -> Result<(), PortError> {
        let acked = match self.leave_out(lease).await {
            Ok(()) => within("the ack", ports.queue.ack_one(&lease.receipt)).await,
            Err(lost) => Err(lost),
        };
        lease.is_left.store(false, Ordering::Relaxed);
        acked
    }

    /// Ends the lease, so that the message is delivered again after this time; a heartbeat that came later would keep it hidden.
    pub(crate) async fn release(&self, ports: &Ports, lease: &Arc<Lease>, after: TimeDelta) {
        if self.leave_out(lease).await.is_err() {
            return;
        }
        let released = ports.queue.change_one(&lease.receipt, after);
        log_unreleased(&within("the release", released).await);
    }

    /// The same at once for a message whose job has not begun, or goes on elsewhere: where the queue can, this receive does not count.
    pub(crate) async fn give_back(&self, ports: &Ports, lease: &Arc<Lease>) {
        if self.leave_out(lease).await.is_err() {
            return;
        }
        let given_back = ports.queue.give_back(std::slice::from_ref(&lease.receipt));
        match timeout(CALL_TIME_MAX, given_back).await {
            Ok(given_back) => given_back.iter().for_each(log_unreleased),
            Err(_) => tracing::warn!("a message could not be released in time"),
        }
    }

    /// Makes sure that the message is still held, and for long enough to bury it: then what is noted of its death holds. Where the queue
    /// cannot say, the burial itself finds out.
    pub(crate) async fn hold_to_bury(
        &self,
        ports: &Ports,
        lease: &Lease,
        visibility: TimeDelta,
    ) -> Result<(), PortError> {
        self.leave_out(lease).await?;
        match within("the lease", ports.queue.change_one(&lease.receipt, visibility)).await {
            Err(error) if error.class == PortErrorClass::LeaseLost => {
                lease.lose();
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Leaves a lease out of heartbeats from now on, after one that is under way, which takes no longer than this waits. An error if it is
    /// lost: nothing more is to be done with its message.
    async fn leave_out(&self, lease: &Lease) -> Result<(), PortError> {
        lease.is_left.store(true, Ordering::Relaxed);
        let _ = timeout(CALL_TIME_MAX, self.beating.lock()).await;
        if lease.is_missed() && !lease.is_lost() {
            lease.lose();
        }
        if lease.is_lost() && !Fix::AckWithDeadReceipt.is_left_out() {
            let text = "a heartbeat did not find the message";
            return Err(PortError::new(PortErrorClass::LeaseLost, text));
        }
        Ok(())
    }

    /// Cancels the jobs that have not begun, or all, and releases their messages, to be delivered again at once.
    pub(crate) async fn release_all(&self, ports: &Ports, which: Which, now: Timestamp) {
        let all = self.with(|held| held.leases.clone());
        let chosen = |lease: &&Arc<Lease>| {
            let begun = lease.has_begun.load(Ordering::Relaxed);
            let is_open = !lease.is_ending.load(Ordering::Relaxed);
            (which == Which::All || !begun)
                && is_open
                && !lease.is_left.swap(true, Ordering::Relaxed)
        };
        let chosen: Vec<&Arc<Lease>> = all.iter().filter(chosen).collect();
        if chosen.is_empty() {
            return;
        }
        let _ = timeout(HEARTBEAT_WAIT_MAX, self.beating.lock()).await;
        chosen.iter().for_each(|lease| lease.cancel.cancel());
        let held = chosen.iter().copied().filter(|lease| !lease.is_lost() && !lease.is_missed());
        let (tried, untried): (Vec<_>, Vec<_>) = held.partition(|lease| lease.is_tried());
        let (tried, untried) = (receipts(&tried), receipts(&untried));
        let released = async {
            if !tried.is_empty() {
                let released = ports.queue.change_visibility(&tried, TimeDelta::zero()).await;
                released.iter().for_each(log_unreleased);
            }
            if !untried.is_empty() {
                ports.queue.give_back(&untried).await.iter().for_each(log_unreleased);
            }
        };
        if timeout(CALL_TIME_MAX, released).await.is_err() {
            tracing::warn!("messages could not be released in time");
        }
        chosen.iter().for_each(|lease| self.forget(lease, now));
    }

    /// One heartbeat: extends every lease.
    pub(crate) async fn extend_all(&self, ports: &Ports, visibility: TimeDelta) {
        let _beating = self.beating.lock().await;
        let all = self.with(|held| held.leases.clone());
        let is_kept =
            |lease: &&Arc<Lease>| !lease.is_lost() && !lease.is_left.load(Ordering::Relaxed);
        let kept: Vec<&Arc<Lease>> = all.iter().filter(is_kept).collect();
        let receipts = receipts(&kept);
        if receipts.is_empty() {
            return;
        }
        match timeout(CALL_TIME_MAX, ports.queue.change_visibility(&receipts, visibility)).await {
            Ok(extended) => {
                kept.iter().zip(extended).for_each(|(lease, result)| note(lease, result));
            }
            Err(_) => tracing::warn!(
                "leases could not be extended in time; the next heartbeat tries again"
            ),
        }
    }

    /// Cancels the jobs that a user has cancelled, where that does not end their leases.
    pub(crate) async fn cancel_ended(&self, ports: &Ports) {
        let all = self.with(|held| held.leases.clone());
        let is_open = |lease: &&Arc<Lease>| !lease.cancel.is_cancelled() && !lease.is_left_out();
        let (leases, held): (Vec<&Arc<Lease>>, Vec<(JobId, u32)>) = all
            .iter()
            .filter(is_open)
            .filter_map(|lease| Some((lease, lease.job.get()?.clone())))
            .unzip();
        if held.is_empty() {
            return;
        }
        match within("the ledger", ports.ledger.have_ended(&held)).await {
            Ok(ended) => {
                for (lease, _) in leases.iter().zip(ended).filter(|(_, has_ended)| *has_ended) {
                    lease.has_ended.store(true, Ordering::Relaxed);
                    lease.cancel.cancel();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot see which jobs were cancelled; the next heartbeat tries again");
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which messages to release.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    NotBegun,
}

fn receipts(leases: &[&Arc<Lease>]) -> Vec<Receipt> {
    leases.iter().map(|lease| lease.receipt.clone()).collect()
}

fn note(lease: &Lease, extended: Result<(), PortError>) {
    let Err(error) = extended else { return };
    if error.class != PortErrorClass::LeaseLost {
        tracing::warn!(%error, "a lease could not be extended; the next heartbeat tries again");
    } else if lease.is_left_out() {
        lease.is_missed.store(true, Ordering::Relaxed);
    } else {
        lease.lose();
    }
}

fn log_unreleased(released: &Result<(), PortError>) {
    if let Err(error) = released {
        tracing::warn!(%error, "a message could not be released: it is delivered again when its lease runs out");
    }
}

/// A call's outcome, or an error if it takes too long.
pub(crate) async fn within<T>(
    what: &str,
    call: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    timeout(CALL_TIME_MAX, call).await.unwrap_or_else(|_| {
        let text = format!("{what} took longer than {} s", CALL_TIME_MAX.as_secs());
        Err(PortError::new(PortErrorClass::Unavailable, text))
    })
}

#[cfg(test)]
mod tests {
    use gpuctl_control::ports::Committed;

    use super::*;

    fn lost() -> Result<(), PortError> {
        Err(PortError::new(PortErrorClass::LeaseLost, "no such lease"))
    }

    #[tokio::test]
    async fn a_heartbeat_during_the_commit_loses_a_lease_unless_the_message_is_acked_with_it() {
        let leases = Leases::new(chrono::DateTime::UNIX_EPOCH);
        for is_acked in [true, false] {
            let lease = leases.hold(&Receipt("a".to_owned()));
            let commit = async {
                note(&lease, lost());
                assert!(!lease.is_lost());
                Ok(Ended { committed: Committed::Written, is_acked })
            };
            lease.end_by(commit).await.unwrap();
            assert_eq!(lease.is_lost(), !is_acked);
        }
    }
}
