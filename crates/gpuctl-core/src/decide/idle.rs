//! Nothing to do: a box goes once two witnesses agree, the queue (empty in every sample) and the worker (no lease held).
//!
//! The worker sees its own leases first-hand and goes first; a controller, which sees them by report, gives it
//! `BACKSTOP` more, so that each can end the box without the other and neither does it twice.

use chrono::TimeDelta;

use super::capacity::{is_preferred, preferred_is_back};
use super::{PoolDecision, PoolInput, jobs, jobs_are, jobs_wait};
use crate::observation::{BoxState, SeenBox, SeenQueue, SeenWorker, Witness};
use crate::plan::{Effect, Reason, Rule};
use crate::policy::{IdleStop, QueuePolicy};
use crate::units::{Timestamp, show_span};

/// How much longer than the worker a controller waits before it stops an idle box itself.
const BACKSTOP: TimeDelta = TimeDelta::seconds(15);

/// How old a worker's report may be to bear witness.
const REPORT_AGE_MAX: TimeDelta = TimeDelta::seconds(30);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(policy) = input.pool.queue() else {
        decision.abstain(Rule::Idle, "this pool drains no queue");
        return;
    };
    let running: Vec<&SeenBox> =
        input.staying().filter(|one| one.state == BoxState::Running).collect();
    if running.is_empty() {
        decision.abstain(Rule::Idle, "no box is running");
        return;
    }
    let Some(queue) = input.queue else {
        decision.record(
            Effect::Keep,
            Rule::Idle,
            "the queue could not be read: unknown is not empty",
        );
        return;
    };
    let grace = match input.witness {
        Witness::Worker(_) => TimeDelta::zero(),
        Witness::Controller => BACKSTOP,
    };
    // Asked once for all boxes: it looks through every run.
    let cheaper = running.iter().any(|one| is_preferred(input, one) == Some(false))
        && policy.idle_stop == IdleStop::Auto
        && preferred_is_back(input);
    let mut verdict = None;
    for one in running {
        let since = match idle_since(input, queue, one) {
            Ok(since) => since,
            Err(busy) => {
                verdict = verdict.or(Some((Effect::Keep, busy)));
                continue;
            }
        };
        let (stay, why) = if cheaper && is_preferred(input, one) == Some(false) {
            // On demand, waiting for the next job costs thrice what it does on spot (policies.md 0.8).
            (TimeDelta::zero(), "and a cheaper box can be had for the next job".to_owned())
        } else {
            stay(input, policy)
        };
        let text = format!("idle for {}, {why}", input.ago(since));
        let until = (since + stay).max(one.since + input.pool.run_min);
        if until + grace <= input.now {
            decision.released.push((one.id.clone(), Reason::new(Rule::Idle, text.clone())));
            verdict = Some((Effect::Stop, text));
        } else {
            verdict = verdict.or(Some((Effect::Keep, text)));
            // The worker goes at the first of these, the controller at the second.
            decision.change(until, Rule::Idle, "the box has been idle long enough");
            decision.change(
                until + grace,
                Rule::Idle,
                "the box should have stopped itself by then",
            );
        }
    }
    if let Some((effect, text)) = verdict {
        decision.record(effect, Rule::Idle, text);
    }
}

/// How long a box stays up without work, and the words for it.
fn stay(input: &PoolInput<'_>, policy: &QueuePolicy) -> (TimeDelta, String) {
    let after = policy.idle_stop.after(policy.max_wait - input.tick, input.boot);
    let auto = if policy.idle_stop == IdleStop::Auto { "auto, here " } else { "" };
    (after, format!("idle_stop is {auto}{}", show_span(after)))
}

/// Since when both witnesses have seen the box idle, or what speaks against it.
fn idle_since(
    input: &PoolInput<'_>,
    queue: &SeenQueue,
    one: &SeenBox,
) -> Result<Timestamp, String> {
    // Q2: delayed jobs are work to come.
    if queue.visible > 0 || queue.delayed > 0 {
        return Err(match queue.delayed {
            0 => jobs_wait(queue.visible),
            delayed => {
                format!("{}, and {} not due yet", jobs_wait(queue.visible), jobs_are(delayed))
            }
        });
    }
    let SeenWorker { leases, idle_since, .. } = report(input, one)?;
    let Some(idle_since) = idle_since.filter(|_| *leases == 0) else {
        return Err(format!("the worker holds {}", jobs(u64::from(*leases))));
    };
    // Q1, Q15: a lease that no box admits to is a dead worker's; its job comes back. With other boxes up it is theirs.
    if queue.in_flight > 0 && input.staying().nth(1).is_none() {
        return Err(format!("{} in flight", jobs_are(queue.in_flight)));
    }
    let empty_since = if queue.in_flight > 0 { Some(idle_since) } else { queue.empty_since };
    // Q3: one empty sample is not enough; the ledger remembers the first of an unbroken row.
    let empty_since = empty_since.ok_or("the queue was seen empty only once")?;
    Ok(idle_since.max(empty_since).max(one.since))
}

fn report<'a>(input: &PoolInput<'_>, one: &'a SeenBox) -> Result<&'a SeenWorker, String> {
    let worker = one.worker.as_ref().ok_or("the worker has not reported yet")?;
    if input.now - worker.heard_at > REPORT_AGE_MAX {
        return Err(format!("the worker last reported {} ago", input.ago(worker.heard_at)));
    }
    Ok(worker)
}
