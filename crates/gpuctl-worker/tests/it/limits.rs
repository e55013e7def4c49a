//! Limits: of a job's time from when it begins, of what is held, and of memory.

use chrono::TimeDelta;
use gpuctl_control::ports::PortErrorClass;
use gpuctl_worker::{MemoryScratch, Scratch, WorkerExit};
use tokio::time::Instant;

use crate::ends::LEDGER;
use crate::world::{DECODING, World, seconds};

#[tokio::test(start_paused = true)]
async fn ten_long_jobs_one_after_the_other_are_no_timeout_and_none_waits_in_a_worker() {
    let world = World::new("");
    world.state().service = None;
    for _ in 0..10 {
        world.submit("slow:420");
    }
    let serving = world.serve();
    world.wait(seconds(10 * 430), |state| state.results.len() == 10).await;
    assert!(world.outcomes().iter().all(|outcome| outcome == "ok"));
    assert!(world.state().results.iter().all(|result| result.attempt == 1));
    assert_eq!(world.state().held_max, 1);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn short_jobs_are_fetched_ahead() {
    let world = World::new("");
    for _ in 0..30 {
        world.submit("slow:1");
    }
    let serving = world.serve();
    world.wait(seconds(60), |state| state.results.len() == 30).await;
    assert_eq!(world.state().held_max, 10);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn many_fast_jobs_are_held_and_not_more_than_take_two_seconds() {
    let world = World::new("");
    for _ in 0..200 {
        world.submit("ok");
    }
    let serving = world.serve();
    world.wait(seconds(60), |state| state.results.len() == 200).await;
    // Each takes 107 ms.
    assert_eq!(world.state().held_max, 19);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_worked_for_as_long_as_its_decoding_and_its_share_of_the_model() {
    let world = World::new("");
    world.submit("slow:5");
    let serving = world.serve();
    world.wait(seconds(60), |state| state.results.len() == 1).await;
    let worked = world.see(|state| state.results[0].worked);
    assert_eq!(worked, Some(TimeDelta::milliseconds(5_100) + DECODING));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_worked_for_as_long_as_the_model_ran_and_not_for_its_wait() {
    let world = World::new("");
    world.submit("slow:5");
    world.submit("fails:2");
    world.submit("unknown");
    let serving = world.serve();
    world.wait(seconds(60), |state| state.results.len() == 3).await;
    let worked = |task: &str| {
        world.see(|state| {
            let result = state.results.iter().find(|result| result.job.task == task);
            result.and_then(|result| result.worked)
        })
    };
    assert_eq!(worked("fails:2"), Some(TimeDelta::milliseconds(2_100) + DECODING));
    assert_eq!(worked("unknown"), Some(TimeDelta::zero()));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_over_its_limit_ends_once_with_a_result_that_says_so() {
    let world = World::new("");
    world.submit("slow:4000");
    let serving = world.serve();
    world.wait(seconds(3700), |state| state.messages.is_empty()).await;
    assert_eq!(world.outcomes(), ["job.timeout"]);
    assert_eq!(world.see(|state| (state.results[0].attempt, state.running.len())), (1, 0));
    assert!(!serving.is_over(), "it stopped when it was told to");
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_hangs_gets_its_result_and_ends_the_worker() {
    let world = World::new("");
    world.submit("hang");
    let serving = world.serve();
    let exit = serving.exit().await;
    assert_eq!((exit, exit.code()), (WorkerExit::Hung, 13));
    assert!(exit.powers_off());
    assert_eq!(world.outcomes(), ["job.timeout"]);
    assert!(world.state().messages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_hangs_while_the_ledger_is_down_ends_the_worker_and_keeps_its_result() {
    let world = World::new("[model.fake]\njob_max = \"10m\"\n");
    world.submit("hang");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    LEDGER.iter().for_each(|call| world.fail(*call, PortErrorClass::Unavailable));
    let began = Instant::now();
    assert_eq!(serving.exit().await, WorkerExit::Hung);
    assert!(began.elapsed() < seconds(700), "{:?}", began.elapsed());
    LEDGER.iter().for_each(|call| world.mend(*call));
    let serving = world.serve();
    world.wait(seconds(60), |state| state.messages.is_empty()).await;
    assert_eq!(world.outcomes(), ["job.timeout"]);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_models_own_limit_is_that_of_its_jobs_and_ends_a_worker_that_hangs() {
    // `[worker] job_max` is an hour.
    let world = World::new("[model.fake]\njob_max = \"10m\"\n[model.other]\njob_max = \"1m\"\n");
    let serving = world.serve();
    for task in ["slow:500", "slow:700"] {
        world.submit(task);
        world.wait(seconds(620), |state| state.messages.is_empty()).await;
    }
    assert_eq!(world.outcomes(), ["ok", "job.timeout"]);
    let failure = world.see(|state| state.results[1].outcome.clone()).unwrap_err();
    assert_eq!(failure.message, "the job took longer than 600 s");
    assert!(failure.hint.unwrap().starts_with("raise `job_max` in [model.fake]"));
    world.submit("hang");
    let began = Instant::now();
    assert_eq!(serving.exit().await, WorkerExit::Hung);
    assert!(began.elapsed() < seconds(700), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_begin_in_time_goes_to_another_worker_and_is_not_lost() {
    let world = World::new("");
    // Expected to be short, and it is not: nine more are held by then.
    world.state().decoded_bytes = 2 << 30;
    world.submit("slow:300");
    for _ in 0..9 {
        world.submit("ok");
    }
    let serving = world.serve();
    world
        .wait(seconds(90), |state| {
            state.messages.iter().filter(|one| one.receives == 1).count() == 10
        })
        .await;
    tokio::time::sleep(seconds(80)).await;
    assert_eq!(world.visible(), 9, "they wait for another worker");
    world.wait(seconds(600), |state| state.results.len() == 10).await;
    assert!(world.dead().is_empty());
    assert!(world.see(|state| state.results.iter().all(|result| result.attempt == 1)));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_for_a_model_that_runs_another_uses_up_no_receive() {
    let world = World::new("");
    world.submit("slow:300");
    world.submit("waits");
    let serving = world.serve();
    world.wait(seconds(90), |state| state.messages.iter().all(|one| one.receives == 1)).await;
    tokio::time::sleep(seconds(80)).await;
    assert_eq!(world.visible(), 1, "it waits for another worker");
    assert_eq!(world.receives(), [1, 0]);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_model_opens_for_ever_is_dead_after_its_receives() {
    let world = World::new("");
    world.submit("opens");
    // Late three times; then it stays, until its worker ends.
    for receives in [4, 5] {
        let began = Instant::now();
        assert_eq!(world.serve().exit().await, WorkerExit::Hung);
        assert!(began.elapsed() < seconds(1_000), "{:?}", began.elapsed());
        assert_eq!(world.receives(), [receives]);
    }
    let serving = world.serve();
    world.wait(seconds(90), |state| state.messages[0].dead.is_some()).await;
    serving.kill().await;
}

/// A worker is killed by it after more than a lease, when another one has it: the markers of neither tell of the crash.
#[tokio::test(start_paused = true)]
async fn a_job_that_crashes_its_worker_while_the_model_opens_is_buried_also_with_two_workers() {
    let world = World::new("");
    let mut other = world.clone();
    other.scratch = MemoryScratch::default();
    let worlds = [&world, &other];
    world.submit("opens");
    let mut serving = worlds.map(World::serve);
    for round in 0.. {
        assert!(round < 40, "it crashes workers for ever, after receives: {:?}", world.receives());
        tokio::time::sleep(seconds(70)).await;
        if !world.dead().is_empty() {
            break;
        }
        for (one, world) in serving.iter_mut().zip(worlds) {
            if world.scratch.get("markers").unwrap().is_none() {
                one.kill_now();
                *one = world.serve();
            }
        }
    }
    assert_eq!(world.receives(), [5]);
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_behind_others_for_as_long_as_they_run() {
    let world = World::new("");
    world.submit("slow:1800");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    world.submit("waits");
    world.state().messages[1].receives = 3;
    tokio::time::sleep(seconds(1_700)).await;
    assert!(!serving.is_over());
    assert_eq!(serving.exit().await, WorkerExit::Hung);
    assert_eq!(world.outcomes(), ["ok"]);
    assert_eq!(world.receives(), [4]);
}

#[tokio::test(start_paused = true)]
async fn decoded_inputs_have_a_budget() {
    let world = World::new("");
    world.state().decoded_bytes = 900 << 20;
    for _ in 0..10 {
        world.submit("slow:2");
    }
    let serving = world.serve();
    world.wait(seconds(60), |state| state.results.len() == 10).await;
    assert_eq!(world.state().running_max, 2);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn the_expected_time_of_a_job_comes_from_the_ledger_first() {
    let world = World::new("");
    world.state().service = Some(TimeDelta::seconds(60));
    for _ in 0..10 {
        world.submit("slow:60");
    }
    let serving = world.serve();
    world.wait(seconds(650), |state| state.results.len() == 10).await;
    assert_eq!(world.state().held_max, 1);
    serving.kill().await;
}
