//! Idle boxes: a box stops once two witnesses agree, the queue (empty in every sample) and the worker (no lease held).
//!
//! The worker knows its own leases first-hand and stops itself. A controller, which knows them from reports, waits
//! `BACKSTOP` longer, so that either can end the box without the other and they do not both do it.

use chrono::TimeDelta;

use super::capacity::{can_start_preferred, is_preferred};
use super::{PoolDecision, PoolInput, jobs, jobs_are, jobs_wait};
use crate::observation::{BoxState, SeenBox, SeenQueue, SeenWorker, Witness};
use crate::plan::{Effect, Reason, Rule};
use crate::policy::{IdleStop, QueuePolicy};
use crate::units::{Timestamp, show_duration};

/// How much longer than the worker a controller waits before it stops an idle box itself.
const BACKSTOP: TimeDelta = TimeDelta::seconds(15);

/// How old a worker's report may be to count as a witness.
const REPORT_AGE_MAX: TimeDelta = TimeDelta::seconds(30);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(policy) = input.pool.queue() else {
        decision.abstain(Rule::Idle, "this pool has no queue");
        return;
    };
    let running: Vec<&SeenBox> =
        input.staying().filter(|one| one.state == BoxState::Running).collect();
    if running.is_empty() {
        decision.abstain(Rule::Idle, "no box is running");
        return;
    }
    let Some(queue) = input.queue else {
        let text = "the queue could not be read, and unknown is not empty";
        decision.record(Effect::Keep, Rule::Idle, text);
        return;
    };
    // Asked once for all boxes: it looks through every run.
    let cheaper = running.iter().any(|one| is_preferred(input, one) == Some(false))
        && policy.idle_stop == IdleStop::Auto
        && can_start_preferred(input);
    let (mut verdict, mut idle) = (None, 0);
    for one in running.iter().copied() {
        let since = match activity(input, queue, one) {
            Activity::IdleSince(since) => since,
            Activity::Busy(why) => {
                verdict = verdict.or(Some((Effect::Keep, why)));
                continue;
            }
        };
        idle += 1;
        let stay = if one.rebalance.is_some() {
            Stay::until_replaced()
        } else if cheaper && is_preferred(input, one) == Some(false) {
            Stay::until_cheaper_box()
        } else {
            Stay::of_policy(input, policy)
        };
        let text = format!("idle for {}, {}", input.ago(since), stay.why);
        let until = (since + stay.lasts).max(one.since + input.pool.run_min);
        if until + grace(input.witness) <= input.now {
            decision.may_stop.push((one.id.clone(), Reason::new(Rule::Idle, text.clone())));
            verdict = Some((Effect::Stop, text));
        } else {
            announce_stop(input, decision, until);
            verdict = verdict.or(Some((Effect::Keep, text)));
        }
    }
    if let Some((effect, mut text)) = verdict {
        if running.len() > 1 {
            text = format!("{idle} of {} boxes idle: {text}", running.len());
        }
        decision.record(effect, Rule::Idle, text);
    }
}

fn grace(witness: &Witness) -> TimeDelta {
    match witness {
        Witness::Worker(_) => TimeDelta::zero(),
        Witness::Controller => BACKSTOP,
    }
}

fn announce_stop(input: &PoolInput<'_>, decision: &mut PoolDecision, until: Timestamp) {
    // The worker stops the box at the first of these, a controller at the second.
    decision.change(until, Rule::Idle, "the box has been idle long enough");
    let by_controller = until + grace(input.witness);
    decision.change(by_controller, Rule::Idle, "the box should have stopped itself by then");
}

/// How long a box stays up without work, and why.
struct Stay {
    lasts: TimeDelta,
    why: String,
}

impl Stay {
    fn of_policy(input: &PoolInput<'_>, policy: &QueuePolicy) -> Self {
        let lasts = policy.idle_stop.after(policy.max_wait - input.tick, input.boot);
        let auto = if policy.idle_stop == IdleStop::Auto { "auto, here " } else { "" };
        Self { lasts, why: format!("idle_stop is {auto}{}", show_duration(lasts)) }
    }

    /// P13: most boxes with a recommendation are never interrupted, so it ends no job. But one that waits for its next job may as well be
    /// another: its next start is on other hardware.
    fn until_replaced() -> Self {
        let why = "and EC2 recommends to replace it".to_owned();
        Self { lasts: TimeDelta::zero(), why }
    }

    /// On demand, an hour of waiting for the next job costs about three times as much as on spot.
    fn until_cheaper_box() -> Self {
        let why = "and a cheaper box can start for the next job".to_owned();
        Self { lasts: TimeDelta::zero(), why }
    }
}

/// What both witnesses say of a box.
enum Activity {
    /// Without work since then.
    IdleSince(Timestamp),
    /// It has work, or may have; with what says so.
    Busy(String),
}

fn activity(input: &PoolInput<'_>, queue: &SeenQueue, one: &SeenBox) -> Activity {
    // Q2: delayed jobs are work to come.
    if queue.visible > 0 || queue.delayed > 0 {
        if let Some(text) = one.fault_text() {
            return Activity::Busy(text);
        }
        return Activity::Busy(match queue.delayed {
            0 => jobs_wait(queue.visible),
            delayed => format!("{}, and {} delayed", jobs_wait(queue.visible), jobs_are(delayed)),
        });
    }
    let SeenWorker { leases, idle_since, .. } = match report(input, one) {
        Ok(report) => report,
        Err(why) => return Activity::Busy(why),
    };
    let Some(idle_since) = idle_since.filter(|_| *leases == 0) else {
        return Activity::Busy(format!("the worker holds {}", jobs(u64::from(*leases))));
    };
    // Q1, Q15: a job in flight that no worker holds was a dead worker's, and comes back. With other boxes up it is theirs.
    if queue.in_flight > 0 && input.staying().nth(1).is_none() {
        return Activity::Busy(format!("{} in flight", jobs_are(queue.in_flight)));
    }
    let empty_since = if queue.in_flight > 0 { Some(idle_since) } else { queue.empty_since };
    // Q3: one empty sample is not enough; the ledger remembers the first of an unbroken row.
    match empty_since {
        Some(empty_since) => Activity::IdleSince(idle_since.max(empty_since).max(one.since)),
        None => Activity::Busy("the queue was seen empty only once".to_owned()),
    }
}

/// The worker's report if it is fresh, else why it cannot count.
fn report<'a>(input: &PoolInput<'_>, one: &'a SeenBox) -> Result<&'a SeenWorker, String> {
    let worker = one.worker.as_ref().ok_or("the worker has not reported yet")?;
    if input.now - worker.heard_at > REPORT_AGE_MAX {
        return Err(format!("the worker last reported {} ago", input.ago(worker.heard_at)));
    }
    Ok(worker)
}
