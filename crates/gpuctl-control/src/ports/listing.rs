//! Jobs as they are listed: which of them, and what is told of each.

use gpuctl_core::units::{BoxId, Timestamp};

use crate::job::{Job, JobFailure, JobId, JobResult, JobState};

/// A job, its state and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct JobEntry {
    pub job: Job,
    pub state: JobState,
    /// The result of its newest generation, once it has one.
    pub result: Option<JobResult>,
    /// Why it has no result, if that was noted.
    pub problem: Option<JobFailure>,
}

/// When a job waited and ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpan {
    pub submitted_at: Timestamp,
    /// Where it ran, if it has a result of a worker.
    pub ran: Option<JobRan>,
    /// Whether it waits or runs.
    pub is_open: bool,
}

/// Where and when a worker had a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRan {
    pub box_id: BoxId,
    pub received_at: Timestamp,
    pub finished_at: Timestamp,
}

impl JobSpan {
    pub(super) fn of(entry: &JobEntry) -> Self {
        let result = entry.result.as_ref().filter(|result| result.is_of_worker());
        let ran = |result: &JobResult| JobRan {
            box_id: result.box_id.clone(),
            received_at: result.received_at,
            finished_at: result.finished_at,
        };
        Self {
            submitted_at: entry.job.submitted_at,
            ran: result.map(ran),
            is_open: !entry.state.is_final(),
        }
    }
}

/// Which jobs to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Maximum number of jobs.
    pub limit: u32,
    /// Only those submitted at or after this.
    pub since: Option<Timestamp>,
}

/// A part of a listing of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPage {
    pub filter: JobFilter,
    /// Only jobs of this task.
    pub task: Option<String>,
    /// Only jobs of which the id, input, params, task, model or error has this text, in capital letters or small ones.
    pub text: Option<String>,
    /// The last job of the page before.
    pub after: Option<JobPlace>,
}

/// Where a job is in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlace {
    pub submitted_at: Timestamp,
    pub id: JobId,
}

impl JobPlace {
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { submitted_at: job.submitted_at, id: job.id.clone() }
    }
}

impl JobPage {
    /// Whether the job is behind the page before, of the wanted task, and has the wanted text.
    pub(super) fn has(&self, entry: &JobEntry) -> bool {
        let job = &entry.job;
        let is_behind = self
            .after
            .as_ref()
            .is_none_or(|after| (job.submitted_at, &job.id) < (after.submitted_at, &after.id));
        let is_of_task = self.task.as_ref().is_none_or(|task| *task == job.task);
        is_behind && is_of_task && self.text.as_ref().is_none_or(|text| has_text(entry, text))
    }
}

/// Whether what is searched of a job has the text.
fn has_text(entry: &JobEntry, text: &str) -> bool {
    let (job, text) = (&entry.job, text.to_lowercase());
    let failure = match &entry.result {
        Some(result) => result.outcome.as_ref().err(),
        None => entry.problem.as_ref(),
    };
    let (name, params) = (job.input.file_name(), job.params.values().map(ToString::to_string));
    let mut parts = vec![job.id.to_string(), job.task.clone(), job.input.as_str().to_owned(), name];
    parts.extend(params.chain(job.model.clone()));
    parts.extend(failure.into_iter().flat_map(|why| [why.code.clone(), why.message.clone()]));
    parts.iter().any(|part| part.to_lowercase().contains(&text))
}
