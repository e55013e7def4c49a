//! One message, from receipt to ack.
//!
//! A bad input ends in an error result, never in a retry. What is not the input's fault (storage that cannot be reached) is
//! retried later, until the queue moves the message to its dead letters. When to receive, and how many, is `worker`'s business.

use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobFailure, JobResult};
use gpuctl_control::log::shown;
use gpuctl_control::ports::{
    Attempt, AttemptName, Committed, Fetched, PortError, PortErrorClass, Received, ResultFile,
};
use gpuctl_control::text::with_causes;
use gpuctl_control::wire::job::job_from_json;
use gpuctl_control::worker_timing::retry_delay;
use gpuctl_core::units::Timestamp;
use serde_json::Value;

use crate::result::{FileDocument, file_document, with_files};
use crate::{Cancel, Fault, Inferred, Inputs, OutputFile, Worker, failure};

impl Worker {
    /// Runs a held message's job and acks it, or releases it to the queue. The caller forgets its lease afterwards.
    pub(crate) async fn process(&self, received: &Received, cancel: &Cancel) {
        let received_at = self.ports.clock.now();
        let job = match job_from_json(&received.body) {
            Ok(job) => job,
            Err(error) => {
                // Without a job there is no result to write: the dead-letter queue keeps the message for an operator.
                tracing::error!(
                    error = %shown(with_causes(&error)),
                    "a message cannot be read and is released to the queue"
                );
                self.release(received, TimeDelta::zero()).await;
                return;
            }
        };
        if received.receive_count > 1 && self.has_result(&job).await {
            self.ack(received, &job).await;
            return;
        }
        let (inferred, ()) = tokio::join!(
            self.run(&job, cancel),
            self.note_attempt(&job, received.receive_count, received_at)
        );
        match inferred {
            Ok(inferred) if !cancel.is_cancelled() => {
                self.commit_with_files(received, received_at, job, inferred).await;
            }
            Err(JobError::Failed(failure)) if !cancel.is_cancelled() => {
                let outcome = Outcome::failed(failure);
                self.commit_and_ack(received, self.result(job, outcome, received, received_at))
                    .await;
            }
            Err(JobError::Retry(error)) if !cancel.is_cancelled() => {
                let error = shown(with_causes(&error));
                tracing::error!(job = %job.id, %error, "the job's input cannot be fetched now");
                self.retry_later(received).await;
            }
            _ => {
                tracing::info!(job = %job.id, "cancelled: its lease was lost, it took longer than job_max, or this worker is draining");
            }
        }
    }

    /// Notes the attempt for ledgers that cannot see the queue's messages. The job runs also if that fails.
    async fn note_attempt(&self, job: &Job, number: u32, at: Timestamp) {
        let attempt = Attempt {
            box_id: self.box_id().clone(),
            number,
            of: self.queue.receives_max.get(),
            at,
            until: at + self.policy.worker.job_max + self.queue.visibility,
        };
        if let Err(error) = self.ports.ledger.began(job, &attempt).await {
            tracing::warn!(job = %job.id, %error, "the attempt could not be noted");
        }
    }

    /// Fetches, decodes and infers.
    async fn run(&self, job: &Job, cancel: &Cancel) -> Result<Inferred, JobError> {
        let needs = self.inference.check(job)?;
        let input = self.fetch(&job.input, needs.bytes_max).await?;
        let mut files = Vec::with_capacity(needs.files.len());
        for (name, uri) in needs.files {
            files.push((name, self.fetch(&uri, needs.bytes_max).await?));
        }
        let decoded = self.inference.decode(job, Inputs { input, files }, cancel).await?;
        Ok(self.inference.infer(job, decoded, cancel).await?)
    }

    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, JobError> {
        let fetched = self.ports.files.fetch(uri, bytes_max).await;
        fetched.map_err(|error| match error.class {
            PortErrorClass::Unavailable | PortErrorClass::Full => JobError::Retry(error),
            _ => JobError::Failed(failure::fetch(&error)),
        })
    }

    /// Stores the files, then the result that names them: who reads the result finds the files.
    async fn commit_with_files(
        &self,
        received: &Received,
        received_at: Timestamp,
        job: Job,
        inferred: Inferred,
    ) {
        // A model that draws its own noise makes other samples each time: the files of an existing result must not be replaced.
        if !inferred.files.is_empty() && self.has_result(&job).await {
            self.ack(received, &job).await;
            return;
        }
        let stored = self.store_files(&job, received_at, &inferred.files).await;
        let outcome = match stored {
            Ok(files) => Outcome::of(inferred, &files),
            Err(error) if error.class == PortErrorClass::Full => {
                Outcome::failed(failure::commit(&error))
            }
            Err(error) => {
                let error = shown(with_causes(&error));
                tracing::error!(job = %job.id, %error, "a file of the result could not be stored");
                self.retry_later(received).await;
                return;
            }
        };
        self.commit_and_ack(received, self.result(job, outcome, received, received_at)).await;
    }

    async fn store_files(
        &self,
        job: &Job,
        received_at: Timestamp,
        files: &[OutputFile],
    ) -> Result<Vec<FileDocument>, PortError> {
        let attempt = AttemptName::new(job.generation, self.box_id(), received_at);
        let mut stored = Vec::with_capacity(files.len());
        for file in files {
            let uri = {
                let (job, attempt) = (&job.id, &attempt);
                let (name, bytes) = (file.name.as_str(), file.bytes.as_slice());
                self.ports.files.keep(&ResultFile { job, attempt, name, bytes }).await?
            };
            stored.push(file_document(file, Some(uri)));
        }
        Ok(stored)
    }

    fn result(
        &self,
        job: Job,
        outcome: Outcome,
        received: &Received,
        received_at: Timestamp,
    ) -> JobResult {
        JobResult {
            job,
            outcome: outcome.output,
            model: outcome.model,
            device: outcome.device,
            inference: outcome.took,
            box_id: self.box_id().clone(),
            attempt: received.receive_count,
            received_at,
            finished_at: self.ports.clock.now(),
        }
    }

    /// Commit, then ack: a message is deleted only after its result is durable.
    async fn commit_and_ack(&self, received: &Received, result: JobResult) {
        match self.commit(&result).await {
            Ok(Committed::Written) => {
                self.jobs_done.fetch_add(1, Ordering::Relaxed);
                let code = result.outcome.as_ref().err().map(|failure| failure.code.as_str());
                tracing::info!(job = %result.job.id, task = %shown(&result.job.task), failed = code, "done");
                self.ack(received, &result.job).await;
            }
            Ok(Committed::AlreadyThere) => {
                tracing::info!(job = %result.job.id, "another delivery has committed a result already");
                self.ack(received, &result.job).await;
            }
            Err(error) => {
                tracing::error!(job = %result.job.id, error = %shown(with_causes(&error)), "the result could not be stored");
                self.retry_later(received).await;
            }
        }
    }

    /// Releases the message for another attempt, later each time.
    async fn retry_later(&self, received: &Received) {
        self.release(received, retry_delay(received.receive_count)).await;
    }

    /// Commits the result; where it is too large for the ledger, a failure that says so in its place.
    async fn commit(&self, result: &JobResult) -> Result<Committed, PortError> {
        match self.ports.ledger.commit_one(result).await {
            Err(error) if error.class == PortErrorClass::Full && result.outcome.is_ok() => {
                let failed = JobResult { outcome: Err(failure::commit(&error)), ..result.clone() };
                self.ports.ledger.commit_one(&failed).await
            }
            committed => committed,
        }
    }

    async fn has_result(&self, job: &Job) -> bool {
        let entry = self.ports.ledger.job(&job.id).await;
        matches!(entry, Ok(Some(entry)) if entry.result.is_some())
    }

    async fn ack(&self, received: &Received, job: &Job) {
        // First, since a heartbeat that meets a message which is being deleted reports a lost lease (bbc/sqs-consumer#303).
        self.leases.forget(&received.receipt, self.ports.clock.now());
        if let Err(error) = self.ports.queue.ack_one(&received.receipt).await {
            tracing::warn!(job = %job.id, %error, "not acked: it will be delivered again, and found done");
        }
    }

    /// Ends the lease, so that the message is delivered again after that time.
    async fn release(&self, received: &Received, after: TimeDelta) {
        self.leases.forget(&received.receipt, self.ports.clock.now());
        if let Err(error) = self.ports.queue.change_one(&received.receipt, after).await {
            tracing::warn!(%error, "a message could not be released: it is delivered again when its lease runs out");
        }
    }
}

/// Why a job has no output.
enum JobError {
    /// It failed, and would fail again.
    Failed(JobFailure),
    /// Another attempt may succeed.
    Retry(PortError),
    /// Its lease was lost, or the worker drains.
    Cancelled,
}

impl From<Fault> for JobError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Input(failure) => Self::Failed(failure),
            Fault::Cancelled => Self::Cancelled,
            Fault::Box(fault) => {
                let (code, message, hint) = (fault.code, fault.message, fault.hint);
                Self::Failed(JobFailure { code, message, hint })
            }
        }
    }
}

impl From<JobFailure> for JobError {
    fn from(failure: JobFailure) -> Self {
        Self::Failed(failure)
    }
}

/// The part of a result that the model decides.
struct Outcome {
    output: Result<Value, JobFailure>,
    model: Option<String>,
    device: Option<String>,
    took: TimeDelta,
}

impl Outcome {
    fn of(inferred: Inferred, files: &[FileDocument]) -> Self {
        Self {
            output: Ok(with_files(inferred.output, files)),
            model: Some(inferred.model),
            device: Some(inferred.device),
            took: inferred.took,
        }
    }

    fn failed(failure: JobFailure) -> Self {
        Self { output: Err(failure), model: None, device: None, took: TimeDelta::zero() }
    }
}
