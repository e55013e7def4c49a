//! The ports: five small traits through which gpuctl reads and changes everything outside it, and their error with a class that callers
//! branch on.
//!
//! Each method says what its adapters guarantee; `contract` tests it.

mod files;
mod listing;
mod report;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_core::cost::{RunTotal, run_totals};
use gpuctl_core::observation::{Hold, Run, SeenBox, SeenQueue, UrgentJob};
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::period::Period;
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, PoolId, QueueName, Timestamp};

use crate::input::InputRejected;
use crate::job::{Job, JobFailure, JobId, JobResult, JobState};
use crate::keys::{ApiKey, KeyChange, KeyName};
use crate::wire::record::Record;

pub use files::{AttemptName, Fetched, FileStore, NoFiles, ResultFile, Upload, WorkingFile};
pub use listing::{JobEntry, JobFilter, JobPage, JobPlace, JobRan, JobSpan};
pub use report::WorkerReport;

/// The ports together; cloning shares them.
#[derive(Clone)]
pub struct Ports {
    pub cloud: Arc<dyn Cloud>,
    pub queue: Arc<dyn JobQueue>,
    pub ledger: Arc<dyn Ledger>,
    pub clock: Arc<dyn Clock>,
    /// Inputs and results that are files.
    pub files: Arc<dyn FileStore>,
}

/// Where the time comes from: nothing else may read a clock for a decision.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The boxes: listing, starting and stopping them.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Every box of every pool, also those that never ran. A pool that is missing from the listing could not be read. This only
    /// reads: `status` calls it.
    async fn boxes(&self, policy: &Policy) -> Result<Listing, PortError>;

    /// Notes that these boxes of a listing were seen alive. A cloud that does not record when a box ends takes its end from the last
    /// note; others keep this default.
    async fn note_alive(&self, _boxes: &[BoxId]) -> Result<(), PortError> {
        Ok(())
    }

    /// Starts a stopped box. The same order twice starts it once; a box that is not stopped is a `Conflict`.
    async fn start(&self, order: &StartOrder) -> Result<(), PortError>;

    /// Asks a box to stop, or ends it. A box that is stopped already is a success.
    async fn stop(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError>;

    /// Terminates a box with its disk, after its spot request, or the cloud would launch another one (P5). Only for a user who asks
    /// for it, for boxes that are launched for each run, and for those that `retire_stopped_after` ends. The box must have been in the last listing.
    async fn retire(&self, box_id: &BoxId) -> Result<(), PortError> {
        let what = format!("box {box_id} is a process of this machine");
        Err(PortError::new(PortErrorClass::Conflict, what)
            .hint("stop its pool: a process leaves nothing to terminate"))
    }

    /// Cancels what costs money and belongs to no box any more, e.g. an open spot request (P15); returns a sentence for each.
    async fn cancel_orphans(&self) -> Result<Vec<String>, PortError> {
        Ok(Vec::new())
    }
}

/// The boxes of each pool, and why others could not be read: one bad id must not hide the other pools (S5, R8).
#[derive(Debug, Default)]
pub struct Listing {
    /// The boxes of each pool that could be read.
    pub pools: BTreeMap<PoolId, Vec<SeenBox>>,
    /// Boxes that are gone for good while the cloud still lists them: nothing is decided about them, but what they cost counts.
    pub gone: BTreeMap<PoolId, Vec<SeenBox>>,
    /// Why pools are missing.
    pub errors: Vec<PortError>,
}

/// An order to start a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOrder {
    pub pool: PoolId,
    pub box_id: BoxId,
    /// When it was given. Box and time together are the key of the run.
    pub at: Timestamp,
    /// Equal for equal orders, so that an order that is repeated does nothing.
    pub token: String,
}

/// Messages, with SQS's semantics: at least once, under a lease, dead-lettered after too many receives.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Adds messages, at most `SEND_BATCH_MAX`: all or none, except on SQS, where an error may leave some in the queue, and names
    /// those that are not.
    async fn send(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError>;

    /// Takes up to `request.max` visible messages under a lease, as `Priority::order` says, waiting up to `request.wait` for the first.
    async fn receive(
        &self,
        queue: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError>;

    /// Makes each lease last `visibility` from now; zero releases the messages to the queue at once. One result for each receipt, in
    /// their order: a lost lease is `LeaseLost`, and does not keep the others.
    async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>>;

    /// Releases messages whose jobs were not tried: they are visible at once and, where the queue can, this receive does not count. One
    /// result for each receipt, as with `change_visibility`.
    async fn give_back(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        self.change_visibility(receipts, TimeDelta::zero()).await
    }

    /// Deletes messages for good. One result for each receipt, in their order; a lost lease is `LeaseLost`.
    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>>;

    /// `change_visibility` of one lease.
    async fn change_one(&self, receipt: &Receipt, visibility: TimeDelta) -> Result<(), PortError> {
        only(self.change_visibility(std::slice::from_ref(receipt), visibility).await)
    }

    /// `ack` of one message.
    async fn ack_one(&self, receipt: &Receipt) -> Result<(), PortError> {
        only(self.ack(std::slice::from_ref(receipt)).await)
    }

    /// Moves a held message to the dead letters now, with the reason. A lost lease is `LeaseLost`.
    async fn bury(
        &self,
        queue: &QueueName,
        message: &Received,
        reason: &str,
    ) -> Result<(), PortError>;

    /// Counts and the age of the oldest visible message; `empty_since` is the ledger's and left open here.
    async fn counts(&self, queue: &QueueName) -> Result<SeenQueue, PortError>;

    /// Moves every dead message back, with its receive count at zero; returns how many.
    async fn redrive(&self, queue: &QueueName) -> Result<u64, PortError>;

    /// The newest dead letters of the queue, at most `limit`; `None` where the queue cannot show them without taking them.
    async fn dead_letters(
        &self,
        _queue: &QueueName,
        _limit: u32,
    ) -> Result<Option<Vec<DeadLetter>>, PortError> {
        Ok(None)
    }

    /// Deletes every live message of the queue, or every dead one; returns how many.
    async fn purge(&self, queue: &QueueName, which: Purge) -> Result<u64, PortError>;
}

fn only<T>(results: Vec<Result<T, PortError>>) -> Result<T, PortError> {
    results.into_iter().next().unwrap_or_else(|| {
        Err(PortError::new(PortErrorClass::Other, "a port returned no result for its only entry"))
    })
}

/// Most messages in one send: SQS's limit.
pub const SEND_BATCH_MAX: usize = 10;

/// Which messages a purge deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Those that are waiting or in flight.
    Live,
    /// Those in the dead-letter queue.
    Dead,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    pub body: String,
    /// Names and values beside it, as in SQS.
    pub attributes: Vec<(String, String)>,
    /// How long it stays invisible first; SQS allows up to 15 minutes.
    pub delay: TimeDelta,
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveRequest {
    /// Maximum number of messages. SQS returns at most 10 a call: where there are more, several calls are made.
    pub max: u32,
    /// The lease's length.
    pub visibility: TimeDelta,
    /// How long to wait for the first message; SQS allows up to 20 s.
    pub wait: TimeDelta,
}

/// A message under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Proof of the lease.
    pub receipt: Receipt,
    pub body: String,
    /// Names and values beside it.
    pub attributes: Vec<(String, String)>,
    /// How often it was received, counting this time.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
}

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Of a message that is a job.
    pub job_id: Option<JobId>,
    pub body: String,
    pub sent_at: Timestamp,
    /// How often it was received.
    pub receive_count: u32,
    /// Why it was given up, if not for that number alone.
    pub reason: Option<String>,
}

/// Proof of a lease; a later receive of the same message makes it void.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

/// What gpuctl remembers: the right to reconcile, holds, runs, jobs and records.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Takes the right to reconcile for `lasts`; `None` if another controller has it.
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError>;

    /// Releases the right to reconcile, unless another has taken it since.
    async fn release(&self, fence: &Fence) -> Result<(), PortError>;

    /// What is remembered of a pool: its hold, its latest runs, and its queue as last read.
    async fn memory(&self, pool: &PoolId) -> Result<PoolMemory, PortError>;

    /// Replaces what is remembered of the pool's queue. A fence older than that of the last write is a `Conflict`, and changes
    /// nothing; a worker, which reconciles its own box without the lease, has none.
    async fn remember_queue(
        &self,
        pool: &PoolId,
        queue: &QueueMemory,
        fence: Option<&Fence>,
    ) -> Result<(), PortError>;

    /// Sets a hold in place of an older one on its pool. One whose `since` is later stays: that is a `Conflict`.
    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError>;

    /// Notes a request of a sender that may deliver it again, and returns when it was noted first. After `lasts` it counts as another,
    /// and is noted anew. A ledger that no such sender reaches keeps this default.
    async fn first_seen(
        &self,
        _request: &str,
        now: Timestamp,
        _lasts: TimeDelta,
    ) -> Result<Timestamp, PortError> {
        Ok(now)
    }

    /// The keys of the HTTP API by name, revoked ones included. A ledger that no API works with keeps this default, and has none.
    async fn keys(&self) -> Result<Vec<ApiKey>, PortError> {
        Ok(Vec::new())
    }

    /// Adds a key. Where its name is taken, or there are `KEYS_MAX`, that is a `Conflict`.
    async fn add_key(&self, _key: &ApiKey) -> Result<(), PortError> {
        Err(PortError::new(PortErrorClass::Other, "this ledger keeps no keys"))
    }

    /// Changes a key; one that is not there is `NotFound`.
    async fn change_key(&self, name: &KeyName, _change: KeyChange) -> Result<(), PortError> {
        Err(crate::keys::unknown(name))
    }

    /// Adds a run, or fills in what an earlier version of it left open. What is set already stays. The fence as in `remember_queue`.
    async fn save_run(&self, run: &Run, fence: Option<&Fence>) -> Result<(), PortError>;

    /// The runs that were up at or after `since`, oldest first.
    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError>;

    /// Adds a record. One that says the same as the last is counted there instead. The fence as in `remember_queue`.
    async fn record(&self, record: &Record, fence: &Fence) -> Result<(), PortError>;

    /// Adds the last record of a reconcile, and releases the right to it, also where the record cannot be added.
    async fn finish(&self, record: &Record, fence: &Fence) -> Result<(), PortError> {
        let recorded = self.record(record, fence).await;
        self.release(fence).await?;
        recorded
    }

    /// When the last recorded reconcile observed, of any controller; `None` if there is no record.
    async fn last_reconcile(&self) -> Result<Option<Timestamp>, PortError>;

    /// Claims the right to publish a notice: `true` if none of this key was claimed within `again_after`. It counts as claimed then.
    async fn claim_notice(&self, key: &str, again_after: TimeDelta) -> Result<bool, PortError>;

    /// Notes a worker's report on itself.
    async fn report(&self, report: &WorkerReport) -> Result<(), PortError>;

    /// The latest report of each of these boxes' workers: of a box with several devices one for each. Where the cloud lists boxes with their workers this default is kept.
    async fn reports(&self, _boxes: &[BoxId]) -> Result<Vec<WorkerReport>, PortError> {
        Ok(Vec::new())
    }

    /// Notes that jobs were submitted. A job that is known already stays as it is, unless this is a newer generation of it.
    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError>;

    /// Notes that a worker has begun a job, unless a newer generation of it is known, or this one has ended. A ledger that can read the
    /// queue's messages, whose redrive leaves older generations out, and whose `cancel` deletes the message, keeps this default.
    async fn began(&self, _job: &Job, _attempt: &Attempt) -> Result<Began, PortError> {
        Ok(Began::Newest)
    }

    /// Notes that a user has purged or redriven the queue, from which its jobs' states follow. Defaults as `began` does.
    async fn queue_changed(
        &self,
        _queue: &QueueName,
        _change: QueueChange,
    ) -> Result<(), PortError> {
        Ok(())
    }

    /// Keeps each result, unless its generation of the job has one: then that one stays, and `AlreadyThere` is returned. One outcome
    /// for each result, in their order.
    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>>;

    /// `commit`, and where a result is written the ack of the message under its receipt, in the same durable write. A ledger that is no
    /// queue keeps this default, which acks none: that is up to the caller, as it is for a result that was there, or a lost lease.
    async fn commit_and_ack(
        &self,
        ended: &[(JobResult, Receipt)],
    ) -> Vec<Result<Ended, PortError>> {
        let results: Vec<JobResult> = ended.iter().map(|(result, _)| result.clone()).collect();
        let unacked = |committed| Ended { committed, is_acked: false };
        self.commit(&results).await.into_iter().map(|one| one.map(unacked)).collect()
    }

    /// `commit` of one result.
    async fn commit_one(&self, result: &JobResult) -> Result<Committed, PortError> {
        only(self.commit(std::slice::from_ref(result)).await)
    }

    /// `commit_and_ack` of one result.
    async fn commit_and_ack_one(
        &self,
        result: &JobResult,
        receipt: &Receipt,
    ) -> Result<Ended, PortError> {
        only(self.commit_and_ack(&[(result.clone(), receipt.clone())]).await)
    }

    /// Ends a job as cancelled: keeps a result as [`JobResult::cancelled`] makes it, unless its generation has one. A ledger that can
    /// delete the message does so in the same write; elsewhere the worker that has it is told by `began` or `have_ended`, and acks it.
    async fn cancel(&self, cancelled: &JobResult) -> Result<Committed, PortError> {
        self.commit_one(cancelled).await
    }

    /// Of the jobs in this queue that no worker has begun, the one with the least patience of its own. A ledger without such jobs keeps this.
    async fn most_urgent(&self, _queue: &QueueName) -> Result<Option<UrgentJob>, PortError> {
        Ok(None)
    }

    /// Whether these generations of jobs, which a worker holds, have ended without it; in their order. A ledger whose `cancel` deletes the
    /// message keeps this default: there the worker's lease is lost.
    async fn have_ended(&self, held: &[(JobId, u32)]) -> Result<Vec<bool>, PortError> {
        Ok(vec![false; held.len()])
    }

    /// Notes why a job has no result. The newest note is kept until there is one.
    async fn note_problem(&self, problem: &JobProblem) -> Result<(), PortError>;

    /// One job in its newest generation, if it is known.
    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError>;

    /// The results of all generations of a job, newest first.
    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError>;

    /// Deletes jobs that have ended and were submitted before this, with their results, at most `JOBS_DELETED_MAX`; returns which. Their
    /// files stay, and so do dead jobs, whose messages are still in the dead letters. After an error in between those that are gone are
    /// returned, and none of them again.
    async fn delete_jobs(&self, before: Timestamp) -> Result<Vec<JobId>, PortError>;

    /// The newest jobs, newest first.
    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError>;

    /// The next page of a listing, newest first. A store that can begin in the middle keeps no default: this one reads what comes before.
    async fn jobs_page(&self, page: &JobPage) -> Result<Vec<JobEntry>, PortError> {
        let mut limit = page.filter.limit;
        loop {
            let listed = self.jobs(JobFilter { limit, ..page.filter }).await?;
            let is_all = listed.len() < limit as usize || limit >= PAGE_JOBS_MAX;
            let mut wanted: Vec<JobEntry> =
                listed.into_iter().filter(|entry| page.has(entry)).collect();
            if is_all || wanted.len() >= page.filter.limit as usize {
                wanted.truncate(page.filter.limit as usize);
                return Ok(wanted);
            }
            limit = limit.saturating_mul(4).min(PAGE_JOBS_MAX);
        }
    }

    /// When the newest `limit` jobs of those submitted at or after `since` waited and ran, newest first. A store that can read that without
    /// the results keeps no default.
    async fn job_spans(&self, since: Timestamp, limit: u32) -> Result<Vec<JobSpan>, PortError> {
        let filter = JobFilter { state: None, limit, since: Some(since) };
        Ok(self.jobs(filter).await?.iter().map(JobSpan::of).collect())
    }

    /// What the jobs that were submitted in a period, and the runs in it, add up to. A store that can add up keeps no default: this one
    /// reads each of them.
    async fn totals(&self, period: Period) -> Result<Totals, PortError> {
        let filter = JobFilter { state: None, limit: TOTALS_JOBS_MAX, since: Some(period.begin) };
        let mut jobs = self.jobs(filter).await?;
        jobs.retain(|entry| entry.job.submitted_at < period.end);
        let mut runs = self.runs_since(period.begin).await?;
        runs.retain(|run| run.started_at < period.end);
        Ok(Totals::of(&jobs, run_totals(&runs, period)))
    }
}

/// The most jobs that are read for a page.
const PAGE_JOBS_MAX: u32 = 100_000;

/// The most jobs that are read to add them up.
const TOTALS_JOBS_MAX: u32 = 1_000_000;

/// What the jobs and runs of a period add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// When the first job was submitted.
    pub first_job: Option<Timestamp>,
    /// How many jobs are in each state; `Running` counts as `Queued`.
    pub states: BTreeMap<JobState, u32>,
    /// From submission to receipt by a worker, of jobs with a result; sorted.
    pub waits: Vec<TimeDelta>,
    pub runs: Vec<RunTotal>,
}

impl Totals {
    fn of(jobs: &[JobEntry], runs: Vec<RunTotal>) -> Self {
        let first_job = jobs.iter().map(|entry| entry.job.submitted_at).min();
        let mut states = BTreeMap::new();
        for entry in jobs {
            *states.entry(entry.state.unless_running()).or_default() += 1;
        }
        let wait = |entry: &JobEntry| {
            let result = entry.result.as_ref().filter(|result| result.is_of_worker())?;
            Some(result.received_at - entry.job.submitted_at)
        };
        let mut waits: Vec<TimeDelta> = jobs.iter().filter_map(wait).collect();
        waits.sort_unstable();
        Self { first_job, states, waits, runs }
    }
}

/// The most jobs that one call deletes: a caller goes on until a call returns none.
pub const JOBS_DELETED_MAX: usize = 1_000;

/// How long a controller may hold the right to reconcile: longer than an observation may take. A controller that dies while it holds
/// the right blocks the others for at most this long, and one that is slower than this does nothing more.
pub const LEASE_LASTS: TimeDelta = TimeDelta::seconds(15);

/// The right to reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub owner: String,
    /// Greater than that of any holder before.
    pub number: i64,
    /// When it ends, by the ledger's clock.
    pub until: Timestamp,
}

/// What the ledger remembers of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolMemory {
    /// Its hold, in force or expired.
    pub hold: Option<Hold>,
    /// Its latest runs, newest first: `RUNS_REMEMBERED_MAX` and those that are still open.
    pub runs: Vec<Run>,
    /// Its queue, as last read.
    pub queue: Option<QueueMemory>,
    /// How long its model is busy with one job: a moving mean, which each result moves by one `SERVICE_WEIGHT`th.
    pub service: Option<TimeDelta>,
}

/// The weight of the past in the moving mean of a job's time: it smooths over some dozens of jobs, and follows a change of task.
pub const SERVICE_WEIGHT: u32 = 16;

/// A queue as it was last read, for when it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMemory {
    pub seen: SeenQueue,
    /// When the counts were read.
    pub at: Timestamp,
}

/// A worker's try at a job, for ledgers that cannot read the queue's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub box_id: BoxId,
    /// Which try this is, from 1.
    pub number: u32,
    /// How many tries there are until the job is dead.
    pub of: u32,
    pub at: Timestamp,
    /// When it is over at the latest, also if the worker was interrupted.
    pub until: Timestamp,
}

/// Whether a worker should go on with the job that it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// This is the job's newest generation that is known.
    Newest,
    /// A user has had the job sent again since: no one waits for this generation.
    Superseded,
    /// This generation has its result: a user has cancelled it, or another delivery was faster.
    Ended,
}

/// What a user did to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueChange {
    Purged(Purge),
    /// Moved the dead messages back.
    Redriven,
}

/// Why a job has no result: it crashed its worker, or its message cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct JobProblem {
    /// Of a message that cannot be read: what can be read of it.
    pub job: Job,
    pub failure: JobFailure,
    pub box_id: BoxId,
    pub at: Timestamp,
    /// Whether the message was moved to the dead letters for it.
    pub dead: bool,
}

/// Whether a result was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It was written.
    Written,
    /// The job had one already, from another delivery of the same message.
    AlreadyThere,
}

/// What came of a result and its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether the result was kept.
    pub committed: Committed,
    /// Whether the message is deleted.
    pub is_acked: bool,
}

/// What a caller branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortErrorClass {
    /// The cloud has no capacity or the account no quota: another offering may be available.
    Refused(RefusalClass),
    /// The box is in another state than the call needs.
    Conflict,
    /// The lease ran out and another worker may have the message.
    LeaseLost,
    /// There is no room now: the disk is full, or the file has reached its largest size.
    Full,
    /// What is to be stored is larger than the store can hold at all.
    TooLarge,
    /// Cannot be reached now; another try may work.
    Unavailable,
    /// Called too often: the same call may work later.
    Throttled,
    /// Not allowed, or the credentials are not known: no other try will help until a user acts.
    Denied,
    /// What the call names does not exist.
    NotFound,
    /// What is stored is damaged, and no other try will help.
    Corrupt,
    /// Written by a newer version of gpuctl.
    TooNew,
    Other,
}

/// A port's failure. It displays as `what`; `text::with_causes` adds the causes.
#[derive(Debug)]
pub struct PortError {
    pub class: PortErrorClass,
    /// What failed, without its cause.
    pub what: String,
    /// What the user can do.
    pub hint: Option<String>,
    pub cause: Option<Box<dyn Error + Send + Sync>>,
}

impl PortError {
    /// A failure without a cause.
    pub fn new(class: PortErrorClass, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), hint: None, cause: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<InputRejected> for PortError {
    fn from(refusal: InputRejected) -> Self {
        let hint = refusal.hint();
        Self::new(PortErrorClass::Other, "the input is rejected").hint(hint).because(refusal)
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for PortError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as &(dyn Error + 'static))
    }
}
