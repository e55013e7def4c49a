//! What users should be notified of: read off a reconcile, one sentence each, with a key by which it is sent once.
//!
//! It neither sends nor remembers: that is for the caller that has somewhere to send to.

use chrono::TimeDelta;
use gpuctl_core::observation::{BoxState, Run, SeenPool};
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
            fell_back(pool, seen, reconciled.observation.at),
            blocked(plan),
            stuck(plan),
        ];
        all.extend(of_pool.into_iter().flatten());
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

/// Each new number of dead jobs is one notice (Q7).
fn dead(pool: &Pool, seen: &SeenPool) -> Option<Notice> {
    let dead = seen.queue.as_ref()?.value.as_ref()?.dead;
    (dead > 0).then(|| Notice {
        key: format!("dead/{}/{dead}", pool.id),
        text: format!("pool {}: {dead} dead jobs; `gpuctl jobs --state dead` shows them", pool.id),
    })
}

/// A start that the cloud had accepted failed (S1).
fn fell_back(pool: &Pool, seen: &SeenPool, at: Timestamp) -> Option<Notice> {
    let recent = |run: &&Run| run.failed_to_start() && at - run.started_at < NOTIFY_AGAIN_AFTER;
    let run = seen.runs.iter().find(recent)?;
    let error = run.error.as_deref().unwrap_or("the reason is not known");
    Some(Notice {
        key: format!("fell-back/{}/{}", run.box_id, run.started_at.timestamp()),
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
