//! EC2 in simulated time: instances, spot requests, capacity, quotas, throttling and the bill, with EC2's own states, codes and
//! messages.
//!
//! Self-contained: synchronous methods that take the time, used by the HTTP front and by the ports. It knows nothing of gpuctl. What
//! it models follows the EC2 User Guide and API Reference; the ids of traps are defined, with sources, in `crates/TRAPS.md`.

mod describe;
mod launch;
mod lifecycle;
mod spot;
mod throttle;
mod types;

use std::collections::{BTreeMap, VecDeque};

use chrono::TimeDelta;
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::units::Timestamp;

pub use types::*;

use self::throttle::{Bucket, Throttle, exceeded};
use super::event_queue::EventQueue;
use crate::chance::Chance;

/// How long a terminated instance is still listed.
const LINGERS: TimeDelta = TimeDelta::hours(1);
/// The notice before a spot interruption.
const NOTICE: TimeDelta = TimeDelta::minutes(2);
/// The additional time of a start or stop that is stuck.
const STUCK: TimeDelta = TimeDelta::minutes(30);

/// An account's EC2 in one region.
#[derive(Clone, Debug)]
pub struct Ec2 {
    /// How it behaves when nothing is wrong.
    pub settings: Ec2Settings,
    /// The faults in force.
    pub faults: Ec2Faults,
    instances: BTreeMap<String, InstanceRecord>,
    requests: BTreeMap<String, SpotRequest>,
    templates: Vec<LaunchTemplate>,
    tokens: BTreeMap<String, Token>,
    /// Offerings without capacity.
    without_capacity: Vec<Offering>,
    throttle: Throttle,
    events: EventQueue<Event>,
    changes: Vec<Change>,
    meter: Vec<Metered>,
    /// How long instances were pending or stopping, which is not billed.
    unbilled: TimeDelta,
    counts: Ec2Counts,
    delays: Chance,
    chance: Chance,
    names: Chance,
}

/// How often EC2 did what, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ec2Counts {
    /// Accepted starts, those by EC2 itself included.
    pub starts: u64,
    /// Calls refused for lack of capacity or quota.
    pub refusals: u64,
    /// Interruptions of spot instances.
    pub interruptions: u64,
    /// Interruptions without a notice.
    pub unannounced: u64,
    /// Starts that fell back to `stopped`.
    pub fell_back: u64,
    /// Starts and stops that got stuck.
    pub stuck: u64,
    /// Calls that failed with a server error or were throttled.
    pub failed: u64,
}

/// A billed period of an instance: while it is `running`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    pub id: String,
    /// The type, zone and market that it is billed as.
    pub offering: Offering,
    /// When the start was ordered.
    pub asked_at: Timestamp,
    /// The begin of `running`.
    pub from: Timestamp,
    /// The end of `running`; `None` while it runs.
    pub to: Option<Timestamp>,
}

/// An instance with what EC2 does not show of it.
#[derive(Clone, Debug)]
struct InstanceRecord {
    actual: Instance,
    /// What `DescribeInstances` shows from when on, oldest first.
    shown: VecDeque<(Timestamp, Instance)>,
    /// Counts its states: an event of an earlier one is ignored.
    generation: u64,
    notice: Option<SpotAction>,
    rebalance: Option<Timestamp>,
}

/// A remembered `ClientToken`.
#[derive(Clone, Debug)]
struct Token {
    asked: String,
    ids: Vec<String>,
}

/// Events to come; at one instant they happen in the order of `kind`.
#[derive(Clone, Debug)]
enum Event {
    Boots(String, u64),
    FallsBack(String, u64),
    Off(String, u64),
    Terminated(String, u64),
    Forgotten(String),
    Interrupted(String, u64),
    RequestSettles(String),
    RequestTries(String),
    RequestEnds(String),
    Capacity(Offering, bool),
}

impl Event {
    fn kind(&self) -> u8 {
        match self {
            Self::Boots(..) => 0,
            Self::FallsBack(..) => 1,
            Self::Off(..) => 2,
            Self::Terminated(..) => 3,
            Self::Forgotten(_) => 4,
            Self::Interrupted(..) => 5,
            Self::RequestSettles(_) => 6,
            Self::RequestTries(_) => 7,
            Self::RequestEnds(_) => 8,
            Self::Capacity(..) => 9,
        }
    }
}

impl Ec2 {
    /// An empty account.
    #[must_use]
    pub fn new(settings: Ec2Settings, seed: u64) -> Self {
        Self {
            settings,
            faults: Ec2Faults::default(),
            instances: BTreeMap::new(),
            requests: BTreeMap::new(),
            templates: Vec::new(),
            tokens: BTreeMap::new(),
            without_capacity: Vec::new(),
            throttle: Throttle::default(),
            events: EventQueue::default(),
            changes: Vec::new(),
            meter: Vec::new(),
            unbilled: TimeDelta::zero(),
            counts: Ec2Counts::default(),
            delays: Chance::stream(seed, "ec2 delays"),
            chance: Chance::stream(seed, "ec2 luck"),
            names: Chance::stream(seed, "ec2 names"),
        }
    }

    /// Carries out all events until `now`. Every call does so first.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, event)) = self.events.pop_due(now) {
            self.handle(at, event);
        }
    }

    /// The time of the next event.
    #[must_use]
    pub fn next_event(&self) -> Option<Timestamp> {
        self.events.next_at()
    }

    /// Removes and returns what has happened since the last call, in order: what EventBridge and the instances are told.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The billed periods, in the order of their begin.
    #[must_use]
    pub fn meter(&self) -> &[Metered] {
        &self.meter
    }

    /// The total time of instances in `pending` and `stopping`, which EC2 does not bill.
    #[must_use]
    pub fn unbilled(&self) -> TimeDelta {
        self.unbilled
    }

    /// Clears the bill and the counts, after the initial instances are launched.
    pub fn forget_bill(&mut self) {
        self.meter.clear();
        self.unbilled = TimeDelta::zero();
        self.counts = Ec2Counts::default();
    }

    /// How often EC2 did what.
    #[must_use]
    pub fn counts(&self) -> Ec2Counts {
        self.counts
    }

    /// Schedules whether the offering has capacity from `at` on. Where spot capacity ends, running instances are interrupted.
    pub fn plan_capacity(&mut self, at: Timestamp, offering: Offering, available: bool) {
        let event = Event::Capacity(offering, available);
        self.events.add(at, event.kind(), event);
    }

    /// Gives an instance a rebalance recommendation; nothing else follows from it (P13).
    pub fn recommend_rebalance(&mut self, now: Timestamp, id: &str) {
        if let Some(record) = self.instances.get_mut(id) {
            record.rebalance = Some(now);
            self.changes.push(Change { at: now, id: id.to_owned(), kind: ChangeKind::Rebalance });
        }
    }

    /// `/latest/meta-data/spot/instance-action` of an instance; `None` is a 404.
    #[must_use]
    pub fn spot_action(&self, id: &str) -> Option<SpotAction> {
        self.instances.get(id)?.notice
    }

    /// `/latest/meta-data/events/recommendations/rebalance` of an instance; `None` is a 404.
    #[must_use]
    pub fn rebalance_notice(&self, id: &str) -> Option<Timestamp> {
        self.instances.get(id)?.rebalance
    }

    /// An instance as it is, not as `DescribeInstances` shows it.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.get(id).map(|record| &record.actual)
    }

    /// Every instance as it is.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().map(|record| &record.actual)
    }

    fn handle(&mut self, at: Timestamp, event: Event) {
        match event {
            Event::Boots(id, generation) if self.is_in(&id, generation) => {
                self.finish_boot(at, &id);
            }
            Event::FallsBack(id, generation) if self.is_in(&id, generation) => {
                self.fail_boot(at, &id);
            }
            Event::Off(id, generation) if self.is_in(&id, generation) => self.finish_stop(at, &id),
            Event::Terminated(id, generation) if self.is_in(&id, generation) => {
                self.finish_termination(at, &id);
            }
            Event::Interrupted(id, generation) if self.is_in(&id, generation) => {
                self.interrupt(at, &id);
            }
            Event::Forgotten(id) => {
                self.instances.remove(&id);
            }
            Event::RequestSettles(id) => self.request_settles(at, &id),
            Event::RequestTries(id) => self.request_tries(at, &id),
            Event::RequestEnds(id) => self.request_ends(at, &id),
            Event::Capacity(offering, available) => self.capacity_changes(at, &offering, available),
            // Of an earlier state.
            Event::Boots(..)
            | Event::FallsBack(..)
            | Event::Off(..)
            | Event::Terminated(..)
            | Event::Interrupted(..) => {}
        }
    }

    fn is_in(&self, id: &str, generation: u64) -> bool {
        self.instances.get(id).is_some_and(|record| record.generation == generation)
    }

    fn generation(&self, id: &str) -> u64 {
        self.instances.get(id).map_or(0, |record| record.generation)
    }

    fn schedule(&mut self, at: Timestamp, event: Event) {
        self.events.add(at, event.kind(), event);
    }

    /// Before any call: carries out due events, and fails the call if a fault or the bucket says so.
    fn call(&mut self, now: Timestamp, bucket: Bucket) -> Result<(), Ec2Error> {
        self.advance(now);
        let answer = if self.faults.throttled > 0 && self.chance.permille(self.faults.throttled) {
            Err(exceeded())
        } else if self.faults.errors > 0 && self.chance.permille(self.faults.errors) {
            let text = "An internal error has occurred. Retry your request.";
            Err(Ec2Error::server("InternalError", 500, text))
        } else {
            self.throttle.take(bucket, now)
        };
        self.counts.failed += u64::from(answer.is_err());
        answer
    }

    /// Changes an instance; `DescribeInstances` shows it at once, or later while listings lag.
    fn change(&mut self, at: Timestamp, id: &str, change: impl FnOnce(&mut Instance)) {
        let lag = match self.faults.lag_max.num_milliseconds() {
            0 => TimeDelta::zero(),
            most => TimeDelta::milliseconds(self.chance.between(0, most)),
        };
        let Some(record) = self.instances.get_mut(id) else { return };
        let before = record.actual.state;
        if matches!(before, InstanceState::Pending | InstanceState::Stopping) {
            self.unbilled += at - record.actual.transition_at.max(record.actual.launch_time);
        }
        change(&mut record.actual);
        // Changes are shown in the order in which they happened.
        let visible_at = record.shown.back().map_or(at + lag, |(last, _)| (at + lag).max(*last));
        while record.shown.get(1).is_some_and(|(from, _)| *from <= at) {
            record.shown.pop_front();
        }
        record.shown.push_back((visible_at, record.actual.clone()));
        let state = record.actual.state;
        if state != before {
            record.generation += 1;
            self.changes.push(Change { at, id: id.to_owned(), kind: ChangeKind::State(state) });
        }
    }

    fn delay(&mut self, range: (TimeDelta, TimeDelta)) -> TimeDelta {
        let (least, most) = (range.0.num_milliseconds(), range.1.num_milliseconds());
        TimeDelta::milliseconds(self.delays.between(least, most))
    }

    fn has_capacity(&self, offering: &Offering) -> bool {
        !self.without_capacity.contains(offering)
    }

    /// Checks quota and capacity for `count` more instances.
    fn admit(&mut self, offering: &Offering, count: u32) -> Result<(), Ec2Error> {
        let answer = self.within_quota(offering, count).and_then(|()| {
            if self.has_capacity(offering) { Ok(()) } else { Err(self.no_capacity(offering)) }
        });
        self.counts.refusals += u64::from(answer.is_err());
        answer
    }

    fn within_quota(&self, offering: &Offering, count: u32) -> Result<(), Ec2Error> {
        let used: u32 = self
            .instances()
            .filter(|one| one.market == offering.capacity && one.state.counts())
            .map(|one| vcpus(&one.instance_type))
            .sum();
        let wanted = used + count * vcpus(&offering.instance_type);
        match offering.capacity {
            CapacityType::Spot if wanted > self.settings.vcpus_spot => Err(Ec2Error::client(
                "MaxSpotInstanceCountExceeded",
                "Max spot instance count exceeded",
            )),
            CapacityType::OnDemand if wanted > self.settings.vcpus_on_demand => {
                let text = format!(
                    "You have requested more vCPU capacity than your current vCPU limit of {} allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
                    self.settings.vcpus_on_demand
                );
                Err(Ec2Error::client("VcpuLimitExceeded", text))
            }
            CapacityType::Spot | CapacityType::OnDemand => Ok(()),
        }
    }

    /// The refusal, which names the zones with capacity unless a fault hides them.
    fn no_capacity(&mut self, offering: &Offering) -> Ec2Error {
        let (kind, zone) = (&offering.instance_type, &offering.zone);
        let mut text = format!(
            "We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). Our system will be working on provisioning additional capacity."
        );
        let others: Vec<&str> = self
            .settings
            .zones
            .iter()
            .filter(|other| {
                let there = Offering { zone: (*other).clone(), ..offering.clone() };
                *other != zone && self.has_capacity(&there)
            })
            .map(String::as_str)
            .collect();
        let hidden = self.faults.no_hint > 0 && self.chance.permille(self.faults.no_hint);
        if !others.is_empty() && !hidden {
            text += &format!(
                " You can currently get {kind} capacity by not specifying an Availability Zone in your request or choosing {}.",
                others.join(", ")
            );
        }
        Ec2Error::server("InsufficientInstanceCapacity", 500, text)
    }
}

impl InstanceRecord {
    fn new(actual: Instance, visible_at: Timestamp) -> Self {
        let shown = VecDeque::from([(visible_at, actual.clone())]);
        Self { actual, shown, generation: 0, notice: None, rebalance: None }
    }

    /// What `DescribeInstances` shows at this instant.
    fn at(&self, now: Timestamp) -> Option<&Instance> {
        self.shown.iter().rev().find(|(from, _)| *from <= now).map(|(_, one)| one)
    }
}

fn offering_of(one: &Instance) -> Offering {
    Offering {
        instance_type: one.instance_type.clone(),
        zone: one.zone.clone(),
        capacity: one.market,
    }
}

/// vCPUs of a type: in the families with GPUs they follow from its size.
fn vcpus(instance_type: &str) -> u32 {
    let size = instance_type.rsplit('.').next().unwrap_or_default();
    let times: Option<u32> = size.strip_suffix("xlarge").and_then(|times| match times {
        "" => Some(1),
        times => times.parse().ok(),
    });
    times.map_or(if size == "metal" { 96 } else { 2 }, |times| times * 4)
}

/// A time as EC2 writes it into `StateTransitionReason`.
fn reason_time(at: Timestamp) -> String {
    at.format("(%Y-%m-%d %H:%M:%S GMT)").to_string()
}

#[cfg(test)]
mod tests;
