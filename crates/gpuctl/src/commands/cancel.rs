//! `cancel`: ends jobs that wait or run.

use gpuctl_control::cancel::{Cancelled, cancel as cancel_job};
use gpuctl_control::ports::JobEntry;

use super::retry::named;
use crate::context::{Context, user};
use crate::documents::reply::{CancelledDocument, CancelledJob};
use crate::failure::{Code, Exit, Failure};
use crate::render::{Output, Printer};

/// `gpuctl cancel JOB…`. Of several jobs those that have ended, or cannot be cancelled, keep none of the others; one that was cancelled before is left so, and
/// the command may be repeated.
pub(super) async fn cancel(
    context: &Context,
    printer: &Printer,
    ids: &[String],
) -> Result<Output, Failure> {
    let mut jobs = Vec::with_capacity(ids.len());
    let mut failures = Vec::new();
    for entry in named(context, ids).await? {
        match cancel_job(&context.ports, &entry, &user(), context.now()).await {
            Ok(Cancelled::Done(entry)) => jobs.push(line(&entry, "cancelled")),
            Ok(Cancelled::AlreadyEnded(entry)) => {
                failures.push(ended(&entry));
                jobs.push(line(&entry, "left alone"));
            }
            // Whether it is cancelled is not known.
            Err(error) => {
                failures.push(Failure::from(&error));
                jobs.push(line(&entry, "failed"));
            }
        }
    }
    if jobs.len() == 1
        && let Some(failure) = failures.pop()
    {
        return Err(failure);
    }
    failures.iter().for_each(|failure| printer.report_failure(failure));
    let output = Output::Cancelled(CancelledDocument { jobs });
    Ok(if failures.is_empty() { output } else { output.exit(Exit::Failed) })
}

fn line(entry: &JobEntry, outcome: &'static str) -> CancelledJob {
    CancelledJob {
        job_id: entry.job.id.to_string(),
        generation: entry.job.generation,
        state: entry.state.as_str(),
        outcome,
    }
}

fn ended(entry: &JobEntry) -> Failure {
    let (id, state) = (&entry.job.id, entry.state.as_str());
    Failure::new(Code::JobEnded, format!("job {id} has already ended: it is {state}"))
        .hint(format!("`gpuctl job {id}` shows what came of it"))
}
