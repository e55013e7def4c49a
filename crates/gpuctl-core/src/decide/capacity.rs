//! What can be bought: which stopped box to start first, and when a cheaper one should take over.
//!
//! Spot where possible, on-demand where not, and no job late for the sake of spot. What was refused lately is not asked
//! again before its time; a zone that the cloud named comes first; after too many interruptions spot rests for a while.

use chrono::TimeDelta;

use super::{Case, Opinion};
use crate::capacity::{CapacityType, INTERRUPTIONS_MAX, Offering, refused, spot_pause, zone_hints};
use crate::observation::{BoxState, SeenBox};
use crate::plan::{Manner, Reason, Rule, Says};
use crate::units::{Timestamp, show_span};

/// Work that must wait before a box on demand hands over to spot: so many boots (`policies.md` 5).
const HAND_BACK_BOOTS: i32 = 5;
/// The time between two changes of the capacity type: so many boots.
const SWITCH_BOOTS: i32 = 2;

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    if case.boxes().iter().all(|one| one.offering.is_none()) {
        opinion.pass(Rule::Capacity, "boxes on this machine are not bought");
        return;
    }
    let refusals = refusals(case);
    if hand_back(case, opinion) {
        return;
    }
    match refusals.first() {
        None => opinion.pass(Rule::Capacity, "nothing was refused lately"),
        Some((_, until)) => {
            opinion.change(*until, Rule::Capacity, "what was refused may be asked for again");
            let texts: Vec<&str> = refusals.iter().map(|(text, _)| text.as_str()).collect();
            opinion.says(Says::Keep, Rule::Capacity, texts.join("; "));
        }
    }
}

/// The stopped boxes in the order in which to start them, without those that would be refused; `patience` is until when
/// only the preferred capacity type will do.
pub(super) fn startable<'a>(case: &Case<'a>, patience: Option<Timestamp>) -> Vec<&'a SeenBox> {
    let hints = zone_hints(&case.seen.runs, case.now);
    let stopped = case.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    let mut choice: Vec<_> = stopped
        .filter_map(|one| {
            let Some(offering) = &one.offering else { return Some(((0, false), one)) };
            let rank = case.pool.capacity.iter().position(|kind| *kind == offering.capacity)?;
            let too_early = rank > 0 && patience.is_some_and(|until| until > case.now);
            let hinted = hints.contains(&offering.zone);
            (!too_early && why_not(case, offering).is_none()).then_some(((rank, !hinted), one))
        })
        .collect();
    choice.sort_by_key(|(rank, _)| *rank);
    choice.into_iter().map(|(_, one)| one).collect()
}

/// Why there is nothing to start although a box is wanted.
pub(super) fn nothing_to_start(case: &Case<'_>, patience: Option<Timestamp>) -> Reason {
    let refusals: Vec<String> = refusals(case).into_iter().map(|(text, _)| text).collect();
    let stopped = case.boxes().iter().filter(|one| one.state == BoxState::Stopped).count();
    let boxes_max = case.pool.boxes_max;
    if case.boxes().is_empty() {
        Reason::new(Rule::Limits, "there is no box in this pool")
    } else if let Some(until) =
        patience.filter(|until| *until > case.now && !startable(case, None).is_empty())
    {
        let text = format!(
            "waits for a cheaper box for {} more, as capacity_deadline allows",
            case.until(until)
        );
        Reason::new(Rule::Capacity, text)
    } else if stopped > 0 && startable(case, None).is_empty() {
        let cause = if refusals.is_empty() {
            "no box is of a kind that `capacity` names".to_owned()
        } else {
            refusals.join("; ")
        };
        Reason::new(Rule::Capacity, format!("nothing can be had now: {cause}"))
    } else {
        // S4: a box that is still stopping is waited for, never started.
        let text = format!(
            "boxes_max is {boxes_max} and no other box has stopped yet: it starts once one has"
        );
        Reason::new(Rule::Limits, text)
    }
}

/// Why an offering is not asked for now, and until when.
fn why_not(case: &Case<'_>, offering: &Offering) -> Option<(String, Timestamp)> {
    let believed = refused(&case.seen.runs, offering, case.now)
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
    let mut all: Vec<_> =
        case.boxes().iter().filter_map(|one| why_not(case, one.offering.as_ref()?)).collect();
    all.sort_by_key(|(_, until)| *until);
    all.dedup();
    all
}

/// Whether a box of the preferred capacity type could be started now.
pub(super) fn preferred_is_back(case: &Case<'_>) -> bool {
    startable(case, None).first().is_some_and(|one| is_preferred(case, one) == Some(true))
}

/// Hands a long backlog over from on-demand to spot: worth it when the work left pays for the boot many times over.
fn hand_back(case: &Case<'_>, opinion: &mut Opinion) -> bool {
    let mut running = case.up().filter(|one| one.state == BoxState::Running);
    let Some(dear) = running.find(|one| is_preferred(case, one) == Some(false)) else {
        return false;
    };
    let cheap =
        case.up().find(|one| is_preferred(case, one) == Some(true) && one.interruption.is_none());
    match cheap.map(|one| one.state) {
        Some(BoxState::Running) => {
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
    let Some(left) = work_left(case).filter(|left| *left >= pays) else { return false };
    if case.now - dear.since < settled || !preferred_is_back(case) || !leaves_room(case) {
        return false;
    }
    let text =
        format!("{} of work wait, and a cheaper box can be had: it takes over", show_span(left));
    let reason = opinion.says(Says::Stop, Rule::Capacity, text);
    if case.up().count() < case.pool.boxes_max.get() as usize {
        opinion.extra = Some(reason);
    } else {
        opinion.condemned.push((dear.id.clone(), Manner::Drain, reason));
    }
    true
}

/// Whether a box is bought in the way that the pool likes best; boxes that are not bought are neither.
pub(super) fn is_preferred(case: &Case<'_>, one: &SeenBox) -> Option<bool> {
    Some(case.pool.capacity.first() == Some(&one.offering.as_ref()?.capacity))
}

/// Whether the jobs can wait for another boot without missing `max_wait`.
fn leaves_room(case: &Case<'_>) -> bool {
    let oldest = case.queue.and_then(|queue| queue.oldest_sent_at).unwrap_or(case.now);
    case.pool
        .queue()
        .is_some_and(|queue| oldest + queue.max_wait >= case.now + case.boot + case.tick)
}

/// How long one box needs for what waits, if it is known how long a job takes.
fn work_left(case: &Case<'_>) -> Option<TimeDelta> {
    let (queue, service) = (case.queue?, case.seen.service?);
    let jobs = i32::try_from(queue.visible + queue.in_flight).unwrap_or(i32::MAX);
    service.checked_mul(jobs)
}
