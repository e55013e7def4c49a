//! The ledger in simulated time: conditional writes as in a DynamoDB table. It keeps the guarantees of the `Ledger` port; errors and
//! lost responses are added by `ports`.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobId, JobResult, JobState};
use gpuctl_control::ports::{
    Committed, Fence, JobEntry, JobFilter, PoolMemory, QueueMemory, SERVICE_WEIGHT, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, RUNS_REMEMBERED_MAX, Run};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};

use super::queue::MessageState;

/// Maximum number of records kept.
const RECORDS_MAX: usize = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerState {
    lease: Option<Fence>,
    fences: i64,
    holds: BTreeMap<PoolId, Hold>,
    /// By pool, oldest first.
    runs: BTreeMap<PoolId, Vec<Run>>,
    queues: BTreeMap<PoolId, QueueMemory>,
    services: BTreeMap<BoxId, TimeDelta>,
    reports: BTreeMap<BoxId, WorkerReport>,
    jobs: BTreeMap<JobId, (Job, Option<JobResult>)>,
    records: Vec<Record>,
    last_reconcile: Option<Timestamp>,
    /// Number of recorded reconciles, equal records included.
    pub(crate) reconciles: u64,
}

impl LedgerState {
    pub(crate) fn lease(&mut self, now: Timestamp, owner: &str, lasts: TimeDelta) -> Option<Fence> {
        if self.lease.as_ref().is_some_and(|fence| fence.until > now) {
            return None;
        }
        self.fences += 1;
        let fence = Fence { owner: owner.to_owned(), number: self.fences, until: now + lasts };
        self.lease = Some(fence.clone());
        Some(fence)
    }

    pub(crate) fn release(&mut self, fence: &Fence) {
        if self.lease.as_ref().is_some_and(|held| held.number == fence.number) {
            self.lease = None;
        }
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
    pub(crate) fn report(&mut self, report: &WorkerReport) -> bool {
        let before = self.reports.insert(report.box_id.clone(), report.clone());
        before.is_none_or(|before| WorkerReport { at: report.at, ..before } != *report)
    }

    pub(crate) fn report_of(&self, id: &str) -> Option<&WorkerReport> {
        self.reports.iter().find(|(known, _)| known.as_str() == id).map(|(_, report)| report)
    }

    pub(crate) fn submitted(&mut self, jobs: &[Job]) {
        for job in jobs {
            self.jobs.entry(job.id.clone()).or_insert_with(|| (job.clone(), None));
        }
    }

    pub(crate) fn commit(&mut self, result: &JobResult) -> Committed {
        let job = &result.job;
        let entry = self.jobs.entry(job.id.clone()).or_insert_with(|| (job.clone(), None));
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

    pub(crate) fn result(&self, id: &JobId) -> Option<&JobResult> {
        self.jobs.get(id)?.1.as_ref()
    }

    /// One job; without a result its state follows from its message.
    pub(crate) fn job(
        &self,
        id: &JobId,
        message_state: impl Fn(&str) -> MessageState,
    ) -> Option<JobEntry> {
        let (job, result) = self.jobs.get(id)?;
        let state = match result {
            Some(result) if result.outcome.is_ok() => JobState::Succeeded,
            Some(_) => JobState::Failed,
            None => match message_state(id.as_str()) {
                MessageState::Waiting => JobState::Queued,
                MessageState::InFlight => JobState::Running,
                MessageState::Dead => JobState::Dead,
                MessageState::Deleted => JobState::Purged,
            },
        };
        Some(JobEntry { job: job.clone(), state, result: result.clone(), problem: None })
    }

    pub(crate) fn jobs(
        &self,
        filter: JobFilter,
        message_state: impl Fn(&str) -> MessageState,
    ) -> Vec<JobEntry> {
        let mut all: Vec<JobEntry> =
            self.jobs.keys().filter_map(|id| self.job(id, &message_state)).collect();
        all.retain(|entry| {
            filter.state.is_none_or(|state| entry.state == state)
                && filter.since.is_none_or(|since| entry.job.submitted_at >= since)
        });
        all.sort_by(|a, b| (b.job.submitted_at, &b.job.id).cmp(&(a.job.submitted_at, &a.job.id)));
        all.truncate(filter.limit as usize);
        all
    }
}
