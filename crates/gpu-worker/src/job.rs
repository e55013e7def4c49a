//! One message, from receipt to ack.
//!
//! A bad input ends in an error result, never in a retry. What is not the input's fault (no room for the result, storage that
//! cannot be reached) is tried again later, and the queue's dead letters end that.

use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use gpu_inference::{Cancel, OutputFile, Params, Prepared, Task, TaskError, decode};
use gpuctl_control::job::{InputUri, Job, JobFailure, JobResult};
use gpuctl_control::ports::{Attempt, Committed, Fetched, PortError, PortErrorClass, Received};
use gpuctl_control::wire::answer::{FileDocument, with_files};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_core::units::Timestamp;
use serde_json::Value;

use crate::answer::{answer_of, file_of};
use crate::engine::{EngineError, Inferred};
use crate::failure;
use crate::worker::Worker;

/// The largest input: 4 hours of 48 kHz stereo sound are 2.8 GB.
const INPUT_BYTES_MAX: u64 = 4 << 30;

/// The longest wait before a message whose result could not be kept is given out again.
const RETRY_SECONDS_MAX: i64 = 300;

impl Worker {
    /// Takes a held message through to its end. The caller lets go of it afterwards.
    pub(crate) async fn work_on(&self, received: &Received, cancel: &Cancel) {
        let received_at = self.ports.clock.now();
        let job = match job_from_json(&received.body) {
            Ok(job) => job,
            Err(error) => {
                // Without a job there is nobody to answer: the dead-letter queue keeps it for a person, or a newer worker.
                tracing::error!(
                    error = failure::with_causes(&error),
                    "a message cannot be read and is given back"
                );
                self.give_back(received, TimeDelta::zero()).await;
                return;
            }
        };
        if received.receive_count > 1 && self.is_done(&job).await {
            self.ack(received, &job).await;
            return;
        }
        let (answer, ()) = tokio::join!(
            self.answer(&job, cancel),
            self.note_began(&job, received.receive_count, received_at)
        );
        match answer {
            Ok(inferred) if !cancel.is_cancelled() => {
                self.keep(received, received_at, job, inferred).await;
            }
            Err(JobError::Failed(failure)) if !cancel.is_cancelled() => {
                let outcome = Outcome::failed(failure);
                self.finish(received, self.result(job, outcome, received, received_at)).await;
            }
            Err(JobError::Later(error)) if !cancel.is_cancelled() => {
                let error = failure::with_causes(&error);
                tracing::error!(job = %job.id, error, "its input cannot be fetched now");
                self.later(received).await;
            }
            _ => {
                tracing::info!(job = %job.id, "cancelled: another worker has it, or this one is stopping");
            }
        }
    }

    /// Tells a ledger that cannot see the messages; what comes of the job does not hang on it.
    async fn note_began(&self, job: &Job, number: u32, at: Timestamp) {
        let attempt = Attempt {
            box_id: self.box_id.clone(),
            number,
            of: self.queue.receives_max.get(),
            at,
            until: at + self.policy.worker.job_max + self.queue.visibility,
        };
        if let Err(error) = self.ports.ledger.began(job, &attempt).await {
            tracing::warn!(job = %job.id, %error, "its begin could not be noted");
        }
    }

    async fn answer(&self, job: &Job, cancel: &Cancel) -> Result<Inferred, JobError> {
        let (task, mut params) = check_job(job).map_err(|error| failure::task(&error))?;
        let input = self.fetch(&job.input).await?;
        let mut attached = Vec::new();
        for (name, uri) in params.clone().uris() {
            let uri: InputUri = uri.parse().map_err(|error| failure::uri(&error))?;
            let file = self.fetch(&uri).await?;
            params.set_file(name, file.path().to_owned());
            attached.push(file);
        }
        let prepared = self.prepare(task, &input, params).await?;
        // Copies go before the model runs: what was decoded is all that it needs.
        drop((input, attached));
        let inferred = self.engine.infer(task, job.model.as_deref(), prepared, cancel.clone());
        inferred.await.map_err(|error| match error {
            EngineError::Failed(failure) => JobError::Failed(failure),
            EngineError::Cancelled => JobError::Cancelled,
        })
    }

    async fn fetch(&self, uri: &InputUri) -> Result<Fetched, JobError> {
        let fetched = self.ports.files.fetch(uri, INPUT_BYTES_MAX).await;
        fetched.map_err(|error| match error.class {
            PortErrorClass::Unavailable | PortErrorClass::Full => JobError::Later(error),
            _ => JobError::Failed(failure::fetch(&error)),
        })
    }

    async fn prepare(
        &self,
        task: Task,
        input: &Fetched,
        params: Params,
    ) -> Result<Prepared, JobFailure> {
        let permit = self.decoders.acquire().await;
        let (path, limits) = (input.path().to_owned(), self.engine.limits());
        let decoded = tokio::task::spawn_blocking(move || {
            decode(task, &path, &params, &limits).map_err(|error| failure::input(&error))
        })
        .await;
        drop(permit);
        decoded.unwrap_or_else(|_| {
            let message = "the decoder broke off on this input".to_owned();
            Err(JobFailure { code: "input.crash".to_owned(), message, hint: None })
        })
    }

    /// Keeps the files, then the result that names them: whoever reads the result finds the files.
    async fn keep(
        &self,
        received: &Received,
        received_at: Timestamp,
        job: Job,
        inferred: Inferred,
    ) {
        // A model that draws its noise itself answers with other samples each time: files of a result stay as it lists them.
        if !inferred.output.files.is_empty() && self.is_done(&job).await {
            self.ack(received, &job).await;
            return;
        }
        let kept = self.keep_files(&job, &inferred.output.files).await;
        let outcome = match kept {
            Ok(files) => Outcome::of(&inferred, &files),
            Err(error) if error.class == PortErrorClass::Full => {
                Outcome::failed(failure::commit(&error))
            }
            Err(error) => {
                let error = failure::with_causes(&error);
                tracing::error!(job = %job.id, error, "a file of its result could not be kept");
                self.later(received).await;
                return;
            }
        };
        self.finish(received, self.result(job, outcome, received, received_at)).await;
    }

    async fn keep_files(
        &self,
        job: &Job,
        files: &[OutputFile],
    ) -> Result<Vec<FileDocument>, PortError> {
        let mut kept = Vec::with_capacity(files.len());
        for file in files {
            let uri = self.ports.files.keep(&job.id, &file.name, &file.bytes).await?;
            kept.push(file_of(file, Some(uri)));
        }
        Ok(kept)
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
            outcome: outcome.answer,
            model: outcome.model,
            device: outcome.device,
            inference: outcome.took,
            box_id: self.box_id.clone(),
            attempt: received.receive_count,
            received_at,
            finished_at: self.ports.clock.now(),
        }
    }

    /// Commit, then ack: a message is deleted only after its result is durable.
    async fn finish(&self, received: &Received, result: JobResult) {
        match self.commit(&result).await {
            Ok(Committed::Written) => {
                self.jobs_done.fetch_add(1, Ordering::Relaxed);
                let code = result.outcome.as_ref().err().map(|failure| failure.code.as_str());
                tracing::info!(job = %result.job.id, task = result.job.task, failed = code, "done");
                self.ack(received, &result.job).await;
            }
            Ok(Committed::AlreadyThere) => {
                tracing::info!(job = %result.job.id, "had a result already, from another delivery");
                self.ack(received, &result.job).await;
            }
            Err(error) => {
                tracing::error!(job = %result.job.id, error = failure::with_causes(&error), "its result could not be kept");
                self.later(received).await;
            }
        }
    }

    /// Gives the message back for another try, later each time.
    async fn later(&self, received: &Received) {
        let seconds = 1_i64 << received.receive_count.min(16);
        self.give_back(received, TimeDelta::seconds(seconds.min(RETRY_SECONDS_MAX))).await;
    }

    /// Where there is no room for the answer there may be room to say so.
    async fn commit(&self, result: &JobResult) -> Result<Committed, PortError> {
        match self.ports.ledger.commit(result).await {
            Err(error) if error.class == PortErrorClass::Full && result.outcome.is_ok() => {
                let failed = JobResult { outcome: Err(failure::commit(&error)), ..result.clone() };
                self.ports.ledger.commit(&failed).await
            }
            answer => answer,
        }
    }

    async fn is_done(&self, job: &Job) -> bool {
        let entry = self.ports.ledger.job(&job.id).await;
        matches!(entry, Ok(Some(entry)) if entry.result.is_some())
    }

    async fn ack(&self, received: &Received, job: &Job) {
        // The beat must not extend a message that is being deleted (facts/serving.md 4.6).
        self.leases.let_go(&received.receipt, self.ports.clock.now());
        if let Err(error) = self.ports.queue.ack(&received.receipt).await {
            tracing::warn!(job = %job.id, %error, "not acked: it will be delivered again, and found done");
        }
    }

    pub(crate) async fn give_back(&self, received: &Received, after: TimeDelta) {
        self.leases.let_go(&received.receipt, self.ports.clock.now());
        if let Err(error) = self.ports.queue.change_visibility(&received.receipt, after).await {
            tracing::warn!(%error, "not given back: it comes back when its lease runs out");
        }
    }
}

fn check_job(job: &Job) -> Result<(Task, Params), TaskError> {
    let task: Task = job.task.parse()?;
    Ok((task, Params::read(task, &job.params)?))
}

/// Why a job has no answer.
enum JobError {
    /// It never will have one.
    Failed(JobFailure),
    /// Another try may have one.
    Later(PortError),
    /// Somebody else has it.
    Cancelled,
}

impl From<JobFailure> for JobError {
    fn from(failure: JobFailure) -> Self {
        Self::Failed(failure)
    }
}

/// What a result says, and who says it.
struct Outcome {
    answer: Result<Value, JobFailure>,
    model: Option<String>,
    device: Option<String>,
    took: TimeDelta,
}

impl Outcome {
    fn of(inferred: &Inferred, files: &[FileDocument]) -> Self {
        Self {
            answer: Ok(with_files(answer_of(&inferred.output.result), files)),
            model: Some(inferred.model.clone()),
            device: Some(inferred.device.to_string()),
            took: TimeDelta::from_std(inferred.took).unwrap_or_default(),
        }
    }

    fn failed(failure: JobFailure) -> Self {
        Self { answer: Err(failure), model: None, device: None, took: TimeDelta::zero() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_not_checked_when_submitted_is_rejected_here() {
        let submitted_at = "2026-11-21T00:00:00Z".parse().unwrap();
        let job = |task: &str, params: serde_json::Value| Job {
            id: gpuctl_control::job::JobId::new(submitted_at),
            queue: "jobs".parse().unwrap(),
            task: task.to_owned(),
            model: None,
            input: "data:,x".parse().unwrap(),
            params: params.as_object().unwrap().clone(),
            submitted_at,
        };
        let code = |task, params| check_job(&job(task, params)).unwrap_err().code();
        assert_eq!(code("vision.orc", serde_json::json!({})), "task.unknown");
        assert_eq!(code("vision.ocr", serde_json::json!({"speed": 2})), "input.param_unknown");
        assert!(check_job(&job("vision.ocr", serde_json::json!({}))).is_ok());
    }
}
