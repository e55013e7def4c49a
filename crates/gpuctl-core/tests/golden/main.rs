//! Golden plans: for each rule and each trap of `decide` one case, and everything that a user is told about its plan.
//!
//! `tests/golden/plans.txt` is meant to be read. `UPDATE_GOLDEN=1 cargo test` writes it anew.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod failing;
mod patience;
mod quiet;
mod until_empty;
mod world;

use std::fmt::Write as _;
use std::path::Path;

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, HoldWants, Run, SeenBox, SeenQueue};
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::plan::{Action, Effect, PoolPlan, Reason, Rule, StopMode, Verdict};

use world::{
    Case, Worker, a_box, ago, app, busy, case, foreign, foreign_unknown, idle, on_demand,
    pool_of_three, refused, restarted, run, running, spot, stopped,
};

fn cases() -> Vec<Case> {
    [
        schedules(),
        holds(),
        demand(),
        idling(),
        by_hand(),
        first_sight(),
        limits(),
        failing::cases(),
        refusals(),
        spot_rules(),
        handover(),
        budgets(),
        quiet::cases(),
        patience::cases(),
        until_empty::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const SATURDAYS: &str =
    "[[pool.gpu.schedule]]\nzone = \"UTC\"\nweekdays = \"sat\"\nbegin = \"09:00\"\nend = \"18:00\"";
const SUNDAYS: &str =
    "[[pool.gpu.schedule]]\nzone = \"UTC\"\nweekdays = \"sun\"\nbegin = \"09:00\"\nend = \"18:00\"";

fn schedules() -> Vec<Case> {
    vec![
        case(
            "schedule: inside a window the box comes up without a job",
            SATURDAYS,
            vec![stopped()],
        ),
        case("R12 after its window a box with work stays up", SUNDAYS, vec![busy(running(900))])
            .waiting(3, 60),
        app("schedule: outside its window a command stops", SUNDAYS, vec![running(900)]),
        app("schedule: inside its window a command starts", SATURDAYS, vec![stopped()]),
    ]
}

fn holds() -> Vec<Case> {
    let console = |settings: &str, name| {
        app(name, settings, vec![foreign(HoldWants::Running, 1_800, running(1_800))])
    };
    vec![
        case("R1 a hold starts a box that no other rule asks for", "", vec![stopped()]).hold(
            HoldWants::Running,
            3_000,
            None,
        ),
        case("R13 a hold keeps the box down although jobs wait", "", vec![stopped()])
            .waiting(9, 900)
            .hold(HoldWants::Stopped, 3_000, None),
        case("R2 an expired hold has ended by itself", "", vec![stopped()]).waiting(9, 900).hold(
            HoldWants::Stopped,
            0,
            None,
        ),
        console(SUNDAYS, "R1 a start in the console outside the schedule counts as a hold"),
        console(
            &format!("foreign_hold = \"0s\"\n{SUNDAYS}"),
            "R1 enforced: without foreign_hold the schedule stops it at once",
        ),
        console(
            &format!("foreign_hold = \"20m\"\n{SUNDAYS}"),
            "R2 a start in the console counts only until foreign_hold is over",
        ),
        app(
            "R1 a stop in the console inside the schedule is not undone",
            SATURDAYS,
            vec![foreign(HoldWants::Stopped, 600, stopped())],
        ),
        app(
            "R1 a start in the console counts only until the schedule's next edge",
            "[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"09:00\"\nend = \"11:45\"",
            vec![foreign(HoldWants::Running, 1_800, running(1_800))],
        ),
        app(
            "R1 a stop at an unknown time does not win over a newer hold",
            "",
            vec![foreign_unknown(HoldWants::Stopped, 9_000, stopped())],
        )
        .runs(vec![run(1, 9_000)])
        .hold(HoldWants::Running, 3_000, None),
        app(
            "R1 a stop at an unknown time wins over a hold from before the run that it ended",
            "",
            vec![foreign_unknown(HoldWants::Stopped, 300, stopped())],
        )
        .runs(vec![run(1, 300)])
        .hold(HoldWants::Running, 3_000, None),
        app(
            "R2 a stop at an unknown time counts from when it was first seen, and ends",
            SATURDAYS,
            vec![foreign_unknown(HoldWants::Stopped, 9_000, stopped())],
        )
        .runs(vec![run(1, 9_000)]),
        console(SUNDAYS, "release: a later hold of gpuctl replaces a start in the console").hold(
            HoldWants::Running,
            0,
            None,
        ),
        app(
            "R14 while the schedule wants neither, nothing is done",
            "[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"20:00\"",
            vec![running(900)],
        ),
    ]
}

fn demand() -> Vec<Case> {
    let many =
        |count| (1..=count).map(|index| a_box(index, BoxState::Stopped, 9_000)).collect::<Vec<_>>();
    vec![
        case("demand: the oldest job can still wait", "max_wait = \"10m\"", vec![stopped()])
            .waiting(3, 60),
        case("demand: the last moment to keep max_wait", "max_wait = \"10m\"", vec![stopped()])
            .waiting(3, 470),
        case("Q4 counts that are seen only once start nothing", "", vec![stopped()])
            .queue(SeenQueue { visible: 4, ..SeenQueue::default() }),
        case("Q5 counts that are too old start nothing", "", vec![stopped()])
            .waiting(4, 900)
            .with(|seen| seen.queue.as_mut().unwrap().at = ago(180)),
        case(
            "Q13 boxes for the backlog, by the measured speed of one, up to boxes_max",
            "max_wait = \"10m\"\nboxes_max = 4",
            many(4),
        )
        .waiting(900, 900)
        .with(|seen| seen.service = Some(TimeDelta::seconds(2))),
        case("jobs_per_box: one box for each 20 jobs", "boxes_max = 4\njobs_per_box = 20", many(4))
            .waiting(41, 9),
        case(
            "a booting box counts as up",
            "boxes_max = 4\njobs_per_box = 20",
            vec![a_box(1, BoxState::Pending, 9), a_box(2, BoxState::Stopped, 9)],
        )
        .waiting(40, 9),
        case("Q7 each box without a result delays the next start", "", vec![stopped()])
            .waiting(1, 900)
            .runs(
                (0..4)
                    .map(|n| Run { jobs: Some(0), stop: None, ..run(1, 230 + n * 300) })
                    .collect(),
            ),
    ]
}

fn idling() -> Vec<Case> {
    let empty = |seconds| SeenQueue { empty_since: Some(ago(seconds)), ..SeenQueue::default() };
    vec![
        case(
            "idle: auto stops at once where max_wait leaves room for a boot",
            "max_wait = \"10m\"",
            vec![idle(2, running(900))],
        )
        .queue(empty(2))
        .by_worker(),
        case(
            "idle: auto stays for the break-even time where it does not",
            "max_wait = \"1m\"",
            vec![idle(60, running(900))],
        )
        .queue(empty(60))
        .by_worker(),
        case("idle: a fixed time", "idle_stop = \"5m\"", vec![idle(301, running(900))])
            .queue(empty(301))
            .by_worker(),
        case(
            "idle: the controller lets the worker stop it first",
            "idle_stop = \"5m\"",
            vec![idle(301, running(900))],
        )
        .queue(empty(301)),
        case(
            "idle: the controller stops it when the worker does not",
            "idle_stop = \"5m\"",
            vec![idle(316, running(900))],
        )
        .queue(empty(316)),
        case(
            "idle: run_min keeps a box that has just started",
            "idle_stop = \"0s\"\nrun_min = \"1m\"",
            vec![idle(9, running(30))],
        )
        .queue(empty(9))
        .by_worker(),
        case("Q1 jobs in flight are not idle", "idle_stop = \"0s\"", vec![idle(900, running(900))])
            .queue(SeenQueue { in_flight: 1, ..SeenQueue::default() }),
        case(
            "Q2 delayed jobs are work to come",
            "idle_stop = \"0s\"",
            vec![idle(900, running(900))],
        )
        .queue(SeenQueue { delayed: 1, ..SeenQueue::default() }),
        case(
            "Q3 one empty sample is not enough",
            "idle_stop = \"0s\"",
            vec![idle(900, running(900))],
        )
        .queue(SeenQueue::default()),
        case(
            "W7 an old report is not enough to stop a box",
            "idle_stop = \"0s\"",
            vec![Worker { leases: 0, idle_seconds: 900, heard_seconds: 60 }.on(running(900))],
        )
        .queue(empty(900)),
    ]
}

fn first_sight() -> Vec<Case> {
    vec![
        case(
            "R9 each stop by another controller counts for foreign_hold",
            "",
            vec![foreign(HoldWants::Stopped, 600, stopped())],
        )
        .waiting(3, 900),
        app(
            "R10 a box that is first seen running outside its schedule is stopped",
            SUNDAYS,
            vec![running(900)],
        ),
        case(
            "S6 a hold stops a box that is still booting",
            "",
            vec![a_box(1, BoxState::Pending, 9)],
        )
        .hold(HoldWants::Stopped, 3_000, None),
        case(
            "Q6 while the queue cannot be read its box stays, up to lifetime_max",
            "",
            vec![idle(9_000, running(9_100))],
        )
        .with(|seen| seen.queue.as_mut().unwrap().at = ago(9_000)),
        case(
            "Q15 a box waits for the jobs that a dead worker held",
            "idle_stop = \"0s\"",
            vec![idle(90, running(100))],
        )
        .queue(SeenQueue { in_flight: 4, ..SeenQueue::default() })
        .by_worker(),
    ]
}

fn by_hand() -> Vec<Case> {
    let two = |first: SeenBox| vec![first, idle(9, a_box(2, BoxState::Running, 900))];
    let failed = Run {
        ready_at: None,
        stop: None,
        stopped_at: Some(ago(50)),
        error: Some("KMS".to_owned()),
        ..run(1, 60)
    };
    let quota =
        refused(&pool_of_three()[1], 900, RefusalClass::Quota, "MaxSpotInstanceCountExceeded");
    let over = "budget_usd_month = 60\nidle_stop = \"0s\"";
    vec![
        case(
            "R1 one box of several that was stopped in the console is not started",
            "boxes_max = 2\njobs_per_box = 1",
            two(foreign(HoldWants::Stopped, 60, stopped())),
        )
        .waiting(2, 9),
        case(
            "R1 a hold of gpuctl applies after a start in the console has expired",
            "foreign_hold = \"0s\"",
            vec![foreign(HoldWants::Running, 60, idle(50, running(60)))],
        )
        .hold(HoldWants::Stopped, 3_000, None),
        case(
            "S1 a box whose last start failed comes after the others",
            "boxes_max = 2\njobs_per_box = 9",
            vec![stopped(), a_box(2, BoxState::Stopped, 9_000)],
        )
        .waiting(1, 900)
        .runs(vec![failed]),
        case("P9 a hold that is newer than a refusal tries again", "", pool_of_three())
            .hold(HoldWants::Running, 3_000, None)
            .runs(vec![quota]),
        case("Q7 boxes that found no job are not failures", "", vec![stopped()])
            .waiting(1, 900)
            .runs((0..6).map(|n| Run { jobs: Some(0), ..run(1, 230 + n * 300) }).collect()),
        case(
            "S7 refused starts do not count as starts",
            "starts_per_hour_max = 2",
            pool_of_three(),
        )
        .waiting(1, 900)
        .runs(
            (0..6)
                .map(|n| refused(&pool_of_three()[1], 600 + n * 60, RefusalClass::Capacity, "none"))
                .collect(),
        ),
        case(
            "budget: an idle box stops once the hold's extra amount is spent",
            over,
            vec![idle(60, running(900))],
        )
        .hold(HoldWants::Running, 3_000, Some(500))
        .spent(6_700, 600, 800),
    ]
}

fn limits() -> Vec<Case> {
    let failed = |ended| Run {
        ready_at: None,
        stop: None,
        stopped_at: Some(ago(ended)),
        error: Some("no GPU".to_owned()),
        ..run(1, ended + 5)
    };
    vec![
        case(
            "S2 a box that does not get ready is stopped",
            "",
            vec![a_box(1, BoxState::Pending, 400)],
        )
        .waiting(1, 400),
        case(
            "S3 a box that does not stop is forced off",
            "",
            vec![a_box(1, BoxState::Stopping, 90)],
        ),
        case(
            "S4 a box that is still stopping is not started",
            "",
            vec![a_box(1, BoxState::Stopping, 9)],
        )
        .waiting(1, 9),
        case(
            "S7 starts_per_hour_max prevents flapping",
            "starts_per_hour_max = 3",
            vec![stopped()],
        )
        .waiting(1, 9)
        .runs(vec![run(1, 300), run(1, 900), run(1, 1_800)]),
        case(
            "S7 each of several boxes that start together counts",
            "starts_per_hour_max = 3\nboxes_max = 3\nstart_depth = 1\njobs_per_box = 1",
            pool_of_three(),
        )
        .waiting(9, 9)
        .runs(vec![run(1, 300), run(1, 900)]),
        case("S10 a start that fails is tried again later", "", vec![stopped()])
            .waiting(1, 99)
            .runs(vec![failed(4), failed(60)]),
        case(
            "W5 a box whose worker does not report is stopped",
            "",
            vec![Worker { leases: 2, idle_seconds: 0, heard_seconds: 130 }.on(running(900))],
        )
        .waiting(1, 9),
        case(
            "W6 a box is drained after lifetime_max",
            "lifetime_max = \"1h\"",
            vec![busy(running(3_700))],
        )
        .waiting(1, 9),
        case(
            "W6 lifetime_max counts from the start of the box, however often its worker restarts",
            "lifetime_max = \"1h\"",
            vec![restarted(3_700, busy(running(60)))],
        )
        .waiting(1, 9),
        case("stale boxes are neither started nor stopped", "", vec![stopped()])
            .waiting(9, 900)
            .with(|seen| seen.boxes.at = ago(180)),
    ]
}

/// A start of box `index` of `pool_of_three` that EC2 refused because it had no capacity.
fn no_capacity(index: usize, seconds: i64) -> Run {
    let text = "We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone you requested (us-east-1a). \
        You can currently get g4dn.xlarge capacity by choosing us-east-1c.";
    refused(&pool_of_three()[index], seconds, RefusalClass::Capacity, text)
}

fn refusals() -> Vec<Case> {
    vec![
        case("capacity: spot first", "", pool_of_three()).waiting(1, 9),
        case("P8 a zone without capacity is not tried again, another is", "", pool_of_three())
            .waiting(1, 9)
            .runs(vec![no_capacity(1, 60)]),
        case(
            "capacity: the zone that the refusal names comes first",
            "",
            [pool_of_three(), vec![spot("c", a_box(4, BoxState::Stopped, 9))]].concat(),
        )
        .waiting(1, 9)
        .runs(vec![no_capacity(1, 60)]),
        case("P8 on demand at once when all of spot is refused", "", pool_of_three())
            .waiting(1, 9)
            .runs(vec![no_capacity(2, 30), no_capacity(1, 60)]),
        case("P8 spot is tried again when the refusal has expired", "", pool_of_three())
            .waiting(1, 9)
            .runs(vec![no_capacity(2, 300), no_capacity(1, 300)]),
        case("P9 a quota applies to all of spot", "", pool_of_three()).waiting(1, 9).runs(vec![
            refused(&pool_of_three()[1], 60, RefusalClass::Quota, "MaxSpotInstanceCountExceeded"),
        ]),
        case("P9 both quotas are zero: nothing is tried", "", pool_of_three()).waiting(1, 9).runs(
            vec![
                refused(&pool_of_three()[0], 30, RefusalClass::Quota, "VcpuLimitExceeded"),
                refused(
                    &pool_of_three()[1],
                    60,
                    RefusalClass::Quota,
                    "MaxSpotInstanceCountExceeded",
                ),
            ],
        ),
    ]
}

fn spot_rules() -> Vec<Case> {
    let interrupted = |seconds| Run { interrupted_at: Some(ago(seconds)), ..run(2, seconds + 60) };
    let warned = SeenBox {
        interruption: Some(ago(-100)),
        ..spot("a", busy(a_box(2, BoxState::Running, 900)))
    };
    let unstartable = |index: u32, why: &str| SeenBox {
        unstartable: Some(why.to_owned()),
        ..spot("a", a_box(index, BoxState::Stopped, 9))
    };
    let by_ec2 = "was stopped by EC2, which starts it again when there is capacity";
    let interrupted_box = SeenBox {
        unstartable: Some(by_ec2.to_owned()),
        interruption: Some(ago(300)),
        ..pool_of_three()[1].clone()
    };
    vec![
        case("P4 a box that only EC2 can start is not tried; another is", "", {
            vec![unstartable(2, by_ec2), on_demand("a", a_box(1, BoxState::Stopped, 9))]
        })
        .waiting(1, 9),
        case("P7 a box that can never start again is named with its cause", "", {
            vec![unstartable(2, "has a spot request that was cancelled")]
        })
        .waiting(1, 9),
        case("P14 spot is not tried after three interruptions within an hour", "", pool_of_three())
            .waiting(1, 9)
            .runs(vec![interrupted(300), interrupted(900), interrupted(1_500)]),
        case(
            "capacity_deadline: only spot is tried before the last moment",
            "max_wait = \"20m\"\ncapacity_deadline = \"5m\"",
            pool_of_three(),
        )
        .waiting(1, 800)
        .runs(vec![no_capacity(2, 30), no_capacity(1, 60)]),
        case(
            "capacity_deadline: on demand at the last moment",
            "max_wait = \"20m\"\ncapacity_deadline = \"5m\"",
            pool_of_three(),
        )
        .waiting(1, 1_080)
        .runs(vec![no_capacity(2, 30), no_capacity(1, 60)]),
        case(
            "start_depth: without spot, on demand starts at once whatever max_wait is",
            "max_wait = \"14d\"\nstart_depth = 3",
            pool_of_three()[..1].to_vec(),
        )
        .waiting(3, 9),
        case(
            "capacity: only on demand, if the policy says so",
            "capacity = [\"on-demand\"]",
            pool_of_three(),
        )
        .waiting(1, 9),
        case(
            "P4 an interrupted box is not started again: another is",
            "",
            vec![pool_of_three()[0].clone(), interrupted_box.clone()],
        )
        .waiting(1, 9),
        case("P4 without another box the pool waits for EC2", "", vec![interrupted_box])
            .waiting(1, 9),
        case(
            "P11 a box that is interrupted no longer counts, and is not stopped",
            "",
            [vec![warned], pool_of_three()[2..].to_vec()].concat(),
        )
        .waiting(5, 9),
    ]
}

fn handover() -> Vec<Case> {
    let long =
        |case: Case| case.waiting(900, 30).with(|seen| seen.service = Some(TimeDelta::seconds(2)));
    let expensive = |seconds| {
        let mut boxes = pool_of_three();
        boxes[0] = on_demand("a", busy(running(seconds)));
        boxes
    };
    let both = |state| {
        let mut boxes = expensive(900);
        boxes[1] = spot("a", busy(a_box(2, state, 9)));
        boxes
    };
    vec![
        long(case(
            "handover: a long backlog moves to spot if there is room for both boxes",
            "max_wait = \"10m\"\nboxes_max = 2\njobs_per_box = 10000",
            expensive(900),
        )),
        case(
            "handover: the cheaper box is booting",
            "max_wait = \"10m\"\nboxes_max = 2\njobs_per_box = 10000",
            both(BoxState::Pending),
        )
        .waiting(900, 30)
        .runs(vec![Run {
            start: Reason::new(Rule::Capacity, "spot has capacity again"),
            ready_at: None,
            stopped_at: None,
            ..run(2, 9)
        }]),
        case(
            "handover: the cheaper box has taken over",
            "max_wait = \"10m\"\nboxes_max = 2\njobs_per_box = 10000",
            both(BoxState::Running),
        )
        .waiting(900, 30)
        .with(|seen| seen.service = Some(TimeDelta::seconds(2)))
        .runs(vec![Run {
            start: Reason::new(Rule::Capacity, "spot has capacity again"),
            ..run(2, 120)
        }]),
        long(case(
            "handover: with boxes_max 1 it waits until the box is idle",
            "max_wait = \"10m\"",
            expensive(900),
        )),
        long(case(
            "handover: not within two boots of the last change",
            "max_wait = \"10m\"",
            expensive(200),
        )),
        case("handover: not for a short backlog", "max_wait = \"10m\"", expensive(900))
            .waiting(9, 30)
            .with(|seen| seen.service = Some(TimeDelta::seconds(2))),
        case(
            "idle: on demand stops at once when spot can start",
            "max_wait = \"1m\"",
            vec![on_demand("a", idle(1, running(900))), pool_of_three()[1].clone()],
        )
        .queue(SeenQueue { empty_since: Some(ago(1)), ..SeenQueue::default() })
        .by_worker(),
    ]
}

fn budgets() -> Vec<Case> {
    let pool = "budget_usd_month = 60\nbudget_usd_day = 6";
    vec![
        case("budget: well within", pool, vec![stopped()]).waiting(1, 9).spent(1_000, 100, 0),
        case("budget: a warning from 80 % on", pool, vec![stopped()])
            .waiting(1, 9)
            .spent(4_900, 100, 0),
        case("budget: once it is spent the queue starts nothing", pool, vec![stopped()])
            .waiting(1, 900)
            .spent(6_000, 100, 0),
        case("budget: the budget of the day", pool, vec![stopped()])
            .waiting(1, 900)
            .spent(3_000, 600, 0),
        case("budget: a box with work is not stopped for it", pool, vec![busy(running(900))])
            .waiting(1, 900)
            .spent(6_100, 100, 0),
        case(
            "budget: a schedule starts its box all the same",
            &format!("{pool}\n{SATURDAYS}"),
            vec![stopped()],
        )
        .waiting(1, 900)
        .spent(6_100, 100, 0),
        case("budget: a hold without an extra amount starts nothing", pool, vec![stopped()])
            .hold(HoldWants::Running, 3_000, None)
            .spent(6_100, 100, 0),
        case("budget: a hold within its extra amount", pool, vec![stopped()])
            .hold(HoldWants::Running, 3_000, Some(500))
            .spent(6_100, 100, 120),
        case("budget: a hold whose extra amount is spent", pool, vec![stopped()])
            .hold(HoldWants::Running, 3_000, Some(500))
            .spent(6_700, 600, 500),
        case("budget: unknown is not zero", pool, vec![stopped()]).waiting(1, 900),
    ]
}

fn shown(plan: &PoolPlan) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        let verb = match action {
            Action::Start { .. } => "start",
            Action::Stop { mode: StopMode::Drain, .. } => "stop",
            Action::Stop { mode: StopMode::Force, .. } => "force-stop",
            Action::Stop { mode: StopMode::Retire, .. } => "retire",
        };
        let reason = action.reason();
        let _ = writeln!(
            text,
            "  {verb} {} because {}: {}",
            action.box_id(),
            reason.rule.as_str(),
            reason.text
        );
    }
    for reason in &plan.blocked {
        let _ = writeln!(text, "  blocked by {}: {}", reason.rule.as_str(), reason.text);
    }
    if let Some(next) = &plan.next_change {
        let _ = writeln!(
            text,
            "  next {} {}: {}",
            next.at.format("%d %H:%M:%S"),
            next.reason.rule.as_str(),
            next.reason.text
        );
    }
    // Rules that abstain are left out, except for the figures of the budget.
    let is_shown = |verdict: &&Verdict| {
        verdict.effect != Effect::Abstain || verdict.reason.text.contains("forecast")
    };
    for kept in &plan.kept {
        let _ = writeln!(text, "  kept {}", kept.text);
    }
    for verdict in plan.verdicts.iter().filter(is_shown) {
        let effect = match verdict.effect {
            Effect::AtLeast(boxes) => format!("at least {boxes}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let _ = writeln!(
            text,
            "    {:<13}{effect:<11}{}",
            verdict.reason.rule.as_str(),
            verdict.reason.text
        );
    }
    if text.is_empty() { "  nothing to do\n".to_owned() } else { text }
}

#[test]
fn plans_are_those_of_the_golden_file() {
    let mut text = String::new();
    for case in cases() {
        let _ = writeln!(text, "{}\n{}", case.name, shown(&case.plan()));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, golden, "UPDATE_GOLDEN=1 writes {} anew; then read it", file.display());
}

#[test]
fn each_rule_has_a_case_in_which_it_does_not_abstain() {
    let asking: Vec<Rule> = cases()
        .iter()
        .flat_map(|case| case.plan().verdicts)
        .filter(|verdict| verdict.effect != Effect::Abstain)
        .map(|verdict| verdict.reason.rule)
        .collect();
    for rule in Rule::ALL {
        assert!(asking.contains(&rule), "{} abstains in every case", rule.as_str());
    }
}
