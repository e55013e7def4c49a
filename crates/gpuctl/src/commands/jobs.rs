//! `jobs`, `job` and `jobs delete`: submitted jobs, their states and results.

use gpuctl_control::job::JobState;
use gpuctl_control::ports::{JOBS_DELETED_MAX, JobEntry, JobFilter};
use gpuctl_control::wire::job::JobDocument;

use super::backup;
use crate::arguments::{JobsArguments, JobsCommand};
use crate::context::Context;
use crate::documents::reply::{DeletedDocument, JobsDocument};
use crate::failure::{Code, Failure};
use crate::render::{Output, Printer};

/// The most jobs that one listing shows or one short name is looked up in.
pub(super) const LIST_MAX: u32 = 10_000;

/// `gpuctl jobs`.
pub(super) async fn run(
    context: &Context,
    printer: &Printer,
    wanted: &JobsArguments,
) -> Result<Output, Failure> {
    match &wanted.command {
        Some(JobsCommand::Delete { before }) => delete(context, printer, before).await,
        Some(JobsCommand::Export { folder, since }) => {
            backup::export(context, printer, folder, *since).await
        }
        None => list(context, wanted).await,
    }
}

async fn list(context: &Context, wanted: &JobsArguments) -> Result<Output, Failure> {
    let state = state(wanted.state.as_deref());
    let filter = JobFilter { state, limit: wanted.limit.min(LIST_MAX), since: None };
    let jobs = context.ports.ledger.jobs(filter).await?;
    Ok(Output::Jobs(JobsDocument { jobs: jobs.iter().map(JobDocument::of).collect() }))
}

/// The state of this name.
pub(super) fn state(name: Option<&str>) -> Option<JobState> {
    JobState::ALL.into_iter().find(|known| Some(known.as_str()) == name)
}

/// `gpuctl jobs delete`: each part of the jobs with their results, then their files.
async fn delete(context: &Context, printer: &Printer, before: &str) -> Result<Output, Failure> {
    let before = context.time_or_age(before)?;
    printer.confirm(&format!(
        "delete every job that is over and was submitted before {}, with its results and files?",
        before.to_rfc3339()
    ))?;
    let mut jobs = 0;
    loop {
        let deleted = context.ports.ledger.delete_jobs(before).await?;
        for id in &deleted {
            context.ports.files.remove(id, None).await?;
        }
        jobs += deleted.len();
        if deleted.is_empty() {
            return Ok(Output::Deleted(DeletedDocument { jobs, before: before.to_rfc3339() }));
        }
        if deleted.len() >= JOBS_DELETED_MAX {
            printer.note(&format!("{jobs} jobs deleted so far"));
        }
    }
}

/// `gpuctl job ID`.
pub(super) async fn show(context: &Context, id: &str) -> Result<Output, Failure> {
    let entry = find(context, id).await?;
    let results = context.ports.ledger.results(&entry.job.id).await?;
    Ok(Output::Job(Box::new(JobDocument::of(&entry).with_earlier(&results))))
}

/// The job of this id, or of this beginning or end of one.
pub(super) async fn find(context: &Context, id: &str) -> Result<JobEntry, Failure> {
    if let Ok(exact) = id.parse()
        && let Some(entry) = context.ports.ledger.job(&exact).await?
    {
        return Ok(entry);
    }
    let recent =
        context.ports.ledger.jobs(JobFilter { state: None, limit: LIST_MAX, since: None }).await?;
    // The beginning of an id is its time, so jobs submitted together differ only at the end: either end may be given.
    let fits = |entry: &JobEntry| {
        entry.job.id.as_str().starts_with(id) || entry.job.id.as_str().ends_with(id)
    };
    let mut found: Vec<JobEntry> = recent.into_iter().filter(fits).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(Code::JobUnknown, format!("there is no job `{id}`"))
            .hint("`gpuctl jobs` lists them")),
        many => Err(Failure::new(Code::JobAmbiguous, format!("`{id}` matches {many} jobs"))
            .hint("give more characters of the id")),
    }
}
