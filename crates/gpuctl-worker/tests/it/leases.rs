//! Leases: extended while held, never used when lost, released within a second.

use std::time::Duration;

use gpuctl_control::job::{JobResult, JobState};
use gpuctl_control::ports::PortErrorClass;
use gpuctl_worker::WorkerExit;

use crate::world::{Call, World, seconds};

#[tokio::test(start_paused = true)]
async fn a_long_job_keeps_its_lease() {
    let world = World::new("");
    world.submit("slow:1800");
    let serving = world.serve();
    world.wait(seconds(1900), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.results[0].attempt, state.inferences)), (1, 1));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_lease_is_lost_is_cancelled_while_it_runs() {
    let world = World::new("");
    world.submit("slow:600");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    world.take_leases();
    world.wait(seconds(30), |state| state.running.is_empty()).await;
    assert_eq!(world.see(|state| (state.inferences, state.results.len())), (0, 0));
    // The message comes again when the other lease is over.
    world.wait(seconds(700), |state| state.messages.is_empty()).await;
    assert_eq!(world.outcomes(), ["ok"]);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_a_user_cancels_stops_at_the_next_heartbeat_and_others_go_on() {
    let world = World::new("");
    let (cancelled, other) = (world.submit("slow:600"), world.submit("slow:200"));
    let serving = world.serve();
    world.wait(seconds(5), |state| state.running.len() == 2).await;
    world.cancel(&cancelled);
    world.wait(seconds(30), |state| state.messages.len() == 1).await;
    assert_eq!(world.see(|state| (state.inferences, state.running.len())), (0, 1));
    world.wait(seconds(300), |state| state.messages.is_empty()).await;
    let ended = world.see(|state| state.results.iter().map(JobResult::state).collect::<Vec<_>>());
    assert_eq!(ended, [JobState::Cancelled, JobState::Succeeded]);
    assert_eq!(world.see(|state| state.results[1].job.id.clone()), other);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cancelled_while_it_waited_is_dropped_and_not_run() {
    let world = World::new("");
    let slow = world.submit("slow:300");
    world.cancel(&slow);
    let serving = world.serve();
    world.wait(seconds(5), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.inferences, state.results.len())), (0, 1));
    // The box was started for it, and has not failed.
    world
        .wait(seconds(30), |state| state.reports.last().is_some_and(|last| last.jobs_done == 1))
        .await;
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_whose_lease_was_lost_is_committed_if_there_is_none_and_not_acked() {
    let world = World::new("");
    world.fail(Call::Commit, PortErrorClass::Unavailable);
    world.submit("file");
    let serving = world.serve();
    world.wait(seconds(10), |state| state.inferences == 1).await;
    world.take_leases();
    tokio::time::sleep(seconds(70)).await;
    world.mend(Call::Commit);
    world.wait(seconds(40), |state| state.results.len() == 1).await;
    // The next receive finds the result, and acks.
    world.wait(seconds(200), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.inferences, state.files.len())), (1, 1));
    assert_eq!(world.state().acks.len(), 1, "not with the lost lease: SQS would take it");
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_a_heartbeat_under_way_does_not_find_is_not_acked() {
    for takes in [400, 15_000] {
        let world = World::new("");
        world.state().extension_takes = Duration::from_millis(takes);
        // It is done while the first heartbeat, after a third of the lease, is under way.
        world.submit("slow:20");
        let serving = world.serve();
        world.wait(seconds(5), |state| !state.running.is_empty()).await;
        world.take_leases();
        world.wait(seconds(30), |state| state.results.len() == 1).await;
        assert!(world.state().is_extending);
        tokio::time::sleep(seconds(18)).await;
        assert!(world.state().acks.is_empty());
        world.wait(seconds(200), |state| state.messages.is_empty()).await;
        serving.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_lease_is_lost_is_not_released() {
    let world = World::new("");
    world.state().extension_takes = seconds(15);
    let serving = world.serve();
    tokio::time::sleep(seconds(5)).await;
    // It is late after a lease, while a heartbeat is under way, which began ten seconds before.
    world.submit("opens");
    world.wait(seconds(5), |state| state.opening > 0).await;
    tokio::time::sleep(seconds(49)).await;
    world.take_leases();
    world.wait(seconds(20), |state| state.opening == 0).await;
    tokio::time::sleep(seconds(18)).await;
    assert!(world.state().releases.is_empty());
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_lease_is_lost_is_not_noted_as_dead() {
    let world = World::new("").with_spare_receives();
    world.submit("ok");
    world.state().messages[0].receives = 5;
    world.state().results_take = seconds(10);
    let serving = world.serve();
    world.wait(seconds(5), |state| state.messages[0].receives == 6).await;
    world.take_leases();
    tokio::time::sleep(seconds(30)).await;
    assert_eq!((world.see(|state| state.problems.len()), world.dead().len()), (0, 0));
    // The next worker that holds it buries it.
    world.wait(seconds(120), |state| state.messages[0].dead.is_some()).await;
    assert!(world.see(|state| state.problems.iter().all(|problem| problem.dead)));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn files_of_an_attempt_that_came_second_are_removed() {
    let world = World::new("");
    world.fail(Call::Commit, PortErrorClass::Unavailable);
    world.submit("file");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.files.is_empty()).await;
    // Another worker was faster.
    let first = {
        let other = World::new("");
        let body = world.state().messages[0].body.clone();
        other.send(&body);
        let serving = other.serve();
        other.wait(seconds(5), |state| state.results.len() == 1).await;
        serving.kill().await;
        let mut result = other.state().results[0].clone();
        result.box_id = "gpu-2".parse().unwrap();
        result
    };
    world.state().results.push(first);
    world.mend(Call::Commit);
    world.wait(seconds(60), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.results.len(), state.files.len())), (1, 0));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_within_a_second_what_has_not_begun() {
    let world = World::new("");
    world.submit("ok");
    let serving = world.serve();
    world.wait(seconds(5), |state| state.results.len() == 1).await;
    world.fail(Call::Fetch, PortErrorClass::Unavailable);
    for _ in 0..8 {
        world.submit("ok");
    }
    tokio::time::sleep(seconds(45)).await;
    let waiting = world.visible();
    assert!(waiting < 8);
    serving.signals.stop();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.visible(), 8);
    assert_eq!(serving.exit().await, WorkerExit::ToldToStop);
    // Each was tried.
    assert!(world.see(|state| state.messages.iter().any(|message| message.receives == 1)));
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_what_is_decoded_and_waits_for_its_model() {
    let world = World::new("");
    for task in ["slow:20", "waits", "waits", "waits"] {
        world.submit(task);
    }
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(world.visible(), 0);
    serving.signals.stop();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.visible(), 3);
    assert_eq!(serving.exit().await, WorkerExit::ToldToStop);
    assert_eq!((world.outcomes(), world.visible()), (vec!["ok".to_owned()], 3));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_under_way_does_not_hide_what_a_drain_gives_back() {
    let world = World::new("");
    // One message is held at a time, so no receive under way takes it again.
    world.state().service = None;
    world.state().extension_takes = Duration::from_millis(400);
    world.submit("waits");
    let serving = world.serve();
    world.wait(seconds(30), |state| state.is_extending).await;
    serving.signals.stop();
    assert_eq!(serving.exit().await, WorkerExit::ToldToStop);
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(world.visible(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_in_a_receive_under_way_goes_back_at_once() {
    let world = World::new("");
    let serving = world.serve();
    tokio::time::sleep(seconds(10)).await;
    serving.signals.stop();
    // The long poll is still there, and takes it.
    tokio::task::yield_now().await;
    world.submit("ok");
    assert_eq!(serving.exit().await, WorkerExit::ToldToStop);
    assert_eq!((world.visible(), world.outcomes().len()), (1, 0));
    // Where the queue can take it back, a receive without a try brings no job nearer to the dead letters.
    assert_eq!(world.see(|state| state.messages[0].receives), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_its_result_has_acked_is_not_acked_again() {
    let world = World::new("");
    world.state().acks_with_commit = true;
    (0..3).for_each(|_| drop(world.submit("ok")));
    // The first commit's reply is lost: its message is acked by itself.
    world.state().failing.insert(Call::CommitReply, PortErrorClass::Unavailable);
    let serving = world.serve();
    world.wait(seconds(5), |state| state.results.len() == 3).await;
    world.state().failing.clear();
    world.submit("ok");
    world.wait(seconds(60), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.results.len(), state.acks.len())), (4, 3));
    serving.kill().await;
}
