//! What a page for people shows beside the state of the pools: what was spent, what ran, and which jobs there are.
//!
//! Each part is read alone, and one that cannot be read is none: nothing is shown as zero because of that.

use gpuctl_core::observation::Run;
use gpuctl_core::period::{Period, day_of, month_of};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{QueueName, Timestamp};

use crate::ports::{DeadLetter, JobEntry, JobPage, JobSpan, PortError, Ports, Totals};
use crate::snapshot::Snapshot;
use crate::spending::{self, Spending};

/// The most jobs whose waits and runs are read.
pub const SPANS_MAX: u32 = 5_000;

/// The most dead letters of a queue that are read.
pub const DEAD_LETTERS_MAX: u32 = 20;

/// What was read.
pub struct Overview {
    /// When a controller last recorded what it had seen.
    pub looked_at: Option<Timestamp>,
    /// What pools have cost, as `gpuctl status` has it.
    pub spending: Option<Vec<Spending>>,
    /// Since midnight, in UTC.
    pub today: Option<Totals>,
    /// Since the first of the month, in UTC.
    pub month: Option<Totals>,
    /// The runs that were up at or after the time that was asked for, oldest first.
    pub runs: Option<Vec<Run>>,
    /// The newest jobs of that time, newest first, at most `SPANS_MAX`.
    pub spans: Option<Vec<JobSpan>>,
    /// The page of the listing that was asked for.
    pub jobs: Option<Vec<JobEntry>>,
    /// The newest dead letters of each queue; none of a queue that does not show them.
    pub dead: Vec<(QueueName, Vec<DeadLetter>)>,
    /// What could not be read.
    pub errors: Vec<String>,
}

impl Overview {
    /// Reads what runs and jobs there were since `since`, and a page of the listing of jobs.
    pub async fn read(
        ports: &Ports,
        policy: &Policy,
        snapshot: &Snapshot,
        since: Timestamp,
        page: &JobPage,
    ) -> Self {
        let now = snapshot.observation.at;
        let until_now = |period: Period| Period { end: now, ..period };
        let ledger = &ports.ledger;
        let (looked_at, spending, today, month, runs, spans, jobs, dead) = tokio::join!(
            ledger.last_reconcile(),
            spending::of_pools(&**ledger, policy, &snapshot.observation),
            ledger.totals(until_now(day_of(now))),
            ledger.totals(until_now(month_of(now))),
            ledger.runs_since(since),
            ledger.job_spans(since, SPANS_MAX),
            ledger.jobs_page(page),
            dead_letters(ports, policy),
        );
        let mut errors = Vec::new();
        Self {
            looked_at: kept(looked_at, &mut errors).flatten(),
            spending: kept(spending, &mut errors),
            today: kept(today, &mut errors),
            month: kept(month, &mut errors),
            runs: kept(runs, &mut errors),
            spans: kept(spans, &mut errors),
            jobs: kept(jobs, &mut errors),
            dead: kept(dead, &mut errors).unwrap_or_default(),
            errors,
        }
    }
}

async fn dead_letters(
    ports: &Ports,
    policy: &Policy,
) -> Result<Vec<(QueueName, Vec<DeadLetter>)>, PortError> {
    let mut dead = Vec::new();
    for (_, queue) in policy.queue_pools() {
        if let Some(letters) = ports.queue.dead_letters(&queue.name, DEAD_LETTERS_MAX).await? {
            dead.push((queue.name.clone(), letters));
        }
    }
    Ok(dead)
}

/// What was read, or a note of why it was not.
fn kept<T>(read: Result<T, PortError>, errors: &mut Vec<String>) -> Option<T> {
    read.map_err(|error| {
        let error = error.to_string();
        if !errors.contains(&error) {
            errors.push(error);
        }
    })
    .ok()
}
