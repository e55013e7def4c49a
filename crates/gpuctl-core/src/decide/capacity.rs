//! What can be bought: which stopped box to start first, and when a cheaper one should take over.
//!
//! Spot where possible, on-demand where not, and no job late for the sake of spot. What was refused lately is not asked
//! again before its time; a zone that the cloud named comes first; after too many interruptions spot rests for a while.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput, hold};
use crate::observation::{BoxState, Run, SeenBox};
use crate::offering::{CapacityType, Offering};
use crate::plan::{Effect, Reason, Rule};
use crate::refusals::{INTERRUPTIONS_MAX, refused, spot_pause, zone_hints};
use crate::units::{BoxId, Timestamp, show_span};

/// Work that must wait before a box on demand hands over to spot: so many boots (`policies.md` 5).
const HAND_BACK_BOOTS: i32 = 5;
/// The time between two changes of the capacity type: so many boots.
const SWITCH_BOOTS: i32 = 2;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    if input.boxes().iter().all(|one| one.offering.is_none()) {
        decision.abstain(Rule::Capacity, "boxes on this machine are not bought");
        return;
    }
    if hand_back(input, decision) {
        return;
    }
    let refusals = refusals(input);
    if let Some((_, until)) = refusals.first() {
        decision.change(*until, Rule::Capacity, "what was refused may be asked for again");
        let texts: Vec<&str> = refusals.iter().map(|(text, _)| text.as_str()).collect();
        decision.abstain(Rule::Capacity, texts.join("; "));
    } else {
        decision.abstain(Rule::Capacity, "nothing was refused lately");
    }
}

/// The stopped boxes in the order in which to start them, without those that would be refused; `patience` is until when
/// only the preferred capacity type will do.
pub(super) fn startable<'a>(
    input: &PoolInput<'a>,
    patience: Option<Timestamp>,
) -> Vec<&'a SeenBox> {
    let hints = zone_hints(&input.seen.runs, input.now);
    let (offerings, failed) = (offerings(input), failed_last(input));
    let stopped = input.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    let mut choice: Vec<_> = stopped
        .filter(|one| one.unstartable.is_none() && !hold::is_left_alone(input, one))
        .filter_map(|one| {
            // A box that failed to start the last time lets the others try first: it must not hold up the pool.
            let failed = failed.contains(&one.id);
            let Some(offering) = &one.offering else { return Some(((failed, 0, false), one)) };
            let rank = input.pool.capacity.iter().position(|kind| *kind == offering.capacity)?;
            let too_early = rank > 0 && patience.is_some_and(|until| until > input.now);
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
    // Mostly none has.
    if !input.accepted_runs().any(Run::failed_to_start) {
        return BTreeSet::new();
    }
    let mut latest: BTreeMap<&BoxId, bool> = BTreeMap::new();
    for run in input.accepted_runs() {
        latest.entry(&run.box_id).or_insert_with(|| run.failed_to_start());
    }
    latest.into_iter().filter_map(|(id, failed)| failed.then_some(id)).collect()
}

/// Why something is not asked for now, and until when.
type WhyNot = Option<(String, Timestamp)>;

/// Each offering of the pool's boxes once, with what speaks against it: boxes are many, offerings few.
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
    patience: Option<Timestamp>,
    room: usize,
) -> Reason {
    let boxes_max = input.pool.boxes_max;
    if input.boxes().is_empty() {
        return Reason::new(Rule::Limits, "there is no box in this pool");
    }
    if room == 0 || input.boxes().iter().all(|one| one.state != BoxState::Stopped) {
        // S4: a box that is still stopping is waited for, never started.
        let text = format!(
            "boxes_max is {boxes_max} and no other box has stopped yet: it starts once one has"
        );
        return Reason::new(Rule::Limits, text);
    }
    let later = !startable(input, None).is_empty();
    if let Some(until) = patience.filter(|until| later && *until > input.now) {
        let text = format!(
            "waits for a cheaper box for {} more, as capacity_deadline allows",
            input.until(until)
        );
        return Reason::new(Rule::Capacity, text);
    }
    let unstartable = input
        .boxes()
        .iter()
        .filter_map(|one| Some(format!("{} {}", one.id, one.unstartable.as_ref()?)));
    let refusals: Vec<String> =
        refusals(input).into_iter().map(|(text, _)| text).chain(unstartable).collect();
    let cause = if refusals.is_empty() {
        "no stopped box is of a kind that `capacity` names, or they were stopped by hand or taken back by the cloud".to_owned()
    } else {
        refusals.join("; ")
    };
    Reason::new(Rule::Capacity, format!("nothing can be had now: {cause}"))
}

/// Why an offering is not asked for now, and until when.
fn why_not(input: &PoolInput<'_>, offering: &Offering) -> WhyNot {
    // A person who asks after a refusal may have mended its cause, as by a higher quota.
    let believed = refused(&input.seen.runs, offering, input.now)
        .filter(|believed| input.hold().is_none_or(|hold| hold.since <= believed.at))
        .map(|believed| (format!("{offering} {}", believed.describe(input.now)), believed.until));
    let paused = || {
        let until = spot_pause(&input.seen.runs, input.now)
            .filter(|_| offering.capacity == CapacityType::Spot)?;
        let text = format!(
            "spot was taken back {INTERRUPTIONS_MAX} times within an hour and rests for {}",
            input.until(until)
        );
        Some((text, until))
    };
    believed.or_else(paused)
}

/// What is not asked for now, the one that ends first in front.
fn refusals(input: &PoolInput<'_>) -> Vec<(String, Timestamp)> {
    let mut all: Vec<_> = offerings(input).into_iter().filter_map(|(_, why)| why).collect();
    all.sort_by_key(|(_, until)| *until);
    all.dedup();
    all
}

/// Whether a box of the preferred capacity type could be started now.
pub(super) fn preferred_is_back(input: &PoolInput<'_>) -> bool {
    startable(input, None).first().is_some_and(|one| is_preferred(input, one) == Some(true))
}

/// Hands work over from a dear box to a cheaper one, where both have room at once: the dear one goes when the other is ready
/// and nothing is cut by it. With one box at most it happens by itself when that is idle.
fn hand_back(input: &PoolInput<'_>, decision: &mut PoolDecision) -> bool {
    let mut running = input.staying().filter(|one| one.state == BoxState::Running);
    let Some(dear) = running.find(|one| is_preferred(input, one) == Some(false)) else {
        return false;
    };
    let took_over = |one: &&SeenBox| {
        let run = input.accepted_runs().find(|run| run.box_id == one.id);
        is_preferred(input, one) == Some(true)
            && run.is_some_and(|run| run.start.rule == Rule::Capacity)
    };
    match input.staying().find(took_over).map(|one| one.state) {
        Some(BoxState::Running) if cuts_no_job(input, dear) => {
            let reason =
                decision.record(Effect::Stop, Rule::Capacity, "a cheaper box has taken over");
            decision.released.push((dear.id.clone(), reason));
            true
        }
        Some(_) => {
            decision.record(Effect::Keep, Rule::Capacity, "a cheaper box is about to take over");
            true
        }
        None => begin_hand_back(input, decision, dear),
    }
}

fn begin_hand_back(input: &PoolInput<'_>, decision: &mut PoolDecision, dear: &SeenBox) -> bool {
    let (pays, settled) = (input.boot * HAND_BACK_BOOTS, input.boot * SWITCH_BOOTS);
    let room = input.staying().count() < input.pool.boxes_max.get() as usize;
    if !room || input.now - dear.since < settled || !preferred_is_back(input) {
        return false;
    }
    let text = match (work_left(input), idle_for(input, dear)) {
        (Some(left), _) if left >= pays => format!("{} of work wait", show_span(left)),
        // Wanted without work, by a window or a hold: otherwise it would be stopped.
        (_, Some(idle)) if idle >= settled => "it is wanted and has no work".to_owned(),
        _ => return false,
    };
    let text = format!("{text}, and a cheaper box can be had: it takes over");
    decision.extra = Some(decision.record(Effect::AtLeast(1), Rule::Capacity, text));
    true
}

/// Whether the worker can finish what it holds before its drain ends.
fn cuts_no_job(input: &PoolInput<'_>, one: &SeenBox) -> bool {
    let short = input.seen.service.is_some_and(|service| service <= input.drain);
    short || one.worker.as_ref().is_some_and(|worker| worker.leases == 0)
}

fn idle_for(input: &PoolInput<'_>, one: &SeenBox) -> Option<TimeDelta> {
    Some(input.now - one.worker.as_ref()?.idle_since?)
}

/// Whether a box is bought in the way that the pool likes best; boxes that are not bought are neither.
pub(super) fn is_preferred(input: &PoolInput<'_>, one: &SeenBox) -> Option<bool> {
    let (kind, first) = (one.offering.as_ref()?.capacity, input.pool.capacity.first());
    // Whoever prefers on-demand has nothing dearer to leave.
    Some(first == Some(&kind) || first == Some(&CapacityType::OnDemand))
}

/// How long one box needs for what waits, if it is known how long a job takes.
fn work_left(input: &PoolInput<'_>) -> Option<TimeDelta> {
    let (queue, service) = (input.queue?, input.seen.service?);
    let jobs = i32::try_from(queue.visible + queue.in_flight).unwrap_or(i32::MAX);
    service.checked_mul(jobs)
}
