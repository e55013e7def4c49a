//! One message, from receipt to ack.
//!
//! A bad input ends in an error result, never in a retry. What is not the input's fault (no room for the result) is tried
//! again later, and the queue's dead letters end that.

use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use gpu_inference::{Cancel, Prepared, Task, decode};
use gpuctl_control::input::admit;
use gpuctl_control::job::{Job, JobFailure, JobResult};
use gpuctl_control::ports::{Attempt, Committed, PortError, PortErrorClass, Received};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_core::units::Timestamp;

use crate::engine::{EngineError, Inferred};
use crate::failure;
use crate::worker::{Worker, answer_of};

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
        let outcome = match answer {
            Ok(inferred) => Ok(inferred),
            Err(EngineError::Failed(failure)) => Err(failure),
            Err(EngineError::Cancelled) => {
                tracing::info!(job = %job.id, "cancelled: another worker has it, or this one is stopping");
                return;
            }
        };
        if !cancel.is_cancelled() {
            self.finish(received, self.result(job, outcome, received, received_at)).await;
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

    async fn answer(&self, job: &Job, cancel: &Cancel) -> Result<Inferred, EngineError> {
        let task: Task =
            job.task.parse().map_err(|error| EngineError::Failed(failure::task(&error)))?;
        let prepared = self.prepare(task, job).await.map_err(EngineError::Failed)?;
        self.engine.infer(task, job.model.as_deref(), prepared, cancel.clone()).await
    }

    async fn prepare(&self, task: Task, job: &Job) -> Result<Prepared, JobFailure> {
        let permit = self.decoders.acquire().await;
        let (path, roots, limits) =
            (job.input.path(), self.input_roots.clone(), self.engine.limits());
        let decoded = tokio::task::spawn_blocking(move || {
            let path = admit(&path, &roots).map_err(|error| failure::refusal(&error))?;
            decode(task, &path, &limits).map_err(|error| failure::input(&error))
        })
        .await;
        drop(permit);
        decoded.unwrap_or_else(|_| {
            let message = "the decoder broke off on this input".to_owned();
            Err(JobFailure { code: "input.crash".to_owned(), message, hint: None })
        })
    }

    fn result(
        &self,
        job: Job,
        outcome: Result<Inferred, JobFailure>,
        received: &Received,
        received_at: Timestamp,
    ) -> JobResult {
        let inferred = outcome.as_ref().ok();
        JobResult {
            model: inferred.map(|inferred| inferred.model.clone()),
            device: inferred.map(|inferred| inferred.device.to_string()),
            inference: inferred
                .and_then(|inferred| TimeDelta::from_std(inferred.took).ok())
                .unwrap_or_default(),
            outcome: outcome.map(|inferred| answer_of(&inferred.output)),
            box_id: self.box_id.clone(),
            attempt: received.receive_count,
            received_at,
            finished_at: self.ports.clock.now(),
            job,
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
                let seconds = 1_i64 << received.receive_count.min(16);
                self.give_back(received, TimeDelta::seconds(seconds.min(RETRY_SECONDS_MAX))).await;
            }
        }
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
