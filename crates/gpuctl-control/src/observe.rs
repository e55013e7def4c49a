//! Observe: read everything at one instant, all parts at once, each with a time limit.
//!
//! A part that fails is the last known value with its age, never zero: what follows from the age is for `decide`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_core::cost::{day_of, month_of, spent_since, standing};
use gpuctl_core::observation::{
    BoxState, Hold, Observation, Run, Seen, SeenBox, SeenPool, SeenQueue, SeenWorker, Spent,
    Witness,
};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::units::{BoxId, PoolId, QueueName, Timestamp};
use tokio::task::JoinSet;

use crate::ports::{
    Listing, PoolMemory, PortError, PortErrorClass, Ports, QueueMemory, WorkerReport,
};
use crate::reconcile::LEASE_LASTS;

/// How long one part may take before it counts as failed.
const PART_TIME_MAX: Duration = Duration::from_secs(10);

/// How old the remembered counts may get while they stay the same: between, nothing is written.
const REMEMBER_EVERY: TimeDelta = TimeDelta::seconds(10);

/// How long a cloud's listing may show a box as it was before it was started: EC2 speaks of seconds, and seldom takes a minute.
const LISTED_WITHIN: TimeDelta = TimeDelta::seconds(60);

/// An observation, and what the ledger should remember of it.
#[derive(Debug)]
pub struct Observed {
    /// What `decide` sees.
    pub observation: Observation,
    /// The parts that failed.
    pub errors: Vec<PortError>,
    runs_changed: Vec<Run>,
    queues_changed: Vec<(PoolId, QueueMemory)>,
}

impl Observed {
    /// Writes to the ledger what it should remember; a failure here loses nothing but time.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn remember(&self, ports: &Ports) -> Result<(), PortError> {
        // Each write stands alone; the first failure ends it, and the next look tries again.
        for run in &self.runs_changed {
            ports.ledger.save_run(run).await?;
        }
        for (pool, memory) in &self.queues_changed {
            ports.ledger.remember_queue(pool, memory).await?;
        }
        Ok(())
    }
}

/// Reads everything.
pub async fn observe(ports: &Ports, policy: &Policy, witness: Witness) -> Observed {
    let at = ports.clock.now();
    // What was spent concerns starts alone, and those are the controller's.
    let money = match witness {
        Witness::Controller => Money::Counted,
        Witness::Worker(_) => Money::LeftOut,
    };
    let (boxes, mut parts) =
        tokio::join!(read_boxes(ports, policy), read_pools(ports, policy, money));
    let mut errors = Vec::new();
    let mut boxes = boxes.map_err(|error| errors.push(error)).ok();
    errors.extend(boxes.iter_mut().flat_map(|boxes| boxes.errors.drain(..)));
    if let Some(boxes) = &mut boxes {
        errors.extend(hear_workers(ports, policy, boxes).await.err());
    }
    let mut observed = Observed {
        observation: Observation { at, witness, pools: BTreeMap::new() },
        errors: Vec::new(),
        runs_changed: Vec::new(),
        queues_changed: Vec::new(),
    };
    for pool in &policy.pools {
        let Some(PoolParts { memory, counts, runs_of_month }) = parts.remove(&pool.id) else {
            continue;
        };
        let memory = memory.map_err(|error| errors.push(error)).ok();
        let counts = counts.map(|counts| counts.map_err(|error| errors.push(error)).ok());
        let of_pool = boxes.as_mut().and_then(|boxes| boxes.pools.remove(&pool.id));
        let runs = runs_of_month.and_then(|runs| runs.map_err(|error| errors.push(error)).ok());
        let hold = memory.as_ref().and_then(|memory| memory.hold.as_ref());
        let spent = runs.map(|runs| spent((policy, pool), &runs, hold, at));
        let seen = observed.pool(pool, Parts { memory, counts, boxes: of_pool, spent });
        observed.observation.pools.insert(pool.id.clone(), seen);
    }
    observed.errors = errors;
    observed
}

struct Parts {
    memory: Option<PoolMemory>,
    /// `None` where the pool has no queue, `Some(None)` where it could not be read.
    counts: Option<Option<SeenQueue>>,
    boxes: Option<Vec<SeenBox>>,
    spent: Option<Spent>,
}

impl Observed {
    fn pool(&mut self, policy: &Pool, parts: Parts) -> SeenPool {
        let (at, pool) = (self.observation.at, &policy.id);
        let remembered = parts.memory.is_some();
        let memory = parts.memory.unwrap_or_default();
        let queue = parts.counts.map(|counts| self.queue(pool, counts, memory.queue.as_ref()));
        if !remembered {
            // What could not be read is not overwritten: the row of empty samples would begin anew with each failure.
            self.queues_changed.retain(|(other, _)| other != pool);
        }
        let mut runs = memory.runs;
        let mut boxes = parts.boxes;
        if let Some(boxes) = boxes.as_mut().filter(|_| remembered) {
            self.runs_changed.extend(catch_up(&mut runs, boxes, at));
            if self.observation.witness == Witness::Controller {
                // A worker sees its own box alone.
                self.runs_changed.extend(close_gone(&mut runs, boxes, at));
            }
            let strangers = unknown(&runs, boxes, pool, at);
            self.runs_changed.extend(strangers.iter().cloned());
            runs.splice(0..0, strangers);
            not_foreign(&runs, boxes);
        }
        // Without the ledger a hold may be missing: acting then could break a person's word.
        let boxes = match boxes.filter(|_| remembered) {
            Some(boxes) => Seen::now(boxes, at),
            None => Seen { value: None, at },
        };
        let (hold, service, spent) = (memory.hold, memory.service, parts.spent);
        SeenPool { boxes, queue, hold, runs, service, spent }
    }

    fn queue(
        &mut self,
        pool: &PoolId,
        counts: Option<SeenQueue>,
        last: Option<&QueueMemory>,
    ) -> Seen<SeenQueue> {
        let at = self.observation.at;
        let Some(mut seen) = counts else {
            return match last {
                Some(memory) => Seen { value: Some(memory.seen.clone()), at: memory.at },
                None => Seen { value: None, at },
            };
        };
        let before = last.map(|last| (&last.seen, last.at));
        (seen.empty_since, seen.oldest_sent_at) =
            (seen.empty_since(before), seen.waiting_since(before));
        let known = last.is_some_and(|last| last.seen == seen && at - last.at < REMEMBER_EVERY);
        if !known {
            self.queues_changed.push((pool.clone(), QueueMemory { seen: seen.clone(), at }));
        }
        Seen::now(seen, at)
    }
}

/// Adds what workers say of their boxes, where the cloud does not. Unheard, a box may be ready or not: its pool is unread then.
async fn hear_workers(
    ports: &Ports,
    policy: &Policy,
    listing: &mut Listing,
) -> Result<(), PortError> {
    // A cloud that shows workers shows them for all boxes that are ready.
    let mute = |one: &&mut SeenBox| one.worker.is_none() && one.state == BoxState::Running;
    let has_worker =
        |id: &PoolId| policy.pool(id).and_then(Pool::queue).is_some_and(|queue| queue.reports);
    let pools = || listing.pools.keys().filter(|id| has_worker(id)).cloned().collect::<Vec<_>>();
    let pools = pools();
    let of_pools = listing.pools.iter_mut().filter(|(id, _)| pools.contains(id));
    let mut boxes: Vec<&mut SeenBox> = of_pools.flat_map(|(_, boxes)| boxes).filter(mute).collect();
    if boxes.is_empty() {
        return Ok(());
    }
    let ids: Vec<BoxId> = boxes.iter().map(|one| one.id.clone()).collect();
    match in_time("the workers' reports", ports.ledger.reports(&ids)).await {
        Ok(reports) => {
            boxes.iter_mut().for_each(|one| believe(&reports, one));
            Ok(())
        }
        Err(error) => {
            listing.pools.retain(|id, _| !pools.contains(id));
            Err(error)
        }
    }
}

/// A box that runs is ready when its worker says so (S10), and not before; what an earlier run's worker said does not count.
fn believe(reports: &[WorkerReport], one: &mut SeenBox) {
    let began = one.run_started_at.unwrap_or(one.since);
    let report = reports.iter().find(|report| report.box_id == one.id && report.at >= began);
    one.worker = report.map(|report| SeenWorker {
        heard_at: report.at,
        leases: report.leases,
        idle_since: report.idle_since,
        jobs_done: report.jobs_done,
    });
    if let Some(error) = report.and_then(|report| report.last_error.clone()) {
        one.last_error = Some(error);
    }
    match report.and_then(|report| report.ready_at) {
        Some(ready_at) => one.since = ready_at,
        None => (one.state, one.since) = (BoxState::Pending, began),
    }
}

/// What EC2 itself brought back after an interruption is nobody's word (P4): schedule and queue decide what becomes of it.
fn not_foreign(runs: &[Run], boxes: &mut [SeenBox]) {
    for one in boxes.iter_mut().filter(|one| one.foreign.is_some()) {
        let run = runs.iter().find(|run| run.box_id == one.id);
        if run
            .is_some_and(|run| run.start.rule == Rule::Interruption || run.interrupted_at.is_some())
        {
            one.foreign = None;
        }
    }
}

/// Fills in what the boxes' states say about their latest runs; answers the runs that changed.
fn catch_up(runs: &mut [Run], boxes: &mut [SeenBox], at: Timestamp) -> Vec<Run> {
    let mut changed = Vec::new();
    for one in boxes.iter_mut() {
        let mut mine = runs.iter_mut().filter(|run| run.box_id == one.id);
        let Some(run) = mine.next() else { continue };
        for older in mine.filter(|older| older.stopped_at.is_none()) {
            // The box has begun anew since; what closed this one did not reach the ledger.
            let ran = older.ready_at.map(|_| older.stopping_at.unwrap_or(run.started_at));
            older.stopped_at = ran.or(Some(older.started_at));
            older.error = older.error.take().or_else(|| Some("its end was not seen".to_owned()));
            changed.push(older.clone());
        }
        let before = run.clone();
        if is_in(run, one) {
            note(run, one);
        } else if run.stopped_at.is_none() && run.ready_at.is_some() {
            // It is in another run by now. Nobody saw the end of this one, and what is unknown costs too much rather than too little.
            run.stopped_at = run.stopping_at.or(Some(began(one).min(at)));
            run.error = Some("its end was not seen".to_owned());
        } else if run.stopped_at.is_none() && at - run.started_at > begins_within(one) {
            // Asked for and not begun in time: whoever asked has died over it.
            run.stopped_at = Some(run.started_at);
            run.error = Some("it was asked for and never begun".to_owned());
        } else if run.stopped_at.is_none() && one.state == BoxState::Stopped {
            // R5: asked for, and the listing does not show it yet. It is not there to be started again.
            (one.state, one.since) = (BoxState::Pending, run.started_at);
        }
        if *run != before {
            changed.push(run.clone());
        }
    }
    changed
}

/// Ends the runs whose boxes are no longer there; answers them.
fn close_gone(runs: &mut [Run], boxes: &[SeenBox], at: Timestamp) -> Vec<Run> {
    let mut changed = Vec::new();
    let gone =
        |run: &&mut Run| run.stopped_at.is_none() && !boxes.iter().any(|one| one.id == run.box_id);
    for run in runs.iter_mut().filter(gone).filter(|run| at - run.started_at > LEASE_LASTS) {
        // Nobody will see it stop any more; left open it would cost money for ever.
        run.stopped_at = Some(at);
        run.error = run.error.take().or_else(|| Some("its box is no longer there".to_owned()));
        changed.push(run.clone());
    }
    changed
}

/// Whether this is the run that the box is in, or was in last.
fn is_in(run: &Run, one: &SeenBox) -> bool {
    match one.run_started_at {
        Some(began) => began == run.started_at,
        // Started past gpuctl for the first time: its run is the one that was opened for it.
        None => one.state != BoxState::Stopped || one.since > run.started_at,
    }
}

/// How long a box may take to be seen as begun. One on this machine is listed as it is: only who was to start it may be late.
fn begins_within(one: &SeenBox) -> TimeDelta {
    if one.offering.is_some() { LISTED_WITHIN } else { LEASE_LASTS }
}

/// When the box began what it is at, as far as it says.
fn began(one: &SeenBox) -> Timestamp {
    one.run_started_at.unwrap_or(one.since)
}

fn note(run: &mut Run, one: &SeenBox) {
    run.interrupted_at = run.interrupted_at.or(one.interruption);
    let bought = one.offering.as_ref().filter(|offering| one.is_up() && !offering.is_unplaced());
    run.offering = run.offering.take().or_else(|| bought.cloned());
    match one.state {
        BoxState::Running => run.ready_at = run.ready_at.or(Some(one.since)),
        BoxState::Stopped => {
            run.stopped_at = run.stopped_at.or(Some(one.since.max(run.started_at)));
            run.error = run.error.take().or_else(|| one.last_error.clone());
            run.jobs = run.jobs.or(one.worker.as_ref().map(|worker| worker.jobs_done));
        }
        BoxState::Pending | BoxState::Stopping => {}
    }
}

/// A run for each box that is up without one: somebody started it past gpuctl, and it costs money all the same (R1, P4).
fn unknown(runs: &[Run], boxes: &[SeenBox], pool: &PoolId, at: Timestamp) -> Vec<Run> {
    let begun = |one: &SeenBox| began(one).min(at);
    let strange = |one: &&SeenBox| {
        let open = |run: &Run| run.stopped_at.is_none() || run.started_at == begun(one);
        one.is_up() && !runs.iter().any(|run| run.box_id == one.id && open(run))
    };
    let run = |one: &SeenBox| {
        let by = one.foreign.as_ref().map_or("somebody", |foreign| foreign.by.as_str());
        let last = runs.iter().find(|run| run.box_id == one.id);
        let reason = if last.is_some_and(|run| run.interrupted_at.is_some()) {
            Reason::new(Rule::Interruption, "EC2 brought it back after an interruption")
        } else {
            Reason::new(Rule::Hold, format!("{by} started it past gpuctl"))
        };
        Run {
            offering: one.offering.clone(),
            ready_at: (one.state == BoxState::Running).then_some(one.since),
            ..Run::begin(pool.clone(), one.id.clone(), begun(one), reason)
        }
    };
    boxes.iter().filter(strange).map(run).collect()
}

async fn read_boxes(ports: &Ports, policy: &Policy) -> Result<Listing, PortError> {
    in_time("the boxes", ports.cloud.boxes(policy)).await
}

/// What was read of one pool; outside `Option`: whether it has such a part at all.
struct PoolParts {
    memory: Result<PoolMemory, PortError>,
    counts: Option<Result<SeenQueue, PortError>>,
    runs_of_month: Option<Result<Vec<Run>, PortError>>,
}

/// Whether to count what was spent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Money {
    Counted,
    LeftOut,
}

async fn read_pools(ports: &Ports, policy: &Policy, money: Money) -> BTreeMap<PoolId, PoolParts> {
    let mut reads = JoinSet::new();
    for pool in &policy.pools {
        // A pool as a whole is large: its schedule and calendar are no part of what is read.
        let (ports, id) = (ports.clone(), pool.id.clone());
        let queue = pool.queue().map(|queue| queue.name.clone());
        let money = if pool.budget.is_set() { money } else { Money::LeftOut };
        reads.spawn(async move {
            let parts = read_pool(&ports, (&id, queue.as_ref()), money).await;
            (id, parts)
        });
    }
    reads.join_all().await.into_iter().collect()
}

async fn read_pool(
    ports: &Ports,
    (pool, queue): (&PoolId, Option<&QueueName>),
    money: Money,
) -> PoolParts {
    let memory = in_time("the ledger", ports.ledger.memory(pool));
    let counts = async { Some(in_time("the queue's counts", ports.queue.counts(queue?)).await) };
    // All at once: one after the other could outlast the lease.
    let runs_of_month = async {
        if money == Money::LeftOut {
            return None;
        }
        let month = month_of(ports.clock.now()).begin;
        Some(in_time("the month's runs", ports.ledger.runs_since(month)).await)
    };
    let (memory, counts, runs_of_month) = tokio::join!(memory, counts, runs_of_month);
    PoolParts { memory, counts, runs_of_month }
}

/// What the pool's boxes have cost this month, today and under the hold, disks and addresses included.
fn spent(
    (policy, pool): (&Policy, &Pool),
    runs_of_month: &[Run],
    hold: Option<&Hold>,
    at: Timestamp,
) -> Spent {
    let runs: Vec<Run> = runs_of_month.iter().filter(|run| run.pool == pool.id).cloned().collect();
    let of = |since: Timestamp| {
        spent_since(&runs, &policy.cost, since, at)
            + standing(&policy.cost, pool.boxes_max.get(), at - since)
    };
    let (month, day) = (month_of(at).begin, day_of(at).begin);
    let hold = hold.map_or_else(Default::default, |hold| of(hold.since.max(month)));
    Spent { month: of(month), day: of(day), hold }
}

async fn in_time<T>(
    what: &str,
    read: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    match tokio::time::timeout(PART_TIME_MAX, read).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!("reading {what} took longer than {} s", PART_TIME_MAX.as_secs());
            Err(PortError::new(PortErrorClass::Unavailable, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use gpuctl_core::capacity::{CapacityType, Offering};
    use gpuctl_core::observation::{Foreign, HoldWants};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("a second of this century")
    }

    fn run(started: i64) -> Run {
        let (pool, id) = ("gpu".parse(), "gpu-1".parse());
        let reason = Reason::new(Rule::Demand, "1 job waits");
        Run::begin(pool.expect("a name"), id.expect("a name"), at(started), reason)
    }

    fn a_box(state: BoxState, since: i64) -> SeenBox {
        SeenBox::new("gpu-1".parse().expect("a name"), state, at(since))
    }

    #[test]
    fn r5_a_box_that_was_just_asked_for_is_pending_although_the_listing_still_shows_it_stopped() {
        let mut boxes = [a_box(BoxState::Stopped, 0)];
        assert!(catch_up(&mut [run(100)], &mut boxes, at(110)).is_empty());
        assert_eq!(boxes[0].state, BoxState::Pending);
        let mut late = [run(100)];
        boxes[0].state = BoxState::Stopped;
        assert_eq!(catch_up(&mut late, &mut boxes, at(116)).len(), 1);
        assert_eq!((boxes[0].state, late[0].stopped_at), (BoxState::Stopped, Some(at(100))));
        // A cloud's listing may be later than that.
        let offering = Offering {
            instance_type: "g4dn.xlarge".to_owned(),
            zone: "us-east-1a".to_owned(),
            capacity: CapacityType::Spot,
        };
        boxes[0].offering = Some(offering);
        assert!(catch_up(&mut [run(100)], &mut boxes, at(150)).is_empty());
        assert_eq!(boxes[0].state, BoxState::Pending);
    }

    #[test]
    fn q3_a_ledger_that_cannot_be_read_does_not_begin_the_row_of_empty_samples_anew() {
        let mut observed = Observed {
            observation: Observation {
                at: at(100),
                witness: Witness::Controller,
                pools: BTreeMap::new(),
            },
            errors: Vec::new(),
            runs_changed: Vec::new(),
            queues_changed: Vec::new(),
        };
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").expect("a plain policy");
        let pool = &policy.pools[0];
        let parts = |memory| Parts {
            memory,
            counts: Some(Some(SeenQueue::default())),
            boxes: Some(Vec::new()),
            spent: None,
        };
        let seen = observed.pool(pool, parts(None));
        assert!(seen.queue.is_some_and(|queue| queue.value.is_some()));
        assert!(observed.queues_changed.is_empty(), "{:?}", observed.queues_changed);
        observed.pool(pool, parts(Some(PoolMemory::default())));
        assert_eq!(observed.queues_changed.len(), 1);
    }

    fn sampled(
        visible: u64,
        sent: Option<i64>,
        seconds: i64,
        last: Option<&QueueMemory>,
    ) -> QueueMemory {
        let observation =
            Observation { at: at(seconds), witness: Witness::Controller, pools: BTreeMap::new() };
        let mut observed = Observed {
            observation,
            errors: Vec::new(),
            runs_changed: Vec::new(),
            queues_changed: Vec::new(),
        };
        let counts = SeenQueue { visible, oldest_sent_at: sent.map(at), ..SeenQueue::default() };
        let seen = observed.queue(&"gpu".parse().expect("a name"), Some(counts), last);
        let (_, memory) = observed.queues_changed.pop().unwrap_or_else(|| {
            let last = last.expect("what is not remembered anew was known").clone();
            ("gpu".parse().expect("a name"), last)
        });
        assert_eq!(seen.value.as_ref(), Some(&memory.seen));
        memory
    }

    #[test]
    fn q4_one_sample_of_a_queue_that_knows_no_ages_says_nothing_and_the_next_dates_from_it() {
        let empty = sampled(0, None, 0, None);
        let first = sampled(3, None, 60, Some(&empty));
        assert_eq!(first.seen.oldest_sent_at, None);
        let second = sampled(2, None, 120, Some(&first));
        assert_eq!(second.seen.oldest_sent_at, Some(at(60)));
        let third = sampled(7, None, 180, Some(&second));
        assert_eq!(third.seen.oldest_sent_at, Some(at(60)));
        let gone = sampled(0, None, 240, Some(&third));
        assert_eq!(gone.seen.oldest_sent_at, None);
        let flicker = sampled(1, None, 300, Some(&gone));
        assert_eq!(flicker.seen.oldest_sent_at, None);
        assert_eq!(sampled(0, None, 360, Some(&flicker)).seen.oldest_sent_at, None);
    }

    #[test]
    fn a_queue_that_knows_ages_keeps_its_word() {
        let first = sampled(1, Some(-500), 0, None);
        assert_eq!(first.seen.oldest_sent_at, Some(at(-500)));
        let second = sampled(1, Some(-20), 60, Some(&first));
        assert_eq!(second.seen.oldest_sent_at, Some(at(-20)));
    }

    #[test]
    fn a_run_whose_box_is_no_longer_there_ends() {
        let mut runs = [run(100)];
        assert_eq!(close_gone(&mut runs, &[], at(500)).len(), 1);
        assert_eq!(runs[0].stopped_at, Some(at(500)));
    }

    #[test]
    fn p4_a_box_that_ec2_brings_back_after_an_interruption_is_nobodys_word() {
        let foreign = Foreign { wants: HoldWants::Running, at: at(90), by: "somebody".to_owned() };
        let mut boxes = [SeenBox { foreign: Some(foreign), ..a_box(BoxState::Running, 90) }];
        let pool: PoolId = "gpu".parse().expect("a name");
        let taken = Run { stopped_at: Some(at(60)), interrupted_at: Some(at(60)), ..run(10) };
        let found = unknown(std::slice::from_ref(&taken), &boxes, &pool, at(100));
        assert_eq!(found[0].start.rule, Rule::Interruption);
        not_foreign(&[found[0].clone(), taken], &mut boxes);
        assert_eq!(boxes[0].foreign, None);
    }

    #[test]
    fn s10_a_box_that_runs_is_ready_when_its_worker_says_so_and_an_older_runs_words_do_not_count() {
        let report = |seconds, ready| WorkerReport {
            box_id: "gpu-1".parse().expect("a name"),
            run_started_at: at(seconds),
            at: at(seconds),
            pid: 1,
            ready_at: ready,
            leases: 2,
            idle_since: None,
            jobs_done: 3,
            last_error: None,
        };
        let seen = |reports: &[WorkerReport]| {
            let mut one = a_box(BoxState::Running, 100);
            believe(reports, &mut one);
            (one.state, one.since, one.worker.map(|worker| worker.leases))
        };
        assert_eq!(seen(&[]), (BoxState::Pending, at(100), None));
        assert_eq!(seen(&[report(90, Some(at(80)))]), (BoxState::Pending, at(100), None));
        assert_eq!(seen(&[report(120, None)]), (BoxState::Pending, at(100), Some(2)));
        assert_eq!(seen(&[report(150, Some(at(140)))]), (BoxState::Running, at(140), Some(2)));
    }

    #[test]
    fn r1_a_box_that_somebody_else_started_has_a_run_and_so_a_cost() {
        let foreign = Foreign { wants: HoldWants::Running, at: at(50), by: "user/ada".to_owned() };
        let one = SeenBox { foreign: Some(foreign), ..a_box(BoxState::Running, 60) };
        let pool: PoolId = "gpu".parse().expect("a name");
        let mut closed = run(10);
        closed.stopped_at = Some(at(20));
        let found = unknown(&[closed], std::slice::from_ref(&one), &pool, at(70));
        assert_eq!(
            (found.len(), found[0].started_at, found[0].ready_at),
            (1, at(60), Some(at(60)))
        );
        assert!(found[0].start.text.contains("user/ada"), "{:?}", found[0].start);
        assert!(unknown(&found, std::slice::from_ref(&one), &pool, at(80)).is_empty());
        // It stays open for as long as the box is up, and ends with it.
        let mut runs = found;
        let mut boxes = [one];
        assert!(catch_up(&mut runs, &mut boxes, at(900)).is_empty(), "{runs:?}");
        boxes[0] = a_box(BoxState::Stopped, 1_000);
        assert_eq!(catch_up(&mut runs, &mut boxes, at(1_010)).len(), 1);
        assert_eq!((runs[0].started_at, runs[0].stopped_at), (at(60), Some(at(1_000))));
    }

    #[test]
    fn a_run_whose_end_nobody_saw_costs_until_the_next_one_began() {
        let mut runs = [Run { ready_at: Some(at(130)), ..run(100) }];
        let next = SeenBox { run_started_at: Some(at(900)), ..a_box(BoxState::Pending, 900) };
        assert_eq!(catch_up(&mut runs, &mut [next.clone()], at(910)).len(), 1);
        assert_eq!(runs[0].stopped_at, Some(at(900)));
        let mut told = [Run { ready_at: Some(at(130)), stopping_at: Some(at(500)), ..run(100) }];
        catch_up(&mut told, &mut [next], at(910));
        assert_eq!(told[0].stopped_at, Some(at(500)), "unless its stop was noted");
    }

    #[test]
    fn an_older_run_of_a_box_that_has_begun_anew_is_closed() {
        let ran = Run { ready_at: Some(at(130)), ..run(100) };
        let mut runs = [run(900), run(500), ran];
        let one = SeenBox { run_started_at: Some(at(900)), ..a_box(BoxState::Pending, 900) };
        assert_eq!(catch_up(&mut runs, &mut [one], at(910)).len(), 2);
        let ends: Vec<_> = runs.iter().map(|run| run.stopped_at).collect();
        assert_eq!(ends, [None, Some(at(500)), Some(at(900))]);
    }
}
