//! Submitting jobs: checked, sent to their queues, and noted in the ledger.

use chrono::TimeDelta;
use gpu_tasks::TaskError;

use crate::job::Job;
use crate::ports::{NewMessage, PortError, Ports, SEND_BATCH_MAX};
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
