//! `retry`: sends jobs that are over again, each as its next generation.

use gpuctl_control::ports::{JobEntry, JobFilter};
use gpuctl_control::submit::{next_generation, resubmit};

use super::jobs::{LIST_MAX, find, state};
use crate::arguments::RetryArguments;
use crate::context::Context;
use crate::documents::reply::{RetriedDocument, RetriedJob};
use crate::failure::{Code, Failure};
use crate::render::{Output, Printer};

/// The most jobs that are looked through for those with a code.
const SEARCHED_MAX: u32 = 1_000_000;

/// `gpuctl retry`. A job that waits or runs is left alone, so that the command may be repeated.
pub(super) async fn retry(
    context: &Context,
    printer: &Printer,
    wanted: &RetryArguments,
) -> Result<Output, Failure> {
    let entries = if wanted.jobs.is_empty() {
        of_state(context, wanted).await?
    } else {
        named(context, &wanted.jobs).await?
    };
    let (entries, without_queue): (Vec<JobEntry>, Vec<JobEntry>) =
        entries.into_iter().partition(|entry| has_queue(context, entry));
    if let Some(first) = without_queue.first() {
        let failure = no_queue(first);
        // Of many the others are sent; a user who names a job wants that one.
        if entries.is_empty() || !wanted.jobs.is_empty() {
            return Err(failure);
        }
        printer.report_failure(&failure);
    }
    let (over, open): (Vec<JobEntry>, Vec<JobEntry>) =
        entries.into_iter().partition(|entry| entry.state.is_final());
    let chosen = &over[..over.len().min(wanted.limit as usize)];
    let jobs = next_generation(chosen);
    if !wanted.dry_run && !jobs.is_empty() {
        resubmit(&context.ports, &jobs).await.map_err(|error| Failure {
            code: Code::JobNotSent,
            ..Failure::from(&error).hint("give the command again: it leaves alone what was sent")
        })?;
        context.reconcile_until_free(printer).await;
    }
    let outcome = if wanted.dry_run { "would be sent" } else { "sent" };
    let sent = jobs
        .iter()
        .zip(chosen)
        .map(|(job, entry)| RetriedJob { generation: job.generation, ..retried(entry, outcome) });
    let left = open.iter().chain(&without_queue).map(|entry| retried(entry, "left alone"));
    Ok(Output::Retried(RetriedDocument {
        sent: jobs.len(),
        jobs: sent.chain(left).collect(),
        beyond_limit: over.len() - chosen.len(),
    }))
}

fn retried(entry: &JobEntry, outcome: &'static str) -> RetriedJob {
    RetriedJob {
        job_id: entry.job.id.to_string(),
        generation: entry.job.generation,
        state: entry.state.as_str(),
        outcome,
    }
}

/// The jobs of these ids, each once.
pub(super) async fn named(context: &Context, ids: &[String]) -> Result<Vec<JobEntry>, Failure> {
    let mut entries: Vec<JobEntry> = Vec::with_capacity(ids.len());
    for id in ids {
        let entry = find(context, id).await?;
        if entries.iter().all(|known| known.job.id != entry.job.id) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

async fn of_state(context: &Context, wanted: &RetryArguments) -> Result<Vec<JobEntry>, Failure> {
    let since = wanted.since.as_ref().map(|text| context.time_or_age(text)).transpose()?;
    let has_code = |entry: &JobEntry| {
        wanted.code.is_empty()
            || code(entry).is_some_and(|code| wanted.code.iter().any(|c| c == code))
    };
    let mut limit = LIST_MAX;
    loop {
        let filter = JobFilter { state: state(wanted.state.as_deref()), limit, since };
        let mut entries = context.ports.ledger.jobs(filter).await?;
        let is_all = entries.len() < limit as usize;
        entries.retain(has_code);
        // Those with another code may have filled the listing.
        if is_all || entries.len() >= wanted.limit as usize || limit >= SEARCHED_MAX {
            return Ok(entries);
        }
        limit *= 10;
    }
}

/// Why the job has no output: the code of its result, or of what was noted of it.
fn code(entry: &JobEntry) -> Option<&str> {
    let of_result = entry.result.as_ref().and_then(|result| result.outcome.as_ref().err());
    of_result.or(entry.problem.as_ref()).map(|failure| failure.code.as_str())
}

/// Whether a pool of the configuration has the job's queue: else it would never be received.
fn has_queue(context: &Context, entry: &JobEntry) -> bool {
    context.config.policy.queue_pools().any(|(_, queue)| queue.name == entry.job.queue)
}

fn no_queue(entry: &JobEntry) -> Failure {
    let (id, queue) = (&entry.job.id, &entry.job.queue);
    let message = format!("no pool has the queue `{queue}` of job {id}");
    Failure::new(Code::PoolNoQueue, message)
        .hint("add a pool with this queue, or submit the input again")
}
