//! What happens outside gpuctl: jobs are submitted, operators set holds and start or stop instances in the console.

use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobId, JobResult, JobState, Urgency};
use gpuctl_control::ports::{Committed, JobFilter, NewMessage};
use gpuctl_control::wire::job::job_to_json;
use gpuctl_core::observation::{Hold, HoldWants};
use gpuctl_core::units::Timestamp;

use super::ec2::{Ec2Error, Ec2StopMode};
use super::scenario::{JobKind, JobOutcome, OperatorAction};
use super::{Shared, World};
use crate::chance::Chance;
use crate::faults::Fault;

/// How often a user retries or cancels jobs in one window.
const TIMES: usize = 3;
/// How many jobs at once.
const AT_ONCE: usize = 5;

/// Submits the week's jobs.
pub(super) async fn submit(shared: Arc<Shared>) {
    let (seed, jobs) = {
        let world = shared.advance_to_now();
        (world.scenario.seed, world.scenario.jobs.clone())
    };
    let mut names = Chance::stream(seed, "job names");
    for kind in jobs {
        shared.sleep_until(kind.at).await;
        let now = shared.now();
        let name = format!("{:016x}{:016x}", names.bits(), names.bits());
        send(&mut shared.advance_to_now(), now, &name, kind);
        shared.queue_changed.notify_waiters();
    }
}

fn send(world: &mut World, now: Timestamp, name: &str, kind: JobKind) {
    let id: JobId = name.parse().expect("thirty-two hexadecimal digits are a UUID");
    let queue = world.pool().queue().expect("the world's pool drains a queue").name.clone();
    let job = Job {
        params: serde_json::Map::new(),
        id: id.clone(),
        queue,
        task: "vision.ocr".to_owned(),
        model: None,
        input: "s3://jobs/page.png".parse::<InputUri>().expect("bucket and key are a URI"),
        submitted_at: now,
        generation: 0,
        urgency: Urgency::default(),
    };
    world.jobs.insert(id.to_string(), kind);
    let what = format!("is submitted: {:?}, {} s", kind.outcome, kind.service.num_seconds());
    world.log_event(now, format!("job {id} {what}"));
    if kind.outcome == JobOutcome::Garbage {
        world.faults.count(Fault::Garbage, 1);
        world.send(now, &id, 0, "{}".to_owned());
    } else {
        world.ledger.submitted(std::slice::from_ref(&job));
        world.send(now, &id, 0, job_to_json(&job));
    }
}

impl World {
    fn send(&mut self, now: Timestamp, id: &JobId, generation: u32, body: String) {
        let mut attributes = vec![("job_id".to_owned(), id.to_string())];
        if generation > 0 {
            attributes.push(("generation".to_owned(), generation.to_string()));
        }
        self.queue.send(now, &[NewMessage { body, attributes, delay: TimeDelta::zero() }]);
        self.mark_changed(now);
    }
}

/// Retries jobs without a good result now and then, as `gpuctl retry` does.
pub(super) async fn retry(shared: Arc<Shared>) {
    for at in times(&shared, Fault::Retries, "retries of users") {
        shared.sleep_until(at).await;
        retry_jobs(&mut shared.advance_to_now(), at);
        shared.queue_changed.notify_waiters();
    }
}

/// Cancels jobs that wait or run now and then, as `gpuctl cancel` does.
pub(super) async fn cancel(shared: Arc<Shared>) {
    for at in times(&shared, Fault::Cancels, "cancellations of users") {
        shared.sleep_until(at).await;
        cancel_jobs(&mut shared.advance_to_now(), at);
    }
}

/// When a user acts: a few times in each window of the fault.
fn times(shared: &Shared, fault: Fault, stream: &str) -> Vec<Timestamp> {
    let (seed, windows) = {
        let world = shared.advance_to_now();
        (world.scenario.seed, world.faults.windows(fault).to_vec())
    };
    let mut chance = Chance::stream(seed, stream);
    let mut times: Vec<Timestamp> = Vec::new();
    for window in windows {
        let minutes = (window.to - window.from).num_minutes();
        let one = |_| window.from + TimeDelta::minutes(chance.between(0, minutes));
        times.extend((0..TIMES).map(one));
    }
    times.sort_unstable();
    times
}

fn retry_jobs(world: &mut World, now: Timestamp) {
    let filter = JobFilter { state: None, limit: u32::MAX, since: None };
    let state = |job: &str, generation| world.message_state(now, job, generation);
    let mut jobs = world.ledger.jobs(filter, state);
    jobs.retain(|entry| {
        matches!(entry.state, JobState::Failed | JobState::Dead | JobState::Expired)
    });
    for entry in jobs.into_iter().take(AT_ONCE) {
        let job = Job { generation: entry.job.generation + 1, submitted_at: now, ..entry.job };
        world.faults.count(Fault::Retries, 1);
        world.generations.insert(job.id.to_string(), job.generation);
        world.log_event(now, format!("job {} is retried: generation {}", job.id, job.generation));
        world.ledger.submitted(std::slice::from_ref(&job));
        world.send(now, &job.id, job.generation, job_to_json(&job));
    }
}

fn cancel_jobs(world: &mut World, now: Timestamp) {
    let filter = JobFilter { state: None, limit: u32::MAX, since: None };
    let state = |job: &str, generation| world.message_state(now, job, generation);
    let mut jobs = world.ledger.jobs(filter, state);
    jobs.retain(|entry| !entry.state.is_final());
    for entry in jobs.into_iter().take(AT_ONCE) {
        world.faults.count(Fault::Cancels, 1);
        world.cancel(now, &JobResult::cancelled(entry.job, "ada", now));
    }
}

impl World {
    /// Keeps a cancellation, where the job has no result.
    pub(super) fn cancel(&mut self, now: Timestamp, cancelled: &JobResult) -> Committed {
        let done = self.ledger.commit(cancelled);
        if done == Committed::Written {
            self.checks.job_is_cancelled(&cancelled.job);
        }
        self.log_event(now, format!("job {} is cancelled: {done:?}", cancelled.job.id));
        self.check_commit(now, cancelled, done);
        done
    }
}

/// Carries out the week's operator actions.
pub(super) async fn run_operator(shared: Arc<Shared>) {
    let operator_actions = shared.advance_to_now().scenario.operator_actions.clone();
    for (at, action) in operator_actions {
        shared.sleep_until(at).await;
        act(&mut shared.advance_to_now(), shared.now(), action);
        shared.ec2_changed.notify_one();
    }
}

fn act(world: &mut World, now: Timestamp, action: OperatorAction) {
    match action {
        OperatorAction::Hold { wants, lasts, over_budget } => {
            let hold = hold(world, now, wants, lasts);
            world.ledger.set_hold(&Hold { over_budget, ..hold });
            world.checks.hold_set(now);
            let text = format!("ada sets a hold: {wants:?} for {} min", lasts.num_minutes());
            world.log_event(now, text);
        }
        OperatorAction::Release => {
            let ended = hold(world, now, HoldWants::Running, TimeDelta::zero());
            world.ledger.set_hold(&ended);
            world.log_event(now, "ada releases the hold");
        }
        OperatorAction::ConsoleStart(index) => console_start(world, now, index),
        OperatorAction::ConsoleStop(index) => console_stop(world, now, index),
    }
    world.mark_changed(now);
}

fn hold(world: &World, now: Timestamp, wants: HoldWants, lasts: TimeDelta) -> Hold {
    Hold {
        pool: world.pool().id.clone(),
        wants,
        since: now,
        until: now + lasts,
        by: "ada".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    }
}

fn console_start(world: &mut World, now: Timestamp, index: usize) {
    let Some(id) = world.initial_instance(index).map(str::to_owned) else { return };
    world.faults.count(Fault::ForeignHands, 1);
    let result = world.ec2.start_instances(now, std::slice::from_ref(&id));
    if result.is_ok() {
        world.checks.console_start(now);
    }
    world.log_event(now, format!("{id} is started in the console: {}", outcome(result)));
}

fn console_stop(world: &mut World, now: Timestamp, index: usize) {
    let Some(id) = world.initial_instance(index).map(str::to_owned) else { return };
    world.faults.count(Fault::ForeignHands, 1);
    let ids = std::slice::from_ref(&id);
    let result = world.ec2.stop_instances(now, ids, Ec2StopMode::Shutdown);
    if result.is_ok() {
        world.checks.console_stop(now, &id);
    }
    world.log_event(now, format!("{id} is stopped in the console: {}", outcome(result)));
}

fn outcome<T>(result: Result<T, Ec2Error>) -> &'static str {
    result.map_or_else(|error| error.code, |_| "accepted")
}
