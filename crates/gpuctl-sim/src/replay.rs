//! Replays demand against a policy: the very same `decide` as everywhere, in a world of boxes that boot, work and are taken back.
//!
//! One pool, jobs in the order of their arrival, one job a box at a time. Controller and worker both look, as they do in
//! life: the controller at each tick, the worker when it has nothing to do. Looks at which nothing can have changed are left
//! out, which `next_change` makes safe; a test replays with every look to prove it. There is no queue lag and no fault here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use chrono::TimeDelta;
use gpuctl_core::cost::billed_seconds;
use gpuctl_core::decide;
use gpuctl_core::observation::{
    BoxState, Observation, RUNS_REMEMBERED_MAX, Run, Seen, SeenBox, SeenPool, SeenQueue,
    SeenWorker, Witness,
};
use gpuctl_core::offering::{CapacityType, Offering, Refusal, RefusalClass};
use gpuctl_core::plan::{Action, Plan};
use gpuctl_core::policy::Policy;
use gpuctl_core::refusals::REFUSALS_MAX;
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, Timestamp};

use crate::trace::{Availability, Demand, PriceHistory};

/// When a trace begins: 2026-01-05T00:00:00Z, a Monday, so that office hours mean the same in each.
pub const EPOCH_MS: i64 = 1_767_571_200_000;

/// The notice that EC2 gives before it takes a spot box back.
const NOTICE_MS: i64 = 120_000;
/// How often a worker without a job looks whether it should stop: as `gpu-worker` does.
const LOOK_EVERY_MS: i64 = 500;
/// How long boxes may go on after the last job, for policies that never stop them.
const AFTERWARDS_MS: i64 = 3_600_000;

/// What is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The policy; its first pool drains the queue.
    pub policy: &'a Policy,
    /// How long a box takes from start to ready.
    pub boot_ms: i64,
    /// Where spot can be had and when; without it there is only on-demand.
    pub spot: Option<&'a Availability>,
    /// Where in the availability the demand begins; it goes round.
    pub spot_offset_ms: i64,
    /// The price of an hour of spot, and on demand.
    pub prices: Prices,
    /// The price of spot as it changes, in place of the one above; read at the same instants as the availability.
    pub spot_prices: Option<&'a PriceHistory>,
    /// Which looks are taken.
    pub looks: Looks,
}

/// The price of an hour.
#[derive(Clone, Copy, Debug)]
pub struct Prices {
    /// On spot.
    pub spot: MicroUsd,
    /// On demand.
    pub on_demand: MicroUsd,
}

/// Which looks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Only those at which something can have changed.
    Changed,
    /// Every one: the slow way, for the test.
    Every,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Time that boxes were up.
    pub box_ms: i64,
    /// … of it on spot.
    pub spot_ms: i64,
    /// What they cost: billed by the second, with EC2's minimum a start.
    pub usd: MicroUsd,
    /// Starts.
    pub starts: u32,
    /// How long each job waited until a box took it up, in the trace's order; `None` for one that was never done.
    pub waits_ms: Vec<Option<i64>>,
    /// Boxes that were taken back.
    pub interruptions: u32,
    /// Starts that were refused.
    pub refusals: u32,
    /// Boxes up and jobs waiting, whenever either changed: time, boxes, jobs.
    pub timeline: Vec<(i64, u32, u32)>,
}

/// Replays `demand`.
#[must_use]
pub fn replay(setup: &Setup<'_>, demand: &Demand) -> Outcome {
    let mut world = World::new(setup, demand);
    world.push(0, Event::Tick);
    if !demand.jobs().is_empty() {
        world.push(demand.jobs()[0].at_ms, Event::Arrival(0));
    }
    world.watch_zones();
    while let Some(Reverse((at_ms, event, _))) = world.events.pop() {
        if world.is_over(at_ms) {
            break;
        }
        world.now_ms = at_ms;
        world.happen(event);
    }
    world.close()
}

/// What can happen, in the order in which it does at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    JobDone(usize, u32),
    Ready(usize, u32),
    DrainEnds(usize, u32),
    TakenBack(usize, u32),
    ZoneChanges(usize),
    Arrival(usize),
    Look(usize, u32),
    Tick,
}

/// A box beyond what an observation says of it.
struct BoxWork {
    /// Which run it is in; an event of an earlier one is void.
    run: u32,
    started_ms: i64,
    job: Option<usize>,
    /// When its worker looks next.
    look_ms: i64,
}

struct World<'a> {
    setup: &'a Setup<'a>,
    demand: &'a Demand,
    now_ms: i64,
    seen: Observation,
    pool: PoolId,
    work: Vec<BoxWork>,
    waiting: VecDeque<usize>,
    zones: Vec<String>,
    open_jobs: usize,
    done_ms: Option<i64>,
    events: BinaryHeap<Reverse<(i64, Event, u64)>>,
    sequence: u64,
    /// Something has changed since the controller last looked.
    changed: bool,
    /// When its answer changes by itself.
    next_change_ms: Option<i64>,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup<'a>, demand: &'a Demand) -> Self {
        let pool: PoolId = setup.policy.pools[0].id.clone();
        let zones: Vec<String> =
            setup.spot.map(|spot| spot.zones().map(str::to_owned).collect()).unwrap_or_default();
        let boxes = boxes(&pool, setup, &zones);
        let work = boxes
            .iter()
            .map(|_| BoxWork { run: 0, started_ms: 0, job: None, look_ms: 0 })
            .collect();
        let at = instant(0);
        let seen = SeenPool {
            boxes: Seen::now(boxes, at),
            queue: Some(Seen::now(SeenQueue::default(), at)),
            hold: None,
            runs: Vec::new(),
            service: None,
            spent: None,
        };
        let pools = BTreeMap::from([(pool.clone(), seen)]);
        Self {
            setup,
            demand,
            now_ms: 0,
            seen: Observation { at, witness: Witness::Controller, pools },
            pool,
            work,
            waiting: VecDeque::new(),
            zones,
            open_jobs: demand.jobs().len(),
            done_ms: None,
            events: BinaryHeap::new(),
            sequence: 0,
            changed: true,
            next_change_ms: None,
            outcome: Outcome { waits_ms: vec![None; demand.jobs().len()], ..Outcome::default() },
        }
    }

    fn push(&mut self, at_ms: i64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at_ms, event, self.sequence)));
    }

    fn is_over(&self, at_ms: i64) -> bool {
        let Some(done_ms) = self.done_ms else { return false };
        at_ms > done_ms + AFTERWARDS_MS
            || self.boxes().iter().all(|one| one.state == BoxState::Stopped)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.tick();
                let tick = self.setup.policy.cloud.tick.num_milliseconds().max(1);
                self.push(self.now_ms + tick, Event::Tick);
            }
            Event::Arrival(job) => self.arrive(job),
            Event::Ready(index, run) if self.work[index].run == run => self.ready(index),
            Event::JobDone(index, run) if self.work[index].run == run => self.job_done(index),
            Event::DrainEnds(index, run) if self.work[index].run == run => {
                self.stopped(index, None);
            }
            Event::TakenBack(index, run) if self.work[index].run == run => {
                self.outcome.interruptions += 1;
                self.stopped(index, Some(self.now_ms));
            }
            Event::Look(index, run) if self.work[index].run == run => self.look(index),
            Event::ZoneChanges(zone) => self.zone_changes(zone),
            // Of a run that is over.
            Event::Ready(..)
            | Event::JobDone(..)
            | Event::DrainEnds(..)
            | Event::TakenBack(..)
            | Event::Look(..) => {}
        }
    }

    /// What is still up is billed to the end of the time afterwards.
    fn close(mut self) -> Outcome {
        self.now_ms = self.done_ms.map_or(self.now_ms, |done_ms| done_ms + AFTERWARDS_MS);
        for index in 0..self.work.len() {
            if self.boxes()[index].state != BoxState::Stopped {
                self.bill(index);
            }
        }
        self.outcome
    }
}

/// Jobs.
impl World<'_> {
    fn arrive(&mut self, job: usize) {
        self.waiting.push_back(job);
        if let Some(next) = self.demand.jobs().get(job + 1) {
            self.push(next.at_ms, Event::Arrival(job + 1));
        }
        self.hand_out();
        self.note();
    }

    /// Gives waiting jobs to boxes that have nothing to do.
    fn hand_out(&mut self) {
        for index in 0..self.work.len() {
            let one = &self.boxes()[index];
            let free = one.state == BoxState::Running
                && one.interruption.is_none()
                && self.work[index].job.is_none();
            if !free {
                continue;
            }
            let Some(job) = self.waiting.pop_front() else { return };
            let wanted = self.demand.jobs()[job];
            self.outcome.waits_ms[job] = Some(self.now_ms - wanted.at_ms);
            self.work[index].job = Some(job);
            let run = self.work[index].run;
            self.push(self.now_ms + wanted.service_ms, Event::JobDone(index, run));
            self.set_worker(index, 1, None);
        }
    }

    fn job_done(&mut self, index: usize) {
        self.work[index].job = None;
        self.open_jobs -= 1;
        let done = self.boxes()[index].worker.as_ref().map_or(0, |worker| worker.jobs_done);
        self.set_worker(index, 0, Some(instant(self.now_ms)));
        if let Some(worker) = &mut self.boxes_mut()[index].worker {
            worker.jobs_done = done.saturating_add(1);
        }
        if self.open_jobs == 0 {
            self.done_ms = Some(self.now_ms);
        }
        if self.boxes()[index].state == BoxState::Stopping {
            self.stopped(index, None);
        }
        self.hand_out();
        self.idle(index);
        self.note();
    }

    /// A box that has nothing to do looks whether it should stop.
    fn idle(&mut self, index: usize) {
        if self.boxes()[index].state == BoxState::Running && self.work[index].job.is_none() {
            self.look_at(index, self.now_ms + LOOK_EVERY_MS);
        }
    }
}

/// Looks and what follows.
impl World<'_> {
    fn tick(&mut self) {
        let due = self.next_change_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        if self.setup.looks == Looks::Changed && !self.changed && !due {
            return;
        }
        self.changed = self.sample();
        for _ in 0..REFUSALS_MAX {
            let plan = self.plan(Witness::Controller);
            self.next_change_ms = next_change_ms(&plan);
            let refusals = self.outcome.refusals;
            for action in &plan.pools[0].actions {
                self.act(action);
            }
            if self.outcome.refusals == refusals {
                return;
            }
        }
    }

    fn look(&mut self, index: usize) {
        let work = &self.work[index];
        if work.look_ms != self.now_ms || work.job.is_some() {
            return;
        }
        let fresh = self.sample();
        let soon = self.now_ms + LOOK_EVERY_MS;
        let thorough = self.setup.looks == Looks::Every;
        let seen_once = self
            .seen_pool()
            .queue
            .as_ref()
            .and_then(|queue| queue.value.as_ref()?.empty_since)
            .is_none();
        if seen_once && fresh && !thorough {
            // Q3: nobody stops a box on one empty sample, so there is nothing to ask yet.
            self.look_at(index, soon);
            return;
        }
        let id = self.boxes()[index].id.clone();
        let plan = self.plan(Witness::Worker(id.clone()));
        let stop =
            |action: &&Action| matches!(action, Action::Stop { box_id, .. } if *box_id == id);
        if let Some(stop) = plan.pools[0].actions.iter().find(stop) {
            self.act(stop);
        } else if fresh || thorough {
            self.look_at(index, soon);
        } else if let Some(at_ms) = next_change_ms(&plan) {
            // The worker looks at its own steps.
            let steps = (at_ms - self.now_ms + LOOK_EVERY_MS - 1).div_euclid(LOOK_EVERY_MS).max(1);
            self.look_at(index, self.now_ms + steps * LOOK_EVERY_MS);
        }
    }

    /// The box's next look; any that was meant before is void.
    fn look_at(&mut self, index: usize, at_ms: i64) {
        self.work[index].look_ms = at_ms;
        self.push(at_ms, Event::Look(index, self.work[index].run));
    }

    /// Reads the queue, as `observe` does: empty counts from the first of a row of empty samples. Says whether that changed.
    fn sample(&mut self) -> bool {
        let at = instant(self.now_ms);
        let busy = self.work.iter().filter(|work| work.job.is_some()).count();
        let oldest = self.waiting.front().map(|job| instant(self.demand.jobs()[*job].at_ms));
        let waiting = self.waiting.len();
        let queue =
            self.seen_pool().queue.get_or_insert_with(|| Seen::now(SeenQueue::default(), at));
        let last = queue.value.take().unwrap_or_default();
        let mut seen = SeenQueue {
            visible: count(waiting),
            in_flight: count(busy),
            oldest_sent_at: oldest,
            ..SeenQueue::default()
        };
        seen.empty_since = seen.empty_since(Some((&last, queue.at)));
        let changed = seen.empty_since != last.empty_since || seen.is_empty() != last.is_empty();
        *queue = Seen::now(seen, at);
        changed
    }

    fn plan(&mut self, witness: Witness) -> Plan {
        let at = instant(self.now_ms);
        self.seen.at = at;
        self.seen.witness = witness;
        let pool = self.seen_pool();
        pool.boxes.at = at;
        for worker in pool.boxes.value.iter_mut().flatten().filter_map(|one| one.worker.as_mut()) {
            worker.heard_at = at;
        }
        decide(self.setup.policy, &self.seen)
    }

    fn act(&mut self, action: &Action) {
        let Some(index) = self.boxes().iter().position(|one| one.id == *action.box_id()) else {
            return;
        };
        match action {
            Action::Start { reason, .. } => {
                let run = Run {
                    offering: self.boxes()[index].offering.clone(),
                    ..Run::begin(
                        self.pool.clone(),
                        action.box_id().clone(),
                        instant(self.now_ms),
                        reason.clone(),
                    )
                };
                self.start(index, run);
            }
            Action::Stop { reason, .. } => {
                let reason = reason.clone();
                if let Some(run) = self.run_of(index) {
                    run.stop = Some(reason);
                }
                self.stop(index);
            }
        }
        self.note();
    }

    fn note(&mut self) {
        self.changed = true;
        let up = self.boxes().iter().filter(|one| one.state != BoxState::Stopped).count();
        let sample = (
            self.now_ms,
            u32::try_from(up).unwrap_or(u32::MAX),
            u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
        );
        match self.outcome.timeline.last_mut() {
            Some(last) if last.0 == sample.0 => *last = sample,
            _ => self.outcome.timeline.push(sample),
        }
    }
}

/// Boxes.
impl World<'_> {
    fn start(&mut self, index: usize, mut run: Run) {
        if !self.can_be_had(index) {
            self.outcome.refusals += 1;
            let text = "InsufficientInstanceCapacity".to_owned();
            run.refusal = Some(Refusal { class: RefusalClass::Capacity, text });
            run.stopped_at = Some(run.started_at);
            self.add_run(run);
            return;
        }
        self.outcome.starts += 1;
        let now = instant(self.now_ms);
        let work = &mut self.work[index];
        work.run += 1;
        work.started_ms = self.now_ms;
        let number = work.run;
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since, one.run_started_at) = (BoxState::Pending, now, Some(now));
        (one.worker, one.interruption) = (None, None);
        self.add_run(run);
        self.push(self.now_ms + self.setup.boot_ms, Event::Ready(index, number));
    }

    fn ready(&mut self, index: usize) {
        if self.boxes()[index].state != BoxState::Pending {
            return;
        }
        let now = instant(self.now_ms);
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since) = (BoxState::Running, now);
        self.set_worker(index, 0, Some(now));
        if let Some(run) = self.run_of(index) {
            run.ready_at = Some(now);
        }
        self.hand_out();
        self.idle(index);
        self.note();
    }

    /// Drains: what is under way is finished, to a deadline.
    fn stop(&mut self, index: usize) {
        if self.work[index].job.is_none() {
            self.stopped(index, None);
            return;
        }
        let now = instant(self.now_ms);
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since) = (BoxState::Stopping, now);
        let drain = self.setup.policy.worker.drain.num_milliseconds();
        self.push(self.now_ms + drain, Event::DrainEnds(index, self.work[index].run));
    }

    /// The box is gone; what it was at goes back to the head of the queue.
    fn stopped(&mut self, index: usize, taken_back_ms: Option<i64>) {
        self.bill(index);
        let now = instant(self.now_ms);
        if let Some(job) = self.work[index].job.take() {
            self.outcome.waits_ms[job] = None;
            self.waiting.push_front(job);
        }
        self.work[index].run += 1;
        let jobs = self.boxes()[index].worker.as_ref().map(|worker| worker.jobs_done);
        if let Some(run) = self.run_of(index) {
            run.stopped_at = Some(now);
            run.jobs = jobs;
            run.interrupted_at = taken_back_ms.map(instant);
        }
        let one = &mut self.boxes_mut()[index];
        (one.state, one.since) = (BoxState::Stopped, now);
        (one.worker, one.interruption) = (None, None);
        self.hand_out();
        self.note();
    }

    fn bill(&mut self, index: usize) {
        let ran_ms = self.now_ms - self.work[index].started_ms;
        let spot = self.boxes()[index]
            .offering
            .as_ref()
            .is_some_and(|offering| offering.capacity == CapacityType::Spot);
        let prices = self.setup.prices;
        self.outcome.box_ms += ran_ms;
        self.outcome.spot_ms += if spot { ran_ms } else { 0 };
        let billed = billed_seconds(TimeDelta::milliseconds(ran_ms));
        let usd = if spot {
            self.by_price_in_force(index, billed)
                .unwrap_or_else(|| prices.spot.per_hour_for(billed))
        } else {
            prices.on_demand.per_hour_for(billed)
        };
        self.outcome.usd = self.outcome.usd + usd;
    }

    /// What so many seconds from the box's start cost, each at the price in force; `None` where no history tells.
    fn by_price_in_force(&self, index: usize, billed: i64) -> Option<MicroUsd> {
        let (history, spot) = (self.setup.spot_prices?, self.setup.spot?);
        let zone = &self.boxes()[index].offering.as_ref()?.zone;
        let (mut from_ms, mut usd) = (self.work[index].started_ms, MicroUsd(0));
        let end_ms = from_ms + billed * 1_000;
        while from_ms < end_ms {
            let at_ms = self.round(spot, from_ms);
            let change_ms = history.next_change(zone, at_ms).unwrap_or(i64::MAX);
            // Where the availability begins again, so do the prices.
            let piece_ms = change_ms.min(spot.span_ms()) - at_ms;
            let to_ms = end_ms.min(from_ms + piece_ms.max(1));
            usd = usd + history.at(zone, at_ms)?.per(3_600_000, to_ms - from_ms);
            from_ms = to_ms;
        }
        Some(usd)
    }

    fn add_run(&mut self, run: Run) {
        let runs = &mut self.seen_pool().runs;
        runs.insert(0, run);
        runs.truncate(RUNS_REMEMBERED_MAX as usize);
    }

    /// The run that a box is in.
    fn run_of(&mut self, index: usize) -> Option<&mut Run> {
        let (id, began) = (self.boxes()[index].id.clone(), self.boxes()[index].run_started_at?);
        let mine =
            |run: &&mut Run| run.box_id == id && run.started_at == began && run.refusal.is_none();
        self.seen_pool().runs.iter_mut().find(mine)
    }

    fn set_worker(&mut self, index: usize, leases: u32, idle_since: Option<Timestamp>) {
        let heard_at = instant(self.now_ms);
        let one = &mut self.boxes_mut()[index];
        let jobs_done = one.worker.as_ref().map_or(0, |worker| worker.jobs_done);
        one.worker = Some(SeenWorker { heard_at, leases, idle_since, jobs_done });
    }

    fn seen_pool(&mut self) -> &mut SeenPool {
        self.seen.pools.get_mut(&self.pool).expect("the one pool was put in at the start")
    }

    fn boxes(&self) -> &[SeenBox] {
        self.seen.pools[&self.pool].boxes.value.as_deref().unwrap_or_default()
    }

    fn boxes_mut(&mut self) -> &mut [SeenBox] {
        self.seen_pool().boxes.value.as_deref_mut().unwrap_or_default()
    }
}

/// Spot.
impl World<'_> {
    fn watch_zones(&mut self) {
        for zone in 0..self.zones.len() {
            self.watch_zone(zone);
        }
    }

    fn watch_zone(&mut self, zone: usize) {
        let Some(spot) = self.setup.spot else { return };
        let at_ms = self.round(spot, self.now_ms);
        // At the end of the trace it begins again, which may be a change too.
        let end_ms = spot.span_ms();
        let next_ms = spot.next_change(&self.zones[zone], at_ms).unwrap_or(end_ms);
        self.push(self.now_ms + (next_ms - at_ms).max(1), Event::ZoneChanges(zone));
    }

    fn zone_changes(&mut self, zone: usize) {
        if !self.has_spot(&self.zones[zone]) {
            let name = self.zones[zone].clone();
            let taken_at = instant(self.now_ms + NOTICE_MS);
            for index in 0..self.work.len() {
                let one = &mut self.boxes_mut()[index];
                let here = one.offering.as_ref().is_some_and(|offering| {
                    offering.capacity == CapacityType::Spot && offering.zone == name
                });
                if here && one.is_up() && one.interruption.is_none() {
                    one.interruption = Some(taken_at);
                    self.push(
                        self.now_ms + NOTICE_MS,
                        Event::TakenBack(index, self.work[index].run),
                    );
                    self.changed = true;
                }
            }
            if self.changed {
                // The notice is an event, and comes to the controller at once.
                self.tick();
            }
        }
        self.watch_zone(zone);
    }

    fn has_spot(&self, zone: &str) -> bool {
        self.setup.spot.is_some_and(|spot| spot.at(zone, self.round(spot, self.now_ms)))
    }

    /// The instant of the availability's trace: it goes round.
    fn round(&self, spot: &Availability, at_ms: i64) -> i64 {
        (at_ms + self.setup.spot_offset_ms).rem_euclid(spot.span_ms().max(1))
    }

    fn can_be_had(&self, index: usize) -> bool {
        match &self.boxes()[index].offering {
            Some(offering) if offering.capacity == CapacityType::Spot => {
                self.has_spot(&offering.zone)
            }
            _ => true,
        }
    }
}

/// The stable of stopped boxes: as many of each offering as may be up at once.
fn boxes(pool: &PoolId, setup: &Setup<'_>, zones: &[String]) -> Vec<SeenBox> {
    let of = |capacity, zone: &str| Offering {
        instance_type: "g4dn.xlarge".to_owned(),
        zone: zone.to_owned(),
        capacity,
    };
    let on_demand =
        std::iter::once(of(CapacityType::OnDemand, zones.first().map_or("any", String::as_str)));
    let kinds: Vec<Offering> =
        on_demand.chain(zones.iter().map(|zone| of(CapacityType::Spot, zone))).collect();
    let each = usize::try_from(setup.policy.pools[0].boxes_max.get()).unwrap_or(usize::MAX);
    let all = kinds.iter().flat_map(|kind| std::iter::repeat_n(kind, each));
    (1..)
        .zip(all)
        .map(|(number, kind)| SeenBox {
            offering: Some(kind.clone()),
            ..SeenBox::new(BoxId::of_pool(pool, number), BoxState::Stopped, instant(0))
        })
        .collect()
}

/// An instant of the trace.
#[must_use]
pub fn instant(at_ms: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(EPOCH_MS.saturating_add(at_ms)).unwrap_or(Timestamp::MAX_UTC)
}

fn next_change_ms(plan: &Plan) -> Option<i64> {
    let next = plan.pools[0].next_change.as_ref()?;
    let since = next.at - instant(0);
    // Rounded up: at the millisecond before, nothing has changed yet.
    Some(since.num_milliseconds() + i64::from(since.subsec_nanos() % 1_000_000 > 0))
}

fn count(many: usize) -> u64 {
    u64::try_from(many).unwrap_or(u64::MAX)
}
