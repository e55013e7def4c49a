//! Nothing to do: a box goes once two witnesses agree, the queue (empty in every sample) and the worker (no lease held).
//!
//! The worker sees its own leases first-hand and goes first; a controller, which sees them by report, gives it
//! `BACKSTOP` more, so that each can end the box without the other and neither does it twice.

use chrono::TimeDelta;

use super::{Case, Opinion};
use crate::observation::{BoxState, SeenBox, SeenQueue, SeenWorker, Witness};
use crate::plan::{Reason, Rule, Says};
use crate::units::{Timestamp, show_span};

/// How much longer than the worker a controller waits before it stops an idle box itself.
const BACKSTOP: TimeDelta = TimeDelta::seconds(15);

/// How old a worker's report may be to bear witness.
const REPORT_AGE_MAX: TimeDelta = TimeDelta::seconds(30);

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    let Some(policy) = case.pool.queue() else {
        opinion.pass(Rule::Idle, "this pool drains no queue");
        return;
    };
    let running: Vec<&SeenBox> = case.up().filter(|one| one.state == BoxState::Running).collect();
    if running.is_empty() {
        opinion.pass(Rule::Idle, "no box is running");
        return;
    }
    let Some(queue) = case.queue else {
        opinion.says(Says::Keep, Rule::Idle, "the queue could not be read: unknown is not empty");
        return;
    };
    let after = policy.idle_stop.after(policy.max_wait, case.boot);
    let patience = match case.witness {
        Witness::Worker(_) => after,
        Witness::Controller => after + BACKSTOP,
    };
    let mut verdict = None;
    for one in running {
        match idle_since(case, queue, one) {
            Err(busy) => verdict = verdict.or(Some((Says::Keep, busy))),
            Ok(since) if since + patience <= case.now => {
                let text =
                    format!("idle for {}, idle_stop is {}", case.ago(since), show_span(after));
                opinion.released.push((one.id.clone(), Reason::new(Rule::Idle, text.clone())));
                verdict = Some((Says::Stop, text));
            }
            Ok(since) => {
                let text =
                    format!("idle for {}, idle_stop is {}", case.ago(since), show_span(after));
                verdict = verdict.or(Some((Says::Keep, text)));
                opinion.change(since + after, Rule::Idle, "the box has been idle for idle_stop");
            }
        }
    }
    if let Some((says, text)) = verdict {
        opinion.says(says, Rule::Idle, text);
    }
}

/// Since when both witnesses have seen the box idle, or what speaks against it.
fn idle_since(case: &Case<'_>, queue: &SeenQueue, one: &SeenBox) -> Result<Timestamp, String> {
    // Q2: delayed jobs are work to come.
    if queue.visible > 0 || queue.delayed > 0 {
        return Err(format!("{} jobs wait, {} are delayed", queue.visible, queue.delayed));
    }
    let SeenWorker { leases, idle_since, .. } = report(case, one)?;
    let Some(idle_since) = idle_since.filter(|_| *leases == 0) else {
        return Err(format!("the worker holds {leases} jobs"));
    };
    // Q1, Q15: a lease that no box admits to is a dead worker's; its job comes back. With other boxes up it is theirs.
    if queue.in_flight > 0 && case.up().count() == 1 {
        return Err(format!("{} jobs are in flight", queue.in_flight));
    }
    let empty_since = if queue.in_flight > 0 { Some(idle_since) } else { queue.empty_since };
    // Q3: one empty sample is not enough; the ledger remembers the first of an unbroken row.
    let empty_since = empty_since.ok_or("the queue was seen empty only once")?;
    Ok(idle_since.max(empty_since).max(one.since))
}

fn report<'a>(case: &Case<'_>, one: &'a SeenBox) -> Result<&'a SeenWorker, String> {
    let worker = one.worker.as_ref().ok_or("the worker has not reported yet")?;
    if case.now - worker.heard_at > REPORT_AGE_MAX {
        return Err(format!("the worker last reported {} ago", case.ago(worker.heard_at)));
    }
    Ok(worker)
}
