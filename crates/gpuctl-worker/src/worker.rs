//! A worker on one box: what its tasks share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::ports::Ports;
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_core::observation::BootPhase;
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_core::without::Fix;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;

use crate::faults::Faults;
use crate::leases::Leases;
use crate::line::Line;
use crate::pace::std_time;
use crate::running::Running;
use crate::service::Service;
use crate::suspects::Suspects;
use crate::{Cancel, Inference, Neighbours, Scratch, WorkerExit};

/// The most jobs that are decoded or wait for a model at once: two batches of a fast model. A suspect takes all of these places.
pub(crate) const RUNS_MAX: u32 = 128;
/// The most jobs whose inputs are fetched, or lie on the disk until they are decoded: each may be gigabytes.
const FETCHES_MAX: usize = 32;
/// The most memory for decoded inputs, in MiB. An input that needs more is decoded alone.
pub(crate) const DECODED_MIB_MAX: u32 = 2_048;

/// Which box this is, and when its run began.
#[derive(Clone, Debug)]
pub struct WorkerSetup {
    pub pool: PoolId,
    pub box_id: BoxId,
    /// Which of the box's devices it works on, where several workers share the box.
    pub device: Option<String>,
    /// When the box was asked to start: the key of the run. The box's lifetime counts from here.
    pub run_started_at: Timestamp,
    /// The process's id.
    pub pid: u32,
    /// How long the parts of the box's boot took, for its reports.
    pub boot_phases: Vec<BootPhase>,
}

/// What a worker works with.
#[derive(Clone)]
pub struct Parts {
    pub ports: Ports,
    pub inference: Arc<dyn Inference>,
    pub scratch: Arc<dyn Scratch>,
    pub neighbours: Arc<dyn Neighbours>,
    /// How often it asks its queue and its ledger.
    pub pace: WorkerPace,
}

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The pool is not in the policy, or has no queue.
    #[error("pool `{0}` has no queue, or is not in the configuration: a worker needs one")]
    NoQueue(PoolId),
}

/// A worker on one box.
pub struct Worker {
    pub(crate) ports: Ports,
    pub(crate) inference: Arc<dyn Inference>,
    pub(crate) scratch: Arc<dyn Scratch>,
    pub(crate) neighbours: Arc<dyn Neighbours>,
    pub(crate) leases: Leases,
    pub(crate) faults: Faults,
    pub(crate) suspects: Suspects,
    pub(crate) line: Line,
    pub(crate) running: Running,
    pub(crate) service: Service,
    /// Results committed in this run, and jobs that it dropped since no one waits for them.
    pub(crate) jobs_done: AtomicU32,
    /// Bytes of results that cannot be committed now.
    pub(crate) held_bytes: AtomicU64,
    pub(crate) policy: Policy,
    pub(crate) queue: QueuePolicy,
    pub(crate) setup: WorkerSetup,
    pub(crate) pace: WorkerPace,
    /// When the box will have been up for as long as the policy allows.
    pub(crate) lifetime_end: Option<Instant>,
    /// Places for jobs that are decoded or wait for a model.
    pub(crate) runs: Semaphore,
    pub(crate) fetches: Semaphore,
    /// Memory for decoded inputs, in MiB.
    pub(crate) memory: Semaphore,
    /// Held while a receive is under way: who holds it knows that no message arrives.
    pub(crate) receiving: AsyncMutex<()>,
    /// Held while the box is being stopped.
    pub(crate) stopping: AsyncMutex<()>,
    /// Whether this worker has stopped the box, and all workers on it.
    pub(crate) has_stopped_box: AtomicBool,
    /// Nothing more is received, and what has begun is finished.
    pub(crate) draining: Cancel,
    /// The drain is over: what is not done is put away.
    pub(crate) ending: Cancel,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready_at: Option<Timestamp>,
    exit: Option<WorkerExit>,
    /// When the cloud takes the box.
    interrupted_at: Option<Timestamp>,
    /// When the cloud recommended to replace the box.
    rebalance: Option<Timestamp>,
}

impl Worker {
    /// A worker that is ready to serve; nothing is received yet.
    ///
    /// # Errors
    /// When the pool is not in the policy, or has no queue.
    pub fn new(parts: Parts, policy: &Policy, setup: WorkerSetup) -> Result<Self, WorkerError> {
        let no_queue = || WorkerError::NoQueue(setup.pool.clone());
        let pool = policy.pool(&setup.pool).ok_or_else(no_queue)?;
        let queue = pool.queue().ok_or_else(no_queue)?.clone();
        let now = parts.ports.clock.now();
        // The clock is asked once: a clock that is set later must not end the box.
        let since = if Fix::LifetimeFromReady.is_left_out() { now } else { setup.run_started_at };
        let up = (now - since).max(TimeDelta::zero());
        let left = std_time((pool.lifetime_max - up).max(TimeDelta::zero()));
        Ok(Self {
            leases: Leases::new(now),
            faults: Faults::default(),
            suspects: Suspects::new(Arc::clone(&parts.scratch), queue.receives_max.get()),
            line: Line::default(),
            running: Running::default(),
            service: Service::new(),
            jobs_done: AtomicU32::new(0),
            held_bytes: AtomicU64::new(0),
            policy: policy.clone(),
            queue,
            setup,
            pace: parts.pace,
            lifetime_end: Instant::now().checked_add(left),
            runs: Semaphore::new(RUNS_MAX as usize),
            fetches: Semaphore::new(FETCHES_MAX),
            memory: Semaphore::new(DECODED_MIB_MAX as usize),
            receiving: AsyncMutex::new(()),
            stopping: AsyncMutex::new(()),
            has_stopped_box: AtomicBool::new(false),
            draining: Cancel::new(),
            ending: Cancel::new(),
            state: Mutex::default(),
            ports: parts.ports,
            inference: parts.inference,
            scratch: parts.scratch,
            neighbours: parts.neighbours,
        })
    }

    /// Tells the worker's tasks to finish what they hold and to receive nothing more.
    pub(crate) fn drain(&self, exit: WorkerExit) {
        self.will_end(exit);
        // A command that runs outlives the box's lifetime: it has a limit of its own.
        if exit != WorkerExit::Lifetime {
            self.inference.hand_over();
        }
        self.draining.cancel();
    }

    /// Notes why the worker is about to end; the first reason counts.
    pub(crate) fn will_end(&self, exit: WorkerExit) {
        self.with(|state| *state.exit.get_or_insert(exit));
    }

    /// Drains before the cloud takes the box, whatever it was to end for before.
    pub(crate) fn drain_before(&self, interrupted_at: Timestamp) {
        self.with(|state| {
            state.exit = Some(WorkerExit::Interrupted);
            state.interrupted_at = Some(interrupted_at);
        });
        self.inference.hand_over();
        self.draining.cancel();
    }

    /// Why it drains.
    pub(crate) fn exit(&self) -> Option<WorkerExit> {
        self.with(|state| state.exit)
    }

    pub(crate) fn interrupted_at(&self) -> Option<Timestamp> {
        self.with(|state| state.interrupted_at)
    }

    /// Notes what the cloud recommends: jobs go on, and controllers are told by reports.
    pub(crate) fn set_rebalance(&self, at: Option<Timestamp>) {
        self.with(|state| state.rebalance = at);
    }

    pub(crate) fn rebalance(&self) -> Option<Timestamp> {
        self.with(|state| state.rebalance)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Notes that the box can run jobs.
    pub(crate) fn set_ready(&self) {
        let now = self.now();
        self.with(|state| *state.ready_at.get_or_insert(now));
        tracing::info!(r#box = %self.box_id(), queue = %self.queue.name, "ready");
    }

    pub(crate) fn ready_at(&self) -> Option<Timestamp> {
        self.with(|state| state.ready_at)
    }

    pub(crate) fn box_id(&self) -> &BoxId {
        &self.setup.box_id
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
