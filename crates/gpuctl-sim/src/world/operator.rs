//! Those outside: who submits jobs, sets holds, and clicks in the console.

use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobId};
use gpuctl_control::ports::NewMessage;
use gpuctl_control::wire::job::job_to_json;
use gpuctl_core::observation::{Hold, HoldWants};
use gpuctl_core::units::Timestamp;

use super::ec2::Ec2StopMode;
use super::scenario::{JobKind, JobOutcome, OperatorAction};
use super::{Shared, World};
use crate::chance::Chance;
use crate::faults::Fault;

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
        send(&mut shared.advance_to_now(), now, (&name, kind));
        shared.queue_changed.notify_waiters();
    }
}

fn send(world: &mut World, now: Timestamp, (name, kind): (&str, JobKind)) {
    let id: JobId = name.parse().expect("thirty-two hexadecimal digits are a UUID");
    let queue = world.pool().queue().expect("the world's pool drains a queue").name.clone();
    let job = Job {
        params: serde_json::Map::new(),
        id: id.clone(),
        queue,
        task: "vision.ocr".to_owned(),
        model: None,
        input: "file:///page.png".parse::<InputUri>().expect("a plain path is a URI"),
        submitted_at: now,
    };
    let garbage = kind.outcome == JobOutcome::Garbage;
    let body = if garbage { "{}".to_owned() } else { job_to_json(&job) };
    let attributes = vec![("job_id".to_owned(), id.to_string())];
    world.queue.send(now, &[NewMessage { body, attributes, delay: TimeDelta::zero() }]);
    if garbage {
        world.faults.count(Fault::Garbage, 1);
    } else {
        world.ledger.submitted(std::slice::from_ref(&job));
    }
    world.jobs.insert(id.to_string(), kind);
    world.log_event(
        now,
        format!("job {id} is submitted: {:?}, {} s", kind.outcome, kind.service.num_seconds()),
    );
    world.mark_changed(now);
}

/// Does what people do this week.
pub(super) async fn run_operator(shared: Arc<Shared>) {
    let operator_actions = shared.advance_to_now().scenario.operator_actions.clone();
    for (at, action) in operator_actions {
        shared.sleep_until(at).await;
        act(&mut shared.advance_to_now(), shared.now(), action);
        shared.ec2_changed.notify_one();
    }
}

fn act(world: &mut World, now: Timestamp, action: OperatorAction) {
    let pool = world.pool().id.clone();
    let hold = |wants, lasts, over_budget| Hold {
        pool: pool.clone(),
        wants,
        since: now,
        until: now + lasts,
        by: "ada".to_owned(),
        why: None,
        over_budget,
    };
    match action {
        OperatorAction::Hold { wants, lasts, over_budget } => {
            world.ledger.set_hold(&hold(wants, lasts, over_budget));
            world.checks.hold_set(now);
            world.log_event(
                now,
                format!("ada sets a hold: {wants:?} for {} min", lasts.num_minutes()),
            );
        }
        OperatorAction::Release => {
            world.ledger.set_hold(&hold(HoldWants::Running, TimeDelta::zero(), None));
            world.log_event(now, "ada releases the hold");
        }
        OperatorAction::ConsoleStart(index) | OperatorAction::ConsoleStop(index) => {
            let Some(id) = world.initial_instance(index).map(str::to_owned) else { return };
            let start = matches!(action, OperatorAction::ConsoleStart(_));
            let ids = [id.clone()];
            let reply = if start {
                world.ec2.start_instances(now, &ids)
            } else {
                world.ec2.stop_instances(now, &ids, Ec2StopMode::Shutdown)
            };
            world.faults.count(Fault::ForeignHands, 1);
            if reply.is_ok() {
                world.checks.foreign(now, &id, start);
            }
            let verb = if start { "starts" } else { "stops" };
            world.log_event(now, format!("somebody {verb} {id} in the console: {}", reply.is_ok()));
        }
    }
    world.mark_changed(now);
}
