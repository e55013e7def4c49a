//! Starts that fail, and starts that come too often: wait longer after each failure, and no more than so many an hour.
//!
//! A person's hold that is younger than the last failure gets a try at once: they may have mended the cause.

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
const FRUITLESS_FIRST: TimeDelta = TimeDelta::minutes(1);
/// … up to this.
const FRUITLESS_WAIT_MAX: TimeDelta = TimeDelta::hours(1);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let asked_at = input.hold().map(|hold| hold.since);
    decision.starts_left = Some(starts_left(input, asked_at));
    if let Some((text, until)) = failing(input, asked_at).or_else(|| flapping(input, asked_at)) {
        decision.no_starts = Some(decision.record(Effect::Forbid, Rule::Cooldown, text));
        decision.change(until, Rule::Cooldown, "it may start again");
    } else if let Some((text, until)) = without_result(input) {
        decision.refuse(Rule::Cooldown, &[Rule::Demand], text);
        decision.change(until, Rule::Cooldown, "the queue may start a box again");
    } else {
        decision.abstain(Rule::Cooldown, "none");
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
    Some((format!("{count} failed ({cause}); the next try is in {}", input.until(until)), until))
}

/// Q7: a job that ends its worker costs a boot each time it is given out again, until the dead letters take it.
fn without_result(input: &PoolInput<'_>) -> Option<(String, Timestamp)> {
    let most = input.pool.starts_without_result_max.get() as usize;
    let ended = input.seen.runs.iter().filter(|run| run.stopped_at.is_some());
    let row: Vec<&Run> = ended.take_while(|run| run.ended_without_result()).collect();
    let wait = doubled(FRUITLESS_FIRST, row.len().checked_sub(most)?, FRUITLESS_WAIT_MAX);
    let until = row.first()?.stopped_at? + wait;
    let text = format!(
        "the last {} boxes that the queue started ended without a single result (a job that ends its worker?); the next in {}",
        row.len(),
        input.until(until)
    );
    (until > input.now).then_some((text, until))
}

/// How many more starts this hour may have; a person's hold is good for one start, not for one each tick.
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
        "{} starts within an hour, starts_per_hour_max is {most}; the next in {}",
        starts.len(),
        input.until(until)
    );
    Some((text, until))
}
