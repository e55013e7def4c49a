//! Receiving: how many messages, and when. What becomes of one is `job`'s business.

use std::sync::Arc;

use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, PortErrorClass, ReceiveRequest, Received};
use gpuctl_control::worker_timing::one_at_a_time;
use gpuctl_core::without::Fix;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::Worker;
use crate::faults::{Intake, Part};
use crate::job::{Dead, Message, crashed};
use crate::leases::{Which, within};
use crate::pace::{Backoff, CALL_TIME_MAX, RECEIVE_OVERTIME_MAX, std_time};

/// A worker receives once this part of what it may hold is free.
const ROOM_PART: u32 = 8;

impl Worker {
    /// Gets ready, and receives until the worker drains; then waits for its jobs.
    pub(crate) async fn receive_loop(self: Arc<Self>) {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => return,
            () = self.get_ready() => {}
        }
        let mut jobs = JoinSet::new();
        let mut backoff = Backoff::new();
        while !self.is_draining() {
            while let Some(ended) = jobs.try_join_next() {
                log_panic(ended);
            }
            // Made before anything is looked at, so that no change after that is missed.
            let (gone, fault) = (self.leases.changed.notified(), self.faults.changed.notified());
            let max = self.room();
            let max = match self.faults.intake() {
                Intake::Open => {
                    backoff = Backoff::new();
                    max
                }
                Intake::Trickle if max > 0 && self.is_probed(&mut backoff).await => 1,
                Intake::Trickle | Intake::Closed => 0,
            };
            if max == 0 || self.is_draining() {
                tokio::select! {
                    biased;
                    () = self.draining.cancelled() => {}
                    () = gone => {}
                    () = fault => {}
                }
                continue;
            }
            match self.receive_some(max).await {
                Ok(messages) => {
                    for message in messages {
                        jobs.spawn(Arc::clone(&self).process(message));
                    }
                }
                Err(error) => {
                    self.faults.raise(Part::Queue, &Part::Queue.fault(&error), self.now());
                }
            }
        }
        while let Some(ended) = jobs.join_next().await {
            log_panic(ended);
        }
    }

    /// Settles what an earlier worker left on this box, and waits until the box can run jobs.
    async fn get_ready(&self) {
        let suspects = self.suspects.after_crash();
        let may_crash = self.suspects.serve_after_crashes(!suspects.is_empty(), self.now());
        let notes = async {
            for (job, crashes) in suspects {
                tracing::warn!(job = %job.id, crashes, "the last worker died while this job ran");
                self.note_problem(job, crashed(crashes), Dead::No).await;
            }
        };
        // This box knows its suspects by its own markers: a ledger that hangs must not keep it from being ready.
        if timeout(CALL_TIME_MAX, notes).await.is_err() {
            tracing::warn!("not every job that ran was noted in the ledger in time");
        }
        let mut backoff = Backoff::new();
        while let Err(fault) = self.inference.probe().await {
            self.faults.raise(Part::Box, &fault, self.now());
            tokio::time::sleep(backoff.next_wait()).await;
        }
        self.faults.clear(Part::Box);
        // From here on it receives: models that come late use up none of that time.
        if may_crash && !Fix::FullHandsAfterCrash.is_left_out() {
            self.service.hold_one_for(std_time(one_at_a_time(self.queue.visibility)));
        }
        self.set_ready();
        let memory = within("the ledger", self.ports.ledger.memory(&self.setup.pool)).await;
        self.service.expect(memory.ok().and_then(|memory| memory.service));
        self.commit_put_away().await;
    }

    /// How many messages to receive now: none while a suspect waits or runs, or a command runs, nor a few where many are held: fewer calls
    /// fetch as many.
    fn room(&self) -> u32 {
        if self.line.len() > 0 && !Fix::FullHandsAfterCrash.is_left_out() {
            return 0;
        }
        if self.inference.runs_command() {
            return 0;
        }
        let most = self.service.held_max(self.queue.visibility);
        let room = most.saturating_sub(self.leases.count().0);
        if room >= most / ROOM_PART { room } else { 0 }
    }

    /// While a fault lasts: waits, longer each time, and asks whether the box could run a job.
    async fn is_probed(&self, backoff: &mut Backoff) -> bool {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => return false,
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
        match self.inference.probe().await {
            Ok(()) => true,
            Err(fault) => {
                self.faults.raise(Part::Box, &fault, self.now());
                false
            }
        }
    }

    /// Receives; what arrives once the worker drains goes back at once. A receive that is under way is not dropped: its messages would be
    /// hidden until their leases run out.
    async fn receive_some(self: &Arc<Self>, max: u32) -> Result<Vec<Message>, PortError> {
        let _receive_lock = self.receiving.lock().await;
        if self.is_draining() {
            return Ok(Vec::new());
        }
        let request =
            ReceiveRequest { max, visibility: self.queue.visibility, wait: self.pace.receive_wait };
        let most = std_time(self.pace.receive_wait) + RECEIVE_OVERTIME_MAX;
        let received = timeout(most, self.ports.queue.receive(&self.queue.name, request)).await;
        let received = received.unwrap_or_else(|_| {
            Err(PortError::new(PortErrorClass::Unavailable, "a receive took too long"))
        })?;
        self.faults.clear(Part::Queue);
        // Held before the lock is free again, so that the reconcile which takes it next counts them.
        let messages = received.into_iter().map(|message| self.hold(message)).collect();
        if self.is_draining() {
            self.leases.release_all(&self.ports, Which::NotBegun, self.now()).await;
            return Ok(Vec::new());
        }
        Ok(messages)
    }

    fn hold(self: &Arc<Self>, received: Received) -> Message {
        let lease = self.leases.hold(&received.receipt);
        Message { received, received_at: self.now(), lease, worker: Arc::clone(self) }
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %shown(error), "a job panicked; its message is delivered again when its lease runs out");
    }
}
