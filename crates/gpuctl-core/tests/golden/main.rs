//! Golden plans: for each rule and each trap that `decide` has to mind, one case and everything that the plan says of it.
//!
//! `tests/golden/plans.txt` is what a reader would be told; read it as such. `UPDATE_GOLDEN=1 cargo test` writes it anew.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use std::fmt::Write as _;
use std::path::Path;

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, HoldWants, Run, SeenBox, SeenQueue};
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::plan::{Action, Effect, PoolPlan, Reason, Rule, StopMode, Verdict};

use world::{
    Case, Worker, a_box, ago, app, busy, case, foreign, idle, on_demand, refused, run, running,
    spot, stable, stopped,
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
        refusals(),
        spot_rules(),
        hand_back(),
        budgets(),
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
        case(
            "R12 a window's end leaves a queue's box to its work",
            SUNDAYS,
            vec![busy(running(900))],
        )
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
        case("R1 a hold starts a box that nobody else wants", "", vec![stopped()]).hold(
            HoldWants::Running,
            3_000,
            None,
        ),
        case("R13 a hold keeps the box down although jobs wait", "", vec![stopped()])
            .waiting(9, 900)
            .hold(HoldWants::Stopped, 3_000, None),
        case("R2 an expired hold has handed back by itself", "", vec![stopped()])
            .waiting(9, 900)
            .hold(HoldWants::Stopped, 0, None),
        console(SUNDAYS, "R1 a start in the console outside the schedule counts as a hold"),
        console(
            &format!("foreign_hold = \"0s\"\n{SUNDAYS}"),
            "R1 enforced: with no foreign_hold the schedule ends it at once",
        ),
        console(
            &format!("foreign_hold = \"20m\"\n{SUNDAYS}"),
            "R2 a start in the console hands back when foreign_hold is over",
        ),
        app(
            "R1 a stop in the console inside the schedule is not undone",
            SATURDAYS,
            vec![foreign(HoldWants::Stopped, 600, stopped())],
        ),
        app(
            "R1 the next edge of the schedule ends it",
            "[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"09:00\"\nend = \"11:45\"",
            vec![foreign(HoldWants::Running, 1_800, running(1_800))],
        ),
        console(SUNDAYS, "release: a later word of gpuctl ends what the console began").hold(
            HoldWants::Running,
            0,
            None,
        ),
        app(
            "R14 without an opinion nothing is done",
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
        case("demand: now or never", "max_wait = \"10m\"", vec![stopped()]).waiting(3, 470),
        case(
            "demand: start_depth starts early",
            "max_wait = \"10m\"\nstart_depth = 10",
            vec![stopped()],
        )
        .waiting(10, 5),
        case(
            "demand: start_depth never starves a lone job",
            "max_wait = \"10m\"\nstart_depth = 10",
            vec![stopped()],
        )
        .waiting(1, 500),
        case("Q4 counts that are seen once start nothing", "", vec![stopped()])
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
        case("boxes for so many jobs each", "boxes_max = 4\njobs_per_box = 20", many(4))
            .waiting(41, 9),
        case(
            "a booting box counts once",
            "boxes_max = 4\njobs_per_box = 20",
            vec![a_box(1, BoxState::Pending, 9), a_box(2, BoxState::Stopped, 9)],
        )
        .waiting(40, 9),
        case("Q7 a job that ends its worker wakes a box ever more seldom", "", vec![stopped()])
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
            "idle: the controller gives the worker the first word",
            "idle_stop = \"5m\"",
            vec![idle(301, running(900))],
        )
        .queue(empty(301)),
        case(
            "idle: the controller ends it when the worker does not",
            "idle_stop = \"5m\"",
            vec![idle(316, running(900))],
        )
        .queue(empty(316)),
        case(
            "idle: run_min keeps a box that has just come",
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
            "W7 a silent worker is no witness",
            "idle_stop = \"0s\"",
            vec![Worker { leases: 0, idle_seconds: 900, heard_seconds: 60 }.on(running(900))],
        )
        .queue(empty(900)),
    ]
}

fn first_sight() -> Vec<Case> {
    vec![
        case(
            "R9 a controller that keeps stopping it has its way for foreign_hold at a time",
            "",
            vec![foreign(HoldWants::Stopped, 600, stopped())],
        )
        .waiting(3, 900),
        app(
            "R10 a box that runs outside its schedule when it is first seen is stopped",
            SUNDAYS,
            vec![running(900)],
        ),
        case(
            "S6 a box that is still booting is stopped when nobody may want it",
            "",
            vec![a_box(1, BoxState::Pending, 9)],
        )
        .hold(HoldWants::Stopped, 3_000, None),
        case(
            "Q6 a queue that cannot be read keeps its box, to lifetime_max at most",
            "",
            vec![idle(9_000, running(9_100))],
        )
        .with(|seen| seen.queue.as_mut().unwrap().at = ago(9_000)),
        case(
            "Q15 what a dead worker held is waited for by the next",
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
    let quota = refused(&stable()[1], 900, RefusalClass::Quota, "MaxSpotInstanceCountExceeded");
    let over = "budget_usd_month = 60\nidle_stop = \"0s\"";
    vec![
        case(
            "R1 one box of several that is stopped in the console is left alone; the others go on",
            "boxes_max = 2\njobs_per_box = 1",
            two(foreign(HoldWants::Stopped, 60, stopped())),
        )
        .waiting(2, 9),
        case(
            "R1 a hold of gpuctl outlives a word from the console that has expired",
            "foreign_hold = \"0s\"",
            vec![foreign(HoldWants::Running, 60, idle(50, running(60)))],
        )
        .hold(HoldWants::Stopped, 3_000, None),
        case(
            "S1 a box that failed to start lets the others try first",
            "boxes_max = 2\njobs_per_box = 9",
            vec![stopped(), a_box(2, BoxState::Stopped, 9_000)],
        )
        .waiting(1, 900)
        .runs(vec![failed]),
        case(
            "P9 a person who asks after a refusal is believed more than the refusal",
            "",
            stable(),
        )
        .hold(HoldWants::Running, 3_000, None)
        .runs(vec![quota]),
        case("Q7 boxes that found nothing left to do are no failures", "", vec![stopped()])
            .waiting(1, 900)
            .runs((0..6).map(|n| Run { jobs: Some(0), ..run(1, 230 + n * 300) }).collect()),
        case("S7 refused starts are no starts", "starts_per_hour_max = 2", stable())
            .waiting(1, 900)
            .runs(
                (0..6)
                    .map(|n| refused(&stable()[1], 600 + n * 60, RefusalClass::Capacity, "none"))
                    .collect(),
            ),
        case(
            "budget: a hold whose own amount is spent lets an idle box go",
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
            "S2 a box that does not get ready is given up",
            "",
            vec![a_box(1, BoxState::Pending, 400)],
        )
        .waiting(1, 400),
        case(
            "S3 a box that does not stop is ended by force",
            "",
            vec![a_box(1, BoxState::Stopping, 90)],
        ),
        case(
            "S4 a box that is still stopping is waited for",
            "",
            vec![a_box(1, BoxState::Stopping, 9)],
        )
        .waiting(1, 9),
        case("S7 no flapping", "starts_per_hour_max = 3", vec![stopped()])
            .waiting(1, 9)
            .runs(vec![run(1, 300), run(1, 900), run(1, 1_800)]),
        case(
            "S7 boxes that start together count one by one",
            "starts_per_hour_max = 3\nboxes_max = 3\nstart_depth = 1\njobs_per_box = 1",
            stable(),
        )
        .waiting(9, 9)
        .runs(vec![run(1, 300), run(1, 900)]),
        case("S10 a start that fails is tried again later", "", vec![stopped()])
            .waiting(1, 99)
            .runs(vec![failed(4), failed(60)]),
        case(
            "W5 a worker that keeps silent is ended",
            "",
            vec![Worker { leases: 2, idle_seconds: 0, heard_seconds: 130 }.on(running(900))],
        )
        .waiting(1, 9),
        case(
            "W6 no box lives longer than lifetime_max",
            "lifetime_max = \"1h\"",
            vec![busy(running(3_700))],
        )
        .waiting(1, 9),
        case("stale boxes are neither started nor stopped", "", vec![stopped()])
            .waiting(9, 900)
            .with(|seen| seen.boxes.at = ago(180)),
    ]
}

/// A start of the stable's box `index` that EC2 refused for want of capacity.
fn no(index: usize, seconds: i64) -> Run {
    let text = "We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone you requested (us-east-1a). \
        You can currently get g4dn.xlarge capacity by choosing us-east-1c.";
    refused(&stable()[index], seconds, RefusalClass::Capacity, text)
}

fn refusals() -> Vec<Case> {
    vec![
        case("capacity: spot first", "", stable()).waiting(1, 9),
        case("P8 a zone that had none is not asked again, another is", "", stable())
            .waiting(1, 9)
            .runs(vec![no(1, 60)]),
        case(
            "capacity: the zone that the refusal names comes first",
            "",
            [stable(), vec![spot("c", a_box(4, BoxState::Stopped, 9))]].concat(),
        )
        .waiting(1, 9)
        .runs(vec![no(1, 60)]),
        case("P8 on demand at once when all of spot is refused", "", stable())
            .waiting(1, 9)
            .runs(vec![no(2, 30), no(1, 60)]),
        case("P8 spot is asked again when the refusal is old", "", stable())
            .waiting(1, 9)
            .runs(vec![no(2, 300), no(1, 300)]),
        case("P9 a quota speaks for all of spot", "", stable()).waiting(1, 9).runs(vec![refused(
            &stable()[1],
            60,
            RefusalClass::Quota,
            "MaxSpotInstanceCountExceeded",
        )]),
        case("P9 both quotas are zero: no loop, and it says so", "", stable()).waiting(1, 9).runs(
            vec![
                refused(&stable()[0], 30, RefusalClass::Quota, "VcpuLimitExceeded"),
                refused(&stable()[1], 60, RefusalClass::Quota, "MaxSpotInstanceCountExceeded"),
            ],
        ),
    ]
}

fn spot_rules() -> Vec<Case> {
    let taken = |seconds| Run { interrupted_at: Some(ago(seconds)), ..run(2, seconds + 60) };
    let warned = SeenBox {
        interruption: Some(ago(-100)),
        ..spot("a", busy(a_box(2, BoxState::Running, 900)))
    };
    let kept = |index: u32, why: &str| SeenBox {
        unstartable: Some(why.to_owned()),
        ..spot("a", a_box(index, BoxState::Stopped, 9))
    };
    let ec2s = "was stopped by EC2, which starts it again when there is capacity";
    let taken_back = SeenBox {
        unstartable: Some(ec2s.to_owned()),
        interruption: Some(ago(300)),
        ..stable()[1].clone()
    };
    vec![
        case("P4 a box that EC2 keeps for itself is not asked for; another is", "", {
            vec![kept(2, ec2s), on_demand("a", a_box(1, BoxState::Stopped, 9))]
        })
        .waiting(1, 9),
        case("P7 a box that can never start again is named with its cause", "", {
            vec![kept(2, "has a spot request that was cancelled")]
        })
        .waiting(1, 9),
        case("P14 spot rests after three interruptions within an hour", "", stable())
            .waiting(1, 9)
            .runs(vec![taken(300), taken(900), taken(1_500)]),
        case(
            "capacity_deadline: time to find spot comes before the last moment",
            "max_wait = \"20m\"\ncapacity_deadline = \"5m\"",
            stable(),
        )
        .waiting(1, 800)
        .runs(vec![no(2, 30), no(1, 60)]),
        case(
            "capacity_deadline: on demand at the last moment",
            "max_wait = \"20m\"\ncapacity_deadline = \"5m\"",
            stable(),
        )
        .waiting(1, 1_080)
        .runs(vec![no(2, 30), no(1, 60)]),
        case(
            "start_depth takes on demand at once where there is no spot, however long max_wait is",
            "max_wait = \"14d\"\nstart_depth = 3",
            stable()[..1].to_vec(),
        )
        .waiting(3, 9),
        case(
            "capacity: on demand alone, if the policy says so",
            "capacity = [\"on-demand\"]",
            stable(),
        )
        .waiting(1, 9),
        case(
            "P4 what the cloud has taken back is not asked for again: another box comes",
            "",
            vec![stable()[0].clone(), taken_back.clone()],
        )
        .waiting(1, 9),
        case("P4 with no other box it waits for the cloud", "", vec![taken_back]).waiting(1, 9),
        case(
            "P11 a box that is taken back no longer counts, and nobody stops it",
            "",
            [vec![warned], stable()[2..].to_vec()].concat(),
        )
        .waiting(5, 9),
    ]
}

fn hand_back() -> Vec<Case> {
    let long =
        |case: Case| case.waiting(900, 30).with(|seen| seen.service = Some(TimeDelta::seconds(2)));
    let dear = |seconds| {
        let mut boxes = stable();
        boxes[0] = on_demand("a", busy(running(seconds)));
        boxes
    };
    let both = |state| {
        let mut boxes = dear(900);
        boxes[1] = spot("a", busy(a_box(2, state, 9)));
        boxes
    };
    vec![
        long(case(
            "hand back: a long backlog goes over to spot, where there is room for both",
            "max_wait = \"10m\"\nboxes_max = 2\njobs_per_box = 10000",
            dear(900),
        )),
        case(
            "hand back: the cheaper box is on its way",
            "max_wait = \"10m\"\nboxes_max = 2\njobs_per_box = 10000",
            both(BoxState::Pending),
        )
        .waiting(900, 30)
        .runs(vec![Run {
            start: Reason::new(Rule::Capacity, "spot is back"),
            ready_at: None,
            stopped_at: None,
            ..run(2, 9)
        }]),
        case(
            "hand back: the cheaper box has taken over",
            "max_wait = \"10m\"\nboxes_max = 2\njobs_per_box = 10000",
            both(BoxState::Running),
        )
        .waiting(900, 30)
        .with(|seen| seen.service = Some(TimeDelta::seconds(2)))
        .runs(vec![Run { start: Reason::new(Rule::Capacity, "spot is back"), ..run(2, 120) }]),
        long(case(
            "hand back: with one box at most it waits for the next idle moment",
            "max_wait = \"10m\"",
            dear(900),
        )),
        long(case(
            "hand back: not within two boots of the last change",
            "max_wait = \"10m\"",
            dear(200),
        )),
        case("hand back: not for a short backlog", "max_wait = \"10m\"", dear(900))
            .waiting(9, 30)
            .with(|seen| seen.service = Some(TimeDelta::seconds(2))),
        case(
            "idle: on demand stops at once when spot can be had",
            "max_wait = \"1m\"",
            vec![on_demand("a", idle(1, running(900))), stable()[1].clone()],
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
        case("budget: beyond it the queue starts nothing", pool, vec![stopped()])
            .waiting(1, 900)
            .spent(6_000, 100, 0),
        case("budget: the day's own", pool, vec![stopped()]).waiting(1, 900).spent(3_000, 600, 0),
        case("budget: nothing that runs is stopped for it", pool, vec![busy(running(900))])
            .waiting(1, 900)
            .spent(6_100, 100, 0),
        case("budget: a window stays", &format!("{pool}\n{SATURDAYS}"), vec![stopped()])
            .waiting(1, 900)
            .spent(6_100, 100, 0),
        case("budget: a hold needs its own amount", pool, vec![stopped()])
            .hold(HoldWants::Running, 3_000, None)
            .spent(6_100, 100, 0),
        case("budget: a hold within its own amount", pool, vec![stopped()])
            .hold(HoldWants::Running, 3_000, Some(500))
            .spent(6_100, 100, 120),
        case("budget: a hold beyond its own amount", pool, vec![stopped()])
            .hold(HoldWants::Running, 3_000, Some(500))
            .spent(6_700, 600, 500),
        case("budget: unknown is not nothing", pool, vec![stopped()]).waiting(1, 900),
    ]
}

fn shown(plan: &PoolPlan) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        let verb = match action {
            Action::Start { .. } => "start",
            Action::Stop { mode: StopMode::Drain, .. } => "stop",
            Action::Stop { mode: StopMode::Force, .. } => "force-stop",
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
    // What passes says little, but for the money.
    let spoke = |verdict: &&Verdict| {
        verdict.effect != Effect::Abstain || verdict.reason.text.contains("forecast")
    };
    for verdict in plan.verdicts.iter().filter(spoke) {
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
    if text.is_empty() { "  nothing to do, and nothing to say\n".to_owned() } else { text }
}

#[test]
fn every_case_is_answered_as_written_down() {
    let mut text = String::new();
    for case in cases() {
        let _ = writeln!(text, "{}\n{}", case.name, shown(&case.plan()));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        golden,
        "UPDATE_GOLDEN=1 writes {} anew; then read what changed",
        file.display()
    );
}

#[test]
fn a_verdict_of_each_rule_is_among_them() {
    let said: Vec<Rule> = cases()
        .iter()
        .flat_map(|case| case.plan().verdicts)
        .filter(|verdict| verdict.effect != Effect::Abstain)
        .map(|verdict| verdict.reason.rule)
        .collect();
    for rule in Rule::ALL {
        assert!(said.contains(&rule), "no case in which {} has something to say", rule.as_str());
    }
}
