//! What one reconcile saw, decided and did, and the record of it that the ledger keeps.

use gpuctl_core::observation::Observation;
use gpuctl_core::plan::{Effect, Plan, PoolPlan};

use crate::act::Acted;
use crate::ports::PortError;
use crate::wire::plan::verb;
use crate::wire::record::{ActionRecord, PoolRecord, Record};
use crate::wire::time;

/// Why a reconcile ran: for the record only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The time of a regular tick came.
    Tick,
    /// The queue or the ledger was written to.
    Change,
    /// A user gave a command.
    Command,
    /// A box changed its state, or is about to be interrupted.
    Box,
    /// A message or an alarm asked for a reconcile before the next tick.
    Wakeup,
    /// An event that gpuctl does not know, which is a reason to reconcile all the same.
    Unknown,
}

impl Trigger {
    /// The trigger's name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Change => "change",
            Self::Command => "command",
            Self::Box => "box",
            Self::Wakeup => "wakeup",
            Self::Unknown => "unknown",
        }
    }
}

/// What one reconcile saw, decided and did.
#[derive(Debug)]
pub struct Reconciled {
    pub observation: Observation,
    /// Why parts could not be read or remembered.
    pub errors: Vec<PortError>,
    pub plan: Plan,
    /// What was done, in the order of the plan.
    pub acted: Vec<Acted>,
}

impl Reconciled {
    /// The record for the ledger; `by` is the controller that ran it.
    #[must_use]
    pub fn record(&self, trigger: Trigger, by: &str) -> Record {
        Record {
            at: time(self.observation.at),
            trigger: trigger.as_str().to_owned(),
            by: by.to_owned(),
            pools: self.plan.pools.iter().map(|pool| self.pool_record(pool)).collect(),
            errors: self.errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn pool_record(&self, plan: &PoolPlan) -> PoolRecord {
        let name = |rule: gpuctl_core::plan::Rule| rule.as_str().to_owned();
        let decided = plan.verdicts.iter().filter(|verdict| verdict.effect != Effect::Abstain);
        let acted = self.acted.iter().filter(|acted| acted.pool == plan.pool);
        PoolRecord {
            pool: plan.pool.to_string(),
            boxes_wanted: plan.boxes_wanted,
            rules: decided.map(|verdict| name(verdict.reason.rule)).collect(),
            blocked_by: plan.blocked.iter().map(|reason| name(reason.rule)).collect(),
            actions: acted.map(action_record).collect(),
        }
    }
}

fn action_record(acted: &Acted) -> ActionRecord {
    ActionRecord {
        action: verb(&acted.action).to_owned(),
        r#box: acted.action.box_id().to_string(),
        reason: acted.action.reason().into(),
        error: acted.result.as_ref().err().map(ToString::to_string),
    }
}
