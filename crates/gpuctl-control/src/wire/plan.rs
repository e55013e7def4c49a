//! The document `gpuctl.plan`: what each rule says, what follows, and what comes next.

use gpuctl_core::observation::Run;
use gpuctl_core::plan::{Action, Effect, KeptBox, NextChange, Plan, PoolPlan, StopMode};
use gpuctl_core::policy::{Policy, Pool, QueuePolicy, ScheduledSubmit};
use gpuctl_core::units::{MicroUsd, PoolId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ReasonDocument, Versioned, seconds, time};
use crate::scheduled;

/// `gpuctl.plan`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlanDocument {
    /// The instant that it was made for.
    pub at: String,
    pub pools: Vec<PoolPlanDocument>,
    /// What is submitted at certain times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub submits: Vec<SubmitDocument>,
    /// The parts that could not be read.
    pub errors: Vec<String>,
}

/// A job that is submitted at certain times.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SubmitDocument {
    pub pool: String,
    pub name: String,
    pub task: String,
    /// When it is submitted next; `null` if never.
    pub next_at: Option<String>,
    /// Why no worker would accept it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl SubmitDocument {
    /// What the policy submits to this pool, or to all, after this instant.
    #[must_use]
    pub fn all(policy: &Policy, pool: Option<&PoolId>, after: Timestamp) -> Vec<Self> {
        let of_pool = scheduled::all(policy).filter(|(of, ..)| pool.is_none_or(|id| of.id == *id));
        let document = |(pool, queue, one): (&Pool, &QueuePolicy, &ScheduledSubmit)| Self {
            pool: pool.id.to_string(),
            name: one.name.clone(),
            task: one.task.clone(),
            next_at: one.when.next_start(after).map(time),
            problem: scheduled::job(policy, queue, (one, after)).err(),
        };
        of_pool.map(document).collect()
    }
}

impl PlanDocument {
    /// The document of a plan.
    #[must_use]
    pub fn of(plan: &Plan, submits: Vec<SubmitDocument>, errors: Vec<String>) -> Versioned<Self> {
        let pools = plan.pools.iter().map(PoolPlanDocument::of).collect();
        let document = Self { at: time(plan.at), pools, submits, errors };
        Versioned { schema: "gpuctl.plan", version: 1, document }
    }
}

/// One pool's plan.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PoolPlanDocument {
    pub pool: String,
    /// How many boxes should be up.
    pub boxes_wanted: u32,
    /// What will be done.
    pub actions: Vec<ActionDocument>,
    /// What a rule wants and another holds back.
    pub blocked: Vec<ReasonDocument>,
    /// Every rule's verdict, in order.
    pub verdicts: Vec<VerdictDocument>,
    pub next_change: Option<NextChangeDocument>,
    /// Boxes that a user keeps up to look at them.
    pub kept: Vec<KeptDocument>,
}

/// What keeps a box up: its file `keep-until`, or a hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeptDocument {
    pub r#box: String,
    /// When it may be stopped.
    pub keep_until: String,
    /// What it costs until then, in US dollars; `null` on this machine.
    pub usd: Option<f64>,
    /// A sentence that says all of this.
    pub text: String,
}

impl KeptDocument {
    /// The document of a kept box.
    #[must_use]
    pub fn of(kept: &KeptBox) -> Self {
        Self {
            r#box: kept.box_id.to_string(),
            keep_until: time(kept.until),
            usd: kept.cost.map(MicroUsd::as_usd),
            text: kept.text.clone(),
        }
    }
}

impl PoolPlanDocument {
    /// The document of one pool's plan.
    #[must_use]
    pub fn of(plan: &PoolPlan) -> Self {
        let action = |action: &Action| ActionDocument {
            action: verb(action),
            r#box: action.box_id().to_string(),
            reason: action.reason().into(),
        };
        Self {
            pool: plan.pool.to_string(),
            boxes_wanted: plan.boxes_wanted,
            actions: plan.actions.iter().map(action).collect(),
            blocked: plan.blocked.iter().map(Into::into).collect(),
            verdicts: plan
                .verdicts
                .iter()
                .map(|verdict| VerdictDocument {
                    rule: verdict.reason.rule.as_str(),
                    effect: effect(verdict.effect),
                    text: verdict.reason.text.clone(),
                })
                .collect(),
            next_change: plan.next_change.as_ref().map(next_change),
            kept: plan.kept.iter().map(KeptDocument::of).collect(),
        }
    }
}

/// One action.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ActionDocument {
    /// `start`, `stop` or `force-stop`.
    pub action: &'static str,
    pub r#box: String,
    pub reason: ReasonDocument,
}

/// One rule's verdict.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerdictDocument {
    pub rule: &'static str,
    /// `at least N`, `stop`, `keep`, `forbid` or `abstain`.
    pub effect: String,
    pub text: String,
}

/// The next change.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NextChangeDocument {
    pub at: String,
    pub reason: ReasonDocument,
}

/// One run of a box.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunDocument {
    pub pool: String,
    pub r#box: String,
    /// When it was asked to start.
    pub started_at: String,
    /// When it was ready.
    pub ready_at: Option<String>,
    /// When it had stopped.
    pub stopped_at: Option<String>,
    /// How long it was up, until now if it is.
    pub box_seconds: f64,
    pub started_by: ReasonDocument,
    pub stopped_by: Option<ReasonDocument>,
    /// The error that it ended with, if it did.
    pub error: Option<String>,
}

impl RunDocument {
    /// The document of a run.
    #[must_use]
    pub fn of(run: &Run, now: Timestamp) -> Self {
        Self {
            pool: run.pool.to_string(),
            r#box: run.box_id.to_string(),
            started_at: time(run.started_at),
            ready_at: run.ready_at.map(time),
            stopped_at: run.stopped_at.map(time),
            box_seconds: seconds(run.lasted(now)),
            started_by: (&run.start).into(),
            stopped_by: run.stop.as_ref().map(Into::into),
            error: run.error.clone(),
        }
    }
}

/// An action's name.
#[must_use]
pub fn verb(action: &Action) -> &'static str {
    match action {
        Action::Start { .. } => "start",
        Action::Stop { mode: StopMode::Drain, .. } => "stop",
        Action::Stop { mode: StopMode::Force, .. } => "force-stop",
        Action::Stop { mode: StopMode::Retire, .. } => "retire",
    }
}

fn effect(effect: Effect) -> String {
    match effect {
        Effect::AtLeast(boxes) => format!("at least {boxes}"),
        Effect::Stop => "stop".to_owned(),
        Effect::Keep => "keep".to_owned(),
        Effect::Forbid => "forbid".to_owned(),
        Effect::Abstain => "abstain".to_owned(),
    }
}

/// The document of a next change.
#[must_use]
pub fn next_change(next: &NextChange) -> NextChangeDocument {
    NextChangeDocument { at: time(next.at), reason: (&next.reason).into() }
}
