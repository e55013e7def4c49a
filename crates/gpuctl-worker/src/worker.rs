//! A worker on one box: what its tasks share.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::ports::{PortError, Ports};
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::leases::Leases;
use crate::{Cancel, Inference, Scratch, WorkerExit};

/// Messages held at once: a batch that runs, and one that is decoded meanwhile. SQS returns at most ten a call.
pub(crate) const SLOTS: u32 = 10;

/// Which box this is, and when its run began.
#[derive(Clone, Debug)]
pub struct WorkerSetup {
    pub pool: PoolId,
    pub box_id: BoxId,
    /// When the box was asked to start: the key of the run.
    pub run_started_at: Timestamp,
    /// The process's id.
    pub pid: u32,
}

/// What a worker works with.
#[derive(Clone)]
pub struct Parts {
    pub ports: Ports,
    pub inference: Arc<dyn Inference>,
    pub scratch: Arc<dyn Scratch>,
    /// How often it asks its queue and its ledger.
    pub pace: WorkerPace,
}

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The pool is not in the policy, or has no queue.
    #[error("pool `{0}` has no queue, or is not in the configuration: a worker needs one")]
    NoQueue(PoolId),
    /// The ledger cannot be reached.
    #[error("cannot report to the ledger")]
    Ledger(#[from] PortError),
}

/// A worker on one box.
pub struct Worker {
    pub(crate) ports: Ports,
    pub(crate) inference: Arc<dyn Inference>,
    #[expect(dead_code, reason = "what it notes for its successor comes next")]
    pub(crate) scratch: Arc<dyn Scratch>,
    pub(crate) leases: Leases,
    /// Results committed in this run.
    pub(crate) jobs_done: AtomicU32,
    pub(crate) policy: Policy,
    pub(crate) queue: QueuePolicy,
    pub(crate) setup: WorkerSetup,
    pub(crate) pace: WorkerPace,
    pub(crate) ready_at: Timestamp,
    pub(crate) slots: Arc<Semaphore>,
    /// Held while a receive is under way: who holds it knows that no message arrives.
    pub(crate) receiving: AsyncMutex<()>,
    pub(crate) draining: Cancel,
    exit: Mutex<Option<WorkerExit>>,
}

impl Worker {
    /// A worker that is ready to serve; nothing is received yet.
    ///
    /// # Errors
    /// When the pool is not in the policy, or has no queue.
    pub fn new(parts: Parts, policy: &Policy, setup: WorkerSetup) -> Result<Self, WorkerError> {
        let queue = policy
            .pool(&setup.pool)
            .and_then(|pool| pool.queue())
            .ok_or_else(|| WorkerError::NoQueue(setup.pool.clone()))?;
        let now = parts.ports.clock.now();
        Ok(Self {
            leases: Leases::new(now),
            jobs_done: AtomicU32::new(0),
            policy: policy.clone(),
            queue: queue.clone(),
            setup,
            pace: parts.pace,
            ready_at: now,
            slots: Arc::new(Semaphore::new(SLOTS as usize)),
            receiving: AsyncMutex::new(()),
            draining: Cancel::new(),
            exit: Mutex::default(),
            ports: parts.ports,
            inference: parts.inference,
            scratch: parts.scratch,
        })
    }

    /// Tells the worker's tasks to finish what they hold and to receive nothing more. The first reason is the one it ends with.
    pub(crate) fn drain(&self, exit: WorkerExit) {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(exit);
        self.draining.cancel();
    }

    /// Why it drains.
    pub(crate) fn exit(&self) -> Option<WorkerExit> {
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    pub(crate) fn box_id(&self) -> &BoxId {
        &self.setup.box_id
    }
}

/// For tokio, which takes no negative times; the policy has none.
pub(crate) fn std_time(span: TimeDelta) -> Duration {
    span.to_std().unwrap_or_default()
}
