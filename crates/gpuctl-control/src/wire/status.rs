//! The document `gpuctl.status`: each pool, its boxes, its queue, its hold, and the next change.

use std::borrow::Cow;

use chrono::TimeDelta;
use gpuctl_core::cost::CostSettings;
use gpuctl_core::observation::{
    BootPhase, Hold, HoldWants, Observation, SeenBox, SeenPool, SeenQueue,
};
use gpuctl_core::plan::{Plan, PoolPlan};
use gpuctl_core::sentence::{busiest, sentence};
use gpuctl_core::units::{BoxId, MicroUsd, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan::{KeptDocument, NextChangeDocument, RunDocument, next_change};
use super::{ReasonDocument, Versioned, seconds, time};
use crate::spending::Spending;

/// `gpuctl.status`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StatusDocument {
    /// The instant that it holds for.
    pub at: String,
    pub pools: Vec<PoolDocument>,
    /// The parts that could not be read.
    pub errors: Vec<String>,
    /// The configuration that it follows from: a path or URI. Absent where only one is possible, as in a function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// A `gpuctl.toml` further up that is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_not_used: Option<String>,
    /// The folder of this machine's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl StatusDocument {
    /// Adds how boxes differ from their launch templates.
    pub fn note_outdated(&mut self, found: &[(BoxId, String)]) {
        for one in self.pools.iter_mut().flat_map(|pool| &mut pool.boxes) {
            let of_box = found.iter().find(|(id, _)| id.as_str() == one.r#box);
            one.outdated = of_box.map(|(_, how)| how.clone());
        }
    }

    /// Adds what pools cost.
    pub fn note_spending(&mut self, spending: &[Spending]) {
        for pool in &mut self.pools {
            let of_pool = spending.iter().find(|one| one.pool.as_str() == pool.pool);
            pool.cost = of_pool.map(SpendingDocument::of);
        }
    }

    /// The document of an observation and the plan made from it.
    #[must_use]
    pub fn of(
        seen: &Observation,
        plan: &Plan,
        cost: &CostSettings,
        errors: Vec<String>,
    ) -> Versioned<Self> {
        let pool = |plan: &PoolPlan| {
            let pool = seen.pools.get(&plan.pool)?;
            Some(PoolDocument::of(pool, plan, cost, seen.at))
        };
        let pools = plan.pools.iter().filter_map(pool).collect();
        let document = Self {
            at: time(seen.at),
            pools,
            errors,
            config: None,
            config_not_used: None,
            state: None,
        };
        Versioned { schema: "gpuctl.status", version: 1, document }
    }
}

/// One pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PoolDocument {
    pub pool: String,
    /// The state of its busiest box: `running`, `pending`, `stopping`, `stopped` or `unknown`.
    pub state: Cow<'static, str>,
    /// Its state, since when and why, what an hour of it costs, and what comes next, for people.
    #[serde(default)]
    pub sentence: String,
    /// How many boxes should be up.
    pub boxes_wanted: u32,
    /// How old what is shown of boxes and queue is, where they could not be read this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_seconds_ago: Option<f64>,
    /// What its boxes cost, where that was asked for and they have a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<SpendingDocument>,
    pub boxes: Vec<BoxDocument>,
    pub queue: Option<QueueDocument>,
    pub hold: Option<HoldDocument>,
    /// What is held back, and by which rule.
    pub blocked: Vec<ReasonDocument>,
    /// Why it is up, or why it was last stopped.
    pub reason: Option<ReasonDocument>,
    pub next_change: Option<NextChangeDocument>,
    pub last_run: Option<RunDocument>,
}

impl PoolDocument {
    fn of(seen: &SeenPool, plan: &PoolPlan, cost: &CostSettings, now: Timestamp) -> Self {
        let boxes = seen.boxes.value.as_deref();
        let run = seen.runs.first();
        let reason = run.map(|run| run.stop.as_ref().unwrap_or(&run.start));
        let read_at = seen.queue.iter().map(|queue| queue.at).chain([seen.boxes.at]).min();
        let age = read_at.map(|at| now - at).filter(|age| *age > TimeDelta::zero());
        Self {
            pool: plan.pool.to_string(),
            state: boxes.map_or("unknown", state).into(),
            sentence: sentence(seen, plan, cost, now),
            boxes_wanted: plan.boxes_wanted,
            observed_seconds_ago: age.map(seconds),
            cost: None,
            boxes: box_documents(boxes.unwrap_or_default(), plan, now),
            queue: seen
                .queue
                .as_ref()
                .and_then(|queue| Some(QueueDocument::of(queue.value.as_ref()?, now))),
            hold: seen.hold.as_ref().filter(|hold| hold.until > now).map(HoldDocument::of),
            blocked: plan.blocked.iter().map(Into::into).collect(),
            reason: reason.map(Into::into),
            next_change: plan.next_change.as_ref().map(next_change),
            last_run: run.map(|run| RunDocument::of(run, now)),
        }
    }
}

/// What a pool costs, in US dollars; days and months are those of UTC, as AWS bills them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SpendingDocument {
    /// Since midnight.
    pub usd_today: f64,
    /// Since the first of the month.
    pub usd_month: f64,
    /// The whole month at this pace.
    pub usd_month_forecast: f64,
    /// `budget_usd_month` of the pool.
    pub budget_usd_month: Option<f64>,
}

impl SpendingDocument {
    /// The document of what a pool costs.
    #[must_use]
    pub fn of(spending: &Spending) -> Self {
        Self {
            usd_today: spending.today.as_usd(),
            usd_month: spending.month.as_usd(),
            usd_month_forecast: spending.forecast.as_usd(),
            budget_usd_month: spending.budget.map(MicroUsd::as_usd),
        }
    }
}

/// The state of the busiest of some boxes, as seen.
#[must_use]
pub fn state(boxes: &[SeenBox]) -> &'static str {
    busiest(boxes).as_str()
}

/// One box.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BoxDocument {
    pub r#box: String,
    /// `pending`, `running`, `stopping` or `stopped`.
    pub state: Cow<'static, str>,
    /// Since when; absent for a box that never ran.
    pub since: Option<String>,
    pub seconds_in_state: Option<f64>,
    /// Jobs that its worker holds.
    pub jobs_held: Option<u32>,
    /// Why its worker takes no jobs.
    #[serde(default)]
    pub fault: Option<FaultDocument>,
    /// What keeps it up although it fails or is idle.
    #[serde(default)]
    pub kept: Option<KeptDocument>,
    /// When EC2 recommended to replace it: it stops as soon as it is idle.
    #[serde(default)]
    pub rebalance: Option<String>,
    /// How it differs from what its launch template would make now.
    #[serde(default)]
    pub outdated: Option<String>,
    /// How long the parts of its boot took, in order, as the box measured them.
    #[serde(default)]
    pub boot: Vec<BootPhaseDocument>,
}

/// A part of a box's boot.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BootPhaseDocument {
    pub phase: String,
    pub seconds: f64,
}

/// Why a worker takes no jobs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FaultDocument {
    /// A short, stable code such as `models.missing`.
    pub code: String,
    pub message: String,
    pub since: String,
}

/// The documents of a pool's boxes, with what the plan says of each.
#[must_use]
pub fn box_documents(boxes: &[SeenBox], plan: &PoolPlan, now: Timestamp) -> Vec<BoxDocument> {
    let document = |one: &SeenBox| {
        let kept = plan.kept.iter().find(|kept| kept.box_id == one.id);
        BoxDocument { kept: kept.map(KeptDocument::of), ..BoxDocument::of(one, now) }
    };
    boxes.iter().map(document).collect()
}

impl BoxDocument {
    /// The document of a box.
    #[must_use]
    pub fn of(one: &SeenBox, now: Timestamp) -> Self {
        let is_known = one.since > Timestamp::UNIX_EPOCH && !one.since_is_bound;
        let since = is_known.then_some(one.since);
        Self {
            r#box: one.id.to_string(),
            state: one.state.as_str().into(),
            since: since.map(time),
            seconds_in_state: since.map(|since| seconds(now - since)),
            jobs_held: one.worker.as_ref().filter(|_| one.is_up()).map(|worker| worker.leases),
            fault: one.fault().filter(|_| one.is_up()).map(|fault| FaultDocument {
                code: fault.code.clone(),
                message: fault.message.clone(),
                since: time(fault.since),
            }),
            kept: None,
            rebalance: one.rebalance.filter(|_| one.is_up()).map(time),
            outdated: None,
            boot: one
                .boot_phases
                .iter()
                .filter(|_| one.is_up())
                .map(BootPhaseDocument::of)
                .collect(),
        }
    }
}

impl BootPhaseDocument {
    fn of(phase: &BootPhase) -> Self {
        Self { phase: phase.name.clone(), seconds: seconds(phase.took) }
    }
}

/// A queue's counts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct QueueDocument {
    /// Waiting for a worker.
    pub visible: u64,
    /// Under a lease.
    pub in_flight: u64,
    /// Not due yet.
    pub delayed: u64,
    /// Given up, waiting for `gpuctl redrive`.
    pub dead: u64,
    /// How long the oldest waiting job has waited.
    pub oldest_age_seconds: Option<f64>,
}

impl QueueDocument {
    /// The document of a queue's counts.
    #[must_use]
    pub fn of(queue: &SeenQueue, now: Timestamp) -> Self {
        Self {
            visible: queue.visible,
            in_flight: queue.in_flight,
            delayed: queue.delayed,
            dead: queue.dead,
            oldest_age_seconds: queue.oldest_sent_at.map(|sent| seconds(now - sent)),
        }
    }
}

/// A hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HoldDocument {
    pub pool: String,
    /// `running` or `stopped`.
    pub wants: Cow<'static, str>,
    pub until: String,
    pub by: String,
    pub why: Option<String>,
    /// Whether it ends before, once the queue is empty and no box is busy.
    #[serde(default)]
    pub until_empty: bool,
}

impl HoldDocument {
    /// The document of a hold.
    #[must_use]
    pub fn of(hold: &Hold) -> Self {
        Self {
            pool: hold.pool.to_string(),
            wants: match hold.wants {
                HoldWants::Running => "running".into(),
                HoldWants::Stopped => "stopped".into(),
            },
            until: time(hold.until),
            by: hold.by.clone(),
            why: hold.why.clone(),
            until_empty: hold.until_empty,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gpuctl_core::decide;
    use gpuctl_core::observation::{BoxState, Seen, SeenWorker, Witness, WorkerFault};
    use gpuctl_core::offering::{CapacityType, Offering};
    use gpuctl_core::policy::Policy;

    use super::*;

    #[test]
    fn a_box_that_takes_no_jobs_and_is_kept_up_says_why_until_when_and_at_what_price() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let worker = SeenWorker {
            heard_at: now,
            leases: 0,
            idle_since: None,
            jobs_done: 0,
            fault: Some(WorkerFault {
                code: "models.missing".to_owned(),
                message: "models missing".to_owned(),
                since: now - TimeDelta::minutes(9),
            }),
            keep_until: Some(now + TimeDelta::hours(2)),
        };
        let offering = Offering {
            instance_type: "g4dn.xlarge".to_owned(),
            zone: "us-east-1a".to_owned(),
            capacity: CapacityType::OnDemand,
        };
        let one = SeenBox {
            worker: Some(worker),
            offering: Some(offering),
            rebalance: Some(now - TimeDelta::minutes(2)),
            boot_phases: BootPhase::read_all("kernel 3200"),
            ..SeenBox::new("gpu-1".parse().unwrap(), BoxState::Running, now - TimeDelta::hours(1))
        };
        let seen = SeenPool {
            boxes: Seen::now(vec![one], now),
            queue: None,
            urgent: None,
            hold: None,
            runs: vec![],
            service: None,
            spent: None,
        };
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"\n[cost]\nusd_hour = 0.5").unwrap();
        let pools = BTreeMap::from([("gpu".parse().unwrap(), seen)]);
        let seen = Observation { at: now, witness: Witness::Controller, pools };
        let document =
            StatusDocument::of(&seen, &decide(&policy, &seen), &policy.cost, vec![]).document;
        let shown = &document.pools[0].boxes[0];
        assert_eq!(shown.rebalance.as_deref(), Some("2026-11-21T11:58:00.000Z"));
        assert_eq!((shown.boot[0].phase.as_str(), shown.boot[0].seconds), ("kernel", 3.2));
        let (fault, kept) = (shown.fault.as_ref().unwrap(), shown.kept.as_ref().unwrap());
        assert_eq!(
            (fault.code.as_str(), fault.since.as_str()),
            ("models.missing", "2026-11-21T11:51:00.000Z")
        );
        assert_eq!((kept.keep_until.as_str(), kept.usd), ("2026-11-21T14:00:00.000Z", Some(1.0)));
        let text = "the file `keep-until` on gpu-1 keeps gpu-1 up for 2h more, at most $1.00";
        assert_eq!(kept.text, text);
    }
}
