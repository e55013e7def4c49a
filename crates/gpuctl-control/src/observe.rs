//! Observe: read everything at one instant, all parts at once, with one time limit.
//!
//! A part that cannot be read is its last known value with that value's age, never zero; what follows from the age is for `decide`.
//! Nothing is written here: `Observed::remember` writes what the ledger should keep.

mod runs;
#[cfg(test)]
mod tests;
pub mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_core::cost::{spent_since, standing};
use gpuctl_core::decide::hold_is_done;
use gpuctl_core::observation::{
    BoxState, Hold, Observation, Run, Seen, SeenBox, SeenPool, SeenQueue, Spent, UrgentJob, Witness,
};
use gpuctl_core::period::{day_of, month_of};
use gpuctl_core::policy::{Budget, Policy, Pool};
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, QueueName, Timestamp};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::workers::Reports;
use crate::ports::{
    Fence, LEASE_LASTS, Listing, PoolMemory, PortError, PortErrorClass, Ports, QueueMemory,
};

/// How long an observation may take, all its parts together; what has not been read by then counts as failed. It is below the lease,
/// so that there is time left to act on what was read.
const OBSERVATION_TIME_MAX: Duration = Duration::from_secs(9);

const _: () = assert!(
    OBSERVATION_TIME_MAX.as_secs().cast_signed() + 5 <= LEASE_LASTS.num_seconds(),
    "an observation leaves some seconds of the lease to act"
);

/// How old the remembered counts of a queue may get while they stay the same: nothing is written in between.
const REMEMBER_EVERY: TimeDelta = TimeDelta::seconds(10);

/// An observation, and what should be remembered of it.
#[derive(Debug)]
pub struct Observed {
    /// What `decide` sees.
    pub observation: Observation,
    /// Why parts could not be read.
    pub errors: Vec<PortError>,
    runs_changed: Vec<Run>,
    queues_changed: Vec<(PoolId, QueueMemory)>,
    /// Holds that have ended before their time: jobs that come later must not begin them again.
    holds_ended: Vec<Hold>,
    boxes_alive: Vec<BoxId>,
}

impl Observed {
    fn new(at: Timestamp, witness: Witness) -> Self {
        Self {
            observation: Observation { at, witness, pools: BTreeMap::new() },
            errors: Vec::new(),
            runs_changed: Vec::new(),
            queues_changed: Vec::new(),
            holds_ended: Vec::new(),
            boxes_alive: Vec::new(),
        }
    }

    /// Writes what should be remembered: queues and runs to the ledger, and to the cloud which boxes were seen alive. What could not be
    /// written is seen again by the next observation. Returns the errors: one that fails does not keep the others.
    ///
    /// All at once, queues first: without their last sample no queue ever counts as waiting or as empty (Q3, Q4).
    pub async fn remember(&self, ports: &Ports, fence: Option<&Fence>) -> Vec<PortError> {
        let mut writes = JoinSet::new();
        for changed in &self.queues_changed {
            let (ledger, fence) = (Arc::clone(&ports.ledger), fence.cloned());
            let (pool, memory) = changed.clone();
            writes
                .spawn(async move { ledger.remember_queue(&pool, &memory, fence.as_ref()).await });
        }
        for run in &self.runs_changed {
            let (ledger, fence, run) = (Arc::clone(&ports.ledger), fence.cloned(), run.clone());
            writes.spawn(async move { ledger.save_run(&run, fence.as_ref()).await });
        }
        for hold in &self.holds_ended {
            let (ledger, hold) = (Arc::clone(&ports.ledger), hold.clone());
            writes.spawn(async move {
                match ledger.set_hold(&hold).await {
                    // A user has set another one since.
                    Err(error) if error.class == PortErrorClass::Conflict => Ok(()),
                    answer => answer,
                }
            });
        }
        let (written, noted) =
            tokio::join!(writes.join_all(), ports.cloud.note_alive(&self.boxes_alive));
        written.into_iter().chain([noted]).filter_map(Result::err).collect()
    }

    /// The value of a part; its error is kept if it could not be read.
    fn value_of<T>(&mut self, read: Result<T, PortError>) -> Option<T> {
        read.map_err(|error| self.errors.push(error)).ok()
    }
}

/// Reads everything. A worker reads no costs, which concern starts alone: those are the controller's.
pub async fn observe(ports: &Ports, policy: &Policy, witness: Witness) -> Observed {
    let costs = match witness {
        Witness::Controller => Costs::Read,
        Witness::Worker(_) => Costs::LeftOut,
    };
    let mut observed = Observed::new(ports.clock.now(), witness);
    let at = observed.observation.at;
    let deadline = Instant::now() + OBSERVATION_TIME_MAX;
    let ledger = async {
        let reads = read_pools(ports, policy, (costs, at), deadline).await;
        // While the boxes are still being listed: those that are up have an open run.
        let reports = Reports::read(ports, with_open_runs(policy, &reads), deadline).await;
        (reads, reports)
    };
    let (listing, (mut reads, reports)) =
        tokio::join!(by(deadline, "the boxes", ports.cloud.boxes(policy)), ledger);
    let mut listing = observed.value_of(listing).unwrap_or_default();
    observed.errors.append(&mut listing.errors);
    observed.boxes_alive = alive(&listing);
    let merged =
        workers::merge_worker_reports(ports, policy, &mut listing, reports, deadline).await;
    observed.value_of(merged);
    workers::end_with_faults(&mut listing);
    workers::assume_ready_after_boot(policy, &mut listing, at);
    for pool in &policy.pools {
        let Some(read) = reads.remove(&pool.id) else { continue };
        let boxes = listing.pools.remove(&pool.id);
        let gone = listing.gone.remove(&pool.id).unwrap_or_default();
        let parts = observed.parts(read, boxes, gone);
        let seen = observed.pool(policy, pool, parts);
        observed.note_hold(&seen);
        observed.observation.pools.insert(pool.id.clone(), seen);
    }
    observed
}

/// The boxes whose latest runs have no end in the ledger yet, of pools whose workers report.
fn with_open_runs(policy: &Policy, reads: &BTreeMap<PoolId, PoolRead>) -> BTreeSet<BoxId> {
    let of_pools = reads.iter().filter(|(pool, _)| workers::report(policy, pool));
    let memories = of_pools.filter_map(|(_, read)| read.memory.as_ref().ok());
    let open = memories.flat_map(|memory| &memory.runs).filter(|run| run.stopped_at.is_none());
    open.map(|run| run.box_id.clone()).collect()
}

fn alive(listing: &Listing) -> Vec<BoxId> {
    let all = listing.pools.values().flatten();
    all.filter(|one| one.state != BoxState::Stopped).map(|one| one.id.clone()).collect()
}

/// What there is of one pool to decide on, before it is brought together.
struct Parts {
    /// `None` where the ledger could not be read.
    memory: Option<PoolMemory>,
    queue: QueueRead,
    /// `None` where the cloud could not be asked.
    boxes: Option<Vec<SeenBox>>,
    urgent: Option<UrgentJob>,
    /// Those that the cloud still lists and that are gone.
    gone: Vec<SeenBox>,
    /// `None` where they were not read, or could not be.
    runs_of_budget: Option<Vec<Run>>,
}

/// What is known of a pool's queue.
enum QueueRead {
    /// The pool has no queue.
    None,
    /// It has one, which could not be read.
    Failed,
    /// As it was counted now.
    Counted(SeenQueue),
}

impl Observed {
    fn parts(
        &mut self,
        read: PoolRead,
        mut boxes: Option<Vec<SeenBox>>,
        gone: Vec<SeenBox>,
    ) -> Parts {
        let memory = self.value_of(read.memory);
        let queue = match read.counts.map(|counts| self.value_of(counts)) {
            None => QueueRead::None,
            Some(None) => QueueRead::Failed,
            Some(Some(counts)) => QueueRead::Counted(counts),
        };
        let urgent = self.value_of(read.urgent).flatten();
        let runs_of_budget = read.runs_of_budget.and_then(|runs| self.value_of(runs));
        let at = self.observation.at;
        let written_at =
            memory.as_ref().and_then(|memory| memory.queue.as_ref()).map(|last| last.at);
        let unwritten = written_at.map_or(TimeDelta::zero(), |written_at| at - written_at);
        boxes.iter_mut().flatten().for_each(|one| workers::excuse_silence(one, at, unwritten));
        Parts { memory, queue, boxes, urgent, gone, runs_of_budget }
    }

    fn pool(&mut self, policy: &Policy, pool: &Pool, parts: Parts) -> SeenPool {
        let at = self.observation.at;
        let is_remembered = parts.memory.is_some();
        let memory = parts.memory.unwrap_or_default();
        let queue = self.queue(&pool.id, parts.queue, memory.queue.as_ref());
        if !is_remembered {
            // What could not be read is not overwritten: the row of empty samples would start again with each failure.
            self.queues_changed.retain(|(other, _)| *other != pool.id);
        }
        let mut runs = memory.runs;
        let mut changed = Vec::new();
        // Without the ledger a hold may be missing: acting then could go against what a user asked for.
        let boxes = match parts.boxes.filter(|_| is_remembered) {
            Some(mut boxes) => {
                let up_max = pool.lifetime_max + policy.worker.drain;
                changed = self.runs((&pool.id, up_max), &mut runs, &mut boxes, parts.gone);
                Seen::now(boxes, at)
            }
            None => Seen { value: None, at },
        };
        let (hold, service, urgent) = (memory.hold, memory.service, parts.urgent);
        let spent = parts.runs_of_budget.map(|mut of_budget| {
            of_budget.retain(|run| run.pool == pool.id);
            runs::overlay(&mut of_budget, &changed);
            let cost = |since| {
                spent_since(&of_budget, &policy.cost, since, at)
                    + standing(&policy.cost, pool.boxes_max.get(), at - since)
            };
            spent(cost, hold.as_ref(), (budget_begins(pool.budget, at), at))
        });
        self.runs_changed.extend(changed);
        SeenPool { boxes, queue, urgent, hold, runs, service, spent }
    }

    fn note_hold(&mut self, seen: &SeenPool) {
        let at = self.observation.at;
        if let Some(hold) = seen.hold.as_ref().filter(|_| hold_is_done(seen, at)) {
            self.holds_ended.push(Hold { until: at, ..hold.clone() });
        }
    }

    /// Brings runs and boxes together; returns the runs that the ledger should know. A box of the pool is up for `up_max` at most.
    fn runs(
        &self,
        (pool, up_max): (&PoolId, TimeDelta),
        runs: &mut Vec<Run>,
        boxes: &mut [SeenBox],
        mut gone: Vec<SeenBox>,
    ) -> Vec<Run> {
        let at = self.observation.at;
        let mut changed = runs::update_runs(runs, boxes, at);
        changed.extend(runs::update_runs(runs, &mut gone, at));
        let listed = || boxes.iter().chain(&gone);
        if self.observation.witness == Witness::Controller {
            // A worker sees its own box alone, so a box that it does not see may well exist.
            changed.extend(runs::close_runs_without_box(runs, listed(), at));
        }
        let mut found = runs::runs_started_elsewhere(runs, boxes, pool, at);
        found.extend(runs::runs_ended_elsewhere(runs, listed(), pool, at, up_max));
        changed.extend(found.iter().cloned());
        runs.splice(0..0, found);
        runs.sort_by_key(|run| std::cmp::Reverse(run.started_at));
        runs::clear_foreign_after_interruption(runs, boxes);
        changed
    }

    fn queue(
        &mut self,
        pool: &PoolId,
        read: QueueRead,
        last: Option<&QueueMemory>,
    ) -> Option<Seen<SeenQueue>> {
        let at = self.observation.at;
        let mut seen = match read {
            QueueRead::None => return None,
            QueueRead::Failed => {
                return Some(match last {
                    Some(memory) => Seen { value: Some(memory.seen.clone()), at: memory.at },
                    None => Seen { value: None, at },
                });
            }
            QueueRead::Counted(counts) => counts,
        };
        let before = last.map(|last| (&last.seen, last.at));
        (seen.empty_since, seen.oldest_sent_at) =
            (seen.empty_since(before), seen.waiting_since(before));
        let is_known = last.is_some_and(|last| last.seen == seen && at - last.at < REMEMBER_EVERY);
        if !is_known {
            self.queues_changed.push((pool.clone(), QueueMemory { seen: seen.clone(), at }));
        }
        Some(Seen::now(seen, at))
    }
}

/// What a pool has cost in its budget's period, today and under its hold, where `cost` says what it has cost since an instant.
fn spent(
    cost: impl Fn(Timestamp) -> MicroUsd,
    hold: Option<&Hold>,
    (begin, at): (Timestamp, Timestamp),
) -> Spent {
    let under_hold = hold.map_or_else(Default::default, |hold| cost(hold.since.max(begin)));
    Spent { month: cost(begin), day: cost(day_of(at).begin), hold: under_hold }
}

/// Since when a budget counts: a day's needs no run of the days before.
fn budget_begins(budget: Budget, at: Timestamp) -> Timestamp {
    if budget.month.is_some() { month_of(at).begin } else { day_of(at).begin }
}

/// What the ports said of one pool; `None` where the pool has no such part, or it is not asked for.
struct PoolRead {
    memory: Result<PoolMemory, PortError>,
    counts: Option<Result<SeenQueue, PortError>>,
    urgent: Result<Option<UrgentJob>, PortError>,
    runs_of_budget: Option<Result<Vec<Run>, PortError>>,
}

/// Whether to read what pools have cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Costs {
    Read,
    LeftOut,
}

/// What to read of one pool.
struct PoolQuestion {
    pool: PoolId,
    queue: Option<QueueName>,
    /// From when on the runs are to be read that its budget counts.
    budget_begins: Option<Timestamp>,
}

async fn read_pools(
    ports: &Ports,
    policy: &Policy,
    (costs, at): (Costs, Timestamp),
    deadline: Instant,
) -> BTreeMap<PoolId, PoolRead> {
    let mut reads = JoinSet::new();
    for pool in &policy.pools {
        // A pool as a whole is large: its schedule and calendar are not needed here.
        let question = PoolQuestion {
            pool: pool.id.clone(),
            queue: pool.queue().map(|queue| queue.name.clone()),
            budget_begins: (pool.budget.is_set() && costs == Costs::Read)
                .then(|| budget_begins(pool.budget, at)),
        };
        let ports = ports.clone();
        reads.spawn(async move {
            let read = read_pool(&ports, &question, deadline).await;
            (question.pool, read)
        });
    }
    reads.join_all().await.into_iter().collect()
}

async fn read_pool(ports: &Ports, question: &PoolQuestion, deadline: Instant) -> PoolRead {
    let memory = by(deadline, "the ledger", ports.ledger.memory(&question.pool));
    let counts = async {
        let queue = question.queue.as_ref()?;
        Some(by(deadline, "the queue's counts", ports.queue.counts(queue)).await)
    };
    let runs_of_budget = async {
        let runs = ports.ledger.runs_since(question.budget_begins?);
        Some(by(deadline, "the runs of the budget", runs).await)
    };
    let urgent = async {
        match &question.queue {
            Some(queue) => {
                by(deadline, "the most urgent job", ports.ledger.most_urgent(queue)).await
            }
            None => Ok(None),
        }
    };
    let (memory, counts, urgent, runs_of_budget) =
        tokio::join!(memory, counts, urgent, runs_of_budget);
    PoolRead { memory, counts, urgent, runs_of_budget }
}

/// What was read by the deadline.
async fn by<T>(
    deadline: Instant,
    what: &str,
    read: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    match tokio::time::timeout_at(deadline, read).await {
        Ok(result) => result,
        Err(_) => {
            let seconds = OBSERVATION_TIME_MAX.as_secs();
            let text = format!("{what} could not be read within the {seconds} s of an observation");
            Err(PortError::new(PortErrorClass::Unavailable, text))
        }
    }
}
