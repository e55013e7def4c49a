//! The ledger's record of one reconcile: what triggered it, which rule decided for each pool, what was done and what failed.
//!
//! It holds no ages, so that a quiet night's reconciles are equal and the ledger can count them on one row.

use gpuctl_core::plan::{Effect, PoolPlan};
use serde::{Deserialize, Serialize};

use super::plan::verb;
use super::{ReasonDocument, time};
use crate::reconcile::{Reconciled, Trigger};

/// One reconcile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: String,
    /// Why it ran.
    pub trigger: String,
    /// Who ran it.
    pub by: String,
    /// Each pool.
    pub pools: Vec<PoolRecord>,
    /// The parts that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// One pool in a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// The pool.
    pub pool: String,
    /// How many boxes should be up.
    pub boxes_wanted: u32,
    /// The rules that had something to say.
    pub rules: Vec<String>,
    /// The rules that held something back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// What was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<ActionRecord>,
}

/// One action in a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// `start`, `stop` or `force-stop`.
    pub action: String,
    /// The box.
    pub r#box: String,
    /// Why.
    pub reason: ReasonDocument,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    /// The record of a reconcile.
    #[must_use]
    pub fn of(reconciled: &Reconciled, trigger: Trigger, by: &str) -> Self {
        Self {
            at: time(reconciled.observation.at),
            trigger: trigger.as_str().to_owned(),
            by: by.to_owned(),
            pools: reconciled.plan.pools.iter().map(|pool| pool_record(reconciled, pool)).collect(),
            errors: reconciled.errors.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether two records say the same, apart from when, why and by whom.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.pools == other.pools && self.errors == other.errors
    }
}

fn pool_record(reconciled: &Reconciled, plan: &PoolPlan) -> PoolRecord {
    let spoke = plan.verdicts.iter().filter(|verdict| verdict.effect != Effect::Abstain);
    PoolRecord {
        pool: plan.pool.to_string(),
        boxes_wanted: plan.boxes_wanted,
        rules: spoke.map(|verdict| verdict.reason.rule.as_str().to_owned()).collect(),
        blocked_by: plan.blocked.iter().map(|reason| reason.rule.as_str().to_owned()).collect(),
        actions: reconciled
            .acted
            .iter()
            .filter(|acted| acted.pool == plan.pool)
            .map(|acted| ActionRecord {
                action: verb(&acted.action).to_owned(),
                r#box: acted.action.box_id().to_string(),
                reason: acted.action.reason().into(),
                error: acted.result.as_ref().err().map(ToString::to_string),
            })
            .collect(),
    }
}
