//! Receiving: how many messages, when, and which of them run side by side. What becomes of one is `job`'s business.

use std::sync::Arc;

use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, ReceiveRequest, Received};
use gpuctl_control::worker_timing::{RECEIVE_RETRY, one_at_a_time};
use gpuctl_core::observation::Run;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::worker::{SLOTS, std_time};
use crate::{Cancel, Worker};

/// A message under a lease, and the flag that is set if the lease is lost.
type HeldMessage = (Received, Cancel);

impl Worker {
    /// Receives while there is a free slot, until the worker drains; then waits for its jobs.
    ///
    /// A message that was received before may be what crashed the worker then: such suspects run alone. After a run that
    /// crashed, messages are even received one at a time for a while, so that one which crashes the worker cannot use up the
    /// receives of its neighbours.
    pub(crate) async fn receive_loop(self: Arc<Self>) {
        let mut jobs = JoinSet::new();
        self.receive_until_draining(&mut jobs).await;
        while let Some(ended) = jobs.join_next().await {
            log_panic(ended);
        }
    }

    async fn receive_until_draining(self: &Arc<Self>, jobs: &mut JoinSet<()>) {
        let caution = std_time(one_at_a_time(self.queue.visibility));
        let mut alone_until = self.last_run_crashed().await.then(|| Instant::now() + caution);
        while !self.is_draining() {
            while let Some(ended) = jobs.try_join_next() {
                log_panic(ended);
            }
            let alone = alone_until.is_some_and(|until| Instant::now() < until);
            let Some(permit) = self.free_slots(if alone { SLOTS } else { 1 }).await else { return };
            let free = u32::try_from(self.slots.available_permits()).unwrap_or(SLOTS);
            let received = match self.receive_some(if alone { 1 } else { 1 + free }).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive; trying again");
                    tokio::time::sleep(std_time(RECEIVE_RETRY)).await;
                    continue;
                }
            };
            let (suspects, fresh): (Vec<_>, Vec<_>) =
                received.into_iter().partition(|(message, _)| message.receive_count > 1);
            if alone && !suspects.is_empty() {
                alone_until = Some(Instant::now() + caution);
            }
            let mut first = Some(permit);
            for held in fresh {
                let permit =
                    first.take().or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
                jobs.spawn(Arc::clone(self).process_held(held, permit));
            }
            drop(first);
            for held in suspects {
                // All slots are its own, so whatever comes next waits. If the drain begins before its turn, it is released
                // with the rest.
                let Some(all) = self.free_slots(SLOTS).await else { return };
                jobs.spawn(Arc::clone(self).process_held(held, Some(all)));
            }
        }
    }

    /// Whether the run before this one on the same box ended without a stop. Unknown counts as a crash: caution costs little.
    async fn last_run_crashed(&self) -> bool {
        let Ok(memory) = self.ports.ledger.memory(&self.setup.pool).await else { return true };
        let before = |run: &&Run| {
            // A run that was refused or never became ready has held no message.
            run.box_id == *self.box_id()
                && run.started_at < self.setup.run_started_at
                && run.ready_at.is_some()
        };
        memory.runs.iter().find(before).is_some_and(|run| run.stop.is_none())
    }

    /// Waits for free slots; `None` once the worker is draining.
    async fn free_slots(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => None,
            permit = Arc::clone(&self.slots).acquire_many_owned(count) => permit.ok(),
        }
    }

    async fn receive_some(&self, max: u32) -> Result<Vec<HeldMessage>, PortError> {
        let _receive_lock = self.receiving.lock().await;
        if self.is_draining() {
            return Ok(Vec::new());
        }
        let request =
            ReceiveRequest { max, visibility: self.queue.visibility, wait: self.pace.receive_wait };
        let received = self.ports.queue.receive(&self.queue.name, request).await?;
        // Held before the lock is free again, so that the reconcile which takes it next counts them.
        let hold = |message: Received| {
            let cancel = self.leases.hold(&message.receipt, self.ports.clock.now());
            (message, cancel)
        };
        Ok(received.into_iter().map(hold).collect())
    }

    /// Processes a held message and forgets its lease afterwards, also if its job panicked; the permit is its slot.
    async fn process_held(
        self: Arc<Self>,
        (message, cancel): HeldMessage,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let receipt = message.receipt.clone();
        let worker = Arc::clone(&self);
        // A set of its own, so that the job ends with this task.
        let mut work = JoinSet::new();
        work.spawn(async move { worker.process(&message, &cancel).await });
        while let Some(ended) = work.join_next().await {
            log_panic(ended);
        }
        self.leases.forget(&receipt, self.ports.clock.now());
        drop(permit);
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %shown(error), "a job panicked; its message is delivered again when its lease runs out");
    }
}
