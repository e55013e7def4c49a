//! What users should be notified of: read off a reconcile, one sentence each, with a key by which it is sent once.
//!
//! It neither sends nor remembers: that is for the caller that has somewhere to send to.

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, Run, SeenBox, SeenPool};
use gpuctl_core::offering::RefusalClass;
use gpuctl_core::plan::{Effect, PoolPlan, Rule};
use gpuctl_core::policy::{Policy, Pool};
use gpuctl_core::units::{Timestamp, show_duration};

use crate::act::Acted;
use crate::ports::PortErrorClass;
use crate::reconciled::Reconciled;

/// How long the same notice is not sent again.
pub const NOTIFY_AGAIN_AFTER: TimeDelta = TimeDelta::hours(6);

/// A problem that users should be notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Equal for the same problem.
    pub key: String,
    /// A sentence that names the pool.
    pub text: String,
}

/// The notices that follow from this reconcile, also those that were sent before.
#[must_use]
pub fn notices(policy: &Policy, reconciled: &Reconciled) -> Vec<Notice> {
    let mut all = Vec::new();
    for plan in &reconciled.plan.pools {
        let (Some(pool), Some(seen)) =
            (policy.pool(&plan.pool), reconciled.observation.pools.get(&plan.pool))
        else {
            continue;
        };
        let of_pool = [
            late(pool, seen, reconciled.observation.at),
            dead(pool, seen),
            boot_loop(pool, seen, reconciled.observation.at),
            fell_back(pool, seen, reconciled.observation.at),
            blocked(plan),
            stuck(plan),
        ];
        all.extend(of_pool.into_iter().flatten());
        all.extend(faults(pool, seen));
    }
    all.extend(reconciled.acted.iter().filter_map(refused));
    all.extend(reconciled.errors.iter().filter(|error| error.class == PortErrorClass::Denied).map(
        |error| {
            let hint = error.hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default();
            Notice { key: format!("denied/{error}"), text: format!("{error}{hint}") }
        },
    ));
    all
}

/// A job has waited for longer than the user allows, and no box is ready.
fn late(pool: &Pool, seen: &SeenPool, at: Timestamp) -> Option<Notice> {
    let queue = pool.queue()?;
    let oldest = seen.queue.as_ref()?.value.as_ref()?.oldest_sent_at?;
    let ready = seen.boxes.value.iter().flatten().any(|one| one.state == BoxState::Running);
    let waited = at - oldest;
    // `max_wait = "0s"` means as soon as a box can be had: a boot is not a problem then.
    let allowed = queue.max_wait.max(pool.boot_deadline);
    (!ready && waited > allowed).then(|| Notice {
        key: format!("late/{}", pool.id),
        text: format!(
            "pool {}: the oldest job has waited for {}, max_wait is {}, and no box is ready",
            pool.id,
            show_duration(waited),
            show_duration(queue.max_wait)
        ),
    })
}

/// There are dead jobs (Q7). More of them are no new notice.
fn dead(pool: &Pool, seen: &SeenPool) -> Option<Notice> {
    let dead = seen.queue.as_ref()?.value.as_ref()?.dead;
    (dead > 0).then(|| Notice {
        key: format!("dead/{}", pool.id),
        text: format!("pool {}: {dead} dead jobs; `gpuctl jobs --state dead` shows them", pool.id),
    })
}

/// This many starts in a row that fail are a boot loop.
const BOOT_LOOP_STARTS: usize = 3;

/// Boxes start in vain again and again, at growing intervals.
fn boot_loop(pool: &Pool, seen: &SeenPool, at: Timestamp) -> Option<Notice> {
    let ended = seen.runs.iter().filter(|run| run.refusal.is_none() && run.stopped_at.is_some());
    let row: Vec<&Run> = ended.take_while(|run| run.failed()).collect();
    let last = row.first().filter(|_| row.len() >= BOOT_LOOP_STARTS)?;
    if at - last.started_at > NOTIFY_AGAIN_AFTER {
        return None;
    }
    let error = last.error.as_deref().unwrap_or("the reason is not known");
    Some(Notice {
        key: format!("boot-loop/{}", pool.id),
        text: format!(
            "pool {}: the last {} starts failed ({error}); each further one waits longer, up to hours",
            pool.id,
            row.len()
        ),
    })
}

/// Boxes that are up and take no jobs.
fn faults(pool: &Pool, seen: &SeenPool) -> Vec<Notice> {
    let faulty = seen.boxes.value.iter().flatten().filter(|one| one.is_up());
    let notice = |one: &SeenBox| {
        let text = format!("pool {}: {}", pool.id, one.fault_text()?);
        Some(Notice { key: format!("fault/{}", one.id), text })
    };
    faulty.filter_map(notice).collect()
}

/// A start that the cloud had accepted failed (S1).
fn fell_back(pool: &Pool, seen: &SeenPool, at: Timestamp) -> Option<Notice> {
    let recent = |run: &&Run| run.failed_to_start() && at - run.started_at < NOTIFY_AGAIN_AFTER;
    let run = seen.runs.iter().find(recent)?;
    let error = run.error.as_deref().unwrap_or("the reason is not known");
    Some(Notice {
        key: format!("fell-back/{}", run.box_id),
        text: format!("pool {}: box {} did not start: {error}", pool.id, run.box_id),
    })
}

/// The budget or a lack of capacity keeps a wanted box from starting.
fn blocked(plan: &PoolPlan) -> Option<Notice> {
    let reason =
        plan.blocked.iter().find(|reason| matches!(reason.rule, Rule::Budget | Rule::Capacity))?;
    Some(Notice {
        key: format!("{}/{}", reason.rule.as_str(), plan.pool),
        text: format!("pool {}: {}", plan.pool, reason.text),
    })
}

/// A box exceeded a limit and is stopped.
fn stuck(plan: &PoolPlan) -> Option<Notice> {
    let verdict = plan
        .verdicts
        .iter()
        .find(|verdict| verdict.reason.rule == Rule::Limits && verdict.effect == Effect::Stop)?;
    Some(Notice {
        key: format!("stuck/{}", plan.pool),
        text: format!("pool {}: a box is stopped for a limit: {}", plan.pool, verdict.reason.text),
    })
}

/// A quota does not grow by waiting (P9).
fn refused(done: &Acted) -> Option<Notice> {
    let error = done.result.as_ref().err()?;
    if error.class != PortErrorClass::Refused(RefusalClass::Quota) {
        return None;
    }
    let hint = error.hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default();
    Some(Notice {
        key: format!("quota/{}/{}", done.pool, done.action.box_id()),
        text: format!("pool {}: {error}{hint}", done.pool),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gpuctl_core::decide;
    use gpuctl_core::observation::{
        Observation, Seen, SeenQueue, SeenWorker, Witness, WorkerFault,
    };
    use gpuctl_core::plan::Reason;
    use gpuctl_core::units::{BoxId, PoolId};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn pool_id() -> PoolId {
        "gpu".parse().unwrap()
    }

    fn keys(now: i64, dead: u64, one: SeenBox, runs: Vec<Run>) -> Vec<(String, String)> {
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap();
        let queue = SeenQueue { dead, ..SeenQueue::default() };
        let seen = SeenPool {
            boxes: Seen::now(vec![one], at(now)),
            queue: Some(Seen::now(queue, at(now))),
            urgent: None,
            hold: None,
            runs,
            service: None,
            spent: None,
        };
        let pools = BTreeMap::from([(pool_id(), seen)]);
        let observation = Observation { at: at(now), witness: Witness::Controller, pools };
        let plan = decide(&policy, &observation);
        let reconciled = Reconciled { observation, errors: Vec::new(), plan, acted: Vec::new() };
        let all = notices(&policy, &reconciled);
        all.into_iter().map(|notice| (notice.key, notice.text)).collect()
    }

    fn failed(started: i64) -> Run {
        let id = BoxId::of_pool(&pool_id(), 1);
        Run {
            stopped_at: Some(at(started + 300)),
            error: Some("no GPU".to_owned()),
            ..Run::begin(pool_id(), id, at(started), Reason::new(Rule::Demand, "1 job waits"))
        }
    }

    fn stopped() -> SeenBox {
        SeenBox::new(BoxId::of_pool(&pool_id(), 1), BoxState::Stopped, at(0))
    }

    #[test]
    fn a_problem_that_goes_on_keeps_its_key() {
        let first = keys(2_000, 1, stopped(), vec![failed(900), failed(600), failed(0)]);
        let later =
            keys(3_000, 7, stopped(), vec![failed(2_500), failed(900), failed(600), failed(0)]);
        let only_keys = |all: &[(String, String)]| -> Vec<String> {
            all.iter().map(|(key, _)| key.clone()).collect()
        };
        assert_eq!(only_keys(&first), ["dead/gpu", "boot-loop/gpu", "fell-back/gpu-1"]);
        assert_eq!(
            only_keys(&later),
            only_keys(&first),
            "one in six hours, not one a start or job"
        );
        assert!(later[1].1.contains("the last 4 starts failed (no GPU)"), "{later:?}");
    }

    #[test]
    fn a_box_that_takes_no_jobs_is_named() {
        let fault = WorkerFault {
            code: "models.missing".to_owned(),
            message: "models missing".to_owned(),
            since: "2027-01-15T10:02:00Z".parse().unwrap(),
        };
        let worker = SeenWorker {
            heard_at: at(0),
            leases: 0,
            idle_since: None,
            jobs_done: 0,
            fault: Some(fault),
            keep_until: None,
        };
        let one = SeenBox { worker: Some(worker), state: BoxState::Running, ..stopped() };
        let expected = "pool gpu: gpu-1 takes no jobs: models missing since 10:02 UTC";
        assert_eq!(keys(9, 0, one, vec![]), [("fault/gpu-1".to_owned(), expected.to_owned())]);
    }
}
