//! Windows: inside one, at least one box is up; outside, a pool without a queue stops, and one with a queue is left to it.

use super::{Case, Opinion};
use crate::plan::{Rule, Says};
use crate::policy::Work;

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    let windows = &case.pool.schedule;
    if windows.is_empty() && case.pool.queue().is_some() {
        opinion.pass(Rule::Schedule, "no schedule");
        return;
    }
    let states: Vec<_> = windows.iter().map(|window| window.at(case.now)).collect();
    let open = states.iter().any(|(open, _)| *open);
    // Open until the last of the open windows closes; shut until the first opens.
    let edges = states.iter().filter(|(state, _)| *state == open).map(|(_, edge)| *edge);
    let next = if open {
        edges.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
    } else {
        edges.flatten().min()
    };
    if open {
        opinion.at_least(1, Rule::Schedule, "inside a window of its schedule");
    } else if matches!(case.pool.work, Work::Command(_)) {
        let text = if windows.is_empty() {
            "no schedule: it runs only on a hold"
        } else {
            "outside its schedule"
        };
        let reason = opinion.says(Says::Stop, Rule::Schedule, text);
        opinion.released.extend(case.up().map(|one| (one.id.clone(), reason.clone())));
    } else {
        opinion.pass(Rule::Schedule, "outside its schedule: the queue decides");
    }
    if let Some(at) = next {
        opinion.change(
            at,
            Rule::Schedule,
            if open { "its window ends" } else { "its window begins" },
        );
    }
}
