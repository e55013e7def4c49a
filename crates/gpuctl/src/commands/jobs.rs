//! `jobs` and `job`: submitted jobs, their states and results.

use gpuctl_control::job::JobState;
use gpuctl_control::ports::{JobEntry, JobFilter};
use gpuctl_control::wire::job::JobDocument;

use crate::context::Context;
use crate::documents::reply::JobsDocument;
use crate::failure::{Code, Failure};
use crate::render::Output;

/// The most jobs that one listing shows or one short name is looked up in.
const LIST_MAX: u32 = 10_000;

/// `gpuctl jobs`.
pub(crate) async fn list(
    context: &Context,
    state: Option<&str>,
    limit: u32,
) -> Result<Output, Failure> {
    let state = JobState::ALL.into_iter().find(|known| Some(known.as_str()) == state);
    let jobs = context
        .ports
        .ledger
        .jobs(JobFilter { state, limit: limit.min(LIST_MAX), since: None })
        .await?;
    Ok(Output::Jobs(JobsDocument { jobs: jobs.iter().map(JobDocument::of).collect() }))
}

/// `gpuctl job ID`.
pub(crate) async fn show(context: &Context, id: &str) -> Result<Output, Failure> {
    let entry = find(context, id).await?;
    Ok(Output::Job(Box::new(JobDocument::of(&entry))))
}

async fn find(context: &Context, id: &str) -> Result<JobEntry, Failure> {
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
