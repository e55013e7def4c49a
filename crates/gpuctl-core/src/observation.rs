//! Everything that was read at one instant, each part with its age, as plain data.
//!
//! Nothing here judges: which values are too old, and what follows from them, is for `decide`.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::offering::{Offering, Refusal};
use crate::period::{day_of, month_of};
use crate::plan::{Reason, Rule};
use crate::units::{BoxId, MicroUsd, PoolId, Timestamp, nearest_rank};

/// What `decide` sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The instant that the decision is for.
    pub at: Timestamp,
    /// Who looks.
    pub witness: Witness,
    /// One entry for each pool of the policy.
    pub pools: BTreeMap<PoolId, SeenPool>,
}

impl Observation {
    /// The same world at another instant, if nothing happened until then: what was fresh stays fresh, and jobs grow older.
    #[must_use]
    pub fn moved_to(&self, at: Timestamp) -> Self {
        let mut moved = self.clone();
        let by = at - self.at;
        moved.at = at;
        for pool in moved.pools.values_mut() {
            pool.boxes.at += by;
            if let Some(spent) = &mut pool.spent {
                spent.month =
                    if month_of(at) == month_of(self.at) { spent.month } else { MicroUsd(0) };
                spent.day = if day_of(at) == day_of(self.at) { spent.day } else { MicroUsd(0) };
            }
            if let Some(queue) = &mut pool.queue {
                queue.at += by;
            }
            let workers =
                pool.boxes.value.iter_mut().flatten().filter_map(|one| one.worker.as_mut());
            workers.for_each(|worker| worker.heard_at += by);
        }
        moved
    }
}

/// Who looks: each side can end a box without the other, but the controller gives the worker the first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// CLI, daemon or Lambda, from outside.
    Controller,
    /// The worker on this box, which knows its own leases first-hand.
    Worker(BoxId),
}

/// A value and when it was read. A failed read leaves the old one in place, so that its age shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<T> {
    /// The value, unless it was never read.
    pub value: Option<T>,
    /// When it was read.
    pub at: Timestamp,
}

impl<T> Seen<T> {
    /// A value read just now.
    pub fn now(value: T, at: Timestamp) -> Self {
        Self { value: Some(value), at }
    }

    /// The value, if it was read and is no older than `age_max`.
    pub fn fresh(&self, now: Timestamp, age_max: TimeDelta) -> Option<&T> {
        self.value.as_ref().filter(|_| now - self.at <= age_max)
    }
}

/// Runs that one observation carries of a pool: an hour of flapping and the boots to estimate from.
pub const RUNS_REMEMBERED_MAX: u32 = 100;

/// One pool, as seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenPool {
    /// Its boxes.
    pub boxes: Seen<Vec<SeenBox>>,
    /// Its queue, if it has one.
    pub queue: Option<Seen<SeenQueue>>,
    /// A person's override, if one is in force or has just expired.
    pub hold: Option<Hold>,
    /// Its latest runs, newest first.
    pub runs: Vec<Run>,
    /// How long its model is busy with one job, by the latest results.
    pub service: Option<TimeDelta>,
    /// What its boxes have cost so far, if it has a budget.
    pub spent: Option<Spent>,
}

/// What a pool's boxes have cost in the current periods, in UTC as AWS bills them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Since the first of the month.
    pub month: MicroUsd,
    /// Since midnight.
    pub day: MicroUsd,
    /// Since the hold in force was set.
    pub hold: MicroUsd,
}

/// EC2's words for the life of a box; a local worker process goes through the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxState {
    /// Asked for, not ready yet.
    Pending,
    /// Ready for work.
    Running,
    /// Draining or shutting down.
    Stopping,
    /// Costs nothing but its disk.
    Stopped,
}

impl BoxState {
    /// The state as written in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// One box, as seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenBox {
    /// Which.
    pub id: BoxId,
    /// In which state.
    pub state: BoxState,
    /// Since when.
    pub since: Timestamp,
    /// The last words of the run before, when it ended in an error.
    pub last_error: Option<String>,
    /// When its latest run was asked for; with the box, the key of that run.
    pub run_started_at: Option<Timestamp>,
    /// What its worker last said of itself in this run.
    pub worker: Option<SeenWorker>,
    /// What it is bought as; boxes on this machine are not bought.
    pub offering: Option<Offering>,
    /// When the cloud will take it away, if it has given notice. On a stopped box: when it did, and only the cloud can start
    /// it again (P4).
    pub interruption: Option<Timestamp>,
    /// That somebody started or stopped it past gpuctl, as in the AWS console.
    pub foreign: Option<Foreign>,
    /// Why it cannot be started now although it is stopped, as while EC2 keeps it for itself after an interruption (P4).
    pub unstartable: Option<String>,
}

/// A start or stop that gpuctl did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What they made of it.
    pub wants: HoldWants,
    /// When.
    pub at: Timestamp,
    /// Who, as far as the cloud says.
    pub by: String,
}

impl SeenBox {
    /// A box of which nothing is known but its state.
    #[must_use]
    pub fn new(id: BoxId, state: BoxState, since: Timestamp) -> Self {
        Self {
            id,
            state,
            since,
            last_error: None,
            run_started_at: None,
            worker: None,
            offering: None,
            interruption: None,
            foreign: None,
            unstartable: None,
        }
    }

    /// Whether the box is up or coming up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, BoxState::Pending | BoxState::Running)
    }
}

/// A worker's report on itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenWorker {
    /// When it said so.
    pub heard_at: Timestamp,
    /// Messages that it holds a lease on.
    pub leases: u32,
    /// Since when it has held none.
    pub idle_since: Option<Timestamp>,
    /// Results that it has kept in this run.
    pub jobs_done: u32,
}

/// A queue's counts, as in SQS, with what the ledger remembers of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenQueue {
    /// Waiting for a worker.
    pub visible: u64,
    /// Under a lease.
    pub in_flight: u64,
    /// Not due yet.
    pub delayed: u64,
    /// In the dead-letter queue.
    pub dead: u64,
    /// When the oldest visible message was sent; unknown while the counts are unconfirmed (Q4), as SQS's are at first sight.
    /// Filled in by `waiting_since` where the queue itself cannot say.
    pub oldest_sent_at: Option<Timestamp>,
    /// Since when all of visible, in flight and delayed have been zero, in every sample.
    pub empty_since: Option<Timestamp>,
}

impl SeenQueue {
    /// Since when it has been empty, given how and when it was seen last: from the first of an unbroken row of empty samples,
    /// so the first one alone says nothing yet (Q3).
    #[must_use]
    pub fn empty_since(&self, last: Option<(&Self, Timestamp)>) -> Option<Timestamp> {
        let (last, at) = last.filter(|(last, _)| last.is_empty() && self.is_empty())?;
        Some(last.empty_since.unwrap_or(at))
    }

    /// When the oldest visible message was sent, given how and when the queue was seen last. A queue that cannot say (SQS has no
    /// such count) has been waited on since the first of an unbroken row of samples with visible messages, so the first one
    /// alone says nothing yet (Q4). While messages come and go without a break, that is longer than the oldest has waited.
    #[must_use]
    pub fn waiting_since(&self, last: Option<(&Self, Timestamp)>) -> Option<Timestamp> {
        if self.visible == 0 || self.oldest_sent_at.is_some() {
            return self.oldest_sent_at;
        }
        let (last, at) = last.filter(|(last, _)| last.visible > 0)?;
        Some(last.oldest_sent_at.unwrap_or(at))
    }

    /// Whether nothing waits, is worked on, or is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.visible == 0 && self.in_flight == 0 && self.delayed == 0
    }
}

/// A person's timed override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// On which pool.
    pub pool: PoolId,
    /// What it asks for.
    pub wants: HoldWants,
    /// From when.
    pub since: Timestamp,
    /// Until when; then schedule and queue decide again.
    pub until: Timestamp,
    /// Who set it.
    pub by: String,
    /// Why, in their words.
    pub why: Option<String>,
    /// How much it may spend beyond the pool's budget; without it the budget has the last word.
    pub over_budget: Option<MicroUsd>,
}

/// What a hold asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldWants {
    /// At least one box up.
    Running,
    /// Every box down.
    Stopped,
}

/// One run of one box, from start to stop, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The pool.
    pub pool: PoolId,
    /// The box.
    pub box_id: BoxId,
    /// When it was asked to start; with the box, the run's key.
    pub started_at: Timestamp,
    /// When it was ready for work.
    pub ready_at: Option<Timestamp>,
    /// When it was asked to stop.
    pub stopping_at: Option<Timestamp>,
    /// When it was gone.
    pub stopped_at: Option<Timestamp>,
    /// Why it was started.
    pub start: Reason,
    /// Why it was stopped; a run that ended without one broke off.
    pub stop: Option<Reason>,
    /// The worker's last words, when it ended in an error.
    pub error: Option<String>,
    /// Results that its worker kept, as far as it could say.
    pub jobs: Option<u32>,
    /// What was bought, or asked for.
    pub offering: Option<Offering>,
    /// That the cloud had none to give.
    pub refusal: Option<Refusal>,
    /// When the cloud took the box away.
    pub interrupted_at: Option<Timestamp>,
}

impl Run {
    /// A run that has just been asked for.
    #[must_use]
    pub fn begin(pool: PoolId, box_id: BoxId, started_at: Timestamp, start: Reason) -> Self {
        Self {
            pool,
            box_id,
            started_at,
            ready_at: None,
            stopping_at: None,
            stopped_at: None,
            start,
            stop: None,
            error: None,
            jobs: None,
            offering: None,
            refusal: None,
            interrupted_at: None,
        }
    }

    /// Whether the run ended before the box was ready, by itself or because it took too long. A refusal is no failure of
    /// the box: `capacity` remembers it, and another offering is tried at once.
    #[must_use]
    pub fn failed_to_start(&self) -> bool {
        if self.refusal.is_some() || self.interrupted_at.is_some() {
            return false;
        }
        let gave_up = self.stop.as_ref().is_none_or(|reason| reason.rule == Rule::Limits);
        self.stopped_at.is_some() && self.ready_at.is_none() && gave_up
    }

    /// Whether demand started the box and it broke off without a single result: as when a job ends its worker (Q7). One that
    /// found nothing left to do is no such thing.
    #[must_use]
    pub fn ended_without_result(&self) -> bool {
        self.start.rule == Rule::Demand
            && self.ready_at.is_some()
            && self.stopped_at.is_some()
            && self.interrupted_at.is_none()
            && self.jobs == Some(0)
            && self.stop.as_ref().is_none_or(|reason| reason.rule == Rule::Limits)
    }

    /// How long the box was up, until `now` if it still is.
    #[must_use]
    pub fn lasted(&self, now: Timestamp) -> TimeDelta {
        (self.stopped_at.unwrap_or(now) - self.started_at).max(TimeDelta::zero())
    }
}

/// How long a box of this pool takes from start to ready: the slowest tenth of its last runs, or the default.
#[must_use]
pub fn boot_estimate(runs: &[Run], default: TimeDelta) -> TimeDelta {
    let mut boots: Vec<TimeDelta> = runs
        .iter()
        .filter_map(|run| Some((run.ready_at? - run.started_at).max(TimeDelta::zero())))
        .collect();
    boots.sort_unstable();
    nearest_rank(&boots, 90).unwrap_or(default)
}
