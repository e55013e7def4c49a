//! How long one `decide` takes, and how that grows with boxes and pools; each pool has as many runs as an observation can have.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use gpuctl_core::decide;
use gpuctl_core::observation::{
    BoxState, Observation, RUNS_REMEMBERED_MAX, Run, Seen, SeenBox, SeenPool, SeenQueue,
    SeenWorker, Witness,
};
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, PoolId, Timestamp};

/// How long each figure is measured for.
const MEASURED: Duration = Duration::from_millis(500);

fn main() {
    println!(
        "one decide, mean; every second box runs and is idle, the others are stopped, 3 of 4 on spot, 100 runs a pool"
    );
    for (pools, boxes) in [(1, 1), (1, 10), (1, 100), (1, 1_000), (20, 50), (100, 10), (100, 100)] {
        let took = measure(pools, boxes);
        let all = u32::try_from(pools * boxes).unwrap();
        println!(
            "{pools:>4} pools of {boxes:>4} boxes: {:>9.1} us, {:>6.3} us a box",
            took.as_secs_f64() * 1e6,
            took.as_secs_f64() * 1e6 / f64::from(all)
        );
    }
    let before = resident_kib();
    measure(20, 50);
    println!("memory after {MEASURED:?} more of 20 pools of 50: {:+} KiB", resident_kib() - before);
}

fn measure(pools: usize, boxes: usize) -> Duration {
    let (policy, seen) = world(pools, boxes);
    let _ = black_box(decide(&policy, &seen));
    let (began, mut times) = (Instant::now(), 0);
    while began.elapsed() < MEASURED {
        let _ = black_box(decide(black_box(&policy), black_box(&seen)));
        times += 1;
    }
    began.elapsed() / times
}

fn world(pools: usize, boxes: usize) -> (Policy, Observation) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let mut text = String::new();
    let mut seen = BTreeMap::new();
    for index in 0..pools {
        let pool: PoolId = format!("p{index}").parse().unwrap();
        writeln!(
            text,
            "[pool.{pool}]\nqueue = \"{pool}\"\nboxes_max = {boxes}\nbudget_usd_month = 60"
        )
        .unwrap();
        writeln!(text, "[[pool.{pool}.schedule]]\nzone = \"Asia/Tokyo\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"19:00\"").unwrap();
        let boxes = (0..boxes).map(|index| a_box(&pool, index, at)).collect();
        let runs = (0..RUNS_REMEMBERED_MAX as usize).map(|index| run(&pool, index, at)).collect();
        let queue =
            SeenQueue { empty_since: Some(at - TimeDelta::hours(1)), ..SeenQueue::default() };
        let (boxes, queue) = (Seen::now(boxes, at), Some(Seen::now(queue, at)));
        let service = Some(TimeDelta::seconds(2));
        let spent = Some(gpuctl_core::observation::Spent::default());
        seen.insert(
            pool,
            SeenPool { boxes, queue, urgent: None, hold: None, runs, service, spent },
        );
    }
    (Policy::parse(&text).unwrap(), Observation { at, witness: Witness::Controller, pools: seen })
}

fn a_box(pool: &PoolId, index: usize, at: Timestamp) -> SeenBox {
    let state = if index.is_multiple_of(2) { BoxState::Running } else { BoxState::Stopped };
    let idle_since = Some(at - TimeDelta::hours(1));
    let worker = SeenWorker {
        heard_at: at,
        leases: 0,
        idle_since,
        jobs_done: 9,
        fault: None,
        keep_until: None,
    };
    let id = BoxId::of_pool(pool, u32::try_from(index).unwrap() + 1);
    SeenBox {
        worker: (state == BoxState::Running).then_some(worker),
        offering: Some(offering(index)),
        ..SeenBox::new(id, state, at - TimeDelta::hours(2))
    }
}

fn offering(index: usize) -> Offering {
    let capacity =
        if index.is_multiple_of(4) { CapacityType::OnDemand } else { CapacityType::Spot };
    let zone = format!("us-east-1{}", ['a', 'b', 'c'][index % 3]);
    Offering { instance_type: "g4dn.xlarge".into(), zone, capacity }
}

fn run(pool: &PoolId, index: usize, at: Timestamp) -> Run {
    let id = BoxId::of_pool(pool, u32::try_from(index).unwrap() + 1);
    let started = at - TimeDelta::hours(2) - TimeDelta::minutes(i64::try_from(index).unwrap());
    let reason = Reason::new(Rule::Demand, "1 job waits");
    Run {
        ready_at: Some(started + TimeDelta::seconds(100)),
        stopped_at: Some(started + TimeDelta::seconds(900)),
        offering: Some(offering(index)),
        ..Run::begin(pool.clone(), id, started, reason)
    }
}

/// What this process holds in memory, as proc(5)'s status says.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
