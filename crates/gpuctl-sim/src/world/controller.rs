//! A controller: the real `reconcile`, each tick and at EC2's events, with triggers that may be late, doubled or missing, and that
//! may die between two calls.
//!
//! A tick at which nothing can be seen that was not seen before is left out: that is what `next_change` announces. A row of such
//! ticks is slept through as one.

use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::Reconciled;
use gpuctl_control::ports::PortError;
use gpuctl_control::{Trigger, reconcile};
use gpuctl_core::units::Timestamp;
use tokio::sync::Notify;

use super::ports::{Caller, Client};
use super::{Shared, World};
use crate::faults::Fault;

/// How long a change may be on its way until a look shows it: describing lags, and so do counts.
pub(super) const SHOWS_WITHIN: TimeDelta = TimeDelta::seconds(60);
/// How old a worker's report may be for a tick to be left out.
const REPORT_FRESH: TimeDelta = TimeDelta::seconds(30);
/// While something is wrong with what is read, only each so many-th tick is taken where nothing else happens.
const UNRELIABLE_TICKS: u64 = 5;
/// What is wrong with what is read, or with who reads.
const UNRELIABLE: [Fault; 9] = [
    Fault::CountsLag,
    Fault::CountsNoise,
    Fault::QueueErrors,
    Fault::LedgerErrors,
    Fault::ApiErrors,
    Fault::Throttling,
    Fault::LostReplies,
    Fault::SlowCalls,
    Fault::ControllerCrash,
];
/// How long a dead controller stays absent, in seconds.
const ABSENT_SECONDS: (i64, i64) = (5, 300);

/// What the last clean reconcile left.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Clean reconciles since the last change.
    passes: u32,
    at: Option<Timestamp>,
    next_change: Option<Timestamp>,
}

/// Reconciles each tick; `wakeup` tells of EC2's events.
pub(super) async fn control(
    shared: Arc<Shared>,
    name: &'static str,
    offset: TimeDelta,
    wakeup: Arc<Notify>,
) {
    let client = Client::new(&shared, Caller::Controller(name));
    let policy = Arc::clone(&shared.advance_to_now().scenario.policy);
    let (mut seen, mut ticks) = (Seen::default(), 0_u64);
    let mut tick_at = client.now() + offset;
    loop {
        let (quiet, absent, changed) = {
            let (now, world) = shared.time_and_world();
            let quiet = skip_until(&world, now, (name, seen)).filter(|until| *until > tick_at);
            (quiet, is_absent(&world, now, name), Arc::clone(&world.changed))
        };
        let woken = tokio::select! {
            biased;
            () = wakeup.notified() => true,
            () = changed.notified(), if quiet.is_some() && !absent => false,
            () = shared.sleep_until(quiet.unwrap_or(tick_at)) => false,
        };
        if quiet.is_some() {
            while tick_at < client.now() {
                tick_at += policy.cloud.tick;
                ticks += 1;
            }
            if !woken {
                continue;
            }
        }
        if !woken {
            tick_at += policy.cloud.tick;
            ticks += 1;
            let late = tick(&mut shared.advance_to_now(), client.now());
            let Some(late) = late else { continue };
            super::sleep(late).await;
        }
        if is_absent(&shared.advance_to_now(), client.now(), name) {
            continue;
        }
        if !woken && may_skip(&shared.advance_to_now(), client.now(), seen, ticks) {
            continue;
        }
        let began = client.now();
        let ports = client.ports();
        let done = tokio::select! {
            biased;
            () = client.crashed.notified() => None,
            done = reconcile(&ports, &policy, Trigger::Tick, name) => Some(done),
        };
        match done {
            None => {
                seen = Seen::default();
                let absent = {
                    let world = &mut *shared.advance_to_now();
                    world
                        .faults
                        .chance(Fault::ControllerCrash)
                        .between(ABSENT_SECONDS.0, ABSENT_SECONDS.1)
                };
                super::sleep(TimeDelta::seconds(absent)).await;
            }
            Some(done) => seen = after_reconcile(&shared, &client, (began, seen), done),
        }
        tick_at = tick_at.max(client.now());
    }
}

/// The name of the controller that is there only in the windows of `TwoControllers`.
pub(super) const SECOND: &str = "second";

/// Whether something is wrong with what is read, or with who reads.
pub(super) fn is_unreliable(world: &World, now: Timestamp) -> bool {
    UNRELIABLE.iter().any(|fault| world.faults.strength(*fault, now) > 0)
}

/// Whether a box is on whose worker was not heard lately: its next report is no change, and is seen all the same.
pub(super) fn is_report_overdue(world: &World, now: Timestamp) -> bool {
    world.boxes().filter(|one| one.state.is_on()).any(|one| {
        let report = world.ledger.report_of(&one.id);
        report.is_none_or(|report| now - report.at > REPORT_FRESH)
    })
}

fn is_absent(world: &World, now: Timestamp, name: &str) -> bool {
    name == SECOND && world.faults.strength(Fault::TwoControllers, now) == 0
}

/// What becomes of a tick: nothing, or a reconcile after so long.
fn tick(world: &mut World, now: Timestamp) -> Option<TimeDelta> {
    if world.faults.inject(Fault::MissingTicks, now, 1_000) {
        return None;
    }
    let late = world.faults.inject(Fault::LateTicks, now, 500);
    let by = if late { world.faults.chance(Fault::LateTicks).between(1, 200) } else { 0 };
    Some(TimeDelta::seconds(by))
}

/// Whether a reconcile would see nothing that the last two have not seen.
fn may_skip(world: &World, now: Timestamp, seen: Seen, ticks: u64) -> bool {
    let Some(at) = seen.at else { return false };
    let is_unreliable = is_unreliable(world, now);
    if is_unreliable && ticks.is_multiple_of(UNRELIABLE_TICKS) {
        return false;
    }
    let settled = is_unreliable || (seen.passes >= 2 && world.changed_at + SHOWS_WITHIN < at);
    let due = seen.next_change.is_some_and(|next| next <= now);
    let appears = world.queue.next_visible(at).is_some_and(|next| next <= now);
    settled && world.changed_at < at && !due && !appears && !is_report_overdue(world, now)
}

/// Until when each tick is left out as long as nobody touches the world; `None` where one may be taken, or is drawn for.
fn skip_until(
    world: &World,
    now: Timestamp,
    (name, seen): (&'static str, Seen),
) -> Option<Timestamp> {
    let blows = |fault: &Fault| world.faults.strength(*fault, now) > 0;
    if [Fault::MissingTicks, Fault::LateTicks].iter().any(blows) {
        return None;
    }
    let edge = world.faults.next_edge(now).unwrap_or(world.scenario.end);
    if is_absent(world, now, name) {
        return Some(edge);
    }
    let reports_come = world.boxes().any(|one| one.state.is_on());
    if reports_come || is_unreliable(world, now) || !may_skip(world, now, seen, 0) {
        return None;
    }
    let next = [Some(edge), seen.next_change, world.queue.next_visible(seen.at?)];
    next.into_iter().flatten().min()
}

fn after_reconcile(
    shared: &Arc<Shared>,
    client: &Client,
    (began, last): (Timestamp, Seen),
    done: Result<Option<Reconciled>, PortError>,
) -> Seen {
    let now = client.now();
    let Ok(Some(reconciled)) = done else { return Seen::default() };
    {
        let world = &mut *shared.advance_to_now();
        world.check_acted(now, &reconciled.acted);
        world.check_reconcile(now, &reconciled);
        for error in reconciled.acted.iter().filter_map(|done| done.result.as_ref().err()) {
            let text = format!("{}: {error}", client.name());
            world.log_event(now, text);
        }
    }
    shared.end_if_broken();
    let clean = reconciled.errors.is_empty() && reconciled.acted.is_empty();
    if !clean {
        return Seen::default();
    }
    if is_report_overdue(&shared.advance_to_now(), now) {
        return Seen::default();
    }
    let changed = shared.advance_to_now().changed_at + SHOWS_WITHIN >= began;
    let next_change =
        reconciled.plan.pools.iter().filter_map(|pool| Some(pool.next_change.as_ref()?.at));
    Seen {
        passes: if changed { 1 } else { last.passes + 1 },
        at: Some(began),
        next_change: next_change.min(),
    }
}
