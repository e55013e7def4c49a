//! Tables of one pool: what was seen, and what follows. The ids are those of `crates/TRAPS.md`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::observation::{BoxState, Foreign, Hold, HoldWants, Run, Seen, SeenWorker};
use crate::offering::{ANY_ZONE, CapacityType, Offering};
use crate::plan::{Action, Reason, Rule, StopMode};
use crate::units::{BoxId, PoolId};

mod sentences;

const NOW: &str = "2026-11-21T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - TimeDelta::seconds(seconds)
}

fn in_seconds(seconds: i64) -> Timestamp {
    ago(-seconds)
}

fn policy(pool: &str) -> Policy {
    Policy::parse(&format!("[pool.gpu]\n{pool}")).unwrap()
}

fn queue_policy(settings: &str) -> Policy {
    policy(&format!("queue = \"jobs\"\nidle_stop = \"30s\"\n{settings}"))
}

fn a_box(state: BoxState, for_seconds: i64) -> SeenBox {
    SeenBox::new("gpu-1".parse().unwrap(), state, ago(for_seconds))
}

fn idle_box(idle_seconds: i64) -> SeenBox {
    let worker = SeenWorker {
        heard_at: ago(1),
        leases: 0,
        idle_since: Some(ago(idle_seconds)),
        jobs_done: 0,
        fault: None,
        keep_until: None,
    };
    SeenBox { worker: Some(worker), ..a_box(BoxState::Running, idle_seconds + 100) }
}

fn stopped() -> SeenBox {
    a_box(BoxState::Stopped, 1_000)
}

fn waiting(jobs: u64, oldest_seconds: i64) -> SeenQueue {
    SeenQueue { visible: jobs, oldest_sent_at: Some(ago(oldest_seconds)), ..SeenQueue::default() }
}

fn empty(for_seconds: i64) -> SeenQueue {
    SeenQueue { empty_since: Some(ago(for_seconds)), ..SeenQueue::default() }
}

fn hold(wants: HoldWants, until_seconds: i64) -> Hold {
    let pool = "gpu".parse().unwrap();
    Hold {
        pool,
        wants,
        since: ago(60),
        until: in_seconds(until_seconds),
        by: "ada".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    }
}

fn failed_run(ended_seconds: i64) -> Run {
    let start = Reason::new(Rule::Demand, "1 job waits");
    let (pool, id) = ("gpu".parse().unwrap(), "gpu-1".parse().unwrap());
    Run {
        stopped_at: Some(ago(ended_seconds)),
        error: Some("no GPU".to_owned()),
        ..Run::begin(pool, id, ago(ended_seconds + 1), start)
    }
}

#[test]
fn no_boot_that_was_stuck_is_the_estimate_of_boots() {
    let policy = queue_policy("boot_default = \"7s\"\nboot_deadline = \"5m\"");
    let estimate = |boots: &[i64]| {
        let run = |seconds: &i64| Run { ready_at: Some(ago(1_001 - seconds)), ..failed_run(1_000) };
        let runs: Vec<Run> = boots.iter().map(run).collect();
        boot_estimate(&runs, &policy.pools[0]).num_seconds()
    };
    let stuck = 31 * 60;
    let ten = [40, 41, 42, 43, 44, 45, 46, 47, 48, stuck];
    let cases = [
        (&[] as &[i64], 7),
        (&[40], 40),
        (&[40, 50], 50),
        (&[stuck], 300),
        (&[40, stuck], 300),
        (&[40, stuck, 50], 50),
        (&[40, stuck, 50, stuck], 300),
        (&ten[1..], 48),
        (&ten, 48),
    ];
    for (boots, seconds) in cases {
        assert_eq!(estimate(boots), seconds, "{boots:?}");
    }
}

/// One pool as seen, changed by the cases below.
struct World {
    policy: Policy,
    witness: Witness,
    seen: SeenPool,
}

fn world(policy: Policy, one: SeenBox, queue: SeenQueue) -> World {
    let seen = SeenPool {
        boxes: Seen::now(vec![one], now()),
        queue: Some(Seen::now(queue, now())),
        urgent: None,
        hold: None,
        runs: vec![],
        service: None,
        spent: None,
    };
    World { policy, witness: Witness::Controller, seen }
}

impl World {
    fn with(mut self, change: impl FnOnce(&mut SeenPool)) -> Self {
        change(&mut self.seen);
        self
    }

    fn by_worker(mut self) -> Self {
        self.witness = Witness::Worker("gpu-1".parse().unwrap());
        self
    }

    fn plan(&self) -> PoolPlan {
        let pool: PoolId = self.policy.pools[0].id.clone();
        let pools = BTreeMap::from([(pool, self.seen.clone())]);
        let seen = Observation { at: now(), witness: self.witness.clone(), pools };
        decide(&self.policy, &seen).pools.remove(0)
    }

    /// The actions as `start demand`, and what is blocked as `blocked cooldown`.
    fn says(&self) -> Vec<String> {
        let plan = self.plan();
        let act = |action: &Action| {
            let verb = match action {
                Action::Start { .. } => "start",
                Action::Stop { mode: StopMode::Drain, .. } => "stop",
                Action::Stop { mode: StopMode::Force, .. } => "force",
                Action::Stop { mode: StopMode::Retire, .. } => "retire",
            };
            format!("{verb} {}", action.reason().rule.as_str())
        };
        let blocked = plan.blocked.iter().map(|reason| format!("blocked {}", reason.rule.as_str()));
        plan.actions.iter().map(act).chain(blocked).collect()
    }
}

fn check(world: &World, expected: &[&str]) {
    assert_eq!(world.says(), expected, "{:#?}", world.plan());
}

#[test]
fn a_box_starts_when_the_oldest_job_needs_it_to_keep_max_wait() {
    let policy = || queue_policy("max_wait = \"10m\"");
    // 600 s less a boot of 5 s, a tick of 1 s and a margin of half a second.
    check(&world(policy(), stopped(), waiting(1, 594)), &["start demand"]);
    let early = world(policy(), stopped(), waiting(100, 593));
    check(&early, &[]);
    assert_eq!(early.plan().next_change.unwrap().at, now() + TimeDelta::milliseconds(500));
    check(&world(queue_policy("max_wait = \"0s\""), stopped(), waiting(1, 0)), &["start demand"]);
}

#[test]
fn depth_starts_a_box_early_and_never_starves_a_lone_job() {
    let policy = || queue_policy("max_wait = \"10m\"\nstart_depth = 10");
    check(&world(policy(), stopped(), waiting(10, 0)), &["start demand"]);
    check(&world(policy(), stopped(), waiting(9, 0)), &[]);
    check(&world(policy(), stopped(), waiting(1, 600)), &["start demand"]);
}

#[test]
fn a_pending_box_is_not_started_again() {
    check(&world(queue_policy(""), a_box(BoxState::Pending, 3), waiting(5, 3)), &[]);
}

#[test]
fn s4_a_stopping_box_is_waited_for() {
    check(
        &world(queue_policy(""), a_box(BoxState::Stopping, 3), waiting(5, 3)),
        &["blocked limits"],
    );
}

#[test]
fn more_boxes_come_for_more_jobs_up_to_the_limit() {
    let policy = || queue_policy("boxes_max = 3\njobs_per_box = 10");
    let boxes = |count: u32| {
        (1..=count)
            .map(|index| SeenBox {
                id: BoxId::of_pool(&"gpu".parse().unwrap(), index),
                ..stopped()
            })
            .collect::<Vec<_>>()
    };
    let world = |jobs| {
        world(policy(), stopped(), waiting(jobs, 0))
            .with(|seen| seen.boxes = Seen::now(boxes(3), now()))
    };
    check(&world(11), &["start demand", "start demand"]);
    check(&world(1_000), &["start demand", "start demand", "start demand"]);
}

#[test]
fn the_worker_stops_an_idle_box_and_a_controller_does_so_later() {
    let world = |idle| world(queue_policy(""), idle_box(idle), empty(idle));
    check(&world(30).by_worker(), &["stop idle"]);
    check(&world(29).by_worker(), &[]);
    check(&world(30), &[]);
    check(&world(45), &["stop idle"]);
    assert_eq!(world(10).plan().next_change.unwrap().at, in_seconds(20));
}

#[test]
fn auto_stops_at_once_where_max_wait_leaves_room_for_a_boot() {
    let world = |max_wait: &str, idle| {
        let policy = policy(&format!("queue = \"jobs\"\nmax_wait = \"{max_wait}\""));
        world(policy, idle_box(idle), empty(idle)).by_worker()
    };
    // A boot of 5 s, and a tick of 1 s until the next reconcile.
    check(&world("6s", 0), &["stop idle"]);
    check(&world("5s", 4), &[]);
    check(&world("5s", 5), &["stop idle"]);
}

#[test]
fn q1_q2_work_in_flight_or_to_come_is_not_idle() {
    for queue in [
        SeenQueue { in_flight: 1, empty_since: None, ..empty(1_000) },
        SeenQueue { delayed: 1, ..empty(1_000) },
        SeenQueue { visible: 1, ..empty(1_000) },
    ] {
        check(&world(queue_policy(""), idle_box(1_000), queue).by_worker(), &[]);
    }
}

#[test]
fn q3_one_empty_sample_is_not_enough() {
    let queue = SeenQueue { empty_since: None, ..empty(0) };
    check(&world(queue_policy(""), idle_box(1_000), queue).by_worker(), &[]);
}

#[test]
fn w7_a_worker_that_holds_a_job_or_does_not_report_is_not_idle() {
    let busy = SeenWorker {
        heard_at: ago(1),
        leases: 1,
        idle_since: None,
        jobs_done: 0,
        fault: None,
        keep_until: None,
    };
    let silent = SeenWorker {
        heard_at: ago(31),
        leases: 0,
        idle_since: Some(ago(1_000)),
        jobs_done: 0,
        fault: None,
        keep_until: None,
    };
    for worker in [Some(busy), Some(silent), None] {
        let one = SeenBox { worker, ..idle_box(1_000) };
        check(&world(queue_policy(""), one, empty(1_000)), &[]);
    }
}

#[test]
fn q5_stale_counts_neither_start_nor_stop() {
    let stale = |seen: &mut SeenPool| seen.queue.as_mut().unwrap().at = ago(121);
    check(&world(queue_policy(""), idle_box(1_000), empty(1_000)).with(stale), &[]);
    check(&world(queue_policy(""), stopped(), waiting(9, 1_000)).with(stale), &[]);
}

#[test]
fn stale_boxes_block_everything() {
    let stale = |seen: &mut SeenPool| seen.boxes.at = ago(121);
    check(&world(queue_policy(""), stopped(), waiting(9, 9)).with(stale), &["blocked limits"]);
    let never = |seen: &mut SeenPool| seen.boxes.value = None;
    check(&world(queue_policy(""), stopped(), waiting(9, 9)).with(never), &["blocked limits"]);
}

#[test]
fn r1_a_hold_wins_over_queue_and_idle_until_it_expires() {
    let up = |until| move |seen: &mut SeenPool| seen.hold = Some(hold(HoldWants::Running, until));
    let down = |until| move |seen: &mut SeenPool| seen.hold = Some(hold(HoldWants::Stopped, until));
    check(&world(queue_policy(""), stopped(), empty(9)).with(up(60)), &["start hold"]);
    check(&world(queue_policy(""), idle_box(999), empty(999)).by_worker().with(up(60)), &[]);
    check(
        &world(queue_policy(""), idle_box(999), empty(999)).by_worker().with(up(0)),
        &["stop idle"],
    );
    // R13: the queue wants it up, and it stays down.
    check(&world(queue_policy(""), stopped(), waiting(9, 9)).with(down(60)), &[]);
    check(&world(queue_policy(""), idle_box(0), waiting(9, 9)).with(down(60)), &["stop hold"]);
    check(&world(queue_policy(""), stopped(), waiting(9, 9)).with(down(-1)), &["start demand"]);
}

#[test]
fn after_its_window_a_pool_with_a_queue_follows_its_queue() {
    let open = "[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"11:00\"\nend = \"13:00\"";
    let shut = "[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"13:00\"\nend = \"14:00\"";
    check(&world(queue_policy(open), stopped(), empty(99)), &["start schedule"]);
    check(&world(queue_policy(open), idle_box(99), empty(99)), &[]);
    check(&world(queue_policy(shut), idle_box(99), empty(99)), &["stop idle"]);
    // R12: the window's end never ends a job.
    check(&world(queue_policy(shut), idle_box(99), waiting(1, 1)), &[]);
}

#[test]
fn a_command_runs_in_its_window_and_only_there() {
    let pool = |begin, end| {
        policy(&format!(
            "command = [\"./app\"]\n[[pool.gpu.schedule]]\nzone = \"UTC\"\nbegin = \"{begin}\"\nend = \"{end}\""
        ))
    };
    let world =
        |policy, one| world(policy, one, SeenQueue::default()).with(|seen| seen.queue = None);
    check(&world(pool("11:00", "13:00"), stopped()), &["start schedule"]);
    check(&world(pool("13:00", "14:00"), a_box(BoxState::Running, 9)), &["stop schedule"]);
    check(&world(policy("command = [\"./app\"]"), a_box(BoxState::Running, 9)), &["stop schedule"]);
}

#[test]
fn r14_boxes_stay_as_they_are_while_a_schedule_wants_neither() {
    let begin = |time| {
        policy(&format!("command = [\"./app\"]\n[[pool.gpu.schedule]]\nzone = \"UTC\"\n{time}"))
    };
    let world =
        |policy, one| world(policy, one, SeenQueue::default()).with(|seen| seen.queue = None);
    check(&world(begin("begin = \"13:00\""), a_box(BoxState::Running, 9)), &[]);
    check(&world(begin("begin = \"13:00\""), stopped()), &[]);
    check(&world(begin("begin = \"11:00\""), stopped()), &["start schedule"]);
    check(&world(begin("end = \"11:00\""), a_box(BoxState::Running, 9)), &["stop schedule"]);
}

#[test]
fn a_pool_without_boxes_says_why_nothing_runs_for_it() {
    let schedule = "[[pool.gpu.schedule]]\nzone = \"UTC\"";
    let select = format!("select = {{ role = \"gpu\" }}\n{schedule}\n[cloud]\nkind = \"aws\"");
    for (settings, why) in [
        (schedule, "nothing can run on this machine"),
        (select.as_str(), "EC2 lists no instance of this pool"),
    ] {
        let world = world(policy(settings), stopped(), SeenQueue::default()).with(|seen| {
            seen.boxes.value = Some(vec![]);
            seen.queue = None;
        });
        let plan = world.plan();
        assert_eq!((plan.boxes_wanted, plan.actions.len()), (1, 0));
        assert!(plan.blocked[0].text.starts_with(why), "{:?}", plan.blocked);
    }
}

#[test]
fn s2_s3_boxes_that_hang_are_ended() {
    check(&world(queue_policy(""), a_box(BoxState::Pending, 301), empty(0)), &["stop limits"]);
    check(&world(queue_policy(""), a_box(BoxState::Stopping, 46), empty(0)), &["force limits"]);
    check(
        &world(
            queue_policy("lifetime_max = \"1h\""),
            a_box(BoxState::Running, 3_601),
            waiting(1, 0),
        ),
        &["stop limits", "blocked limits"],
    );
    let silent = SeenWorker {
        heard_at: ago(121),
        leases: 1,
        idle_since: None,
        jobs_done: 0,
        fault: None,
        keep_until: None,
    };
    let one = SeenBox { worker: Some(silent), ..a_box(BoxState::Running, 500) };
    check(&world(queue_policy(""), one, waiting(1, 0)), &["stop limits", "blocked limits"]);
}

#[test]
fn a_box_that_is_ended_by_force_leaves_no_gap_to_fill() {
    let other = |index: u32, one: SeenBox| SeenBox {
        id: BoxId::of_pool(&"gpu".parse().unwrap(), index),
        ..one
    };
    let boxes = vec![
        other(1, a_box(BoxState::Running, 9)),
        other(2, a_box(BoxState::Stopping, 99)),
        other(3, stopped()),
    ];
    let policy = queue_policy("boxes_max = 3\njobs_per_box = 100");
    let world =
        world(policy, stopped(), waiting(1, 1)).with(|seen| seen.boxes = Seen::now(boxes, now()));
    check(&world, &["force limits"]);
}

#[test]
fn a_box_that_is_stopped_before_it_was_ready_is_a_failed_start() {
    let given_up =
        Run { stop: Some(Reason::new(Rule::Limits, "not ready after 5m")), ..failed_run(4) };
    let world = world(queue_policy(""), stopped(), waiting(1, 60));
    check(&world.with(|seen| seen.runs = vec![given_up]), &["blocked cooldown"]);
}

#[test]
fn each_failed_start_delays_the_next_except_for_a_new_hold() {
    let failing = |runs: Vec<Run>| {
        world(queue_policy(""), stopped(), waiting(1, 60)).with(|seen| seen.runs = runs)
    };
    check(&failing(vec![failed_run(4)]), &["blocked cooldown"]);
    check(&failing(vec![failed_run(5)]), &["start demand"]);
    check(&failing(vec![failed_run(9), failed_run(30)]), &["blocked cooldown"]);
    check(&failing(vec![failed_run(10), failed_run(30)]), &["start demand"]);
    let many = (0..40).map(|n| failed_run(299 + n)).collect();
    check(&failing(many), &["blocked cooldown"]);
    // The hold is 60 s old and the failure 4 s: the start for the hold has failed. An older failure does not count against it.
    let held = |failed| {
        failing(vec![failed_run(failed)])
            .with(|seen| seen.hold = Some(hold(HoldWants::Running, 60)))
    };
    check(&held(4), &["blocked cooldown"]);
    check(&held(61), &["start hold"]);
}

#[test]
fn s7_an_hour_has_at_most_starts_per_hour_max_starts() {
    let good = |started: i64| Run {
        ready_at: Some(ago(started - 1)),
        stop: Some(Reason::new(Rule::Idle, "idle")),
        ..failed_run(started - 2)
    };
    let world = world(queue_policy("starts_per_hour_max = 3"), stopped(), waiting(1, 60));
    check(
        &world.with(|seen| seen.runs = vec![good(10), good(20), good(3_500)]),
        &["blocked cooldown"],
    );
}

#[test]
fn every_rule_leaves_a_verdict_in_order() {
    let plan = world(queue_policy(""), idle_box(5), empty(5)).plan();
    let rules: Vec<Rule> = plan.verdicts.iter().map(|verdict| verdict.reason.rule).collect();
    assert_eq!(rules, Rule::ALL);
}

#[test]
fn a_command_that_runs_outlives_lifetime_max_by_its_own_limit_and_an_idle_box_does_not() {
    let mut policy = queue_policy("lifetime_max = \"1h\"\nboot_deadline = \"1h\"");
    policy.pools[0].command_max = TimeDelta::hours(2);
    let stops = |up: i64, leases: u32| {
        let worker = SeenWorker {
            leases,
            idle_since: (leases == 0).then(|| ago(1)),
            ..idle_box(0).worker.unwrap()
        };
        let one = SeenBox {
            run_started_at: Some(ago(up)),
            worker: Some(worker),
            ..a_box(BoxState::Running, 60)
        };
        world(policy.clone(), one, waiting(1, 1)).says().contains(&"stop limits".to_owned())
    };
    assert_eq!(
        [(3_500, 1), (3_700, 0), (3_700, 1)].map(|(up, leases)| stops(up, leases)),
        [false, true, false]
    );
    assert_eq!([(10_700, 1), (10_900, 1)].map(|(up, leases)| stops(up, leases)), [false, true]);
}

proptest! {
    /// Nothing that a user or a worker does, a restart of the worker included, keeps a box up beyond `lifetime_max`.
    #[test]
    fn w6_lifetime_counts_from_the_start_of_the_box(
        up in 3_601_i64..90_000, ready in 0_i64..3_600, pending in any::<bool>(), leases in 0_u32..3,
        keep in prop::option::of(-9_i64..50_000), held in prop::option::of(0_i64..9_000), by_worker in any::<bool>(),
    ) {
        let state = if pending { BoxState::Pending } else { BoxState::Running };
        let worker = SeenWorker {
            leases, keep_until: keep.map(in_seconds), idle_since: None,
            ..idle_box(0).worker.unwrap()
        };
        let one = SeenBox { run_started_at: Some(ago(up)), worker: Some(worker), ..a_box(state, ready) };
        let policy = queue_policy("lifetime_max = \"1h\"\nboot_deadline = \"1h\"");
        let world = world(policy, one, waiting(1, 1)).with(|seen| {
            seen.hold = held.map(|until| hold(HoldWants::Running, until));
        });
        let world = if by_worker { world.by_worker() } else { world };
        let stops = world.says().contains(&"stop limits".to_owned());
        prop_assert!(stops, "{:#?}", world.plan());
    }

    /// A start or stop outside gpuctl whose time is unknown changes nothing where a user has given a command since the box was started.
    #[test]
    fn r1_an_unknown_time_never_wins_over_a_newer_command(
        state in 0_usize..4, started in 61_i64..9_000, stopped in prop::option::of(0_i64..60), known in any::<bool>(),
        wants_running in any::<bool>(), until in -59_i64..9_000, foreign_running in any::<bool>(),
    ) {
        let state = [BoxState::Pending, BoxState::Running, BoxState::Stopping, BoxState::Stopped][state];
        let wants = |running| if running { HoldWants::Running } else { HoldWants::Stopped };
        let by = "an unknown user".to_owned();
        let foreign = Foreign { wants: wants(foreign_running), at: None, by };
        let plan = |foreign| {
            let one = SeenBox { foreign, run_started_at: known.then(|| ago(started)), ..a_box(state, 9) };
            let world = world(queue_policy(""), one, waiting(1, 9)).with(|seen| {
                seen.hold = Some(hold(wants(wants_running), until));
                let run = Run { ready_at: Some(ago(61)), stopped_at: stopped.map(ago), ..failed_run(started) };
                seen.runs = vec![Run { started_at: ago(started), error: None, ..run }];
            });
            world.plan()
        };
        prop_assert_eq!(plan(Some(foreign)), plan(None));
    }

    /// Whatever is seen, the plan is deterministic, keeps `boxes_max`, and has at most one action for a box.
    #[test]
    fn decide_is_total_and_keeps_its_limits(
        states in prop::collection::vec((0_u8..4, 0_i64..4_000, 0_u32..3), 1..5),
        visible in 0_u64..50, in_flight in 0_u64..5, age in 0_i64..2_000, stale in any::<bool>(),
        hold_kind in 0_u8..3,
    ) {
        let policy = queue_policy("boxes_max = 4\njobs_per_box = 10");
        let boxes: Vec<SeenBox> = states.iter().enumerate().map(|(index, (state, since, leases))| {
            let state = [BoxState::Pending, BoxState::Running, BoxState::Stopping, BoxState::Stopped][usize::from(*state)];
            let worker = SeenWorker { heard_at: ago(*since % 200), leases: *leases, idle_since: (*leases == 0).then(|| ago(*since)), jobs_done: 0, fault: None, keep_until: None };
            let id = BoxId::of_pool(&"gpu".parse().unwrap(), u32::try_from(index).unwrap() + 1);
            SeenBox { id, worker: Some(worker), ..a_box(state, *since) }
        }).collect();
        let queue = SeenQueue { visible, in_flight, ..waiting(visible, age) };
        let world = world(policy, stopped(), queue).with(|seen| {
            seen.boxes = Seen::now(boxes.clone(), if stale { ago(500) } else { now() });
            seen.hold = match hold_kind { 0 => None, 1 => Some(hold(HoldWants::Running, 9)), _ => Some(hold(HoldWants::Stopped, 9)) };
        });
        let plan = world.plan();
        prop_assert_eq!(&plan, &world.plan());
        let mut touched: Vec<&BoxId> = plan.actions.iter().map(Action::box_id).collect();
        touched.sort();
        touched.dedup();
        prop_assert_eq!(touched.len(), plan.actions.len());
        let starts = plan.actions.iter().filter(|action| matches!(action, Action::Start { .. })).count();
        let up = boxes.iter().filter(|one| one.is_up()).count();
        let stops_of_up = plan.actions.iter().filter(|action| matches!(action, Action::Stop { box_id, .. }
            if boxes.iter().any(|one| one.id == *box_id && one.is_up()))).count();
        prop_assert!(starts == 0 || up - stops_of_up + starts <= plan.boxes_wanted as usize, "{:#?}", plan);
        let taken = boxes.iter().filter(|one| one.state != BoxState::Stopped).count();
        prop_assert!(starts == 0 || taken + starts <= 4, "{:#?}", plan);
        prop_assert!(!stale || plan.actions.is_empty());
        prop_assert!(plan.actions.iter().all(|action| !action.reason().text.is_empty()));
        prop_assert!(hold_kind != 2 || starts == 0);
    }
}

#[test]
fn a_box_that_was_stopped_for_long_is_retired_unless_it_is_asked_for() {
    let day = 86_400;
    let policy = |settings: &str| {
        Policy::parse(&format!(
            "[cloud]\nkind = \"aws\"\ntable = \"t\"\n[pool.gpu]\nqueue = \"jobs\"\ninstances = [\"i-0123456789abcdef0\"]\n{settings}"
        ))
        .unwrap()
    };
    let week = || policy("retire_stopped_after = \"7d\"");
    let stopped = |days: i64| a_box(BoxState::Stopped, days * day);
    check(&world(week(), stopped(8), empty(9 * day)), &["retire limits"]);
    let young = world(week(), stopped(6), empty(9 * day));
    check(&young, &[]);
    let due = now() + TimeDelta::days(1) + TimeDelta::milliseconds(1);
    assert_eq!(young.plan().next_change.unwrap().at, due);
    check(&world(policy(""), stopped(800), empty(9 * day)), &[]);
    // A job needs it, also where something keeps it from starting now.
    check(&world(week(), stopped(8), waiting(1, 900)), &["start demand"]);
    let broke = policy("retire_stopped_after = \"7d\"\nbudget_usd_month = 1");
    check(&world(broke, stopped(8), waiting(1, 900)), &["blocked budget"]);
    let held = world(week(), stopped(8), empty(9 * day));
    check(&held.with(|seen| seen.hold = Some(hold(HoldWants::Stopped, 600))), &["retire limits"]);
    let bound = SeenBox { since_is_bound: true, ..stopped(800) };
    check(&world(week(), bound, empty(9 * day)), &[]);
    for local in ["queue = \"q\"", "queue = \"q\"\nlaunch_template = \"t\""] {
        let text = format!("[pool.gpu]\n{local}\nretire_stopped_after = \"7d\"");
        let told = Policy::parse(&text).unwrap_err().0;
        assert!(told.iter().any(|one| one.key == "pool.gpu.retire_stopped_after"), "{told:?}");
    }
}
