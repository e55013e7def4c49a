//! A controller: the real `reconcile` at each tick and at EC2's events. Ticks may be late or missing, and it may crash between two
//! calls.
//!
//! A tick at which a reconcile would see nothing new is skipped, which `next_change` makes safe; consecutive ones are slept through
//! at once. That makes a week several times as fast.

use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::Reconciled;
use gpuctl_control::ports::PortError;
use gpuctl_control::{Trigger, reconcile};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use tokio::sync::Notify;

use super::ports::{Caller, Client};
use super::{Shared, World};
use crate::faults::Fault;

/// How long a change may take to show in a reconcile: listings and counts lag.
pub(super) const SHOWS_WITHIN: TimeDelta = TimeDelta::seconds(60);
/// How old a worker's report may be for a tick to be skipped.
const REPORT_FRESH: TimeDelta = TimeDelta::seconds(30);
/// While readings are unreliable, every n-th tick is taken even if nothing else happens.
const UNRELIABLE_TICKS: u64 = 5;
/// Faults that make readings wrong or missing.
const UNRELIABLE: [Fault; 14] = [
    Fault::CountsLag,
    Fault::CountsNoise,
    Fault::QueueErrors,
    Fault::LedgerErrors,
    Fault::ApiErrors,
    Fault::Throttling,
    Fault::LostReplies,
    Fault::SlowCalls,
    Fault::ControllerCrash,
    Fault::ControllerStall,
    Fault::QueueDown,
    Fault::LedgerDown,
    Fault::QueueThrottled,
    Fault::LedgerThrottled,
];
/// How long a crashed controller stays absent, in seconds.
const ABSENT_SECONDS: (i64, i64) = (5, 300);

/// What the last clean reconcile left: one without errors and actions.
#[derive(Clone, Copy, Default)]
struct LastClean {
    /// Clean reconciles since the last change.
    reconciles: u32,
    at: Option<Timestamp>,
    next_change: Option<Timestamp>,
}

/// What makes a controller reconcile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Tick,
    Ec2Event,
}

/// Runs a controller: `offset` is the time of its first tick, `wakeup` is notified of EC2's events.
pub(super) async fn control(
    shared: Arc<Shared>,
    name: &'static str,
    offset: TimeDelta,
    wakeup: Arc<Notify>,
) {
    let mut controller = Controller::new(shared, name, offset);
    loop {
        let Some(cause) = controller.next_cause(&wakeup).await else { continue };
        if !controller.skips(cause) {
            controller.reconcile().await;
        }
    }
}

struct Controller {
    shared: Arc<Shared>,
    client: Client,
    name: &'static str,
    policy: Arc<Policy>,
    last: LastClean,
    tick_at: Timestamp,
    ticks: u64,
}

impl Controller {
    fn new(shared: Arc<Shared>, name: &'static str, offset: TimeDelta) -> Self {
        let client = Client::new(&shared, Caller::Controller(name));
        let policy = Arc::clone(&shared.advance_to_now().scenario.policy);
        let tick_at = client.now() + offset;
        Self { shared, client, name, policy, last: LastClean::default(), tick_at, ticks: 0 }
    }

    /// Waits for the next tick or event; `None` where ticks were skipped or the tick does not come.
    async fn next_cause(&mut self, wakeup: &Notify) -> Option<Cause> {
        let (skip_until, absent, changed) = {
            let (now, world) = self.shared.time_and_world();
            let until = self.skip_until(&world, now).filter(|until| *until > self.tick_at);
            (until, is_absent(&world, now, self.name), Arc::clone(&world.changed))
        };
        let woken = tokio::select! {
            biased;
            () = wakeup.notified() => true,
            () = changed.notified(), if skip_until.is_some() && !absent => false,
            () = self.shared.sleep_until(skip_until.unwrap_or(self.tick_at)) => false,
        };
        if skip_until.is_some() {
            while self.tick_at < self.client.now() {
                self.count_tick();
            }
            if !woken {
                return None;
            }
        }
        if woken {
            return Some(Cause::Ec2Event);
        }
        self.count_tick();
        let delay = draw_tick_delay(&mut self.shared.advance_to_now(), self.client.now())?;
        super::sleep(delay).await;
        Some(Cause::Tick)
    }

    fn count_tick(&mut self) {
        self.tick_at += self.policy.cloud.tick;
        self.ticks += 1;
    }

    fn skips(&self, cause: Cause) -> bool {
        let (now, world) = self.shared.time_and_world();
        is_absent(&world, now, self.name)
            || (cause == Cause::Tick && may_skip(&world, now, self.last, self.ticks))
    }

    /// Reconciles; a controller that crashes is absent for a while.
    async fn reconcile(&mut self) {
        let began = self.client.now();
        let ports = self.client.ports();
        let done = tokio::select! {
            biased;
            () = self.client.crashed.notified() => None,
            done = reconcile(&ports, &self.policy, Trigger::Tick, self.name) => Some(done),
        };
        match done {
            None => {
                self.last = LastClean::default();
                let (least, most) = ABSENT_SECONDS;
                let absent = {
                    let world = &mut *self.shared.advance_to_now();
                    world.faults.chance(Fault::ControllerCrash).between(least, most)
                };
                super::sleep(TimeDelta::seconds(absent)).await;
            }
            Some(done) => self.last = self.check(began, done),
        }
        self.tick_at = self.tick_at.max(self.client.now());
    }

    /// Until when every tick is skipped as long as nothing changes; `None` where one may be taken, or has to be drawn.
    fn skip_until(&self, world: &World, now: Timestamp) -> Option<Timestamp> {
        let happens = |fault: &Fault| world.faults.strength(*fault, now) > 0;
        if [Fault::MissingTicks, Fault::LateTicks].iter().any(happens) {
            return None;
        }
        let edge = world.faults.next_edge(now).unwrap_or(world.scenario.end);
        if is_absent(world, now, self.name) {
            return Some(edge);
        }
        let reports_come = world.boxes().any(|one| one.state.is_on());
        if reports_come || is_unreliable(world, now) || !may_skip(world, now, self.last, 0) {
            return None;
        }
        let next_visible = world.queue.next_visible(self.last.at?);
        [Some(edge), self.last.next_change, next_visible].into_iter().flatten().min()
    }

    /// Checks the guarantees after a reconcile that began at `began`, and returns what it leaves for the next tick.
    fn check(&self, began: Timestamp, done: Result<Option<Reconciled>, PortError>) -> LastClean {
        let now = self.client.now();
        let Ok(Some(reconciled)) = done else { return LastClean::default() };
        {
            let world = &mut *self.shared.advance_to_now();
            world.check_acted(now, &reconciled.acted);
            world.check_reconcile(now, &reconciled);
            for error in reconciled.acted.iter().filter_map(|done| done.result.as_ref().err()) {
                world.log_event(now, format!("{}: {error}", self.client.name()));
            }
        }
        self.shared.end_if_broken();
        let clean = reconciled.errors.is_empty() && reconciled.acted.is_empty();
        let world = self.shared.advance_to_now();
        if !clean || is_report_overdue(&world, now) {
            return LastClean::default();
        }
        let changed = world.changed_at + SHOWS_WITHIN >= began;
        let pools = reconciled.plan.pools.iter();
        LastClean {
            reconciles: if changed { 1 } else { self.last.reconciles + 1 },
            at: Some(began),
            next_change: pools.filter_map(|pool| Some(pool.next_change.as_ref()?.at)).min(),
        }
    }
}

/// The name of the controller that runs only in some windows.
pub(super) const SECOND: &str = "second";
/// Faults in whose windows it runs.
pub(super) const SECOND_IN: [Fault; 2] = [Fault::TwoControllers, Fault::ControllerStall];

/// Whether what is read may be wrong or missing now.
pub(super) fn is_unreliable(world: &World, now: Timestamp) -> bool {
    UNRELIABLE.iter().any(|fault| world.faults.strength(*fault, now) > 0)
}

/// Whether a box is on whose worker has not reported lately. Its next report will be seen although it changes nothing.
pub(super) fn is_report_overdue(world: &World, now: Timestamp) -> bool {
    world.boxes().filter(|one| one.state.is_on()).any(|one| {
        let report = world.ledger.report_of(&one.id);
        report.is_none_or(|report| now - report.at > REPORT_FRESH)
    })
}

fn is_absent(world: &World, now: Timestamp, name: &str) -> bool {
    name == SECOND && SECOND_IN.iter().all(|fault| world.faults.strength(*fault, now) == 0)
}

/// Draws by how much a tick is late; `None` for one that does not come.
fn draw_tick_delay(world: &mut World, now: Timestamp) -> Option<TimeDelta> {
    if world.faults.inject(Fault::MissingTicks, now, 1_000) {
        return None;
    }
    let late = world.faults.inject(Fault::LateTicks, now, 500);
    let by = if late { world.faults.chance(Fault::LateTicks).between(1, 200) } else { 0 };
    Some(TimeDelta::seconds(by))
}

/// Whether a reconcile would see nothing that the last two have not seen.
fn may_skip(world: &World, now: Timestamp, last: LastClean, ticks: u64) -> bool {
    let Some(at) = last.at else { return false };
    let unreliable = is_unreliable(world, now);
    if unreliable && ticks.is_multiple_of(UNRELIABLE_TICKS) {
        return false;
    }
    let settled = unreliable || (last.reconciles >= 2 && world.changed_at + SHOWS_WITHIN < at);
    let due = last.next_change.is_some_and(|next| next <= now);
    let appears = world.queue.next_visible(at).is_some_and(|next| next <= now);
    settled && world.changed_at < at && !due && !appears && !is_report_overdue(world, now)
}
