//! The schedule: while it wants the pool running, at least one box is up. Where it wants it stopped, a pool without a queue
//! stops, and one with a queue is left to it; where it has no decision, things stay as they are (R14).

use super::{PoolDecision, PoolInput};
use crate::plan::{Effect, Reason, Rule};
use crate::policy::Work;
use crate::schedule::Desired;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
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
                "no schedule: it runs only on a hold".to_owned()
            } else {
                state.reason
            };
            let reason = decision.record(Effect::Stop, Rule::Schedule, text);
            decision.released.extend(input.up().map(|one| (one.id.clone(), reason.clone())));
        }
    }
    if let Some(next) = schedule.next_change(input.now) {
        let wants = match next.desired {
            Desired::Running => "wants it running",
            Desired::Stopped => "wants it stopped",
            Desired::Any => "has no decision any more",
        };
        let text = format!("{wants}: {}", next.reason);
        decision.change(next.at, Rule::Schedule, text);
    }
    if input.pool.work == Work::BoxOnly && input.boxes.is_some_and(<[_]>::is_empty) {
        let text = match input.pool.boxes {
            None => {
                "this machine has nothing to run for it: the pool has neither `queue` nor `command`"
            }
            Some(_) => {
                "EC2 shows no box of it: look at its `instances`, or at the tags of `select`"
            }
        };
        decision.no_starts = Some(Reason::new(Rule::Schedule, text));
    }
}
