//! The decision: from a policy and an observation to a plan.
//!
//! Pure, total and deterministic. The rules are asked in a fixed order, and each leaves its verdict, also where another rule
//! overrides it. The plan of a pool depends on that pool alone, so that one bad pool never blocks another.

mod budget;
mod capacity;
mod cooldown;
mod decision;
mod demand;
mod hold;
mod idle;
mod interruption;
mod keep;
mod limits;
mod schedule;

use chrono::TimeDelta;

use self::decision::PoolDecision;
pub use self::hold::hold_is_done;
pub use self::keep::KEEP_MAX;
pub use self::limits::FAULT_MAX;
use crate::cost::CostSettings;
use crate::observation::{
    Hold, HoldWants, Observation, Run, SeenBox, SeenPool, SeenQueue, Witness, boot_estimate,
};
use crate::plan::{Plan, PoolPlan};
use crate::policy::{Policy, Pool};
use crate::units::{Timestamp, show_age, show_time_left};

/// How old a part of the observation may be before it counts as unknown: what is unknown never starts or stops a box.
pub const STALE_AFTER: TimeDelta = TimeDelta::minutes(2);

/// The plan for every pool of the policy that the observation covers.
///
/// # Examples
///
/// A job waits and the pool's only box is stopped:
///
/// ```
/// use std::collections::BTreeMap;
///
/// use gpuctl_core::decide;
/// use gpuctl_core::observation::{
///     BoxState, Observation, Seen, SeenBox, SeenPool, SeenQueue, Witness,
/// };
/// use gpuctl_core::policy::Policy;
/// use gpuctl_core::units::{BoxId, PoolId, Timestamp};
///
/// let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"")?;
/// let now: Timestamp = "2026-11-21T12:00:00Z".parse()?;
/// let pool: PoolId = "gpu".parse()?;
/// let stopped = SeenBox::new(BoxId::of_pool(&pool, 1), BoxState::Stopped, now);
/// let queue = SeenQueue { visible: 1, oldest_sent_at: Some(now), ..SeenQueue::default() };
/// let seen = SeenPool {
///     boxes: Seen::now(vec![stopped], now),
///     queue: Some(Seen::now(queue, now)),
///     urgent: None,
///     hold: None,
///     runs: vec![],
///     service: None,
///     spent: None,
/// };
/// let pools = BTreeMap::from([(pool, seen)]);
/// let plan = decide(&policy, &Observation { at: now, witness: Witness::Controller, pools });
///
/// let action = &plan.pools[0].actions[0];
/// assert_eq!(action.box_id().as_str(), "gpu-1");
/// assert_eq!(
///     action.reason().text,
///     "1 job waits, the oldest for 0s; max_wait is 0s, a boot takes 5s"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decide(policy: &Policy, seen: &Observation) -> Plan {
    let pools = policy
        .pools
        .iter()
        .filter_map(|pool| {
            let seen_pool = seen.pools.get(&pool.id)?;
            let input = PoolInput::new(policy, pool, seen, seen_pool);
            Some(decide_pool(&input))
        })
        .collect();
    Plan { at: seen.at, pools }
}

/// The rules only add to the decision; the order is that of the verdicts in a plan, and of two reasons for the same the first is given.
fn decide_pool(input: &PoolInput<'_>) -> PoolPlan {
    let mut decision = PoolDecision::default();
    interruption::rule(input, &mut decision);
    hold::rule(input, &mut decision);
    budget::rule(input, &mut decision);
    schedule::rule(input, &mut decision);
    demand::rule(input, &mut decision);
    idle::rule(input, &mut decision);
    capacity::rule(input, &mut decision);
    limits::rule(input, &mut decision);
    cooldown::rule(input, &mut decision);
    decision.into_plan(input)
}

/// What the rules of one pool look at.
struct PoolInput<'a> {
    pool: &'a Pool,
    now: Timestamp,
    tick: TimeDelta,
    witness: &'a Witness,
    seen: &'a SeenPool,
    /// `None` if they were never read, or too long ago.
    boxes: Option<&'a [SeenBox]>,
    /// `None` if the pool has no queue, or it was never read, or too long ago.
    queue: Option<&'a SeenQueue>,
    /// How long a boot is expected to take.
    boot: TimeDelta,
    /// How long a stopping worker may finish what it holds.
    drain: TimeDelta,
    cost: &'a CostSettings,
}

impl<'a> PoolInput<'a> {
    fn new(
        policy: &'a Policy,
        pool: &'a Pool,
        seen: &'a Observation,
        seen_pool: &'a SeenPool,
    ) -> Self {
        Self {
            pool,
            now: seen.at,
            tick: policy.cloud.tick,
            drain: policy.worker.drain,
            cost: &policy.cost,
            witness: &seen.witness,
            seen: seen_pool,
            boxes: seen_pool.boxes.fresh(seen.at, STALE_AFTER).map(Vec::as_slice),
            queue: seen_pool.queue.as_ref().and_then(|queue| queue.fresh(seen.at, STALE_AFTER)),
            boot: boot_estimate(&seen_pool.runs, pool),
        }
    }

    /// Empty also if the boxes are unknown: `into_plan` starts and stops nothing then.
    fn boxes(&self) -> &'a [SeenBox] {
        self.boxes.unwrap_or_default()
    }

    fn up(&self) -> impl Iterator<Item = &'a SeenBox> {
        self.boxes().iter().filter(|one| one.is_up())
    }

    /// The hold in force, if there is one.
    fn hold(&self) -> Option<&'a Hold> {
        let hold = self.seen.hold.as_ref().filter(|hold| hold.until > self.now);
        hold.filter(|_| !hold_is_done(self.seen, self.now))
    }

    /// The boxes that are up and not being interrupted.
    fn staying(&self) -> impl Iterator<Item = &'a SeenBox> {
        self.up().filter(|one| one.interruption.is_none())
    }

    /// The boxes that jobs can be expected of: up, staying, without a fault of which their worker takes none, and within their limits: one
    /// that is silent or hangs in its boot may be kept up by a user.
    fn able(&self) -> impl Iterator<Item = &'a SeenBox> {
        self.staying().filter(|one| one.fault().is_none() && !limits::is_overdue(self, one))
    }

    /// Why boxes that are up take no jobs, a sentence each.
    fn faults(&self) -> Vec<String> {
        self.up().filter_map(SeenBox::fault_text).collect()
    }

    /// When a user last asked for boxes: their hold may have ended since.
    fn asked_at(&self) -> Option<Timestamp> {
        let asked = |hold: &&Hold| hold.wants == HoldWants::Running && hold.until > hold.since;
        self.seen.hold.as_ref().filter(asked).map(|hold| hold.since)
    }

    /// The runs that were not refused, newest first.
    fn accepted_runs(&self) -> impl Iterator<Item = &'a Run> {
        self.seen.runs.iter().filter(|run| run.refusal.is_none())
    }

    /// The first instant after `then` at which the schedule wants something else.
    fn next_edge_after(&self, then: Timestamp) -> Option<Timestamp> {
        self.pool.schedule.next_change(then).map(|edge| edge.at)
    }

    /// How long ago `then` was, in words.
    fn ago(&self, then: Timestamp) -> String {
        show_age(self.now - then)
    }

    /// How long until `then`, in words.
    fn until(&self, then: Timestamp) -> String {
        show_time_left(then - self.now)
    }
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

fn jobs_are(count: u64) -> String {
    format!("{} {}", jobs(count), if count == 1 { "is" } else { "are" })
}

fn jobs_wait(count: u64) -> String {
    format!("{} {}", jobs(count), if count == 1 { "waits" } else { "wait" })
}

#[cfg(test)]
mod tests;
