//! The sentence on a pool, as `status`, the function's response and the HTTP API say it.

use super::*;
use crate::observation::WorkerFault;
use crate::sentence::{sentence, waits_for};

fn says(world: &World) -> String {
    sentence(&world.seen, &world.plan(), &world.policy.cost, now())
}

#[track_caller]
fn told(world: &World, expected: &str) {
    assert_eq!(says(world), expected);
}

/// A pool of up to four boxes with a queue, whose prices are those of the shipped table.
fn fleet(boxes: Vec<SeenBox>, queue: SeenQueue) -> World {
    let policy = queue_policy("max_wait = \"10m\"\nboxes_max = 4");
    world(policy, stopped(), queue).with(|seen| seen.boxes.value = Some(boxes))
}

/// A pool without a queue.
fn without_queue(settings: &str, one: SeenBox) -> World {
    let policy = policy(&format!("command = [\"./app\"]\n{settings}"));
    world(policy, one, empty(0)).with(|seen| seen.queue = None)
}

fn named(id: &str, one: SeenBox) -> SeenBox {
    SeenBox { id: id.parse().unwrap(), ..one }
}

fn on_ec2(instance_type: &str, zone: &str, capacity: CapacityType, one: SeenBox) -> SeenBox {
    let offering =
        Offering { instance_type: instance_type.to_owned(), zone: zone.to_owned(), capacity };
    SeenBox { offering: Some(offering), ..one }
}

fn spot(one: SeenBox) -> SeenBox {
    on_ec2("g4dn.xlarge", "us-east-1a", CapacityType::Spot, one)
}

/// A box whose worker holds a job.
fn busy(one: SeenBox) -> SeenBox {
    let worker = one.worker.map(|worker| SeenWorker { leases: 1, idle_since: None, ..worker });
    SeenBox { worker, ..one }
}

fn kept(for_seconds: i64, one: SeenBox) -> SeenBox {
    let keep_until = Some(in_seconds(for_seconds));
    let worker = one.worker.map(|worker| SeenWorker { keep_until, ..worker });
    SeenBox { worker, ..one }
}

fn faulty(one: SeenBox) -> SeenBox {
    let fault = WorkerFault {
        code: "models.missing".to_owned(),
        message: "models missing".to_owned(),
        since: ago(600),
    };
    let worker = one.worker.map(|worker| SeenWorker { fault: Some(fault), ..worker });
    SeenBox { worker, ..one }
}

fn run_of(id: &str, started_seconds: i64) -> Run {
    let start = Reason::new(Rule::Demand, "1 job waits, the oldest for 11m");
    Run::begin("gpu".parse().unwrap(), id.parse().unwrap(), ago(started_seconds), start)
}

fn held(wants: HoldWants, until: i64) -> impl FnOnce(&mut SeenPool) {
    move |seen| seen.hold = Some(hold(wants, until))
}

#[test]
fn one_box_says_its_state_why_what_it_costs_and_what_comes_next() {
    let policy = || queue_policy("max_wait = \"10m\"");
    for (world, expected) in [
        (
            world(policy(), stopped(), empty(900)),
            "stopped for 16m40s: no job waits (0 in flight, 0 delayed)",
        ),
        (
            world(policy(), stopped(), waiting(2, 60)),
            "stopped for 16m40s: 2 jobs wait, the oldest for 1m; max_wait is 10m: starts in 8m54s; in 8m54s: the oldest job needs a box to keep max_wait",
        ),
        (
            world(policy(), stopped(), waiting(2, 620)),
            "stopped for 16m40s, a start is due: 2 jobs wait, the oldest for 10m20s; max_wait is 10m, a boot takes 5s",
        ),
        (
            world(policy(), stopped(), empty(900)).with(held(HoldWants::Stopped, 3_600)),
            "stopped for 16m40s: ada wants it stopped for 1h more; in 1h: the hold ends; schedule and queue decide again",
        ),
        (
            world(policy(), spot(idle_box(10)), empty(10)),
            "running for 1m50s: idle for 10s, idle_stop is 30s; $0.2069 an hour; in 20s: the box has been idle long enough",
        ),
        (
            world(policy(), spot(idle_box(60)), empty(60)),
            "running for 2m40s, a stop is due: idle for 1m, idle_stop is 30s; $0.2069 an hour; in 23h57m: gpu-1 is stopped: lifetime_max",
        ),
        (
            world(policy(), spot(a_box(BoxState::Running, 600)), waiting(3, 700)),
            "running for 10m: 3 jobs wait, the oldest for 11m40s; max_wait is 10m, a boot takes 5s; $0.2069 an hour; in 23h50m: gpu-1 is stopped: lifetime_max",
        ),
        (
            world(policy(), spot(idle_box(10)), empty(10)).with(held(HoldWants::Running, 3_600)),
            "running for 1m50s: ada wants it running for 1h more; $0.2069 an hour; in 1h: the hold ends; schedule and queue decide again",
        ),
        (
            world(policy(), a_box(BoxState::Pending, 40), waiting(1, 620)),
            "pending for 40s: 1 job waits, the oldest for 10m20s; max_wait is 10m, a boot takes 5s; in 4m20s: gpu-1 is stopped if it is not ready: boot_deadline",
        ),
        (
            world(policy(), a_box(BoxState::Pending, 40), empty(5))
                .with(|seen| seen.runs = vec![run_of("gpu-1", 40)]),
            "pending for 40s: started by demand: 1 job waits, the oldest for 11m; in 4m20s: gpu-1 is stopped if it is not ready: boot_deadline",
        ),
        (
            // The clock of what was read is a little ahead.
            world(policy(), a_box(BoxState::Pending, -2), waiting(1, 620)),
            "pending for 0s: 1 job waits, the oldest for 10m20s; max_wait is 10m, a boot takes 5s; in 5m2s: gpu-1 is stopped if it is not ready: boot_deadline",
        ),
        (
            world(policy(), stopped(), waiting(2, 620))
                .with(|seen| seen.runs = (0..4).map(|n| failed_run(5 + 10 * n)).collect()),
            "stopped for 16m40s: the last 4 starts failed (no GPU); the next start is in 35s although 2 jobs wait, the oldest for 10m20s; max_wait is 10m, a boot takes 5s; in 35s: gpu-1 may start again",
        ),
        (
            world(policy(), stopped(), empty(0)).with(|seen| seen.boxes.value = None),
            "unknown: its boxes or its ledger could not be read",
        ),
    ] {
        told(&world, expected);
    }
}

#[test]
fn a_box_that_a_file_keeps_up_says_so_until_when_and_at_what_price() {
    let policy = || queue_policy("max_wait = \"10m\"");
    let file = "the file `keep-until` on gpu-1 keeps gpu-1 up for 2h more, at most $0.4138";
    let on = |idle| spot(kept(7_200, idle_box(idle)));
    for (world, why) in [
        (
            world(policy(), on(600), empty(600)).with(held(HoldWants::Stopped, 3_600)),
            file.to_owned(),
        ),
        (world(policy(), on(600), empty(600)), file.to_owned()),
        (
            without_queue(
                "[[pool.gpu.schedule]]\nzone = \"UTC\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"17:00\"",
                on(600),
            ),
            file.to_owned(),
        ),
        (
            world(policy(), on(10), waiting(1, 620)),
            format!("1 job waits, the oldest for 10m20s; max_wait is 10m, a boot takes 5s; {file}"),
        ),
    ] {
        let says = says(&world);
        let (_, after) = says.split_once(": ").unwrap();
        assert!(after.starts_with(&format!("{why}; $0.2069 an hour; in ")), "{says}");
    }
}

#[test]
fn only_known_prices_are_said_and_of_which_boxes_none_is_known() {
    let price = |boxes: Vec<SeenBox>| {
        let boxes = (1..).zip(boxes).map(|(n, one)| named(&format!("gpu-{n}"), one)).collect();
        let says = says(&fleet(boxes, waiting(9, 620)));
        let of_price = |part: &&str| part.contains('$') || part.contains("price");
        says.split("; ").filter(of_price).map(str::to_owned).collect::<Vec<_>>().join("; ")
    };
    let up = || a_box(BoxState::Running, 600);
    let on_demand = |kind: &str, zone: &str| on_ec2(kind, zone, CapacityType::OnDemand, up());
    let spot_without_price = || on_ec2("g4dn.2xlarge", "us-east-1a", CapacityType::Spot, up());
    let dear = || on_demand("p5.48xlarge", "us-east-1a");
    let odd = || on_demand("p9.unknown", "us-east-1a");
    let usual = || on_demand("g4dn.xlarge", "us-east-1a");
    assert_eq!(price(vec![up()]), "");
    assert_eq!(price(vec![usual(), spot(up())]), "$0.7329 an hour");
    // Not placed yet: the policy's region, and that very type.
    assert_eq!(price(vec![on_demand("g4dn.2xlarge", ANY_ZONE)]), "$0.7520 an hour");
    assert_eq!(price(vec![on_demand("p9.unknown", ANY_ZONE)]), "the price of gpu-1 is not known");
    assert_eq!(
        price(vec![on_demand("g4dn.xlarge", "xx-nowhere-1a")]),
        "the price of gpu-1 is not known"
    );
    assert_eq!(
        price(vec![usual(), odd()]),
        "at least $0.5260 an hour, the price of gpu-2 is not known"
    );
    assert_eq!(price(vec![odd(), odd()]), "the price of gpu-1 and gpu-2 is not known");
    assert_eq!(
        price(vec![usual(), spot_without_price()]),
        "at most $1.28 an hour, the spot price of gpu-2 is not known"
    );
    assert_eq!(
        price(vec![usual(), spot_without_price(), odd()]),
        "at least $0.5260 an hour, the price of gpu-2 and gpu-3 is not known"
    );
    assert_ne!(price(vec![dear()]), "$0.5260 an hour");
    let own = queue_policy("[cost]\nusd_hour = 0.5");
    told(
        &world(own, odd(), waiting(1, 5)),
        "running for 10m: 1 job waits, the oldest for 5s; max_wait is 0s, a boot takes 5s; $0.5000 an hour; in 23h50m: gpu-1 is stopped: lifetime_max",
    );
}

#[test]
fn a_pool_is_down_since_its_last_box_stopped_and_free_slots_are_no_boxes() {
    let state = |boxes: Vec<SeenBox>, runs: Vec<Run>| {
        let says = says(&fleet(boxes, empty(900)).with(|seen| seen.runs = runs));
        says.split_once(':').unwrap().0.to_owned()
    };
    let off = |id: &str, seconds| named(id, a_box(BoxState::Stopped, seconds));
    let slot = |id: &str| SeenBox { since: Timestamp::UNIX_EPOCH, ..off(id, 0) };
    let bound = |id: &str| SeenBox { since_is_bound: true, ..off(id, 600) };
    let day = 86_400;
    assert_eq!(state(vec![off("gpu-1", 10), off("gpu-2", 40 * day)], vec![]), "stopped for 10s");
    assert_eq!(state(vec![slot("gpu-1"), slot("gpu-2")], vec![]), "stopped");
    assert_eq!(state(vec![slot("gpu-1"), off("gpu-2", 60)], vec![]), "stopped for 1m");
    // One of them stopped at a time that is not known.
    assert_eq!(state(vec![bound("gpu-1"), off("gpu-2", 40 * day)], vec![]), "stopped");
    // EC2 has forgotten the box; its run has not.
    let ended = Run { stopped_at: Some(ago(7_200)), ..run_of("gpu-1", 9_000) };
    let never = Run { stopped_at: Some(ago(60)), ..run_of("gpu-1", 60) };
    assert_eq!(state(vec![slot("gpu-1")], vec![never, ended]), "stopped for 2h");
}

#[test]
fn several_boxes_are_counted_by_state_and_by_how_many_are_idle() {
    let state = |boxes: Vec<SeenBox>| {
        let says = says(&fleet(boxes, waiting(9, 620)));
        says.split_once(':').unwrap().0.to_owned()
    };
    let one = |id: &str, state, seconds| named(id, a_box(state, seconds));
    let (running, pending) = (BoxState::Running, BoxState::Pending);
    let all =
        vec![one("gpu-1", running, 600), one("gpu-2", running, 7_200), one("gpu-3", running, 60)];
    assert_eq!(state(all), "3 boxes running, the first for 2h");
    let both = vec![one("gpu-1", running, 600), one("gpu-2", pending, 40)];
    assert_eq!(state(both), "1 box running for 10m, and 1 pending for 40s");
    let epoch = SeenBox { since: Timestamp::UNIX_EPOCH, ..one("gpu-1", running, 0) };
    assert_eq!(state(vec![epoch, one("gpu-2", running, 60)]), "2 boxes running");

    let idle = |id: &str| named(id, idle_box(10));
    told(
        &fleet(vec![idle("gpu-1"), busy(idle("gpu-2"))], empty(20)),
        "2 boxes running, the first for 1m50s: 1 of 2 boxes idle: idle for 10s, idle_stop is 30s; in 20s: the box has been idle long enough",
    );
    told(
        &fleet(
            vec![named("gpu-1", idle_box(100)), busy(named("gpu-2", idle_box(100)))],
            empty(100),
        ),
        "2 boxes running, the first for 3m20s: 1 of 2 boxes idle: idle for 1m40s, idle_stop is 30s; a stop of gpu-1 is due: idle for 1m40s, idle_stop is 30s; in 23h56m: gpu-1 is stopped: lifetime_max",
    );
}

#[test]
fn what_asks_for_the_most_boxes_is_told() {
    let boxes = (1..=3).map(|n| named(&format!("gpu-{n}"), busy(idle_box(10)))).collect();
    let world = fleet(boxes, waiting(120, 620))
        .with(held(HoldWants::Running, 3_600))
        .with(|seen| seen.service = Some(TimeDelta::seconds(15)));
    let says = says(&world);
    assert!(says.starts_with("3 boxes running, the first for 1m50s: 120 jobs wait, "), "{says}");
}

#[test]
fn a_box_that_stops_says_what_stopped_it_and_not_that_jobs_wait() {
    let stopping = |id: &str| named(id, a_box(BoxState::Stopping, 5));
    let other = Run { stop: Some(Reason::new(Rule::Idle, "idle for 9m")), ..run_of("gpu-2", 900) };
    let by = |change: fn(&mut Run)| {
        let mut run = run_of("gpu-1", 300);
        change(&mut run);
        vec![other.clone(), run]
    };
    let ordered = |run: &mut Run| run.stop = Some(Reason::new(Rule::Limits, "up for 25h"));
    let crashed = |run: &mut Run| run.error = Some("no GPU".to_owned());
    for (one, runs, why) in [
        (stopping("gpu-1"), by(ordered), "up for 25h"),
        (stopping("gpu-1"), by(crashed), "its worker ended: no GPU"),
        (stopping("gpu-1"), by(|_| ()), "by itself"),
        (stopping("gpu-1"), vec![other.clone()], "by itself"),
        (
            SeenBox { interruption: Some(ago(3)), ..stopping("gpu-1") },
            by(|_| ()),
            "EC2 interrupts it",
        ),
        (
            SeenBox {
                foreign: Some(Foreign {
                    wants: HoldWants::Stopped,
                    at: Some(ago(5)),
                    by: "eve".to_owned(),
                }),
                ..stopping("gpu-1")
            },
            by(|_| ()),
            "eve stopped it outside gpuctl 5s ago: that counts as a hold for 1h59m more",
        ),
    ] {
        let says = says(&fleet(vec![one], waiting(1, 620)).with(|seen| seen.runs = runs));
        let begin = format!("stopping for 5s: {why}; ");
        assert!(says.starts_with(&begin), "{says}\nnot {begin}");
    }
    told(
        &fleet(vec![SeenBox { since: ago(300), ..stopping("gpu-1") }], empty(20)),
        "stopping for 5m: by itself; gpu-1 is still stopping after 5m: forced off",
    );
    let some = vec![named("gpu-1", busy(idle_box(10))), stopping("gpu-2")];
    told(
        &fleet(some, empty(20)).with(|seen| seen.runs = vec![other.clone()]),
        "1 box running for 1m50s, and 1 stopping for 5s: the worker holds 1 job; gpu-2 stops: idle for 9m; in 40s: gpu-2 is forced off if it is still stopping: stop_deadline",
    );
}

#[test]
fn what_decides_is_told_before_what_is_overridden() {
    // A hold over a schedule: its start is due, or was ordered and failed.
    let closed = "[[pool.gpu.schedule]]\nzone = \"UTC\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"17:00\"";
    let asked = || without_queue(closed, stopped()).with(held(HoldWants::Running, 3_600));
    told(
        &asked(),
        "stopped for 16m40s, a start is due: ada wants it running for 1h more; in 1h: the hold ends; schedule and queue decide again",
    );
    told(
        &without_queue(closed, stopped()),
        "stopped for 16m40s: outside its schedule; in 1d21h: wants it running: inside `mon-fri 09:00-17:00 UTC`",
    );
    told(
        &without_queue(closed, idle_box(60)),
        "running for 2m40s, a stop is due: outside its schedule; in 23h57m: gpu-1 is stopped: lifetime_max",
    );
    told(
        &without_queue("", stopped()),
        "stopped for 16m40s: no schedule: it runs only while a hold is in force",
    );
    // A box that is retired says nothing of why the other is up.
    let text = "[cloud]\nkind = \"aws\"\ntable = \"t\"\n[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"10m\"\ninstances = [\"i-0123456789abcdef0\", \"i-0123456789abcdef1\"]\nboxes_max = 2\nretire_stopped_after = \"7d\"";
    let old = named("gpu-2", a_box(BoxState::Stopped, 8 * 86_400));
    let up = spot(a_box(BoxState::Running, 600));
    let retiring = world(Policy::parse(text).unwrap(), stopped(), waiting(2, 700))
        .with(|seen| seen.boxes.value = Some(vec![up, old]));
    let says = says(&retiring);
    assert!(says.starts_with("running for 10m: 2 jobs wait, the oldest for 11m40s; "), "{says}");
}

#[test]
fn a_box_that_takes_no_jobs_or_is_interrupted_is_told_beside_the_reason() {
    let bad = || faulty(idle_box(10));
    let fault = "gpu-1 takes no jobs: models missing since 11:50 UTC";
    let alone = fleet(vec![bad()], waiting(3, 700))
        .with(|seen| seen.boxes.value.as_mut().unwrap().push(named("gpu-2", stopped())));
    let says_alone = says(&alone);
    assert!(says_alone.contains(&format!("; {fault}")), "{says_alone}");
    assert!(says_alone.contains("; a start of gpu-2 is due: 3 jobs wait, "), "{says_alone}");
    let full = says(&fleet(vec![bad()], waiting(3, 700)));
    assert!(
        full.contains(&format!(
            "; no other box starts: {fault}; every box is up or stopping, and boxes_max is 4"
        )),
        "{full}"
    );
    assert_eq!(full.matches("gpu-1 takes no jobs").count(), 1, "{full}");

    let taken = SeenBox { interruption: Some(in_seconds(90)), ..busy(idle_box(10)) };
    told(
        &fleet(vec![taken], empty(20)),
        "running for 1m50s: box gpu-1 will be interrupted in 1m30s: it is not counted; in 23h58m: gpu-1 is stopped: lifetime_max",
    );
}

#[test]
fn a_wait_says_for_what() {
    let says = |world: &World| waits_for(&world.policy.pools[0], &world.seen, &world.plan(), now());
    let settings = "max_wait = \"10m\"\nboot_default = \"50s\"";
    let one = |one, queue| world(queue_policy(settings), one, queue);
    let slow = || a_box(BoxState::Pending, 55);
    for (world, expected) in [
        (one(a_box(BoxState::Pending, 10), waiting(1, 620)), "gpu-1 boots, about 40s"),
        (one(slow(), waiting(1, 620)), "gpu-1 boots, longer than usual: 55s"),
        (one(stopped(), waiting(1, 620)), "gpu-1 boots, about 50s"),
        (one(busy(idle_box(10)), waiting(1, 620)), "gpu-1 is up"),
        (
            one(faulty(idle_box(10)), waiting(1, 60)),
            "gpu-1 takes no jobs: models missing since 11:50 UTC",
        ),
        (
            one(stopped(), waiting(1, 60)),
            "1 job waits, the oldest for 1m; max_wait is 10m: starts in 8m4s",
        ),
        (
            one(stopped(), waiting(1, 620)).with(held(HoldWants::Stopped, 60)),
            "ada wants it stopped for 1m more",
        ),
    ] {
        assert_eq!(says(&world), expected);
    }
}
