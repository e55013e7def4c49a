//! What one reconcile of a large fleet costs, and how that grows, up to as many pools as a policy may have: the real loop over queues, runs
//! and reports in a queue file, and boxes in memory. Nothing is to be started or stopped; every tenth box is busy, the others are stopped.
//!
//! Without the round trips to a cloud, whose number does not depend on the fleet.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{SubsecRound, TimeDelta};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{
    Clock, Cloud, Ledger, Listing, NoFiles, PortError, Ports, StartOrder, WorkerReport,
};
use gpuctl_control::reconcile;
use gpuctl_control::reconciled::Trigger;
use gpuctl_core::observation::{BoxState, Run, SeenBox};
use gpuctl_core::plan::{Reason, Rule, StopMode};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_local::{Store, StoreOptions};
use tokio::task::JoinSet;

const ROUNDS: usize = 5;

type Boxes = BTreeMap<PoolId, Vec<SeenBox>>;

#[tokio::main]
async fn main() {
    println!("one reconcile that changes nothing, median of {ROUNDS}");
    for (pools, boxes) in [(10, 10), (100, 10), (10, 100), (100, 100)] {
        let took = measure(pools, boxes).await;
        println!(
            "{pools:>4} pools of {boxes:>3} boxes: {:>6.1} ms, {:>4.0} us a pool",
            took.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e6 / f64::from(pools)
        );
    }
}

async fn measure(pools: u32, boxes_max: u32) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 1_024 };
    let store = Arc::new(Store::open(&options).unwrap());
    let policy = policy(pools, boxes_max);
    store.configure(&policy).unwrap();
    // A run is found by its start, which the file keeps to the microsecond.
    let began_at = SystemClock.now().trunc_subsecs(0) - TimeDelta::hours(1);
    let boxes: Boxes = policy
        .pools
        .iter()
        .map(|pool| (pool.id.clone(), boxes_of(&pool.id, boxes_max, began_at)))
        .collect();
    let mut notes = JoinSet::new();
    for (pool, one) in
        boxes.iter().flat_map(|(pool, boxes)| boxes.iter().map(move |one| (pool, one)))
    {
        let (store, run) = (Arc::clone(&store), run_of(pool, one, began_at));
        notes.spawn(async move { store.save_run(&run, None).await.unwrap() });
    }
    notes.join_all().await;
    let ports = Ports {
        cloud: Arc::new(Fleet { boxes: boxes.clone() }),
        queue: Arc::clone(&store) as Arc<_>,
        ledger: Arc::clone(&store) as Arc<_>,
        clock: Arc::new(SystemClock),
        files: Arc::new(NoFiles),
    };
    let mut times = Vec::new();
    // The first notes since when each queue is empty.
    for _ in 0..=ROUNDS {
        report_all(&store, &boxes, began_at).await;
        let began = Instant::now();
        let reconciled = reconcile(&ports, &policy, Trigger::Tick, "bench").await.unwrap().unwrap();
        times.push(began.elapsed());
        assert!(reconciled.errors.is_empty(), "{:?}", reconciled.errors);
        assert!(reconciled.acted.is_empty(), "{:?}", reconciled.acted);
    }
    let mut times = times.split_off(1);
    times.sort();
    times[ROUNDS / 2]
}

fn policy(pools: u32, boxes_max: u32) -> Policy {
    let mut text = String::new();
    for pool in 0..pools {
        writeln!(text, "[pool.p{pool}]\nqueue = \"q{pool}\"\nboxes_max = {boxes_max}").unwrap();
    }
    Policy::parse(&text).unwrap()
}

fn is_busy(number: u32) -> bool {
    number % 10 == 1
}

fn boxes_of(pool: &PoolId, boxes: u32, since: Timestamp) -> Vec<SeenBox> {
    let one = |number| {
        let state = if is_busy(number) { BoxState::Running } else { BoxState::Stopped };
        let run_started_at = is_busy(number).then_some(since);
        SeenBox { run_started_at, ..SeenBox::new(BoxId::of_pool(pool, number), state, since) }
    };
    (1..=boxes).map(one).collect()
}

/// A run that goes on, or one that has ended.
fn run_of(pool: &PoolId, one: &SeenBox, began_at: Timestamp) -> Run {
    let is_up = one.is_up();
    let started_at = if is_up { began_at } else { began_at - TimeDelta::hours(1) };
    let reason = Reason::new(Rule::Demand, "1 job waits");
    Run {
        ready_at: Some(started_at + TimeDelta::seconds(100)),
        stopped_at: (!is_up).then_some(began_at),
        jobs: (!is_up).then_some(9),
        ..Run::begin(pool.clone(), one.id.clone(), started_at, reason)
    }
}

async fn report_all(store: &Store, boxes: &Boxes, run_started_at: Timestamp) {
    for one in boxes.values().flatten().filter(|one| one.is_up()) {
        let report = WorkerReport {
            leases: 1,
            ready_at: Some(run_started_at + TimeDelta::seconds(100)),
            ..WorkerReport::begin(one.id.clone(), run_started_at, SystemClock.now(), 1)
        };
        store.report(&report).await.unwrap();
    }
}

/// Boxes that a reconcile leaves alone.
struct Fleet {
    boxes: Boxes,
}

#[async_trait]
impl Cloud for Fleet {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        Ok(Listing { pools: self.boxes.clone(), ..Listing::default() })
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        unreachable!("nothing is to be started: {order:?}")
    }

    async fn stop(&self, box_id: &BoxId, _: StopMode) -> Result<(), PortError> {
        unreachable!("nothing is to be stopped: {box_id}")
    }
}
