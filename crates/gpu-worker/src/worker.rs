//! A worker's life: ready, receive and look until told to stop, drain, gone.
//!
//! Whether to stop is asked of the same `decide` that everyone asks; here it is asked with first-hand knowledge of the
//! leases, and asked once more with receiving paused, so that no message slips in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use gpu_inference::Cancel;
use gpuctl_control::act::act;
use gpuctl_control::config::Config;
use gpuctl_control::plan;
use gpuctl_control::ports::LEASE_LASTS;
use gpuctl_control::ports::{PortError, Ports, ReceiveRequest, Received, WorkerReport};
use gpuctl_core::observation::{Observation, Run, Witness};
use gpuctl_core::plan::{Action, Plan};
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};

use crate::engine::Engine;
use crate::leases::Leases;

/// Messages held at once: a batch that runs and one that is decoded meanwhile. SQS gives out at most ten a call.
const SLOTS: u32 = 10;

/// How often a worker asks: a look at a file costs microseconds, on AWS each one costs calls.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long one receive waits: the longest that a stop waits for it.
    receive_wait: TimeDelta,
    /// How often the worker reports and looks whether it should stop.
    look_every: Duration,
}

const PACE_HERE: Pace =
    Pace { receive_wait: TimeDelta::milliseconds(500), look_every: Duration::from_millis(500) };
/// A notice of interruption must be seen within 5 s (`aws.md` 9.3).
const PACE_ON_AWS: Pace =
    Pace { receive_wait: TimeDelta::seconds(5), look_every: Duration::from_secs(5) };

/// The wait after the queue failed.
const RECEIVE_RETRY: Duration = Duration::from_secs(1);

/// How long a worker without a job goes on while its reports fail: then it ends the box, since nobody else may.
const MUTE_MAX: Duration = Duration::from_secs(300);

/// A message under a lease, and the flag that is set if the lease is lost.
type HeldMessage = (Received, Cancel);

/// Which box this is, and when its run began.
#[derive(Clone, Debug)]
pub struct WorkerSetup {
    /// The pool.
    pub pool: PoolId,
    /// The box.
    pub box_id: BoxId,
    /// When the box was asked to start: the key of the run.
    pub run_started_at: Timestamp,
}

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The pool is not in the policy, or has no queue.
    #[error("pool `{0}` has no queue in this policy")]
    NoQueue(PoolId),
    /// The ledger cannot be reached.
    #[error("cannot report to the ledger")]
    Ledger(#[from] PortError),
}

/// A worker on one box.
pub struct Worker {
    pub(crate) ports: Ports,
    pub(crate) engine: Engine,
    pub(crate) leases: Leases,
    pub(crate) decoders: Semaphore,
    pub(crate) box_id: BoxId,
    /// Results kept so far.
    pub(crate) jobs_done: AtomicU32,
    pub(crate) policy: Policy,
    pub(crate) queue: QueuePolicy,
    setup: WorkerSetup,
    pace: Pace,
    ready_at: Timestamp,
    slots: Arc<Semaphore>,
    /// Held while a receive is under way: whoever has it knows that no message arrives.
    receiving: Mutex<()>,
    draining: watch::Sender<bool>,
}

impl Worker {
    /// A worker that is ready to serve.
    ///
    /// # Errors
    /// When the pool has no queue.
    pub fn new(
        ports: Ports,
        engine: Engine,
        config: &Config,
        setup: WorkerSetup,
    ) -> Result<Self, WorkerError> {
        let pool = config.policy.pool(&setup.pool);
        let queue = pool
            .and_then(|pool| pool.queue())
            .ok_or_else(|| WorkerError::NoQueue(setup.pool.clone()))?;
        let now = ports.clock.now();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            engine,
            leases: Leases::new(now),
            decoders: Semaphore::new(cores),
            box_id: setup.box_id.clone(),
            jobs_done: AtomicU32::new(0),
            policy: config.policy.clone(),
            queue: queue.clone(),
            setup,
            pace: if config.policy.cloud.aws.is_some() { PACE_ON_AWS } else { PACE_HERE },
            ready_at: now,
            slots: Arc::new(Semaphore::new(SLOTS as usize)),
            receiving: Mutex::new(()),
            draining: watch::Sender::new(false),
            ports,
        })
    }

    fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

/// Serves until `stop` comes, then drains: finishes what it holds to the policy's deadline and gives back the rest.
///
/// # Errors
/// When the ledger cannot be reached at the start; later it goes on without.
pub async fn serve(worker: Arc<Worker>, stop: impl Future<Output = ()>) -> Result<(), WorkerError> {
    worker.report().await?;
    tracing::info!(r#box = %worker.box_id, queue = %worker.queue.name, "ready");
    let beat = spawn(&worker, |worker| async move {
        worker.leases.keep_alive(&worker.ports, worker.queue.visibility).await;
    });
    let look = spawn(&worker, |worker| async move { worker.look().await });
    let receive = spawn(&worker, |worker| async move { worker.receive().await });
    let mut draining = worker.draining.subscribe();
    tokio::select! {
        () = stop => worker.drain(),
        // The sender is the worker's own, so this waits for the flag alone.
        _ = draining.wait_for(|draining| *draining) => {}
    }
    tracing::info!("draining");
    // It ends by itself once it sees the flag; a crash in it must not keep the drain from giving messages back.
    let _ = receive.await;
    let all = worker.slots.acquire_many(SLOTS);
    if tokio::time::timeout(worker.policy.worker.drain.to_std().unwrap_or_default(), all)
        .await
        .is_err()
    {
        tracing::warn!("the drain deadline is over: the rest is given back");
    }
    // Also what was received and never begun.
    worker.leases.give_back_all(&worker.ports).await;
    look.abort();
    beat.abort();
    tracing::info!("gone");
    if let Err(error) = worker.report().await {
        tracing::warn!(%error, "the last report failed");
    }
    Ok(())
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    worker: &Arc<Worker>,
    task: impl FnOnce(Arc<Worker>) -> F,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(task(Arc::clone(worker)))
}

impl Worker {
    /// Receives while there is a free slot.
    ///
    /// A message that was received before may be what ended the worker then: such suspects run alone. After a run that
    /// broke off every message is even received alone, until the last lease of that run must have come back, so that a
    /// poisonous message cannot use up the receives of its neighbours.
    async fn receive(self: Arc<Self>) {
        let caution = self.queue.visibility.to_std().unwrap_or_default() * 2;
        let mut alone_until = self.last_run_broke_off().await.then(|| Instant::now() + caution);
        while !self.is_draining() {
            let alone = alone_until.is_some_and(|until| Instant::now() < until);
            let Some(permit) = self.free_slots(if alone { SLOTS } else { 1 }).await else { return };
            let free = u32::try_from(self.slots.available_permits()).unwrap_or(SLOTS);
            let received = match self.receive_some(if alone { 1 } else { 1 + free }).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive; trying again");
                    tokio::time::sleep(RECEIVE_RETRY).await;
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
                tokio::spawn(Arc::clone(&self).see_through(held, permit));
            }
            drop(first);
            for held in suspects {
                // All slots are its own, so whatever comes next waits. Drained before its turn, it is given back with the rest.
                let Some(all) = self.free_slots(SLOTS).await else { return };
                tokio::spawn(Arc::clone(&self).see_through(held, Some(all)));
            }
        }
    }

    async fn last_run_broke_off(&self) -> bool {
        let Ok(memory) = self.ports.ledger.memory(&self.setup.pool).await else { return true };
        let before = |run: &&Run| {
            // What was refused or never got ready has held no message.
            run.box_id == self.box_id
                && run.started_at < self.setup.run_started_at
                && run.ready_at.is_some()
        };
        memory.runs.iter().find(before).is_some_and(|run| run.stop.is_none())
    }

    /// Waits for free slots; `None` once the worker is draining, which takes them all.
    async fn free_slots(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        let mut draining = self.draining.subscribe();
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => None,
            permit = Arc::clone(&self.slots).acquire_many_owned(count) => permit.ok(),
        }
    }

    async fn receive_some(&self, max: u32) -> Result<Vec<HeldMessage>, PortError> {
        let _receiving = self.receiving.lock().await;
        if self.is_draining() {
            return Ok(Vec::new());
        }
        let request =
            ReceiveRequest { max, visibility: self.queue.visibility, wait: self.pace.receive_wait };
        let received = self.ports.queue.receive(&self.queue.name, request).await?;
        // Held before `receiving` is free again, so that whoever looks then sees them.
        let hold = |message: Received| {
            let cancel = self.leases.hold(&message.receipt, self.ports.clock.now());
            (message, cancel)
        };
        Ok(received.into_iter().map(hold).collect())
    }

    /// Works on a held message and lets it go, whatever becomes of it; the permit is its slot.
    async fn see_through(
        self: Arc<Self>,
        (message, cancel): HeldMessage,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let receipt = message.receipt.clone();
        let worker = Arc::clone(&self);
        let work = tokio::spawn(async move { worker.work_on(&message, &cancel).await });
        if let Err(error) = work.await {
            tracing::error!(%error, "a job broke off; its message comes back when its lease runs out");
        }
        self.leases.let_go(&receipt, self.ports.clock.now());
        drop(permit);
    }

    /// Reports and asks whether to stop, again and again.
    async fn look(self: Arc<Self>) {
        let mut reported_at = Instant::now();
        loop {
            tokio::time::sleep(self.pace.look_every).await;
            match self.report().await {
                Ok(()) => reported_at = Instant::now(),
                Err(error) => {
                    tracing::warn!(%error, "cannot report; trying again");
                    if reported_at.elapsed() > MUTE_MAX && self.leases.count().0 == 0 {
                        tracing::error!(
                            "nobody has heard of this box for too long: it ends by itself"
                        );
                        self.drain();
                    }
                    continue;
                }
            }
            if self.leases.cancel_overdue(self.ports.clock.now(), self.policy.worker.job_max) {
                tracing::error!(
                    "a job hangs although it was cancelled: this worker ends, the next one starts anew"
                );
                self.drain();
            }
            if self.wanted_stop().await.is_none() || self.is_draining() {
                continue;
            }
            // A message may have come in meanwhile: once more, with the door shut.
            let _door = self.receiving.lock().await;
            if self.report().await.is_err() {
                continue;
            }
            let Some((seen, stop)) = self.wanted_stop().await else { continue };
            self.drain();
            // The box is asked to stop, as anyone would ask it: on this machine a signal comes back to this very process.
            for done in act(&self.ports, &seen, &stop, seen.at + LEASE_LASTS).await {
                tracing::info!(
                    rule = done.action.reason().rule.as_str(),
                    "stopping: {}",
                    done.action.reason().text
                );
                if let Err(error) = done.result {
                    tracing::error!(
                        error = crate::failure::with_causes(&error),
                        "the box could not be asked to stop"
                    );
                }
            }
        }
    }

    /// The part of the plan that stops this box, if the plan does.
    async fn wanted_stop(&self) -> Option<(Observation, Plan)> {
        let (observed, mut plan) =
            plan(&self.ports, &self.policy, Witness::Worker(self.box_id.clone())).await;
        if let Err(error) = observed.remember(&self.ports).await {
            tracing::warn!(%error, "cannot remember what was seen");
        }
        if let Some(at) = self.taken_back(&observed.observation) {
            // The box goes by itself (P18): what it holds must be done or given back by then.
            tracing::warn!(%at, "EC2 takes this box back");
            self.drain();
        }
        for pool in &mut plan.pools {
            pool.actions.retain(
                |action| matches!(action, Action::Stop { box_id, .. } if *box_id == self.box_id),
            );
        }
        plan.pools.retain(|pool| pool.pool == self.setup.pool && !pool.actions.is_empty());
        (!plan.pools.is_empty()).then_some((observed.observation, plan))
    }

    /// When the cloud takes this box, if it has given notice.
    fn taken_back(&self, seen: &Observation) -> Option<Timestamp> {
        let boxes = seen.pools.get(&self.setup.pool)?.boxes.value.as_ref()?;
        boxes.iter().find(|one| one.id == self.box_id)?.interruption
    }

    async fn report(&self) -> Result<(), PortError> {
        let (leases, idle_since) = self.leases.count();
        let report = WorkerReport {
            box_id: self.box_id.clone(),
            run_started_at: self.setup.run_started_at,
            at: self.ports.clock.now(),
            pid: std::process::id(),
            ready_at: Some(self.ready_at),
            leases,
            idle_since,
            jobs_done: self.jobs_done.load(Ordering::Relaxed),
            last_error: None,
        };
        self.ports.ledger.report(&report).await
    }
}
