//! The ledger in simulated time: conditional writes as in a DynamoDB table. It keeps the guarantees of the `Ledger` port; errors and
//! lost responses are added by `ports`.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use gpuctl_control::clock::CLOCKS_APART_MAX;
use gpuctl_control::job::{Job, JobFailure, JobId, JobResult, JobState};
use gpuctl_control::ports::{
    Committed, Fence, JobEntry, JobFilter, JobProblem, PoolMemory, QueueMemory, SERVICE_WEIGHT,
    WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, RUNS_REMEMBERED_MAX, Run};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};

use super::queue::MessageState;

/// Maximum number of records kept.
const RECORDS_MAX: usize = 64;

/// What a controller writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    Run(BoxId, Timestamp),
    Queue(PoolId),
    Record,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerState {
    lease: Option<Fence>,
    fences: i64,
    /// The newest fence of each owner.
    taken: BTreeMap<String, i64>,
    holds: BTreeMap<PoolId, Hold>,
    /// By pool, oldest first.
    runs: BTreeMap<PoolId, Vec<Run>>,
    queues: BTreeMap<PoolId, QueueMemory>,
    services: BTreeMap<BoxId, TimeDelta>,
    reports: BTreeMap<BoxId, WorkerReport>,
    /// When the last two reports of each box arrived, the older first.
    heard: BTreeMap<BoxId, [Timestamp; 2]>,
    /// Every generation of each job, with its result.
    jobs: BTreeMap<(JobId, u32), (Job, Option<JobResult>)>,
    /// Why jobs have no result.
    problems: BTreeMap<JobId, JobProblem>,
    /// The newest fence with which each item was written.
    written: BTreeMap<Item, i64>,
    records: Vec<Record>,
    last_reconcile: Option<Timestamp>,
    /// Number of recorded reconciles, equal records included.
    pub(crate) reconciles: u64,
}

impl LedgerState {
    pub(crate) fn lease(&mut self, now: Timestamp, owner: &str, lasts: TimeDelta) -> Option<Fence> {
        // Others see its end only when it is over for the holder as well, whose clock may be behind theirs.
        if self.lease.as_ref().is_some_and(|fence| fence.until + CLOCKS_APART_MAX > now) {
            return None;
        }
        self.fences += 1;
        self.taken.insert(owner.to_owned(), self.fences);
        let fence = Fence { owner: owner.to_owned(), number: self.fences, until: now + lasts };
        self.lease = Some(fence.clone());
        Some(fence)
    }

    pub(crate) fn release(&mut self, fence: &Fence) {
        if self.lease.as_ref().is_some_and(|held| held.number == fence.number) {
            self.lease = None;
        }
    }

    /// Whether the fence is older than that of the item's last write, which is refused then. Notes it if it is not.
    pub(crate) fn is_outdated(&mut self, item: Item, number: i64) -> bool {
        let newest = self.written.entry(item).or_insert(number);
        *newest = number.max(*newest);
        number < *newest
    }

    /// The number of the newest lease that this controller has taken.
    pub(crate) fn newest_fence(&self, owner: &str) -> Option<i64> {
        self.taken.get(owner).copied()
    }

    /// The holder of the lease at this instant.
    pub(crate) fn holder(&self, now: Timestamp) -> Option<&str> {
        let held = self.lease.as_ref().filter(|fence| fence.until > now)?;
        Some(held.owner.as_str())
    }

    pub(crate) fn memory(&self, pool: &PoolId) -> PoolMemory {
        let all = self.runs.get(pool).map_or(&[][..], Vec::as_slice);
        let latest = all.len().saturating_sub(RUNS_REMEMBERED_MAX as usize);
        let kept = |(index, run): &(usize, &Run)| *index >= latest || run.stopped_at.is_none();
        let runs = all.iter().enumerate().filter(kept).map(|(_, run)| run.clone()).rev().collect();
        PoolMemory {
            hold: self.holds.get(pool).cloned(),
            runs,
            queue: self.queues.get(pool).cloned(),
            service: self.service(),
        }
    }

    /// The mean over the boxes' moving means; the world has one pool with a queue.
    fn service(&self) -> Option<TimeDelta> {
        let count = i32::try_from(self.services.len()).ok().filter(|count| *count > 0)?;
        Some(self.services.values().copied().sum::<TimeDelta>() / count)
    }

    pub(crate) fn remember_queue(&mut self, pool: &PoolId, memory: &QueueMemory) {
        self.queues.insert(pool.clone(), memory.clone());
    }

    pub(crate) fn set_hold(&mut self, hold: &Hold) {
        self.holds.insert(hold.pool.clone(), hold.clone());
    }

    pub(crate) fn hold(&self, pool: &PoolId) -> Option<&Hold> {
        self.holds.get(pool)
    }

    /// Saves a run; a field that is set is not overwritten.
    pub(crate) fn save_run(&mut self, run: &Run) {
        let runs = self.runs.entry(run.pool.clone()).or_default();
        let same = |one: &&mut Run| one.box_id == run.box_id && one.started_at == run.started_at;
        let Some(known) = runs.iter_mut().rev().find(same) else {
            let index = runs.partition_point(|one| one.started_at <= run.started_at);
            runs.insert(index, run.clone());
            return;
        };
        known.ready_at = known.ready_at.or(run.ready_at);
        known.stopping_at = known.stopping_at.or(run.stopping_at);
        known.stopped_at = known.stopped_at.or(run.stopped_at);
        known.interrupted_at = known.interrupted_at.or(run.interrupted_at);
        known.jobs = known.jobs.or(run.jobs);
        known.stop = known.stop.take().or_else(|| run.stop.clone());
        known.error = known.error.take().or_else(|| run.error.clone());
        known.refusal = known.refusal.take().or_else(|| run.refusal.clone());
        known.offering = known.offering.take().or_else(|| run.offering.clone());
    }

    /// The runs of every pool, oldest first within each.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().flatten()
    }

    pub(crate) fn runs_since(&self, since: Timestamp) -> Vec<Run> {
        let mut runs: Vec<Run> = self
            .runs()
            .filter(|run| run.stopped_at.is_none_or(|stopped| stopped >= since))
            .cloned()
            .collect();
        runs.sort_by_key(|run| run.started_at);
        runs
    }

    pub(crate) fn record(&mut self, record: &Record) {
        self.reconciles += 1;
        self.last_reconcile = record.at.parse().ok();
        if self.records.last().is_some_and(|last| last.says_the_same(record)) {
            return;
        }
        if self.records.len() == RECORDS_MAX {
            self.records.remove(0);
        }
        self.records.push(record.clone());
    }

    /// The time of the last recorded reconcile.
    pub(crate) fn last_reconcile(&self) -> Option<Timestamp> {
        self.last_reconcile
    }

    /// Saves a report; returns whether anything but its time is new.
    pub(crate) fn report(&mut self, now: Timestamp, report: &WorkerReport) -> bool {
        let heard = self.heard.entry(report.box_id.clone()).or_insert([now; 2]);
        *heard = [heard[1], now];
        let before = self.reports.insert(report.box_id.clone(), report.clone());
        before.is_none_or(|before| WorkerReport { at: report.at, ..before } != *report)
    }

    /// When the report before the last of a box arrived: the last may be newer than what a controller has read.
    pub(crate) fn heard(&self, id: &str) -> Option<Timestamp> {
        self.heard.iter().find(|(known, _)| known.as_str() == id).map(|(_, at)| at[0])
    }

    pub(crate) fn report_of(&self, id: &str) -> Option<&WorkerReport> {
        self.reports.iter().find(|(known, _)| known.as_str() == id).map(|(_, report)| report)
    }

    /// The latest reports of these boxes' workers.
    pub(crate) fn reports(&self, boxes: &[BoxId]) -> Vec<WorkerReport> {
        boxes.iter().filter_map(|id| self.reports.get(id)).cloned().collect()
    }

    pub(crate) fn submitted(&mut self, jobs: &[Job]) {
        for job in jobs {
            let key = (job.id.clone(), job.generation);
            self.jobs.entry(key).or_insert_with(|| (job.clone(), None));
        }
    }

    pub(crate) fn commit(&mut self, result: &JobResult) -> Committed {
        let job = &result.job;
        let key = (job.id.clone(), job.generation);
        let entry = self.jobs.entry(key).or_insert_with(|| (job.clone(), None));
        if entry.1.is_some() {
            return Committed::AlreadyThere;
        }
        entry.1 = Some(result.clone());
        if result.outcome.is_ok() {
            let mean = self.services.entry(result.box_id.clone()).or_insert(result.inference);
            *mean += (result.inference - *mean) / i32::try_from(SERVICE_WEIGHT).unwrap_or(1);
        }
        Committed::Written
    }

    /// Notes why a job has no result.
    pub(crate) fn note_problem(&mut self, problem: &JobProblem) {
        self.problems.insert(problem.job.id.clone(), problem.clone());
    }

    /// Whether it is noted why the job has no result.
    pub(crate) fn has_problem(&self, id: &str) -> bool {
        self.problems.keys().any(|known| known.as_str() == id)
    }

    /// The result of a generation of a job.
    pub(crate) fn result(&self, id: &JobId, generation: u32) -> Option<&JobResult> {
        self.jobs.get(&(id.clone(), generation))?.1.as_ref()
    }

    /// The results of all generations of a job, newest first.
    pub(crate) fn results(&self, id: &JobId) -> Vec<JobResult> {
        self.generations(id).rev().filter_map(|(_, result)| result.clone()).collect()
    }

    fn generations(
        &self,
        id: &JobId,
    ) -> impl DoubleEndedIterator<Item = &(Job, Option<JobResult>)> {
        self.jobs.range((id.clone(), 0)..=(id.clone(), u32::MAX)).map(|(_, entry)| entry)
    }

    /// One job in its newest generation; without a result its state follows from its message.
    pub(crate) fn job(
        &self,
        id: &JobId,
        message_state: impl Fn(&str, u32) -> MessageState,
    ) -> Option<JobEntry> {
        let (job, result) = self.generations(id).next_back()?;
        let problem =
            self.problems.get(id).filter(|problem| problem.job.generation == job.generation);
        let mut problem = problem.map(|problem| problem.failure.clone());
        let state = match result {
            Some(result) => result.state(),
            None => match message_state(id.as_str(), job.generation) {
                MessageState::Waiting => JobState::Queued,
                MessageState::InFlight => JobState::Running,
                MessageState::Dead(receives) => {
                    problem.get_or_insert_with(|| JobFailure::unfinished(receives));
                    JobState::Dead
                }
                MessageState::Expired => JobState::Expired,
                MessageState::Deleted => JobState::Purged,
            },
        };
        let problem = problem.filter(|_| result.is_none());
        Some(JobEntry { job: job.clone(), state, result: result.clone(), problem })
    }

    pub(crate) fn jobs(
        &self,
        filter: JobFilter,
        message_state: impl Fn(&str, u32) -> MessageState,
    ) -> Vec<JobEntry> {
        let mut ids: Vec<&JobId> = self.jobs.keys().map(|(id, _)| id).collect();
        ids.dedup();
        let mut all: Vec<JobEntry> =
            ids.into_iter().filter_map(|id| self.job(id, &message_state)).collect();
        all.retain(|entry| {
            filter.state.is_none_or(|state| entry.state == state)
                && filter.since.is_none_or(|since| entry.job.submitted_at >= since)
        });
        all.sort_by(|a, b| (b.job.submitted_at, &b.job.id).cmp(&(a.job.submitted_at, &a.job.id)));
        all.truncate(filter.limit as usize);
        all
    }
}
