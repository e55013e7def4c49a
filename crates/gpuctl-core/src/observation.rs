//! Everything that one reconcile has read, each part with its age, as plain data.
//!
//! Nothing is judged here: `decide` says which values are too old, and what follows from them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::TimeDelta;

use crate::offering::{Offering, Refusal};
use crate::period::{day_of, month_of};
use crate::plan::{Reason, Rule};
use crate::policy::Pool;
use crate::units::{BoxId, MicroUsd, PoolId, Timestamp, nearest_rank};

/// The input of `decide` besides the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The instant that the decision is for.
    pub at: Timestamp,
    pub witness: Witness,
    /// Pools of the policy that are missing here are left out of the plan too.
    pub pools: BTreeMap<PoolId, SeenPool>,
}

impl Observation {
    /// The same observation at another instant, as if nothing had happened until then: what was fresh stays fresh, and jobs have
    /// waited longer. `gpuctl plan --at` uses it.
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

/// Who observes and decides. Either can stop a box without the other, but a controller lets the worker do it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// CLI, daemon or Lambda.
    Controller,
    /// The worker on this box, which knows its own leases first-hand.
    Worker(BoxId),
}

/// A value and when it was read. A failed read keeps the old value, so that its age shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<T> {
    /// `None` if it was never read.
    pub value: Option<T>,
    pub at: Timestamp,
}

impl<T> Seen<T> {
    pub fn now(value: T, at: Timestamp) -> Self {
        Self { value: Some(value), at }
    }

    /// The value, if it was read and is no older than `age_max`.
    pub fn fresh(&self, now: Timestamp, age_max: TimeDelta) -> Option<&T> {
        self.value.as_ref().filter(|_| now - self.at <= age_max)
    }
}

/// The most runs of a pool in one observation: enough for an hour of starts, and to estimate a boot from.
pub const RUNS_REMEMBERED_MAX: u32 = 100;

/// One pool, as seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenPool {
    pub boxes: Seen<Vec<SeenBox>>,
    /// `None` if the pool has no queue.
    pub queue: Option<Seen<SeenQueue>>,
    /// The waiting job with the least patience of its own, if any has one.
    pub urgent: Option<UrgentJob>,
    /// The latest hold, also one that has expired.
    pub hold: Option<Hold>,
    /// Its latest runs, newest first.
    pub runs: Vec<Run>,
    /// How long one job takes, by the latest results.
    pub service: Option<TimeDelta>,
    /// What its boxes have cost so far, if it has a budget.
    pub spent: Option<Spent>,
}

/// A job that waits, and may wait for less long than its pool lets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrgentJob {
    /// Its id.
    pub id: String,
    /// When a box should be ready for it at the latest.
    pub begin_by: Timestamp,
}

/// What a pool's boxes have cost in the current periods, in UTC as AWS bills them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Since the first of the month; of a pool without a monthly budget since midnight.
    pub month: MicroUsd,
    /// Since midnight.
    pub day: MicroUsd,
    /// Since the hold in force was set.
    pub hold: MicroUsd,
}

/// The states of an EC2 instance; a worker process on this machine goes through the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxState {
    /// Started, not ready yet.
    Pending,
    /// Ready for work.
    Running,
    /// Draining or shutting down.
    Stopping,
    /// Billed for its disk only.
    Stopped,
}

impl BoxState {
    /// The name in JSON and in the ledger.
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
    pub id: BoxId,
    pub state: BoxState,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// Whether that is only a bound, since the cloud does not say: it has been in this state for less long. Never `now` instead: an
    /// unknown time must not count as the newest.
    pub since_is_bound: bool,
    /// The error of the latest run, if it ended in one.
    pub last_error: Option<String>,
    /// When its latest run was started; together with the box, the key of that run.
    pub run_started_at: Option<Timestamp>,
    /// The same instant as the clock of now has it, where a clock may have been set since: a key keeps its time, an age follows the clock.
    pub began_at: Option<Timestamp>,
    /// The latest report of its worker in this run.
    pub worker: Option<SeenWorker>,
    /// `None` for boxes on this machine.
    pub offering: Option<Offering>,
    /// When EC2 interrupts it, if it has given notice. On a stopped box: when EC2 did; only EC2 can start it again (P4).
    pub interruption: Option<Timestamp>,
    /// When EC2 recommended to replace it, since it may interrupt it; it names no deadline. Only the box itself is told, and reports it.
    pub rebalance: Option<Timestamp>,
    /// How long the parts of its boot took, in order, as it reports them; empty on this machine.
    pub boot_phases: Vec<BootPhase>,
    /// The latest start or stop outside gpuctl, e.g. in the AWS console.
    pub foreign: Option<Foreign>,
    /// Why it cannot be started although it is stopped, e.g. because EC2 has interrupted it (P4): the end of a sentence.
    pub unstartable: Option<String>,
}

/// How long a part of a box's boot took, as the box measured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPhase {
    pub name: String,
    pub took: TimeDelta,
}

impl BootPhase {
    /// The most phases that are read, and the most characters of a name: a box writes five.
    const COUNT_MAX: usize = 16;
    const NAME_CHARS_MAX: usize = 24;

    /// Reads lines such as `models 6300`, in milliseconds, as the box's scripts write them. Other lines are left out.
    #[must_use]
    pub fn read_all(text: &str) -> Vec<Self> {
        let phase = |line: &str| {
            let (name, took) = line.split_once(' ')?;
            let is_name = name.len() <= Self::NAME_CHARS_MAX
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            let took = TimeDelta::milliseconds(took.trim().parse::<u32>().ok()?.into());
            is_name.then(|| Self { name: name.to_owned(), took })
        };
        text.lines().filter_map(phase).take(Self::COUNT_MAX).collect()
    }

    /// As [`Self::read_all`] reads them.
    #[must_use]
    pub fn write_all(phases: &[Self]) -> String {
        let line = |phase: &Self| format!("{} {}\n", phase.name, phase.took.num_milliseconds());
        phases.iter().map(line).collect()
    }
}

/// A start or stop that gpuctl did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub wants: HoldWants,
    /// `None` if the cloud does not say when.
    pub at: Option<Timestamp>,
    /// The AWS user or role as far as EC2 tells it.
    pub by: String,
}

impl SeenBox {
    /// A box with its state only.
    #[must_use]
    pub fn new(id: BoxId, state: BoxState, since: Timestamp) -> Self {
        Self {
            id,
            state,
            since,
            since_is_bound: false,
            last_error: None,
            run_started_at: None,
            began_at: None,
            worker: None,
            offering: None,
            interruption: None,
            rebalance: None,
            boot_phases: Vec::new(),
            foreign: None,
            unstartable: None,
        }
    }

    /// Whether the box is running or booting.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, BoxState::Pending | BoxState::Running)
    }

    /// Since when the box has been up: since its start, however often its worker has restarted since.
    #[must_use]
    pub fn up_since(&self) -> Timestamp {
        let began = self.began_at.or(self.run_started_at);
        began.map_or(self.since, |began| began.min(self.since))
    }

    /// Why its worker takes no jobs.
    #[must_use]
    pub fn fault(&self) -> Option<&WorkerFault> {
        self.worker.as_ref()?.fault.as_ref()
    }

    /// The same as a sentence, e.g. `gpu-1 takes no jobs: models missing since 10:02 UTC`.
    #[must_use]
    pub fn fault_text(&self) -> Option<String> {
        let fault = self.fault()?;
        let since = fault.since.format("%H:%M UTC");
        Some(format!("{} takes no jobs: {} since {since}", self.id, fault.message))
    }
}

/// The report of a worker about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenWorker {
    pub heard_at: Timestamp,
    /// Messages that it holds.
    pub leases: u32,
    /// Since when it has held none.
    pub idle_since: Option<Timestamp>,
    /// Results that it has committed in this run.
    pub jobs_done: u32,
    /// Why it receives no jobs, although it is up.
    pub fault: Option<WorkerFault>,
    /// Until when a user on the box wants it kept up: the file `keep-until` in its state folder.
    pub keep_until: Option<Timestamp>,
}

/// What keeps a worker from its jobs: a fault of its box or of a service, never of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFault {
    /// A short, stable code such as `models.missing`, or `results.unreachable` for a service.
    pub code: String,
    /// The end of a sentence: "gpu-1 takes no jobs: …".
    pub message: String,
    pub since: Timestamp,
}

impl WorkerFault {
    /// Whether a service cannot be used that every box of the pool needs: it cannot be reached, or lets none of them in.
    #[must_use]
    pub fn is_of_service(&self) -> bool {
        self.code.ends_with(".unreachable") || self.code.ends_with(".denied")
    }
}

/// The counts of a queue, as SQS gives them, and since when they have been like that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenQueue {
    /// Messages that wait for a worker.
    pub visible: u64,
    /// Messages that a worker holds.
    pub in_flight: u64,
    /// Messages that become visible later.
    pub delayed: u64,
    /// Messages in the dead-letter queue.
    pub dead: u64,
    /// When the oldest visible message was sent. `None` while that is not known: SQS does not tell it, and a first sample with
    /// visible messages must be confirmed by a second (Q4, `waiting_since`).
    pub oldest_sent_at: Option<Timestamp>,
    /// Since when visible, in flight and delayed have all been zero in every sample.
    pub empty_since: Option<Timestamp>,
}

impl SeenQueue {
    /// Since when the queue has been empty, given its previous sample and when that was taken: since the first of consecutive empty
    /// samples. `None` if this is the first (Q3).
    #[must_use]
    pub fn empty_since(&self, last: Option<(&Self, Timestamp)>) -> Option<Timestamp> {
        let (last, at) = last.filter(|(last, _)| last.is_empty() && self.is_empty())?;
        Some(last.empty_since.unwrap_or(at))
    }

    /// When the oldest visible message was sent, given the previous sample and when that was taken.
    ///
    /// For a queue that does not tell (SQS), this is the first of consecutive samples with visible messages; `None` if this is the
    /// first (Q4). While messages keep coming, this is earlier than the oldest message was sent.
    #[must_use]
    pub fn waiting_since(&self, last: Option<(&Self, Timestamp)>) -> Option<Timestamp> {
        if self.visible == 0 || self.oldest_sent_at.is_some() {
            return self.oldest_sent_at;
        }
        let (last, at) = last.filter(|(last, _)| last.visible > 0)?;
        Some(last.oldest_sent_at.unwrap_or(at))
    }

    /// Whether no message is visible, in flight or delayed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.visible == 0 && self.in_flight == 0 && self.delayed == 0
    }
}

/// A user's timed override of a pool's schedule and queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub pool: PoolId,
    pub wants: HoldWants,
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// Who set it.
    pub by: String,
    /// The reason that they gave.
    pub why: Option<String>,
    /// How much it may spend beyond the pool's budget; `None` is nothing.
    pub over_budget: Option<MicroUsd>,
    /// Whether it ends before that, once the queue is empty and no box is busy.
    pub until_empty: bool,
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
    pub pool: PoolId,
    pub box_id: BoxId,
    /// When the start was ordered; together with the box, the run's key.
    pub started_at: Timestamp,
    /// When it was ready for work.
    pub ready_at: Option<Timestamp>,
    /// When the stop was ordered.
    pub stopping_at: Option<Timestamp>,
    /// When it was seen stopped.
    pub stopped_at: Option<Timestamp>,
    /// Why it was started.
    pub start: Reason,
    /// Why it was stopped; `None` if it ended by itself, e.g. in a crash.
    pub stop: Option<Reason>,
    /// The worker's error, if it ended in one.
    pub error: Option<String>,
    /// Results that its worker committed; `None` if it could not report them.
    pub jobs: Option<u32>,
    /// What was started, or was to be. `None` for boxes on this machine.
    pub offering: Option<Offering>,
    /// EC2's refusal of this start.
    pub refusal: Option<Refusal>,
    /// When EC2 interrupted the box.
    pub interrupted_at: Option<Timestamp>,
}

impl Run {
    /// A run whose start has just been ordered.
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

    /// Whether the run ended before the box was ready, by itself or because it took too long.
    ///
    /// A refusal is not a failure of the box: `refusals` takes it into account, and another offering is tried at once.
    #[must_use]
    pub fn failed_to_start(&self) -> bool {
        self.ready_at.is_none() && self.gave_out()
    }

    /// Whether the box was ready and ended by itself or for a limit without a result, and an error says why: the box is at fault.
    #[must_use]
    pub fn ended_in_fault(&self) -> bool {
        self.ready_at.is_some() && self.gave_out() && self.jobs == Some(0) && self.error.is_some()
    }

    /// Whether another start of this box would likely be in vain, too.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed_to_start() || self.ended_in_fault() || self.crashed_at_once()
    }

    /// Whether what no worker reports on, e.g. a command, ended by itself as soon as it was ready.
    fn crashed_at_once(&self) -> bool {
        let lasted = self.ready_at.zip(self.stopped_at).map(|(ready, stopped)| stopped - ready);
        let short = lasted.is_some_and(|lasted| lasted < SHORT_RUN);
        short && self.jobs.is_none() && self.stop.is_none() && self.gave_out()
    }

    /// Whether the run is over, and neither a user, the plan, nor the cloud ended it.
    fn gave_out(&self) -> bool {
        let by_itself = self.stop.as_ref().is_none_or(|reason| reason.rule == Rule::Limits);
        let taken = self.refusal.is_some() || self.interrupted_at.is_some();
        self.stopped_at.is_some() && by_itself && !taken
    }

    /// Whether the box was started for the queue and ended without a result, e.g. because a job crashed its worker (Q7).
    ///
    /// A box that was stopped because it had nothing to do is not one of these.
    #[must_use]
    pub fn ended_without_result(&self) -> bool {
        self.start.rule == Rule::Demand
            && self.ready_at.is_some()
            && self.jobs == Some(0)
            && self.gave_out()
    }

    /// How long the box was up, until `now` if it still is.
    #[must_use]
    pub fn lasted(&self, now: Timestamp) -> TimeDelta {
        (self.stopped_at.unwrap_or(now) - self.started_at).max(TimeDelta::zero())
    }
}

/// A run that ends by itself within this time after it was ready has crashed, if no worker reports on it.
const SHORT_RUN: TimeDelta = TimeDelta::minutes(1);

/// Of so few boots the 90th percentile is the longest one: it is left out.
const FEW_BOOTS: RangeInclusive<usize> = 3..=9;

/// How long a box of this pool takes from start to ready: the 90th percentile of `runs`, or `boot_default` if none got ready.
///
/// One boot that was stuck says nothing about the next, but jobs would be started for earlier and idle boxes stay up for as long as it
/// took. So neither is it the estimate by itself, nor is that longer than `boot_deadline`: what takes longer is stopped.
#[must_use]
pub fn boot_estimate(runs: &[Run], pool: &Pool) -> TimeDelta {
    let mut boots: Vec<TimeDelta> = runs
        .iter()
        .filter_map(|run| Some((run.ready_at? - run.started_at).max(TimeDelta::zero())))
        .collect();
    boots.sort_unstable();
    if FEW_BOOTS.contains(&boots.len()) {
        boots.pop();
    }
    nearest_rank(&boots, 90).unwrap_or(pool.boot_default).min(pool.boot_deadline)
}
