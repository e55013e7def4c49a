//! A machine that is on: it boots, and a worker serves on the same ports and with the same `decide` as `gpu-worker`, whose code it
//! is not.
//!
//! One job at a time; the leases of the others are extended meanwhile. What `gpu-worker` does every half second happens here when
//! it can matter: an idle worker checks its box when its plan announces a change, and at least every `CHECK_EVERY`, unless the last
//! check was clean and nothing has changed since.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::act::act;
use gpuctl_control::job::{JobFailure, JobResult};
use gpuctl_control::plan;
use gpuctl_control::ports::LEASE_LASTS;
use gpuctl_control::ports::{PortErrorClass, Ports, ReceiveRequest, Received, WorkerReport};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_control::worker_timing::{
    HANG_GRACE, RECEIVE_RETRY, REPORT_FAILURE_MAX, WorkerPace, heartbeat_every, one_at_a_time,
    retry_delay,
};
use gpuctl_core::observation::Witness;
use gpuctl_core::plan::Action;
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use tokio::sync::Notify;

use super::Shared;
use super::controller::{SHOWS_WITHIN, is_report_overdue, is_unreliable};
use super::ports::{Caller, Client};
use super::scenario::JobOutcome;
use crate::chance::Chance;
use crate::faults::Fault;

/// Maximum number of messages held at once.
const SLOTS: usize = 4;
/// The time from `running` to a loaded model, in seconds.
const BOOT_SECONDS: (i64, i64) = (25, 90);
/// How often a report is due. `gpu-worker` reports more often; readers allow for more.
const REPORT_EVERY: TimeDelta = TimeDelta::seconds(14);
/// The time between the two checks that an empty queue needs.
const CHECK_AGAIN_AFTER: TimeDelta = WorkerPace::LOCAL.reconcile_every;
/// The longest time between two checks of an idle worker.
const CHECK_EVERY: TimeDelta = TimeDelta::seconds(20);
/// The longest poll for messages. Longer than `gpu-worker`'s, to save steps: a message or a signal ends the poll at once.
const RECEIVE_WAIT: TimeDelta = TimeDelta::seconds(20);
/// Longer than any week: never.
const FAR: TimeDelta = TimeDelta::days(3_650);

/// What a machine has been told by EC2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalState {
    None,
    /// EC2 will interrupt it.
    InterruptionNotice,
    /// It has to shut down.
    Stop,
}

/// Signals from EC2 to a machine. Not tokio's `watch`, which wakes its listeners in a random order.
#[derive(Debug)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    changed: Notify,
}

impl Signal {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(SignalState::None), changed: Notify::new() })
    }

    pub(super) fn send(&self, state: SignalState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_one();
    }

    fn state(&self) -> SignalState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stop(&self) {
        while self.state() != SignalState::Stop {
            self.changed.notified().await;
        }
    }
}

/// Runs a machine: it boots, serves, and powers itself off when its worker has drained.
pub(super) async fn run_machine(shared: Arc<Shared>, id: String, signal: Arc<Signal>, turn: u64) {
    let client = Client::new(&shared, Caller::Worker(id.clone()));
    let mut chance = Chance::stream(turn, &id);
    let boot = TimeDelta::seconds(chance.between(BOOT_SECONDS.0, BOOT_SECONDS.1));
    let (slow, fails) = {
        let (now, world) = (client.now(), &mut *shared.advance_to_now());
        let slow = world.faults.inject(Fault::SlowBoot, now, 700);
        (slow, world.faults.inject(Fault::BootFails, now, 500))
    };
    tokio::select! {
        biased;
        () = signal.stop() => {
            client.power_off();
            return;
        }
        () = super::sleep(if slow { boot * 3 } else { boot }) => {}
    }
    if fails {
        // The machine is on without a worker, and shuts down when EC2 stops it.
        signal.stop().await;
        client.power_off();
        return;
    }
    let Ok(run) = client.own_run() else { return };
    let mut worker = Worker::new(&client, run, Arc::clone(&signal));
    let ends = tokio::select! {
        biased;
        () = client.crashed.notified() => WorkerEnd::Crashes,
        ends = worker.serve() => ends,
    };
    shared.advance_to_now().checks.set_leases(&id, 0);
    match ends {
        WorkerEnd::PowersOff => client.power_off(),
        WorkerEnd::WaitsForEc2 => {}
        WorkerEnd::Crashes => {
            shared
                .advance_to_now()
                .log_event(client.now(), format!("the worker on {id} crashes; its box stays on"));
            signal.stop().await;
            client.power_off();
        }
    }
}

/// How a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkerEnd {
    PowersOff,
    /// Drained before an interruption. EC2 stops the box; a stop of its own would leave it in a state that only EC2 can end (P18).
    WaitsForEc2,
    Crashes,
}

struct Held {
    received: Received,
    received_at: Timestamp,
}

/// The last check of the own box, if it had no errors and changed nothing.
#[derive(Clone, Copy)]
struct CleanCheck {
    at: Timestamp,
    next_change: Option<Timestamp>,
}

struct Worker {
    client: Client,
    ports: Ports,
    policy: Arc<Policy>,
    pool: PoolId,
    queue: QueuePolicy,
    box_id: BoxId,
    run: Timestamp,
    ready_at: Timestamp,
    signal: Arc<Signal>,
    held: Vec<Held>,
    /// When the first held job is done; `FAR` ahead for one that hangs.
    done_at: Option<Timestamp>,
    idle_since: Option<Timestamp>,
    jobs_done: u32,
    drains_until: Option<Timestamp>,
    receive_at: Timestamp,
    report_at: Timestamp,
    reported_at: Timestamp,
    heartbeat_at: Timestamp,
    check_at: Timestamp,
    last_clean: Option<CleanCheck>,
    /// Until when messages are received one at a time, since the last run on this box crashed.
    single_until: Option<Timestamp>,
}

impl Worker {
    fn new(client: &Client, run: Timestamp, signal: Arc<Signal>) -> Self {
        let now = client.now();
        let (policy, pool) = {
            let world = client.shared.advance_to_now();
            (Arc::clone(&world.scenario.policy), world.pool().id.clone())
        };
        let queue = policy.pools[0].queue().expect("the world's pool drains a queue").clone();
        let id = match &client.caller {
            Caller::Worker(id) => id.as_str(),
            Caller::Controller(name) => name,
        };
        Self {
            ports: client.ports(),
            box_id: id.parse().expect("EC2's ids are names"),
            client: client.clone(),
            policy,
            pool,
            queue,
            run,
            ready_at: now,
            signal,
            held: Vec::new(),
            done_at: None,
            idle_since: Some(now),
            jobs_done: 0,
            drains_until: None,
            receive_at: now,
            report_at: now,
            reported_at: now,
            heartbeat_at: now + FAR,
            check_at: now + CHECK_AGAIN_AFTER,
            last_clean: None,
            single_until: None,
        }
    }

    async fn serve(&mut self) -> WorkerEnd {
        self.client
            .shared
            .advance_to_now()
            .log_event(self.ready_at, format!("the worker on {} is ready", self.box_id));
        if self.last_run_crashed().await {
            self.single_until = Some(self.client.now() + one_at_a_time(self.queue.visibility));
        }
        loop {
            self.apply_signal();
            let now = self.client.now();
            if self.drains_until.is_some_and(|until| self.held.is_empty() || now >= until) {
                return self.release_held().await;
            }
            if now >= self.report_at {
                self.report().await;
            } else if now >= self.heartbeat_at {
                self.heartbeat().await;
            } else if self.done_at.is_some_and(|at| now >= at) {
                if self.finish_job().await == Some(WorkerEnd::Crashes) {
                    return WorkerEnd::Crashes;
                }
            } else if self.drains_until.is_none() && now >= self.check_at && self.held.is_empty() {
                self.check_own_box().await;
            } else if self.drains_until.is_none() && now >= self.receive_at && self.held.is_empty()
            {
                self.receive().await;
            } else {
                self.wait().await;
            }
        }
    }

    fn apply_signal(&mut self) {
        if self.signal.state() != SignalState::None && self.drains_until.is_none() {
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.drains_until = Some(self.client.now() + self.policy.worker.drain);
    }

    /// Waits until the next thing is due, or a signal arrives.
    async fn wait(&mut self) {
        let mut next = self.report_at.min(self.heartbeat_at);
        next = self.done_at.map_or(next, |at| at.min(next));
        next = self.drains_until.map_or(next, |at| at.min(next));
        if self.held.is_empty() && self.drains_until.is_none() {
            next = next.min(self.receive_at).min(self.check_at);
        }
        tokio::select! {
            biased;
            () = self.signal.changed.notified() => {}
            () = self.client.shared.sleep_until(next) => {}
        }
    }

    async fn last_run_crashed(&self) -> bool {
        let Ok(memory) = self.ports.ledger.memory(&self.pool).await else { return true };
        let before = memory.runs.iter().find(|run| {
            run.box_id == self.box_id && run.started_at < self.run && run.ready_at.is_some()
        });
        before.is_some_and(|run| run.stop.is_none())
    }

    async fn receive(&mut self) {
        let now = self.client.now();
        let alone = self.single_until.is_some_and(|until| now < until);
        let wait = (self.report_at.min(self.check_at) - now).clamp(TimeDelta::zero(), RECEIVE_WAIT);
        let max = if alone { 1 } else { u32::try_from(SLOTS).unwrap_or(1) };
        let request = ReceiveRequest { max, visibility: self.queue.visibility, wait };
        let received = tokio::select! {
            biased;
            () = self.signal.changed.notified() => return,
            received = self.ports.queue.receive(&self.queue.name, request) => received,
        };
        let now = self.client.now();
        let Ok(received) = received else {
            self.receive_at = now + RECEIVE_RETRY;
            return;
        };
        self.receive_at = now;
        for received in received {
            self.held.push(Held { received, received_at: now });
        }
        if self.held.is_empty() {
            return;
        }
        self.idle_since = None;
        self.heartbeat_at = now + heartbeat_every(self.queue.visibility);
        self.report_at = now;
        self.publish_leases();
        self.start_next_job().await;
    }

    /// Starts the first held job that has no result yet.
    async fn start_next_job(&mut self) {
        while let Some(first) = self.held.first() {
            let now = self.client.now();
            let Ok(job) = job_from_json(&first.received.body) else {
                let receipt = first.received.receipt.clone();
                let _ = self.ports.queue.change_one(&receipt, TimeDelta::zero()).await;
                self.remove_held(0);
                continue;
            };
            if first.received.receive_count > 1 {
                let entry = self.ports.ledger.job(&job.id).await;
                if matches!(entry, Ok(Some(entry)) if entry.result.is_some()) {
                    let receipt = self.held[0].received.receipt.clone();
                    let _ = self.ports.queue.ack_one(&receipt).await;
                    self.remove_held(0);
                    continue;
                }
            }
            let hangs = {
                let world = &mut *self.client.shared.advance_to_now();
                world.faults.inject(Fault::WorkerHang, now, 100)
            };
            let takes = self.job_of(job.id.as_str()).map_or(TimeDelta::zero(), |kind| kind.0);
            self.done_at = Some(self.client.now() + if hangs { FAR } else { takes });
            return;
        }
        self.done_at = None;
        self.heartbeat_at = self.client.now() + FAR;
    }

    fn job_of(&self, id: &str) -> Option<(TimeDelta, JobOutcome)> {
        let world = self.client.shared.advance_to_now();
        world.jobs.get(id).map(|kind| (kind.service, kind.outcome))
    }

    /// Commits the result of the first held job, then acks. Returns the end of the worker if the job crashes it.
    async fn finish_job(&mut self) -> Option<WorkerEnd> {
        let Held { received, received_at } = self.held.first()?;
        let (receipt, attempt) = (received.receipt.clone(), received.receive_count);
        let job = job_from_json(&received.body).ok()?;
        let (inference, outcome) = self.job_of(job.id.as_str())?;
        if outcome == JobOutcome::Poison {
            self.client.shared.advance_to_now().faults.count(Fault::Poison, 1);
            return Some(WorkerEnd::Crashes);
        }
        let outcome = match outcome {
            JobOutcome::Fails => Err(JobFailure {
                code: "input.truncated".to_owned(),
                message: "the input ends too early".to_owned(),
                hint: None,
            }),
            _ => Ok(serde_json::Value::Null),
        };
        let result = JobResult {
            job,
            outcome,
            model: None,
            device: None,
            box_id: self.box_id.clone(),
            attempt,
            received_at: *received_at,
            finished_at: self.client.now(),
            inference,
        };
        if self.ports.ledger.commit_one(&result).await.is_ok() {
            self.jobs_done += 1;
            // If the ack fails it is delivered again, and found done.
            let _ = self.ports.queue.ack_one(&receipt).await;
        } else {
            let _ = self.ports.queue.change_one(&receipt, retry_delay(attempt)).await;
        }
        self.remove_held(0);
        self.start_next_job().await;
        None
    }

    fn remove_held(&mut self, index: usize) {
        self.held.remove(index);
        let now = self.client.now();
        if self.held.is_empty() {
            self.idle_since = Some(now);
            self.receive_at = now;
            self.check_at = now + CHECK_AGAIN_AFTER;
            self.report_at = now;
        }
        self.publish_leases();
    }

    fn publish_leases(&self) {
        let held = self.held.len();
        self.client.shared.advance_to_now().checks.set_leases(self.box_id.as_str(), held);
    }

    async fn report(&mut self) {
        let now = self.client.now();
        let report = WorkerReport {
            box_id: self.box_id.clone(),
            run_started_at: self.run,
            at: now,
            pid: 1,
            ready_at: Some(self.ready_at),
            leases: u32::try_from(self.held.len()).unwrap_or(u32::MAX),
            idle_since: self.idle_since,
            jobs_done: self.jobs_done,
            last_error: None,
            fault: None,
            keep_until: None,
        };
        self.report_at = now + REPORT_EVERY;
        if self.ports.ledger.report(&report).await.is_ok() {
            self.reported_at = now;
        } else if now - self.reported_at > REPORT_FAILURE_MAX && self.held.is_empty() {
            self.drain();
        }
        let oldest = self.held.iter().map(|held| held.received_at).min();
        let most = self.policy.worker.job_max + HANG_GRACE;
        if oldest.is_some_and(|since| now - since > most * i32::try_from(SLOTS).unwrap_or(1)) {
            // The job hangs although it was cancelled: the worker ends.
            self.drain();
        }
    }

    async fn heartbeat(&mut self) {
        self.heartbeat_at = self.client.now() + heartbeat_every(self.queue.visibility);
        let receipts: Vec<_> = self.held.iter().map(|held| held.received.receipt.clone()).collect();
        for receipt in receipts {
            let reply = self.ports.queue.change_one(&receipt, self.queue.visibility).await;
            if reply.is_err_and(|error| error.class == PortErrorClass::LeaseLost) {
                // Another worker may have it: no commit, no ack.
                let mine = |held: &Held| held.received.receipt == receipt;
                let Some(index) = self.held.iter().position(mine) else { continue };
                self.remove_held(index);
                if index == 0 {
                    self.start_next_job().await;
                }
            }
        }
    }

    /// Evaluates the same `decide` for its own box, and stops it if the plan says so. Nothing is received meanwhile.
    async fn check_own_box(&mut self) {
        let began = self.client.now();
        self.check_at = began + CHECK_EVERY;
        if self.would_see_the_same(began) {
            return;
        }
        let witness = Witness::Worker(self.box_id.clone());
        let (observed, mut plan) = plan(&self.ports, &self.policy, witness).await;
        let remembered = observed.remember(&self.ports).await;
        let next = plan.pools.first().and_then(|pool| pool.next_change.as_ref());
        if let Some(next) = next {
            let step = began + CHECK_AGAIN_AFTER;
            self.check_at = self.check_at.min(next.at.max(step));
        }
        let seen_once = observed.observation.pools.values().any(|pool| {
            let queue = pool.queue.as_ref().and_then(|queue| queue.value.as_ref());
            queue.is_some_and(|queue| queue.is_empty() && queue.empty_since.is_none())
        });
        if seen_once {
            self.check_at = began + CHECK_AGAIN_AFTER;
        }
        let clean = observed.errors.is_empty() && remembered.is_ok() && !seen_once;
        let clean = clean && !is_report_overdue(&self.client.shared.advance_to_now(), began);
        let next_change = next.map(|next| next.at);
        self.last_clean = clean.then_some(CleanCheck { at: began, next_change });
        for pool in &mut plan.pools {
            let mine = |action: &Action| matches!(action, Action::Stop { box_id, .. } if *box_id == self.box_id);
            pool.actions.retain(mine);
        }
        if self.held.is_empty() && plan.pools.iter().any(|pool| !pool.actions.is_empty()) {
            let seen = &observed.observation;
            let acted = act(&self.ports, seen, &plan, seen.at + LEASE_LASTS).await;
            self.client.shared.advance_to_now().check_acted(self.client.now(), &acted);
            self.client.shared.end_if_broken();
            // As in `gpu-worker`: it drains whether or not the stop succeeded, and the box shuts down then.
            self.drain();
        }
    }

    /// Whether a check would see what the last one saw: as with a controller's ticks, but none is skipped while workers crash.
    fn would_see_the_same(&self, now: Timestamp) -> bool {
        let Some(CleanCheck { at, next_change }) = self.last_clean else { return false };
        let world = &*self.client.shared.advance_to_now();
        let odd = is_unreliable(world, now) || world.faults.strength(Fault::WorkerCrash, now) > 0;
        let due = next_change.is_some_and(|next| next <= now);
        let appears = world.queue.next_visible(at).is_some_and(|next| next <= now);
        let silent = is_report_overdue(world, now);
        !odd && !due && !appears && !silent && world.changed_at + SHOWS_WITHIN < at
    }

    /// Releases held messages to the queue, and reports for the last time.
    async fn release_held(&mut self) -> WorkerEnd {
        while let Some(held) = self.held.first() {
            let receipt = held.received.receipt.clone();
            let _ = self.ports.queue.change_one(&receipt, TimeDelta::zero()).await;
            self.remove_held(0);
        }
        self.report().await;
        if self.signal.state() == SignalState::InterruptionNotice {
            WorkerEnd::WaitsForEc2
        } else {
            WorkerEnd::PowersOff
        }
    }
}
