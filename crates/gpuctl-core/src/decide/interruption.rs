//! The cloud takes a box back: it counts as gone at once, so that its replacement boots while it drains.
//!
//! Nothing is done to the box itself: its worker sees the notice first and drains, and a stop of ours in the middle of an
//! interruption would leave it in a state that nobody can start it from (P18).

use super::{Case, Opinion};
use crate::observation::BoxState;
use crate::plan::{Rule, Says};

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    let leaving = case.boxes().iter().filter(|one| one.state != BoxState::Stopped);
    let leaving = leaving.filter_map(|one| Some((one, one.interruption?)));
    let mut last = None;
    for (one, at) in leaving {
        last = Some(format!(
            "box {} is taken back in {}: it no longer counts",
            one.id,
            case.until(at.max(case.now))
        ));
    }
    match last {
        Some(text) => {
            opinion.says(Says::Keep, Rule::Interruption, text);
        }
        None => opinion.pass(Rule::Interruption, "no box is being taken back"),
    }
}
