//! Jobs that wait: a box starts when the oldest job has waited so long that, with the boot, `max_wait` is just kept.
//!
//! Starting as late as `max_wait` allows and stopping when the queue is empty cost 1 to 6 % more box time than the least possible
//! on recorded traces (`gpuctl simulate` compares with that bound). `start_depth` only starts boxes earlier: with a depth rule
//! alone, a single job would wait for ever. A job's own `max_wait` does so, too: a job with less patience than the pool's is met, one with
//! more waits no longer than others.

use chrono::TimeDelta;

use super::{PoolDecision, PoolInput, jobs_wait};
use crate::observation::{SeenBox, SeenQueue, UrgentJob};
use crate::plan::{Effect, Rule};
use crate::policy::QueuePolicy;
use crate::units::{Timestamp, show_duration};

/// The margin for a slow boot is the estimate divided by this. The estimate itself is the 90th percentile of the boots so far.
const MARGIN_OF_BOOT: i32 = 10;

/// The shortest time in which a backlog is to be cleared: EC2 bills each start for at least a minute.
const CLEAR_MIN: TimeDelta = TimeDelta::minutes(1);

pub(super) fn rule(input: &PoolInput<'_>, decision: &mut PoolDecision) {
    let Some(policy) = input.pool.queue() else {
        decision.abstain(Rule::Demand, "this pool has no queue");
        return;
    };
    let Some(queue) = input.queue else {
        let text = match &input.seen.queue {
            Some(seen) => {
                format!("the queue was last read {} ago: too old to act on", input.ago(seen.at))
            }
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
    let urgent = Urgent::of(input);
    // Q4: SQS may report messages that do not exist, for one sample; the next reconcile confirms them. A job that the ledger knows is
    // one that exists.
    let oldest = queue.oldest_sent_at.or_else(|| urgent.as_ref().map(|_| input.now));
    let Some(oldest) = oldest else {
        let waiting = jobs_wait(queue.visible);
        let text = format!("{waiting}, seen once: the next reconcile confirms it");
        decision.record(Effect::Keep, Rule::Demand, text);
        return;
    };
    let boxes = boxes_for(input, policy, queue);
    weigh(input, decision, boxes, &Waiting { policy, queue, oldest, urgent });
}

/// The job with the least patience of its own, and when a box must start for it.
struct Urgent<'a> {
    job: &'a UrgentJob,
    last_moment: Timestamp,
}

impl<'a> Urgent<'a> {
    fn of(input: &PoolInput<'a>) -> Option<Self> {
        let job = input.seen.urgent.as_ref()?;
        Some(Self { job, last_moment: job.begin_by - lead(input) })
    }
}

/// The jobs that wait, and since when the oldest does.
struct Waiting<'a> {
    policy: &'a QueuePolicy,
    queue: &'a SeenQueue,
    oldest: Timestamp,
    urgent: Option<Urgent<'a>>,
}

impl Waiting<'_> {
    /// When a box must start at the latest, and the job that makes it so if that is not the oldest.
    fn last_moment(&self, input: &PoolInput<'_>) -> (Timestamp, Option<&UrgentJob>) {
        let of_oldest = self.oldest + slack(self.policy, input);
        match &self.urgent {
            Some(urgent) if urgent.last_moment < of_oldest => {
                (urgent.last_moment, Some(urgent.job))
            }
            _ => (of_oldest, None),
        }
    }

    /// What waits, and for how long it may.
    fn text(&self, input: &PoolInput<'_>, urgent: Option<&UrgentJob>) -> String {
        let waiting = jobs_wait(self.queue.visible);
        match urgent {
            Some(UrgentJob { id, begin_by }) => {
                let at = begin_by.format("%Y-%m-%d %H:%M:%S UTC");
                format!("{waiting}; job {id} may wait until {at} and no longer")
            }
            None => {
                let (age, max_wait) = (input.ago(self.oldest), show_duration(self.policy.max_wait));
                format!("{waiting}, the oldest for {age}; max_wait is {max_wait}")
            }
        }
    }
}

fn weigh(input: &PoolInput<'_>, decision: &mut PoolDecision, boxes: u32, waits: &Waiting<'_>) {
    let (last_moment, urgent) = waits.last_moment(input);
    let Waiting { policy, queue, oldest, .. } = *waits;
    // The time to find a cheaper box comes before the last moment, so that `max_wait` is kept.
    let start_at = last_moment - input.pool.capacity_deadline;
    let (waiting, text) = (jobs_wait(queue.visible), waits.text(input, urgent));
    let deep = policy.start_depth.filter(|depth| queue.visible >= u64::from(depth.get()));
    let mut preferred_only_until = last_moment;
    if let Some(depth) = deep {
        // A deep queue must not wait longer for a cheaper box than a single job would.
        preferred_only_until = preferred_only_until.min(oldest + input.pool.capacity_deadline);
        decision.at_least(boxes, Rule::Demand, format!("{waiting}, start_depth is {depth}"));
    } else if start_at <= input.now {
        let boot = show_duration(input.boot);
        decision.at_least(boxes, Rule::Demand, format!("{text}, a boot takes {boot}"));
    } else if input.able().count() >= boxes as usize {
        decision.abstain(Rule::Demand, format!("{text}: enough boxes are up"));
        return;
    } else {
        decision.abstain(Rule::Demand, format!("{text}: starts in {}", input.until(start_at)));
        let why = match urgent {
            Some(job) => format!("job {} needs a box to keep its own max_wait", job.id),
            None => "the oldest job needs a box to keep max_wait".to_owned(),
        };
        decision.change(start_at, Rule::Demand, why);
        return;
    }
    if let Some(text) = service_fault(input) {
        decision.forbid_starts(Rule::Demand, &[Rule::Demand], text);
    }
    if preferred_only_until > input.now {
        decision.preferred_only_until = Some(preferred_only_until);
        let text = "any capacity type may start from then on";
        decision.change(preferred_only_until, Rule::Demand, text);
    }
}

/// Why another box would not help: no box that is up takes jobs, for the same fault of a service that each would need.
fn service_fault(input: &PoolInput<'_>) -> Option<String> {
    let fault = input.up().next()?.fault().filter(|fault| fault.is_of_service())?;
    let is_same = |one: &SeenBox| one.fault().is_some_and(|other| other.code == fault.code);
    let up = input.up().count();
    let (boxes, take) =
        if up == 1 { ("the box that is", "takes") } else { ("all boxes that are", "take") };
    let text = format!("{boxes} up {take} no jobs: {}; another box would not help", fault.message);
    input.up().all(is_same).then_some(text)
}

/// How long the oldest job may wait before a box must start.
fn slack(policy: &QueuePolicy, input: &PoolInput<'_>) -> TimeDelta {
    (policy.max_wait - lead(input)).max(TimeDelta::zero())
}

/// How long before a job is to begin a box must start: the boot, a tick, since the next reconcile may be that late, and a margin for a
/// slow boot.
fn lead(input: &PoolInput<'_>) -> TimeDelta {
    input.boot + input.tick + input.boot / MARGIN_OF_BOOT
}

/// One box for each `jobs_per_box` jobs, or as many as clear the backlog within `max_wait` at the measured speed of one.
///
/// Boxes that are booting count as up: they will work on this backlog, and `boot_deadline` stops those that hang.
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
