//! The listing of jobs, and the dead letters.

use gpuctl_control::commands::task_names;
use gpuctl_control::job::{Job, JobState, without_folder};
use gpuctl_control::overview::{DEAD_LETTERS_MAX, Overview};
use gpuctl_control::ports::{DeadLetter, JobEntry, JobPlace};
use gpuctl_control::snapshot::Snapshot;
use gpuctl_control::waiting::{Waiting, cost};
use gpuctl_control::wire::job::{JobDocument, job_from_json};
use gpuctl_core::policy::Policy;
use gpuctl_core::text::within;
use gpuctl_core::units::QueueName;

use crate::query::{PAGE_JOBS_MAX, Query};
use crate::result::summary;
use crate::words::{Clock, Time, count, money, readable};

/// The longest text of a cell, in characters.
const CELL_CHARS_MAX: usize = 120;

/// The longest body of a dead letter that is shown, in characters.
const BODY_CHARS_MAX: usize = 4_000;

/// The listing.
pub(crate) struct Jobs {
    pub(crate) rows: Vec<JobRow>,
    /// What was searched for.
    pub(crate) text: String,
    /// Name, and whether it is wanted.
    pub(crate) states: Vec<(&'static str, bool)>,
    pub(crate) state: &'static str,
    pub(crate) task: String,
    pub(crate) window: &'static str,
    pub(crate) tasks: Vec<String>,
    pub(crate) is_filtered: bool,
    pub(crate) all: String,
    pub(crate) newest: Option<String>,
    pub(crate) older: Option<String>,
    /// What to do where there are none.
    pub(crate) empty: Vec<String>,
    pub(crate) is_read: bool,
}

/// A job in the listing.
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) task: String,
    pub(crate) input: String,
    pub(crate) submitted: Time,
    pub(crate) waited: String,
    pub(crate) ran: String,
    pub(crate) cost: String,
    pub(crate) result: String,
    pub(crate) can_retry: bool,
    pub(crate) can_cancel: bool,
}

/// The name of a job's input, as it is shown.
pub(crate) fn input_name(job: &Job) -> String {
    within(&job.input.file_name(), CELL_CHARS_MAX)
}

/// Seconds with a decimal below a minute.
pub(crate) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => String::new(),
        Some(short) if short < 60.0 => format!("{short:.1} s"),
        Some(long) => {
            let whole = std::time::Duration::try_from_secs_f64(long).unwrap_or_default();
            let span = chrono::TimeDelta::from_std(whole).unwrap_or_default();
            crate::words::span(span)
        }
    }
}

impl JobRow {
    fn of(policy: &Policy, snapshot: &Snapshot, entry: &JobEntry, clock: Clock) -> Self {
        let document = JobDocument::of(entry);
        let job = &entry.job;
        let waiting = Waiting::of(entry, policy, snapshot).map(|waiting| waiting.reason);
        let failure = document.error.as_ref().map(|error| {
            format!("{} [{}]", without_folder(&error.message, &job.input), error.code)
        });
        let output = document.output.as_ref().map(|output| summary(&job.task, output));
        let waited = match document.wait_seconds {
            Some(waited) => seconds(Some(waited)),
            None if entry.state.is_final() => String::new(),
            None => clock.since(job.submitted_at),
        };
        Self {
            id: job.id.to_string(),
            state: entry.state.as_str(),
            task: within(&job.task, CELL_CHARS_MAX),
            input: input_name(job),
            submitted: clock.time(job.submitted_at),
            waited,
            ran: seconds(document.run_seconds),
            cost: cost(entry, policy, snapshot).map(money).unwrap_or_default(),
            result: within(&output.or(failure).or(waiting).unwrap_or_default(), CELL_CHARS_MAX),
            can_retry: entry.state.is_final(),
            can_cancel: !entry.state.is_final(),
        }
    }
}

impl Jobs {
    pub(crate) fn of(
        policy: &Policy,
        snapshot: &Snapshot,
        overview: &Overview,
        query: &Query,
        clock: Clock,
    ) -> Self {
        let mut entries: Vec<&JobEntry> = overview.jobs.iter().flatten().collect();
        let page = usize::try_from(PAGE_JOBS_MAX).unwrap_or(usize::MAX);
        let is_more = entries.len() > page;
        entries.truncate(page);
        let last = entries.last().filter(|_| is_more).map(|entry| JobPlace::of(&entry.job));
        let mut tasks: Vec<String> = task_names(policy);
        let task = query.task().unwrap_or_default().to_owned();
        if !task.is_empty() && !tasks.contains(&task) {
            tasks.push(task.clone());
        }
        let state = query.state();
        Self {
            rows: entries.iter().map(|entry| JobRow::of(policy, snapshot, entry, clock)).collect(),
            text: query.text().unwrap_or_default(),
            states: JobState::ALL.map(|one| (one.as_str(), state == Some(one))).to_vec(),
            state: state.map(JobState::as_str).unwrap_or_default(),
            task,
            window: query.window().as_str(),
            tasks,
            is_filtered: query.is_filtered(),
            all: query.without_filter().link(),
            newest: query.is_behind().then(|| query.with_place(None).link()),
            older: last.map(|place| query.with_place(Some(&place)).link()),
            empty: empty(policy, query),
            is_read: overview.jobs.is_some(),
        }
    }
}

/// What to do where no job is listed.
fn empty(policy: &Policy, query: &Query) -> Vec<String> {
    if query.is_behind() {
        return vec!["No older jobs.".to_owned()];
    }
    if query.is_filtered() {
        return vec![
            "No job is like that. Jobs are deleted a while after their end (`jobs_kept`)."
                .to_owned(),
        ];
    }
    if policy.queue_pools().next().is_none() {
        return vec!["No pool has a queue: give one `queue = \"jobs\"` in gpuctl.toml.".to_owned()];
    }
    vec![
        "No job yet. Send the first one:".to_owned(),
        "gpuctl submit voice.transcribe FILE.wav --wait".to_owned(),
    ]
}

/// The dead letters of a queue.
pub(crate) struct Dead {
    pub(crate) queue: String,
    pub(crate) pool: String,
    /// How many there are.
    pub(crate) count: String,
    pub(crate) is_any: bool,
    pub(crate) letters: Vec<Letter>,
    /// What is not shown.
    pub(crate) note: Option<String>,
    pub(crate) listing: String,
}

/// A dead letter.
pub(crate) struct Letter {
    /// Of its place on the page.
    pub(crate) anchor: String,
    pub(crate) job: Option<String>,
    pub(crate) sent: Time,
    pub(crate) why: String,
    pub(crate) body: String,
}

impl Dead {
    pub(crate) fn all(
        policy: &Policy,
        snapshot: &Snapshot,
        overview: &Overview,
        query: &Query,
        clock: Clock,
    ) -> Vec<Self> {
        let listing = query.with_state(JobState::Dead).link();
        let of_pool =
            |(pool, queue): (&gpuctl_core::policy::Pool, &gpuctl_core::policy::QueuePolicy)| {
                let seen = snapshot.pool(&pool.id).and_then(|(seen, _)| seen.queue.as_ref());
                let dead = seen.and_then(|seen| seen.value.as_ref()).map(|counts| counts.dead);
                let shown = overview.dead.iter().find(|(name, _)| *name == queue.name);
                let letters = shown.map(|(_, letters)| letters.as_slice());
                Self::of((&queue.name, pool.id.as_str()), dead, letters, &listing, clock)
            };
        policy.queue_pools().map(of_pool).collect()
    }

    fn of(
        (queue, pool): (&QueueName, &str),
        dead: Option<u64>,
        letters: Option<&[DeadLetter]>,
        listing: &str,
        clock: Clock,
    ) -> Self {
        let read = letters.unwrap_or_default();
        let note = match (letters, dead) {
            (None, Some(1..)) => Some(
                "Their bodies cannot be read without taking them from the queue; the jobs among them are listed."
                    .to_owned(),
            ),
            (Some(read), Some(dead)) if dead > read.len() as u64 => {
                Some(format!("The newest {DEAD_LETTERS_MAX} are shown."))
            }
            _ => None,
        };
        let dead = dead.or_else(|| letters.map(|letters| letters.len() as u64));
        let letter = |(index, letter): (usize, &DeadLetter)| {
            let anchor = format!("letter-{pool}-{index}");
            Letter::of(anchor, letter, clock)
        };
        Self {
            queue: queue.to_string(),
            pool: pool.to_owned(),
            count: dead.map_or_else(|| "unknown".to_owned(), |dead| count(dead, "dead letter")),
            is_any: dead.is_none_or(|dead| dead > 0),
            letters: read.iter().enumerate().map(letter).collect(),
            note,
            listing: listing.to_owned(),
        }
    }
}

impl Letter {
    fn of(anchor: String, letter: &DeadLetter, clock: Clock) -> Self {
        let received = match letter.receive_count {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        let why = letter.reason.clone().unwrap_or_else(|| "no worker finished it".to_owned());
        let job = job_from_json(&letter.body).ok();
        let body = match &job {
            Some(job) => without_folder(&letter.body, &job.input),
            None => letter.body.clone(),
        };
        Self {
            anchor,
            job: letter.job_id.as_ref().map(ToString::to_string),
            sent: clock.time(letter.sent_at),
            why: within(&format!("received {received}: {why}"), CELL_CHARS_MAX * 2),
            body: readable(&body, BODY_CHARS_MAX),
        }
    }
}
