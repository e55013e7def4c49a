//! The layout of jobs in the table.
//!
//! | `pk` | `sk` | what |
//! |---|---|---|
//! | `jobs#YYYY-MM#S` | `JOB` | a job in the month of its id, in one of 16 shards by a hash of its id: all but its results |
//! | `job#JOB` | `input#GENERATION` | the job itself where it is too long for the item above |
//! | `job#JOB` | `result#GENERATION` | the result of one generation, or where it lies |
//! | `jobs#YYYY-MM` | `JOB` | a job as versions before 0.2 wrote it, with its result; only read |
//!
//! A partition takes 1,000 write units a second, and each write of an item costs a unit for each KiB of it. So the item that is written
//! several times is small, a month's jobs have sixteen partitions, and each result has one of its own.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure, JobId, JobState};
use gpuctl_control::ports::{Attempt, JobProblem, PortError};
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_core::units::{QueueName, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::items::{Item, Key, Reader, Writer, expires, id_time, month_name, number, time};

/// How long jobs and their results are kept after submission.
pub(super) const JOBS_KEPT: TimeDelta = TimeDelta::days(90);

/// Shards of one month: as many partitions, so 16,000 write units a second.
pub(super) const SHARDS: u8 = 16;

/// The longest job that lies in the item of its state, in bytes; a text in the job's URI may have 64 KiB.
const JOB_BYTES_MAX: usize = 2 * 1_024;

/// How far the time that a sender wrote may lie before or after the ledger's and still count for the time at which the job expires.
const SENT_WITHIN: TimeDelta = TimeDelta::days(15);

/// The attributes of a job in the layout before shards, without its result.
pub(super) const OLD_WITHOUT_RESULT: &str = "pk, sk, v, job, submitted_at, succeeded, attempt, attempt_of, attempt_box, attempt_at, attempt_until";

impl Key {
    /// A job's partition is the month of its id and a shard of it, so that the id alone finds it.
    pub(super) fn job(id: &JobId) -> Self {
        Self::new(format!("{}#{:x}", Self::old_job(id).pk, shard(id)), id.as_str())
    }

    /// Where a job was before there were shards.
    pub(super) fn old_job(id: &JobId) -> Self {
        let pk = id_time(id).map_or_else(|| Self::JOBS_UNDATED.to_owned(), Self::jobs_of);
        Self::new(pk, id.as_str())
    }

    /// The month's partition before there were shards; with `#` and a shard: one of its partitions.
    pub(super) fn jobs_of(month: Timestamp) -> String {
        format!("jobs#{}", month_name(month))
    }

    /// As `jobs_of`, of jobs whose id has no time, since another program made it.
    pub(super) const JOBS_UNDATED: &str = "jobs#undated";

    /// The partition of a job's results.
    pub(super) fn parts_of(id: &JobId) -> String {
        format!("job#{id}")
    }

    pub(super) fn result(id: &JobId, generation: u32) -> Self {
        Self::new(Self::parts_of(id), format!("result#{generation:010}"))
    }

    pub(super) fn input(id: &JobId, generation: u32) -> Self {
        Self::new(Self::parts_of(id), format!("input#{generation:010}"))
    }

    /// The generation that a part of a job belongs to.
    pub(super) fn generation(&self) -> Option<u32> {
        self.sk.rsplit_once('#')?.1.parse().ok()
    }
}

fn shard(id: &JobId) -> u8 {
    Sha256::digest(id.as_str().as_bytes())[0] % SHARDS
}

/// When DynamoDB may delete a job: counted from its submission, but a sender's absurd time neither keeps it for ever nor deletes it
/// at once.
pub(super) fn job_expires(job: &Job, now: Timestamp) -> AttributeValue {
    let sent = job.submitted_at.clamp(now - SENT_WITHIN, now + SENT_WITHIN);
    expires(sent + JOBS_KEPT)
}

/// The job's own attributes, which stay the same within a generation; and the item of the job itself where it is too long.
pub(super) fn job(
    job: &Job,
    now: Timestamp,
) -> (Vec<(&'static str, AttributeValue)>, Option<Item>) {
    let text = job_to_json(job);
    let mut attributes = vec![
        ("job_generation", number(i64::from(job.generation))),
        ("submitted_at", time(job.submitted_at)),
        ("noted_at", time(now)),
        ("expires", job_expires(job, now)),
        ("v", number(super::items::VERSION)),
    ];
    if text.len() <= JOB_BYTES_MAX {
        attributes.push(("job", AttributeValue::S(text)));
        return (attributes, None);
    }
    let apart = Writer::new(&Key::input(&job.id, job.generation))
        .text("job", text)
        .value("expires", job_expires(job, now));
    attributes.push(("job_queue", AttributeValue::S(job.queue.to_string())));
    (attributes, Some(apart.done()))
}

/// The attributes of a job's latest attempt.
pub(super) fn attempt(job: &Job, attempt: &Attempt) -> Vec<(&'static str, AttributeValue)> {
    vec![
        ("attempt", number(i64::from(attempt.number))),
        ("attempt_of", number(i64::from(attempt.of))),
        ("attempt_box", AttributeValue::S(attempt.box_id.to_string())),
        ("attempt_at", time(attempt.at)),
        ("attempt_until", time(attempt.until)),
        ("attempt_generation", number(i64::from(job.generation))),
    ]
}

/// The attributes of the note that a job has no result, and why.
pub(super) fn problem(problem: &JobProblem) -> Vec<(&'static str, AttributeValue)> {
    let failure = StoredFailure::of(&problem.failure);
    let text = serde_json::to_string(&failure).expect("texts are always JSON");
    vec![
        ("problem_json", AttributeValue::S(text)),
        ("problem_at", time(problem.at)),
        ("problem_dead", AttributeValue::Bool(problem.dead)),
        ("problem_generation", number(i64::from(problem.job.generation))),
    ]
}

/// That a generation has a result. When one was cancelled stays noted: its message is still in the queue, also after a retry.
pub(super) fn done(
    generation: u32,
    state: JobState,
    now: Timestamp,
) -> Vec<(&'static str, AttributeValue)> {
    let mut attributes = outcome(state).to_vec();
    attributes.push(("done_generation", number(i64::from(generation))));
    if state == JobState::Cancelled {
        attributes.push(("cancelled_at", time(now)));
    }
    attributes
}

/// What a result came to. A version that knows no cancelled jobs takes one for a failed job.
pub(super) fn outcome(state: JobState) -> [(&'static str, AttributeValue); 2] {
    [
        ("succeeded", AttributeValue::Bool(state == JobState::Succeeded)),
        ("cancelled", AttributeValue::Bool(state == JobState::Cancelled)),
    ]
}

/// What `outcome` has written, if anything.
pub(super) fn outcome_of(item: Reader<'_>) -> Option<JobState> {
    Some(match (item.bool_if("succeeded")?, item.bool_if("cancelled")) {
        (true, _) => JobState::Succeeded,
        (false, Some(true)) => JobState::Cancelled,
        (false, _) => JobState::Failed,
    })
}

/// Whether the item of a job says that this generation has a result.
pub(super) fn has_ended(item: &Item, generation: u32) -> bool {
    let done = Reader(item).number_if("done_generation");
    outcome_of(Reader(item)).is_some() && done == Some(i64::from(generation))
}

#[derive(Serialize, Deserialize)]
struct StoredFailure {
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl StoredFailure {
    fn of(failure: &JobFailure) -> Self {
        let JobFailure { code, message, hint } = failure.clone();
        Self { code, message, hint }
    }
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) failure: JobFailure,
    pub(super) at: Timestamp,
    /// Whether its message was moved to the dead letters.
    pub(super) dead: bool,
}

/// What an item says of a job's newest generation; all but its result.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    /// `None` where it lies in an item of its own.
    pub(super) job: Option<Job>,
    pub(super) queue: QueueName,
    pub(super) generation: u32,
    pub(super) submitted_at: Timestamp,
    /// When it was first noted; not in the old layout.
    pub(super) noted_at: Option<Timestamp>,
    pub(super) attempt: Option<Attempt>,
    pub(super) problem: Option<Problem>,
    /// What its result came to, once it has one.
    pub(super) outcome: Option<JobState>,
    /// When a user last cancelled a generation of it.
    pub(super) cancelled_at: Option<Timestamp>,
    /// Whether the item is of the layout before shards, with its result in it.
    pub(super) is_old: bool,
}

impl Noted {
    pub(super) fn of(item: &Item) -> Result<Self, PortError> {
        let item = Reader(item).known()?;
        let job = item.text_if("job").map(|text| read_job(item, text)).transpose()?;
        let generation = item.number_if("job_generation");
        let small = |name| item.number_if(name).unwrap_or_default();
        let is_of_this = |name| small(name) == generation.unwrap_or_default();
        let queue = match &job {
            Some(job) => job.queue.clone(),
            None => item.parsed("job_queue")?,
        };
        let attempt = attempt_of(item)?.filter(|_| is_of_this("attempt_generation"));
        let problem = problem_of(item)?.filter(|_| is_of_this("problem_generation"));
        let outcome = outcome_of(item).filter(|_| is_of_this("done_generation"));
        Ok(Self {
            generation: u32::try_from(generation.unwrap_or_default())
                .map_err(|_| item.unreadable("job_generation"))?,
            submitted_at: item.time("submitted_at")?,
            noted_at: item.time_if("noted_at"),
            is_old: generation.is_none(),
            job,
            queue,
            attempt,
            problem,
            outcome,
            cancelled_at: item.time_if("cancelled_at"),
        })
    }

    /// Of the items of one job in both layouts: the newer one counts, unless only the older one has a result.
    pub(super) fn of_both(
        new: Option<&Item>,
        old: Option<&Item>,
    ) -> Result<Option<Self>, PortError> {
        let new = new.map(Self::of).transpose()?;
        let old = old.map(Self::of).transpose()?;
        Ok(match (new, old) {
            (Some(new), Some(old)) => {
                let is_done_there =
                    new.generation == 0 && new.outcome.is_none() && old.outcome.is_some();
                Some(if is_done_there { old } else { new })
            }
            (new, old) => new.or(old),
        })
    }
}

pub(super) fn read_job(item: Reader<'_>, text: &str) -> Result<Job, PortError> {
    job_from_json(text).map_err(|error| item.unreadable("job").because(error))
}

fn attempt_of(item: Reader<'_>) -> Result<Option<Attempt>, PortError> {
    if item.number_if("attempt").is_none() {
        return Ok(None);
    }
    Ok(Some(Attempt {
        box_id: item.parsed("attempt_box")?,
        number: item.small("attempt")?,
        of: item.small("attempt_of")?,
        at: item.time("attempt_at")?,
        until: item.time("attempt_until")?,
    }))
}

fn problem_of(item: Reader<'_>) -> Result<Option<Problem>, PortError> {
    let Some(text) = item.text_if("problem_json") else { return Ok(None) };
    let stored: StoredFailure = serde_json::from_str(text)
        .map_err(|error| item.unreadable("problem_json").because(error))?;
    let StoredFailure { code, message, hint } = stored;
    Ok(Some(Problem {
        failure: JobFailure { code, message, hint },
        at: item.time("problem_at")?,
        dead: item.bool_if("problem_dead").unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use gpuctl_control::job::{InputUri, Urgency};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_795_000_000 + seconds, 0).unwrap()
    }

    fn a_job(text: &str) -> Job {
        Job {
            params: serde_json::Map::new(),
            id: JobId::new(at(0)),
            queue: "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs".parse().unwrap(),
            task: "text.embed".to_owned(),
            model: None,
            input: InputUri::of_text(text).unwrap(),
            submitted_at: at(0),
            generation: 0,
            urgency: Urgency::default(),
        }
    }

    fn item(job: &Job, more: Vec<(&'static str, AttributeValue)>) -> Item {
        let key = super::super::table::attributes(&Key::job(&job.id));
        let (own, _) = super::job(job, at(1));
        let named = own.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value));
        key.into_iter().chain(named).collect()
    }

    #[test]
    fn an_id_alone_finds_its_job_and_ids_are_spread_over_the_shards() {
        // The last millisecond of October 2026.
        let first = super::super::items::first_id("2026-10-31T23:59:59.999Z".parse().unwrap());
        let id = format!("{first}-7000-8000-000000000001").parse().unwrap();
        assert!(Key::job(&id).pk.starts_with("jobs#2026-10#"));
        assert_eq!(Key::old_job(&id).pk, "jobs#2026-10");
        let undated = "0b3f1d5c-2a64-4b7e-9a51-6a1f0f6e8c11".parse().unwrap();
        assert!(Key::job(&undated).pk.starts_with("jobs#undated#"));
        let mut counts: HashMap<String, u32> = HashMap::new();
        for _ in 0..1_600 {
            *counts.entry(Key::job(&JobId::new(at(0))).pk).or_default() += 1;
        }
        assert_eq!(counts.len(), usize::from(SHARDS));
        assert!(counts.values().all(|count| (50..150).contains(count)), "{counts:?}");
    }

    #[test]
    fn notes_of_an_earlier_generation_do_not_count_for_a_later_one() {
        let first = a_job("a");
        let attempt_1 = Attempt {
            box_id: "gpu-1".parse().unwrap(),
            number: 1,
            of: 2,
            at: at(2),
            until: at(60),
        };
        let failure = JobFailure { code: "x".into(), message: "y".into(), hint: None };
        let crashed = JobProblem {
            job: first.clone(),
            failure: failure.clone(),
            box_id: "gpu-1".parse().unwrap(),
            at: at(3),
            dead: true,
        };
        let notes =
            [attempt(&first, &attempt_1), problem(&crashed), done(0, JobState::Failed, at(3))]
                .concat();
        let of_first = Noted::of(&item(&first, notes.clone())).unwrap();
        assert_eq!(of_first.job.as_ref(), Some(&first));
        assert_eq!(of_first.attempt, Some(attempt_1));
        assert_eq!(of_first.problem, Some(Problem { failure, at: at(3), dead: true }));
        assert_eq!((of_first.outcome, of_first.noted_at), (Some(JobState::Failed), Some(at(1))));
        let retried = Job { generation: 1, ..first };
        let of_retried = Noted::of(&item(&retried, notes)).unwrap();
        assert_eq!(
            (of_retried.attempt, of_retried.problem, of_retried.outcome),
            (None, None, None)
        );
    }

    #[test]
    fn a_long_text_lies_apart_from_the_item_that_is_written_often() {
        let (short, apart) = job(&a_job("a"), at(0));
        assert!(apart.is_none() && short.iter().any(|(name, _)| *name == "job"));
        let long = a_job(&"x".repeat(60_000));
        let (attributes, apart) = job(&long, at(0));
        assert!(attributes.iter().all(|(name, _)| *name != "job"));
        let apart = apart.unwrap();
        let item_of_it = Reader(&apart);
        assert_eq!(read_job(item_of_it, item_of_it.text("job").unwrap()).unwrap(), long);
        assert_eq!(Noted::of(&item(&long, Vec::new())).unwrap().queue, long.queue);
    }

    #[test]
    fn an_absurd_time_of_submission_neither_keeps_nor_deletes_a_job() {
        let expires_in = |submitted_at: &str| {
            let job = Job { submitted_at: submitted_at.parse().unwrap(), ..a_job("a") };
            let seconds: i64 = job_expires(&job, at(0)).as_n().unwrap().parse().unwrap();
            (seconds - at(0).timestamp()) / 86_400
        };
        assert_eq!(expires_in("+262142-12-31T00:00:00Z"), 105);
        assert_eq!(expires_in("1970-01-01T00:00:00Z"), 75);
        assert_eq!(expires_in(&at(0).to_rfc3339()), 90);
    }
}
