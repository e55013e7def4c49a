//! Jobs that the policy submits at certain times (`[[pool.NAME.submit]]`), by whichever controller reconciles.
//!
//! Exactly once for each time: a job's id is made of its name and time, so that a second controller, or one that was interrupted, submits
//! the same job, which has one result. What no controller was there for is submitted up to `LATE_MAX` late, and only the latest time of each:
//! after a weekend off there is no burst.

use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_core::policy::{Policy, Pool, QueuePolicy, ScheduledSubmit};
use gpuctl_core::units::Timestamp;
use sha2::{Digest, Sha256};

use crate::commands;
use crate::job::{InputUri, InputUriError, Job, JobId, Urgency};
use crate::params::{Param, params_of};
use crate::ports::{PortError, PortErrorClass, Ports};
use crate::submit::{SubmitError, check_priority, submit_with_commands};

/// How late a job is still submitted.
pub const LATE_MAX: TimeDelta = TimeDelta::hours(1);

/// How long it may take to submit one: a reconcile has its lease for other things, too.
const SUBMIT_TIME_MAX: Duration = Duration::from_secs(3);

/// What the policy submits, with the pool and the queue that it goes to.
pub fn all(policy: &Policy) -> impl Iterator<Item = (&Pool, &QueuePolicy, &ScheduledSubmit)> {
    let pools = policy.queue_pools();
    pools.flat_map(|(pool, queue)| pool.submits.iter().map(move |one| (pool, queue, one)))
}

/// Submits what is due and was not submitted yet. Returns what went wrong, which the next call tries again.
pub async fn submit_due(ports: &Ports, policy: &Policy, at: Timestamp) -> Vec<PortError> {
    let mut errors = Vec::new();
    for (_, queue, scheduled) in all(policy) {
        let due = scheduled.when.last_start(at).filter(|slot| at - *slot <= LATE_MAX);
        let Some(slot) = due else { continue };
        let submitted = submit_slot(ports, policy, queue, (scheduled, slot));
        match tokio::time::timeout(SUBMIT_TIME_MAX, submitted).await {
            Ok(submitted) => errors.extend(submitted.err()),
            Err(_) => {
                // The others would not be faster, and must not use up the lease: the next reconcile goes on.
                errors.push(too_slow(scheduled));
                break;
            }
        }
    }
    errors
}

fn too_slow(scheduled: &ScheduledSubmit) -> PortError {
    let what = format!("the scheduled job `{}` could not be submitted in time", scheduled.name);
    PortError::new(PortErrorClass::Unavailable, what)
}

async fn submit_slot(
    ports: &Ports,
    policy: &Policy,
    queue: &QueuePolicy,
    (scheduled, slot): (&ScheduledSubmit, Timestamp),
) -> Result<(), PortError> {
    let failed = |why: String| {
        let what = format!("the scheduled job `{}` is not submitted: {why}", scheduled.name);
        PortError::new(PortErrorClass::Other, what)
            .hint("`gpuctl schedule lint` checks what the policy submits")
    };
    let job = job(policy, queue, (scheduled, slot)).map_err(failed)?;
    if ports.ledger.job(&job.id).await?.is_some() {
        return Ok(());
    }
    match submit_with_commands(ports, policy, std::slice::from_ref(&job)).await {
        Ok(()) => {
            tracing::info!(job = %job.id, name = scheduled.name, %slot, "submitted as scheduled");
            Ok(())
        }
        Err(SubmitError::Port(error)) => Err(error),
        Err(SubmitError::Invalid(error)) => Err(failed(error.to_string())),
    }
}

/// The job of a time, or why there can be none.
///
/// # Errors
/// When no worker accepts it.
pub fn job(
    policy: &Policy,
    queue: &QueuePolicy,
    (scheduled, slot): (&ScheduledSubmit, Timestamp),
) -> Result<Job, String> {
    check_priority(policy, queue, scheduled.priority).map_err(|error| error.to_string())?;
    let given: Vec<Param> = scheduled
        .params
        .iter()
        .map(|(name, value)| Param { name: name.clone(), value: value.clone() })
        .collect();
    let params = params_of(&given, Path::new("/"));
    commands::check(policy, &scheduled.task, &params).map_err(|error| error.to_string())?;
    Ok(Job {
        id: id(&scheduled.name, slot),
        queue: queue.name.clone(),
        task: scheduled.task.clone(),
        model: scheduled.model.clone(),
        input: input(&scheduled.input).map_err(|error| error.to_string())?,
        params,
        submitted_at: slot,
        generation: 0,
        urgency: Urgency { priority: scheduled.priority, max_wait: None },
    })
}

fn input(text: &str) -> Result<InputUri, InputUriError> {
    if text.starts_with('/') { Ok(InputUri::of_path(Path::new(text))) } else { text.parse() }
}

/// The same for the same name and time.
fn id(name: &str, slot: Timestamp) -> JobId {
    let digest = Sha256::digest(format!("{name}\n{}", slot.timestamp_millis()));
    JobId::of_request(slot, &digest.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "[pool.gpu]\nqueue = \"jobs\"\n[[pool.gpu.submit]]\nname = \"nightly\"\nzone = \"Asia/Tokyo\"\n\
        begin = \"02:00\"\ntask = \"vision.ocr\"\ninput = \"/data/page.png\"\npriority = \"low\"\n";

    fn made(text: &str, at: &str) -> Result<Job, String> {
        let policy = Policy::parse(text).unwrap();
        let (_, queue, scheduled) = all(&policy).next().unwrap();
        let slot = scheduled.when.last_start(at.parse().unwrap()).unwrap();
        job(&policy, queue, (scheduled, slot))
    }

    #[test]
    fn a_time_has_one_job_however_often_it_is_looked_at() {
        let first = made(POLICY, "2026-11-30T17:00:00Z").unwrap();
        assert_eq!(first.submitted_at, "2026-11-30T17:00:00Z".parse::<Timestamp>().unwrap());
        assert_eq!(first.input.as_str(), "file:///data/page.png");
        assert_eq!(first, made(POLICY, "2026-12-01T16:59:59Z").unwrap());
        let next = made(POLICY, "2026-12-01T17:00:00Z").unwrap();
        assert!(first.id < next.id, "ids sort by time");
        let other = POLICY.replace("nightly", "other");
        assert_ne!(first.id, made(&other, "2026-11-30T17:00:00Z").unwrap().id);
    }

    #[test]
    fn what_no_worker_accepts_says_so() {
        let at = "2026-11-30T17:00:00Z";
        for (from, to, wanted) in [
            ("vision.ocr", "vision.nothing", "vision.nothing"),
            ("priority = \"low\"", "params = { nonsense = \"1\" }", "nonsense"),
            ("/data/page.png", "http://host/page.png", "not a `file:///"),
        ] {
            let error = made(&POLICY.replace(from, to), at).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
