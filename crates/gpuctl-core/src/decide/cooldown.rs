//! Starts that fail or come too often: each further failure makes the next start wait longer, and an hour has at most
//! `starts_per_hour_max` starts.
//!
//! A box that fails again and again waits by itself, however well the others of its pool do. All wait only where no box of the pool does
//! well: one broken box keeps no other from its jobs. A success ends the row of failures, and so does a user who asks for boxes: they may
//! have fixed the cause.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput};
use crate::observation::{BoxState, Run, SeenBox};
use crate::plan::{Effect, Rule};
use crate::units::{BoxId, Timestamp, doubled};
use crate::without::Fix;

/// The wait after the first failed start; it doubles with each further one …
const BACKOFF_FIRST: TimeDelta = TimeDelta::seconds(5);
/// … up to this: a box that never boots costs some minutes of box time six times a day.
const BACKOFF_MAX: TimeDelta = TimeDelta::hours(4);

/// The wait after `starts_without_result_max` boxes without a result; it doubles with each further one …
const WITHOUT_RESULT_FIRST: TimeDelta = TimeDelta::minutes(1);
/// … up to this.
const WITHOUT_RESULT_WAIT_MAX: TimeDelta = TimeDelta::hours(1);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    announce_rested_boxes(input, decision);
    let asked_at = input.hold().map(|hold| hold.since);
    decision.starts_left = Some(starts_left(input, asked_at));
    if let Some((text, until)) = failing(input).or_else(|| flapping(input, asked_at)) {
        decision.no_starts = Some(decision.record(Effect::Forbid, Rule::Cooldown, text));
        decision.change(until, Rule::Cooldown, "boxes may start again");
    } else if let Some((text, until)) = without_result(input) {
        decision.forbid_starts(Rule::Cooldown, &[Rule::Demand], text);
        decision.change(until, Rule::Cooldown, "the queue may start a box again");
    } else {
        decision.abstain(Rule::Cooldown, "no cooldown");
    }
}

fn failing(input: &PoolInput<'_>) -> Option<(String, Timestamp)> {
    if any_box_does_well(input) {
        return None;
    }
    let latest = latest_first(input);
    let row: Vec<&Run> = latest.into_iter().take_while(|run| run.failed()).collect();
    let until = rests_until(input, &row)?;
    let text = format!("{}; the next start is in {}", failures(&row)?, input.until(until));
    Some((text, until))
}

/// Whether a box of the pool works, or did in its last run: then it is not the pool that fails.
fn any_box_does_well(input: &PoolInput<'_>) -> bool {
    let works = |one: &SeenBox| one.state == BoxState::Running;
    let did_well = |one: &SeenBox| {
        ended(input).find(|run| run.box_id == one.id).is_some_and(|run| !run.failed())
    };
    input.able().any(works) || input.boxes().iter().any(did_well)
}

/// Why this box does not start yet and until when, where its own latest starts have failed.
pub(super) fn box_rests(input: &PoolInput<'_>, id: &BoxId) -> Option<(String, Timestamp)> {
    let of_box = ended(input).filter(|run| run.box_id == *id);
    let row: Vec<&Run> = of_box.take_while(|run| run.failed()).collect();
    let until = rests_until(input, &row)?;
    Some((format!("{id} waits for {} more: {}", input.until(until), failures(&row)?), until))
}

fn announce_rested_boxes(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    if !input.accepted_runs().any(Run::failed) {
        return;
    }
    let stopped = input.boxes().iter().filter(|one| one.state == BoxState::Stopped);
    for one in stopped {
        if let Some((_, until)) = box_rests(input, &one.id) {
            decision.change(until, Rule::Cooldown, format!("{} may start again", one.id));
        }
    }
}

/// The runs that are over, back to when a user last asked for boxes; those of one box newest first.
fn ended<'a>(input: &PoolInput<'a>) -> impl Iterator<Item = &'a Run> {
    let asked_at = input.asked_at();
    input
        .accepted_runs()
        .filter(|run| run.stopped_at.is_some())
        .take_while(move |run| asked_at.is_none_or(|asked| run.started_at >= asked))
}

/// The same with the last to end first: of two boxes the one that started first may have ended last.
fn latest_first<'a>(input: &PoolInput<'a>) -> Vec<&'a Run> {
    let mut runs: Vec<&Run> = ended(input).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.stopped_at));
    runs
}

/// Until when there is no start after this row of failures, newest first.
fn rests_until(input: &PoolInput<'_>, row: &[&Run]) -> Option<Timestamp> {
    let most =
        if Fix::BootLoopNoGrowth.is_left_out() { TimeDelta::minutes(5) } else { BACKOFF_MAX };
    let failed_at = row.first()?.stopped_at?;
    let until = failed_at + doubled(BACKOFF_FIRST, row.len() - 1, most);
    (until > input.now).then_some(until)
}

fn failures(row: &[&Run]) -> Option<String> {
    let count = match row.len() {
        1 => "the last start".to_owned(),
        count => format!("the last {count} starts"),
    };
    let cause = row.first()?.error.as_deref().unwrap_or("the box ended before it was ready");
    Some(format!("{count} failed ({cause})"))
}

/// Q7: a job that crashes its worker costs a boot each time it is received again, until it is moved to the dead letters. A box that can
/// do no job costs one each time, too; where another box does well it waits by itself.
fn without_result(input: &PoolInput<'_>) -> Option<(String, Timestamp)> {
    let most = input.pool.starts_without_result_max.get() as usize;
    let is_excused = any_box_does_well(input);
    let counted = latest_first(input).into_iter().filter(|run| !(is_excused && run.failed()));
    let fruitless = |run: &&Run| run.ended_without_result() || run.failed();
    let row: Vec<&Run> = counted.take_while(fruitless).collect();
    let wait = doubled(WITHOUT_RESULT_FIRST, row.len().checked_sub(most)?, WITHOUT_RESULT_WAIT_MAX);
    let last = row.first()?;
    let until = last.stopped_at? + wait;
    let cause = last.error.as_deref().unwrap_or("does a job crash its worker?");
    let text = format!(
        "the last {} boxes started for the queue ended without a result ({cause}); the next start is in {}",
        row.len(),
        input.until(until)
    );
    (until > input.now).then_some((text, until))
}

/// How many more starts this hour may have. A new hold adds one start in all, not one a tick.
fn starts_left(input: &PoolInput<'_>, asked_at: Option<Timestamp>) -> usize {
    let starts = starts_of_hour(input);
    let left = (input.pool.starts_per_hour_max.get() as usize).saturating_sub(starts.len());
    left + usize::from(is_first_try(&starts, asked_at))
}

fn starts_of_hour(input: &PoolInput<'_>) -> Vec<Timestamp> {
    let hour_ago = input.now - TimeDelta::hours(1);
    input.accepted_runs().map(|run| run.started_at).filter(|at| *at > hour_ago).collect()
}

fn is_first_try(starts: &[Timestamp], asked_at: Option<Timestamp>) -> bool {
    asked_at.is_some_and(|asked| starts.iter().all(|started| *started <= asked))
}

fn flapping(input: &PoolInput<'_>, asked_at: Option<Timestamp>) -> Option<(String, Timestamp)> {
    let starts = starts_of_hour(input);
    let most = input.pool.starts_per_hour_max.get();
    if starts.len() < most as usize || is_first_try(&starts, asked_at) {
        return None;
    }
    let until = *starts.iter().min()? + TimeDelta::hours(1);
    let text = format!(
        "{} starts within an hour, starts_per_hour_max is {most}; the next start is in {}",
        starts.len(),
        input.until(until)
    );
    Some((text, until))
}
