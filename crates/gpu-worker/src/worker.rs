//! A worker's life: it reports ready, receives and reconciles until told to stop, drains, and stops.
//!
//! Whether to stop is decided by the same `decide` as everywhere; here it knows the worker's leases first-hand, and it is
//! called a second time while nothing can be received, so that no message slips in between. One message is `job`'s business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use gpu_inference::Cancel;
use gpuctl_control::act::act;
use gpuctl_control::config::Config;
use gpuctl_control::log::shown;
use gpuctl_control::plan;
use gpuctl_control::ports::{
    LEASE_LASTS, PortError, Ports, ReceiveRequest, Received, WorkerReport,
};
use gpuctl_control::worker_timing::{RECEIVE_RETRY, REPORT_FAILURE_MAX, WorkerPace, one_at_a_time};
use gpuctl_core::observation::{Observation, Run, Witness};
use gpuctl_core::plan::{Action, Plan};
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::failure::with_causes;
use crate::leases::Leases;

/// Messages held at once: a batch that runs, and one that is decoded meanwhile. SQS returns at most ten a call.
const SLOTS: u32 = 10;

/// A message under a lease, and the flag that is set if the lease is lost.
type HeldMessage = (Received, Cancel);

/// Which box this is, and when its run began.
#[derive(Clone, Debug)]
pub struct WorkerSetup {
    pub pool: PoolId,
    pub box_id: BoxId,
    /// When the box was asked to start: the key of the run.
    pub run_started_at: Timestamp,
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
    pub(crate) engine: Engine,
    pub(crate) leases: Leases,
    pub(crate) decoders: Semaphore,
    pub(crate) box_id: BoxId,
    /// Results committed in this run.
    pub(crate) jobs_done: AtomicU32,
    pub(crate) policy: Policy,
    pub(crate) queue: QueuePolicy,
    setup: WorkerSetup,
    pace: WorkerPace,
    ready_at: Timestamp,
    slots: Arc<Semaphore>,
    /// Held while a receive is under way: who holds it knows that no message arrives.
    receiving: Mutex<()>,
    draining: watch::Sender<bool>,
}

impl Worker {
    /// A worker that is ready to serve; nothing is received yet.
    ///
    /// # Errors
    /// When the pool is not in the policy, or has no queue.
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
            pace: if config.policy.cloud.aws.is_some() {
                WorkerPace::AWS
            } else {
                WorkerPace::LOCAL
            },
            ready_at: now,
            slots: Arc::new(Semaphore::new(SLOTS as usize)),
            receiving: Mutex::new(()),
            draining: watch::Sender::new(false),
            ports,
        })
    }

    /// Tells the worker's tasks to finish what they hold and to receive nothing more.
    fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

/// Serves until `stop` completes or the plan stops the box, then drains: finishes what it holds until the policy's deadline and
/// releases the rest to the queue.
///
/// # Errors
/// When the ledger cannot be reached at the start; later failures are logged and retried.
pub async fn serve(worker: Arc<Worker>, stop: impl Future<Output = ()>) -> Result<(), WorkerError> {
    worker.report().await?;
    tracing::info!(r#box = %worker.box_id, queue = %worker.queue.name, "ready");
    let heartbeat = spawn(&worker, |worker| async move {
        worker.leases.keep_alive(&worker.ports, worker.queue.visibility).await;
    });
    let reconcile = spawn(&worker, |worker| async move { worker.reconcile_loop().await });
    let receive = spawn(&worker, |worker| async move { worker.receive_loop().await });
    let mut draining = worker.draining.subscribe();
    tokio::select! {
        () = stop => worker.drain(),
        // The sender is the worker's own, so this waits for the flag alone.
        _ = draining.wait_for(|draining| *draining) => {}
    }
    tracing::info!("draining");
    // It ends by itself once it sees the flag; a panic in it must not keep the drain from releasing messages.
    let _ = receive.await;
    let all = worker.slots.acquire_many(SLOTS);
    if tokio::time::timeout(std_time(worker.policy.worker.drain), all).await.is_err() {
        tracing::warn!("the drain deadline is over: the rest is released to the queue");
    }
    // Also what was received and never started.
    worker.leases.release_all(&worker.ports).await;
    reconcile.abort();
    heartbeat.abort();
    tracing::info!("stopped");
    if let Err(error) = worker.report().await {
        tracing::warn!(%error, "the last report failed");
    }
    Ok(())
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    worker: &Arc<Worker>,
    task: impl FnOnce(Arc<Worker>) -> F,
) -> JoinHandle<()> {
    tokio::spawn(task(Arc::clone(worker)))
}

/// Receiving.
impl Worker {
    /// Receives while there is a free slot, until the worker drains.
    ///
    /// A message that was received before may be what crashed the worker then: such suspects run alone. After a run that
    /// crashed, messages are even received one at a time for a while, so that one which crashes the worker cannot use up the
    /// receives of its neighbours.
    async fn receive_loop(self: Arc<Self>) {
        let caution = std_time(one_at_a_time(self.queue.visibility));
        let mut alone_until = self.last_run_crashed().await.then(|| Instant::now() + caution);
        while !self.is_draining() {
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
            self.start_fresh(fresh, permit);
            for held in suspects {
                // All slots are its own, so whatever comes next waits. If the drain begins before its turn, it is released
                // with the rest.
                let Some(all) = self.free_slots(SLOTS).await else { return };
                tokio::spawn(Arc::clone(&self).process_held(held, Some(all)));
            }
        }
    }

    /// Starts messages that were never received before, side by side; the first takes `permit` as its slot.
    fn start_fresh(self: &Arc<Self>, fresh: Vec<HeldMessage>, permit: OwnedSemaphorePermit) {
        let mut first = Some(permit);
        for held in fresh {
            let permit = first.take().or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
            tokio::spawn(Arc::clone(self).process_held(held, permit));
        }
    }

    /// Whether the run before this one on the same box ended without a stop. Unknown counts as a crash: caution costs little.
    async fn last_run_crashed(&self) -> bool {
        let Ok(memory) = self.ports.ledger.memory(&self.setup.pool).await else { return true };
        let before = |run: &&Run| {
            // A run that was refused or never became ready has held no message.
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
        let work = tokio::spawn(async move { worker.process(&message, &cancel).await });
        if let Err(error) = work.await {
            tracing::error!(error = %shown(error), "a job panicked; its message is delivered again when its lease runs out");
        }
        self.leases.forget(&receipt, self.ports.clock.now());
        drop(permit);
    }
}

/// Reporting, and stopping the own box.
impl Worker {
    /// Reports and reconciles at the worker's pace, until its task is aborted.
    async fn reconcile_loop(self: Arc<Self>) {
        let mut reported_at = Instant::now();
        loop {
            tokio::time::sleep(std_time(self.pace.reconcile_every)).await;
            if let Err(error) = self.report().await {
                tracing::warn!(%error, "cannot report; trying again");
                self.drain_if_unreported(reported_at.elapsed());
                continue;
            }
            reported_at = Instant::now();
            self.drain_if_hanging();
            self.reconcile().await;
        }
    }

    /// Drains where no controller can know that this box is idle.
    fn drain_if_unreported(&self, since_report: Duration) {
        if since_report > std_time(REPORT_FAILURE_MAX) && self.leases.count().0 == 0 {
            let minutes = REPORT_FAILURE_MAX.num_minutes();
            tracing::error!("no report reached the ledger for {minutes}m: shutting down");
            self.drain();
        }
    }

    /// Cancels jobs that take longer than the policy's `job_max`; drains if one goes on all the same, since only a new process
    /// gets rid of it.
    fn drain_if_hanging(&self) {
        if self.leases.cancel_overdue(self.ports.clock.now(), self.policy.worker.job_max) {
            tracing::error!(
                "a job was cancelled and did not stop: draining, and then this worker exits"
            );
            self.drain();
        }
    }

    /// Observes, and stops the box if the plan says so.
    async fn reconcile(&self) {
        let (seen, plan) = self.observe_and_store().await;
        self.drain_if_interrupted(&seen);
        if self.stop_wanted(plan).is_none() || self.is_draining() {
            return;
        }
        // A message may have arrived meanwhile: decide again while nothing can be received.
        let _receive_lock = self.receiving.lock().await;
        if self.report().await.is_err() {
            return;
        }
        let (seen, plan) = self.observe_and_store().await;
        self.drain_if_interrupted(&seen);
        let Some(stop) = self.stop_wanted(plan) else { return };
        self.drain();
        self.stop_box(&seen, &stop).await;
    }

    /// Observes what the plan needs, stores it in the ledger as every controller does, and plans.
    async fn observe_and_store(&self) -> (Observation, Plan) {
        let witness = Witness::Worker(self.box_id.clone());
        let (observed, plan) = plan(&self.ports, &self.policy, witness).await;
        if let Err(error) = observed.remember(&self.ports).await {
            tracing::warn!(%error, "cannot store what was observed");
        }
        (observed.observation, plan)
    }

    /// Drains once the cloud has announced that it interrupts this box, but does not stop it: after a stop of our own during
    /// an interruption neither EC2 nor we could start it again (P18).
    fn drain_if_interrupted(&self, seen: &Observation) {
        if let Some(at) = self.interruption(seen) {
            tracing::warn!(%at, "EC2 interrupts this box");
            self.drain();
        }
    }

    /// The part of the plan that stops this box, if the plan does.
    fn stop_wanted(&self, mut plan: Plan) -> Option<Plan> {
        for pool in &mut plan.pools {
            pool.actions.retain(
                |action| matches!(action, Action::Stop { box_id, .. } if *box_id == self.box_id),
            );
        }
        plan.pools.retain(|pool| pool.pool == self.setup.pool && !pool.actions.is_empty());
        (!plan.pools.is_empty()).then_some(plan)
    }

    /// When the cloud interrupts this box, if it has given notice.
    fn interruption(&self, seen: &Observation) -> Option<Timestamp> {
        let boxes = seen.pools.get(&self.setup.pool)?.boxes.value.as_ref()?;
        boxes.iter().find(|one| one.id == self.box_id)?.interruption
    }

    /// Stops the box as any controller would: on the local backend a signal comes back to this very process.
    async fn stop_box(&self, seen: &Observation, stop: &Plan) {
        for done in act(&self.ports, seen, stop, seen.at + LEASE_LASTS).await {
            let reason = done.action.reason();
            tracing::info!(rule = reason.rule.as_str(), "stopping: {}", shown(&reason.text));
            if let Err(error) = done.result {
                tracing::error!(error = %shown(with_causes(&error)), "the box could not be stopped");
            }
        }
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
            fault: None,
            keep_until: None,
        };
        self.ports.ledger.report(&report).await
    }
}

/// For tokio, which takes no negative times; the policy has none.
fn std_time(span: TimeDelta) -> Duration {
    span.to_std().unwrap_or_default()
}
