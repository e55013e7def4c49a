//! Reconcile: observe → decide → act → record, once, under a lease. CLI, daemon and function all come through here.
//!
//! It takes no hint of what changed: the trigger is recorded and never looked at, so that there is one path, always exercised.

use gpuctl_core::decide;
use gpuctl_core::observation::Witness;
use gpuctl_core::plan::Plan;
use gpuctl_core::policy::Policy;
use gpuctl_core::refusals::REFUSALS_MAX;
use gpuctl_core::units::Timestamp;

use crate::act::{Acted, act};
use crate::log::shown;
use crate::observe::{Observed, observe};
use crate::ports::{Fence, LEASE_LASTS, PortError, PortErrorClass, Ports};
use crate::reconciled::{Reconciled, Trigger};
use crate::text::with_causes;
use crate::wire::plan::verb;

/// Reconciles once; `None` if another controller holds the lease. That one may have observed before the caller's own change, so a
/// caller that has just made one tries again.
///
/// # Errors
/// When the ledger cannot be reached; nothing was done then. Failed parts and actions are in the `Reconciled`.
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
    let reconciled = reconcile_until_not_refused(ports, policy, caller.trigger, &fence).await;
    ports.ledger.release(&fence).await?;
    reconciled.map(Some)
}

/// Reconciles, and again at once whenever the cloud refused a start for want of capacity: the next offering must not wait for the
/// next tick. Each refusal is in the ledger by then, so no offering is asked for twice.
async fn reconcile_until_not_refused(
    ports: &Ports,
    policy: &Policy,
    trigger: Trigger,
    fence: &Fence,
) -> Result<Reconciled, PortError> {
    let mut left = REFUSALS_MAX;
    loop {
        let reconciled = reconcile_once(ports, policy, fence).await;
        ports.ledger.record(&reconciled.record(trigger, &fence.owner)).await?;
        left -= 1;
        let is_refused = reconciled.acted.iter().any(is_refused);
        if left == 0 || !is_refused || ports.clock.now() >= fence.until {
            return Ok(reconciled);
        }
    }
}

fn is_refused(acted: &Acted) -> bool {
    let class = acted.result.as_ref().err().map(|error| error.class);
    matches!(class, Some(PortErrorClass::Refused(_)))
}

async fn reconcile_once(ports: &Ports, policy: &Policy, fence: &Fence) -> Reconciled {
    let (mut observed, plan) = plan(ports, policy, Witness::Controller).await;
    // What cannot be remembered is seen again; it must not keep a box from being stopped.
    if let Err(error) = observed.remember(ports).await {
        observed.errors.push(error);
    }
    let acted = act(ports, &observed.observation, &plan, fence.until).await;
    match ports.cloud.cancel_orphans().await {
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
