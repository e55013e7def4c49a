//! A job: what a user submits, its states, and its result.
//!
//! Inputs are URIs, so that a file name of any bytes survives JSON, and so that they may be elsewhere than on this disk.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_core::priority::Priority;
use gpuctl_core::units::{BoxId, QueueName, Timestamp};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// A job's name: a UUID whose order is the order of submission.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

/// Counts within a millisecond, so that ids of the same millisecond sort in the order in which they were made.
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

    /// The one that belongs to a request: the same for the same digest and time.
    #[must_use]
    pub fn of_request(at: Timestamp, digest: &[u8; 32]) -> Self {
        let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string())
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

/// What a user submits.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    /// The queue that it was sent to.
    pub queue: QueueName,
    /// What to do, e.g. `voice.transcribe`.
    pub task: String,
    /// The model; the task's default if `None`.
    pub model: Option<String>,
    pub input: InputUri,
    /// The task's params; `gpu-tasks` says which there are.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// 0 at first; each retry by a user is one more, with a result of its own.
    pub generation: u32,
    pub urgency: Urgency,
}

/// How soon a job is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// Compared with the other jobs of its queue.
    pub priority: Priority,
    /// How long it may wait for a box, counted from its submission, where that is less than its pool's `max_wait`.
    pub max_wait: Option<TimeDelta>,
}

/// The longest that a job may say that it can wait, as for pools.
pub const OWN_WAIT_MAX: TimeDelta = TimeDelta::days(14);

/// Why a job's own patience was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrgencyError {
    /// The instant by which it is to begin.
    #[error("the deadline {0} is in the past")]
    DeadlinePassed(Timestamp),
    /// Negative, or more than a queue keeps a message.
    #[error("a job may wait for 0s to {} days", OWN_WAIT_MAX.num_days())]
    WaitOutside,
}

impl UrgencyError {
    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::DeadlinePassed(_) => {
                "give a later one, or `--max-wait 0s` for a job that is to begin as soon as possible"
            }
            Self::WaitOutside => {
                "give a duration such as `30s`, or leave it out for the pool's `max_wait`"
            }
        }
    }
}

impl Urgency {
    /// The same for a job that may wait for so long.
    ///
    /// # Errors
    /// When that is negative, or longer than [`OWN_WAIT_MAX`].
    pub fn waiting(self, max_wait: TimeDelta) -> Result<Self, UrgencyError> {
        if max_wait < TimeDelta::zero() || max_wait > OWN_WAIT_MAX {
            return Err(UrgencyError::WaitOutside);
        }
        Ok(Self { max_wait: Some(max_wait), ..self })
    }

    /// The same for a job that is submitted now and is to begin by then.
    ///
    /// # Errors
    /// When that is in the past, or too far ahead.
    pub fn until(self, deadline: Timestamp, now: Timestamp) -> Result<Self, UrgencyError> {
        if deadline < now {
            return Err(UrgencyError::DeadlinePassed(deadline));
        }
        self.waiting(deadline - now)
    }
}

impl Job {
    /// When a box should be ready for it at the latest, if it has a patience of its own.
    #[must_use]
    pub fn begin_by(&self) -> Option<Timestamp> {
        Some(self.submitted_at + self.urgency.max_wait?)
    }
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Waiting for a worker.
    Queued,
    /// Held by a worker.
    Running,
    Succeeded,
    /// Has an error as its result: trying again would not help.
    Failed,
    /// Ended by a user before it had a result: it never gets one.
    Cancelled,
    /// Tried too often without a result; `redrive` lets it be tried again.
    Dead,
    /// Purged from the queue before it had a result.
    Purged,
    /// Deleted by the queue without a result, since it had waited for longer than the queue keeps messages.
    Expired,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Dead,
        Self::Purged,
        Self::Expired,
    ];

    /// The state's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
            Self::Purged => "purged",
            Self::Expired => "expired",
        }
    }

    /// The same, but `Queued` for a job that is held: whether it is changes from one moment to the next.
    #[must_use]
    pub fn unless_running(self) -> Self {
        if self == Self::Running { Self::Queued } else { self }
    }

    /// Whether the state stays until a user acts.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobResult {
    pub job: Job,
    /// The output, or why there is none.
    pub outcome: Result<serde_json::Value, JobFailure>,
    /// The model that was used, if one was opened.
    pub model: Option<String>,
    pub device: Option<String>,
    /// The box whose worker did it.
    pub box_id: BoxId,
    /// Which try this was, from 1.
    pub attempt: u32,
    /// When the worker received it.
    pub received_at: Timestamp,
    /// When the worker had the outcome.
    pub finished_at: Timestamp,
    /// How long the model ran for this job: its share of the batch.
    pub inference: TimeDelta,
    /// That with the decoding of its inputs: what the job took of the machine, without its waits; none in results of older workers.
    pub worked: Option<TimeDelta>,
}

impl JobResult {
    /// The result of a job that a user has cancelled: it takes the place of a worker's, so that a job has either.
    #[must_use]
    pub fn cancelled(job: Job, by: &str, at: Timestamp) -> Self {
        Self {
            outcome: Err(JobFailure::cancelled(&job.id, by)),
            model: None,
            device: None,
            box_id: "gpuctl".parse().expect("it is a name"),
            attempt: 0,
            received_at: at,
            finished_at: at,
            inference: TimeDelta::zero(),
            worked: None,
            job,
        }
    }

    /// The state of a job that has this result.
    #[must_use]
    pub fn state(&self) -> JobState {
        match &self.outcome {
            Ok(_) => JobState::Succeeded,
            Err(failure) if failure.code == CANCELLED => JobState::Cancelled,
            Err(_) => JobState::Failed,
        }
    }

    /// Whether it is a worker's, and not a user's word.
    #[must_use]
    pub fn is_of_worker(&self) -> bool {
        self.state() != JobState::Cancelled
    }
}

/// The code of a cancelled job's error.
pub const CANCELLED: &str = "job.cancelled";

/// Why a job failed; another try would fail as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    /// A short, stable code such as `input.truncated`.
    pub code: String,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl JobFailure {
    /// Of a job that a user has cancelled.
    #[must_use]
    pub fn cancelled(job: &JobId, by: &str) -> Self {
        Self {
            code: CANCELLED.to_owned(),
            message: format!("{by} cancelled it"),
            hint: Some(format!("`gpuctl retry {job}` sends it again")),
        }
    }

    /// Of a job that was received as often as it may be.
    #[must_use]
    pub fn unfinished(receives: u32) -> Self {
        let times = if receives == 1 { "once".to_owned() } else { format!("{receives} times") };
        Self {
            code: "job.unfinished".to_owned(),
            message: format!("it was received {times}, and no worker finished it"),
            hint: Some(
                "its workers were killed, or let go of it: see their logs, then `gpuctl redrive`"
                    .to_owned(),
            ),
        }
    }
}

/// The URI of an input: a file, an object in S3, or a short text in the URI itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputUri(String);

/// What a URI points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputLocation {
    /// `file:///…`: a file on the worker's machine.
    File(PathBuf),
    /// `s3://bucket/key`.
    S3 { bucket: String, key: String },
    /// `data:,…`: this text.
    Text(String),
}

/// Longest text in a URI, in bytes: escaped, it may be three times as long, and must fit into a message of SQS (256 KiB).
pub const INLINE_TEXT_BYTES_MAX: usize = 64 * 1024;
/// The prefix of a text's URI; the long form is read too.
const INLINE_TEXT: &str = "data:,";
const INLINE_TEXT_LONG: &str = "data:text/plain;charset=utf-8,";
/// How many characters of a text a listing shows.
const TEXT_SHOWN_CHARS: usize = 40;

/// What is escaped in a URI, beside bytes that are not ASCII.
const ESCAPED: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'?').add(b'<').add(b'>').add(b'`');

/// Why a URI was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputUriError {
    /// Not of a known form.
    #[error("`{0}` is not a `file:///…`, `s3://BUCKET/KEY` or `data:,TEXT` URI")]
    Form(String),
    /// The text in it is too long.
    #[error("a text of {0} bytes is too long for a URI: {INLINE_TEXT_BYTES_MAX} are allowed")]
    TextTooLong(usize),
    /// The text in it is not UTF-8.
    #[error("the text in the URI is not UTF-8")]
    NotText,
}

impl InputUriError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Form(_) => "write a file's absolute path after `file://`",
            Self::TextTooLong(_) => "put the text into a file and submit that",
            Self::NotText => "write the text in UTF-8",
        }
    }
}

impl InputUri {
    /// The URI of an absolute path of any bytes.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        let escaped = percent_encode(path.as_os_str().as_encoded_bytes(), &ESCAPED);
        Self(format!("file://{escaped}"))
    }

    /// The URI that is a text.
    ///
    /// # Errors
    /// When it is longer than [`INLINE_TEXT_BYTES_MAX`].
    pub fn of_text(text: &str) -> Result<Self, InputUriError> {
        if text.len() > INLINE_TEXT_BYTES_MAX {
            return Err(InputUriError::TextTooLong(text.len()));
        }
        Ok(Self(format!("{INLINE_TEXT}{}", percent_encode(text.as_bytes(), &ESCAPED))))
    }

    /// A text as it is in a URI.
    #[must_use]
    pub fn escaped(text: &str) -> String {
        percent_encode(text.as_bytes(), &ESCAPED).to_string()
    }

    /// What it points at.
    #[must_use]
    pub fn location(&self) -> InputLocation {
        location(&self.0).expect("it was read when it was made")
    }

    /// The URI as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file's or object's name, or the beginning of the text in quotes. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.location() {
            InputLocation::File(path) => {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            InputLocation::S3 { key, .. } => key.rsplit('/').next().unwrap_or_default().to_owned(),
            InputLocation::Text(text) => {
                let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let shown: String = line.chars().take(TEXT_SHOWN_CHARS).collect();
                let more = if shown.len() < line.len() { "…" } else { "" };
                format!("\"{shown}{more}\"")
            }
        }
    }
}

impl FromStr for InputUri {
    type Err = InputUriError;
    fn from_str(text: &str) -> Result<Self, InputUriError> {
        location(text).map(|_| Self(text.to_owned()))
    }
}

/// A message about an input without the folder that it is in.
#[must_use]
pub fn without_folder(message: &str, input: &InputUri) -> String {
    let InputLocation::File(path) = input.location() else { return message.to_owned() };
    match path.parent().and_then(|folder| folder.to_str()) {
        Some(folder) => message.replace(&format!("{folder}/"), ""),
        None => message.to_owned(),
    }
}

fn location(uri: &str) -> Result<InputLocation, InputUriError> {
    use std::os::unix::ffi::OsStringExt;
    let form = || InputUriError::Form(uri.chars().take(TEXT_SHOWN_CHARS * 4).collect());
    if let Some(escaped) = uri.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        let bytes = percent_decode_str(escaped).collect();
        return Ok(InputLocation::File(PathBuf::from(std::ffi::OsString::from_vec(bytes))));
    }
    if let Some(rest) = uri.strip_prefix("s3://") {
        let (bucket, key) = rest.split_once('/').ok_or_else(form)?;
        if bucket.is_empty() || key.is_empty() {
            return Err(form());
        }
        return Ok(InputLocation::S3 { bucket: bucket.to_owned(), key: key.to_owned() });
    }
    let escaped = uri.strip_prefix(INLINE_TEXT).or_else(|| uri.strip_prefix(INLINE_TEXT_LONG));
    let bytes: Vec<u8> = percent_decode_str(escaped.ok_or_else(form)?).collect();
    if bytes.len() > INLINE_TEXT_BYTES_MAX {
        return Err(InputUriError::TextTooLong(bytes.len()));
    }
    String::from_utf8(bytes).map(InputLocation::Text).map_err(|_| InputUriError::NotText)
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
            let read = uri.as_str().parse::<InputUri>().unwrap();
            assert_eq!(read.location(), InputLocation::File(path.to_owned()));
        }
    }

    #[test]
    fn a_text_or_an_object_can_be_the_input_itself() {
        let text = "Grüße, 100 % \"sure\"?\n#1";
        let uri = InputUri::of_text(text).unwrap();
        assert!(uri.as_str().is_ascii(), "{}", uri.as_str());
        assert_eq!(
            uri.as_str().parse::<InputUri>().unwrap().location(),
            InputLocation::Text(text.into())
        );
        let long: InputUri = "data:text/plain;charset=utf-8,a%20b".parse().unwrap();
        assert_eq!(long.location(), InputLocation::Text("a b".to_owned()));
        let object: InputUri = "s3://jobs/in/a b.wav".parse().unwrap();
        let (bucket, key) = ("jobs".to_owned(), "in/a b.wav".to_owned());
        assert_eq!(
            (object.file_name().as_str(), object.location()),
            ("a b.wav", InputLocation::S3 { bucket, key })
        );
    }

    #[test]
    fn a_uri_of_another_form_or_with_too_much_text_is_refused() {
        for bad in
            ["a.wav", "file://host/a", "s3://bucket", "s3:///key", "http://x/y", "data:text/html,x"]
        {
            assert!(matches!(bad.parse::<InputUri>(), Err(InputUriError::Form(_))), "{bad}");
        }
        assert_eq!("data:,%ff".parse::<InputUri>(), Err(InputUriError::NotText));
        let long = "x".repeat(INLINE_TEXT_BYTES_MAX + 1);
        assert_eq!(InputUri::of_text(&long), Err(InputUriError::TextTooLong(long.len())));
        assert!(format!("data:,{long}").parse::<InputUri>().is_err());
        assert!(InputUri::of_text(&long[1..]).is_ok());
    }

    #[test]
    fn a_deadline_is_a_patience_and_one_in_the_past_is_refused() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let urgency = Urgency::default();
        let (second, day) = (TimeDelta::seconds(1), TimeDelta::days(1));
        assert_eq!(urgency.until(now + second, now).unwrap().max_wait, Some(second));
        assert_eq!(urgency.until(now, now).unwrap().max_wait, Some(TimeDelta::zero()));
        let passed = urgency.until(now - second, now).unwrap_err();
        assert_eq!(passed.to_string(), "the deadline 2026-11-21 11:59:59 UTC is in the past");
        for wait in [-second, day * 15] {
            assert_eq!(urgency.waiting(wait), Err(UrgencyError::WaitOutside));
        }
        assert_eq!(urgency.until(now + day * 15, now), Err(UrgencyError::WaitOutside));
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
