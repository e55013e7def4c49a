//! What follows from what was read, on plain values: no port is asked here.

use gpuctl_core::observation::{BootPhase, Foreign, HoldWants, SeenWorker, WorkerFault};
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::plan::{Reason, Rule};

use super::runs::{
    clear_foreign_after_interruption, close_runs_without_box, runs_ended_elsewhere,
    runs_started_elsewhere, update_runs,
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
        gone: Vec::new(),
        runs_of_budget: None,
    };
    let seen = observed.pool(&policy, pool, parts(None));
    assert!(seen.queue.is_some_and(|queue| queue.value.is_some()));
    assert!(observed.queues_changed.is_empty(), "{:?}", observed.queues_changed);
    observed.pool(&policy, pool, parts(Some(PoolMemory::default())));
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
    assert_eq!(close_runs_without_box(&mut runs, [].iter(), at(500)).len(), 1);
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
        let mut listing = Listing { pools: [(pool(), boxes)].into(), ..Listing::default() };
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

fn on_ec2(state: BoxState, began: i64, since: i64) -> SeenBox {
    let offering = Offering {
        instance_type: "g4dn.xlarge".to_owned(),
        zone: "us-east-1a".to_owned(),
        capacity: CapacityType::Spot,
    };
    SeenBox { run_started_at: Some(at(began)), offering: Some(offering), ..a_box(state, since) }
}

fn found_ended(runs: &[Run], one: &SeenBox, now: i64) -> Vec<Run> {
    runs_ended_elsewhere(runs, [one], &pool(), at(now), TimeDelta::hours(8))
}

#[test]
fn r1_a_box_that_was_started_and_stopped_while_the_ledger_took_no_writes_has_a_run() {
    let before = Run { stopped_at: Some(at(50)), ..run(10) };
    let one = on_ec2(BoxState::Stopped, 3_600, 7_200);
    let found = found_ended(std::slice::from_ref(&before), &one, 9_000);
    let [ended] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((ended.started_at, ended.stopped_at), (at(3_600), Some(at(7_200))));
    assert_eq!((&ended.offering, &ended.error), (&one.offering, &None));
    assert!(ended.start.text.contains("the ledger had none"), "{:?}", ended.start);
    assert!(!ended.failed() && !ended.ended_without_result(), "it is no failed start: {ended:?}");
    // A write that is repeated is the same run; once it is in the ledger there is no other.
    assert_eq!(found_ended(std::slice::from_ref(&before), &one, 12_000), found);
    assert_eq!(found_ended(&[ended.clone(), before], &one, 12_000), []);
    // On its way off it is open until it is off.
    let stopping = on_ec2(BoxState::Stopping, 3_600, 7_100);
    let mut open = found_ended(&[], &stopping, 7_110);
    assert_eq!((open.len(), open[0].stopped_at, open[0].failed()), (1, None, false));
    assert_eq!(update_runs(&mut open, &mut [one], at(9_000)).len(), 1);
    assert_eq!(open[0].stopped_at, Some(at(7_200)));
    assert!(!open[0].failed(), "{open:?}");
}

#[test]
fn what_was_not_a_run_of_the_pool_or_is_one_already_is_not_found_again() {
    let one = on_ec2(BoxState::Stopped, 100, 900);
    let of_order = Run { stopped_at: Some(at(900)), ..run(97) };
    // EC2 refused an order later, so that only the time of the launch is left.
    assert_eq!(found_ended(&[of_order], &one, 2_000), []);
    assert_eq!(found_ended(&[run(40)], &one, 2_000), [], "its run is open");
    let next = Run { stopped_at: Some(at(100)), ..run(40) };
    assert_eq!(
        found_ended(&[next], &one, 2_000).len(),
        1,
        "a run that had ended by then is another"
    );
    let never = SeenBox { run_started_at: None, ..one.clone() };
    let here = SeenBox { offering: None, ..one.clone() };
    assert_eq!((found_ended(&[], &never, 2_000), found_ended(&[], &here, 2_000)), (vec![], vec![]));
    assert_eq!(found_ended(&[], &one, 40 * 86_400), [], "it is in no budget of now");
    let other = |n: i64| Run { box_id: "gpu-2".parse().expect("a name"), ..run(5_000 - n) };
    let hundred: Vec<Run> = (0..100_i64).map(other).collect();
    assert_eq!(found_ended(&hundred, &one, 6_000), [], "its run may be older than those at hand");
    assert_eq!(found_ended(&hundred[1..], &one, 6_000).len(), 1);
}

#[test]
fn an_end_that_ec2_does_not_tell_costs_neither_nothing_nor_until_now() {
    let unknown = |now| {
        let one = SeenBox { since_is_bound: true, ..on_ec2(BoxState::Stopped, 100, 100) };
        found_ended(&[], &one, now).pop().expect("a run")
    };
    assert_eq!(unknown(1_000).stopped_at, Some(at(1_000)), "the latest possible");
    let later = unknown(10 * 86_400);
    assert_eq!(later.stopped_at, Some(at(100) + TimeDelta::hours(8)), "as long as it may be up");
    assert!(later.error.is_some_and(|error| error.contains("was not observed")));
    // EC2 bills a minute also of a start that ended within the second.
    let at_once = found_ended(&[], &on_ec2(BoxState::Stopped, 100, 100), 500);
    assert_eq!(at_once[0].stopped_at, Some(at(101)));
}

#[test]
fn a_run_that_was_never_seen_ready_costs_until_its_box_was_started_again_or_was_gone() {
    let mut unseen = [run(100)];
    update_runs(&mut unseen, &mut [on_ec2(BoxState::Stopped, 5_000, 6_000)], at(9_000));
    assert_eq!(unseen[0].stopped_at, Some(at(5_000)));
    // EC2 has forgotten the box: its slot is free, or its id is not known.
    let mut forgotten = [Run { ready_at: Some(at(130)), ..run(100) }];
    let slot =
        SeenBox::new("gpu-1".parse().expect("a name"), BoxState::Stopped, Timestamp::UNIX_EPOCH);
    update_runs(&mut forgotten, &mut [slot], at(9_000));
    assert_eq!(forgotten[0].stopped_at, Some(at(9_000)), "not a run that cost nothing");
}

#[test]
fn a_budget_counts_a_run_at_once_that_the_ledger_does_not_have_yet() {
    let text = "[cloud]\nkind = \"aws\"\n[cost]\nusd_hour = 1.0\n[pool.gpu]\nqueue = \"jobs\"\nworker = \"own\"\nselect = { role = \"gpu\" }\n\
        budget_usd_day = 5";
    let policy = Policy::parse(text).expect("a policy");
    let spent = |boxes, gone, runs: &[Run]| {
        let mut observed = Observed::new(at(9_000), Witness::Controller);
        let memory = PoolMemory { runs: runs.to_vec(), ..PoolMemory::default() };
        let parts = Parts {
            memory: Some(memory),
            queue: QueueRead::None,
            boxes: Some(boxes),
            urgent: None,
            gone,
            runs_of_budget: Some(runs.to_vec()),
        };
        let seen = observed.pool(&policy, &policy.pools[0], parts);
        seen.spent.expect("it has a budget").day
    };
    let one = on_ec2(BoxState::Stopped, 3_600, 7_200);
    let none = spent(Vec::new(), Vec::new(), &[]);
    assert_eq!(spent(vec![one.clone()], Vec::new(), &[]), none + MicroUsd(1_000_000));
    assert_eq!(spent(Vec::new(), vec![one.clone()], &[]), none + MicroUsd(1_000_000), "terminated");
    // An open run that ends now is counted once.
    assert_eq!(spent(vec![one], Vec::new(), &[run(3_600)]), none + MicroUsd(1_000_000));
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
    let mut listing = Listing { pools: [(pool(), boxes)].into(), ..Listing::default() };
    end_with_faults(&mut listing);
    let mut runs = [Run { ready_at: Some(at(150)), ..run(100) }];
    update_runs(&mut runs, listing.pools.get_mut(&pool()).expect("the pool"), at(310));
    let ended = &runs[0];
    assert_eq!((ended.jobs, ended.error.as_deref()), (Some(0), Some("models missing")));
    assert!(ended.ended_in_fault() && ended.ended_without_result() && ended.failed());
}
