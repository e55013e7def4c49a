//! One sentence on a pool: its state, since when and why, what an hour of it costs, and what comes next.

use crate::cost::{CostSettings, usd_hour};
use crate::observation::{BoxState, SeenBox, SeenPool};
use crate::plan::{Effect, PoolPlan, Rule, Verdict};
use crate::units::{MicroUsd, Timestamp, show_duration};

/// The sentence, e.g. `running for 12m: 3 jobs wait; $0.5260 an hour; in 48m: …`. It begins with the state of the busiest box.
#[must_use]
pub fn sentence(seen: &SeenPool, plan: &PoolPlan, cost: &CostSettings, now: Timestamp) -> String {
    let Some(boxes) = &seen.boxes.value else {
        return "unknown: its boxes could not be read".to_owned();
    };
    let busiest = busiest(boxes);
    let why = why(seen, plan, busiest).map(|why| format!(": {why}")).unwrap_or_default();
    let mut parts = vec![state(boxes, busiest, now) + &why];
    if let Some(hour) = hour(boxes, cost) {
        parts.push(format!("{hour} an hour"));
    }
    if let Some(next) = &plan.next_change {
        parts.push(format!("in {}: {}", show_duration(next.at - now), next.reason.text));
    }
    parts.join("; ")
}

/// The state of the busiest of some boxes: of those that cost, else of those that end.
#[must_use]
pub fn busiest(boxes: &[SeenBox]) -> BoxState {
    [BoxState::Running, BoxState::Pending, BoxState::Stopping]
        .into_iter()
        .find(|state| boxes.iter().any(|one| one.state == *state))
        .unwrap_or(BoxState::Stopped)
}

/// The state, of how many boxes, and for how long if that is known.
fn state(boxes: &[SeenBox], state: BoxState, now: Timestamp) -> String {
    let alike = || boxes.iter().filter(|one| one.state == state);
    let many = match alike().count() {
        0 | 1 => String::new(),
        boxes => format!(" ({boxes} boxes)"),
    };
    let known = |one: &SeenBox| one.since > Timestamp::UNIX_EPOCH && !one.since_is_bound;
    let since = alike().filter(|one| known(one)).map(|one| one.since).min();
    let span = since.map(|since| format!(" for {}", show_duration(now - since)));
    format!("{}{many}{}", state.as_str(), span.unwrap_or_default())
}

/// Why: of a pool that is up what keeps it up, of one that stops what stopped it, of one that is down what forbids the start that is wanted, or why
/// none is.
fn why(seen: &SeenPool, plan: &PoolPlan, busiest: BoxState) -> Option<String> {
    let text = |is: fn(&Verdict) -> bool| {
        let verdict = plan.verdicts.iter().find(|verdict| is(verdict));
        verdict.map(|verdict| verdict.reason.text.clone())
    };
    let wanted = || text(|verdict| matches!(verdict.effect, Effect::AtLeast(boxes) if boxes > 0));
    let stopped = || text(|verdict| verdict.effect == Effect::Stop);
    let kept = || text(|verdict| verdict.effect == Effect::Keep);
    let nothing = || match seen.queue {
        Some(_) => text(|verdict| verdict.reason.rule == Rule::Demand),
        None => text(|verdict| verdict.reason.rule == Rule::Schedule),
    };
    let ended = || seen.runs.first()?.stop.as_ref().map(|reason| reason.text.clone());
    match (busiest, plan.blocked.first()) {
        (BoxState::Running | BoxState::Pending, _) => {
            wanted().or_else(stopped).or_else(kept).or_else(nothing)
        }
        (BoxState::Stopping, _) => ended().or_else(stopped).or_else(nothing),
        (BoxState::Stopped, None) => stopped().or_else(wanted).or_else(nothing),
        (BoxState::Stopped, Some(blocked)) => {
            let although = wanted().map(|wanted| format!(" although {wanted}"));
            Some(format!("{}{}", blocked.text, although.unwrap_or_default()))
        }
    }
}

/// What an hour of the boxes that are up costs, if they are EC2's.
fn hour(boxes: &[SeenBox], cost: &CostSettings) -> Option<MicroUsd> {
    let up = boxes.iter().filter(|one| one.is_up());
    let hours = up.filter_map(|one| usd_hour(cost, Some(one.offering.as_ref()?)));
    hours.reduce(|all, one| all + one)
}
