//! The ports in the world, as one controller or worker has them: each call takes time, may fail, lose its answer, or be the last.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobId, JobResult};
use gpuctl_control::ports::{
    Clock, Committed, Fence, JobEntry, JobFilter, JobQueue, Ledger, NewMessage, NoFiles,
    PoolMemory, PortError, PortErrorClass, Ports, Purge, QueueMemory, Receipt, ReceiveRequest,
    Received, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, Run, SeenQueue};
use gpuctl_core::units::{PoolId, QueueName, Timestamp};
use tokio::sync::Notify;

use super::{Shared, World};
use crate::faults::Fault;

/// What a call takes when nothing is wrong, in milliseconds.
const LATENCY_MS: (i64, i64) = (5, 60);
/// … and when it is slow: longer than a part of an observation may take.
const SLOW_MS: (i64, i64) = (2_000, 14_000);
/// Counts lag behind by so much at most.
const COUNTS_LAG_SECONDS: i64 = 60;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A controller, by the name under which it takes the lease.
    Controller(&'static str),
    /// The worker on this instance.
    Worker(String),
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Cloud,
    Queue,
    Ledger,
}

/// The world as one of those who live in it reaches it.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) shared: Arc<Shared>,
    pub(crate) who: Who,
    /// Told when it dies between two calls.
    pub(crate) died: Arc<Notify>,
}

/// What becomes of a call's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Comes,
    IsLost,
}

impl Answer {
    pub(super) fn of<T>(self, result: Result<T, PortError>) -> Result<T, PortError> {
        match self {
            Self::Comes => result,
            Self::IsLost => Err(unavailable("the connection broke off before the answer")),
        }
    }
}

pub(super) fn unavailable(what: &str) -> PortError {
    PortError::new(PortErrorClass::Unavailable, what)
}

impl Site {
    pub(crate) fn new(shared: &Arc<Shared>, who: Who) -> Self {
        Self { shared: Arc::clone(shared), who, died: Arc::new(Notify::new()) }
    }

    pub(crate) fn ports(&self) -> Ports {
        let site = Arc::new(self.clone());
        Ports {
            cloud: site.clone(),
            queue: site.clone(),
            ledger: site.clone(),
            clock: site,
            // No job of a simulated week has a file.
            files: Arc::new(NoFiles),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// The way to a port: it takes its time, and what can go wrong goes wrong here.
    pub(super) async fn reach(&self, part: Part) -> Result<Answer, PortError> {
        let (takes, dies, fails, answer) = self.draw(part);
        super::sleep(takes).await;
        if dies {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        fails.map_or(Ok(answer), Err)
    }

    fn draw(&self, part: Part) -> (TimeDelta, bool, Option<PortError>, Answer) {
        let (now, mut world) = self.shared.world_now();
        let world = &mut *world;
        let faults = &mut world.faults;
        let slow = faults.strikes(Fault::SlowCalls, now, 60);
        let takes_ms = if slow {
            faults.chance(Fault::SlowCalls).between(SLOW_MS.0, SLOW_MS.1)
        } else {
            world.latency.between(LATENCY_MS.0, LATENCY_MS.1)
        };
        let dies = match self.who {
            Who::Controller(_) => faults.strikes(Fault::ControllerCrash, now, 30),
            Who::Worker(_) => faults.strikes(Fault::WorkerCrash, now, 2),
        };
        let fails = match part {
            Part::Queue => faults.strikes(Fault::QueueErrors, now, 1_000),
            Part::Ledger => faults.strikes(Fault::LedgerErrors, now, 300),
            // EC2's own errors are EC2's.
            Part::Cloud => false,
        };
        let lost = faults.strikes(Fault::LostReplies, now, 60);
        if dies {
            world.note(now, format!("{} dies between two calls", self.name()));
        }
        let fails = fails.then(|| unavailable("cannot be reached now"));
        let answer = if lost { Answer::IsLost } else { Answer::Comes };
        (TimeDelta::milliseconds(takes_ms), dies, fails, answer)
    }

    pub(crate) fn name(&self) -> String {
        match &self.who {
            Who::Controller(name) => (*name).to_owned(),
            Who::Worker(id) => format!("worker {id}"),
        }
    }

    async fn on_book<T>(
        &self,
        work: impl FnOnce(&mut World, Timestamp) -> T,
    ) -> Result<T, PortError> {
        let answer = self.reach(Part::Ledger).await?;
        let done = {
            let (now, mut world) = self.shared.world_now();
            work(&mut world, now)
        };
        answer.of(Ok(done))
    }

    async fn on_queue<T>(
        &self,
        work: impl FnOnce(&mut World, Timestamp) -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        let answer = self.reach(Part::Queue).await?;
        let done = {
            let (now, mut world) = self.shared.world_now();
            world.touch(now);
            work(&mut world, now)
        };
        self.shared.queue_changed.notify_waiters();
        answer.of(done)
    }
}

impl Clock for Site {
    fn now(&self) -> Timestamp {
        self.shared.now()
    }
}

#[async_trait]
impl JobQueue for Site {
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
        let answer = self.reach(Part::Queue).await?;
        let until = self.now() + request.wait;
        loop {
            let changed = self.shared.queue_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (now, taken, next) = {
                let (now, mut world) = self.shared.world_now();
                let taken = world.queue.receive(now, request);
                if !taken.is_empty() {
                    world.touch(now);
                    for one in &taken {
                        if world.faults.strikes(Fault::Duplicates, now, 300) {
                            world.queue.duplicate(now, &one.receipt);
                        }
                    }
                }
                (now, taken, world.queue.next_visible(now))
            };
            if !taken.is_empty() || now >= until {
                return answer.of(Ok(taken));
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
        receipt: &Receipt,
        visibility: TimeDelta,
    ) -> Result<(), PortError> {
        self.on_queue(|world, now| world.queue.change_visibility(now, receipt, visibility)).await
    }

    async fn ack(&self, receipt: &Receipt) -> Result<(), PortError> {
        let done = self
            .on_queue(|world, now| {
                world.check_ack(now, receipt);
                world.queue.ack(now, receipt)
            })
            .await;
        self.shared.tell_if_broken();
        done
    }

    async fn counts(&self, _: &QueueName) -> Result<SeenQueue, PortError> {
        let answer = self.reach(Part::Queue).await?;
        let (now, mut world) = self.shared.world_now();
        let world = &mut *world;
        let seen = counts(world, now);
        if answer == Answer::Comes {
            world.checks.counts_read_at = Some(now);
        }
        answer.of(Ok(seen))
    }

    async fn redrive(&self, _: &QueueName) -> Result<u64, PortError> {
        self.on_queue(|world, now| Ok(world.queue.redrive(now))).await
    }

    async fn purge(&self, _: &QueueName, which: Purge) -> Result<u64, PortError> {
        self.on_queue(|world, now| Ok(world.queue.purge(now, which))).await
    }
}

/// The counts as the faults show them: late, off by a few, or of jobs that are not there.
fn counts(world: &mut World, now: Timestamp) -> SeenQueue {
    let mut seen = if world.faults.strikes(Fault::CountsLag, now, 1_000) {
        let lag = world.faults.chance(Fault::CountsLag).between(1, COUNTS_LAG_SECONDS);
        world.queue.counts_before(now, TimeDelta::seconds(lag))
    } else {
        world.queue.counts(now)
    };
    if world.faults.strikes(Fault::CountsNoise, now, 500) {
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
impl Ledger for Site {
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError> {
        self.on_book(|world, now| world.book.lease(now, owner, lasts)).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), PortError> {
        self.on_book(|world, _| world.book.release(fence)).await
    }

    async fn memory(&self, pool: &PoolId) -> Result<PoolMemory, PortError> {
        self.on_book(|world, _| world.book.memory(pool)).await
    }

    async fn remember_queue(&self, pool: &PoolId, queue: &QueueMemory) -> Result<(), PortError> {
        self.on_book(|world, _| world.book.remember_queue(pool, queue)).await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        self.on_book(|world, now| {
            world.touch(now);
            world.book.set_hold(hold);
        })
        .await
    }

    /// Nobody is told of anything in a simulated week.
    async fn claim_notice(&self, _: &str, _: TimeDelta) -> Result<bool, PortError> {
        Ok(false)
    }

    async fn save_run(&self, run: &Run) -> Result<(), PortError> {
        self.on_book(|world, now| {
            world.touch(now);
            world.book.save_run(run);
        })
        .await
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.on_book(|world, _| world.book.runs_since(since)).await
    }

    async fn record(&self, record: &Record) -> Result<(), PortError> {
        self.on_book(|world, _| world.book.record(record)).await
    }

    async fn last_look(&self) -> Result<Option<Timestamp>, PortError> {
        self.on_book(|world, _| world.book.last_look()).await
    }

    async fn report(&self, report: &WorkerReport) -> Result<(), PortError> {
        if self.shared.world().faults.strikes(Fault::WorkerSilent, self.now(), 1_000) {
            super::sleep(TimeDelta::milliseconds(LATENCY_MS.1)).await;
            return Err(unavailable("the ledger cannot be reached from the box"));
        }
        self.on_book(|world, now| {
            if world.book.report(report) {
                world.touch(now);
            }
        })
        .await
    }

    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        self.on_book(|world, _| world.book.submitted(jobs)).await
    }

    async fn commit(&self, result: &JobResult) -> Result<Committed, PortError> {
        self.on_book(|world, now| {
            let done = world.book.commit(result);
            world.note(
                now,
                format!("job {} committed by {}: {done:?}", result.job.id, result.box_id),
            );
            world.check_commit(now, result, done);
            done
        })
        .await
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        self.on_book(|world, now| world.book.job(id, |job| world.whereabouts(now, job))).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        self.on_book(|world, now| world.book.jobs(filter, |job| world.whereabouts(now, job))).await
    }
}
