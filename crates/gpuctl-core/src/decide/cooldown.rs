//! Starts that fail or come too often: each further failure makes the next start wait longer, and an hour has at most
//! `starts_per_hour_max` starts.
//!
//! A hold that is newer than the last failure starts a box at once: its author may have fixed the cause.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput};
use crate::observation::Run;
use crate::plan::{Effect, Rule};
use crate::units::{Timestamp, doubled};

/// The wait after the first failed start; it doubles with each further one.
const BACKOFF_FIRST: TimeDelta = TimeDelta::seconds(5);
/// The longest wait between tries.
const BACKOFF_MAX: TimeDelta = TimeDelta::minutes(5);

/// The wait after `starts_without_result_max` boxes without a result; it doubles with each further one …
const WITHOUT_RESULT_FIRST: TimeDelta = TimeDelta::minutes(1);
/// … up to this.
const WITHOUT_RESULT_WAIT_MAX: TimeDelta = TimeDelta::hours(1);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let asked_at = input.hold().map(|hold| hold.since);
    decision.starts_left = Some(starts_left(input, asked_at));
    if let Some((text, until)) = failing(input, asked_at).or_else(|| flapping(input, asked_at)) {
        decision.no_starts = Some(decision.record(Effect::Forbid, Rule::Cooldown, text));
        decision.change(until, Rule::Cooldown, "boxes may start again");
    } else if let Some((text, until)) = without_result(input) {
        decision.forbid_starts(Rule::Cooldown, &[Rule::Demand], text);
        decision.change(until, Rule::Cooldown, "the queue may start a box again");
    } else {
        decision.abstain(Rule::Cooldown, "no cooldown");
    }
}

fn failing(input: &PoolInput<'_>, asked_at: Option<Timestamp>) -> Option<(String, Timestamp)> {
    let ended = input.accepted_runs().filter(|run| run.stopped_at.is_some());
    let failed: Vec<&Run> = ended.take_while(|run| run.failed_to_start()).collect();
    let last = failed.first()?;
    let failed_at = last.stopped_at?;
    if asked_at.is_some_and(|asked| asked > failed_at) {
        return None;
    }
    let until = failed_at + doubled(BACKOFF_FIRST, failed.len() - 1, BACKOFF_MAX);
    if until <= input.now {
        return None;
    }
    let count = if failed.len() == 1 {
        "the last start".to_owned()
    } else {
        format!("the last {} starts", failed.len())
    };
    let cause = last.error.as_deref().unwrap_or("the box ended before it was ready");
    Some((format!("{count} failed ({cause}); the next start is in {}", input.until(until)), until))
}

/// Q7: a job that crashes its worker costs a boot each time it is received again, until it is moved to the dead letters.
fn without_result(input: &PoolInput<'_>) -> Option<(String, Timestamp)> {
    let most = input.pool.starts_without_result_max.get() as usize;
    let ended = input.seen.runs.iter().filter(|run| run.stopped_at.is_some());
    let row: Vec<&Run> = ended.take_while(|run| run.ended_without_result()).collect();
    let wait = doubled(WITHOUT_RESULT_FIRST, row.len().checked_sub(most)?, WITHOUT_RESULT_WAIT_MAX);
    let until = row.first()?.stopped_at? + wait;
    let text = format!(
        "the last {} boxes started for the queue ended without a result (does a job crash its worker?); the next start is in {}",
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
