//! A person's timed override: it wins over schedule and queue until it expires, and hands back by itself.

use super::{Case, Opinion};
use crate::observation::HoldWants;
use crate::plan::{Rule, Says};

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    let Some(hold) = case.seen.hold.as_ref().filter(|hold| hold.until > case.now) else {
        opinion.pass(Rule::Hold, "no hold is in force");
        return;
    };
    let why = hold.why.as_ref().map(|why| format!(", because: {why}")).unwrap_or_default();
    let left = case.until(hold.until);
    match hold.wants {
        HoldWants::Running => {
            let text = format!("{} asked for it to run{why}; {left} left", hold.by);
            opinion.at_least(1, Rule::Hold, text);
        }
        HoldWants::Stopped => {
            let text = format!("{} asked for it to stay stopped{why}; {left} left", hold.by);
            opinion.all_off = Some(opinion.says(Says::Stop, Rule::Hold, text));
        }
    }
    opinion.change(hold.until, Rule::Hold, "the hold ends; schedule and queue decide again");
}
