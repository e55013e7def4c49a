//! What a ledger guarantees of the right to reconcile, of holds, runs, queues, records and reports.

use chrono::TimeDelta;
use gpuctl_core::cost::run_totals;
use gpuctl_core::observation::{Hold, HoldWants, RUNS_REMEMBERED_MAX, Run, SeenQueue, WorkerFault};
use gpuctl_core::offering::{CapacityType, Offering, Refusal, RefusalClass};
use gpuctl_core::period::Period;
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{MicroUsd, PoolId, Timestamp};

use super::jobs::{job_at, result};
use super::{Subject, TRIES_MAX};
use crate::job::{JobResult, JobState};
use crate::ports::{Fence, PortErrorClass, QueueMemory, WorkerReport};
use crate::wire::record::{PoolRecord, Record};

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// One controller at a time, and each with a higher number.
pub async fn the_lease_has_one_holder_and_a_number_that_grows(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let fence = ledger.lease("one", MINUTE).await.unwrap().unwrap();
    assert_eq!(fence.owner, "one");
    assert!(fence.until > subject.ports().clock.now());
    assert!(ledger.lease("other", MINUTE).await.unwrap().is_none());
    // Also not to itself: the CLI may run twice.
    assert!(ledger.lease("one", MINUTE).await.unwrap().is_none());
    ledger.release(&fence).await.unwrap();
    let next = ledger.lease("other", MINUTE).await.unwrap().unwrap();
    assert!(next.number > fence.number);
    ledger.release(&next).await.unwrap();
}

/// A controller that is late must not release what another holds.
pub async fn a_late_release_does_not_end_the_lease_of_another(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let first = ledger.lease("first", MINUTE).await.unwrap().unwrap();
    ledger.release(&first).await.unwrap();
    let second = ledger.lease("second", MINUTE).await.unwrap().unwrap();
    ledger.release(&first).await.unwrap();
    assert!(ledger.lease("third", MINUTE).await.unwrap().is_none());
    ledger.release(&second).await.unwrap();
}

/// L1: a controller that died blocks the others for one lease at most.
pub async fn a_lease_that_is_not_released_runs_out(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let lasts = subject.lease_min();
    let dead = ledger.lease("dead", lasts).await.unwrap().unwrap();
    for _ in 0..TRIES_MAX {
        if let Some(next) = ledger.lease("next", MINUTE).await.unwrap() {
            assert!(next.number > dead.number);
            assert!(subject.ports().clock.now() >= dead.until, "it ended before its time");
            return;
        }
        subject.let_time_pass(lasts / 8).await;
    }
    unreachable!("the lease never ran out");
}

/// L15: the latest hold counts, and on its own pool alone.
pub async fn a_hold_replaces_the_one_before(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let now = whole(subject.ports().clock.now());
    let first = Hold {
        pool: pool("held"),
        wants: HoldWants::Running,
        since: now,
        until: now + MINUTE,
        by: "ada".to_owned(),
        why: Some("a demo — für später".to_owned()),
        over_budget: Some(MicroUsd(5_000_001)),
        until_empty: true,
    };
    ledger.set_hold(&first).await.unwrap();
    assert_eq!(ledger.memory(&pool("held")).await.unwrap().hold, Some(first.clone()));
    let until = now + TimeDelta::hours(1);
    let second = Hold {
        wants: HoldWants::Stopped,
        until,
        why: None,
        over_budget: None,
        until_empty: false,
        ..first.clone()
    };
    ledger.set_hold(&second).await.unwrap();
    let older = Hold { since: now - TimeDelta::microseconds(1), ..first };
    let refused = ledger.set_hold(&older).await.unwrap_err();
    assert_eq!(refused.class, PortErrorClass::Conflict, "a late command does not undo a newer one");
    assert_eq!(ledger.memory(&pool("held")).await.unwrap().hold, Some(second));
    assert_eq!(ledger.memory(&pool("not-held")).await.unwrap().hold, None);
}

/// The machine that set it had a clock far ahead: what a user says now is newer.
pub async fn a_hold_from_the_future_keeps_no_later_one_out(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let now = whole(subject.ports().clock.now());
    let hold = |since, wants| Hold {
        pool: pool("held-ahead"),
        wants,
        since,
        until: now + TimeDelta::days(2),
        by: "ada".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    };
    ledger.set_hold(&hold(now + TimeDelta::days(1), HoldWants::Running)).await.unwrap();
    let remembered = ledger.memory(&pool("held-ahead")).await.unwrap().hold.unwrap();
    assert!(remembered.since <= subject.ports().clock.now(), "{}", remembered.since);
    let of_now = hold(now, HoldWants::Stopped);
    ledger.set_hold(&of_now).await.unwrap();
    assert_eq!(ledger.memory(&pool("held-ahead")).await.unwrap().hold, Some(of_now));
}

/// Two controllers write what each has seen: what was written first stays.
pub async fn what_a_run_has_stays_and_what_it_lacks_is_filled_in(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let begun = run(subject, "merged", 0);
    ledger.save_run(&begun, None).await.unwrap();
    let at = begun.started_at;
    let bought = |zone: &str| {
        let (instance_type, zone) = ("g4dn.xlarge".to_owned(), zone.to_owned());
        Some(Offering { instance_type, zone, capacity: CapacityType::Spot })
    };
    // A launched box is bought only after its run was written.
    let (ready_at, jobs, offering) = (Some(at + MINUTE), Some(3), bought("eu-west-1a"));
    let ready = Run { ready_at, jobs, offering, ..begun.clone() };
    ledger.save_run(&ready, None).await.unwrap();
    let reason = Reason::new(Rule::Idle, "idle for 30s");
    let stopped = Run {
        ready_at: Some(at + MINUTE * 9),
        stopped_at: Some(at + MINUTE * 5),
        stop: Some(reason.clone()),
        start: Reason::new(Rule::Hold, "another reason"),
        jobs: Some(7),
        offering: bought("eu-west-1b"),
        ..begun.clone()
    };
    ledger.save_run(&stopped, None).await.unwrap();
    // A controller that saw less writes last.
    ledger.save_run(&begun, None).await.unwrap();
    let wanted = Run {
        ready_at: Some(at + MINUTE),
        stopped_at: Some(at + MINUTE * 5),
        stop: Some(reason),
        jobs: Some(3),
        offering: bought("eu-west-1a"),
        ..begun
    };
    assert_eq!(ledger.memory(&pool("merged")).await.unwrap().runs, [wanted]);
}

/// Parts that few runs have, too.
pub async fn every_part_of_a_run_comes_back(subject: &dyn Subject) {
    let begun = run(subject, "whole", 0);
    let at = begun.started_at;
    let offering = Offering {
        instance_type: "g4dn.xlarge".to_owned(),
        zone: "ap-northeast-1a".to_owned(),
        capacity: CapacityType::Spot,
    };
    let refusal = Refusal { class: RefusalClass::Capacity, text: "none — try 1c".to_owned() };
    let full = Run {
        ready_at: Some(at + MINUTE),
        stopping_at: Some(at + MINUTE * 2),
        stopped_at: Some(at + MINUTE * 3),
        stop: Some(Reason::new(Rule::Limits, "too long")),
        error: Some("exit status 1".to_owned()),
        jobs: Some(0),
        offering: Some(offering),
        refusal: Some(refusal),
        interrupted_at: Some(at + MINUTE * 2),
        ..begun
    };
    subject.ports().ledger.save_run(&full, None).await.unwrap();
    assert_eq!(subject.ports().ledger.memory(&pool("whole")).await.unwrap().runs, [full]);
}

/// An always-on box must not be forgotten among many later short runs: it would be started again.
pub async fn an_open_run_is_remembered_however_many_came_after(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let mut open = run(subject, "many", -10_000);
    open.box_id = "always-on".parse().unwrap();
    ledger.save_run(&open, None).await.unwrap();
    for n in 0..i64::from(RUNS_REMEMBERED_MAX) + 5 {
        let begun = run(subject, "many", n);
        ledger.save_run(&Run { stopped_at: Some(begun.started_at), ..begun }, None).await.unwrap();
    }
    let runs = ledger.memory(&pool("many")).await.unwrap().runs;
    assert_eq!(runs.len(), RUNS_REMEMBERED_MAX as usize + 1);
    assert!(runs.is_sorted_by(|a, b| a.started_at > b.started_at), "newest first");
    assert_eq!(runs.last(), Some(&open));
}

/// For the cost of a month: runs of every pool that were up in it, however long ago they began.
pub async fn runs_since_are_those_that_were_up_oldest_first(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let days = TimeDelta::days;
    let base = run(subject, "since-a", 0);
    let since = base.started_at - days(40);
    let at = |box_name: &str, began: Timestamp, ended: Option<Timestamp>| Run {
        box_id: box_name.parse().unwrap(),
        started_at: began,
        stopped_at: ended,
        ..base.clone()
    };
    let runs = [
        at("long-over", since - days(3), Some(since - days(1))),
        at("always-on", since - days(35), None),
        at("across", since - days(1), Some(since + days(1))),
        at("ends-then", since - days(2), Some(since)),
        at("within", since + days(5), Some(since + days(36))),
        Run { pool: pool("since-b"), ..at("other-pool", since + days(2), Some(since + days(3))) },
    ];
    for one in &runs {
        ledger.save_run(one, None).await.unwrap();
    }
    let found = ledger.runs_since(since).await.unwrap();
    let of_these = |run: &&Run| run.pool.as_str().starts_with("since-");
    let names: Vec<&str> = found.iter().filter(of_these).map(|run| run.box_id.as_str()).collect();
    assert_eq!(names, ["always-on", "ends-then", "across", "other-pool", "within"]);
}

/// For the report of a period: also of runs that began before it or go on, and without starts that were refused.
pub async fn a_period_s_jobs_and_runs_are_added_up(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let base = run(subject, "sums", 0);
    let begin = base.started_at - TimeDelta::days(40);
    let period = Period { begin, end: begin + TimeDelta::days(1) };
    let at = |seconds: i64, lasts: Option<i64>, offering: Option<Offering>| {
        let started_at = begin + TimeDelta::seconds(seconds);
        let stopped_at = lasts.map(|lasts| started_at + TimeDelta::milliseconds(lasts));
        Run { started_at, stopped_at, offering, ..base.clone() }
    };
    let (instance_type, zone) = ("g4dn.xlarge".into(), "us-east-1a".into());
    let spot = Some(Offering { instance_type, zone, capacity: CapacityType::Spot });
    let refusal = Some(Refusal { class: RefusalClass::Capacity, text: "none".to_owned() });
    let runs = [
        at(-500, Some(400_000), None),
        at(-100, Some(160_400), None),
        at(10, Some(1_500), spot.clone()),
        at(20, Some(0), spot.clone()),
        Run { refusal, ..at(30, Some(0), None) },
        at(40, Some(90_500), spot),
        at(86_300, None, None),
        at(86_500, Some(60_000), None),
    ];
    for one in &runs {
        ledger.save_run(one, None).await.unwrap();
    }
    let submitted = |seconds: i64| job_at(subject, begin + TimeDelta::seconds(seconds));
    let jobs = [-5, 5, 50, 500, 90_000].map(submitted);
    ledger.submitted(&jobs).await.unwrap();
    for (job, waited) in jobs.iter().zip([9, 7, 3]) {
        let received_at = job.submitted_at + TimeDelta::seconds(waited);
        let done = JobResult { received_at, ..result(subject, job, "done") };
        ledger.commit_one(&done).await.unwrap();
    }
    let totals = ledger.totals(period).await.unwrap();
    assert_eq!(totals.first_job, Some(jobs[1].submitted_at));
    assert_eq!(totals.states.get(&JobState::Succeeded), Some(&2));
    assert_eq!(totals.states.values().sum::<u32>(), 3);
    assert_eq!(totals.waits, [3, 7].map(TimeDelta::seconds));
    let mut sums = totals.runs.clone();
    sums.sort_by_key(|total| total.first);
    assert_eq!(sums, run_totals(&runs, period));
    let counts = sums.iter().map(|total| (total.starts, total.box_seconds, total.billed_seconds));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 160, 160), (2, 93, 151)]);
}

/// For when the queue cannot be read.
pub async fn a_queue_is_remembered_as_last_read(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let at = whole(subject.ports().clock.now());
    assert_eq!(ledger.memory(&pool("read")).await.unwrap().queue, None);
    let seen = SeenQueue {
        visible: 3,
        in_flight: 2,
        delayed: 1,
        dead: 4,
        oldest_sent_at: Some(at - MINUTE),
        empty_since: None,
    };
    let first = QueueMemory { seen, at };
    ledger.remember_queue(&pool("read"), &first, None).await.unwrap();
    assert_eq!(ledger.memory(&pool("read")).await.unwrap().queue, Some(first));
    let seen = SeenQueue { empty_since: Some(at), ..SeenQueue::default() };
    let second = QueueMemory { seen, at: at + MINUTE };
    ledger.remember_queue(&pool("read"), &second, None).await.unwrap();
    assert_eq!(ledger.memory(&pool("read")).await.unwrap().queue, Some(second));
}

/// The records of a quiet night are one row. No port reads records, so each adapter's own tests count the rows.
pub async fn equal_records_are_accepted(subject: &dyn Subject) {
    let one = Record {
        at: "2026-11-21T12:00:00.000Z".to_owned(),
        trigger: "tick".to_owned(),
        by: "test".to_owned(),
        pools: vec![PoolRecord {
            pool: "gpu".to_owned(),
            boxes_wanted: 0,
            rules: Vec::new(),
            blocked_by: Vec::new(),
            actions: Vec::new(),
        }],
        errors: Vec::new(),
    };
    for _ in 0..3 {
        subject.ports().ledger.record(&one, &fence()).await.unwrap();
    }
    let other = Record { errors: vec!["the queue could not be read".to_owned()], ..one };
    subject.ports().ledger.record(&other, &fence()).await.unwrap();
}

/// Also where the record was equal to the one before and was only counted.
pub async fn the_last_record_is_the_last_reconcile(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    for (minute, error) in [(0, "one"), (1, "one"), (2, "other")] {
        let record = Record {
            at: format!("2026-11-21T12:0{minute}:00.000Z"),
            trigger: "tick".to_owned(),
            by: "test".to_owned(),
            pools: Vec::new(),
            errors: vec![error.to_owned()],
        };
        ledger.record(&record, &fence()).await.unwrap();
        let seen = ledger.last_reconcile().await.unwrap();
        assert_eq!(seen, Some(record.at.parse().unwrap()), "{error}");
    }
}

/// Proof of life, in its fullest and in its barest form.
pub async fn a_report_is_accepted(subject: &dyn Subject) {
    let at = subject.ports().clock.now();
    let bare = WorkerReport::begin("gpu-1".parse().unwrap(), at, at, 1);
    subject.ports().ledger.report(&bare).await.unwrap();
    let full = WorkerReport {
        ready_at: Some(at),
        idle_since: Some(at),
        last_error: Some("out of memory".to_owned()),
        leases: 2,
        fault: Some(WorkerFault {
            code: "models.missing".to_owned(),
            message: "models are missing".to_owned(),
            since: at,
        }),
        ..bare
    };
    subject.ports().ledger.report(&full).await.unwrap();
}

fn pool(name: &str) -> PoolId {
    name.parse().unwrap()
}

/// A run of `pool` that began `minutes` after now, as ledgers keep times: to the microsecond.
fn run(subject: &dyn Subject, pool_name: &str, minutes: i64) -> Run {
    let at = whole(subject.ports().clock.now()) + MINUTE * i32::try_from(minutes).unwrap();
    let reason = Reason::new(Rule::Demand, "1 job waits");
    Run::begin(pool(pool_name), "gpu-1".parse().unwrap(), at, reason)
}

fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_timestamp_micros(at.timestamp_micros()).unwrap()
}

/// Of a controller that no other has followed.
fn fence() -> Fence {
    Fence { owner: "test".to_owned(), number: 1, until: Timestamp::MAX_UTC }
}
