//! Which stopped box to start first, and when a cheaper box should take over from an expensive one.
//!
//! Spot where possible, on-demand where not, and no job is late for the sake of spot. What EC2 refused lately is not tried again
//! until its refusal has expired; a zone that EC2 named as having capacity comes first; after too many interruptions spot is
//! not tried for a while.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput, cooldown, hold};
use crate::observation::{BoxState, Run, SeenBox};
use crate::offering::{CapacityType, Offering};
use crate::plan::{Effect, Reason, Rule};
use crate::refusals::{INTERRUPTIONS_MAX, refused, spot_pause, zone_hints};
use crate::units::{BoxId, Timestamp, show_duration};

/// An on-demand box hands over to spot only if the work that waits lasts at least this many boots: a handover costs one boot
/// during which both boxes are paid for.
const HANDOVER_BOOTS: i32 = 5;
/// The least time between two changes of the capacity type, in boots.
const SWITCH_BOOTS: i32 = 2;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    if input.boxes().iter().all(|one| one.offering.is_none()) {
        decision.abstain(Rule::Capacity, "boxes on this machine have no capacity type");
        return;
    }
    if hand_over(input, decision) {
        return;
    }
    let refusals = refusals(input);
    if let Some((_, until)) = refusals.first() {
        decision.change(*until, Rule::Capacity, "what was refused may be tried again");
        let texts: Vec<&str> = refusals.iter().map(|(text, _)| text.as_str()).collect();
        decision.abstain(Rule::Capacity, texts.join("; "));
    } else {
        decision.abstain(Rule::Capacity, "nothing was refused lately");
    }
}

/// The stopped boxes in the order in which to start them, without those that EC2 would refuse. Until `preferred_only_until`
/// only those of the preferred capacity type.
pub(super) fn startable<'a>(
    input: &PoolInput<'a>,
    preferred_only_until: Option<Timestamp>,
) -> Vec<&'a SeenBox> {
    let hints = zone_hints(&input.seen.runs, input.now);
    let (offerings, failed) = (offerings(input), failed_last(input));
    let stopped = input.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    let mut choice: Vec<_> = stopped
        .filter(|one| one.unstartable.is_none() && !hold::is_left_alone(input, one))
        .filter(|one| !failed.contains(&one.id) || cooldown::box_rests(input, &one.id).is_none())
        .filter_map(|one| {
            // A box whose last start failed comes after the others: it must not keep the pool down.
            let failed = failed.contains(&one.id);
            let Some(offering) = &one.offering else { return Some(((failed, 0, false), one)) };
            let rank = input.pool.capacity.iter().position(|kind| *kind == offering.capacity)?;
            let too_early = rank > 0 && preferred_only_until.is_some_and(|until| until > input.now);
            let free = offerings.iter().any(|(other, why)| *other == offering && why.is_none());
            let hinted = hints.contains(&offering.zone);
            (free && !too_early).then_some(((failed, rank, !hinted), one))
        })
        .collect();
    choice.sort_by_key(|(rank, _)| *rank);
    choice.into_iter().map(|(_, one)| one).collect()
}

/// The boxes whose latest start failed.
fn failed_last<'a>(input: &PoolInput<'a>) -> BTreeSet<&'a BoxId> {
    // The common case.
    if !input.accepted_runs().any(Run::failed) {
        return BTreeSet::new();
    }
    let mut latest: BTreeMap<&BoxId, bool> = BTreeMap::new();
    for run in input.accepted_runs() {
        latest.entry(&run.box_id).or_insert_with(|| run.failed());
    }
    latest.into_iter().filter_map(|(id, failed)| failed.then_some(id)).collect()
}

/// Why an offering is not tried now, and until when; `None` if it is.
type WhyNot = Option<(String, Timestamp)>;

/// Each offering of the pool's boxes once: there are many boxes and few offerings.
fn offerings<'a>(input: &PoolInput<'a>) -> Vec<(&'a Offering, WhyNot)> {
    let mut all: Vec<(&Offering, WhyNot)> = Vec::new();
    for offering in input.boxes().iter().filter_map(|one| one.offering.as_ref()) {
        if !all.iter().any(|(known, _)| *known == offering) {
            all.push((offering, why_not(input, offering)));
        }
    }
    all
}

/// Why there is nothing to start although a box is wanted.
pub(super) fn nothing_to_start(
    input: &PoolInput<'_>,
    preferred_only_until: Option<Timestamp>,
    room: usize,
) -> Reason {
    let boxes_max = input.pool.boxes_max;
    if input.boxes().is_empty() {
        return Reason::new(Rule::Limits, "this pool has no boxes");
    }
    if room == 0 || input.boxes().iter().all(|one| one.state != BoxState::Stopped) {
        // S4: a box that is still stopping is waited for, never started.
        let full = format!("every box is up or stopping, and boxes_max is {boxes_max}");
        let texts: Vec<String> = input.faults().into_iter().chain([full]).collect();
        return Reason::new(Rule::Limits, texts.join("; "));
    }
    let later = !startable(input, None).is_empty();
    if let Some(until) = preferred_only_until.filter(|until| later && *until > input.now) {
        let text = format!(
            "waits up to {} more for the first of `capacity`, as capacity_deadline allows",
            input.until(until)
        );
        return Reason::new(Rule::Capacity, text);
    }
    let unstartable = input
        .boxes()
        .iter()
        .filter_map(|one| Some(format!("{} {}", one.id, one.unstartable.as_ref()?)));
    let resting = input.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    let resting = resting.filter_map(|one| cooldown::box_rests(input, &one.id));
    let refusals: Vec<String> = refusals(input)
        .into_iter()
        .map(|(text, _)| text)
        .chain(unstartable)
        .chain(resting.map(|(text, _)| text))
        .collect();
    let cause = if refusals.is_empty() {
        "no stopped box may be started: each was stopped outside gpuctl or interrupted, or `capacity` does not list its purchase option"
            .to_owned()
    } else {
        refusals.join("; ")
    };
    Reason::new(Rule::Capacity, format!("no box can start now: {cause}"))
}

/// Whether refusals or interruptions so far mean that an offering is not tried now.
fn why_not(input: &PoolInput<'_>, offering: &Offering) -> WhyNot {
    // A hold that is newer than the refusal tries again at once: its author may have fixed the cause, e.g. raised a quota.
    let active = refused(&input.seen.runs, offering, input.now)
        .filter(|active| input.hold().is_none_or(|hold| hold.since <= active.at))
        .map(|active| (format!("{offering} {}", active.describe(input.now)), active.until));
    let paused = || {
        let until = spot_pause(&input.seen.runs, input.now)
            .filter(|_| offering.capacity == CapacityType::Spot)?;
        let text = format!(
            "spot was interrupted {INTERRUPTIONS_MAX} times within an hour and is not tried for {}",
            input.until(until)
        );
        Some((text, until))
    };
    active.or_else(paused)
}

/// Why offerings are not tried now and until when, the earliest end first.
fn refusals(input: &PoolInput<'_>) -> Vec<(String, Timestamp)> {
    let mut all: Vec<_> = offerings(input).into_iter().filter_map(|(_, why)| why).collect();
    all.sort_by_key(|(_, until)| *until);
    all.dedup();
    all
}

/// Whether a box of the preferred capacity type could be started now.
pub(super) fn can_start_preferred(input: &PoolInput<'_>) -> bool {
    startable(input, None).first().is_some_and(|one| is_preferred(input, one) == Some(true))
}

/// Hands work over from an expensive box to a cheaper one where `boxes_max` has room for both: the expensive one stops once the
/// other is ready and its own jobs can finish. With `boxes_max = 1` the change waits until the box is idle (`idle.rs`).
///
/// Returns whether it had something to say.
fn hand_over(input: &PoolInput<'_>, decision: &mut PoolDecision) -> bool {
    let mut running = input.staying().filter(|one| one.state == BoxState::Running);
    let Some(expensive) = running.find(|one| is_preferred(input, one) == Some(false)) else {
        return false;
    };
    let took_over = |one: &&SeenBox| {
        let run = input.accepted_runs().find(|run| run.box_id == one.id);
        is_preferred(input, one) == Some(true)
            && run.is_some_and(|run| run.start.rule == Rule::Capacity)
    };
    match input.able().find(took_over).map(|one| one.state) {
        Some(BoxState::Running) if can_finish(input, expensive) => {
            let reason =
                decision.record(Effect::Stop, Rule::Capacity, "a cheaper box has taken over");
            decision.may_stop.push((expensive.id.clone(), reason));
            true
        }
        Some(_) => {
            decision.record(Effect::Keep, Rule::Capacity, "a cheaper box is about to take over");
            true
        }
        None => begin_handover(input, decision, expensive),
    }
}

fn begin_handover(input: &PoolInput<'_>, decision: &mut PoolDecision, expensive: &SeenBox) -> bool {
    let (pays, settled) = (input.boot * HANDOVER_BOOTS, input.boot * SWITCH_BOOTS);
    let room = input.staying().count() < input.pool.boxes_max.get() as usize;
    if !room || input.now - expensive.since < settled || !can_start_preferred(input) {
        return false;
    }
    let text = match (work_left(input), idle_for(input, expensive)) {
        (Some(left), _) if left >= pays => format!("{} of work waits", show_duration(left)),
        // A schedule or a hold keeps it up: otherwise it would be stopped.
        (_, Some(idle)) if idle >= settled => "the box is kept up without work".to_owned(),
        _ => return false,
    };
    let text = format!("{text}, and a cheaper box can start: it takes over");
    decision.extra_box = Some(decision.record(Effect::AtLeast(1), Rule::Capacity, text));
    true
}

/// Whether the worker can finish the jobs it holds within its drain time.
fn can_finish(input: &PoolInput<'_>, one: &SeenBox) -> bool {
    let short = input.seen.service.is_some_and(|service| service <= input.drain);
    short || one.worker.as_ref().is_some_and(|worker| worker.leases == 0)
}

fn idle_for(input: &PoolInput<'_>, one: &SeenBox) -> Option<TimeDelta> {
    Some(input.now - one.worker.as_ref()?.idle_since?)
}

/// Whether a box is of the pool's preferred capacity type; `None` for boxes on this machine.
pub(super) fn is_preferred(input: &PoolInput<'_>, one: &SeenBox) -> Option<bool> {
    let (kind, first) = (one.offering.as_ref()?.capacity, input.pool.capacity.first());
    // Where on-demand is preferred, there is nothing more expensive to replace.
    Some(first == Some(&kind) || first == Some(&CapacityType::OnDemand))
}

/// How long one box needs for the jobs in the queue, if it is known how long a job takes.
fn work_left(input: &PoolInput<'_>) -> Option<TimeDelta> {
    let (queue, service) = (input.queue?, input.seen.service?);
    let jobs = i32::try_from(queue.visible + queue.in_flight).unwrap_or(i32::MAX);
    service.checked_mul(jobs)
}
