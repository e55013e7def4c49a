//! Cancelling a job: it ends without a worker's result, whether it waits or runs.
//!
//! The cancellation is kept where a result would be, by the same write that keeps only the first: a job has either.

use gpuctl_core::units::Timestamp;

use crate::job::{JobResult, JobState};
use crate::ports::{JobEntry, PortError, PortErrorClass, Ports};

/// What came of a cancellation.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// The job has ended, and will have no result. It is cancelled also where it was before.
    Done(JobEntry),
    /// It had ended otherwise before.
    AlreadyEnded(JobEntry),
}

/// How often a user may have a job sent again while it is cancelled: each time is a generation that must be cancelled in turn.
const GENERATIONS_MAX: u32 = 3;

/// Cancels the newest generation of a job that is known, and those that are sent meanwhile.
///
/// # Errors
/// The ledger fails; the job may be cancelled then. Or it was sent again and again meanwhile (`Conflict`).
pub async fn cancel(
    ports: &Ports,
    entry: &JobEntry,
    by: &str,
    at: Timestamp,
) -> Result<Cancelled, PortError> {
    let mut entry = entry.clone();
    for _ in 0..GENERATIONS_MAX {
        if entry.state.is_final() {
            return Ok(ended(entry));
        }
        let word = JobResult::cancelled(entry.job.clone(), by, at);
        ports.ledger.cancel(&word).await?;
        // It may have ended before and been sent again since: what counts is its newest generation.
        match ports.ledger.job(&entry.job.id).await? {
            Some(now) => entry = now,
            None => {
                return Ok(ended(JobEntry { state: word.state(), result: Some(word), ..entry }));
            }
        }
    }
    if entry.state.is_final() {
        return Ok(ended(entry));
    }
    let what = format!("job {} was sent again while it was cancelled", entry.job.id);
    Err(PortError::new(PortErrorClass::Conflict, what).hint("give the command again"))
}

fn ended(entry: JobEntry) -> Cancelled {
    match entry.state {
        JobState::Cancelled => Cancelled::Done(entry),
        _ => Cancelled::AlreadyEnded(entry),
    }
}
