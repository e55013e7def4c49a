//! The schedule: while it wants the pool running, at least one box is up. While it wants it stopped, a pool without a queue
//! stops, and a pool with a queue follows its queue. While it wants neither, boxes stay as they are (R14).

use super::{PoolDecision, PoolInput};
use crate::plan::{Effect, Reason, Rule};
use crate::policy::Work;
use crate::schedule::Desired;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    keep_quiet(input, decision);
    let schedule = &input.pool.schedule;
    let has_queue = input.pool.queue().is_some();
    if schedule.is_empty() && has_queue {
        decision.abstain(Rule::Schedule, "no schedule");
        return;
    }
    let state = schedule.at(input.now);
    match state.desired {
        Desired::Running => decision.at_least(1, Rule::Schedule, state.reason),
        _ if has_queue => {
            decision.abstain(Rule::Schedule, format!("{}: the queue decides", state.reason));
        }
        Desired::Any if !schedule.is_empty() => {
            decision.record(Effect::Keep, Rule::Schedule, state.reason);
        }
        Desired::Stopped | Desired::Any => {
            let text = if schedule.is_empty() {
                "no schedule: it runs only while a hold is in force".to_owned()
            } else {
                state.reason
            };
            let reason = decision.record(Effect::Stop, Rule::Schedule, text);
            decision.may_stop.extend(input.up().map(|one| (one.id.clone(), reason.clone())));
        }
    }
    announce_change(input, decision);
    if input.pool.work == Work::BoxOnly && input.boxes.is_some_and(<[_]>::is_empty) {
        decision.no_starts = Some(Reason::new(Rule::Schedule, why_no_boxes(input)));
    }
}

/// Quiet hours: the queue starts no box; boxes that are up go on, and a hold or the schedule starts theirs.
fn keep_quiet(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let quiet = &input.pool.quiet;
    let state = quiet.at(input.now);
    if state.desired != Desired::Running {
        return;
    }
    let end = quiet.next_change(input.now);
    let until = end.map_or(String::new(), |end| {
        decision.change(end.at, Rule::Schedule, "quiet hours end: the queue may start boxes");
        format!(", for {} more", input.until(end.at))
    });
    let text = format!("quiet hours, {}{until}: the queue starts no box", state.reason);
    decision.forbid_starts(Rule::Schedule, &[Rule::Demand], text);
}

fn announce_change(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(next) = input.pool.schedule.next_change(input.now) else { return };
    let wants = match next.desired {
        Desired::Running => "wants it running",
        Desired::Stopped => "wants it stopped",
        Desired::Any => "leaves it as it is",
    };
    decision.change(next.at, Rule::Schedule, format!("{wants}: {}", next.reason));
}

fn why_no_boxes(input: &PoolInput<'_>) -> &'static str {
    match input.pool.boxes {
        None => "nothing can run on this machine: the pool has neither `queue` nor `command`",
        Some(_) => {
            "EC2 lists no instance of this pool: check its `instances`, or the tags of `select`"
        }
    }
}
