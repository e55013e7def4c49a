//! The documents of jobs: the message in the queue, the result in the ledger, and `gpuctl.job` as people see it.

use std::borrow::Cow;

use chrono::TimeDelta;
use gpuctl_core::priority::Priority;
use gpuctl_core::units::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Versioned, seconds, time};
use crate::job::{InputUriError, Job, JobFailure, JobResult, OWN_WAIT_MAX, Urgency};
use crate::ports::JobEntry;

/// The version of the message that this program writes; it reads every version up to it.
const MESSAGE_VERSION: u32 = 2;
/// The version of a message without a generation, so that older workers still read it.
const MESSAGE_VERSION_FIRST: u32 = 1;

/// Why a stored job cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JobReadError {
    /// Not JSON, or a field is missing.
    #[error("the message is not a job")]
    Form(#[from] serde_json::Error),
    /// A field has a value that it cannot have.
    #[error("the message's `{0}` cannot be read")]
    Field(&'static str),
    /// The input is not a URI of a known form.
    #[error("the message's input cannot be read")]
    Input(#[from] InputUriError),
    /// Written by a newer program.
    #[error("the message has version {0}, this program knows up to {MESSAGE_VERSION}")]
    TooNew(u32),
}

#[derive(Serialize, Deserialize)]
struct JobMessage {
    version: u32,
    job_id: String,
    queue: String,
    task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    input: String,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    params: serde_json::Map<String, serde_json::Value>,
    submitted_at: String,
    #[serde(default, skip_serializing_if = "is_first")]
    generation: u32,
    /// `normal` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_wait_milliseconds: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first(generation: &u32) -> bool {
    *generation == 0
}

/// The message of a job.
#[must_use]
pub fn job_to_json(job: &Job) -> String {
    to_json(&message(job))
}

/// The job of a message.
///
/// # Errors
/// When the text is not a job, or was written by a newer version.
pub fn job_from_json(text: &str) -> Result<Job, JobReadError> {
    job(serde_json::from_str(text)?)
}

/// The longest that a queue keeps a message: SQS's limit.
const QUEUE_KEEPS_MAX: TimeDelta = TimeDelta::days(14);
/// How far the clock of a submitter may be ahead of the queue's.
pub const SUBMITTER_AHEAD_MAX: TimeDelta = TimeDelta::minutes(5);

/// The job of a message that its queue received at `sent_at`.
///
/// When it was submitted is the sender's word. Times that cannot be true (from after it was sent, or longer before than a queue keeps a
/// message) would sort the job first, delete it at once, or overflow: such a job was submitted when it was sent.
///
/// # Errors
/// As [`job_from_json`].
pub fn job_received(text: &str, sent_at: Timestamp) -> Result<Job, JobReadError> {
    let mut job = job_from_json(text)?;
    let believed = sent_at - QUEUE_KEEPS_MAX..=sent_at + SUBMITTER_AHEAD_MAX;
    if !believed.contains(&job.submitted_at) {
        job.submitted_at = sent_at;
    }
    Ok(job)
}

fn message(job: &Job) -> JobMessage {
    JobMessage {
        version: if job.generation == 0 { MESSAGE_VERSION_FIRST } else { MESSAGE_VERSION },
        job_id: job.id.to_string(),
        queue: job.queue.to_string(),
        task: job.task.clone(),
        model: job.model.clone(),
        input: job.input.as_str().to_owned(),
        params: job.params.clone(),
        submitted_at: job.submitted_at.to_rfc3339(),
        generation: job.generation,
        priority: other_than_normal(job.urgency.priority),
        max_wait_milliseconds: job.urgency.max_wait.map(milliseconds),
    }
}

/// At most 14 days, which 32 bits hold.
fn milliseconds(span: TimeDelta) -> u32 {
    u32::try_from(span.clamp(TimeDelta::zero(), OWN_WAIT_MAX).num_milliseconds())
        .unwrap_or(u32::MAX)
}

fn other_than_normal(priority: Priority) -> Option<String> {
    (priority != Priority::Normal).then(|| priority.to_string())
}

fn job(message: JobMessage) -> Result<Job, JobReadError> {
    if message.version > MESSAGE_VERSION {
        return Err(JobReadError::TooNew(message.version));
    }
    Ok(Job {
        id: message.job_id.parse().map_err(|_| JobReadError::Field("job_id"))?,
        queue: message.queue.parse().map_err(|_| JobReadError::Field("queue"))?,
        task: message.task,
        model: message.model,
        input: message.input.parse()?,
        params: message.params,
        submitted_at: message
            .submitted_at
            .parse()
            .map_err(|_| JobReadError::Field("submitted_at"))?,
        generation: message.generation,
        urgency: Urgency {
            priority: match message.priority {
                Some(name) => name.parse().map_err(|_| JobReadError::Field("priority"))?,
                None => Priority::Normal,
            },
            max_wait: message
                .max_wait_milliseconds
                .map(|wait| TimeDelta::milliseconds(wait.into())),
        },
    })
}

#[derive(Serialize, Deserialize)]
struct ResultMessage<'a> {
    job: JobMessage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, serde_json::Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<FailureDocument>,
    model: Option<String>,
    device: Option<String>,
    r#box: String,
    attempt: u32,
    received_at: String,
    finished_at: String,
    inference_microseconds: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worked_microseconds: Option<i64>,
}

/// The stored form of a result.
#[must_use]
pub fn result_to_json(result: &JobResult) -> String {
    let (output, error) = match &result.outcome {
        Ok(output) => (Some(Cow::Borrowed(output)), None),
        Err(failure) => (None, Some(FailureDocument::of(failure))),
    };
    to_json(&ResultMessage {
        job: message(&result.job),
        output,
        error,
        model: result.model.clone(),
        device: result.device.clone(),
        r#box: result.box_id.to_string(),
        attempt: result.attempt,
        received_at: result.received_at.to_rfc3339(),
        finished_at: result.finished_at.to_rfc3339(),
        inference_microseconds: result.inference.num_microseconds().unwrap_or(i64::MAX),
        worked_microseconds: result.worked.and_then(|worked| worked.num_microseconds()),
    })
}

/// The result of its stored form.
///
/// # Errors
/// When the text is not a result.
pub fn result_from_json(text: &str) -> Result<JobResult, JobReadError> {
    let message: ResultMessage<'_> = serde_json::from_str(text)?;
    let outcome = match message.error {
        Some(error) => {
            Err(JobFailure { code: error.code, message: error.message, hint: error.hint })
        }
        None => Ok(message.output.unwrap_or_default().into_owned()),
    };
    Ok(JobResult {
        job: job(message.job)?,
        outcome,
        model: message.model,
        device: message.device,
        box_id: message.r#box.parse().map_err(|_| JobReadError::Field("box"))?,
        attempt: message.attempt,
        received_at: message.received_at.parse().map_err(|_| JobReadError::Field("received_at"))?,
        finished_at: message.finished_at.parse().map_err(|_| JobReadError::Field("finished_at"))?,
        inference: TimeDelta::microseconds(message.inference_microseconds),
        worked: message.worked_microseconds.map(TimeDelta::microseconds),
    })
}

/// The stored form of a failure.
#[must_use]
pub fn failure_to_json(failure: &JobFailure) -> String {
    to_json(&FailureDocument::of(failure))
}

/// The failure of its stored form.
///
/// # Errors
/// When the text is not a failure.
pub fn failure_from_json(text: &str) -> Result<JobFailure, JobReadError> {
    let FailureDocument { code, message, hint } = serde_json::from_str(text)?;
    Ok(JobFailure { code, message, hint })
}

/// Why a job failed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FailureDocument {
    /// A short, stable code.
    pub code: String,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl FailureDocument {
    /// The document of a failure.
    #[must_use]
    pub fn of(failure: &JobFailure) -> Self {
        Self {
            code: failure.code.clone(),
            message: failure.message.clone(),
            hint: failure.hint.clone(),
        }
    }
}

/// `gpuctl.job`, and one entry of `gpuctl.jobs`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JobDocument {
    pub job_id: String,
    pub queue: String,
    pub task: String,
    /// The model: the one used, or the one asked for.
    pub model: Option<String>,
    /// The input's URI.
    pub input: String,
    /// The task's params.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub params: serde_json::Map<String, serde_json::Value>,
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled`, `dead`, `purged` or `expired`.
    pub state: &'static str,
    /// `high`, `normal` or `low`.
    pub priority: &'static str,
    /// How long it may wait for a box, if it says so itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait_seconds: Option<f64>,
    /// 0 at first; each `gpuctl retry` is one more. All that follows is of the newest.
    pub generation: u32,
    /// When it was submitted.
    pub submitted_at: String,
    /// When the worker had the outcome, or a user cancelled it.
    pub finished_at: Option<String>,
    /// From submission until the worker had the outcome, less `run_seconds`: in the queue, and within the worker behind other jobs.
    pub wait_seconds: Option<f64>,
    /// Decoding, and the job's share of its batch, also of a job that failed in one of them.
    pub run_seconds: Option<f64>,
    /// How long the model ran for it.
    pub inference_seconds: Option<f64>,
    /// Which try the result is of, from 1.
    pub attempts: Option<u32>,
    /// The box whose worker did it.
    pub r#box: Option<String>,
    pub device: Option<String>,
    pub output: Option<serde_json::Value>,
    /// Why there is none.
    pub error: Option<FailureDocument>,
    /// The results of earlier generations, newest first; only for a single job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<ResultDocument>,
}

/// The result of an earlier generation of a job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ResultDocument {
    pub generation: u32,
    /// `succeeded`, `failed` or `cancelled`.
    pub state: &'static str,
    /// When the worker had the outcome, or a user cancelled it.
    pub finished_at: String,
    /// The box whose worker did it; none of a cancelled one.
    pub r#box: Option<String>,
    pub output: Option<serde_json::Value>,
    /// Why there is none.
    pub error: Option<FailureDocument>,
}

impl ResultDocument {
    fn of(result: &JobResult) -> Self {
        Self {
            generation: result.job.generation,
            state: result.state().as_str(),
            finished_at: time(result.finished_at),
            r#box: result.is_of_worker().then(|| result.box_id.to_string()),
            output: result.outcome.as_ref().ok().cloned(),
            error: result.outcome.as_ref().err().map(FailureDocument::of),
        }
    }
}

/// How long a job ran, within the time that its worker had it: one clock may have been set between the two.
fn run_time(result: &JobResult) -> TimeDelta {
    let held = result.finished_at - result.received_at;
    result.worked.map_or(held, |worked| worked.min(held))
}

impl JobDocument {
    /// The document of a job.
    #[must_use]
    pub fn of(entry: &JobEntry) -> Self {
        let (job, result) = (&entry.job, entry.result.as_ref());
        let outcome = result.map(|result| &result.outcome);
        let worked = result.filter(|result| result.is_of_worker());
        Self {
            job_id: job.id.to_string(),
            queue: job.queue.to_string(),
            task: job.task.clone(),
            model: result.and_then(|result| result.model.clone()).or_else(|| job.model.clone()),
            input: job.input.as_str().to_owned(),
            params: job.params.clone(),
            state: entry.state.as_str(),
            priority: job.urgency.priority.as_str(),
            max_wait_seconds: job.urgency.max_wait.map(seconds),
            generation: job.generation,
            submitted_at: time(job.submitted_at),
            finished_at: result.map(|result| time(result.finished_at)),
            wait_seconds: worked
                .map(|result| seconds(result.finished_at - job.submitted_at - run_time(result))),
            run_seconds: worked.map(|result| seconds(run_time(result))),
            inference_seconds: worked.map(|result| seconds(result.inference)),
            attempts: worked.map(|result| result.attempt),
            r#box: worked.map(|result| result.box_id.to_string()),
            device: result.and_then(|result| result.device.clone()),
            output: outcome.and_then(|outcome| outcome.as_ref().ok().cloned()),
            error: outcome
                .and_then(|outcome| outcome.as_ref().err())
                .or(entry.problem.as_ref())
                .map(FailureDocument::of),
            earlier: Vec::new(),
        }
    }

    /// With the results of the generations before this one.
    #[must_use]
    pub fn with_earlier(self, results: &[JobResult]) -> Self {
        let before = results.iter().filter(|result| result.job.generation < self.generation);
        Self { earlier: before.map(ResultDocument::of).collect(), ..self }
    }

    /// The document under its name.
    #[must_use]
    pub fn versioned(self) -> Versioned<Self> {
        Versioned { schema: "gpuctl.job", version: 1, document: self }
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a document of texts and numbers is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobState;

    const OLD: &str = r#"{"version":1,"job_id":"01a200ab-52ac-72da-a503-1913f00238c3","queue":"jobs","task":"vision.ocr","input":"file:///a.png","submitted_at":"2026-11-22T00:00:00+00:00"}"#;

    #[test]
    fn a_job_without_params_is_written_as_before_and_one_with_params_is_read_again() {
        let mut job = job_from_json(OLD).unwrap();
        assert!(job.params.is_empty());
        assert_eq!(job_to_json(&job), OLD);
        job.params.insert("speed".to_owned(), 1.25.into());
        job.urgency = Urgency { priority: Priority::High, max_wait: Some(TimeDelta::days(14)) };
        assert_eq!(job_from_json(&job_to_json(&job)).unwrap(), job);
        let unknown = OLD.replace("\"version\":1", "\"version\":1,\"priority\":\"urgent\"");
        assert!(matches!(job_from_json(&unknown), Err(JobReadError::Field("priority"))));
    }

    #[test]
    fn what_a_job_waits_within_its_worker_is_a_wait_and_no_run() {
        let job = job_from_json(OLD).unwrap();
        let (box_id, received_at) =
            ("gpu-1".parse().unwrap(), job.submitted_at + TimeDelta::seconds(5));
        // A page of a burst: two minutes behind others, 14 s of the model, 2 s of decoding.
        let mut result = JobResult {
            job: job.clone(),
            outcome: Ok(serde_json::Value::Null),
            model: None,
            device: None,
            box_id,
            attempt: 1,
            received_at,
            finished_at: received_at + TimeDelta::seconds(123),
            inference: TimeDelta::seconds(14),
            worked: Some(TimeDelta::seconds(16)),
        };
        let times = |result: &JobResult| {
            let state = JobState::Succeeded;
            let (result, problem) = (Some(result.clone()), None);
            let document = JobDocument::of(&JobEntry { job: job.clone(), state, result, problem });
            [document.wait_seconds, document.run_seconds].map(Option::unwrap)
        };
        assert_eq!(result_from_json(&result_to_json(&result)).unwrap(), result);
        assert_eq!(times(&result), [112.0, 16.0]);
        result.worked = None;
        assert_eq!(times(&result), [5.0, 123.0]);
        result.worked = Some(TimeDelta::seconds(500));
        assert_eq!(times(&result), [5.0, 123.0]);
    }

    #[test]
    fn a_time_of_submission_that_cannot_be_true_is_that_of_the_message() {
        let sent_at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let submitted = |text: &str| {
            let message = OLD.replace("2026-11-22T00:00:00+00:00", text);
            job_received(&message, sent_at).unwrap().submitted_at
        };
        for believed in ["2026-11-22T00:00:00Z", "2026-11-22T12:04:59Z", "2026-11-08T12:00:00Z"] {
            assert_eq!(submitted(believed), believed.parse::<Timestamp>().unwrap());
        }
        for absurd in [
            "+262142-12-31T00:00:00Z",
            "-262143-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "2026-11-08T11:59:59Z",
            "2026-11-22T12:05:01Z",
        ] {
            assert_eq!(submitted(absurd), sent_at, "{absurd}");
        }
    }
}
