//! Jobs that wait: the box starts when the oldest has waited so long that, with the boot, it just keeps `max_wait`.
//!
//! Start as late as `max_wait` allows and stop when the queue is empty: 1 to 6 % above the cheapest possible schedule on
//! real traces (`facts/policies.md` 3.2). The depth rule adds to it and never replaces it: a lone job starves under depth alone.

use chrono::TimeDelta;

use super::{Case, Opinion};
use crate::observation::SeenQueue;
use crate::plan::{Rule, Says};
use crate::policy::QueuePolicy;
use crate::units::{Timestamp, show_span};

pub(super) fn rule(case: &Case<'_>, opinion: &mut Opinion) {
    let Some(policy) = case.pool.queue() else {
        opinion.pass(Rule::Demand, "this pool drains no queue");
        return;
    };
    let Some(queue) = case.queue else {
        let text = match &case.seen.queue {
            Some(seen) => format!(
                "the queue was last read {} ago: nothing follows from it",
                case.ago(seen.at)
            ),
            None => "the queue was never read".to_owned(),
        };
        opinion.says(Says::Keep, Rule::Demand, text);
        return;
    };
    if queue.visible == 0 {
        opinion.pass(
            Rule::Demand,
            format!("no job waits ({} in flight, {} delayed)", queue.in_flight, queue.delayed),
        );
        return;
    }
    let boxes = boxes_for(policy, queue, case.pool.boxes_max.get());
    let waiting = jobs(queue.visible);
    if let Some(depth) = policy.start_depth.filter(|depth| queue.visible >= u64::from(depth.get()))
    {
        opinion.at_least(boxes, Rule::Demand, format!("{waiting}, start_depth is {depth}"));
        return;
    }
    let start_at = start_at(policy, queue, case);
    let age = case.ago(queue.oldest_sent_at.unwrap_or(case.now));
    let max_wait = show_span(policy.max_wait);
    if start_at <= case.now {
        let text = format!(
            "{waiting}, the oldest for {age}; max_wait is {max_wait}, a boot takes {}",
            show_span(case.boot)
        );
        opinion.at_least(boxes, Rule::Demand, text);
    } else {
        let text = format!(
            "{waiting}, the oldest for {age}; max_wait is {max_wait}: starts in {}",
            case.until(start_at)
        );
        opinion.pass(Rule::Demand, text);
        opinion.change(start_at, Rule::Demand, "the oldest job needs a box to keep max_wait");
    }
}

/// When a box must start so that the oldest job keeps `max_wait`: one tick early, since the next look may be that late.
fn start_at(policy: &QueuePolicy, queue: &SeenQueue, case: &Case<'_>) -> Timestamp {
    let slack = (policy.max_wait - case.boot - case.tick).max(TimeDelta::zero());
    queue.oldest_sent_at.unwrap_or(case.now - slack) + slack
}

fn boxes_for(policy: &QueuePolicy, queue: &SeenQueue, boxes_max: u32) -> u32 {
    policy.jobs_per_box.map_or(1, |per_box| {
        let boxes = (queue.visible + queue.in_flight).div_ceil(u64::from(per_box.get()));
        u32::try_from(boxes).unwrap_or(u32::MAX).clamp(1, boxes_max)
    })
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job waits".to_owned() } else { format!("{count} jobs wait") }
}
