//! Reconcile: observe → decide → act → record, under a lease. CLI, daemon and function all come through here.
//!
//! It takes no hint of what changed: the trigger is recorded and never looked at, so that there is one path, always exercised.

use gpuctl_core::decide;
use gpuctl_core::observation::Witness;
use gpuctl_core::plan::Plan;
use gpuctl_core::policy::Policy;
use gpuctl_core::refusals::REFUSALS_MAX;
use gpuctl_core::units::Timestamp;

use crate::act::{Acted, Right, act};
use crate::log::shown;
use crate::observe::{Observed, observe};
use crate::ports::{Fence, LEASE_LASTS, PortError, PortErrorClass, Ports};
use crate::reconciled::{Reconciled, Trigger};
use crate::scheduled::submit_due;
use crate::text::with_causes;
use crate::wire::plan::verb;

/// Reconciles; `None` if another controller holds the lease. A caller that has just written a hold or a job tries again then: the
/// other controller may have observed before it.
///
/// # Errors
/// The lease could not be taken: nothing was done. Or the record could not be written, or the lease not released: actions may have
/// been carried out, and each is in its run. Reads and actions that failed are in the `Reconciled`.
pub async fn reconcile(
    ports: &Ports,
    policy: &Policy,
    trigger: Trigger,
    owner: &str,
) -> Result<Option<Reconciled>, PortError> {
    let caller = Caller { owner, trigger, until: None };
    reconcile_for(ports, policy, &caller).await
}

/// Who reconciles, and by when it must be done.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The controller's name, for the lease and the record.
    pub owner: &'a str,
    pub trigger: Trigger,
    /// When it will be cut off: nothing is begun that could not be recorded by then (L6).
    pub until: Option<Timestamp>,
}

/// `reconcile`, for a caller that may be cut off.
///
/// # Errors
/// As `reconcile`.
pub async fn reconcile_for(
    ports: &Ports,
    policy: &Policy,
    caller: &Caller<'_>,
) -> Result<Option<Reconciled>, PortError> {
    let Some(mut fence) = ports.ledger.lease(caller.owner, LEASE_LASTS).await? else {
        return Ok(None);
    };
    fence.until = caller.until.map_or(fence.until, |until| until.min(fence.until));
    reconcile_with_fallback(ports, policy, caller.trigger, &fence).await.map(Some)
}

/// Reconciles, and again at once after a start that the cloud refused, at most `REFUSALS_MAX` times: the next offering must not wait
/// for the next tick. Each refusal is in the ledger by then, so no offering is asked for twice. The right is released with the last record.
async fn reconcile_with_fallback(
    ports: &Ports,
    policy: &Policy,
    trigger: Trigger,
    fence: &Fence,
) -> Result<Reconciled, PortError> {
    let mut left = REFUSALS_MAX;
    loop {
        let reconciled = reconcile_once(ports, policy, fence).await;
        let record = reconciled.record(trigger, &fence.owner);
        left -= 1;
        let is_refused = reconciled.acted.iter().any(is_refused);
        if left == 0 || !is_refused || ports.clock.now() >= fence.until {
            ports.ledger.finish(&record, fence).await?;
            return Ok(reconciled);
        }
        if let Err(error) = ports.ledger.record(&record, fence).await {
            ports.ledger.release(fence).await?;
            return Err(error);
        }
    }
}

fn is_refused(acted: &Acted) -> bool {
    let class = acted.result.as_ref().err().map(|error| error.class);
    matches!(class, Some(PortErrorClass::Refused(_)))
}

async fn reconcile_once(ports: &Ports, policy: &Policy, fence: &Fence) -> Reconciled {
    // Before it is observed, so that what is submitted counts at once.
    let not_submitted = submit_due(ports, policy, ports.clock.now()).await;
    let (mut observed, plan) = plan(ports, policy, Witness::Controller).await;
    observed.errors.extend(not_submitted);
    // If this write fails, the next reconcile observes the same facts: a stop must not wait for it.
    let failed = observed.remember(ports, Right::Lease(fence).fence()).await;
    observed.errors.extend(failed);
    let acted = act(ports, &observed.observation, &plan, fence).await;
    // A spot request without a box would start one later, which no one asked for (P15).
    match Right::Lease(fence).call(ports, ports.cloud.cancel_orphans()).await {
        Ok(cancelled) => cancelled.iter().for_each(|what| tracing::info!("{}", shown(what))),
        Err(error) => observed.errors.push(error),
    }
    acted.iter().for_each(log);
    Reconciled { observation: observed.observation, errors: observed.errors, plan, acted }
}

fn log(acted: &Acted) {
    let (verb, reason) = (verb(&acted.action), acted.action.reason());
    let (rule, text) = (reason.rule.as_str(), shown(&reason.text));
    let (pool, box_id) = (&acted.pool, acted.action.box_id());
    match &acted.result {
        Ok(()) => tracing::info!(%pool, r#box = %box_id, rule, "{verb}: {text}"),
        Err(error) => {
            let error = with_causes(error);
            tracing::warn!(%pool, r#box = %box_id, rule, error = %shown(error), "{verb} failed: {text}");
        }
    }
}

/// Observes and decides, without acting or writing anything: for `plan`, `explain`, `status`, and the worker's own reconcile.
pub async fn plan(ports: &Ports, policy: &Policy, witness: Witness) -> (Observed, Plan) {
    let observed = observe(ports, policy, witness).await;
    let plan = decide(policy, &observed.observation);
    (observed, plan)
}

#[cfg(test)]
mod tests;
