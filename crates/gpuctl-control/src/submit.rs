//! Submitting jobs: checked, sent to their queues, and noted in the ledger; and sending them again as their next generation.

use chrono::TimeDelta;
use gpu_tasks::TaskError;
use gpuctl_core::units::Timestamp;

use crate::job::{Job, JobFailure};
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
    for batch in jobs.chunks(SEND_BATCH_MAX) {
        for of_queue in batch.chunk_by(|a, b| a.queue == b.queue) {
            let messages: Vec<NewMessage> = of_queue.iter().map(message).collect();
            ports.queue.send(&of_queue[0].queue, &messages).await?;
        }
        ports.ledger.submitted(batch).await?;
    }
    Ok(())
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
    NewMessage {
        body: job_to_json(job),
        attributes: vec![
            ("job_id".to_owned(), job.id.to_string()),
            ("task".to_owned(), job.task.clone()),
        ],
        delay: TimeDelta::zero(),
    }
}
