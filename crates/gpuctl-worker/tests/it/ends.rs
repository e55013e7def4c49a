//! How a worker ends, and why.

use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::ports::{Clock, PortErrorClass};
use gpuctl_core::observation::{Hold, HoldWants};
use gpuctl_core::policy::Aws;
use gpuctl_worker::{KEEP_UNTIL, Scratch, WorkerExit};
use tokio::time::Instant;

use crate::world::{Call, World, seconds};

pub(crate) const LEDGER: [Call; 4] = [Call::Report, Call::Memory, Call::Commit, Call::Results];

#[tokio::test(start_paused = true)]
async fn an_interruption_is_seen_while_the_ledger_is_down_and_its_time_ends_the_drain() {
    let world = World::new("");
    LEDGER.iter().for_each(|call| world.fail(*call, PortErrorClass::Unavailable));
    world.submit("slow:600");
    let serving = world.serve();
    tokio::time::sleep(seconds(2)).await;
    LEDGER.iter().for_each(|call| world.mend(*call));
    world.wait(seconds(20), |state| !state.running.is_empty()).await;
    LEDGER.iter().for_each(|call| world.fail(*call, PortErrorClass::Unavailable));
    let began = Instant::now();
    let at = world.now() + TimeDelta::seconds(120);
    world.state().interruption = Some(at);
    let exit = serving.exit().await;
    assert_eq!((exit, exit.code(), exit.powers_off()), (WorkerExit::Interrupted, 12, false));
    // The policy's `drain` of 30 s does not end it earlier, and the notice's time not later.
    let took = began.elapsed();
    assert!(took > seconds(100) && took < seconds(120), "{took:?}");
    assert_eq!(world.visible(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_counts_from_the_start_of_the_box_also_without_a_ledger() {
    let world = World::new("lifetime_max = \"1h\"\n");
    let started = world.now();
    tokio::time::sleep(seconds(50 * 60)).await;
    // A held message keeps the worker from ending because of the ledger.
    world.submit("slow:3000");
    let serving = world.serve_since(started);
    world.wait(seconds(20), |state| !state.running.is_empty()).await;
    LEDGER.iter().for_each(|call| world.fail(*call, PortErrorClass::Unavailable));
    let began = Instant::now();
    assert_eq!(serving.exit().await, WorkerExit::Lifetime);
    assert!(began.elapsed() < seconds(12 * 60), "{:?}", began.elapsed());
    // Restarted again and again, it does not begin anew.
    LEDGER.iter().for_each(|call| world.mend(*call));
    tokio::time::sleep(seconds(10 * 60)).await;
    assert_eq!(world.serve_since(started).exit().await, WorkerExit::Lifetime);
}

const COMMAND: &str = "lifetime_max = \"1h\"\n[command.train]\nargv = [\"t\"]\nhard_max = \"5h\"\n";

#[tokio::test(start_paused = true)]
async fn lifetime_does_not_end_a_command_and_nothing_else_is_received_meanwhile() {
    let world = World::new(COMMAND);
    world.submit("command.train");
    let serving = world.serve();
    world.wait(seconds(20), |state| state.commands_running > 0).await;
    // After a receive that was under way.
    tokio::time::sleep(seconds(60)).await;
    world.submit("slow:1");
    let began = Instant::now();
    assert_eq!(serving.exit().await, WorkerExit::Lifetime);
    assert!(began.elapsed() > seconds(3 * 3_600 - 120), "{:?}", began.elapsed());
    let state = world.state();
    assert_eq!((state.results.len(), state.inferences, state.messages.len()), (1, 1, 1));
    assert_eq!(state.messages[0].receives, 0);
}

/// What has a worker stop.
#[derive(Clone, Copy)]
enum By {
    Signal,
    Controller,
    Interruption,
}

#[tokio::test(start_paused = true)]
async fn a_command_is_handed_over_by_an_order_to_stop_or_an_interruption() {
    let (early, after_lifetime) = (seconds(600), seconds(2 * 3_600));
    for (after, by) in [
        (early, By::Signal),
        (after_lifetime, By::Signal),
        (early, By::Controller),
        (after_lifetime, By::Controller),
        (after_lifetime, By::Interruption),
    ] {
        let mut world = World::new(COMMAND);
        world.policy.cloud.aws = Some(Aws::default());
        world.submit("command.train");
        let serving = world.serve();
        world.wait(seconds(20), |state| state.commands_running > 0).await;
        tokio::time::sleep(after).await;
        let began = Instant::now();
        let notice = world.now() + TimeDelta::minutes(2);
        match by {
            By::Signal => serving.signals.stop(),
            By::Controller => world.state().is_stopping = true,
            By::Interruption => world.state().interruption = Some(notice),
        }
        serving.exit().await;
        assert!(began.elapsed() < seconds(30), "{:?}", began.elapsed());
        let state = world.state();
        assert_eq!((state.results.len(), state.problems.len(), state.messages.len()), (0, 0, 1));
        assert_eq!((&state.messages[0].dead, state.messages[0].receives), (&None, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_that_cannot_report_ends_and_says_why() {
    let world = World::new("");
    let serving = world.serve();
    tokio::time::sleep(seconds(5)).await;
    LEDGER.iter().for_each(|call| world.fail(*call, PortErrorClass::Denied));
    let began = Instant::now();
    let exit = serving.exit().await;
    assert_eq!((exit, exit.code(), exit.powers_off()), (WorkerExit::ReportFailed, 14, true));
    assert!(began.elapsed() < seconds(6 * 60));
}

#[tokio::test(start_paused = true)]
async fn an_idle_box_is_stopped_once_and_the_exit_says_idle() {
    let world = World::new("").with_idle_stop("10s");
    world.submit("ok");
    let serving = world.serve();
    let exit = serving.exit().await;
    assert_eq!((exit, exit.code(), exit.powers_off()), (WorkerExit::Idle, 10, true));
    assert_eq!(world.see(|state| (state.stops, state.results.len())), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_the_box_under_way_is_not_cut_off_by_the_worker_s_end() {
    let world = World::new("").with_idle_stop("10s");
    world.state().stop_takes = seconds(5);
    let serving = world.serve();
    // In the middle of the stop.
    tokio::time::sleep(seconds(13)).await;
    assert_eq!(world.state().stops, 0);
    serving.signals.stop();
    assert_eq!(serving.exit().await, WorkerExit::Idle);
    assert_eq!(world.state().stops, 1);
}

#[tokio::test(start_paused = true)]
async fn a_user_who_looks_at_the_box_keeps_it_on_but_not_beyond_its_lifetime() {
    let world = World::new("lifetime_max = \"3h\"\n");
    world.fail(Call::Probe, PortErrorClass::Other);
    let until = world.now() + TimeDelta::hours(2);
    world.scratch.put(KEEP_UNTIL, until.to_rfc3339().as_bytes()).unwrap();
    let began = Instant::now();
    assert_eq!(world.serve().exit().await, WorkerExit::CannotStart);
    let kept = began.elapsed();
    assert!(kept > seconds(7_150) && kept < seconds(7_300), "{kept:?}");
    let kept_until = world.state().reports.last().unwrap().keep_until;
    assert_eq!(kept_until, Some(until));
    // A hold does the same, and its lifetime ends it.
    let now = world.now();
    world.state().hold = Some(Hold {
        pool: "gpu".parse().unwrap(),
        wants: HoldWants::Running,
        since: now,
        until: now + TimeDelta::hours(9),
        by: "kim".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    });
    let began = Instant::now();
    assert_eq!(world.serve().exit().await, WorkerExit::Lifetime);
    assert!(began.elapsed() < seconds(3 * 3_600 + 60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_instant_too_far_ahead_keeps_nothing_on() {
    let world = World::new("");
    world.fail(Call::Probe, PortErrorClass::Other);
    let until = world.now() + TimeDelta::hours(13);
    world.scratch.put(KEEP_UNTIL, until.to_rfc3339().as_bytes()).unwrap();
    let began = Instant::now();
    assert_eq!(world.serve().exit().await, WorkerExit::CannotStart);
    assert!(began.elapsed() < seconds(700), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_has_begun() {
    let world = World::new("");
    world.submit("slow:20");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    serving.signals.stop();
    assert_eq!(serving.exit().await, WorkerExit::ToldToStop);
    assert_eq!(world.outcomes(), ["ok"]);
    assert!(world.state().messages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_every_drain_at_once_and_still_gives_back() {
    for by_itself in [false, true] {
        let world = World::new("");
        world.submit("slow:600");
        let serving = world.serve();
        world.wait(seconds(5), |state| !state.running.is_empty()).await;
        if by_itself {
            let at = world.now() + TimeDelta::seconds(120);
            world.state().interruption = Some(at);
            tokio::time::sleep(seconds(2)).await;
        }
        serving.signals.stop();
        tokio::time::sleep(seconds(1)).await;
        assert!(!serving.is_over());
        let began = Instant::now();
        serving.signals.stop();
        serving.exit().await;
        assert!(began.elapsed() < seconds(4), "{:?}", began.elapsed());
        assert_eq!(world.visible(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_hangs_does_not_delay_the_end() {
    let world = World::new("");
    world.submit("slow:600");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    world.state().change_takes = Duration::from_secs(3_600);
    let began = Instant::now();
    serving.signals.stop();
    serving.exit().await;
    assert!(began.elapsed() < seconds(30 + 60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_heartbeat_or_of_the_watch_ends_the_worker_with_a_reason() {
    for call in [Call::Change, Call::Report, Call::Memory] {
        let world = World::new("");
        world.submit("slow:600");
        let serving = world.serve();
        world.wait(seconds(5), |state| !state.running.is_empty()).await;
        let began = Instant::now();
        world.state().panicking = Some(call);
        let exit = serving.exit().await;
        assert_eq!(
            (exit, exit.code(), exit.powers_off()),
            (WorkerExit::Hung, 13, true),
            "{call:?}"
        );
        assert!(began.elapsed() < seconds(20 + 30 + 10), "{call:?}: {:?}", began.elapsed());
        assert!(world.outcomes().is_empty() && world.dead().is_empty(), "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_one_panic_leases_are_extended_until_the_drain_is_over() {
    for call in [Call::Change, Call::Report] {
        let world = World::new("").with_drain("10m");
        world.submit("slow:300");
        let serving = world.serve();
        world.wait(seconds(5), |state| !state.running.is_empty()).await;
        world.state().panicking = Some(call);
        tokio::time::sleep(seconds(25)).await;
        world.state().panicking = None;
        assert_eq!(serving.exit().await, WorkerExit::Hung, "{call:?}");
        // It would have been visible again after a minute without a heartbeat.
        assert_eq!(world.outcomes(), ["ok"], "{call:?}");
        assert_eq!(world.state().results[0].attempt, 1, "{call:?}");
        assert!(world.state().messages.is_empty(), "{call:?}");
    }
}
