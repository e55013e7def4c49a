//! One reconcile while its ports are slow or fail, in tokio's paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, Hold, HoldWants, Run, SeenBox, SeenQueue, SeenWorker};
use gpuctl_core::plan::{Reason, Rule, StopMode};
use gpuctl_core::units::{BoxId, PoolId, QueueName};
use tokio::time::Instant;

use super::*;
use crate::job::{Job, JobId, JobResult};
use crate::ports::{
    Clock, Cloud, Committed, JobEntry, JobFilter, JobProblem, JobQueue, Ledger, Listing,
    NewMessage, NoFiles, PoolMemory, Purge, QueueMemory, Receipt, ReceiveRequest, Received,
    StartOrder, WorkerReport,
};
use crate::wire::record::Record;

/// All ports in one: each call is noted with its fence, takes as long as `delays` says, and fails if it is in `broken`.
struct World {
    began: Instant,
    calls: Mutex<Vec<(String, Duration)>>,
    delays: BTreeMap<&'static str, u64>,
    broken: BTreeSet<&'static str>,
    boxes: Vec<SeenBox>,
    memory: PoolMemory,
    /// Since when runs were read, each time that they were.
    runs_read_since: Mutex<Vec<Timestamp>>,
}

fn epoch() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap()
}

fn pool() -> PoolId {
    "gpu".parse().unwrap()
}

fn policy() -> Policy {
    Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap()
}

impl World {
    /// A box that runs, and a user who wants it stopped.
    fn stopping() -> Self {
        let id = BoxId::of_pool(&pool(), 1);
        let start = Reason::new(Rule::Demand, "1 job waits");
        let run = Run {
            ready_at: Some(epoch() - TimeDelta::minutes(9)),
            ..Run::begin(pool(), id.clone(), epoch() - TimeDelta::minutes(10), start)
        };
        let worker = SeenWorker {
            heard_at: epoch(),
            leases: 0,
            idle_since: None,
            jobs_done: 0,
            fault: None,
            keep_until: None,
        };
        let one = SeenBox {
            run_started_at: Some(run.started_at),
            worker: Some(worker),
            ..SeenBox::new(id, BoxState::Running, epoch() - TimeDelta::minutes(9))
        };
        let hold = Hold {
            pool: pool(),
            wants: HoldWants::Stopped,
            since: epoch() - TimeDelta::minutes(1),
            until: epoch() + TimeDelta::hours(1),
            by: "ada".to_owned(),
            why: None,
            over_budget: None,
            until_empty: false,
        };
        Self {
            began: Instant::now(),
            calls: Mutex::default(),
            delays: BTreeMap::new(),
            broken: BTreeSet::new(),
            boxes: vec![one],
            memory: PoolMemory { hold: Some(hold), runs: vec![run], ..PoolMemory::default() },
            runs_read_since: Mutex::default(),
        }
    }

    /// The same, with the worker's report in the ledger only.
    fn reporting() -> Self {
        let mut world = Self::stopping();
        world.boxes[0].worker = None;
        world
    }

    /// The same, with an older run whose end was not noted.
    fn stopping_with_an_open_run() -> Self {
        let mut world = Self::stopping();
        let older =
            Run { started_at: epoch() - TimeDelta::hours(1), ..world.memory.runs[0].clone() };
        world.memory.runs.push(older);
        world
    }

    async fn call(&self, name: &'static str, fence: Option<&Fence>) -> Result<(), PortError> {
        let fence = fence.map(|fence| format!(" #{}", fence.number)).unwrap_or_default();
        self.calls.lock().unwrap().push((format!("{name}{fence}"), self.began.elapsed()));
        tokio::time::sleep(Duration::from_secs(self.delays.get(name).copied().unwrap_or(0))).await;
        if self.broken.contains(name) {
            return Err(PortError::new(PortErrorClass::Denied, format!("no {name}")));
        }
        Ok(())
    }

    fn called(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        epoch() + TimeDelta::from_std(self.began.elapsed()).unwrap()
    }
}

#[async_trait]
impl Cloud for World {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        self.call("boxes", None).await?;
        Ok(Listing { pools: [(pool(), self.boxes.clone())].into(), ..Listing::default() })
    }

    async fn start(&self, _: &StartOrder) -> Result<(), PortError> {
        self.call("start", None).await
    }

    async fn stop(&self, _: &BoxId, _: StopMode) -> Result<(), PortError> {
        self.call("stop", None).await
    }

    async fn cancel_orphans(&self) -> Result<Vec<String>, PortError> {
        self.call("cancel_orphans", None).await.map(|()| Vec::new())
    }
}

fn elsewhere<T>() -> Result<T, PortError> {
    Err(PortError::new(PortErrorClass::Other, "a reconcile does not call this"))
}

#[async_trait]
impl JobQueue for World {
    async fn counts(&self, _: &QueueName) -> Result<SeenQueue, PortError> {
        self.call("counts", None).await.map(|()| SeenQueue::default())
    }

    async fn send(&self, _: &QueueName, _: &[NewMessage]) -> Result<(), PortError> {
        elsewhere()
    }

    async fn receive(&self, _: &QueueName, _: ReceiveRequest) -> Result<Vec<Received>, PortError> {
        elsewhere()
    }

    async fn change_visibility(&self, _: &[Receipt], _: TimeDelta) -> Vec<Result<(), PortError>> {
        vec![elsewhere()]
    }

    async fn ack(&self, _: &[Receipt]) -> Vec<Result<(), PortError>> {
        vec![elsewhere()]
    }

    async fn bury(&self, _: &QueueName, _: &Received, _: &str) -> Result<(), PortError> {
        elsewhere()
    }

    async fn redrive(&self, _: &QueueName) -> Result<u64, PortError> {
        elsewhere()
    }

    async fn purge(&self, _: &QueueName, _: Purge) -> Result<u64, PortError> {
        elsewhere()
    }
}

#[async_trait]
impl Ledger for World {
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError> {
        Ok(Some(Fence { owner: owner.to_owned(), number: 7, until: self.now() + lasts }))
    }

    async fn release(&self, _: &Fence) -> Result<(), PortError> {
        Ok(())
    }

    async fn memory(&self, _: &PoolId) -> Result<PoolMemory, PortError> {
        self.call("memory", None).await.map(|()| self.memory.clone())
    }

    async fn remember_queue(
        &self,
        _: &PoolId,
        _: &QueueMemory,
        fence: Option<&Fence>,
    ) -> Result<(), PortError> {
        self.call("remember_queue", fence).await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        assert!(hold.until <= self.now(), "a reconcile only ends holds: {hold:?}");
        self.call("set_hold", None).await
    }

    async fn save_run(&self, _: &Run, fence: Option<&Fence>) -> Result<(), PortError> {
        self.call("save_run", fence).await
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.runs_read_since.lock().unwrap().push(since);
        Ok(Vec::new())
    }

    async fn record(&self, _: &Record, fence: &Fence) -> Result<(), PortError> {
        self.call("record", Some(fence)).await
    }

    async fn last_reconcile(&self) -> Result<Option<Timestamp>, PortError> {
        elsewhere()
    }

    async fn claim_notice(&self, _: &str, _: TimeDelta) -> Result<bool, PortError> {
        elsewhere()
    }

    async fn report(&self, _: &WorkerReport) -> Result<(), PortError> {
        elsewhere()
    }

    async fn reports(&self, _: &[BoxId]) -> Result<Vec<WorkerReport>, PortError> {
        self.call("reports", None).await.map(|()| Vec::new())
    }

    async fn submitted(&self, _: &[Job]) -> Result<(), PortError> {
        elsewhere()
    }

    async fn commit(&self, _: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        vec![elsewhere()]
    }

    async fn note_problem(&self, _: &JobProblem) -> Result<(), PortError> {
        elsewhere()
    }

    async fn job(&self, _: &JobId) -> Result<Option<JobEntry>, PortError> {
        elsewhere()
    }

    async fn results(&self, _: &JobId) -> Result<Vec<JobResult>, PortError> {
        elsewhere()
    }

    async fn delete_jobs(&self, _: Timestamp) -> Result<Vec<JobId>, PortError> {
        elsewhere()
    }

    async fn jobs(&self, _: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        elsewhere()
    }
}

async fn reconcile_in(world: World) -> (Arc<World>, Reconciled) {
    reconcile_under(world, &policy()).await
}

async fn reconcile_under(world: World, policy: &Policy) -> (Arc<World>, Reconciled) {
    let world = Arc::new(world);
    let ports = Ports {
        cloud: world.clone(),
        queue: world.clone(),
        ledger: world.clone(),
        clock: world.clone(),
        files: Arc::new(NoFiles),
    };
    let reconciled = reconcile(&ports, policy, Trigger::Tick, "a test").await.unwrap().unwrap();
    (world, reconciled)
}

fn lease() -> Duration {
    LEASE_LASTS.to_std().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_budget_reads_the_runs_of_its_own_period_once() {
    let midnight: Timestamp = "2027-01-15T00:00:00Z".parse().unwrap();
    let month: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    for (budget, since) in [
        ("", vec![]),
        ("budget_usd_day = 5", vec![midnight]),
        ("budget_usd_month = 50\nbudget_usd_day = 5", vec![month]),
    ] {
        let policy = Policy::parse(&format!("[pool.gpu]\nqueue = \"jobs\"\n{budget}")).unwrap();
        let (world, _) = reconcile_under(World::stopping(), &policy).await;
        assert_eq!(*world.runs_read_since.lock().unwrap(), since, "{budget}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ordered_after_the_lease_has_ended() {
    let world = World { delays: BTreeMap::from([("save_run", 15)]), ..World::stopping() };
    let (world, reconciled) = reconcile_in(world).await;
    let class = reconciled.acted[0].result.as_ref().unwrap_err().class;
    assert_eq!(class, PortErrorClass::LeaseLost);
    let called = world.called();
    let is_order = |name: &&String| ["stop", "cancel_orphans"].contains(&name.as_str());
    assert_eq!(called.iter().find(is_order), None, "{called:?}");
    assert!(called.contains(&"save_run #7".to_owned()), "it was about to stop it: {called:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_cloud_does_not_answer_ends_with_the_lease() {
    let world = World { delays: BTreeMap::from([("stop", 3_600)]), ..World::stopping() };
    let (world, reconciled) = reconcile_in(world).await;
    let class = reconciled.acted[0].result.as_ref().unwrap_err().class;
    assert_eq!(class, PortErrorClass::Unavailable);
    assert!(world.began.elapsed() <= lease() + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn an_observation_with_its_reports_ends_below_the_lease() {
    let world =
        World { delays: BTreeMap::from([("boxes", 8), ("reports", 10)]), ..World::reporting() };
    let (world, reconciled) = reconcile_in(world).await;
    let record = world.calls.lock().unwrap().last().cloned().unwrap();
    assert_eq!(record.0, "record #7");
    assert!(record.1 < lease(), "{:?}", record.1);
    let seen = &reconciled.observation.pools[&pool()];
    assert_eq!(seen.boxes.value, None, "whether its worker is ready is not known");
    let errors: Vec<String> = reconciled.errors.iter().map(ToString::to_string).collect();
    assert!(errors[0].contains("reports could not be read within"), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn every_write_carries_the_fence_and_queues_come_first() {
    let (world, _) = reconcile_in(World::stopping_with_an_open_run()).await;
    let called = world.called();
    let order =
        ["remember_queue #7", "save_run #7", "save_run #7", "stop", "cancel_orphans", "record #7"];
    assert_eq!(called[called.len() - order.len()..], order, "{called:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_written_keeps_neither_the_queue_nor_the_stop() {
    let broken = |calls: &[&'static str]| World {
        broken: calls.iter().copied().collect(),
        ..World::stopping_with_an_open_run()
    };
    let (world, reconciled) = reconcile_in(broken(&["save_run"])).await;
    let called = world.called();
    assert!(called.contains(&"remember_queue #7".to_owned()), "{called:?}");
    assert!(called.contains(&"stop".to_owned()), "{called:?}");
    assert_eq!(reconciled.errors.len(), 1, "{:?}", reconciled.errors);
    let (_, reconciled) = reconcile_in(broken(&["save_run", "remember_queue"])).await;
    assert_eq!(reconciled.errors.len(), 2, "{:?}", reconciled.errors);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_with_its_queue_is_ended_for_good_once_nothing_is_left_to_do() {
    let until_empty = |leases: u32| {
        let mut world = World::stopping();
        let hold = world.memory.hold.as_mut().unwrap();
        (hold.wants, hold.until_empty) = (HoldWants::Running, true);
        world.boxes[0].worker.as_mut().unwrap().leases = leases;
        let empty_since = Some(epoch() - TimeDelta::minutes(2));
        let seen = SeenQueue { empty_since, ..SeenQueue::default() };
        world.memory.queue = Some(QueueMemory { seen, at: epoch() - TimeDelta::seconds(1) });
        world
    };
    let (world, _) = reconcile_in(until_empty(1)).await;
    assert!(!world.called().contains(&"set_hold".to_owned()), "{:?}", world.called());
    let (world, reconciled) = reconcile_in(until_empty(0)).await;
    assert!(world.called().contains(&"set_hold".to_owned()), "{:?}", world.called());
    assert!(reconciled.errors.is_empty(), "{:?}", reconciled.errors);
}

#[tokio::test(start_paused = true)]
async fn the_last_report_of_a_box_that_has_stopped_is_read_once() {
    let mut world = World::reporting();
    world.boxes[0].state = BoxState::Stopped;
    let (world, _) = reconcile_in(world).await;
    assert!(world.called().contains(&"reports".to_owned()), "{:?}", world.called());
    let mut world = World::reporting();
    world.boxes[0].state = BoxState::Stopped;
    world.memory.runs[0].stopped_at = Some(epoch());
    let (world, _) = reconcile_in(world).await;
    assert!(!world.called().contains(&"reports".to_owned()), "{:?}", world.called());
}
