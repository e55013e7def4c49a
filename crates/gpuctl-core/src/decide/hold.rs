//! A person's timed override: it wins over schedule and queue until it expires, and hands back by itself.
//!
//! A start or stop that somebody made past gpuctl, as in the AWS console, counts as a hold too (R1): until `foreign_hold` is
//! over or the schedule's next edge comes, whichever is first. It is read off the boxes each time, so nothing has to be
//! remembered for it to end (R2). The later of the two words counts, and `gpuctl release` ends both.

use super::{PoolDecision, PoolInput};
use crate::observation::{Foreign, HoldWants, SeenBox};
use crate::plan::{Effect, Rule};
use crate::units::Timestamp;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(word) = in_force(input) else {
        decision.abstain(Rule::Hold, "no hold is in force");
        return;
    };
    match word.wants {
        HoldWants::Running => decision.at_least(1, Rule::Hold, word.text),
        HoldWants::Stopped => {
            decision.all_off = Some(decision.record(Effect::Stop, Rule::Hold, word.text));
        }
    }
    decision.change(word.until, Rule::Hold, "the hold ends; schedule and queue decide again");
}

/// What a person has said last.
struct Word {
    wants: HoldWants,
    until: Timestamp,
    text: String,
}

fn in_force(input: &PoolInput<'_>) -> Option<Word> {
    // One box of several that was stopped by hand is left alone (`is_left_alone`); the others go on.
    let one_of_many =
        |foreign: &&Foreign| foreign.wants == HoldWants::Stopped && input.up().next().is_some();
    let foreign = input.boxes().iter().filter_map(|one| one.foreign.as_ref());
    let latest = foreign.filter(|one| !one_of_many(one)).max_by_key(|foreign| foreign.at);
    latest.and_then(|foreign| by_console(input, foreign)).or_else(|| by_command(input))
}

fn by_command(input: &PoolInput<'_>) -> Option<Word> {
    let hold = input.hold()?;
    let why = hold.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let wants = match hold.wants {
        HoldWants::Running => "running",
        HoldWants::Stopped => "stopped",
    };
    let text = format!("{} wants it {wants} for {} more{why}", hold.by, input.until(hold.until));
    Some(Word { wants: hold.wants, until: hold.until, text })
}

/// Whether somebody has stopped this box by hand, and that still counts: then it is not started.
pub(super) fn is_left_alone(input: &PoolInput<'_>, one: &SeenBox) -> bool {
    let word = one.foreign.as_ref().and_then(|foreign| by_console(input, foreign));
    word.is_some_and(|word| word.wants == HoldWants::Stopped)
}

/// What was done past gpuctl, while it counts: also an expired or released hold ends what was done before it.
fn by_console(input: &PoolInput<'_>, foreign: &Foreign) -> Option<Word> {
    let most = foreign.at + input.pool.foreign_hold;
    let until = input.next_edge_after(foreign.at).map_or(most, |edge| edge.min(most));
    let did = match foreign.wants {
        HoldWants::Running => "started",
        HoldWants::Stopped => "stopped",
    };
    let (by, ago, left) = (&foreign.by, input.ago(foreign.at), input.until(until));
    let text =
        format!("{by} {did} it past gpuctl {ago} ago: that counts as a hold for {left} more");
    let newer = input.seen.hold.as_ref().is_none_or(|hold| foreign.at > hold.since);
    (newer && until > input.now).then_some(Word { wants: foreign.wants, until, text })
}
