//! The one decision: from a policy and an observation to a plan.
//!
//! Pure, total and deterministic. The rules are asked in a fixed order and each leaves its verdict, also when another has
//! the last word. A pool's answer depends on that pool alone, so that one bad pool never blocks another.

mod cooldown;
mod demand;
mod hold;
mod idle;
mod limits;
mod schedule;

use chrono::TimeDelta;

use crate::observation::{
    BoxState, Observation, SeenBox, SeenPool, SeenQueue, Witness, boot_estimate,
};
use crate::plan::{Action, Manner, NextChange, Plan, PoolPlan, Reason, Rule, Says, Verdict};
use crate::policy::{Policy, Pool};
use crate::units::{BoxId, Timestamp, show_span};

/// How old a part of the observation may be before it counts as unknown: unknown never starts and never stops anything.
pub const STALE_AFTER: TimeDelta = TimeDelta::minutes(2);

/// How long a box is thought to take to boot while the ledger has no run of it: a local worker loads its models in seconds.
pub const BOOT_DEFAULT: TimeDelta = TimeDelta::seconds(5);

/// What the policy wants, given what was seen.
pub fn decide(policy: &Policy, seen: &Observation) -> Plan {
    let pools = policy
        .pools
        .iter()
        .filter_map(|pool| {
            let seen_pool = seen.pools.get(&pool.id)?;
            let case = Case::new(policy, pool, seen, seen_pool);
            Some(decide_pool(&case))
        })
        .collect();
    Plan { at: seen.at, pools }
}

fn decide_pool(case: &Case<'_>) -> PoolPlan {
    let mut opinion = Opinion::default();
    hold::rule(case, &mut opinion);
    schedule::rule(case, &mut opinion);
    demand::rule(case, &mut opinion);
    idle::rule(case, &mut opinion);
    limits::rule(case, &mut opinion);
    cooldown::rule(case, &mut opinion);
    opinion.into_plan(case)
}

/// One pool's question, with what several rules need of it.
struct Case<'a> {
    pool: &'a Pool,
    now: Timestamp,
    tick: TimeDelta,
    witness: &'a Witness,
    seen: &'a SeenPool,
    boxes: Option<&'a [SeenBox]>,
    queue: Option<&'a SeenQueue>,
    boot: TimeDelta,
}

impl<'a> Case<'a> {
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
            witness: &seen.witness,
            seen: seen_pool,
            boxes: seen_pool.boxes.fresh(seen.at, STALE_AFTER).map(Vec::as_slice),
            queue: seen_pool.queue.as_ref().and_then(|queue| queue.fresh(seen.at, STALE_AFTER)),
            boot: boot_estimate(&seen_pool.runs, BOOT_DEFAULT),
        }
    }

    fn boxes(&self) -> &'a [SeenBox] {
        self.boxes.unwrap_or_default()
    }

    fn up(&self) -> impl Iterator<Item = &'a SeenBox> {
        self.boxes().iter().filter(|one| one.is_up())
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

/// What the rules have said so far. Rules add to it; only `into_plan` weighs.
#[derive(Default)]
struct Opinion {
    verdicts: Vec<Verdict>,
    /// The most boxes that any rule asks for.
    floor: Option<(u32, Reason)>,
    /// Every box is to stop, whatever the floor.
    all_off: Option<Reason>,
    /// Boxes that may go, as long as the floor is kept.
    released: Vec<(BoxId, Reason)>,
    /// Boxes that must go, whatever the floor.
    condemned: Vec<(BoxId, Manner, Reason)>,
    /// No starts now, except those that a person asked for after the cause.
    no_starts: Option<Reason>,
    /// Instants at which a rule will change its mind.
    changes: Vec<NextChange>,
}

impl Opinion {
    fn says(&mut self, says: Says, rule: Rule, text: impl Into<String>) -> Reason {
        let reason = Reason::new(rule, text);
        self.verdicts.push(Verdict { says, reason: reason.clone() });
        reason
    }

    fn pass(&mut self, rule: Rule, text: impl Into<String>) {
        self.says(Says::Pass, rule, text);
    }

    fn at_least(&mut self, boxes: u32, rule: Rule, text: impl Into<String>) {
        let reason = self.says(Says::AtLeast(boxes), rule, text);
        if self.floor.as_ref().is_none_or(|(most, _)| boxes > *most) {
            self.floor = Some((boxes, reason));
        }
    }

    fn change(&mut self, at: Timestamp, rule: Rule, text: impl Into<String>) {
        self.changes.push(NextChange { at, reason: Reason::new(rule, text) });
    }

    fn into_plan(self, case: &Case<'_>) -> PoolPlan {
        let mut blocked = Vec::new();
        let floor = if self.all_off.is_some() {
            0
        } else {
            self.floor.as_ref().map_or(0, |(boxes, _)| *boxes)
        };
        let actions = match case.boxes {
            None => {
                let text = format!(
                    "the boxes were last seen {} ago: nothing is started or stopped",
                    case.ago(case.seen.boxes.at)
                );
                blocked.push(Reason::new(Rule::Limits, text));
                Vec::new()
            }
            Some(boxes) => {
                let mut actions = self.stops(boxes, floor);
                self.starts(case, floor, &mut actions, &mut blocked);
                actions
            }
        };
        let staying = case.up().filter(|one| !is_stopped_by(&actions, &one.id)).count();
        let next_change =
            self.changes.into_iter().filter(|next| next.at > case.now).min_by_key(|next| next.at);
        PoolPlan {
            pool: case.pool.id.clone(),
            boxes_wanted: floor.max(u32::try_from(staying).unwrap_or(u32::MAX)),
            verdicts: self.verdicts,
            actions,
            blocked,
            next_change,
        }
    }

    fn stops(&self, boxes: &[SeenBox], floor: u32) -> Vec<Action> {
        let stop = |box_id: &BoxId, manner, reason: &Reason| Action::Stop {
            box_id: box_id.clone(),
            manner,
            reason: reason.clone(),
        };
        let mut stops: Vec<Action> = self
            .condemned
            .iter()
            .map(|(box_id, manner, reason)| stop(box_id, *manner, reason))
            .collect();
        let up = boxes.iter().filter(|one| one.is_up());
        let left: Vec<&SeenBox> =
            up.filter(|one| !stops.iter().any(|stop| *stop.box_id() == one.id)).collect();
        if let Some(reason) = &self.all_off {
            stops.extend(left.iter().map(|one| stop(&one.id, Manner::Drain, reason)));
            return stops;
        }
        let spare = left.len().saturating_sub(floor as usize);
        let leaving =
            self.released.iter().filter(|(box_id, _)| left.iter().any(|one| one.id == *box_id));
        stops.extend(
            leaving.take(spare).map(|(box_id, reason)| stop(box_id, Manner::Drain, reason)),
        );
        stops
    }

    fn starts(
        &self,
        case: &Case<'_>,
        floor: u32,
        actions: &mut Vec<Action>,
        blocked: &mut Vec<Reason>,
    ) {
        let Some((_, reason)) = &self.floor else { return };
        let up = case.up().filter(|one| !is_stopped_by(actions, &one.id)).count();
        let missing = (floor as usize).saturating_sub(up);
        if missing == 0 {
            return;
        }
        if let Some(cause) = &self.no_starts {
            blocked.push(cause.clone());
            return;
        }
        let mut stopped = case.boxes().iter().filter(|one| one.state == BoxState::Stopped);
        for _ in 0..missing {
            match stopped.next() {
                Some(one) => {
                    actions.push(Action::Start { box_id: one.id.clone(), reason: reason.clone() });
                }
                None => {
                    // S4: a box that is still stopping is waited for, never started.
                    let text =
                        "every other box is still stopping: it starts again once it has stopped";
                    blocked.push(Reason::new(Rule::Limits, text));
                    return;
                }
            }
        }
    }
}

fn is_stopped_by(actions: &[Action], id: &BoxId) -> bool {
    actions.iter().any(|action| matches!(action, Action::Stop { box_id, .. } if box_id == id))
}

#[cfg(test)]
mod tests;
