//! The cloud takes a box back: it counts as gone at once, so that its replacement boots while it drains.
//!
//! Nothing is done to the box itself: its worker sees the notice first and drains, and a stop of ours in the middle of an
//! interruption would leave it in a state that nobody can start it from (P18).

use super::{PoolDecision, PoolInput};
use crate::observation::BoxState;
use crate::plan::{Effect, Rule};

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let leaving = input.boxes().iter().filter(|one| one.state != BoxState::Stopped);
    let mut leaving = leaving.filter_map(|one| Some((one, one.interruption?)));
    let text = leaving.next_back().map(|(one, at)| {
        format!(
            "box {} is taken back in {}: it no longer counts",
            one.id,
            input.until(at.max(input.now))
        )
    });
    match text {
        Some(text) => {
            decision.record(Effect::Keep, Rule::Interruption, text);
        }
        None => decision.abstain(Rule::Interruption, "no box is being taken back"),
    }
}
