//! What a job waits for, since when, and when its box is expected; and what a finished one cost. All of it is read off the plan and the runs.

use chrono::TimeDelta;
use gpuctl_core::cost::usd_hour;
use gpuctl_core::observation::{BoxState, Run, SeenPool, boot_estimate};
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::plan::{Action, Effect, PoolPlan, Reason, Rule, Verdict};
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::units::{MicroUsd, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::job::JobState;
use crate::ports::JobEntry;
use crate::snapshot::Snapshot;
use crate::wire::time;

/// What a queued job waits for.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Waiting {
    /// A sentence.
    pub reason: String,
    /// The rule that says so; `gpuctl explain` has every rule's verdict.
    pub rule: Option<&'static str>,
    /// Since when it waits; `null` for a job that was sent again, of which only the first time is known.
    pub since: Option<String>,
    /// When its box is expected to be ready; `null` where no start is planned.
    pub box_expected_at: Option<String>,
    /// Why no box may start for it now, e.g. `budget.exhausted`; `null` where none is needed or one may start.
    pub blocked: Option<&'static str>,
    /// Jobs in the queue, this one included.
    pub queue_length: Option<u64>,
}

impl Waiting {
    /// `None` for a job that does not wait.
    #[must_use]
    pub fn of(entry: &JobEntry, policy: &Policy, snapshot: &Snapshot) -> Option<Self> {
        if entry.state != JobState::Queued {
            return None;
        }
        let since = entry.job.submitted_at;
        let pool = policy.queue_pools().find(|(_, queue)| queue.name == entry.job.queue);
        let Some((pool, (seen, plan))) =
            pool.and_then(|(pool, _)| Some((pool, snapshot.pool(&pool.id)?)))
        else {
            let text = format!("no pool has the queue `{}`", entry.job.queue);
            return Some(Self::because(&text, None, since));
        };
        let at = snapshot.observation.at;
        let queue = seen.queue.as_ref().and_then(|queue| queue.value.as_ref());
        let queue_length = queue.map(|queue| queue.visible + queue.delayed);
        let waiting = Self::of_pool(pool, seen, plan, since, at);
        let since = waiting.since.filter(|_| entry.job.generation == 0);
        Some(Self { queue_length, since, ..waiting })
    }

    fn because(text: &str, rule: Option<Rule>, since: Timestamp) -> Self {
        Self {
            reason: text.to_owned(),
            rule: rule.map(Rule::as_str),
            since: Some(time(since)),
            box_expected_at: None,
            blocked: None,
            queue_length: None,
        }
    }

    /// In the order of what happens: a box that is up, one that boots, one that is about to start, one that may not, one that will.
    fn of_pool(
        pool: &Pool,
        seen: &SeenPool,
        plan: &PoolPlan,
        since: Timestamp,
        at: Timestamp,
    ) -> Self {
        let boot = boot_estimate(&seen.runs, pool);
        let of = |reason: &Reason| Self::because(&reason.text, Some(reason.rule), since);
        let boxes = seen.boxes.value.as_deref().unwrap_or_default();
        let is_ready = |state| boxes.iter().any(|one| one.state == state && one.fault().is_none());
        if is_ready(BoxState::Running) {
            let text = "a box is up; it takes this job after those before it";
            return Self { box_expected_at: Some(time(at)), ..Self::because(text, None, since) };
        }
        let expected = |from: Timestamp| Some(time((from + boot).max(at)));
        if let Some(booting) = boxes.iter().find(|one| one.state == BoxState::Pending) {
            let text = format!("box {} boots", booting.id);
            return Self {
                box_expected_at: expected(booting.since),
                ..Self::because(&text, None, since)
            };
        }
        let start = plan.actions.iter().find(|action| matches!(action, Action::Start { .. }));
        if let Some(start) = start {
            return Self { box_expected_at: expected(at), ..of(start.reason()) };
        }
        if let Some(reason) = plan.blocked.first() {
            return Self { blocked: Some(blocked_by(reason.rule, &seen.runs)), ..of(reason) };
        }
        let is_held = |verdict: &&Verdict| {
            verdict.reason.rule == Rule::Hold && verdict.effect == Effect::Stop
        };
        if let Some(held) = plan.verdicts.iter().find(is_held) {
            let end = plan.next_change.as_ref().filter(|next| next.reason.rule == Rule::Hold);
            let box_expected_at = end.and_then(|end| expected(end.at));
            return Self { blocked: Some("pool.held"), box_expected_at, ..of(&held.reason) };
        }
        if at < since {
            return Self::because("the controller looks at it next", None, since);
        }
        let demand = plan.verdicts.iter().find(|verdict| verdict.reason.rule == Rule::Demand);
        let next = plan.next_change.as_ref().filter(|next| next.reason.rule == Rule::Demand);
        let waits = demand.map_or_else(
            || Self::because("the controller has not looked at it yet", None, since),
            |verdict| of(&verdict.reason),
        );
        Self { box_expected_at: next.and_then(|next| expected(next.at)), ..waits }
    }
}

/// The stable name of what forbids a start.
fn blocked_by(rule: Rule, runs: &[Run]) -> &'static str {
    let refusal = runs.first().and_then(|run| run.refusal.as_ref());
    match rule {
        Rule::Budget => "budget.exhausted",
        Rule::Capacity if refusal.is_some_and(|refusal| refusal.class == RefusalClass::Quota) => {
            "quota.exhausted"
        }
        Rule::Capacity => "capacity.none",
        Rule::Hold => "pool.held",
        Rule::Schedule => "pool.quiet",
        Rule::Demand => "service.fault",
        Rule::Interruption | Rule::Idle | Rule::Limits | Rule::Cooldown => "starts.delayed",
    }
}

/// What a finished job cost: the time that it took of its box, at the price of the box. `None` for a box of this machine without a price,
/// and where the run is no longer remembered.
#[must_use]
pub fn cost(entry: &JobEntry, policy: &Policy, snapshot: &Snapshot) -> Option<MicroUsd> {
    let result = entry.result.as_ref()?;
    let during = |run: &&Run| {
        run.box_id == result.box_id
            && run.started_at <= result.received_at
            && run.stopped_at.is_none_or(|stopped| stopped >= result.received_at)
    };
    let mut runs = snapshot.observation.pools.values().flat_map(|pool| &pool.runs);
    let run = runs.find(during)?;
    if run.offering.is_none() && policy.cost.usd_hour.is_none() {
        return None;
    }
    let took = result.worked.unwrap_or(result.finished_at - result.received_at);
    let whole = took.num_seconds() + i64::from(took > TimeDelta::seconds(took.num_seconds()));
    Some(usd_hour(&policy.cost, run.offering.as_ref())?.per_hour_for(whole))
}
