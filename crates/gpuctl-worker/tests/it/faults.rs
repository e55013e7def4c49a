//! Whose fault it is: what is the input's ends at once, what is the box's or a service's never becomes a result.

use gpuctl_control::ports::PortErrorClass;
use gpuctl_worker::WorkerExit;

use crate::world::{Call, World, seconds};

#[tokio::test(start_paused = true)]
async fn inputs_that_cannot_be_fetched_now_fail_no_job() {
    for class in [
        PortErrorClass::Throttled,
        PortErrorClass::Denied,
        PortErrorClass::Unavailable,
        PortErrorClass::Full,
        PortErrorClass::Conflict,
        // A queue, key or region of the configuration: an input that is not there is told by its cause.
        PortErrorClass::NotFound,
        PortErrorClass::Other,
    ] {
        let world = World::new("");
        world.fail(Call::Fetch, class);
        for _ in 0..30 {
            world.submit_input("ok", "s3://bucket/input");
        }
        let serving = world.serve();
        tokio::time::sleep(seconds(30 * 60)).await;
        assert!(world.outcomes().is_empty() && world.dead().is_empty(), "{class:?}");
        // Held under their leases, and few of them: the others are left alone.
        assert!(world.receives().iter().all(|receives| *receives <= 1), "{class:?}");
        assert!(world.receives().contains(&0), "{class:?}");
        let fault = world.state().reports.last().unwrap().fault.clone().unwrap();
        assert!(fault.code.starts_with("inputs."), "{}", fault.code);
        world.mend(Call::Fetch);
        world.wait(seconds(120), |state| state.results.len() == 30).await;
        assert!(world.outcomes().iter().all(|outcome| outcome == "ok"));
        tokio::time::sleep(seconds(2)).await;
        assert_eq!(world.state().reports.last().unwrap().fault, None);
        serving.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_input_that_is_not_there_or_is_refused_fails_its_job_at_once() {
    let world = World::new("");
    world.submit_input("ok", "s3://bucket/large");
    world.submit("unknown");
    let serving = world.serve();
    world.wait(seconds(5), |state| state.results.len() == 2).await;
    world.submit_input("ok", "s3://bucket/gone");
    world.wait(seconds(5), |state| state.results.len() == 3).await;
    assert_eq!(world.outcomes(), ["input.too_large", "task.unknown", "input.missing"]);
    assert_eq!(world.state().reports.last().unwrap().fault, None);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn one_input_that_may_not_be_read_does_not_hold_up_the_others() {
    let world = World::new("");
    world.submit_input("ok", "s3://forbidden/input");
    let serving = world.serve();
    for _ in 0..20 {
        world.submit_input("ok", "s3://bucket/input");
        tokio::time::sleep(seconds(1)).await;
    }
    world.wait(seconds(300), |state| state.results.len() == 20).await;
    // It has no result: a user may allow it, and then it runs. It ends in the dead letters, with what is known of it in the ledger.
    for _ in 0..100 {
        world.submit_input("ok", "s3://bucket/input");
        tokio::time::sleep(seconds(10)).await;
    }
    world.wait(seconds(900), |state| state.messages.iter().any(|one| one.dead.is_some())).await;
    assert!(world.outcomes().iter().all(|outcome| outcome == "ok"));
    assert_eq!(world.state().problems[0].failure.code, "inputs.denied");
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn throttling_uses_up_no_receive_of_the_job_that_it_meets() {
    let world = World::new("");
    world.submit_input("ok", "s3://bucket/throttled");
    let serving = world.serve();
    for _ in 0..60 {
        world.submit_input("ok", "s3://bucket/input");
        tokio::time::sleep(seconds(10)).await;
    }
    world.wait(seconds(300), |state| state.results.len() == 60).await;
    assert_eq!(world.receives()[0], 1);
    assert!(world.state().problems.is_empty() && world.dead().is_empty());
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_box_without_models_receives_nothing_and_ends_as_a_failed_start() {
    let world = World::new("");
    world.fail(Call::Probe, PortErrorClass::Other);
    for _ in 0..200 {
        world.submit("ok");
    }
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.reports.is_empty()).await;
    let exit = serving.exit().await;
    assert_eq!((exit, exit.code()), (WorkerExit::CannotStart, 15));
    assert!(world.outcomes().is_empty() && world.receives().iter().all(|receives| *receives == 0));
    let state = world.state();
    assert!(state.reports.iter().all(|report| report.ready_at.is_none()));
    let last = state.reports.last().unwrap();
    assert_eq!(last.fault.as_ref().unwrap().code, "models.missing");
    assert!(last.last_error.as_ref().unwrap().contains("the folder of models is empty"));
}

#[tokio::test(start_paused = true)]
async fn a_box_whose_models_come_late_serves_all_the_same() {
    let world = World::new("");
    world.fail(Call::Probe, PortErrorClass::Other);
    world.submit("ok");
    let serving = world.serve();
    tokio::time::sleep(seconds(200)).await;
    assert_eq!(world.receives(), [0]);
    world.mend(Call::Probe);
    world.wait(seconds(60), |state| state.results.len() == 1).await;
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_fails_in_the_middle_is_tried_again_and_fails_no_job() {
    let world = World::new("");
    world.submit("ok");
    let serving = world.serve();
    world.wait(seconds(5), |state| state.results.len() == 1).await;
    world.fail(Call::Infer, PortErrorClass::Other);
    for _ in 0..50 {
        world.submit("ok");
    }
    tokio::time::sleep(seconds(300)).await;
    assert_eq!(world.state().reports.last().unwrap().fault.as_ref().unwrap().code, "device.memory");
    assert_eq!((world.outcomes().len(), world.dead().len()), (1, 0));
    assert!(world.receives().contains(&0), "it went on receiving: {:?}", world.receives());
    world.mend(Call::Infer);
    world.wait(seconds(120), |state| state.results.len() == 51).await;
    assert!(world.outcomes().iter().all(|outcome| outcome == "ok"));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_stays_broken_ends_the_worker_and_its_messages_go_back() {
    let world = World::new("");
    world.fail(Call::Infer, PortErrorClass::Other);
    for _ in 0..5 {
        world.submit("ok");
    }
    assert_eq!(world.serve().exit().await, WorkerExit::CannotStart);
    assert_eq!((world.outcomes().len(), world.visible()), (0, 5));
}
