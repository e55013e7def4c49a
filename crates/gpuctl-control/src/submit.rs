//! Submitting jobs: checked, sent to their queues, and noted in the ledger; and sending them again as their next generation.

use chrono::TimeDelta;
use gpu_tasks::TaskError;
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::priority::Priority;
use gpuctl_core::units::Timestamp;

use crate::commands;
use crate::job::{Job, JobFailure};
use crate::lanes::{PRIORITY_ATTRIBUTE, unserved};
use crate::ports::{JobEntry, JobProblem, NewMessage, PortError, Ports, SEND_BATCH_MAX};
use crate::text::with_causes;
use crate::wire::job::job_to_json;

/// Sends jobs to their queue and notes them in the ledger.
///
/// All jobs are checked first: one whose task or params no worker accepts means that none is sent. Queue first, then
/// the ledger: a job that is queued but not noted still runs, and its result notes it; the other way round it would be lost.
///
/// # Errors
/// A job is invalid, or the queue or the ledger fails; jobs of earlier batches are queued then.
pub async fn submit(ports: &Ports, jobs: &[Job]) -> Result<(), SubmitError> {
    for job in jobs {
        gpu_tasks::check(&job.task, &job.params)?;
    }
    send(ports, jobs).await
}

/// The same for jobs that may run a command of the policy, too.
///
/// # Errors
/// As `submit`.
pub async fn submit_with_commands(
    ports: &Ports,
    policy: &Policy,
    jobs: &[Job],
) -> Result<(), SubmitError> {
    for job in jobs {
        commands::check(policy, &job.task, &job.params)?;
    }
    send(ports, jobs).await
}

async fn send(ports: &Ports, jobs: &[Job]) -> Result<(), SubmitError> {
    for batch in jobs.chunks(SEND_BATCH_MAX) {
        for of_queue in batch.chunk_by(|a, b| a.queue == b.queue) {
            let messages: Vec<NewMessage> = of_queue.iter().map(message).collect();
            ports.queue.send(&of_queue[0].queue, &messages).await?;
        }
        ports.ledger.submitted(batch).await?;
    }
    Ok(())
}

/// Refuses a priority for which the pool's queue has no room: on AWS each but the normal one has a queue of its own.
///
/// # Errors
/// When no worker would receive such a job.
pub fn check_priority(
    policy: &Policy,
    queue: &QueuePolicy,
    priority: Priority,
) -> Result<(), PortError> {
    let has_lane = queue.lanes().any(|(lane, _)| lane == priority);
    if policy.cloud.aws.is_none() || has_lane {
        return Ok(());
    }
    Err(unserved(&queue.name, priority))
}

/// The next generation of jobs that are over.
#[must_use]
pub fn next_generation(entries: &[JobEntry]) -> Vec<Job> {
    let next = |entry: &JobEntry| Job {
        generation: entry.job.generation.saturating_add(1),
        ..entry.job.clone()
    };
    entries.iter().map(next).collect()
}

/// Sends the next generation of known jobs. Ledger first, then the queue: a worker that has the message must not find the result of
/// the generation before and take the job for done.
///
/// # Errors
/// When the ledger or the queue fails. Jobs that were noted and not sent are dead then, so that they can be sent again.
pub async fn resubmit(ports: &Ports, jobs: &[Job]) -> Result<(), PortError> {
    for batch in jobs.chunks(SEND_BATCH_MAX) {
        for of_queue in batch.chunk_by(|a, b| a.queue == b.queue) {
            ports.ledger.submitted(of_queue).await?;
            let messages: Vec<NewMessage> = of_queue.iter().map(message).collect();
            if let Err(error) = ports.queue.send(&of_queue[0].queue, &messages).await {
                for job in of_queue {
                    ports.ledger.note_problem(&not_sent(job, ports.clock.now(), &error)).await?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

fn not_sent(job: &Job, at: Timestamp, error: &PortError) -> JobProblem {
    let failure = JobFailure {
        code: "queue.not_sent".to_owned(),
        message: format!("generation {} was not sent: {}", job.generation, with_causes(error)),
        hint: Some(format!("`gpuctl retry {}` sends it again", job.id)),
    };
    let box_id = "gpuctl".parse().expect("it is a name");
    JobProblem { job: job.clone(), failure, box_id, at, dead: true }
}

/// Why jobs were not submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No worker accepts a job's task or params. Nothing was sent.
    #[error(transparent)]
    Invalid(#[from] TaskError),
    /// The queue or the ledger failed. Jobs of earlier batches are queued.
    #[error(transparent)]
    Port(#[from] PortError),
}

fn message(job: &Job) -> NewMessage {
    let mut attributes =
        vec![("job_id".to_owned(), job.id.to_string()), ("task".to_owned(), job.task.clone())];
    if job.urgency.priority != Priority::Normal {
        attributes.push((PRIORITY_ATTRIBUTE.to_owned(), job.urgency.priority.to_string()));
    }
    NewMessage { body: job_to_json(job), attributes, delay: TimeDelta::zero() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_that_nobody_serves_is_refused_with_a_hint() {
        let pool = "[pool.gpu]\nqueue = \"jobs\"\n";
        let aws =
            format!("[cloud]\nkind = \"aws\"\ntable = \"t\"\n{pool}select = {{ a = \"b\" }}\n");
        let with_high = format!("{aws}queue_high = \"urgent\"\n");
        for (text, priority, is_served) in [
            (pool, Priority::Low, true),
            (&aws, Priority::Normal, true),
            (&aws, Priority::High, false),
            (&with_high, Priority::High, true),
            (&with_high, Priority::Low, false),
        ] {
            let policy = Policy::parse(text).unwrap();
            let (_, queue) = policy.queue_pools().next().unwrap();
            let checked = check_priority(&policy, queue, priority);
            assert_eq!(checked.is_ok(), is_served, "{priority} in {text}");
            if let Err(error) = checked {
                let wanted = format!("takes no jobs of priority {priority}");
                assert!(error.what.contains("`jobs`") && error.what.ends_with(&wanted), "{error}");
                let named = format!("`queue_{priority} = ");
                assert!(error.hint.is_some_and(|hint| hint.contains(&named)));
            }
        }
    }
}
