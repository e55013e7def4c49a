//! A job: what a user submits, what a worker answers, and how it stands in between.
//!
//! Inputs are URIs, so that a name of any bytes survives JSON, and so that they may lie elsewhere than on this disk.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_core::units::{BoxId, QueueName, Timestamp};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::ports::{NewMessage, PortError, Ports, SEND_BATCH_MAX};
use crate::wire;

/// A job's name: a UUID whose order is the order of submission.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

/// Counts within a millisecond, so that ids made in one sort in the order in which they were made.
static IDS_IN_ORDER: Mutex<uuid::ContextV7> = Mutex::new(uuid::ContextV7::new());

impl JobId {
    /// A new one, for a job submitted at `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
        let context = IDS_IN_ORDER.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = uuid::Timestamp::from_unix(&*context, seconds, at.timestamp_subsec_nanos());
        Self(uuid::Uuid::new_v7(stamp).to_string())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        uuid::Uuid::parse_str(text).map(|id| Self(id.to_string()))
    }
}

/// What a worker can do; a test of the worker keeps this list equal to its own.
pub const TASKS: [&str; 2] = ["voice.transcribe", "vision.ocr"];

/// What a user submits.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// The queue that it was sent to.
    pub queue: QueueName,
    /// What to do, as `voice.transcribe`.
    pub task: String,
    /// With which model; the task's default if `None`.
    pub model: Option<String>,
    /// On what.
    pub input: InputUri,
    /// When it was submitted.
    pub submitted_at: Timestamp,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// Done.
    Succeeded,
    /// Has an error result: trying again would not help.
    Failed,
    /// Given up after too many tries; `redrive` gives it another chance.
    Dead,
    /// Purged from the queue before it had a result.
    Purged,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Dead, Self::Purged];

    /// The state's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Purged => "purged",
        }
    }

    /// Whether nothing more will happen by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq)]
pub struct JobResult {
    /// The job.
    pub job: Job,
    /// The answer, or why there is none.
    pub outcome: Result<serde_json::Value, JobFailure>,
    /// The model that was used.
    pub model: Option<String>,
    /// On which device.
    pub device: Option<String>,
    /// The box that did it.
    pub box_id: BoxId,
    /// How often the message had been received.
    pub attempt: u32,
    /// When the worker received it.
    pub received_at: Timestamp,
    /// When the answer was there.
    pub finished_at: Timestamp,
    /// How long the model ran for it (its share of the batch).
    pub inference: TimeDelta,
}

/// Why a job has no answer, and never will have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    /// A short, stable code such as `input.truncated`.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where an input lies; today always `file://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputUri(String);

/// What a path may hold and a URI may not.
const ESCAPED: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'?').add(b'<').add(b'>').add(b'`');

/// Why a URI was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no `file:///…` URI")]
pub struct InputUriError(String);

impl InputUri {
    /// The URI of an absolute path of any bytes.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        let escaped = percent_encode(path.as_os_str().as_encoded_bytes(), &ESCAPED);
        Self(format!("file://{escaped}"))
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        let escaped = self.0.trim_start_matches("file://");
        PathBuf::from(std::ffi::OsString::from_vec(percent_decode_str(escaped).collect()))
    }

    /// The URI as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file's name, with what is no text replaced.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl FromStr for InputUri {
    type Err = InputUriError;
    fn from_str(text: &str) -> Result<Self, InputUriError> {
        if text.starts_with("file:///") {
            Ok(Self(text.to_owned()))
        } else {
            Err(InputUriError(text.to_owned()))
        }
    }
}

/// Sends jobs to their queue and notes them in the ledger.
///
/// Queue first: a job that is queued but not noted still runs, and its result notes it; the other way round it were lost.
///
/// # Errors
/// When the queue or the ledger fails; jobs of earlier batches are queued then.
pub async fn submit(ports: &Ports, jobs: &[Job]) -> Result<(), PortError> {
    for batch in jobs.chunks(SEND_BATCH_MAX) {
        for of_queue in batch.chunk_by(|a, b| a.queue == b.queue) {
            let messages: Vec<NewMessage> = of_queue.iter().map(message).collect();
            ports.queue.send(&of_queue[0].queue, &messages).await?;
        }
        ports.ledger.submitted(batch).await?;
    }
    Ok(())
}

fn message(job: &Job) -> NewMessage {
    NewMessage {
        body: wire::job::job_to_json(job),
        attributes: vec![
            ("job_id".to_owned(), job.id.to_string()),
            ("task".to_owned(), job.task.clone()),
        ],
        delay: TimeDelta::zero(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_survives_the_uri() {
        use std::os::unix::ffi::OsStrExt;
        for name in
            [&b"/a/plain.wav"[..], b"/a/b c%#?.wav", b"/a/\xff\xfe.wav", "/ä/日本.wav".as_bytes()]
        {
            let path = Path::new(std::ffi::OsStr::from_bytes(name));
            let uri = InputUri::of_path(path);
            assert!(uri.as_str().is_ascii(), "{}", uri.as_str());
            assert_eq!(uri.as_str().parse::<InputUri>().unwrap().path(), path);
        }
    }

    #[test]
    fn ids_of_later_jobs_sort_later() {
        let early = JobId::new("2026-11-21T00:00:00Z".parse().unwrap());
        let late = JobId::new("2026-11-21T00:00:01Z".parse().unwrap());
        assert!(early < late);
        let now = "2026-11-21T00:00:02Z".parse().unwrap();
        let burst: Vec<JobId> = (0..100).map(|_| JobId::new(now)).collect();
        assert!(burst.is_sorted() && late < burst[0]);
    }
}
