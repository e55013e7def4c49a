//! EC2 interrupts a spot box: it no longer counts from the notice on, so that its replacement boots while it drains.
//!
//! The box itself is left alone: its worker sees the notice first and drains, and a box that we stop during an interruption can
//! afterwards be started by EC2 only (P18).

use super::{PoolDecision, PoolInput};
use crate::observation::BoxState;
use crate::plan::{Effect, Rule};

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let interrupted = input.boxes().iter().filter(|one| one.state != BoxState::Stopped);
    let mut interrupted = interrupted.filter_map(|one| Some((one, one.interruption?)));
    let text = interrupted.next_back().map(|(one, at)| {
        format!(
            "box {} will be interrupted in {}: it is not counted",
            one.id,
            input.until(at.max(input.now))
        )
    });
    match text {
        Some(text) => {
            decision.record(Effect::Keep, Rule::Interruption, text);
        }
        None => decision.abstain(Rule::Interruption, "no box is being interrupted"),
    }
}
