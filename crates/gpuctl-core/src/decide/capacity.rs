//! What can be bought: which stopped box to start first, and when a cheaper one should take over.
//!
//! Spot where possible, on-demand where not, and no job late for the sake of spot. What was refused lately is not asked
//! again before its time; a zone that the cloud named comes first; after too many interruptions spot rests for a while.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::{Case, Opinion, hold};
use crate::capacity::{CapacityType, INTERRUPTIONS_MAX, Offering, refused, spot_pause, zone_hints};
use crate::observation::{BoxState, Run, SeenBox};
use crate::plan::{Reason, Rule, Says};
use crate::units::{BoxId, Timestamp, show_span};

/// Work that must wait before a box on demand hands over to spot: so many boots (`policies.md` 5).
const HAND_BACK_BOOTS: i32 = 5;
/// The time between two changes of the capacity type: so many boots.
const SWITCH_BOOTS: i32 = 2;

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    if case.boxes().iter().all(|one| one.offering.is_none()) {
        opinion.pass(Rule::Capacity, "boxes on this machine are not bought");
        return;
    }
    if hand_back(case, opinion) {
        return;
    }
    let refusals = refusals(case);
    if let Some((_, until)) = refusals.first() {
        opinion.change(*until, Rule::Capacity, "what was refused may be asked for again");
        let texts: Vec<&str> = refusals.iter().map(|(text, _)| text.as_str()).collect();
        opinion.pass(Rule::Capacity, texts.join("; "));
    } else {
        opinion.pass(Rule::Capacity, "nothing was refused lately");
    }
}

/// The stopped boxes in the order in which to start them, without those that would be refused; `patience` is until when
/// only the preferred capacity type will do.
pub(super) fn startable<'a>(case: &Case<'a>, patience: Option<Timestamp>) -> Vec<&'a SeenBox> {
    let hints = zone_hints(&case.seen.runs, case.now);
    let (offerings, failed) = (offerings(case), failed_last(case));
    let stopped = case.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    let mut choice: Vec<_> = stopped
        .filter(|one| one.unstartable.is_none() && !hold::is_left_alone(case, one))
        .filter_map(|one| {
            // A box that failed to start the last time lets the others try first: it must not hold up the pool.
            let failed = failed.contains(&one.id);
            let Some(offering) = &one.offering else { return Some(((failed, 0, false), one)) };
            let rank = case.pool.capacity.iter().position(|kind| *kind == offering.capacity)?;
            let too_early = rank > 0 && patience.is_some_and(|until| until > case.now);
            let free = offerings.iter().any(|(other, why)| *other == offering && why.is_none());
            let hinted = hints.contains(&offering.zone);
            (free && !too_early).then_some(((failed, rank, !hinted), one))
        })
        .collect();
    choice.sort_by_key(|(rank, _)| *rank);
    choice.into_iter().map(|(_, one)| one).collect()
}

/// The boxes whose latest start failed.
fn failed_last<'a>(case: &Case<'a>) -> BTreeSet<&'a BoxId> {
    // Mostly none has.
    if !case.begun().any(Run::failed_to_start) {
        return BTreeSet::new();
    }
    let mut latest: BTreeMap<&BoxId, bool> = BTreeMap::new();
    for run in case.begun() {
        latest.entry(&run.box_id).or_insert_with(|| run.failed_to_start());
    }
    latest.into_iter().filter_map(|(id, failed)| failed.then_some(id)).collect()
}

/// Why something is not asked for now, and until when.
type WhyNot = Option<(String, Timestamp)>;

/// Each offering of the pool's boxes once, with what speaks against it: boxes are many, offerings few.
fn offerings<'a>(case: &Case<'a>) -> Vec<(&'a Offering, WhyNot)> {
    let mut all: Vec<(&Offering, WhyNot)> = Vec::new();
    for offering in case.boxes().iter().filter_map(|one| one.offering.as_ref()) {
        if !all.iter().any(|(known, _)| *known == offering) {
            all.push((offering, why_not(case, offering)));
        }
    }
    all
}

/// Why there is nothing to start although a box is wanted.
pub(super) fn nothing_to_start(
    case: &Case<'_>,
    patience: Option<Timestamp>,
    room: usize,
) -> Reason {
    let boxes_max = case.pool.boxes_max;
    if case.boxes().is_empty() {
        return Reason::new(Rule::Limits, "there is no box in this pool");
    }
    if room == 0 || case.boxes().iter().all(|one| one.state != BoxState::Stopped) {
        // S4: a box that is still stopping is waited for, never started.
        let text = format!(
            "boxes_max is {boxes_max} and no other box has stopped yet: it starts once one has"
        );
        return Reason::new(Rule::Limits, text);
    }
    let later = !startable(case, None).is_empty();
    if let Some(until) = patience.filter(|until| later && *until > case.now) {
        let text = format!(
            "waits for a cheaper box for {} more, as capacity_deadline allows",
            case.until(until)
        );
        return Reason::new(Rule::Capacity, text);
    }
    let unstartable = case
        .boxes()
        .iter()
        .filter_map(|one| Some(format!("{} {}", one.id, one.unstartable.as_ref()?)));
    let refusals: Vec<String> =
        refusals(case).into_iter().map(|(text, _)| text).chain(unstartable).collect();
    let cause = if refusals.is_empty() {
        "no stopped box is of a kind that `capacity` names, or they were stopped by hand or taken back by the cloud".to_owned()
    } else {
        refusals.join("; ")
    };
    Reason::new(Rule::Capacity, format!("nothing can be had now: {cause}"))
}

/// Why an offering is not asked for now, and until when.
fn why_not(case: &Case<'_>, offering: &Offering) -> WhyNot {
    // A person who asks after a refusal may have mended its cause, as by a higher quota.
    let believed = refused(&case.seen.runs, offering, case.now)
        .filter(|believed| case.hold().is_none_or(|hold| hold.since <= believed.at))
        .map(|believed| (format!("{offering} {}", believed.describe(case.now)), believed.until));
    let paused = || {
        let until = spot_pause(&case.seen.runs, case.now)
            .filter(|_| offering.capacity == CapacityType::Spot)?;
        let text = format!(
            "spot was taken back {INTERRUPTIONS_MAX} times within an hour and rests for {}",
            case.until(until)
        );
        Some((text, until))
    };
    believed.or_else(paused)
}

/// What is not asked for now, the one that ends first in front.
fn refusals(case: &Case<'_>) -> Vec<(String, Timestamp)> {
    let mut all: Vec<_> = offerings(case).into_iter().filter_map(|(_, why)| why).collect();
    all.sort_by_key(|(_, until)| *until);
    all.dedup();
    all
}

/// Whether a box of the preferred capacity type could be started now.
pub(super) fn preferred_is_back(case: &Case<'_>) -> bool {
    startable(case, None).first().is_some_and(|one| is_preferred(case, one) == Some(true))
}

/// Hands work over from a dear box to a cheaper one, where both have room at once: the dear one goes when the other is ready
/// and nothing is cut by it. With one box at most it happens by itself when that is idle.
fn hand_back(case: &Case<'_>, opinion: &mut Opinion) -> bool {
    let mut running = case.staying().filter(|one| one.state == BoxState::Running);
    let Some(dear) = running.find(|one| is_preferred(case, one) == Some(false)) else {
        return false;
    };
    let took_over = |one: &&SeenBox| {
        let run = case.begun().find(|run| run.box_id == one.id);
        is_preferred(case, one) == Some(true)
            && run.is_some_and(|run| run.start.rule == Rule::Capacity)
    };
    match case.staying().find(took_over).map(|one| one.state) {
        Some(BoxState::Running) if cuts_no_job(case, dear) => {
            let reason = opinion.says(Says::Stop, Rule::Capacity, "a cheaper box has taken over");
            opinion.released.push((dear.id.clone(), reason));
            true
        }
        Some(_) => {
            opinion.says(Says::Keep, Rule::Capacity, "a cheaper box is about to take over");
            true
        }
        None => begin_hand_back(case, opinion, dear),
    }
}

fn begin_hand_back(case: &Case<'_>, opinion: &mut Opinion, dear: &SeenBox) -> bool {
    let (pays, settled) = (case.boot * HAND_BACK_BOOTS, case.boot * SWITCH_BOOTS);
    let room = case.staying().count() < case.pool.boxes_max.get() as usize;
    if !room || case.now - dear.since < settled || !preferred_is_back(case) {
        return false;
    }
    let text = match (work_left(case), idle_for(case, dear)) {
        (Some(left), _) if left >= pays => format!("{} of work wait", show_span(left)),
        // Wanted without work, by a window or a hold: otherwise it would be stopped.
        (_, Some(idle)) if idle >= settled => "it is wanted and has no work".to_owned(),
        _ => return false,
    };
    let text = format!("{text}, and a cheaper box can be had: it takes over");
    opinion.extra = Some(opinion.says(Says::AtLeast(1), Rule::Capacity, text));
    true
}

/// Whether the worker can finish what it holds before its drain ends.
fn cuts_no_job(case: &Case<'_>, one: &SeenBox) -> bool {
    let short = case.seen.service.is_some_and(|service| service <= case.drain);
    short || one.worker.as_ref().is_some_and(|worker| worker.leases == 0)
}

fn idle_for(case: &Case<'_>, one: &SeenBox) -> Option<TimeDelta> {
    Some(case.now - one.worker.as_ref()?.idle_since?)
}

/// Whether a box is bought in the way that the pool likes best; boxes that are not bought are neither.
pub(super) fn is_preferred(case: &Case<'_>, one: &SeenBox) -> Option<bool> {
    let (kind, first) = (one.offering.as_ref()?.capacity, case.pool.capacity.first());
    // Whoever prefers on-demand has nothing dearer to leave.
    Some(first == Some(&kind) || first == Some(&CapacityType::OnDemand))
}

/// How long one box needs for what waits, if it is known how long a job takes.
fn work_left(case: &Case<'_>) -> Option<TimeDelta> {
    let (queue, service) = (case.queue?, case.seen.service?);
    let jobs = i32::try_from(queue.visible + queue.in_flight).unwrap_or(i32::MAX);
    service.checked_mul(jobs)
}
