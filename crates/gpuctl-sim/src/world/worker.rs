//! A box from within: it boots, loads, and its worker behaves as `gpu-worker` does, on the same ports and the same `decide`.
//!
//! One task, one job at a time; the leases of the others are kept alive meanwhile. What `gpu-worker` does each half second is done
//! here when it can matter: an idle worker looks at what its plan announces, and at least each `LOOK_EVERY`, unless the last look
//! saw everything and nothing has changed since.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use gpuctl_control::act::act;
use gpuctl_control::job::{JobFailure, JobResult};
use gpuctl_control::plan;
use gpuctl_control::ports::LEASE_LASTS;
use gpuctl_control::ports::{PortErrorClass, Ports, ReceiveRequest, Received, WorkerReport};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_core::observation::Witness;
use gpuctl_core::plan::Action;
use gpuctl_core::policy::{Policy, QueuePolicy};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use tokio::sync::Notify;

use super::Shared;
use super::controller::{SHOWS_WITHIN, is_odd, is_silent};
use super::ports::{Site, Who};
use super::scenario::Nature;
use crate::chance::Chance;
use crate::faults::Fault;

/// Messages held at once.
const SLOTS: usize = 4;
/// What a boot takes from `running` to a loaded model, in seconds.
const BOOT_SECONDS: (i64, i64) = (25, 90);
/// How often a report is due: `gpu-worker` reports more often, and a reader allows for more.
const REPORT_EVERY: TimeDelta = TimeDelta::seconds(14);
/// The two looks that an empty queue needs are so far apart, as in `gpu-worker`.
const LOOK_SOON: TimeDelta = TimeDelta::milliseconds(500);
const LOOK_EVERY: TimeDelta = TimeDelta::seconds(20);
/// The longest poll for messages.
const RECEIVE_WAIT: TimeDelta = TimeDelta::seconds(20);
/// The wait after the queue failed.
const RECEIVE_RETRY: TimeDelta = TimeDelta::seconds(1);
/// How long a worker without a job goes on while its reports fail, as in `gpu-worker`.
const MUTE_MAX: TimeDelta = TimeDelta::minutes(5);
/// How long a cancelled job may take to notice, as in `gpu-worker`.
const HANG_GRACE: TimeDelta = TimeDelta::seconds(60);
const FAR: TimeDelta = TimeDelta::days(3_650);

/// What the box is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// EC2 takes it back soon.
    Notice,
    /// It shuts down.
    Stop,
}

/// What reaches the box from outside. Not tokio's `watch`: that wakes its listeners in a random order.
#[derive(Debug)]
pub(super) struct Ear {
    told: Mutex<Told>,
    changed: Notify,
}

impl Ear {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { told: Mutex::new(Told::Nothing), changed: Notify::new() })
    }

    pub(super) fn tell(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        self.changed.notify_one();
    }

    fn told(&self) -> Told {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stop(&self) {
        while self.told() != Told::Stop {
            self.changed.notified().await;
        }
    }
}

/// A machine that is on: it boots, serves, and powers itself off when its worker has drained.
pub(super) async fn live(shared: Arc<Shared>, id: String, ear: Arc<Ear>, turn: u64) {
    let site = Site::new(&shared, Who::Worker(id.clone()));
    let mut chance = Chance::concern(turn, &id);
    let boot = TimeDelta::seconds(chance.between(BOOT_SECONDS.0, BOOT_SECONDS.1));
    let (slow, fails) = {
        let (now, world) = (site.now(), &mut *shared.world());
        let slow = world.faults.strikes(Fault::SlowBoot, now, 700);
        (slow, world.faults.strikes(Fault::BootFails, now, 500))
    };
    tokio::select! {
        biased;
        () = ear.stop() => {
            site.power_off();
            return;
        }
        () = super::sleep(if slow { boot * 3 } else { boot }) => {}
    }
    if fails {
        // The machine is up, and still shuts down when it is told to.
        ear.stop().await;
        site.power_off();
        return;
    }
    let Ok(run) = site.own_run() else { return };
    let mut worker = Worker::new(&site, run, Arc::clone(&ear));
    let ends = tokio::select! {
        biased;
        () = site.died.notified() => Ends::Dies,
        ends = worker.serve() => ends,
    };
    shared.world().checks.leases(&id, 0);
    match ends {
        Ends::PowersOff => site.power_off(),
        Ends::Waits => {}
        Ends::Dies => {
            shared.world().note(site.now(), format!("the worker on {id} dies; its box stays on"));
            ear.stop().await;
            site.power_off();
        }
    }
}

/// How a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    PowersOff,
    /// Drained; EC2 takes the box, and a stop of its own would leave it where nobody can start it (P18).
    Waits,
    Dies,
}

struct Held {
    received: Received,
    received_at: Timestamp,
}

/// The last look, where it saw everything and left all as it was.
#[derive(Clone, Copy)]
struct Looked {
    at: Timestamp,
    next_change: Option<Timestamp>,
}

struct Worker {
    site: Site,
    ports: Ports,
    policy: Arc<Policy>,
    pool: PoolId,
    queue: QueuePolicy,
    box_id: BoxId,
    run: Timestamp,
    ready_at: Timestamp,
    ear: Arc<Ear>,
    held: Vec<Held>,
    /// When the first of the held is done; never, for one that hangs.
    done_at: Option<Timestamp>,
    idle_since: Option<Timestamp>,
    jobs_done: u32,
    drains_until: Option<Timestamp>,
    receive_at: Timestamp,
    report_at: Timestamp,
    reported_at: Timestamp,
    beat_at: Timestamp,
    look_at: Timestamp,
    looked: Option<Looked>,
    /// Until when messages are taken one by one: the last run here broke off over one of them.
    alone_until: Option<Timestamp>,
}

impl Worker {
    fn new(site: &Site, run: Timestamp, ear: Arc<Ear>) -> Self {
        let now = site.now();
        let (policy, pool) = {
            let world = site.shared.world();
            (Arc::clone(&world.scenario.policy), world.pool().id.clone())
        };
        let queue = policy.pools[0].queue().expect("the world's pool drains a queue").clone();
        let id = match &site.who {
            Who::Worker(id) => id.as_str(),
            Who::Controller(name) => name,
        };
        Self {
            ports: site.ports(),
            box_id: id.parse().expect("EC2's ids are names"),
            site: site.clone(),
            policy,
            pool,
            queue,
            run,
            ready_at: now,
            ear,
            held: Vec::new(),
            done_at: None,
            idle_since: Some(now),
            jobs_done: 0,
            drains_until: None,
            receive_at: now,
            report_at: now,
            reported_at: now,
            beat_at: now + FAR,
            look_at: now + LOOK_SOON,
            looked: None,
            alone_until: None,
        }
    }

    async fn serve(&mut self) -> Ends {
        self.site
            .shared
            .world()
            .note(self.ready_at, format!("the worker on {} is ready", self.box_id));
        if self.last_run_broke_off().await {
            self.alone_until = Some(self.site.now() + self.queue.visibility * 2);
        }
        loop {
            self.obey();
            let now = self.site.now();
            if self.drains_until.is_some_and(|until| self.held.is_empty() || now >= until) {
                return self.leave().await;
            }
            if now >= self.report_at {
                self.report().await;
            } else if now >= self.beat_at {
                self.beat().await;
            } else if self.done_at.is_some_and(|at| now >= at) {
                if self.finish().await == Some(Ends::Dies) {
                    return Ends::Dies;
                }
            } else if self.drains_until.is_none() && now >= self.look_at && self.held.is_empty() {
                self.look().await;
            } else if self.drains_until.is_none() && now >= self.receive_at && self.held.is_empty()
            {
                self.receive().await;
            } else {
                self.wait().await;
            }
        }
    }

    fn obey(&mut self) {
        if self.ear.told() != Told::Nothing && self.drains_until.is_none() {
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.drains_until = Some(self.site.now() + self.policy.worker.drain);
    }

    /// Until the next thing is due, or somebody says something.
    async fn wait(&mut self) {
        let mut next = self.report_at.min(self.beat_at);
        next = self.done_at.map_or(next, |at| at.min(next));
        next = self.drains_until.map_or(next, |at| at.min(next));
        if self.held.is_empty() && self.drains_until.is_none() {
            next = next.min(self.receive_at).min(self.look_at);
        }
        tokio::select! {
            biased;
            () = self.ear.changed.notified() => {}
            () = self.site.shared.sleep_until(next) => {}
        }
    }

    async fn last_run_broke_off(&self) -> bool {
        let Ok(memory) = self.ports.ledger.memory(&self.pool).await else { return true };
        let before = memory.runs.iter().find(|run| {
            run.box_id == self.box_id && run.started_at < self.run && run.ready_at.is_some()
        });
        before.is_some_and(|run| run.stop.is_none())
    }

    async fn receive(&mut self) {
        let now = self.site.now();
        let alone = self.alone_until.is_some_and(|until| now < until);
        let wait = (self.report_at.min(self.look_at) - now).clamp(TimeDelta::zero(), RECEIVE_WAIT);
        let max = if alone { 1 } else { u32::try_from(SLOTS).unwrap_or(1) };
        let request = ReceiveRequest { max, visibility: self.queue.visibility, wait };
        let received = tokio::select! {
            biased;
            () = self.ear.changed.notified() => return,
            received = self.ports.queue.receive(&self.queue.name, request) => received,
        };
        let now = self.site.now();
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
        self.beat_at = now + self.queue.visibility / 3;
        self.report_at = now;
        self.count();
        self.begin().await;
    }

    /// Begins with the first held message that is still to be done.
    async fn begin(&mut self) {
        while let Some(first) = self.held.first() {
            let now = self.site.now();
            let Ok(job) = job_from_json(&first.received.body) else {
                let receipt = first.received.receipt.clone();
                let _ = self.ports.queue.change_visibility(&receipt, TimeDelta::zero()).await;
                self.let_go(0);
                continue;
            };
            if first.received.receive_count > 1 {
                let entry = self.ports.ledger.job(&job.id).await;
                if matches!(entry, Ok(Some(entry)) if entry.result.is_some()) {
                    let receipt = self.held[0].received.receipt.clone();
                    let _ = self.ports.queue.ack(&receipt).await;
                    self.let_go(0);
                    continue;
                }
            }
            let hangs = {
                let world = &mut *self.site.shared.world();
                world.faults.strikes(Fault::WorkerHang, now, 100)
            };
            let takes = self.job_of(job.id.as_str()).map_or(TimeDelta::zero(), |kind| kind.0);
            self.done_at = Some(self.site.now() + if hangs { FAR } else { takes });
            return;
        }
        self.done_at = None;
        self.beat_at = self.site.now() + FAR;
    }

    fn job_of(&self, id: &str) -> Option<(TimeDelta, Nature)> {
        let world = self.site.shared.world();
        world.jobs.get(id).map(|kind| (kind.service, kind.nature))
    }

    /// Commit, then ack.
    async fn finish(&mut self) -> Option<Ends> {
        let Held { received, received_at } = self.held.first()?;
        let (receipt, attempt) = (received.receipt.clone(), received.receive_count);
        let job = job_from_json(&received.body).ok()?;
        let (inference, nature) = self.job_of(job.id.as_str())?;
        if nature == Nature::Poison {
            self.site.shared.world().faults.count(Fault::Poison, 1);
            return Some(Ends::Dies);
        }
        let outcome = match nature {
            Nature::Bad => Err(JobFailure {
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
            finished_at: self.site.now(),
            inference,
        };
        if self.ports.ledger.commit(&result).await.is_ok() {
            self.jobs_done += 1;
            // Not acked: it will be delivered again, and found done.
            let _ = self.ports.queue.ack(&receipt).await;
        } else {
            let later = TimeDelta::seconds(1 << attempt.min(8));
            let _ = self.ports.queue.change_visibility(&receipt, later).await;
        }
        self.let_go(0);
        self.begin().await;
        None
    }

    fn let_go(&mut self, place: usize) {
        self.held.remove(place);
        let now = self.site.now();
        if self.held.is_empty() {
            self.idle_since = Some(now);
            self.receive_at = now;
            self.look_at = now + LOOK_SOON;
            self.report_at = now;
        }
        self.count();
    }

    fn count(&self) {
        let held = self.held.len();
        self.site.shared.world().checks.leases(self.box_id.as_str(), held);
    }

    async fn report(&mut self) {
        let now = self.site.now();
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
        };
        self.report_at = now + REPORT_EVERY;
        if self.ports.ledger.report(&report).await.is_ok() {
            self.reported_at = now;
        } else if now - self.reported_at > MUTE_MAX && self.held.is_empty() {
            self.drain();
        }
        let oldest = self.held.iter().map(|held| held.received_at).min();
        let most = self.policy.worker.job_max + HANG_GRACE;
        if oldest.is_some_and(|since| now - since > most * i32::try_from(SLOTS).unwrap_or(1)) {
            // The job hangs although it was cancelled: this worker ends, the next one starts anew.
            self.drain();
        }
    }

    async fn beat(&mut self) {
        self.beat_at = self.site.now() + self.queue.visibility / 3;
        let receipts: Vec<_> = self.held.iter().map(|held| held.received.receipt.clone()).collect();
        for receipt in receipts {
            let answer = self.ports.queue.change_visibility(&receipt, self.queue.visibility).await;
            if answer.is_err_and(|error| error.class == PortErrorClass::LeaseLost) {
                // Another worker may have it: no commit, no ack.
                let mine = |held: &Held| held.received.receipt == receipt;
                let Some(place) = self.held.iter().position(mine) else { continue };
                self.let_go(place);
                if place == 0 {
                    self.begin().await;
                }
            }
        }
    }

    /// Asks the same `decide` about its own box; nothing is being received meanwhile.
    async fn look(&mut self) {
        let began = self.site.now();
        self.look_at = began + LOOK_EVERY;
        if self.would_see_the_same(began) {
            return;
        }
        let witness = Witness::Worker(self.box_id.clone());
        let (observed, mut plan) = plan(&self.ports, &self.policy, witness).await;
        let remembered = observed.remember(&self.ports).await;
        let next = plan.pools.first().and_then(|pool| pool.next_change.as_ref());
        if let Some(next) = next {
            let step = began + LOOK_SOON;
            self.look_at = self.look_at.min(next.at.max(step));
        }
        let seen_once = observed.observation.pools.values().any(|pool| {
            let queue = pool.queue.as_ref().and_then(|queue| queue.value.as_ref());
            queue.is_some_and(|queue| queue.is_empty() && queue.empty_since.is_none())
        });
        if seen_once {
            self.look_at = began + LOOK_SOON;
        }
        let clean = observed.errors.is_empty() && remembered.is_ok() && !seen_once;
        let clean = clean && !is_silent(&self.site.shared.world(), began);
        let next_change = next.map(|next| next.at);
        self.looked = clean.then_some(Looked { at: began, next_change });
        for pool in &mut plan.pools {
            let mine = |action: &Action| matches!(action, Action::Stop { box_id, .. } if *box_id == self.box_id);
            pool.actions.retain(mine);
        }
        if self.held.is_empty() && plan.pools.iter().any(|pool| !pool.actions.is_empty()) {
            let seen = &observed.observation;
            let acted = act(&self.ports, seen, &plan, seen.at + LEASE_LASTS).await;
            self.site.shared.world().check_acted(self.site.now(), &acted);
            self.site.shared.tell_if_broken();
            // As in `gpu-worker`: whatever the answer, it drains, and the box goes down with it.
            self.drain();
        }
    }

    /// Whether a look would see what the last one saw: as with a controller's ticks, but that while workers die, none is left out.
    fn would_see_the_same(&self, now: Timestamp) -> bool {
        let Some(Looked { at, next_change }) = self.looked else { return false };
        let world = &*self.site.shared.world();
        let odd = is_odd(world, now) || world.faults.strength(Fault::WorkerCrash, now) > 0;
        let due = next_change.is_some_and(|next| next <= now);
        let appears = world.queue.next_visible(at).is_some_and(|next| next <= now);
        let silent = is_silent(world, now);
        !odd && !due && !appears && !silent && world.changed_at + SHOWS_WITHIN < at
    }

    /// Gives back what is left.
    async fn leave(&mut self) -> Ends {
        while let Some(held) = self.held.first() {
            let receipt = held.received.receipt.clone();
            let _ = self.ports.queue.change_visibility(&receipt, TimeDelta::zero()).await;
            self.let_go(0);
        }
        self.report().await;
        if self.ear.told() == Told::Notice { Ends::Waits } else { Ends::PowersOff }
    }
}
