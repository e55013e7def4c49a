//! The one decision: from a policy and an observation to a plan.
//!
//! Pure, total and deterministic. The rules are asked in a fixed order and each leaves its verdict, also when another has
//! the last word. A pool's answer depends on that pool alone, so that one bad pool never blocks another.

mod budget;
mod capacity;
mod cooldown;
mod decision;
mod demand;
mod hold;
mod idle;
mod interruption;
mod limits;
mod schedule;

use chrono::TimeDelta;

use self::decision::PoolDecision;
use crate::observation::{
    Hold, Observation, Run, SeenBox, SeenPool, SeenQueue, Witness, boot_estimate,
};
use crate::plan::{Plan, PoolPlan};
use crate::policy::{Policy, Pool};
use crate::units::{Timestamp, show_span};

/// How old a part of the observation may be before it counts as unknown: unknown never starts and never stops anything.
pub const STALE_AFTER: TimeDelta = TimeDelta::minutes(2);

/// What the policy wants, given what was seen.
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

/// One pool's question, with what several rules need of it.
struct PoolInput<'a> {
    pool: &'a Pool,
    now: Timestamp,
    tick: TimeDelta,
    witness: &'a Witness,
    seen: &'a SeenPool,
    boxes: Option<&'a [SeenBox]>,
    queue: Option<&'a SeenQueue>,
    boot: TimeDelta,
    /// How long a stopping worker may finish what it holds.
    drain: TimeDelta,
}

impl<'a> PoolInput<'a> {
    fn new(
        policy: &Policy,
        pool: &'a Pool,
        seen: &'a Observation,
        seen_pool: &'a SeenPool,
    ) -> Self {
        Self {
            pool,
            now: seen.at,
            tick: policy.cloud.tick,
            drain: policy.worker.drain,
            witness: &seen.witness,
            seen: seen_pool,
            boxes: seen_pool.boxes.fresh(seen.at, STALE_AFTER).map(Vec::as_slice),
            queue: seen_pool.queue.as_ref().and_then(|queue| queue.fresh(seen.at, STALE_AFTER)),
            boot: boot_estimate(&seen_pool.runs, pool.boot_default),
        }
    }

    fn boxes(&self) -> &'a [SeenBox] {
        self.boxes.unwrap_or_default()
    }

    fn up(&self) -> impl Iterator<Item = &'a SeenBox> {
        self.boxes().iter().filter(|one| one.is_up())
    }

    /// The hold in force, if there is one.
    fn hold(&self) -> Option<&'a Hold> {
        self.seen.hold.as_ref().filter(|hold| hold.until > self.now)
    }

    /// The boxes that are up and not being taken back.
    fn staying(&self) -> impl Iterator<Item = &'a SeenBox> {
        self.up().filter(|one| one.interruption.is_none())
    }

    /// The runs that were not refused, newest first.
    fn accepted_runs(&self) -> impl Iterator<Item = &'a Run> {
        self.seen.runs.iter().filter(|run| run.refusal.is_none())
    }

    /// The first instant after `then` at which the schedule changes its mind.
    fn next_edge_after(&self, then: Timestamp) -> Option<Timestamp> {
        self.pool.schedule.next_change(then).map(|edge| edge.at)
    }

    /// How long ago `then` was, in words.
    fn ago(&self, then: Timestamp) -> String {
        show_span(self.now - then)
    }

    /// How long until `then`, in words.
    fn until(&self, then: Timestamp) -> String {
        show_span(then - self.now)
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
