//! Jobs that wait: the box starts when the oldest has waited so long that, with the boot, it just keeps `max_wait`.
//!
//! Start as late as `max_wait` allows and stop when the queue is empty: 1 to 6 % above the cheapest possible schedule on
//! real traces (`facts/policies.md` 3.2). The depth rule adds to it and never replaces it: a lone job starves under depth alone.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput, jobs_wait};
use crate::observation::SeenQueue;
use crate::plan::{Effect, Rule};
use crate::policy::QueuePolicy;
use crate::units::show_span;

/// The margin for a slow boot: this part of the estimate, which is itself the slowest tenth of the boots so far.
const MARGIN_OF_BOOT: i32 = 10;

/// A backlog is never meant to be cleared faster than this: boxes for a moment cost more than the moment saves.
const CLEAR_MIN: TimeDelta = TimeDelta::minutes(1);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(policy) = input.pool.queue() else {
        decision.abstain(Rule::Demand, "this pool drains no queue");
        return;
    };
    let Some(queue) = input.queue else {
        let text = match &input.seen.queue {
            Some(seen) => format!(
                "the queue was last read {} ago: nothing follows from it",
                input.ago(seen.at)
            ),
            None => "the queue was never read".to_owned(),
        };
        decision.record(Effect::Keep, Rule::Demand, text);
        return;
    };
    if queue.visible == 0 {
        decision.abstain(
            Rule::Demand,
            format!("no job waits ({} in flight, {} delayed)", queue.in_flight, queue.delayed),
        );
        return;
    }
    let boxes = boxes_for(input, policy, queue);
    let waiting = jobs_wait(queue.visible);
    // Q4: counts that are seen for the first time may be a flicker; the next look confirms them.
    let Some(oldest) = queue.oldest_sent_at else {
        let text = format!("{waiting}, as seen once: the next look confirms it");
        decision.record(Effect::Keep, Rule::Demand, text);
        return;
    };
    let last_moment = oldest + slack(policy, input);
    // Time to find a cheaper box comes before the last moment, never out of `max_wait`.
    let start_at = last_moment - input.pool.capacity_deadline;
    let (age, max_wait) = (input.ago(oldest), show_span(policy.max_wait));
    let text = format!("{waiting}, the oldest for {age}; max_wait is {max_wait}");
    let deep = policy.start_depth.filter(|depth| queue.visible >= u64::from(depth.get()));
    let mut patience = last_moment;
    if let Some(depth) = deep {
        // Many jobs are no reason to wait for longer than one would.
        patience = patience.min(oldest + input.pool.capacity_deadline);
        decision.at_least(boxes, Rule::Demand, format!("{waiting}, start_depth is {depth}"));
    } else if start_at <= input.now {
        let boot = show_span(input.boot);
        decision.at_least(boxes, Rule::Demand, format!("{text}, a boot takes {boot}"));
    } else if input.staying().count() >= boxes as usize {
        decision.abstain(Rule::Demand, format!("{text}: the boxes that are up see to them"));
        return;
    } else {
        decision.abstain(Rule::Demand, format!("{text}: starts in {}", input.until(start_at)));
        decision.change(start_at, Rule::Demand, "the oldest job needs a box to keep max_wait");
        return;
    }
    if patience > input.now {
        decision.patience = Some(patience);
        decision.change(patience, Rule::Demand, "any box will do from then on");
    }
}

/// How long the oldest job may wait before a box must start: less the boot, a tick, since the next look may be that late,
/// and a margin, since a boot may be slower than those before it.
fn slack(policy: &QueuePolicy, input: &PoolInput<'_>) -> TimeDelta {
    let margin = input.boot / MARGIN_OF_BOOT;
    (policy.max_wait - input.boot - input.tick - margin).max(TimeDelta::zero())
}

/// As many boxes as the policy says, or as clear the backlog within `max_wait` at the measured speed of one.
///
/// Boxes that are booting count: they are in the backlog's service already, and `boot_deadline` ends those that hang.
fn boxes_for(input: &PoolInput<'_>, policy: &QueuePolicy, queue: &SeenQueue) -> u32 {
    let backlog = queue.visible + queue.in_flight;
    let boxes = match (policy.jobs_per_box, input.seen.service) {
        (Some(per_box), _) => backlog.div_ceil(u64::from(per_box.get())),
        (None, Some(service)) => {
            let within = policy.max_wait.max(CLEAR_MIN).num_milliseconds().unsigned_abs();
            let work = u128::from(backlog) * u128::from(service.num_milliseconds().unsigned_abs());
            u64::try_from(work.div_ceil(u128::from(within))).unwrap_or(u64::MAX)
        }
        (None, None) => 1,
    };
    u32::try_from(boxes).unwrap_or(u32::MAX).clamp(1, input.pool.boxes_max.get())
}
