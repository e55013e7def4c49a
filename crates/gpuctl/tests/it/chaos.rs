//! `kill -9` and polite stops of worker and daemon at random moments: every job ends with exactly one result, and no
//! process is left.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::random::Random;
use crate::support::{Daemon, Sandbox, pause, sample, wait_until, wait_within, workers};

const KILLS: usize = 18;
const JOBS_A_KILL: usize = 2;

/// Boxes that are killed while they boot are failed starts: on a busy machine many come in a row, and then gpuctl waits for
/// up to 5 minutes before it tries again.
const PATIENCE: Duration = Duration::from_secs(420);

/// Leases are short, and nothing is dead-lettered: only kills are in the way, and each costs a receive.
const CONFIG: &str = "\
[cloud]
tick = \"200ms\"
[pool.gpu]
queue = \"jobs\"
idle_stop = \"2s\"
visibility = \"2s\"
receives_max = 1000
boxes_max = 2
jobs_per_box = 10
starts_per_hour_max = 100
starts_without_result_max = 100
";

#[test]
fn kills_at_random_moments_lose_no_job_and_leave_no_process() {
    let mut random = Random::from_environment("CHAOS_SEED", 20_261_121);
    let sandbox = Sandbox::new(CONFIG);
    let mut daemon = Some(sandbox.daemon());
    let mut kills_at_work = 0;
    for _ in 0..KILLS {
        submit(&sandbox, JOBS_A_KILL);
        pause(Duration::from_millis(200 + random.below(1_300)));
        kills_at_work += usize::from(has_work(&sandbox));
        match random.below(5) {
            0 => restart(&mut daemon, &sandbox),
            1 => signal_a_worker(&sandbox, &mut random, &[Signal::TERM]),
            2 => signal_a_worker(&sandbox, &mut random, &[Signal::TERM, Signal::TERM]),
            _ => signal_a_worker(&sandbox, &mut random, &[Signal::KILL]),
        }
    }
    assert!(kills_at_work > KILLS / 2, "{kills_at_work} of {KILLS} came while there was work");
    wait_within(PATIENCE, "every job has its result", || {
        let jobs = sandbox.jobs();
        assert_eq!(jobs.len(), KILLS * JOBS_A_KILL);
        let failed = jobs.iter().find(|job| job["state"] == "failed");
        assert!(failed.is_none(), "a kill became a result: {failed:?}");
        jobs.iter().all(|job| job["state"] == "succeeded")
    });
    let tries = sandbox.jobs().iter().filter_map(|job| job["attempts"].as_u64()).max();
    assert!(tries > Some(1), "no kill met a job");
    // A worker that was killed between commit and ack leaves its message, and the next delivery finds the job done.
    wait_until("the queue is empty", || !has_work(&sandbox));
    sandbox.wait_for("gpu", "stopped");
    drop(daemon);
    wait_until("no worker of this place is left", || workers(&sandbox).is_empty());
}

fn submit(sandbox: &Sandbox, jobs: usize) {
    let recording = sample("beckett.wav");
    let inputs = vec![recording.to_str().unwrap(); jobs];
    sandbox.run(&[&["submit", "voice.transcribe"], &inputs[..]].concat()).expect(0);
}

fn has_work(sandbox: &Sandbox) -> bool {
    let queue = sandbox.run(&["queue", "--json"]).expect(0).json();
    ["visible", "in_flight", "delayed", "dead"]
        .iter()
        .any(|name| queue["queues"][0][name].as_u64() != Some(0))
}

fn signal_a_worker(sandbox: &Sandbox, random: &mut Random, signals: &[Signal]) {
    let workers = workers(sandbox);
    let index = random.below(workers.len().max(1) as u64);
    if let Some(worker) = usize::try_from(index).ok().and_then(|index| workers.get(index)) {
        for signal in signals {
            // It may end by itself this very moment.
            let _ = kill_process(*worker, *signal);
        }
    }
}

fn restart(daemon: &mut Option<Daemon>, sandbox: &Sandbox) {
    drop(daemon.take());
    *daemon = Some(sandbox.daemon());
}
