//! The parts of the cases: one pool at one instant, its boxes and its runs, holds, and starts and stops outside gpuctl.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use gpuctl_core::decide;
use gpuctl_core::observation::{
    BoxState, Foreign, Hold, HoldWants, Observation, Run, Seen, SeenBox, SeenPool, SeenQueue,
    SeenWorker, Spent, UrgentJob, Witness, WorkerFault,
};
use gpuctl_core::offering::{CapacityType, Offering, Refusal, RefusalClass};
use gpuctl_core::plan::{PoolPlan, Reason, Rule};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, Timestamp};

/// A Saturday, noon in UTC.
const NOW: &str = "2026-11-21T12:00:00Z";

pub(crate) fn ago(seconds: i64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap() - TimeDelta::seconds(seconds)
}

pub(crate) fn now() -> Timestamp {
    ago(0)
}

/// One case: its name with the trap's id, the pool's settings, and what was seen.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) policy: String,
    pub(crate) seen: SeenPool,
    pub(crate) witness: Witness,
}

pub(crate) fn case(name: &'static str, settings: &str, boxes: Vec<SeenBox>) -> Case {
    let queue = SeenQueue { empty_since: Some(ago(3_600)), ..SeenQueue::default() };
    Case {
        name,
        policy: format!("[pool.gpu]\nqueue = \"jobs\"\nboot_default = \"2m\"\n{settings}"),
        seen: SeenPool {
            boxes: Seen::now(boxes, now()),
            queue: Some(Seen::now(queue, now())),
            urgent: None,
            hold: None,
            runs: vec![],
            service: None,
            spent: None,
        },
        witness: Witness::Controller,
    }
}

/// A pool without a queue.
pub(crate) fn app(name: &'static str, settings: &str, boxes: Vec<SeenBox>) -> Case {
    let case = case(name, "", boxes);
    let policy = format!("[pool.gpu]\ncommand = [\"./app\"]\n{settings}");
    Case { policy, seen: SeenPool { queue: None, ..case.seen }, ..case }
}

impl Case {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut SeenPool)) -> Self {
        change(&mut self.seen);
        self
    }

    pub(crate) fn waiting(self, jobs: u64, oldest_seconds: i64) -> Self {
        self.queue(SeenQueue {
            visible: jobs,
            oldest_sent_at: Some(ago(oldest_seconds)),
            ..SeenQueue::default()
        })
    }

    /// A job that may wait until then.
    pub(crate) fn urgent(self, in_seconds: i64) -> Self {
        let id = "01a200ab-52ac-72da-a503-1913f00238c3".to_owned();
        self.with(|seen| seen.urgent = Some(UrgentJob { id, begin_by: ago(-in_seconds) }))
    }

    pub(crate) fn queue(self, queue: SeenQueue) -> Self {
        self.with(|seen| seen.queue = Some(Seen::now(queue, now())))
    }

    pub(crate) fn runs(self, runs: Vec<Run>) -> Self {
        self.with(|seen| seen.runs = runs)
    }

    pub(crate) fn spent(self, month: i64, day: i64, hold: i64) -> Self {
        let usd = |cents: i64| MicroUsd(cents * 10_000);
        self.with(|seen| {
            seen.spent = Some(Spent { month: usd(month), day: usd(day), hold: usd(hold) });
        })
    }

    pub(crate) fn hold(
        self,
        wants: HoldWants,
        until_seconds: i64,
        over_budget: Option<i64>,
    ) -> Self {
        let hold = Hold {
            pool: "gpu".parse().unwrap(),
            wants,
            since: ago(600),
            until: ago(-until_seconds),
            by: "ada".to_owned(),
            why: Some("a demo".to_owned()),
            over_budget: over_budget.map(|cents| MicroUsd(cents * 10_000)),
            until_empty: false,
        };
        self.with(|seen| seen.hold = Some(hold))
    }

    /// The hold ends once the queue is empty.
    pub(crate) fn until_empty(self) -> Self {
        self.with(|seen| seen.hold.as_mut().unwrap().until_empty = true)
    }

    pub(crate) fn by_worker(mut self) -> Self {
        self.witness = Witness::Worker("gpu-1".parse().unwrap());
        self
    }

    pub(crate) fn plan(&self) -> PoolPlan {
        let policy = Policy::parse(&self.policy).unwrap();
        let pool: PoolId = "gpu".parse().unwrap();
        let pools = BTreeMap::from([(pool, self.seen.clone())]);
        decide(&policy, &Observation { at: now(), witness: self.witness.clone(), pools })
            .pools
            .remove(0)
    }
}

pub(crate) fn a_box(index: u32, state: BoxState, for_seconds: i64) -> SeenBox {
    SeenBox::new(BoxId::of_pool(&"gpu".parse().unwrap(), index), state, ago(for_seconds))
}

pub(crate) fn stopped() -> SeenBox {
    a_box(1, BoxState::Stopped, 9_000)
}

pub(crate) fn running(for_seconds: i64) -> SeenBox {
    a_box(1, BoxState::Running, for_seconds)
}

/// A worker's report.
pub(crate) struct Worker {
    pub(crate) leases: u32,
    pub(crate) idle_seconds: i64,
    pub(crate) heard_seconds: i64,
}

impl Worker {
    pub(crate) fn on(self, one: SeenBox) -> SeenBox {
        let Self { leases, idle_seconds, heard_seconds } = self;
        let idle_since = (leases == 0).then(|| ago(idle_seconds));
        SeenBox {
            worker: Some(SeenWorker {
                heard_at: ago(heard_seconds),
                leases,
                idle_since,
                jobs_done: 3,
                fault: None,
                keep_until: None,
            }),
            ..one
        }
    }
}

pub(crate) fn idle(seconds: i64, one: SeenBox) -> SeenBox {
    Worker { leases: 0, idle_seconds: seconds, heard_seconds: 1 }.on(one)
}

pub(crate) fn busy(one: SeenBox) -> SeenBox {
    Worker { leases: 4, idle_seconds: 0, heard_seconds: 1 }.on(one)
}

pub(crate) fn offering(capacity: CapacityType, zone: &str) -> Offering {
    Offering { instance_type: "g4dn.xlarge".into(), zone: format!("us-east-1{zone}"), capacity }
}

/// A worker that takes no jobs for a fault of its box.
pub(crate) fn faulty(since_seconds: i64, one: SeenBox) -> SeenBox {
    with_fault("models.missing", "models missing", since_seconds, one)
}

/// A worker that takes no jobs for a fault of a service.
pub(crate) fn without_service(since_seconds: i64, one: SeenBox) -> SeenBox {
    with_fault("results.unreachable", "results cannot be committed", since_seconds, one)
}

fn with_fault(code: &str, message: &str, since_seconds: i64, one: SeenBox) -> SeenBox {
    let mut one = idle(since_seconds, one);
    let (code, message) = (code.to_owned(), message.to_owned());
    one.worker.as_mut().unwrap().fault =
        Some(WorkerFault { code, message, since: ago(since_seconds) });
    one
}

/// A box that EC2 recommends to replace.
pub(crate) fn recommended(one: SeenBox) -> SeenBox {
    SeenBox { rebalance: Some(ago(120)), ..one }
}

/// A box with a file `keep-until`.
pub(crate) fn kept(for_seconds: i64, mut one: SeenBox) -> SeenBox {
    one.worker.as_mut().unwrap().keep_until = Some(ago(-for_seconds));
    one
}

/// A box whose worker has restarted since the box was started.
pub(crate) fn restarted(started_seconds: i64, one: SeenBox) -> SeenBox {
    SeenBox { run_started_at: Some(ago(started_seconds)), ..one }
}

pub(crate) fn failed(index: u32, started_seconds: i64) -> Run {
    let error = Some("no GPU".to_owned());
    Run { ready_at: None, stop: None, jobs: None, error, ..run(index, started_seconds) }
}

pub(crate) fn foreign_unknown(wants: HoldWants, started_seconds: i64, one: SeenBox) -> SeenBox {
    let foreign = Foreign { wants, at: None, by: "an unknown user".to_owned() };
    restarted(started_seconds, SeenBox { foreign: Some(foreign), ..one })
}

pub(crate) fn spot(zone: &str, one: SeenBox) -> SeenBox {
    SeenBox { offering: Some(offering(CapacityType::Spot, zone)), ..one }
}

pub(crate) fn on_demand(zone: &str, one: SeenBox) -> SeenBox {
    SeenBox { offering: Some(offering(CapacityType::OnDemand, zone)), ..one }
}

/// Three stopped boxes: one on demand, and spot in two zones.
pub(crate) fn pool_of_three() -> Vec<SeenBox> {
    let at = |index| a_box(index, BoxState::Stopped, 9_000);
    vec![on_demand("a", at(1)), spot("a", at(2)), spot("b", at(3))]
}

pub(crate) fn run(index: u32, started_seconds: i64) -> Run {
    let pool: PoolId = "gpu".parse().unwrap();
    let id = BoxId::of_pool(&pool, index);
    let started = ago(started_seconds);
    let start = Reason::new(Rule::Demand, "1 job waits");
    Run {
        ready_at: Some(started + TimeDelta::seconds(90)),
        stopped_at: Some(started + TimeDelta::seconds(200)),
        stop: Some(Reason::new(Rule::Idle, "idle")),
        jobs: Some(3),
        ..Run::begin(pool, id, started, start)
    }
}

pub(crate) fn refused(one: &SeenBox, started_seconds: i64, class: RefusalClass, text: &str) -> Run {
    Run {
        ready_at: None,
        stop: None,
        stopped_at: Some(ago(started_seconds)),
        offering: one.offering.clone(),
        refusal: Some(Refusal { class, text: text.to_owned() }),
        ..run(1, started_seconds)
    }
}

pub(crate) fn foreign(wants: HoldWants, seconds: i64, one: SeenBox) -> SeenBox {
    SeenBox {
        foreign: Some(Foreign { wants, at: Some(ago(seconds)), by: "user/ada".to_owned() }),
        ..one
    }
}
