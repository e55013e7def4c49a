//! The ports as one controller or worker has them: each call takes time, and may fail, lose its response, or crash its caller.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobId, JobResult};
use gpuctl_control::ports::{
    Clock, Committed, Fence, JobEntry, JobFilter, JobProblem, JobQueue, Ledger, NewMessage,
    NoFiles, PoolMemory, PortError, PortErrorClass, Ports, Purge, QueueMemory, Receipt,
    ReceiveRequest, Received, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, Run, SeenQueue};
use gpuctl_core::units::{PoolId, QueueName, Timestamp};
use tokio::sync::Notify;

use super::{Shared, World};
use crate::faults::Fault;

/// The duration of a call without faults, in milliseconds.
const LATENCY_MS: (i64, i64) = (5, 60);
/// The duration of a slow call: up to more than `observe` waits for one part.
const SLOW_MS: (i64, i64) = (2_000, 14_000);
/// The greatest lag of counts.
const COUNTS_LAG_SECONDS: i64 = 60;

/// A caller of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A controller, by the name under which it takes the lease.
    Controller(&'static str),
    /// The worker on this instance.
    Worker(String),
}

/// Which service a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Cloud,
    Queue,
    Ledger,
}

/// The simulated services as one caller reaches them.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) caller: Caller,
    /// Notified when the caller crashes between two calls.
    pub(crate) crashed: Arc<Notify>,
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

pub(super) fn unavailable(what: &str) -> PortError {
    PortError::new(PortErrorClass::Unavailable, what)
}

impl Client {
    pub(crate) fn new(shared: &Arc<Shared>, caller: Caller) -> Self {
        Self { shared: Arc::clone(shared), caller, crashed: Arc::new(Notify::new()) }
    }

    pub(crate) fn ports(&self) -> Ports {
        let client = Arc::new(self.clone());
        Ports {
            cloud: client.clone(),
            queue: client.clone(),
            ledger: client.clone(),
            clock: client,
            // No simulated job has a file.
            files: Arc::new(NoFiles),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// The way to a service: takes time, and applies the faults of calls.
    pub(super) async fn call(&self, service: Service) -> Result<Reply, PortError> {
        let (takes, crashes, fails, reply) = self.draw(service);
        super::sleep(takes).await;
        if crashes {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
        fails.map_or(Ok(reply), Err)
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
        let fails = match service {
            Service::Queue => faults.inject(Fault::QueueErrors, now, 1_000),
            Service::Ledger => faults.inject(Fault::LedgerErrors, now, 300),
            // `Ec2` injects its own errors.
            Service::Cloud => false,
        };
        let lost = faults.inject(Fault::LostReplies, now, 60);
        if crashes {
            world.log_event(now, format!("{} crashes between two calls", self.name()));
        }
        let fails = fails.then(|| unavailable("cannot be reached"));
        let reply = if lost { Reply::IsLost } else { Reply::Arrives };
        (TimeDelta::milliseconds(takes_ms), crashes, fails, reply)
    }

    pub(crate) fn name(&self) -> String {
        match &self.caller {
            Caller::Controller(name) => (*name).to_owned(),
            Caller::Worker(id) => format!("worker {id}"),
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

    /// `on_queue` for each receipt.
    async fn on_receipts(
        &self,
        receipts: &[Receipt],
        work: impl Fn(&mut World, Timestamp, &Receipt) -> Result<(), PortError>,
    ) -> Vec<Result<(), PortError>> {
        let mut done = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            done.push(self.on_queue(|world, now| work(world, now, receipt)).await);
        }
        done
    }
}

impl Clock for Client {
    fn now(&self) -> Timestamp {
        self.shared.now()
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
                let taken = world.queue.receive(now, request);
                if !taken.is_empty() {
                    world.mark_changed(now);
                    for one in &taken {
                        if world.faults.inject(Fault::Duplicates, now, 300) {
                            world.queue.duplicate(now, &one.receipt);
                        }
                    }
                }
                (now, taken, world.queue.next_visible(now))
            };
            if !taken.is_empty() || now >= until {
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
        self.on_receipts(receipts, |world, now, receipt| {
            world.queue.change_visibility(now, receipt, visibility)
        })
        .await
    }

    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        let done = self
            .on_receipts(receipts, |world, now, receipt| {
                world.check_ack(now, receipt);
                world.queue.ack(now, receipt)
            })
            .await;
        self.shared.end_if_broken();
        done
    }

    async fn bury(&self, _: &QueueName, message: &Received, _: &str) -> Result<(), PortError> {
        self.on_queue(|world, now| world.queue.bury(now, &message.receipt)).await
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
        self.on_ledger(|world, _| world.ledger.memory(pool)).await
    }

    async fn remember_queue(
        &self,
        pool: &PoolId,
        queue: &QueueMemory,
        _: Option<&Fence>,
    ) -> Result<(), PortError> {
        self.on_ledger(|world, _| world.ledger.remember_queue(pool, queue)).await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        self.on_ledger(|world, now| {
            world.mark_changed(now);
            world.ledger.set_hold(hold);
        })
        .await
    }

    /// No notices are sent in a simulated week.
    async fn claim_notice(&self, _: &str, _: TimeDelta) -> Result<bool, PortError> {
        Ok(false)
    }

    async fn save_run(&self, run: &Run, _: Option<&Fence>) -> Result<(), PortError> {
        self.on_ledger(|world, now| {
            world.mark_changed(now);
            world.ledger.save_run(run);
        })
        .await
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.on_ledger(|world, _| world.ledger.runs_since(since)).await
    }

    async fn record(&self, record: &Record, _: &Fence) -> Result<(), PortError> {
        self.on_ledger(|world, _| world.ledger.record(record)).await
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
            if world.ledger.report(report) {
                world.mark_changed(now);
            }
        })
        .await
    }

    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        self.on_ledger(|world, _| world.ledger.submitted(jobs)).await
    }

    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        let mut committed = Vec::with_capacity(results.len());
        for result in results {
            let commit = |world: &mut World, now| {
                let done = world.ledger.commit(result);
                world.log_event(
                    now,
                    format!("job {} committed by {}: {done:?}", result.job.id, result.box_id),
                );
                world.check_commit(now, result, done);
                done
            };
            committed.push(self.on_ledger(commit).await);
        }
        committed
    }

    async fn note_problem(&self, _: &JobProblem) -> Result<(), PortError> {
        self.on_ledger(|_, _| ()).await
    }

    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        self.on_ledger(|world, _| world.ledger.result(id).cloned().into_iter().collect()).await
    }

    async fn delete_jobs(&self, _: Timestamp) -> Result<Vec<JobId>, PortError> {
        self.on_ledger(|_, _| Vec::new()).await
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        self.on_ledger(|world, now| world.ledger.job(id, |job| world.message_state(now, job))).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        self.on_ledger(|world, now| world.ledger.jobs(filter, |job| world.message_state(now, job)))
            .await
    }
}
