//! One week from end to end: spawns controllers, jobs and operators, delivers EC2's events to machines and controllers, and ends at
//! the first violation.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_core::policy::Problems;
use gpuctl_core::units::{MicroUsd, Timestamp};
use gpuctl_worker::{Cancel, MemoryScratch};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::controller::{SECOND, SECOND_IN, control};
use super::ec2::{Change, ChangeKind, Ec2Counts, InstanceState};
use super::machine::Machine;
use super::operator::{cancel, retry, run_operator, submit};
use super::scenario::{Only, Scenario};
use super::{Shared, World};
use crate::chance::Chance;
use crate::checks::Violation;
use crate::faults::Fault;

/// The result of a simulated week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Week {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// How often each kind of fault happened, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Jobs submitted.
    pub jobs: u64,
    /// Jobs with a result.
    pub committed: u64,
    /// How often EC2 did what.
    pub ec2: Ec2Counts,
    /// What EC2 bills.
    pub usd: MicroUsd,
    /// Recorded reconciles.
    pub reconciles: u64,
    /// Number of checks.
    pub checks: u64,
    /// The first violation.
    pub violation: Option<Violation>,
}

/// Runs the week of a seed, or a subset of it.
///
/// # Errors
/// When the drawn policy is invalid, which is a bug in `scenario`.
pub fn run(seed: u64, only: &Only) -> Result<Week, Problems> {
    let scenario = Scenario::draw(seed, only)?;
    #[cfg(feature = "without")]
    gpuctl_core::without::leave_out(&only.without);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    let runtime = runtime.expect("without input and output it needs nothing of the machine");
    let week = runtime.block_on(run_scenario(scenario));
    runtime.shutdown_background();
    Ok(week)
}

async fn run_scenario(scenario: Scenario) -> Week {
    let end = scenario.end;
    let shared = Shared::new(scenario);
    let wakeups = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let [first, second] = wakeups.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(submit(Arc::clone(&shared)));
    tasks.spawn(run_operator(Arc::clone(&shared)));
    tasks.spawn(retry(Arc::clone(&shared)));
    tasks.spawn(cancel(Arc::clone(&shared)));
    tasks.spawn(deliver_events(Arc::clone(&shared), wakeups));
    let later = TimeDelta::milliseconds(7_013);
    tasks.spawn(control(Arc::clone(&shared), "lambda", TimeDelta::zero(), first));
    if shared.advance_to_now().faults.kinds().any(|fault| SECOND_IN.contains(&fault)) {
        tasks.spawn(control(Arc::clone(&shared), SECOND, later, second));
    }
    tokio::select! {
        biased;
        () = shared.broken.notified() => {}
        () = shared.sleep_until(end) => {}
    }
    tasks.shutdown().await;
    let now = shared.now();
    let world = &mut *shared.advance_to_now();
    world.check_end(now);
    report(world, now)
}

fn report(world: &mut World, now: Timestamp) -> Week {
    let ec2 = world.ec2.counts();
    for (fault, times) in [
        (Fault::FallBack, ec2.fell_back),
        (Fault::NoNotice, ec2.unannounced),
        (Fault::SpotOutage, ec2.interruptions),
    ] {
        world.faults.count(fault, times);
    }
    // A fault that changes a state rather than a call is counted by its windows.
    for fault in world.faults.kinds().collect::<Vec<_>>() {
        let windows = u64::try_from(world.faults.windows(fault).len()).unwrap_or(u64::MAX);
        if world.faults.injected().any(|(one, times)| one == fault && times == 0) {
            world.faults.count(fault, windows);
        }
    }
    let happened = world.faults.injected().filter(|(_, times)| *times > 0);
    Week {
        seed: world.scenario.seed,
        faults: happened.map(|(fault, times)| (fault.name(), times)).collect(),
        jobs: u64::try_from(world.jobs.len()).unwrap_or(u64::MAX),
        committed: world.checks.committed(),
        ec2,
        usd: world.metered(now),
        reconciles: world.ledger.reconciles,
        checks: world.checks.count(),
        violation: world.checks.violation(&world.log),
    }
}

/// A machine that is on.
struct Running {
    shutdown: Cancel,
    task: JoinHandle<()>,
}

/// Advances EC2 from event to event, delivers them to the machines, and wakes the controllers.
async fn deliver_events(shared: Arc<Shared>, wakeups: [Arc<Notify>; 2]) {
    let seed = shared.advance_to_now().scenario.seed;
    let mut machines = Machines {
        shared: Arc::clone(&shared),
        on: BTreeMap::new(),
        disks: BTreeMap::new(),
        boots: seed,
    };
    loop {
        let (changes, next) = {
            let world = &mut *shared.advance_to_now();
            (world.ec2.take_changes(), world.ec2.next_event())
        };
        let any = !changes.is_empty();
        for change in changes {
            machines.deliver(change);
        }
        if any {
            shared.end_if_broken();
            wakeups.iter().for_each(|wakeup| wakeup.notify_one());
        }
        let changed = shared.ec2_changed.notified();
        tokio::select! {
            biased;
            () = changed => {}
            () = async {
                match next {
                    Some(next) => shared.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// The machines that are on, by instance id.
struct Machines {
    shared: Arc<Shared>,
    on: BTreeMap<String, Running>,
    /// By instance id.
    disks: BTreeMap<String, MemoryScratch>,
    /// Counts boots from the seed, so that each boot has a random stream of its own.
    boots: u64,
}

impl Machines {
    fn deliver(&mut self, change: Change) {
        {
            let world = &mut *self.shared.advance_to_now();
            let text = format!("EC2: {} {}", change.id, describe(change.kind));
            world.log_event(change.at, text);
            world.mark_changed(change.at);
        }
        match change.kind {
            ChangeKind::State(InstanceState::Running) => self.boot(change.id),
            ChangeKind::State(InstanceState::Stopping) => {
                if let Some(running) = self.on.get(&change.id) {
                    running.shutdown.cancel();
                }
            }
            // The worker asks for notices.
            ChangeKind::State(InstanceState::Pending)
            | ChangeKind::Notice
            | ChangeKind::Rebalance => {}
            ChangeKind::State(_) => {
                if let Some(running) = self.on.remove(&change.id) {
                    running.task.abort();
                    let (now, mut world) = self.shared.time_and_world();
                    world.instance_off(now, &change.id);
                }
            }
        }
    }

    fn boot(&mut self, id: String) {
        self.boots = self.boots.wrapping_add(1);
        let shutdown = Cancel::new();
        let machine = Machine {
            shared: Arc::clone(&self.shared),
            scratch: self.disks.entry(id.clone()).or_default().clone(),
            chance: Chance::stream(self.boots, &id),
            shutdown: shutdown.clone(),
            id: id.clone(),
        };
        self.shared.advance_to_now().shutdowns.insert(id.clone(), shutdown.clone());
        self.on.insert(id, Running { shutdown, task: tokio::spawn(machine.run()) });
    }
}

fn describe(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::State(state) => state.name(),
        ChangeKind::Notice => "will be interrupted",
        ChangeKind::Rebalance => "has a rebalance recommendation",
    }
}
