//! The fault simulation: EC2, SQS, a ledger and a clock in simulated time, with the real control loop and workers on them.
//!
//! It runs on one tokio thread with paused time: every call takes simulated time, so controllers interleave, time limits apply, and
//! nothing depends on the machine. A crash is a future that is dropped. `week` runs one week from end to end. The state is one
//! `World` behind a mutex; nothing wakes in a random order, or a seed would not repeat.

mod clock;
mod cloud;
mod controller;
pub mod ec2;
pub(crate) mod event_queue;
mod files;
mod ledger;
mod machine;
mod model;
mod operator;
mod ports;
mod queue;
pub mod scenario;
pub mod week;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::ports::Ports;
use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::policy::{Policy, Pool, Problems, QueuePolicy};
use gpuctl_core::units::Timestamp;
use gpuctl_worker::Cancel;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::ec2::{
    Ec2, Ec2Settings, Instance, MarketOptions, RunInstances, Shutdown, ShutdownBehaviour, SpotKind,
    SpotOptions,
};
use self::files::Files;
pub(crate) use self::ledger::Item;
use self::ledger::LedgerState;
pub(crate) use self::machine::{Ended, ProcessEnd};
pub(crate) use self::ports::Client;
use self::ports::{Caller, Process};
pub(crate) use self::queue::MessageState;
use self::queue::Queue;
use self::scenario::{JobKind, JobOutcome, Only, Scenario};
use crate::chance::Chance;
use crate::checks::Checks;
use crate::faults::{Fault, Faults};

/// The instance type of every box.
const INSTANCE_TYPE: &str = "g4dn.xlarge";
/// How long before the week its boxes were made: so long that no budget of the week counts their first start.
const MADE_BEFORE: TimeDelta = TimeDelta::days(40);
/// Maximum number of events that a failure shows.
const LOG_MAX: usize = 40;
/// vCPUs of the account when its quotas are fine, and when they are not.
const VCPUS: u32 = 64;
const VCPUS_LOW: u32 = 0;
/// How long the queue keeps messages in the windows of `Retention`.
const RETENTION_SHORT: TimeDelta = TimeDelta::hours(1);
/// How long `Describe…` may show an instance as it was before a change, at full intensity of `describe-lag`.
const LAG_MAX: TimeDelta = TimeDelta::seconds(40);

/// The actual state of everything; what controllers see of it passes through `ports`.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) faults: Faults,
    pub(crate) ec2: Ec2,
    pub(crate) queue: Queue,
    pub(crate) ledger: LedgerState,
    pub(crate) checks: Checks,
    /// Submitted jobs by id.
    pub(crate) jobs: BTreeMap<String, JobKind>,
    /// The newest generation of jobs that were retried, by id.
    pub(crate) generations: BTreeMap<String, u32>,
    pub(crate) files: Files,
    /// The processes of workers that run, by instance.
    processes: BTreeMap<String, Vec<u64>>,
    processes_begun: u64,
    /// Set to shut a machine down, by instance.
    shutdowns: BTreeMap<String, Cancel>,
    /// When something last changed that a reconcile could see.
    pub(crate) changed_at: Timestamp,
    /// Notified when something changes that a reconcile could see.
    pub(crate) changed: Arc<Notify>,
    /// No fault begins or ends before this time.
    faults_constant_until: Timestamp,
    /// The last events, at most `LOG_MAX`.
    pub(crate) log: VecDeque<(Timestamp, String)>,
    /// The ids of the instances that the week began with.
    initial_instances: Vec<String>,
    latency: Chance,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let (seed, begin) = (scenario.seed, scenario.begin);
        let drain = scenario.policy.worker.drain;
        let settings = Ec2Settings {
            zones: ["us-east-1a", "us-east-1b", "us-east-1c"].map(str::to_owned).to_vec(),
            pending: (TimeDelta::seconds(8), TimeDelta::seconds(40)),
            stopping: (TimeDelta::seconds(5), TimeDelta::seconds(30)),
            // As systemd's `TimeoutStopSec`: the drain and a margin, then it kills.
            shutdown_max: drain + TimeDelta::seconds(15),
            shutdown: Shutdown::FromInside,
            vcpus_spot: VCPUS,
            vcpus_on_demand: VCPUS,
        };
        let receives_max = scenario.policy.pools[0]
            .queue()
            .map_or(u32::MAX, |queue: &QueuePolicy| queue.receives_max.get());
        let mut world = Self {
            faults: scenario.faults.clone(),
            ec2: Ec2::new(settings, seed),
            queue: Queue::new(receives_max, seed),
            ledger: LedgerState::default(),
            checks: Checks::new(&scenario),
            jobs: BTreeMap::new(),
            generations: BTreeMap::new(),
            files: Files::new(),
            processes: BTreeMap::new(),
            processes_begun: 0,
            shutdowns: BTreeMap::new(),
            changed_at: begin,
            changed: Arc::new(Notify::new()),
            faults_constant_until: Timestamp::MIN_UTC,
            log: VecDeque::new(),
            initial_instances: Vec::new(),
            latency: Chance::stream(seed, "latency"),
            scenario,
        };
        world.launch_initial_instances(begin - MADE_BEFORE);
        world.plan_outages();
        world
    }

    /// Launches the week's instances and stops them, as an operator would before gpuctl takes over.
    fn launch_initial_instances(&mut self, at: Timestamp) {
        let pool = self.pool().id.to_string();
        for kind in self.scenario.boxes.clone() {
            let market = match kind.market {
                CapacityType::OnDemand => MarketOptions::OnDemand,
                CapacityType::Spot => {
                    let valid_until = kind.valid_until;
                    MarketOptions::Spot(SpotOptions { kind: SpotKind::Persistent, valid_until })
                }
            };
            let tags = BTreeMap::from([("gpuctl:pool".to_owned(), pool.clone())]);
            let launched = self.ec2.run_instances(
                at,
                &RunInstances {
                    client_token: None,
                    launch_template: None,
                    image_id: Some("ami-0123456789abcdef0".to_owned()),
                    instance_type: Some(INSTANCE_TYPE.to_owned()),
                    zone: Some(kind.zone.to_owned()),
                    market: Some(market),
                    count: 1,
                    tags,
                    shutdown: ShutdownBehaviour::Stop,
                },
            );
            self.initial_instances
                .extend(launched.unwrap_or_default().into_iter().map(|one| one.id));
        }
        let ready = at + TimeDelta::minutes(5);
        self.ec2.advance(ready);
        for id in self.initial_instances.clone() {
            self.ec2.power_off(ready, &id);
        }
        self.ec2.advance(self.scenario.begin);
        self.ec2.take_changes();
        self.ec2.forget_bill();
    }

    /// Schedules the ends and returns of capacity within the windows.
    fn plan_outages(&mut self) {
        for (fault, market) in [
            (Fault::SpotOutage, CapacityType::Spot),
            (Fault::OnDemandOutage, CapacityType::OnDemand),
        ] {
            for window in self.faults.windows(fault).to_vec() {
                let chance = self.faults.chance(fault);
                let zone = chance.pick(&["us-east-1a", "us-east-1b", "us-east-1c", "all"]);
                // One long outage, or many short ones.
                let step = TimeDelta::minutes(chance.pick(&[7, 45, 1_440]));
                let mut at = window.from;
                while at < window.to {
                    for one in self.ec2.settings.zones.clone() {
                        if zone != "all" && zone != one {
                            continue;
                        }
                        let instance_type = INSTANCE_TYPE.to_owned();
                        let offering = Offering { instance_type, zone: one, capacity: market };
                        self.ec2.plan_capacity(at, offering.clone(), false);
                        self.ec2.plan_capacity((at + step).min(window.to), offering, true);
                    }
                    at += step * 2;
                }
            }
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.scenario.policy.pools[0]
    }

    /// Records a change that a reconcile could see, and wakes controllers that skip ticks.
    pub(crate) fn mark_changed(&mut self, now: Timestamp) {
        self.changed_at = self.changed_at.max(now);
        self.changed.notify_waiters();
    }

    pub(crate) fn log_event(&mut self, now: Timestamp, text: impl Into<String>) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back((now, text.into()));
    }

    /// Sets EC2's faults and quotas to what the windows say at `now`.
    pub(crate) fn apply_faults(&mut self, now: Timestamp) {
        if now < self.faults_constant_until {
            return;
        }
        self.faults_constant_until = self.faults.next_edge(now).unwrap_or(Timestamp::MAX_UTC);
        let of = |fault| self.faults.strength(fault, now);
        let lag_ms = LAG_MAX.num_milliseconds() * of(Fault::DescribeLag) / 1_000;
        let ec2_faults = ec2::Ec2Faults {
            lag_max: TimeDelta::milliseconds(lag_ms),
            fall_back: of(Fault::FallBack),
            stuck_pending: of(Fault::StuckPending),
            stuck_stopping: of(Fault::StuckStopping),
            no_notice: of(Fault::NoNotice),
            errors: of(Fault::ApiErrors) / 3,
            throttled: of(Fault::Throttling) / 2,
            no_hint: of(Fault::NoHint),
        };
        let quota = self.faults.strength(Fault::Quota, now);
        // In half of the weeks with a low quota only one market has it.
        let low = |odd: u64| quota > 0 && (quota == 1_000 || self.scenario.seed % 2 == odd);
        self.ec2.faults = ec2_faults;
        self.ec2.settings.vcpus_spot = if low(0) { VCPUS_LOW } else { VCPUS };
        self.ec2.settings.vcpus_on_demand = if low(1) { VCPUS_LOW } else { VCPUS };
    }

    /// The id of an initial instance, counting round; it may be terminated by now.
    pub(crate) fn initial_instance(&self, index: usize) -> Option<&str> {
        self.initial_instances.get(index % self.initial_instances.len().max(1)).map(String::as_str)
    }

    pub(crate) fn message_state(&self, now: Timestamp, job: &str, generation: u32) -> MessageState {
        self.queue.message_state(now, job, generation)
    }

    /// How a job behaves: what a user retries has been fixed, unless it crashes its worker.
    pub(crate) fn job_kind(&self, id: &str, generation: u32) -> Option<JobKind> {
        let mut kind = *self.jobs.get(id)?;
        if generation > 0 && kind.outcome == JobOutcome::Fails {
            kind.outcome = JobOutcome::Succeeds;
        }
        Some(kind)
    }

    /// Deletes messages that the queue keeps no longer.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        if self.faults.strength(Fault::Retention, now) > 0
            && self.queue.expire(now, now - RETENTION_SHORT)
        {
            self.faults.count(Fault::Retention, 1);
            self.mark_changed(now);
        }
    }

    fn begin_process(&mut self, instance: &str) -> Process {
        self.processes_begun += 1;
        let number = self.processes_begun;
        self.processes.entry(instance.to_owned()).or_default().push(number);
        Process { instance: instance.to_owned(), number }
    }

    /// The processes of a worker that run on this instance.
    pub(crate) fn processes(&self, instance: &str) -> &[u64] {
        self.processes.get(instance).map_or(&[], Vec::as_slice)
    }

    /// The messages that the worker on this instance holds.
    pub(crate) fn leases(&self, now: Timestamp, instance: &str) -> usize {
        self.queue.held_by(now, self.processes(instance)).count()
    }

    /// EC2 has cut the power: whatever ran there has ended.
    fn instance_off(&mut self, now: Timestamp, instance: &str) {
        for number in self.processes(instance).to_vec() {
            let ended = Ended { end: ProcessEnd::Killed, disk: Vec::new() };
            self.end_process(now, instance, number, &ended);
        }
        self.shutdowns.remove(instance);
        self.checks.instance_off(instance);
    }

    fn end_process(&mut self, now: Timestamp, instance: &str, number: u64, ended: &Ended) {
        if let Some(numbers) = self.processes.get_mut(instance) {
            numbers.retain(|other| *other != number);
        }
        self.check_process_end(now, (instance, number), ended);
    }

    /// Instances of the pool, but for terminated ones.
    pub(crate) fn boxes(&self) -> impl Iterator<Item = &Instance> {
        self.ec2.instances().filter(|one| one.is_there())
    }
}

/// The ports of a world without faults, jobs and operators, for the tests that every adapter must pass. Its time is that of the
/// tokio runtime in which it is called.
///
/// # Errors
/// As `week::run`.
pub fn faultless_ports(policy: Option<Policy>) -> Result<Ports, Problems> {
    let only = Only { faults: Some(BTreeSet::new()), ..Only::default() };
    let mut scenario = Scenario::draw(0, &only)?;
    scenario.policy = policy.map_or(scenario.policy, Arc::new);
    scenario.jobs.clear();
    let shared = Shared::new(scenario);
    {
        // Boots and stops are short, since its time may be real.
        let world = &mut *shared.advance_to_now();
        let moment = TimeDelta::milliseconds(100);
        (world.ec2.settings.pending, world.ec2.settings.stopping) =
            ((moment, moment * 2), (moment, moment * 2));
        world.ec2.settings.shutdown = Shutdown::After(moment);
    }
    Ok(Client::new(&shared, Caller::Controller("contract")).ports())
}

/// The world, shared by controllers, workers, operators and EC2.
pub(crate) struct Shared {
    world: Mutex<World>,
    begin: (Instant, Timestamp),
    /// Notified when a message may have become visible.
    pub(crate) queue_changed: Notify,
    /// Notified when EC2's next event may be earlier than before, or EC2 has done something.
    pub(crate) ec2_changed: Notify,
    /// Notified when a guarantee is violated, which ends the week.
    pub(crate) broken: Notify,
}

impl Shared {
    fn new(scenario: Scenario) -> Arc<Self> {
        let begin = (Instant::now(), scenario.begin);
        Arc::new(Self {
            world: Mutex::new(World::new(scenario)),
            begin,
            queue_changed: Notify::new(),
            ec2_changed: Notify::new(),
            broken: Notify::new(),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        let passed = TimeDelta::from_std(self.begin.0.elapsed()).unwrap_or(TimeDelta::MAX);
        self.begin.1 + passed
    }

    /// Advances the world to the present and locks it. Never hold the guard over an await.
    pub(crate) fn advance_to_now(&self) -> MutexGuard<'_, World> {
        self.time_and_world().1
    }

    /// As `advance_to_now`, with the time, since reading the clock again would cost as much as the call.
    pub(crate) fn time_and_world(&self) -> (Timestamp, MutexGuard<'_, World>) {
        let now = self.now();
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.apply_faults(now);
        world.ec2.advance(now);
        (now, world)
    }

    pub(crate) async fn sleep_until(&self, at: Timestamp) {
        let left = (at - self.now()).to_std().unwrap_or_default();
        tokio::time::sleep(left).await;
    }
}

pub(crate) async fn sleep(span: TimeDelta) {
    tokio::time::sleep(span.to_std().unwrap_or_default()).await;
}
