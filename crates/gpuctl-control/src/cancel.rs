//! Cancelling a job: it ends without a worker's result, whether it waits or runs.
//!
//! The cancellation is kept where a result would be, by the same write that keeps only the first: a job has either.

use gpuctl_core::units::Timestamp;

use crate::job::{JobResult, JobState};
use crate::ports::{Committed, JobEntry, PortError, Ports};

/// What came of a cancellation.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// The job has ended, and will have no result. It is cancelled also where it was before.
    Done(JobEntry),
    /// It had ended otherwise before.
    AlreadyEnded(JobEntry),
}

/// Cancels the newest generation of a job that is known.
///
/// # Errors
/// The ledger fails; the job may be cancelled then.
pub async fn cancel(
    ports: &Ports,
    entry: &JobEntry,
    by: &str,
    at: Timestamp,
) -> Result<Cancelled, PortError> {
    if entry.state.is_final() {
        return Ok(ended(entry.clone()));
    }
    let result = JobResult::cancelled(entry.job.clone(), by, at);
    if ports.ledger.cancel(&result).await? == Committed::Written {
        let state = JobState::Cancelled;
        let (result, problem) = (Some(result), None);
        return Ok(Cancelled::Done(JobEntry { state, result, problem, ..entry.clone() }));
    }
    let now = ports.ledger.job(&entry.job.id).await?;
    Ok(ended(now.unwrap_or_else(|| entry.clone())))
}

fn ended(entry: JobEntry) -> Cancelled {
    match entry.state {
        JobState::Cancelled => Cancelled::Done(entry),
        _ => Cancelled::AlreadyEnded(entry),
    }
}
