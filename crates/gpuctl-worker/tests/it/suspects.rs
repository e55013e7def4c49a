//! Jobs that crash their worker, messages that are no jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use gpuctl_control::ports::PortErrorClass;
use gpuctl_worker::Scratch;

use crate::world::{Call, State, World, seconds};

#[tokio::test(start_paused = true)]
async fn a_job_that_crashes_its_worker_is_buried_with_a_reason_and_its_neighbours_are_not() {
    let world = World::new("");
    let poison = world.submit("hang");
    for _ in 0..4 {
        world.submit("slow:5");
    }
    for _ in 0..10 {
        let serving = world.serve();
        for _ in 0..400 {
            tokio::time::sleep(seconds(1)).await;
            // What crashes is the process, while the poison runs.
            if world.state().running.contains(poison.as_str()) {
                tokio::time::sleep(seconds(1)).await;
                break;
            }
        }
        serving.kill().await;
        world.state().running.clear();
        if !world.dead().is_empty() {
            break;
        }
    }
    let serving = world.serve();
    world.wait(seconds(300), |state| state.results.len() == 4).await;
    assert!(world.outcomes().iter().all(|outcome| outcome == "ok"));
    let dead = world.dead();
    assert!(dead.len() == 1 && dead[0].contains("its worker died 4 times"), "{dead:?}");
    let problems = world.state().problems.clone();
    let last = problems.iter().rfind(|problem| problem.dead).unwrap();
    assert_eq!((&last.job.id, last.failure.code.as_str()), (&poison, "job.crashed"));
    // The neighbours were there at one crash, and ran alone after that.
    let neighbours = problems.iter().filter(|problem| problem.job.id != poison).count();
    assert!(neighbours <= 4, "{neighbours}");
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_suspects_run_alone_and_the_rest_goes_on() {
    let world = World::new("");
    for _ in 0..3 {
        world.submit("slow:5");
    }
    let serving = world.serve();
    world.wait(seconds(5), |state| state.running.len() == 3).await;
    serving.kill().await;
    {
        let mut state = world.state();
        state.running.clear();
        state.running_max = 0;
    }
    let serving = world.serve();
    // While the leases of the crashed worker last, others run side by side.
    for _ in 0..4 {
        world.submit("slow:5");
    }
    world.wait(seconds(30), |state| state.results.len() == 4).await;
    assert_eq!(world.state().running_max, 4);
    world.state().running_max = 0;
    world.wait(seconds(120), |state| state.results.len() == 7).await;
    assert_eq!(world.state().running_max, 1);
    assert_eq!(world.state().problems.len(), 3);
    serving.kill().await;
}

/// What crashes the worker uses up a receive of each message that it holds.
#[tokio::test(start_paused = true)]
async fn a_suspect_runs_while_its_worker_holds_nothing_else() {
    let world = World::new("");
    let poison = world.submit("hang");
    let serving = world.serve();
    let runs = |state: &State| state.running.contains(poison.as_str());
    world.wait(seconds(5), runs).await;
    serving.kill().await;
    world.state().running.clear();
    tokio::time::sleep(seconds(61)).await;
    for _ in 0..4 {
        world.submit("slow:5");
    }
    let serving = world.serve();
    world.wait(seconds(30), runs).await;
    assert_eq!(world.outcomes().len(), 4);
    world.submit("ok");
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(world.visible(), 1);
    serving.kill().await;
}

/// How a worker that held no job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Crash,
    /// It was told to stop.
    Stop,
}

async fn serve_until(world: &World, end: End) {
    world.state().reports.clear();
    let serving = world.serve();
    let is_ready = |state: &State| state.reports.iter().any(|one| one.ready_at.is_some());
    world.wait(seconds(5), is_ready).await;
    if end == End::Crash {
        return serving.kill().await;
    }
    serving.signals.stop();
    serving.exit().await;
    assert_eq!(world.scratch.list().unwrap(), [""; 0], "left after a drain");
}

/// The most messages that the next worker holds at once of four.
async fn held_next(world: &World) -> usize {
    (0..4).for_each(|_| drop(world.submit("slow:5")));
    let serving = world.serve();
    world.wait(seconds(300), |state| state.results.len() == 4).await;
    serving.kill().await;
    world.state().held_max
}

/// A crash between two jobs leaves no marker: what crashes the worker next would use up a receive of each message that it holds.
#[tokio::test(start_paused = true)]
async fn after_two_crashes_one_message_is_held_at_a_time_also_where_no_job_ran() {
    use End::{Crash, Stop};
    let (soon, later) = (seconds(1), seconds(11 * 60));
    let rows: [(u32, &[End], Duration, usize); 6] = [
        (5, &[Crash], soon, 4),
        (5, &[Crash, Crash], soon, 1),
        (5, &[Crash, Crash], later, 4),
        (3, &[Crash], soon, 1),
        (3, &[Stop], soon, 4),
        (5, &[Stop, Stop], soon, 4),
    ];
    for (receives_max, ends, apart, held_max) in rows {
        let world = World::new("").with_receives_max(receives_max);
        for end in ends {
            serve_until(&world, *end).await;
            tokio::time::sleep(apart).await;
        }
        let held = held_next(&world).await;
        assert_eq!(held, held_max, "{ends:?} {apart:?} apart, of {receives_max} receives");
    }
}

/// As of an older gpuctl, or where the disk had no room.
#[tokio::test(start_paused = true)]
async fn suspects_tell_of_a_crash_that_was_not_noted() {
    let world = World::new("").with_receives_max(3);
    world.submit("hang");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    serving.kill().await;
    world.scratch.remove("serving").unwrap();
    world.state().messages.clear();
    assert_eq!(held_next(&world).await, 1);
}

#[tokio::test(start_paused = true)]
async fn models_that_come_late_use_up_none_of_the_time_after_a_crash() {
    let world = World::new("").with_receives_max(3);
    serve_until(&world, End::Crash).await;
    world.fail(Call::Probe, PortErrorClass::Unavailable);
    let comes = async {
        tokio::time::sleep(seconds(180)).await;
        world.mend(Call::Probe);
    };
    assert_eq!(tokio::join!(held_next(&world), comes).0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_crashed_another_box_is_a_suspect_here_as_well() {
    let world = World::new("");
    let suspect = world.submit("slow:5");
    for _ in 0..4 {
        world.submit("slow:5");
    }
    world.state().messages[0].receives = 1;
    world.note_problem_of_first("job.crashed");
    let serving = world.serve();
    world.wait(seconds(30), |state| state.running.contains(suspect.as_str())).await;
    assert_eq!(world.see(|state| (state.running.len(), state.results.len())), (1, 4));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_receive_alone_makes_no_suspect() {
    let world = World::new("");
    for _ in 0..4 {
        world.submit("slow:20");
    }
    let serving = world.serve();
    world.wait(seconds(5), |state| state.running.len() == 4).await;
    world.take_leases();
    world.wait(seconds(25), |state| state.running.is_empty()).await;
    world.state().running_max = 0;
    world.wait(seconds(120), |state| state.results.len() == 4).await;
    assert_eq!(world.state().running_max, 4);
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_in_order_leaves_no_suspects() {
    let world = World::new("");
    world.submit("deaf:100");
    let serving = world.serve();
    world.wait(seconds(5), |state| !state.running.is_empty()).await;
    serving.signals.stop();
    serving.exit().await;
    let serving = world.serve();
    world.wait(seconds(200), |state| state.results.len() == 1).await;
    assert!(world.state().problems.is_empty());
    serving.kill().await;
}

/// Workers that are killed before they have noted anything, and those that let go of a job, leave only the number of its receives.
#[tokio::test(start_paused = true)]
async fn a_job_that_was_received_too_often_is_buried_with_what_is_known_of_it() {
    let world = World::new("").with_spare_receives();
    let (denied, unknown) = (world.submit("ok"), world.submit("ok"));
    world.state().messages.iter_mut().for_each(|message| message.receives = 5);
    world.note_problem_of_first("inputs.denied");
    let serving = world.serve();
    world.wait(seconds(10), |state| state.messages.iter().all(|one| one.dead.is_some())).await;
    let why = "job.unfinished: it was received 5 times, and no worker finished it";
    assert_eq!(world.dead(), ["inputs.denied: noted before", why]);
    let problems = world.see(|state| state.problems.clone());
    let dead = problems.iter().filter(|problem| problem.dead).map(|problem| &problem.job.id);
    assert_eq!(dead.collect::<BTreeSet<_>>(), BTreeSet::from([&unknown, &denied]));
    assert!(world.outcomes().is_empty());
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_no_job_is_buried_at_the_first_receive_and_listed() {
    let world = World::new("");
    let known = "01a200ab-52ac-72da-a503-1913f00238c3";
    world.send("no job at all");
    world.send(&format!(
        r#"{{"version":1,"job_id":"{known}","queue":"jobs","task":"vision.ocr","input":"http://x/y","submitted_at":"2026-11-22T00:00:00Z"}}"#
    ));
    let serving = world.serve();
    world.wait(seconds(10), |state| state.messages.iter().all(|one| one.dead.is_some())).await;
    assert_eq!(world.receives(), [1, 1]);
    assert!(world.dead()[0].starts_with("message.unreadable: "), "{:?}", world.dead());
    let problems = world.state().problems.clone();
    assert!(problems.iter().all(|problem| problem.dead && problem.job.queue.as_str() == "jobs"));
    assert_eq!(problems[1].job.id.as_str(), known);
    assert_eq!(problems[1].job.task, "vision.ocr");
    assert!(problems[0].job.input.as_str().contains("no%20job"));
    serving.kill().await;
}

/// As after a redrive in the SQS console, which brings back what a user has replaced by `gpuctl retry`.
#[tokio::test(start_paused = true)]
async fn a_message_of_an_older_generation_is_dropped_without_a_result() {
    let world = World::new("");
    let (quick, slow) = (world.submit("ok"), world.submit("slow:300"));
    for id in [&quick, &slow] {
        world.state().newest.insert(id.clone(), 1);
    }
    let serving = world.serve();
    world.wait(seconds(60), |state| state.messages.is_empty()).await;
    assert_eq!(world.see(|state| (state.results.len(), state.problems.len())), (0, 0));
    serving.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_its_result_is_committed_again_and_acked_and_not_run_again() {
    let world = World::new("");
    world.fail(Call::Ack, PortErrorClass::LeaseLost);
    world.submit("ok");
    let serving = world.serve();
    world.wait(seconds(5), |state| state.results.len() == 1).await;
    world.mend(Call::Ack);
    world.fail(Call::Commit, PortErrorClass::Unavailable);
    tokio::time::sleep(seconds(120)).await;
    assert_eq!(
        world.state().messages.len(),
        1,
        "the worker that committed it may have ended in the middle"
    );
    world.mend(Call::Commit);
    world.wait(seconds(120), |state| state.messages.is_empty()).await;
    assert_eq!(
        world.see(|state| (state.inferences, state.commits, state.results.len())),
        (1, 2, 1)
    );
    serving.kill().await;
}
