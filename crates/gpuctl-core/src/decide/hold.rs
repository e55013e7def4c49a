//! A hold, a user's timed override: it overrides schedule and queue until it expires, and ends by itself.
//!
//! A start or stop outside gpuctl, e.g. in the AWS console, counts as a hold too (R1): until `foreign_hold` is over or the
//! schedule's next edge comes, whichever is first. It is read off the boxes each time, so that it ends although nothing
//! remembers it (R2). The later of a hold and a start or stop outside gpuctl counts, and `gpuctl release` ends both. EC2 does not
//! always say when a box was stopped: then it counts from when it was first seen, and only against a hold that is older than the run
//! that it ended. So an unknown time never wins over a user's newer command.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput, STALE_AFTER};
use crate::observation::{BoxState, Foreign, Hold, HoldWants, SeenBox, SeenPool};
use crate::plan::{Effect, Rule};
use crate::units::Timestamp;

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(latest) = in_force(input) else {
        let text = match hold_is_done(input.seen, input.now) {
            true => "the hold has ended: the queue is empty, and no box is busy",
            false => "no hold is in force",
        };
        decision.abstain(Rule::Hold, text);
        return;
    };
    match latest.wants {
        HoldWants::Running => decision.at_least(1, Rule::Hold, latest.text),
        HoldWants::Stopped => {
            decision.stop_all = Some(decision.record(Effect::Stop, Rule::Hold, latest.text));
        }
    }
    decision.change(latest.until, Rule::Hold, "the hold ends; schedule and queue decide again");
}

/// What a user asked for, by command or outside gpuctl.
pub(super) struct Override {
    pub(super) wants: HoldWants,
    pub(super) until: Timestamp,
    text: String,
}

pub(super) fn in_force(input: &PoolInput<'_>) -> Option<Override> {
    // One box of several that was stopped by hand is left alone (`is_left_alone`); the others go on.
    let one_of_many =
        |foreign: &&Foreign| foreign.wants == HoldWants::Stopped && input.up().next().is_some();
    let foreign = input.boxes().iter().filter_map(|one| Some((one, one.foreign.as_ref()?)));
    let latest = foreign
        .filter(|(_, foreign)| !one_of_many(foreign))
        .max_by_key(|(one, foreign)| counts_from(input, one, foreign));
    latest
        .and_then(|(one, foreign)| outside_gpuctl(input, one, foreign))
        .or_else(|| by_command(input))
}

/// How long the queue of a hold that ends with it must have been empty: a job that was submitted just before may not be counted yet.
const EMPTY_FOR: TimeDelta = TimeDelta::minutes(1);

/// Whether the pool's hold has ended before its time, since all that it was for is done: no job waits, none is held, and no box boots.
#[must_use]
pub fn hold_is_done(seen: &SeenPool, now: Timestamp) -> bool {
    let hold = seen.hold.as_ref().filter(|hold| hold.until_empty && hold.until > now);
    let queue = seen.queue.as_ref().and_then(|queue| queue.fresh(now, STALE_AFTER));
    let boxes = seen.boxes.fresh(now, STALE_AFTER);
    let (Some(hold), Some(queue), Some(boxes)) = (hold, queue, boxes) else { return false };
    let Some(empty_since) = queue.empty_since.filter(|_| queue.is_empty()) else { return false };
    let is_busy = |one: &SeenBox| {
        let holds = one.worker.as_ref().is_some_and(|worker| worker.leases > 0);
        one.state == BoxState::Pending || (one.is_up() && holds)
    };
    now - empty_since.max(hold.since) >= EMPTY_FOR && !boxes.iter().any(is_busy)
}

fn by_command(input: &PoolInput<'_>) -> Option<Override> {
    let hold = input.hold()?;
    let why = hold.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let wants = match hold.wants {
        HoldWants::Running => "running",
        HoldWants::Stopped => "stopped",
    };
    let (by, left) = (&hold.by, input.until(hold.until));
    let text = match hold.until_empty {
        true => {
            format!("{by} wants it {wants} until its queue is empty, for {left} more at most{why}")
        }
        false => format!("{by} wants it {wants} for {left} more{why}"),
    };
    Some(Override { wants: hold.wants, until: hold.until, text })
}

/// Whether this box was stopped outside gpuctl and that still counts: then it is not started.
pub(super) fn is_left_alone(input: &PoolInput<'_>, one: &SeenBox) -> bool {
    let latest = one.foreign.as_ref().and_then(|foreign| outside_gpuctl(input, one, foreign));
    latest.is_some_and(|latest| latest.wants == HoldWants::Stopped)
}

/// A start or stop outside gpuctl while it counts: a later hold replaces it, also one that has expired or was released.
fn outside_gpuctl(input: &PoolInput<'_>, one: &SeenBox, foreign: &Foreign) -> Option<Override> {
    let from = counts_from(input, one, foreign)?;
    let most = from + input.pool.foreign_hold;
    let until = input.next_edge_after(from).map_or(most, |edge| edge.min(most));
    let did = match foreign.wants {
        HoldWants::Running => "started",
        HoldWants::Stopped => "stopped",
    };
    let when = match foreign.at {
        Some(at) => format!("{} ago", input.ago(at)),
        None => format!("(seen {} ago)", input.ago(from)),
    };
    let (by, left) = (&foreign.by, input.until(until));
    let text =
        format!("{by} {did} it outside gpuctl {when}: that counts as a hold for {left} more");
    // When that is unknown, it was after the box was last started.
    let after = foreign.at.or(one.run_started_at);
    let is_newer = |hold: &Hold| after.is_some_and(|after| after > hold.since);
    let counts = input.seen.hold.as_ref().is_none_or(is_newer) && until > input.now;
    counts.then_some(Override { wants: foreign.wants, until, text })
}

/// From when on a start or stop outside gpuctl counts: if its time is unknown, from when its effect was first seen.
fn counts_from(input: &PoolInput<'_>, one: &SeenBox, foreign: &Foreign) -> Option<Timestamp> {
    let seen = || {
        let run = input.seen.runs.iter().find(|run| run.box_id == one.id)?;
        match foreign.wants {
            HoldWants::Running => Some(run.started_at),
            HoldWants::Stopped => run.stopped_at,
        }
    };
    foreign.at.or_else(seen)
}
