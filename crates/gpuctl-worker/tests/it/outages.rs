//! Outages: what is finished is kept, and committed once.

use gpuctl_control::ports::PortErrorClass;
use gpuctl_worker::WorkerExit;

use crate::world::{Call, LARGE_BYTES, World, seconds};

const JOBS: usize = 40;

#[tokio::test(start_paused = true)]
async fn half_an_hour_without_a_service_loses_no_inference_and_buries_nothing() {
    let outages: [&[Call]; 5] = [
        &[Call::Report, Call::Memory, Call::Commit, Call::Results],
        &[Call::Commit],
        &[Call::Keep],
        &[Call::Receive, Call::Change, Call::Ack],
        &[Call::Ack],
    ];
    for outage in outages {
        let world = World::new("");
        let serving = world.serve();
        for n in 0..JOBS {
            world.submit(if n % 2 == 0 { "file:1" } else { "slow:1" });
        }
        world.wait(seconds(60), |state| state.results.len() > 3).await;
        outage.iter().for_each(|call| world.fail(*call, PortErrorClass::Unavailable));
        tokio::time::sleep(seconds(30 * 60)).await;
        assert!(world.dead().is_empty(), "{outage:?}");
        let during = world.state().inferences;
        assert!(during < 25, "{outage:?}: it went on receiving: {during} inferences");
        outage.iter().for_each(|call| world.mend(*call));
        world.wait(seconds(600), |state| state.results.len() == JOBS).await;
        world.wait(seconds(120), |state| state.messages.is_empty()).await;
        assert_eq!(world.state().inferences as usize, JOBS, "{outage:?}: some ran twice");
        assert!(world.outcomes().iter().all(|outcome| outcome == "ok"), "{outage:?}");
        serving.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_puts_a_result_away_and_the_next_worker_commits_it() {
    let world = World::new("");
    world.fail(Call::Commit, PortErrorClass::Unavailable);
    world.submit("file");
    let serving = world.serve();
    world.wait(seconds(10), |state| state.inferences == 1).await;
    serving.signals.stop();
    assert_eq!(serving.exit().await, WorkerExit::ToldToStop);
    assert_eq!(world.visible(), 1);
    world.mend(Call::Commit);
    let serving = world.serve();
    world.wait(seconds(10), |state| state.results.len() == 1 && state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.inferences, state.files.len())), (1, 1));
    let output = world.see(|state| state.results[0].outcome.clone()).unwrap();
    let uri = output["files"][0]["uri"].as_str().unwrap();
    assert!(world.state().files.contains_key(uri));
    assert!(world.put_away().is_empty());
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_ledger_cannot_hold_becomes_a_failure_that_says_so() {
    let world = World::new("");
    world.fail(Call::Commit, PortErrorClass::TooLarge);
    world.submit("file");
    let serving = world.serve();
    world.wait(seconds(10), |state| state.messages.is_empty()).await;
    assert_eq!(world.outcomes(), ["result.full"]);
    assert!(world.state().files.is_empty(), "its files are of no use");
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_for_which_there_is_no_room_waits_although_a_failure_would_fit() {
    let world = World::new("");
    world.fail(Call::Commit, PortErrorClass::Full);
    world.submit("file");
    let serving = world.serve();
    world.wait(seconds(10), |state| state.inferences == 1).await;
    tokio::time::sleep(seconds(60)).await;
    assert!(world.outcomes().is_empty() && world.see(|state| state.messages.len() == 1));
    let fault = world.state().reports.last().unwrap().fault.clone().unwrap();
    assert_eq!(fault.code, "results.unreachable");
    world.mend(Call::Commit);
    world.wait(seconds(60), |state| state.messages.is_empty()).await;
    assert_eq!(world.outcomes(), ["ok"]);
    assert_eq!(world.see(|state| (state.inferences, state.files.len())), (1, 1));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_reply_was_lost_keeps_its_files() {
    let world = World::new("");
    world.fail(Call::CommitReply, PortErrorClass::Unavailable);
    world.submit("file");
    let serving = world.serve();
    world.wait(seconds(60), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.results.len(), state.files.len())), (1, 1));
    assert_eq!(world.state().reports.last().unwrap().jobs_done, 0);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.state().reports.last().unwrap().jobs_done, 1);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_reply_the_form_of_the_result_that_is_kept_decides_on_its_files() {
    // What the first commit writes, before its reply is lost, and what the next one meets.
    for (outcome, files) in [("ok", 1), ("result.full", 0)] {
        let world = World::new("");
        let had_room = outcome == "ok";
        world.fail(Call::CommitReply, PortErrorClass::Unavailable);
        if !had_room {
            world.fail(Call::Commit, PortErrorClass::TooLarge);
        }
        world.submit("file");
        let serving = world.serve();
        world.wait(seconds(10), |state| state.results.len() == 1).await;
        if had_room {
            world.fail(Call::Commit, PortErrorClass::TooLarge);
        } else {
            world.mend(Call::Commit);
        }
        world.wait(seconds(60), |state| state.messages.is_empty()).await;
        assert_eq!(world.outcomes(), [outcome]);
        assert_eq!(world.state().files.len(), files, "{outcome}");
        assert_eq!(world.state().forgotten as usize, files, "{outcome}");
        serving.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn results_too_large_for_memory_are_held_on_disk_and_committed_later() {
    for (count, on_disk) in [(2, 0), (3, 3)] {
        let world = World::new("");
        world.fail(Call::Keep, PortErrorClass::Unavailable);
        (0..count).for_each(|_| drop(world.submit("large")));
        let serving = world.serve();
        world.wait(seconds(10), |state| state.inferences == count).await;
        tokio::time::sleep(seconds(100)).await;
        let held = || world.put_away().iter().filter(|name| !name.contains('.')).count();
        world.wait(seconds(60), |_| held() == on_disk).await;
        assert!(world.see(|state| state.files.is_empty() && state.results.is_empty()));

        world.mend(Call::Keep);
        world.wait(seconds(120), |state| state.messages.is_empty()).await;
        assert_eq!(world.outcomes(), vec!["ok"; count as usize]);
        assert_eq!(
            world.see(|state| (state.inferences, state.files.len())),
            (count, count as usize)
        );
        assert!(world.state().files.values().all(|bytes| bytes.len() == LARGE_BYTES));
        assert!(world.put_away().is_empty(), "{:?}", world.put_away());
        serving.kill().await;
    }
}
