//! A machine that is on: it boots, its service manager starts the real worker and acts on how it ends, and it shuts down.
//!
//! The service manager behaves as systemd with `Restart=on-failure` does: a worker that is killed is started again, and after
//! `RESTARTS_MAX` times in a row the machine is shut down. A worker's exit code says whether the machine is powered off.

use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::worker_timing::WorkerPace;
use gpuctl_core::units::Timestamp;
use gpuctl_worker::{
    Alone, Cancel, MemoryScratch, Parts, Scratch, Signals, Worker, WorkerExit, WorkerSetup, serve,
};

use super::Shared;
use super::model::Model;
use super::ports::{Caller, Client};
use crate::chance::Chance;
use crate::checks::WORKERLESS_MAX;
use crate::faults::Fault;

/// The time from `running` to the start of the worker, in seconds.
const BOOT_SECONDS: (i64, i64) = (15, 60);
/// How often a worker reports, and looks at its own box, and how long a poll for messages lasts. `gpu-worker` on AWS does each
/// every 5 s.
const PACE: WorkerPace =
    WorkerPace { receive_wait: TimeDelta::seconds(20), reconcile_every: TimeDelta::seconds(20) };
/// The wait before a worker that was killed is started again: `RestartSec`.
const RESTART_AFTER: TimeDelta = TimeDelta::seconds(5);
/// How often it is started again before its unit has failed: `StartLimitBurst` …
const RESTARTS_MAX: usize = 5;
/// … within this: `StartLimitIntervalSec`.
const RESTARTS_WITHIN: TimeDelta = TimeDelta::minutes(10);
/// When the machine is shut down after its unit has failed.
const SHUT_DOWN_AFTER: TimeDelta = TimeDelta::minutes(1);

/// Longer than any week: never.
const FAR: TimeDelta = TimeDelta::days(3_650);

/// A machine from `running` on.
pub(super) struct Machine {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
    /// Set when EC2 asks it to shut down.
    pub(super) shutdown: Cancel,
    /// The disk, which outlives the boot.
    pub(super) scratch: MemoryScratch,
    pub(super) chance: Chance,
}

/// How a worker's process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessEnd {
    Exited(WorkerExit),
    /// Killed between two calls.
    Killed,
}

/// A process that has ended, and what it left on the disk.
pub(crate) struct Ended {
    pub(crate) end: ProcessEnd,
    pub(crate) disk: Vec<String>,
}

/// What the service manager does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    PowerOff,
    Restart,
    /// Nothing: the box stays on until EC2 stops it.
    Wait,
    /// Nothing, since the machine hangs.
    Hang,
}

impl Machine {
    /// Runs until EC2 is told that the machine is off.
    pub(super) async fn run(mut self) {
        if self.boot().await {
            let overdue = outlives(Arc::clone(&self.shared), self.id.clone());
            tokio::select! {
                biased;
                () = overdue => {}
                () = self.keep_worker_running() => {}
            }
        }
        self.shared.advance_to_now().ec2.power_off(self.shared.now(), &self.id);
        self.shared.ec2_changed.notify_one();
    }

    /// Boots; false if it has to shut down before a worker starts.
    async fn boot(&mut self) -> bool {
        let boot = TimeDelta::seconds(self.chance.between(BOOT_SECONDS.0, BOOT_SECONDS.1));
        let (slow, hangs) = {
            let (now, mut world) = self.shared.time_and_world();
            let slow = world.faults.inject(Fault::SlowBoot, now, 700);
            (slow, world.faults.inject(Fault::BootFails, now, 500))
        };
        let boot = if slow { boot * 3 } else { boot };
        self.runs_for(if hangs { FAR } else { boot }).await
    }

    /// Whether the machine is not asked to shut down for as long as this.
    async fn runs_for(&self, span: TimeDelta) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = super::sleep(span) => true,
        }
    }

    /// The service manager, up to the power-off.
    async fn keep_worker_running(&mut self) {
        let mut starts: Vec<Timestamp> = Vec::new();
        loop {
            let now = self.shared.now();
            starts.retain(|at| now - *at < RESTARTS_WITHIN);
            starts.push(now);
            let end = self.run_process().await;
            let then = self.then(end);
            self.log(format!("the worker on {} ends ({end:?}): {then:?}", self.id));
            let goes_on = match then {
                Then::PowerOff => false,
                Then::Restart if starts.len() > RESTARTS_MAX => {
                    self.runs_for(SHUT_DOWN_AFTER).await;
                    false
                }
                Then::Restart => self.runs_for(RESTART_AFTER).await,
                Then::Wait => {
                    if self.runs_for(WORKERLESS_MAX).await {
                        self.shared.check_workerless(&self.id);
                    }
                    self.runs_for(FAR).await
                }
                Then::Hang => self.runs_for(FAR).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    fn then(&mut self, end: ProcessEnd) -> Then {
        let (now, mut world) = self.shared.time_and_world();
        match end {
            _ if self.shutdown.is_cancelled() => Then::PowerOff,
            ProcessEnd::Exited(exit) if exit.powers_off() => Then::PowerOff,
            ProcessEnd::Exited(_) => Then::Wait,
            ProcessEnd::Killed if world.faults.inject(Fault::WorkerCrash, now, 300) => Then::Hang,
            ProcessEnd::Killed => Then::Restart,
        }
    }

    /// Runs one process of the worker. A shutdown signals it, and waits for its end.
    async fn run_process(&mut self) -> ProcessEnd {
        let process = {
            let (now, mut world) = self.shared.time_and_world();
            if world.faults.inject(Fault::BootLoop, now, 1_000) {
                return ProcessEnd::Exited(WorkerExit::CannotStart);
            }
            world.begin_process(&self.id)
        };
        let number = process.number;
        let client = Client::new(&self.shared, Caller::Worker(process));
        let signals = Signals::new();
        let end = {
            let serving = self.serve(&client, &signals);
            tokio::pin!(serving);
            let mut is_told = false;
            loop {
                tokio::select! {
                    biased;
                    () = client.crashed.notified() => break ProcessEnd::Killed,
                    () = self.shutdown.cancelled(), if !is_told => {
                        signals.stop();
                        is_told = true;
                    }
                    exit = &mut serving => break ProcessEnd::Exited(exit),
                }
            }
        };
        {
            let (now, mut world) = self.shared.time_and_world();
            let disk = self.scratch.list().unwrap_or_default();
            world.end_process(now, &self.id, number, &Ended { end, disk });
        }
        self.shared.end_if_broken();
        end
    }

    /// What `gpu-worker serve` does.
    async fn serve(&self, client: &Client, signals: &Signals) -> WorkerExit {
        let ports = client.ports();
        let (policy, pool) = {
            let world = self.shared.advance_to_now();
            (Arc::clone(&world.scenario.policy), world.pool().id.clone())
        };
        // As the program does, to find the run that led to this boot.
        let (Ok(_), Ok(run_started_at)) = (ports.ledger.memory(&pool).await, client.own_run())
        else {
            return WorkerExit::CannotStart;
        };
        let setup = WorkerSetup {
            device: None,
            pool,
            box_id: self.id.parse().expect("EC2's ids are names"),
            run_started_at,
            pid: 1,
            boot_phases: Vec::new(),
        };
        let inference = Arc::new(Model::new(client, self.shutdown.clone()));
        let scratch = Arc::new(self.scratch.clone());
        let neighbours = Arc::new(Alone);
        let parts = Parts { ports, inference, scratch, neighbours, pace: PACE };
        let worker = Worker::new(parts, &policy, setup);
        let Ok(worker) = worker else { return WorkerExit::CannotStart };
        self.log(format!("the worker on {} starts", self.id));
        serve(Arc::new(worker), signals).await
    }

    fn log(&self, text: String) {
        let (now, mut world) = self.shared.time_and_world();
        world.log_event(now, text);
    }
}

/// Records a violation once the machine has been up for longer than its lifetime allows, and never completes.
async fn outlives(shared: Arc<Shared>, id: String) {
    let at = shared.advance_to_now().lifetime_ends(&id);
    if let Some(at) = at {
        shared.sleep_until(at).await;
        shared.check_lifetime(&id);
    }
    std::future::pending::<()>().await;
}
