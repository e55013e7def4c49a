//! One message, from receipt to ack.
//!
//! What is the input's fault ends in an error result. What is the box's or a service's fault is waited out with the message held; a job
//! that cannot be done although others can goes back to the queue. When to receive, and how many, is `receive`'s business.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure, JobResult};
use gpuctl_control::log::shown;
use gpuctl_control::ports::{Attempt, Began, JobProblem, PortErrorClass, Received};
use gpuctl_control::text::with_causes;
use gpuctl_control::wire::job::{JobReadError, job_received};
use gpuctl_control::worker_timing::retry_delay;
use gpuctl_core::units::Timestamp;
use gpuctl_core::without::Fix;

use crate::commit::Commitment;
use crate::faults::Part;
use crate::held::Finished;
use crate::leases::{Lease, within};
use crate::pace::Backoff;
use crate::run::{Stop, Trial, Trials};
use crate::suspects::CRASHED;
use crate::unreadable::{UNREADABLE, job_of};
use crate::{BoxFault, Inferred, Worker};

/// A message that this worker holds. Dropped, also by a panic, its lease is forgotten.
pub(crate) struct Message {
    pub(crate) received: Received,
    pub(crate) received_at: Timestamp,
    pub(crate) lease: Arc<Lease>,
    pub(crate) worker: Arc<Worker>,
}

impl Drop for Message {
    fn drop(&mut self) {
        self.worker.leases.forget(&self.lease, self.worker.now());
    }
}

/// Whether and how a job is to run.
enum Verdict {
    Run,
    /// It may have crashed its worker, as often as this or elsewhere.
    RunAlone(u32),
    /// It has this result.
    HasResult(Box<JobResult>),
    /// It has crashed its worker too often, or was received too often.
    Bury(JobFailure),
}

impl Worker {
    /// Runs a held message's job and acks it, releases it or buries it.
    pub(crate) async fn process(self: Arc<Self>, message: Message) {
        let job = match job_received(&message.received.body, message.received.sent_at) {
            Ok(job) => job,
            Err(error) => return self.bury_unreadable(&message, &error).await,
        };
        message.lease.is_of(&job);
        tracing::debug!(job = %job.id, stage = "received");
        let alone = match self.judge(&job, &message.received).await {
            Verdict::HasResult(result) => return self.ack_again(&message, &result).await,
            Verdict::Bury(failure) => {
                self.suspects.forget(&job);
                return self.bury(&message, job, failure).await;
            }
            Verdict::Run => None,
            Verdict::RunAlone(crashes) => Some(crashes),
        };
        let (done, began) =
            tokio::join!(self.run(&job, &message, alone), self.note_attempt(&job, &message));
        match began {
            Began::Newest => {}
            Began::Superseded => {
                return self.drop_job(&message, &job, "a user has had it sent again since").await;
            }
            Began::Ended => return self.drop_job(&message, &job, ENDED).await,
        }
        let outcome = match done {
            Ok(inferred) => Ok(inferred),
            Err(Stop::Failed(failure, worked)) => Err((failure, worked)),
            Err(Stop::Late) => {
                tracing::info!(job = %job.id, "cannot begin soon: released for another worker");
                return self.release_late(&message).await;
            }
            Err(Stop::Fault(_, fault)) => return self.set_aside(&message, job, fault).await,
            Err(Stop::HandedOver) => {
                tracing::info!(job = %job.id, "stopped for another worker to go on with it");
                return self.leases.give_back(&self.ports, &message.lease).await;
            }
            Err(Stop::Cancelled) if message.lease.has_ended() => {
                return self.drop_job(&message, &job, ENDED).await;
            }
            Err(Stop::Cancelled) => {
                tracing::info!(job = %job.id, "cancelled: its lease was lost, or this worker drains");
                return;
            }
        };
        self.suspects.forget(&job);
        message.lease.begin();
        let finished = self.finished(&job, &message, outcome);
        let commitment = self.commit(Some(&message.lease), finished).await;
        // What a job that failed has kept is there to be looked at.
        if let Commitment::Done { succeeded: true, .. } = commitment {
            self.inference.forget(&job).await;
        }
        match commitment {
            Commitment::Done { is_acked: false, .. } => self.ack(&message, &job).await,
            Commitment::Done { is_acked: true, .. } => self.note_ack(&job),
            Commitment::PutAway => self.release(&message, TimeDelta::zero()).await,
        }
    }

    /// Whether the job has a result already, has crashed this box, or has been received as often as it may be.
    async fn judge(&self, job: &Job, received: &Received) -> Verdict {
        let crashes = match Fix::SuspectByReceiveCount.is_left_out() {
            true => received.receive_count - 1,
            false => self.suspects.crashes(job),
        };
        // Without the ledger it is not known: the job runs, and its commit finds out.
        let result = match received.receive_count > 1 || crashes > 0 {
            true => self.result(job).await,
            false => Ok(None),
        };
        let is_known = result.is_ok();
        if let Ok(Some(result)) = result {
            return Verdict::HasResult(Box::new(result));
        }
        let receives = received.receive_count - 1;
        let is_over = receives >= self.queue.receives_max.get() && is_known;
        if crashes > 0 {
            return match is_over || self.suspects.is_too_often(crashes) {
                true => Verdict::Bury(crashed(crashes)),
                false => Verdict::RunAlone(crashes),
            };
        }
        let noted = if receives > 0 { self.noted_problem(job).await } else { None };
        match noted {
            noted if is_over => {
                Verdict::Bury(noted.unwrap_or_else(|| JobFailure::unfinished(receives)))
            }
            // On another box, whose markers are not here.
            Some(noted) if noted.code == CRASHED => Verdict::RunAlone(1),
            _ => Verdict::Run,
        }
    }

    /// What the ledger says of a job that was tried before.
    async fn noted_problem(&self, job: &Job) -> Option<JobFailure> {
        let entry = within("the ledger", self.ports.ledger.job(&job.id)).await.ok()??;
        entry.problem.filter(|_| entry.job.generation == job.generation)
    }

    /// Tries until the job is done or has failed, or another worker should try.
    async fn run(
        &self,
        job: &Job,
        message: &Message,
        alone: Option<u32>,
    ) -> Result<Inferred, Stop> {
        let mut trials = Trials::new();
        loop {
            let ended = self.try_once(job, message, alone).await;
            if !matches!(ended, Err(Stop::Cancelled | Stop::HandedOver | Stop::Late)) {
                message.lease.note_ended_try();
            }
            let (part, fault) = match ended {
                Err(Stop::Fault(part, fault)) => (part, fault),
                ended => return ended,
            };
            if Fix::FinalErrorOnBoxFault.is_left_out() {
                return Err(Stop::Failed(failure_of(fault), TimeDelta::zero()));
            }
            match trials.judge(&self.faults, part, &fault) {
                Trial::Fault => self.faults.raise(part, &fault, self.now()),
                Trial::Unlucky => {}
                Trial::SetAside => return Err(Stop::Fault(part, fault)),
            }
            tokio::select! {
                biased;
                () = message.lease.cancel.cancelled() => return Err(Stop::Cancelled),
                () = tokio::time::sleep(trials.backoff.next_wait()) => {}
            }
        }
    }

    /// Notes the attempt for ledgers that cannot see the queue's messages; a job that no one waits for is stopped. One whose attempt cannot
    /// be noted runs.
    async fn note_attempt(&self, job: &Job, message: &Message) -> Began {
        let attempt = Attempt {
            box_id: self.box_id().clone(),
            number: message.received.receive_count,
            of: self.queue.receives_max.get(),
            at: message.received_at,
            until: message.received_at + self.job_max(job) + self.queue.visibility,
        };
        let began = self.ports.ledger.began(job, &attempt);
        let began = within("noting an attempt", began).await.unwrap_or_else(|error| {
            tracing::warn!(job = %job.id, %error, "the attempt could not be noted");
            Began::Newest
        });
        if began != Began::Newest {
            message.lease.cancel.cancel();
        }
        began
    }

    fn finished(
        &self,
        job: &Job,
        message: &Message,
        outcome: Result<Inferred, (JobFailure, TimeDelta)>,
    ) -> Finished {
        let mut result = JobResult {
            job: job.clone(),
            outcome: Ok(serde_json::Value::Null),
            model: None,
            device: None,
            inference: TimeDelta::zero(),
            worked: None,
            box_id: self.box_id().clone(),
            attempt: message.received.receive_count,
            received_at: message.received_at,
            finished_at: self.now(),
        };
        let mut files = Vec::new();
        match outcome {
            Ok(inferred) => {
                (result.model, result.device) = (Some(inferred.model), Some(inferred.device));
                result.inference = inferred.took;
                result.worked = Some(inferred.worked);
                result.outcome = Ok(inferred.output);
                files = inferred.files;
            }
            Err((failure, worked)) => {
                result.worked = Some(worked);
                result.outcome = Err(failure);
            }
        }
        Finished { result, files, stored: Vec::new() }
    }
}

/// Why a job that has its result is not run.
const ENDED: &str = "a user has cancelled it, or another delivery has its result";

/// How a message ends.
impl Worker {
    /// Acks a message whose job no one waits for. It counts as done: a box that was started for it did what there was to do.
    async fn drop_job(&self, message: &Message, job: &Job, why: &str) {
        tracing::info!(job = %job.id, generation = job.generation, "dropped: {why}");
        self.suspects.forget(job);
        self.jobs_done.fetch_add(1, Ordering::Relaxed);
        self.ack(message, job).await;
    }

    /// Acks a message whose job has a result. Never with a lease that is known to be lost: the next receive finds the result.
    async fn ack(&self, message: &Message, job: &Job) {
        message.lease.begin();
        let mut backoff = Backoff::new();
        while !message.lease.is_lost() || Fix::AckWithDeadReceipt.is_left_out() {
            let error = match self.leases.ack(&self.ports, &message.lease).await {
                Ok(()) => return self.note_ack(job),
                Err(error) => error,
            };
            if matches!(error.class, PortErrorClass::LeaseLost | PortErrorClass::NotFound) {
                tracing::warn!(job = %job.id, %error, "not acked: it will be delivered again, and found done");
                return;
            }
            self.faults.raise(Part::Queue, &Part::Queue.fault(&error), self.now());
            tokio::select! {
                biased;
                () = self.ending.cancelled() => {
                    return self.release(message, TimeDelta::zero()).await;
                }
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    }

    fn note_ack(&self, job: &Job) {
        self.faults.clear(Part::Queue);
        tracing::debug!(job = %job.id, stage = "acked");
    }

    /// Acks a message that came again although its job has a result. The worker that committed it may have ended before it had acked it, and
    /// on DynamoDB also between the result and the job's state: committing it again completes that.
    async fn ack_again(&self, message: &Message, result: &JobResult) {
        message.lease.begin();
        let mut backoff = Backoff::new();
        while let Err(error) = within("the commit", self.ports.ledger.commit_one(result)).await {
            let passes =
                matches!(error.class, PortErrorClass::Unavailable | PortErrorClass::Throttled);
            if !passes || message.lease.is_lost() {
                // The result is there, which is what the ack needs.
                tracing::warn!(job = %result.job.id, %error, "the job's state could not be completed");
                break;
            }
            self.faults.raise(Part::Results, &Part::Results.fault(&error), self.now());
            tokio::select! {
                biased;
                () = self.ending.cancelled() => {
                    return self.release(message, TimeDelta::zero()).await;
                }
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
        self.faults.clear(Part::Results);
        self.ack(message, &result.job).await;
    }

    /// Ends the lease, so that the message is delivered again after that time.
    async fn release(&self, message: &Message, after: TimeDelta) {
        self.leases.release(&self.ports, &message.lease, after).await;
    }

    /// Releases a job that could not begin soon. Only one that was not tried is as if it had not been received: what its model hangs on or
    /// is killed by, also while it opens, must use up its receives.
    async fn release_late(&self, message: &Message) {
        if message.lease.is_tried() {
            self.release(message, TimeDelta::zero()).await;
        } else {
            self.leases.give_back(&self.ports, &message.lease).await;
        }
    }

    /// Gives a job back that fails here for no fault of its own while others succeed.
    async fn set_aside(&self, message: &Message, job: Job, fault: BoxFault) {
        let failure = failure_of(fault);
        let (code, text) = (&failure.code, shown(&failure.message));
        tracing::error!(job = %job.id, code, "set aside for another try: {text}");
        self.note_problem(job, failure, Dead::No).await;
        self.release(message, retry_delay(message.received.receive_count)).await;
    }

    async fn bury_unreadable(&self, message: &Message, error: &JobReadError) {
        let failure = JobFailure {
            code: UNREADABLE.to_owned(),
            message: with_causes(error),
            hint: Some(match error {
                JobReadError::TooNew(_) => "upgrade this worker, then `gpuctl redrive`".to_owned(),
                _ => "send jobs with `gpuctl submit`, or in the same form".to_owned(),
            }),
        };
        let job = job_of(&message.received, &self.queue.name);
        self.bury(message, job, failure).await;
    }

    /// Moves the message to the dead letters, with the reason there and in the ledger.
    async fn bury(&self, message: &Message, job: Job, failure: JobFailure) {
        let reason = format!("{}: {}", failure.code, failure.message);
        let (lease, visibility) = (&message.lease, self.queue.visibility);
        if let Err(error) = self.leases.hold_to_bury(&self.ports, lease, visibility).await {
            tracing::warn!(job = %job.id, %error, "not buried: another worker has the message");
            return;
        }
        tracing::error!(job = %job.id, reason = %shown(&reason), "to the dead letters");
        // Before the message is moved: a worker that ends in between leaves a dead job, not one that waits for ever.
        self.note_problem(job, failure, Dead::Yes).await;
        let buried = self.ports.queue.bury(&self.queue.name, &message.received, &reason);
        if let Err(error) = within("the burial", buried).await {
            tracing::warn!(error = %shown(with_causes(&error)), "a message could not be buried: it is delivered again when its lease runs out");
        }
    }

    /// Notes why a job has no result.
    pub(crate) async fn note_problem(&self, job: Job, failure: JobFailure, dead: Dead) {
        let (box_id, at) = (self.box_id().clone(), self.now());
        let problem = JobProblem { job, failure, box_id, at, dead: dead == Dead::Yes };
        let noted = self.ports.ledger.note_problem(&problem);
        if let Err(error) = within("noting a problem", noted).await {
            tracing::warn!(error = %shown(with_causes(&error)), "why a job has no result could not be noted");
        }
    }
}

fn failure_of(BoxFault { code, message, hint }: BoxFault) -> JobFailure {
    JobFailure { code, message, hint }
}

/// Whether a problem ended its job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dead {
    No,
    Yes,
}

/// The problem of a job that ran while its worker died.
pub(crate) fn crashed(crashes: u32) -> JobFailure {
    let times = if crashes == 1 { "once".to_owned() } else { format!("{crashes} times") };
    JobFailure {
        code: CRASHED.to_owned(),
        message: format!("its worker died {times} while this job ran"),
        hint: Some(
            "try the input with `gpu-worker run`, or `gpuctl redrive` after a fix".to_owned(),
        ),
    }
}
