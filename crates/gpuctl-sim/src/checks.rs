//! The guarantees of gpuctl, checked on the actual state of the simulated world while a week runs.
//!
//! Nothing here calls `decide`: a wrong rule must not confirm itself. The first violation ends the week.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::Reconciled;
use gpuctl_control::act::Acted;
use gpuctl_control::ports::StartOrder;
use gpuctl_core::cost::{billed_seconds, spent_since, usd_hour};
use gpuctl_core::observation::{BoxState, HoldWants, Run};
use gpuctl_core::period::{day_of, month_of};
use gpuctl_core::plan::{Action, Rule, StopMode};
use gpuctl_core::policy::{IdleStop, Pool};
use gpuctl_core::schedule::Desired;
use gpuctl_core::units::{BoxId, MicroUsd, Timestamp};

use self::jobs::Jobs;
use crate::faults::Fault;
use crate::world::ec2::{InstanceState, Metered};
use crate::world::scenario::{JobKind, JobOutcome, Scenario};
use crate::world::{Item, MessageState, Shared, World};

mod jobs;

/// How many starts in a row may fail …
const BOOT_LOOP_STARTS_MAX: usize = 20;
/// … within this time.
const BOOT_LOOP_WITHIN: TimeDelta = TimeDelta::hours(8);
/// How long a box may be up after its worker has ended.
pub(crate) const WORKERLESS_MAX: TimeDelta = TimeDelta::minutes(10);
/// How fresh a report is that a controller must have read: it observes, and then acts.
const HEARD_WITHIN: TimeDelta = TimeDelta::seconds(90);
/// How long after an outage a worker may need to report again.
const REPORTS_AGAIN: TimeDelta = TimeDelta::seconds(30);
/// How old a reading may be when a box is stopped because of it: the two minutes that `decide` allows, and the reconcile itself.
const STALE_AFTER: TimeDelta = TimeDelta::seconds(150);
/// A box may exceed its limit in this many consecutive reconciles without errors before the guarantee counts as broken.
const CLEAN_RECONCILES_MAX: u32 = 5;
/// How long a box may exceed its limits: a slow boot, a worker whose reports do not arrive, a stop that is repeated.
const LIMIT_MARGIN: TimeDelta = TimeDelta::minutes(12);
/// How long a box may exceed `lifetime_max` and its drain although no controller can see it: its worker looks only now and then.
const LIFETIME_MARGIN: TimeDelta = TimeDelta::minutes(10);
/// How much more time the ledger may count for one run than EC2 (billed, plus pending and stopping): the time until the call reaches
/// EC2, and the minimum of one minute for a start that never reached `running`.
const BEYOND_A_RUN: TimeDelta = TimeDelta::seconds(75);
/// How much less: seconds are rounded.
const ROUNDED_A_RUN: TimeDelta = TimeDelta::seconds(2);

gpuctl_core::named! {
    /// A guarantee that is checked.
    Guarantee {
        ExactlyOnce "exactly-once" "Every generation of a job gets one result, or is dead or expired.",
        DurableFirst "durable-first" "No message is deleted before its result is durable.",
        LiveAck "live-ack" "No worker acks a message whose lease it knows to be lost.",
        Clocks "clocks" "No box is stopped for silence while its worker's reports arrive, or cannot arrive.",
        BoxesMax "boxes-max" "gpuctl's own starts never bring up more boxes than `boxes_max`.",
        Grace "grace" "No box whose worker holds a lease is forced off before its drain ends.",
        IdleLimit "idle-limit" "No box stays on without work beyond its idle limit while a controller can see it.",
        Lifetime "lifetime" "No box outlives `lifetime_max`, counted from its launch, and none ends for it before.",
        Spend "spend" "What the ledger says was spent is what EC2 bills.",
        Reasons "reasons" "Every start and stop has a reason, and every start its run in the ledger.",
        Stale "stale" "Nothing is stopped on stale readings.",
        Flapping "flapping" "No more starts per hour than `starts_per_hour_max`, plus one per hold.",
        Budget "budget" "The queue starts no box once its budget is spent.",
        OneActor "one-actor" "Only the holder of the lease starts and stops boxes.",
        Fenced "fenced" "No controller overwrites what a later holder of the lease has written.",
        WhoseFault "whose-fault" "No job fails or dies through a fault of a box or a service.",
        KeepsWork "keeps-work" "No inference is lost in an outage of up to 30 minutes.",
        Poison "poison" "A job that crashes its worker ends in the dead letters with a reason, and no other for that reason.",
        OwnFiles "own-files" "The files of a result are those of the attempt that was committed.",
        Hoarding "hoarding" "No worker holds minutes of work that it has not begun while another is idle.",
        Workerless "workerless" "No box stays on without a worker for longer than ten minutes.",
        BootLoops "boot-loops" "Boxes that never get ready are started ever less often.",
        OneStart "one-start" "One order starts one box, and never a box that is up.",
        Converges "converges" "After the last fault the queue is worked off, boxes stop and runs are closed.",
    }
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub guarantee: Guarantee,
    pub at: Timestamp,
    /// What happened, with the box or job concerned.
    pub what: String,
    /// The events before it, oldest first, with their times.
    pub events: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.format("%a %H:%M:%S");
        write!(f, "{}: {} ({at}: {})", self.guarantee.name(), self.guarantee.sentence(), self.what)
    }
}

/// The state of the checks.
pub(crate) struct Checks {
    broken: Option<(Guarantee, Timestamp, String)>,
    count: u64,
    /// By job and generation.
    committed: BTreeMap<(String, u32), u32>,
    /// When any controller or worker last read the queue's counts, and the list of boxes.
    pub(crate) counts_read_at: Option<Timestamp>,
    pub(crate) boxes_read_at: Option<Timestamp>,
    jobs: Jobs,
    /// Instances that gpuctl started, with the token of the order.
    started: BTreeMap<String, String>,
    starts: Vec<Timestamp>,
    holds: Vec<Timestamp>,
    /// When an operator last started an instance in the console.
    foreign_start: Option<Timestamp>,
    /// When each instance was first ordered to stop.
    stopping: BTreeMap<String, Timestamp>,
    /// When there was last work, or a hold or schedule that wants a box.
    busy_at: Timestamp,
    /// Consecutive clean reconciles that left a box up beyond its limit.
    reconciles_beyond: BTreeMap<(String, Guarantee), u32>,
}

impl Checks {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            broken: None,
            count: 0,
            committed: BTreeMap::new(),
            counts_read_at: None,
            boxes_read_at: None,
            jobs: Jobs::default(),
            started: BTreeMap::new(),
            starts: Vec::new(),
            holds: Vec::new(),
            foreign_start: None,
            stopping: BTreeMap::new(),
            busy_at: scenario.begin,
            reconciles_beyond: BTreeMap::new(),
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn committed(&self) -> u64 {
        u64::try_from(self.committed.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn violation(&self, log: &VecDeque<(Timestamp, String)>) -> Option<Violation> {
        let (guarantee, at, what) = self.broken.clone()?;
        let event =
            |(at, text): &(Timestamp, String)| format!("{} {text}", at.format("%a %H:%M:%S%.3f"));
        Some(Violation { guarantee, at, what, events: log.iter().map(event).collect() })
    }

    /// Counts a check, and records the first whose condition does not hold.
    fn check(
        &mut self,
        holds: bool,
        guarantee: Guarantee,
        at: Timestamp,
        what: impl FnOnce() -> String,
    ) {
        self.count += 1;
        if !holds && self.broken.is_none() {
            self.broken = Some((guarantee, at, what()));
        }
    }

    pub(crate) fn instance_off(&mut self, id: &str) {
        self.stopping.remove(id);
    }

    pub(crate) fn hold_set(&mut self, now: Timestamp) {
        self.holds.push(now);
    }

    pub(crate) fn console_start(&mut self, now: Timestamp) {
        self.foreign_start = Some(now);
    }

    pub(crate) fn console_stop(&mut self, now: Timestamp, id: &str) {
        self.stopping.entry(id.to_owned()).or_insert(now);
    }
}

/// Starts and stops.
impl World {
    /// Before a start is carried out.
    pub(crate) fn check_actor(&mut self, client: &crate::world::Client, order: &StartOrder) {
        let now = client.now();
        let name = client.name();
        let holds = self.ledger.holder(now) == Some(name.as_str());
        self.checks.check(holds, Guarantee::OneActor, now, || {
            format!("{name} starts {} without the lease", order.box_id)
        });
        let run =
            self.ledger.runs().find(|run| run.box_id == order.box_id && run.started_at == order.at);
        let noted = run.is_some_and(|run| !run.start.text.is_empty());
        self.checks.check(noted, Guarantee::Reasons, now, || {
            format!("{} starts and has no run in the ledger", order.box_id)
        });
    }

    /// Before a controller's stop is carried out.
    pub(crate) fn check_stopper(&mut self, client: &crate::world::Client, box_id: &BoxId) {
        let (now, name) = (client.now(), client.name());
        let holds = self.ledger.holder(now) == Some(name.as_str());
        self.checks.check(holds, Guarantee::OneActor, now, || {
            format!("{name} stops {box_id} without the lease")
        });
    }

    /// A controller writes without a fence.
    pub(crate) fn check_unfenced(&mut self, now: Timestamp, name: &'static str, item: Item) {
        let mine = self.ledger.newest_fence(name).unwrap_or(0);
        let what = format!("{name} overwrites {item:?}");
        let outdated = self.ledger.is_outdated(item, mine);
        self.checks.check(!outdated, Guarantee::Fenced, now, || what);
    }

    /// After a start that EC2 accepted.
    pub(crate) fn check_start(
        &mut self,
        now: Timestamp,
        order: &StartOrder,
        previous: InstanceState,
    ) {
        let id = order.box_id.to_string();
        let was_off = previous == InstanceState::Stopped;
        let same = self.checks.started.get(&id) == Some(&order.token);
        self.checks.check(was_off || same, Guarantee::OneStart, now, || {
            format!("{id} was {previous} and is started by a different order")
        });
        if !was_off {
            return;
        }
        self.checks.started.insert(id.clone(), order.token.clone());
        self.checks.stopping.remove(&id);
        self.checks.starts.push(order.at);
        let (boxes_max, most) =
            (self.pool().boxes_max.get() as usize, self.pool().starts_per_hour_max.get());
        let up: Vec<String> = self
            .boxes()
            .filter(|one| one.state.is_on() && self.checks.started.contains_key(&one.id))
            .filter(|one| self.ec2.spot_action(&one.id).is_none())
            .map(|one| one.id.clone())
            .collect();
        self.checks.check(up.len() <= boxes_max, Guarantee::BoxesMax, now, || {
            format!("{} are up, boxes_max is {boxes_max}", up.join(", "))
        });
        // As ordered: a start may reach EC2 late.
        let hour_ago = order.at - TimeDelta::hours(1);
        let within = |times: &[Timestamp]| times.iter().filter(|at| **at > hour_ago).count();
        let (starts, holds) = (within(&self.checks.starts), within(&self.checks.holds));
        self.checks.check(starts <= most as usize + holds, Guarantee::Flapping, now, || {
            format!("{starts} starts within an hour, starts_per_hour_max is {most}")
        });
        self.check_budget(now, order);
        self.check_boot_loop(now);
    }

    /// After a start: how many in a row have not got ready, since a user last asked for a box.
    fn check_boot_loop(&mut self, now: Timestamp) {
        let asked_at = self.checks.holds.last().copied().max(self.checks.foreign_start);
        let since = asked_at.map_or(now - BOOT_LOOP_WITHIN, |at| at.max(now - BOOT_LOOP_WITHIN));
        let mut runs: Vec<&Run> = self.ledger.runs().collect();
        runs.sort_by_key(|run| run.started_at);
        let failed = |run: &&&Run| run.ready_at.is_none() && run.interrupted_at.is_none();
        let began = |run: &&Run| run.refusal.is_none() && run.stopped_at != Some(run.started_at);
        let row = runs.into_iter().rev().filter(began).take_while(|run| run.started_at > since);
        let count = row.collect::<Vec<_>>().iter().take_while(failed).count();
        self.checks.check(count <= BOOT_LOOP_STARTS_MAX, Guarantee::BootLoops, now, || {
            format!("{count} starts in a row did not get ready")
        });
    }

    fn check_budget(&mut self, now: Timestamp, order: &StartOrder) {
        let run =
            self.ledger.runs().find(|run| run.box_id == order.box_id && run.started_at == order.at);
        let by_queue = run.is_some_and(|run| run.start.rule == Rule::Demand);
        let budget = self.pool().budget;
        let spent = |since| self.metered_since(since, order.at);
        let over = [(budget.day, day_of(order.at).begin), (budget.month, month_of(order.at).begin)]
            .into_iter()
            .find(|(most, since)| most.is_some_and(|most| spent(*since) > most));
        self.checks.check(!by_queue || over.is_none(), Guarantee::Budget, now, || {
            format!("the queue starts {} beyond its budget {budget:?}", order.box_id)
        });
    }

    /// Before a stop reaches EC2.
    pub(crate) fn check_stop(
        &mut self,
        client: &crate::world::Client,
        box_id: &BoxId,
        mode: StopMode,
    ) {
        let now = client.now();
        let id = box_id.as_str();
        let asked_at = *self.checks.stopping.entry(id.to_owned()).or_insert(now);
        let held = self.leases(now, id);
        let drain = self.scenario.policy.worker.drain;
        let early = mode == StopMode::Force && held > 0 && now - asked_at < drain;
        self.checks.check(!early, Guarantee::Grace, now, || {
            format!(
                "{} forces {id} off, which holds {held} leases, after {} s",
                client.name(),
                (now - asked_at).num_seconds()
            )
        });
    }

    /// After a reconcile or a worker acted.
    pub(crate) fn check_acted(&mut self, now: Timestamp, acted: &[Acted]) {
        for done in acted {
            let reason = done.action.reason();
            self.checks.check(!reason.text.is_empty(), Guarantee::Reasons, now, || {
                format!("{} was acted on without a reason", done.action.box_id())
            });
            let Action::Stop { box_id, .. } = &done.action else { continue };
            let heard =
                self.ledger.heard(box_id.as_str()).is_some_and(|at| now - at < HEARD_WITHIN);
            // Where calls fail only now and then, a controller may read less than a worker writes.
            let odd = [Fault::LedgerErrors, Fault::LedgerThrottled, Fault::SlowCalls];
            let odd = odd.iter().any(|fault| self.faults.was_on(*fault, now - HEARD_WITHIN));
            let for_silence = reason.text.contains("has not reported") && !odd;
            self.checks.check(!(heard && for_silence), Guarantee::Clocks, now, || {
                format!("{box_id} is stopped ({}), and its report has just arrived", reason.text)
            });
            let excused = for_silence && self.could_not_report(box_id, now);
            self.checks.check(!excused, Guarantee::Clocks, now, || {
                format!("{box_id} is stopped ({}), and it could not report before", reason.text)
            });
            let fresh = |read: Option<Timestamp>| read.is_some_and(|at| now - at <= STALE_AFTER);
            let boxes = fresh(self.checks.boxes_read_at);
            let counts = reason.rule != Rule::Idle || fresh(self.checks.counts_read_at);
            self.checks.check(boxes && counts, Guarantee::Stale, now, || {
                format!("{box_id} is stopped ({}), and the last reading is stale", reason.text)
            });
        }
    }

    /// Whether the ledger has only just come back, and the box's worker had reported until it went.
    fn could_not_report(&self, box_id: &BoxId, now: Timestamp) -> bool {
        let Some(heard_at) = self.ledger.heard(box_id.as_str()) else { return false };
        let windows = self.faults.windows(Fault::LedgerDown).iter();
        let mut just_over = windows.filter(|down| down.to <= now && now < down.to + REPORTS_AGAIN);
        just_over.any(|down| heard_at > down.from - HEARD_WITHIN)
    }
}

/// Boxes that stay on.
impl World {
    /// After a reconcile: the boxes that it saw and left up.
    pub(crate) fn check_reconcile(&mut self, now: Timestamp, reconciled: &Reconciled) {
        let policy = Arc::clone(&self.scenario.policy);
        let pool = &policy.pools[0];
        self.update_busy_at(now, pool);
        if !reconciled.errors.is_empty() || reconciled.acted.iter().any(|done| done.result.is_err())
        {
            return;
        }
        let Some(seen) = reconciled.observation.pools.get(&pool.id) else { return };
        let empty = seen.queue.as_ref().and_then(|queue| queue.value.as_ref());
        let empty = empty.is_some_and(gpuctl_core::observation::SeenQueue::is_empty);
        let shown = seen.boxes.value.iter().flatten().filter(|one| one.is_up());
        let shown: Vec<(String, BoxState)> =
            shown.map(|one| (one.id.to_string(), one.state)).collect();
        let up: Vec<(String, Timestamp)> = self
            .boxes()
            .filter(|one| one.state == InstanceState::Running)
            .filter(|one| self.ec2.spot_action(&one.id).is_none())
            .filter(|one| shown.iter().any(|(id, _)| *id == one.id))
            .map(|one| (one.id.clone(), one.launch_time))
            .collect();
        self.checks.reconciles_beyond.retain(|(id, _), _| up.iter().any(|(other, _)| other == id));
        for (id, since) in up {
            let idle = empty && now - self.checks.busy_at.max(since) > idle_limit(pool);
            let old = now - since > pool.lifetime_max + LIMIT_MARGIN;
            for (limit, beyond) in [(Guarantee::IdleLimit, idle), (Guarantee::Lifetime, old)] {
                if beyond {
                    self.count_beyond(now, &id, limit);
                } else {
                    self.checks.reconciles_beyond.remove(&(id.clone(), limit));
                }
            }
        }
    }

    /// When a box that was launched now has been up for longer than it may; `None` for one that is gone.
    pub(crate) fn lifetime_ends(&self, id: &str) -> Option<Timestamp> {
        let most = self.pool().lifetime_max + self.scenario.policy.worker.drain + LIFETIME_MARGIN;
        Some(self.ec2.instance(id)?.launch_time + most)
    }

    /// Counts a reconcile that left a box up beyond a limit.
    fn count_beyond(&mut self, now: Timestamp, id: &str, guarantee: Guarantee) {
        let key = (id.to_owned(), guarantee);
        let reconciles = self.checks.reconciles_beyond.entry(key).or_default();
        *reconciles += 1;
        let reconciles = *reconciles;
        self.checks.check(reconciles < CLEAN_RECONCILES_MAX, guarantee, now, || {
            format!("{id} stays on, and {reconciles} reconciles have seen it")
        });
    }

    /// Updates when there was last work, or a wish for a box.
    fn update_busy_at(&mut self, now: Timestamp, pool: &Pool) {
        let seen = self.queue.counts(now);
        let leased = seen.in_flight > 0;
        // While counts are wrong, an empty queue cannot be told from one with messages (Q4).
        let blind = [Fault::CountsNoise, Fault::CountsLag]
            .iter()
            .any(|fault| self.faults.strength(*fault, now) > 0);
        if !seen.is_empty() || leased || blind || self.is_wanted(now, pool) {
            self.checks.busy_at = now;
        }
    }

    /// Whether an operator or the schedule wants a box.
    fn is_wanted(&self, now: Timestamp, pool: &Pool) -> bool {
        let hold = self.ledger.hold(&pool.id);
        let held = hold.is_some_and(|hold| hold.until > now && hold.wants == HoldWants::Running);
        let foreign = self.checks.foreign_start.is_some_and(|at| now < at + pool.foreign_hold);
        held || foreign || pool.schedule.at(now).desired == Desired::Running
    }
}

impl Shared {
    /// A machine that can run no worker is still on after `WORKERLESS_MAX`.
    pub(crate) fn check_workerless(&self, id: &str) {
        self.check_off(id, Guarantee::Workerless, "has no worker");
    }

    /// A machine is on after `lifetime_ends`.
    pub(crate) fn check_lifetime(&self, id: &str) {
        self.check_off(id, Guarantee::Lifetime, "has outlived its lifetime");
    }

    fn check_off(&self, id: &str, guarantee: Guarantee, what: &str) {
        let (now, mut world) = self.time_and_world();
        let running = world.ec2.instance(id).is_some_and(|one| one.state == InstanceState::Running);
        world.checks.check(!running, guarantee, now, || format!("{id} {what} and is on"));
        drop(world);
        self.end_if_broken();
    }
}

/// Money.
impl World {
    /// What EC2 bills until `now`.
    pub(crate) fn metered(&self, now: Timestamp) -> MicroUsd {
        self.metered_since(self.scenario.begin, now)
    }

    fn metered_since(&self, since: Timestamp, now: Timestamp) -> MicroUsd {
        let cost = |one: &Metered| {
            let ran = one.to.unwrap_or(now).min(now) - one.from.max(since);
            let hour = usd_hour(&self.scenario.policy.cost, Some(&one.offering))?;
            let billed = if one.from >= since { billed_seconds(ran) } else { ran.num_seconds() };
            (ran >= TimeDelta::zero()).then(|| hour.per_hour_for(billed))
        };
        self.ec2.meter().iter().filter_map(cost).sum()
    }

    /// How much longer a run was up by the ledger than by EC2, where its end could not be observed: a cost that is too high is
    /// noticed, one that is too low is not. A start in the console that no one saw either may lie within it.
    fn unseen_end(&self, run: &Run) -> Option<TimeDelta> {
        run.error.as_ref().filter(|error| error.contains("was not observed"))?;
        let stopped_at = run.stopped_at?;
        let mine = |one: &&Metered| {
            one.id == run.box_id.as_str() && (run.started_at..stopped_at).contains(&one.asked_at)
        };
        let metered = self.ec2.meter().iter().filter(mine);
        let ran: TimeDelta = metered.filter_map(|one| Some(one.to? - one.from)).sum();
        Some((stopped_at - run.started_at - ran).max(TimeDelta::zero()))
    }

    fn check_spend(&mut self, now: Timestamp) {
        let begin = self.scenario.begin;
        let runs: Vec<_> = self.ledger.runs().cloned().collect();
        let noted = spent_since(&runs, &self.scenario.policy.cost, begin, now);
        let billed = self.metered(now);
        let hour = usd_hour(&self.scenario.policy.cost, None).unwrap_or_default();
        let each = |span: TimeDelta, count: usize| {
            hour.per_hour_for(span.num_seconds()).times(i64::try_from(count).unwrap_or(i64::MAX))
        };
        let unseen: TimeDelta = runs.iter().filter_map(|run| self.unseen_end(run)).sum();
        let (most, least) = (
            billed + each(BEYOND_A_RUN, runs.len()) + each(self.ec2.unbilled() + unseen, 1),
            MicroUsd(billed.0 - each(ROUNDED_A_RUN, self.ec2.meter().len()).0 - billed.0 / 100),
        );
        self.checks.check((least..=most).contains(&noted), Guarantee::Spend, now, || {
            format!("the ledger has {noted} in {} runs, EC2 bills {billed}", runs.len())
        });
    }
}

/// The end.
impl World {
    /// After the last event: no job waits, no box is up, no run is open.
    pub(crate) fn check_end(&mut self, now: Timestamp) {
        if self.checks.is_broken() {
            return;
        }
        for (id, kind) in self.jobs.clone() {
            let newest = self.generations.get(&id).copied().unwrap_or(0);
            for generation in 0..=newest {
                self.check_job_end(now, &id, kind, generation);
            }
        }
        if !self.is_wanted(now, self.pool()) {
            let on: Vec<String> =
                self.boxes().filter(|one| one.state.is_on()).map(|one| one.id.clone()).collect();
            let waits = !self.queue.counts(now).is_empty();
            self.checks.check(on.is_empty() || waits, Guarantee::Converges, now, || {
                format!("{} still on, and no box is wanted", on.join(", "))
            });
            let open = self.ledger.runs().find(|run| {
                let off = |one: &&Run| !on.iter().any(|id| *id == one.box_id.as_str());
                run.stopped_at.is_none() && off(run)
            });
            let open = open
                .map(|run| format!("the run of {} from {} is open", run.box_id, run.started_at));
            let text = open.clone().unwrap_or_default();
            self.checks.check(open.is_none(), Guarantee::Converges, now, || text);
        }
        self.check_spend(now);
    }

    fn check_job_end(&mut self, now: Timestamp, id: &str, kind: JobKind, generation: u32) {
        let done = self.checks.committed.contains_key(&(id.to_owned(), generation));
        let message = self.message_state(now, id, generation);
        let gone = matches!(message, MessageState::Dead(_) | MessageState::Expired);
        let name = || format!("job {id}, generation {generation} ({:?})", kind.outcome);
        let lost = !done && message == MessageState::Deleted;
        self.checks.check(!lost, Guarantee::ExactlyOnce, now, || {
            format!("{} has no result, and its message is deleted", name())
        });
        let settled = if kind.outcome == JobOutcome::Garbage { gone } else { done || gone };
        // A spent budget may leave jobs waiting for ever.
        let has_budget = self.pool().budget.is_set();
        self.checks.check(settled || has_budget, Guarantee::Converges, now, || {
            format!("{} of {} is still waiting", name(), kind.at)
        });
        if matches!(message, MessageState::Dead(_)) && !done {
            self.check_death(now, id, kind, generation);
        }
        self.check_files(now, id, generation);
    }
}

/// How long a box without work may stay on, with everything that may delay its stop.
fn idle_limit(pool: &Pool) -> TimeDelta {
    let idle = match pool.queue().map(|queue| queue.idle_stop) {
        Some(IdleStop::After(after)) => after,
        // The longest boot in the simulation.
        Some(IdleStop::Auto) | None => TimeDelta::minutes(6),
    };
    idle + pool.run_min + LIMIT_MARGIN
}
