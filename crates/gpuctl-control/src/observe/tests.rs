//! What follows from what was read, on plain values: no port is asked here.

use gpuctl_core::observation::{BootPhase, Foreign, HoldWants, SeenWorker, WorkerFault};
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::plan::{Reason, Rule};

use super::runs::{
    clear_foreign_after_interruption, close_runs_without_box, runs_started_elsewhere, update_runs,
};
use super::workers::{apply_report, assume_ready_after_boot, end_with_faults, excuse_silence};
use super::*;
use crate::ports::WorkerReport;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("a second of this century")
}

fn pool() -> PoolId {
    "gpu".parse().expect("a name")
}

fn run(started: i64) -> Run {
    let reason = Reason::new(Rule::Demand, "1 job waits");
    Run::begin(pool(), "gpu-1".parse().expect("a name"), at(started), reason)
}

fn a_box(state: BoxState, since: i64) -> SeenBox {
    SeenBox::new("gpu-1".parse().expect("a name"), state, at(since))
}

#[test]
fn r5_a_box_whose_start_the_listing_does_not_show_yet_is_pending() {
    let mut boxes = [a_box(BoxState::Stopped, 0)];
    assert!(update_runs(&mut [run(100)], &mut boxes, at(110)).is_empty());
    assert_eq!(boxes[0].state, BoxState::Pending);
    let mut late = [run(100)];
    boxes[0].state = BoxState::Stopped;
    assert_eq!(update_runs(&mut late, &mut boxes, at(116)).len(), 1);
    assert_eq!((boxes[0].state, late[0].stopped_at), (BoxState::Stopped, Some(at(100))));
    // A cloud's listing may be later than that.
    let offering = Offering {
        instance_type: "g4dn.xlarge".to_owned(),
        zone: "us-east-1a".to_owned(),
        capacity: CapacityType::Spot,
    };
    boxes[0].offering = Some(offering);
    assert!(update_runs(&mut [run(100)], &mut boxes, at(150)).is_empty());
    assert_eq!(boxes[0].state, BoxState::Pending);
}

#[test]
fn q3_a_ledger_that_cannot_be_read_does_not_restart_the_row_of_empty_samples() {
    let mut observed = Observed::new(at(100), Witness::Controller);
    let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").expect("a plain policy");
    let pool = &policy.pools[0];
    let parts = |memory| Parts {
        memory,
        queue: QueueRead::Counted(SeenQueue::default()),
        boxes: Some(Vec::new()),
        urgent: None,
        spent: None,
    };
    let seen = observed.pool(pool, parts(None));
    assert!(seen.queue.is_some_and(|queue| queue.value.is_some()));
    assert!(observed.queues_changed.is_empty(), "{:?}", observed.queues_changed);
    observed.pool(pool, parts(Some(PoolMemory::default())));
    assert_eq!(observed.queues_changed.len(), 1);
}

fn sampled(
    visible: u64,
    sent: Option<i64>,
    seconds: i64,
    last: Option<&QueueMemory>,
) -> QueueMemory {
    let mut observed = Observed::new(at(seconds), Witness::Controller);
    let counts = SeenQueue { visible, oldest_sent_at: sent.map(at), ..SeenQueue::default() };
    let seen = observed.queue(&pool(), QueueRead::Counted(counts), last);
    let (_, memory) = observed.queues_changed.pop().unwrap_or_else(|| {
        let last = last.expect("what is not remembered anew was known").clone();
        (pool(), last)
    });
    assert_eq!(seen.and_then(|seen| seen.value).as_ref(), Some(&memory.seen));
    memory
}

#[test]
fn q4_without_ages_the_first_sample_wakes_nothing_and_the_next_counts_from_it() {
    let empty = sampled(0, None, 0, None);
    let first = sampled(3, None, 60, Some(&empty));
    assert_eq!(first.seen.oldest_sent_at, None);
    let second = sampled(2, None, 120, Some(&first));
    assert_eq!(second.seen.oldest_sent_at, Some(at(60)));
    let third = sampled(7, None, 180, Some(&second));
    assert_eq!(third.seen.oldest_sent_at, Some(at(60)));
    let emptied = sampled(0, None, 240, Some(&third));
    assert_eq!(emptied.seen.oldest_sent_at, None);
    let flicker = sampled(1, None, 300, Some(&emptied));
    assert_eq!(flicker.seen.oldest_sent_at, None);
    assert_eq!(sampled(0, None, 360, Some(&flicker)).seen.oldest_sent_at, None);
}

#[test]
fn a_queue_that_knows_ages_is_believed() {
    let first = sampled(1, Some(-500), 0, None);
    assert_eq!(first.seen.oldest_sent_at, Some(at(-500)));
    let second = sampled(1, Some(-20), 60, Some(&first));
    assert_eq!(second.seen.oldest_sent_at, Some(at(-20)));
}

#[test]
fn a_run_whose_box_no_longer_exists_ends() {
    let mut runs = [run(100)];
    assert_eq!(close_runs_without_box(&mut runs, &[], at(500)).len(), 1);
    assert_eq!(runs[0].stopped_at, Some(at(500)));
}

#[test]
fn p4_a_box_that_ec2_restarts_after_an_interruption_is_no_hold() {
    let foreign =
        Foreign { wants: HoldWants::Running, at: Some(at(90)), by: "an unknown user".to_owned() };
    let mut boxes = [SeenBox { foreign: Some(foreign), ..a_box(BoxState::Running, 90) }];
    let interrupted = Run { stopped_at: Some(at(60)), interrupted_at: Some(at(60)), ..run(10) };
    let found =
        runs_started_elsewhere(std::slice::from_ref(&interrupted), &boxes, &pool(), at(100));
    assert_eq!(found[0].start.rule, Rule::Interruption);
    clear_foreign_after_interruption(&[found[0].clone(), interrupted], &mut boxes);
    assert_eq!(boxes[0].foreign, None);
}

#[test]
fn s10_a_box_is_ready_when_its_worker_reports_it_in_this_run() {
    let report = |seconds, ready_at| WorkerReport {
        ready_at,
        leases: 2,
        jobs_done: 3,
        ..WorkerReport::begin("gpu-1".parse().expect("a name"), at(seconds), at(seconds), 1)
    };
    let seen = |reports: &[WorkerReport]| {
        let mut one = a_box(BoxState::Running, 100);
        apply_report(reports, &mut one);
        (one.state, one.since, one.worker.map(|worker| worker.leases))
    };
    assert_eq!(seen(&[]), (BoxState::Pending, at(100), None));
    assert_eq!(seen(&[report(90, Some(at(80)))]), (BoxState::Pending, at(100), None));
    assert_eq!(seen(&[report(120, None)]), (BoxState::Pending, at(100), Some(2)));
    assert_eq!(seen(&[report(150, Some(at(140)))]), (BoxState::Running, at(140), Some(2)));
    let told = WorkerReport {
        rebalance: Some(at(130)),
        boot_phases: BootPhase::read_all("kernel 3200"),
        ..report(150, None)
    };
    let mut one = a_box(BoxState::Running, 100);
    apply_report(&[report(120, None), told], &mut one);
    assert_eq!(one.rebalance, Some(at(130)));
    assert_eq!(BootPhase::write_all(&one.boot_phases), "kernel 3200\n");
}

#[test]
fn a_box_whose_worker_reports_nothing_is_ready_after_a_boot() {
    let text = "[cloud]\nkind = \"aws\"\n[pool.gpu]\nqueue = \"jobs\"\nworker = \"own\"\nboot_default = \"60s\"\n\
        select = { role = \"gpu\" }";
    let policy = Policy::parse(text).expect("a policy");
    let seen = |now| {
        let boxes = vec![a_box(BoxState::Running, 100)];
        let mut listing = Listing { pools: [(pool(), boxes)].into(), errors: Vec::new() };
        assume_ready_after_boot(&policy, &mut listing, at(now));
        let one = &listing.pools[&pool()][0];
        (one.state, one.since)
    };
    assert_eq!(seen(159), (BoxState::Pending, at(100)));
    assert_eq!(seen(160), (BoxState::Running, at(160)));
}

#[test]
fn r1_a_box_that_was_started_outside_gpuctl_has_a_run_and_so_a_cost() {
    let foreign =
        Foreign { wants: HoldWants::Running, at: Some(at(50)), by: "user/ada".to_owned() };
    let one = SeenBox { foreign: Some(foreign), ..a_box(BoxState::Running, 60) };
    let mut closed = run(10);
    closed.stopped_at = Some(at(20));
    let found = runs_started_elsewhere(&[closed], std::slice::from_ref(&one), &pool(), at(70));
    assert_eq!((found.len(), found[0].started_at, found[0].ready_at), (1, at(60), Some(at(60))));
    assert!(found[0].start.text.contains("user/ada"), "{:?}", found[0].start);
    assert!(runs_started_elsewhere(&found, std::slice::from_ref(&one), &pool(), at(80)).is_empty());
    // It stays open for as long as the box is up, and ends with it.
    let mut runs = found;
    let mut boxes = [one];
    assert!(update_runs(&mut runs, &mut boxes, at(900)).is_empty(), "{runs:?}");
    boxes[0] = a_box(BoxState::Stopped, 1_000);
    assert_eq!(update_runs(&mut runs, &mut boxes, at(1_010)).len(), 1);
    assert_eq!((runs[0].started_at, runs[0].stopped_at), (at(60), Some(at(1_000))));
}

#[test]
fn a_run_whose_end_was_not_seen_costs_until_the_next_one_began() {
    let mut runs = [Run { ready_at: Some(at(130)), ..run(100) }];
    let next = SeenBox { run_started_at: Some(at(900)), ..a_box(BoxState::Pending, 900) };
    assert_eq!(update_runs(&mut runs, &mut [next.clone()], at(910)).len(), 1);
    assert_eq!(runs[0].stopped_at, Some(at(900)));
    let mut stopping = [Run { ready_at: Some(at(130)), stopping_at: Some(at(500)), ..run(100) }];
    update_runs(&mut stopping, &mut [next], at(910));
    assert_eq!(stopping[0].stopped_at, Some(at(500)), "unless its stop was noted");
}

#[test]
fn an_older_run_of_a_box_that_has_started_again_is_closed() {
    let ran = Run { ready_at: Some(at(130)), ..run(100) };
    let mut runs = [run(900), run(500), ran];
    let one = SeenBox { run_started_at: Some(at(900)), ..a_box(BoxState::Pending, 900) };
    assert_eq!(update_runs(&mut runs, &mut [one], at(910)).len(), 2);
    let ends: Vec<_> = runs.iter().map(|run| run.stopped_at).collect();
    assert_eq!(ends, [None, Some(at(900)), Some(at(500))], "whether or not it was ever ready");
}

#[test]
fn a_worker_is_silent_only_while_the_ledger_is_known_to_take_writes() {
    for (heard, written, silent) in [(5, 10, 5), (200, 10, 190), (155, 160, 60), (400, 160, 240)] {
        let now = at(1_000);
        let (heard_at, unwritten) = (at(1_000 - heard), TimeDelta::seconds(written));
        let mut one = a_box(BoxState::Running, 100);
        one.worker = Some(SeenWorker {
            heard_at,
            leases: 1,
            idle_since: None,
            jobs_done: 0,
            fault: None,
            keep_until: None,
        });
        excuse_silence(&mut one, now, unwritten);
        let counted = now - one.worker.unwrap().heard_at;
        assert_eq!(counted.num_seconds(), silent, "heard {heard} s ago, written {written} s ago");
    }
}

#[test]
fn two_workers_of_one_box_are_idle_and_at_fault_only_together() {
    let fault = |since| WorkerFault {
        code: "device.cuda".to_owned(),
        message: "no CUDA".to_owned(),
        since: at(since),
    };
    let report = |device: &str, heard: i64, leases: u32| WorkerReport {
        device: Some(device.to_owned()),
        ready_at: Some(at(heard - 50)),
        leases,
        idle_since: (leases == 0).then(|| at(heard - 40)),
        jobs_done: 3,
        ..WorkerReport::begin("gpu-1".parse().expect("a name"), at(100), at(heard), 1)
    };
    let seen = |reports: &[WorkerReport]| {
        let mut one = SeenBox { run_started_at: Some(at(100)), ..a_box(BoxState::Running, 100) };
        apply_report(reports, &mut one);
        (one.since, one.worker.expect("it reported"))
    };
    let (idle, busy) = (report("cuda:0", 200, 0), report("cuda:1", 201, 2));
    let (since, worker) = seen(&[idle.clone(), busy.clone()]);
    assert_eq!(
        (since, worker.heard_at, worker.leases, worker.idle_since),
        (at(150), at(201), 2, None)
    );
    assert_eq!(worker.jobs_done, 6);
    let (_, both) = seen(&[idle.clone(), report("cuda:1", 230, 0)]);
    assert_eq!((both.leases, both.idle_since), (0, Some(at(190))));
    let faulty = WorkerReport { fault: Some(fault(180)), ..idle.clone() };
    assert_eq!(seen(&[faulty.clone(), busy.clone()]).1.fault, None, "the other takes jobs");
    let also = WorkerReport { fault: Some(fault(170)), keep_until: Some(at(900)), ..busy.clone() };
    let (_, worker) = seen(&[faulty, also]);
    assert_eq!((worker.fault, worker.keep_until), (Some(fault(170)), Some(at(900))));
    // One that has ended, or was never restarted, does not keep the box up for ever.
    let (_, worker) = seen(&[report("cuda:0", 400, 0), busy]);
    assert_eq!((worker.leases, worker.idle_since), (0, Some(at(360))));
}

#[test]
fn a_run_ends_with_what_its_worker_last_reported() {
    let one = || SeenBox { run_started_at: Some(at(100)), ..a_box(BoxState::Stopped, 300) };
    let report = WorkerReport {
        ready_at: Some(at(150)),
        idle_since: Some(at(150)),
        fault: Some(WorkerFault {
            code: "models.missing".to_owned(),
            message: "models missing".to_owned(),
            since: at(160),
        }),
        ..WorkerReport::begin("gpu-1".parse().expect("a name"), at(100), at(290), 1)
    };
    let mut boxes = vec![one()];
    apply_report(&[report], &mut boxes[0]);
    assert_eq!((boxes[0].state, boxes[0].since), (BoxState::Stopped, at(300)));
    let mut listing = Listing { pools: [(pool(), boxes)].into(), errors: Vec::new() };
    end_with_faults(&mut listing);
    let mut runs = [Run { ready_at: Some(at(150)), ..run(100) }];
    update_runs(&mut runs, listing.pools.get_mut(&pool()).expect("the pool"), at(310));
    let ended = &runs[0];
    assert_eq!((ended.jobs, ended.error.as_deref()), (Some(0), Some("models missing")));
    assert!(ended.ended_in_fault() && ended.ended_without_result() && ended.failed());
}
