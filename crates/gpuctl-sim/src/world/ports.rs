//! The ports as one controller or worker has them: each call takes time, and may fail, lose its response, or crash its caller.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::clock::{CLOCKS_APART_MAX, CorrectedClock};
use gpuctl_control::hold::{not_ahead, outdated};
use gpuctl_control::job::{Job, JobId, JobResult};
use gpuctl_control::ports::{
    Attempt, Began, Clock, Committed, Fence, JobEntry, JobFilter, JobProblem, JobQueue, Ledger,
    NewMessage, PoolMemory, PortError, PortErrorClass, Ports, Purge, QueueMemory, Receipt,
    ReceiveRequest, Received, SEND_BATCH_MAX, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, Run, SeenQueue};
use gpuctl_core::units::{BoxId, PoolId, QueueName, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock::BoxClock;
use super::ledger::Item;
use super::{Shared, World};
use crate::faults::{Fault, Faults};

/// The duration of a call without faults, in milliseconds.
const LATENCY_MS: (i64, i64) = (5, 60);
/// The duration of a slow call: up to more than `observe` waits for one part.
const SLOW_MS: (i64, i64) = (2_000, 14_000);
/// How long a controller stands still between two calls: longer than its lease.
const STALL_MS: (i64, i64) = (10_000, 60_000);
/// The greatest lag of counts.
const COUNTS_LAG_SECONDS: i64 = 60;

/// A caller of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A controller, by the name under which it takes the lease.
    Controller(&'static str),
    /// A process of a worker on an instance.
    Worker(Process),
}

/// A process of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// The instance that it runs on.
    pub(crate) instance: String,
    /// Counts all processes of the week.
    pub(crate) number: u64,
}

/// Which service a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Cloud,
    Queue,
    Ledger,
    Files,
}

/// The faults that make the calls of a service fail.
#[derive(Clone, Copy)]
struct ServiceFaults {
    /// How frequent errors are at full intensity, in thousandths.
    errors: Option<(Fault, i64)>,
    down: Fault,
    throttled: Fault,
}

impl Service {
    /// `Ec2` injects its own errors.
    fn faults(self) -> Option<ServiceFaults> {
        let (errors, down, throttled) = match self {
            Self::Queue => {
                (Some((Fault::QueueErrors, 1_000)), Fault::QueueDown, Fault::QueueThrottled)
            }
            Self::Ledger => {
                (Some((Fault::LedgerErrors, 300)), Fault::LedgerDown, Fault::LedgerThrottled)
            }
            Self::Files => (None, Fault::StoreDown, Fault::StoreThrottled),
            Self::Cloud => return None,
        };
        Some(ServiceFaults { errors, down, throttled })
    }
}

/// The simulated services as one caller reaches them.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) caller: Caller,
    /// Notified when the caller crashes between two calls.
    pub(crate) crashed: Arc<Notify>,
    clock: Arc<dyn Clock>,
    /// What the time in each response sets.
    follows: Option<Arc<CorrectedClock<BoxClock>>>,
}

/// Whether a call's response arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Arrives,
    IsLost,
}

impl Reply {
    /// The result as the caller gets it.
    pub(super) fn deliver<T>(self, result: Result<T, PortError>) -> Result<T, PortError> {
        match self {
            Self::Arrives => result,
            Self::IsLost => Err(unavailable("the connection was closed before the response")),
        }
    }
}

fn service_fails(faults: &mut Faults, now: Timestamp, of: ServiceFaults) -> Option<PortError> {
    let is_down = faults.strength(of.down, now) > 0;
    if is_down {
        faults.count(of.down, 1);
    }
    if is_down || of.errors.is_some_and(|(fault, share)| faults.inject(fault, now, share)) {
        return Some(unavailable("cannot be reached"));
    }
    let is_throttled = faults.inject(of.throttled, now, 900);
    is_throttled.then(|| PortError::new(PortErrorClass::Throttled, "called too often"))
}

pub(super) fn unavailable(what: &str) -> PortError {
    PortError::new(PortErrorClass::Unavailable, what)
}

impl Client {
    pub(crate) fn new(shared: &Arc<Shared>, caller: Caller) -> Self {
        let follows = match &caller {
            Caller::Controller(_) => None,
            Caller::Worker(process) => {
                let raw = BoxClock::new(Arc::clone(shared), process.instance.clone());
                Some(Arc::new(CorrectedClock::over(raw)))
            }
        };
        let clock: Arc<dyn Clock> = match &follows {
            Some(clock) => clock.clone(),
            None => Arc::new(WorldClock(Arc::clone(shared))),
        };
        let crashed = Arc::new(Notify::new());
        Self { shared: Arc::clone(shared), caller, crashed, clock, follows }
    }

    pub(crate) fn ports(&self) -> Ports {
        let client = Arc::new(self.clone());
        Ports {
            cloud: client.clone(),
            queue: client.clone(),
            ledger: client.clone(),
            clock: self.clock.clone(),
            files: client,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// The way to a service: takes time, and applies the faults of calls.
    pub(super) async fn call(&self, service: Service) -> Result<Reply, PortError> {
        let (takes, crashes, fails, reply) = self.draw(service);
        let began = Instant::now();
        super::sleep(takes).await;
        if crashes {
            self.crash().await;
        }
        match fails {
            Some(error) if error.class == PortErrorClass::Unavailable => Err(error),
            fails => {
                if reply == Reply::Arrives {
                    self.hear(began);
                }
                fails.map_or(Ok(reply), Err)
            }
        }
    }

    /// Ends the caller between two calls.
    pub(super) async fn crash(&self) {
        self.crashed.notify_one();
        std::future::pending::<()>().await;
    }

    /// Ends a worker at this stage of a job, if the fault says so.
    pub(super) async fn pass(&self, stage: Stage) {
        let Caller::Worker(process) = &self.caller else { return };
        let killed = {
            let (now, mut world) = self.shared.time_and_world();
            let killed = world.faults.inject(Fault::OutOfMemory, now, 40);
            if killed {
                let text = format!("worker {} is killed: {}", process.instance, stage.name());
                world.log_event(now, text);
            }
            killed
        };
        if killed {
            self.crash().await;
        }
    }

    /// A response has the time of its server, in whole seconds.
    fn hear(&self, began: Instant) {
        if let Some(clock) = &self.follows {
            let now = self.shared.now();
            let heard = Timestamp::from_timestamp(now.timestamp(), 0).unwrap_or(now);
            clock.heard(heard, began.elapsed());
        }
    }

    fn draw(&self, service: Service) -> (TimeDelta, bool, Option<PortError>, Reply) {
        let (now, mut world) = self.shared.time_and_world();
        let world = &mut *world;
        let faults = &mut world.faults;
        let slow = faults.inject(Fault::SlowCalls, now, 60);
        let takes_ms = if slow {
            faults.chance(Fault::SlowCalls).between(SLOW_MS.0, SLOW_MS.1)
        } else {
            world.latency.between(LATENCY_MS.0, LATENCY_MS.1)
        };
        let crashes = match self.caller {
            Caller::Controller(_) => faults.inject(Fault::ControllerCrash, now, 30),
            Caller::Worker(_) => faults.inject(Fault::WorkerCrash, now, 2),
        };
        let fails = service.faults().and_then(|of| service_fails(faults, now, of));
        let stalls = matches!(self.caller, Caller::Controller(_))
            && faults.inject(Fault::ControllerStall, now, 200);
        let takes_ms = if stalls {
            takes_ms + faults.chance(Fault::ControllerStall).between(STALL_MS.0, STALL_MS.1)
        } else {
            takes_ms
        };
        let lost = faults.inject(Fault::LostReplies, now, 60);
        if crashes {
            world.log_event(now, format!("{} crashes between two calls", self.name()));
        }
        let reply = if lost { Reply::IsLost } else { Reply::Arrives };
        (TimeDelta::milliseconds(takes_ms), crashes, fails, reply)
    }

    pub(crate) fn name(&self) -> String {
        match &self.caller {
            Caller::Controller(name) => (*name).to_owned(),
            Caller::Worker(process) => format!("worker {}", process.instance),
        }
    }

    /// The number of the calling process, 0 for controllers.
    pub(super) fn process(&self) -> u64 {
        match &self.caller {
            Caller::Controller(_) => 0,
            Caller::Worker(process) => process.number,
        }
    }

    async fn on_ledger<T>(
        &self,
        work: impl FnOnce(&mut World, Timestamp) -> T,
    ) -> Result<T, PortError> {
        let reply = self.call(Service::Ledger).await?;
        let done = {
            let (now, mut world) = self.shared.time_and_world();
            work(&mut world, now)
        };
        reply.deliver(Ok(done))
    }

    async fn on_queue<T>(
        &self,
        work: impl FnOnce(&mut World, Timestamp) -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        let reply = self.call(Service::Queue).await?;
        let done = {
            let (now, mut world) = self.shared.time_and_world();
            world.mark_changed(now);
            work(&mut world, now)
        };
        self.shared.queue_changed.notify_waiters();
        reply.deliver(done)
    }

    /// One call for up to ten receipts, as in SQS. An entry may fail although the call does not.
    async fn on_receipts(
        &self,
        receipts: &[Receipt],
        work: impl Fn(&mut World, Timestamp, &Receipt) -> Result<(), PortError>,
    ) -> Vec<Result<(), PortError>> {
        let mut done = Vec::with_capacity(receipts.len());
        for batch in receipts.chunks(SEND_BATCH_MAX) {
            let each = |world: &mut World, now| {
                let one = |receipt| {
                    if world.faults.inject(Fault::QueueErrors, now, 100) {
                        return Err(unavailable("the entry failed with InternalError"));
                    }
                    work(world, now, receipt)
                };
                Ok(batch.iter().map(one).collect::<Vec<_>>())
            };
            match self.on_queue(each).await {
                Ok(results) => done.extend(results),
                Err(error) => {
                    let again = || PortError::new(error.class, error.what.clone());
                    done.extend(batch.iter().map(|_| Err(again())));
                }
            }
        }
        done
    }

    /// Whether a controller's write comes too late: a later holder of the lease has written the item.
    fn fenced(
        &self,
        world: &mut World,
        now: Timestamp,
        item: Item,
        fence: Option<&Fence>,
    ) -> Result<(), PortError> {
        if let Some(fence) = fence {
            if world.ledger.is_outdated(item, fence.number) {
                return Err(PortError::new(PortErrorClass::Conflict, "written by a later holder"));
            }
        } else if let Caller::Controller(name) = self.caller {
            world.check_unfenced(now, name, item);
        }
        Ok(())
    }
}

/// The time of the world, as AWS's.
struct WorldClock(Arc<Shared>);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// A stage of a job at which a worker may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Received,
    Fetched,
    Decoded,
    Inferring,
    FilesKept,
    Committed,
    BeforeAck,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Fetched => "fetched",
            Self::Decoded => "decoded",
            Self::Inferring => "inferring",
            Self::FilesKept => "files kept",
            Self::Committed => "committed",
            Self::BeforeAck => "before the ack",
        }
    }
}

#[async_trait]
impl JobQueue for Client {
    async fn send(&self, _: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        self.on_queue(|world, now| {
            world.queue.send(now, batch);
            Ok(())
        })
        .await
    }

    async fn receive(
        &self,
        _: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let reply = self.call(Service::Queue).await?;
        let until = self.now() + request.wait;
        loop {
            let changed = self.shared.queue_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (now, taken, next) = {
                let (now, mut world) = self.shared.time_and_world();
                world.expire(now);
                let taken = world.queue.receive(now, request, self.process());
                if !taken.is_empty() {
                    world.mark_changed(now);
                    world.note_receives(now, &taken, self.process());
                    for one in &taken {
                        let twice = world.faults.inject(Fault::Duplicates, now, 300);
                        if twice {
                            world.queue.duplicate(now, &one.receipt);
                        }
                        if twice || reply == Reply::IsLost {
                            world.checks.excuse_receive(one);
                        }
                    }
                }
                (now, taken, world.queue.next_visible(now))
            };
            if !taken.is_empty() || now >= until {
                if !taken.is_empty() {
                    self.pass(Stage::Received).await;
                }
                return reply.deliver(Ok(taken));
            }
            let wake = next.map_or(until, |next| next.min(until));
            tokio::select! {
                biased;
                () = self.shared.sleep_until(wake) => {}
                () = changed => {}
            }
        }
    }

    async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>> {
        let done = self
            .on_receipts(receipts, |world, now, receipt| {
                world.queue.change_visibility(now, receipt, visibility)
            })
            .await;
        let world = &mut *self.shared.advance_to_now();
        for (receipt, done) in receipts.iter().zip(&done) {
            if matches!(done, Err(error) if error.class == PortErrorClass::LeaseLost) {
                world.checks.lease_is_lost(receipt);
            }
        }
        done
    }

    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        self.pass(Stage::BeforeAck).await;
        let done = self
            .on_receipts(receipts, |world, now, receipt| {
                world.check_ack(now, receipt);
                world.queue.ack(now, receipt)
            })
            .await;
        self.shared.end_if_broken();
        done
    }

    async fn bury(&self, _: &QueueName, message: &Received, reason: &str) -> Result<(), PortError> {
        self.on_queue(|world, now| {
            world.note_burial(now, message, reason, self.process());
            world.queue.bury(now, &message.receipt)
        })
        .await
    }

    async fn counts(&self, _: &QueueName) -> Result<SeenQueue, PortError> {
        let reply = self.call(Service::Queue).await?;
        let (now, mut world) = self.shared.time_and_world();
        let world = &mut *world;
        let seen = counts(world, now);
        if reply == Reply::Arrives {
            world.checks.counts_read_at = Some(now);
        }
        reply.deliver(Ok(seen))
    }

    async fn redrive(&self, _: &QueueName) -> Result<u64, PortError> {
        self.on_queue(|world, now| Ok(world.queue.redrive(now))).await
    }

    async fn purge(&self, _: &QueueName, which: Purge) -> Result<u64, PortError> {
        self.on_queue(|world, now| Ok(world.queue.purge(now, which))).await
    }
}

/// The counts with faults applied: late, off by a few, or of messages that do not exist.
fn counts(world: &mut World, now: Timestamp) -> SeenQueue {
    let mut seen = if world.faults.inject(Fault::CountsLag, now, 1_000) {
        let lag = world.faults.chance(Fault::CountsLag).between(1, COUNTS_LAG_SECONDS);
        world.queue.counts_before(now, TimeDelta::seconds(lag))
    } else {
        world.queue.counts(now)
    };
    if world.faults.inject(Fault::CountsNoise, now, 500) {
        let chance = world.faults.chance(Fault::CountsNoise);
        let mut off = |count: u64| {
            let by = chance.between(-3, 3);
            count.saturating_add_signed(by)
        };
        (seen.visible, seen.in_flight) = (off(seen.visible), off(seen.in_flight));
        if seen.visible == 0 {
            seen.oldest_sent_at = None;
        }
    }
    seen
}

#[async_trait]
impl Ledger for Client {
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError> {
        self.on_ledger(|world, now| world.ledger.lease(now, owner, lasts)).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), PortError> {
        self.on_ledger(|world, _| world.ledger.release(fence)).await
    }

    async fn memory(&self, pool: &PoolId) -> Result<PoolMemory, PortError> {
        self.on_ledger(|world, now| {
            let memory = world.ledger.memory(pool);
            PoolMemory { hold: memory.hold.map(|hold| not_ahead(hold, now)), ..memory }
        })
        .await
    }

    async fn remember_queue(
        &self,
        pool: &PoolId,
        queue: &QueueMemory,
        fence: Option<&Fence>,
    ) -> Result<(), PortError> {
        self.on_ledger(|world, now| {
            self.fenced(world, now, Item::Queue(pool.clone()), fence)?;
            world.ledger.remember_queue(pool, queue);
            Ok(())
        })
        .await?
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        self.on_ledger(|world, now| {
            let latest = now + CLOCKS_APART_MAX;
            let newer = |known: &Hold| known.since > hold.since && known.since <= latest;
            if world.ledger.hold(&hold.pool).is_some_and(newer) {
                return Err(outdated(hold));
            }
            world.mark_changed(now);
            world.ledger.set_hold(hold);
            Ok(())
        })
        .await?
    }

    /// No notices are sent in a simulated week.
    async fn claim_notice(&self, _: &str, _: TimeDelta) -> Result<bool, PortError> {
        Ok(false)
    }

    async fn save_run(&self, run: &Run, fence: Option<&Fence>) -> Result<(), PortError> {
        self.on_ledger(|world, now| {
            let item = Item::Run(run.box_id.clone(), run.started_at);
            self.fenced(world, now, item, fence)?;
            world.mark_changed(now);
            world.ledger.save_run(run);
            Ok(())
        })
        .await?
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.on_ledger(|world, _| world.ledger.runs_since(since)).await
    }

    async fn record(&self, record: &Record, fence: &Fence) -> Result<(), PortError> {
        self.on_ledger(|world, now| {
            self.fenced(world, now, Item::Record, Some(fence))?;
            world.ledger.record(record);
            Ok(())
        })
        .await?
    }

    async fn last_reconcile(&self) -> Result<Option<Timestamp>, PortError> {
        self.on_ledger(|world, _| world.ledger.last_reconcile()).await
    }

    async fn report(&self, report: &WorkerReport) -> Result<(), PortError> {
        if self.shared.advance_to_now().faults.inject(Fault::WorkerSilent, self.now(), 1_000) {
            super::sleep(TimeDelta::milliseconds(LATENCY_MS.1)).await;
            return Err(unavailable("the ledger cannot be reached from the box"));
        }
        self.on_ledger(|world, now| {
            if world.ledger.report(now, report) {
                world.mark_changed(now);
            }
            world.check_hoarding(now);
        })
        .await
    }

    async fn reports(&self, boxes: &[BoxId]) -> Result<Vec<WorkerReport>, PortError> {
        self.on_ledger(|world, _| world.ledger.reports(boxes)).await
    }

    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        self.on_ledger(|world, _| world.ledger.submitted(jobs)).await
    }

    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        let commit = |world: &mut World, now| {
            let one = |result: &JobResult| {
                let done = world.ledger.commit(result);
                let (job, by) = (&result.job.id, &result.box_id);
                world.log_event(now, format!("job {job} committed by {by}: {done:?}"));
                world.check_commit(now, result, done);
                done
            };
            results.iter().map(one).collect::<Vec<_>>()
        };
        let committed = self.on_ledger(commit).await;
        self.shared.end_if_broken();
        self.pass(Stage::Committed).await;
        match committed {
            Ok(committed) => committed.into_iter().map(Ok).collect(),
            Err(error) => {
                let again = || PortError::new(error.class, error.what.clone());
                results.iter().map(|_| Err(again())).collect()
            }
        }
    }

    async fn cancel(&self, cancelled: &JobResult) -> Result<Committed, PortError> {
        self.on_ledger(|world, now| world.cancel(now, cancelled)).await
    }

    async fn began(&self, job: &Job, _: &Attempt) -> Result<Began, PortError> {
        let held = [(job.id.clone(), job.generation)];
        let ended = self.have_ended(&held).await?;
        Ok(if ended == [true] { Began::Ended } else { Began::Newest })
    }

    async fn have_ended(&self, held: &[(JobId, u32)]) -> Result<Vec<bool>, PortError> {
        // No call where it says nothing: weeks in which no one cancels a job stay as they are.
        if !self.shared.advance_to_now().checks.is_any_cancelled() {
            return Ok(vec![false; held.len()]);
        }
        let has_ended = |world: &World, (id, generation): &(JobId, u32)| {
            world.ledger.result(id, *generation).is_some()
        };
        self.on_ledger(|world, _| held.iter().map(|one| has_ended(world, one)).collect()).await
    }

    async fn note_problem(&self, problem: &JobProblem) -> Result<(), PortError> {
        self.on_ledger(|world, _| world.ledger.note_problem(problem)).await
    }

    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        self.on_ledger(|world, _| world.ledger.results(id)).await
    }

    async fn delete_jobs(&self, _: Timestamp) -> Result<Vec<JobId>, PortError> {
        self.on_ledger(|_, _| Vec::new()).await
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        self.on_ledger(|world, now| {
            world.ledger.job(id, |job, generation| world.message_state(now, job, generation))
        })
        .await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        self.on_ledger(|world, now| {
            world.ledger.jobs(filter, |job, generation| world.message_state(now, job, generation))
        })
        .await
    }
}
