//! Reconcile: observe → decide → act → record, once, under a lease. The CLI, the daemon and the Lambda all come through here.
//!
//! It takes no hint of what changed: the trigger is recorded and never looked at, so that there is one path, always exercised.

use gpuctl_core::decide;
use gpuctl_core::observation::{Observation, Witness};
use gpuctl_core::plan::Plan;
use gpuctl_core::policy::Policy;
use gpuctl_core::refusals::REFUSALS_MAX;
use gpuctl_core::units::Timestamp;

use crate::act::{Acted, act};
use crate::observe::{Observed, observe};
use crate::ports::{Fence, LEASE_LASTS, PortError, PortErrorClass, Ports};
use crate::wire::record::Record;

/// Why a reconcile ran: for the record only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Time passed.
    Tick,
    /// Something was written to the queue or the ledger.
    Change,
    /// A person gave a command.
    Command,
    /// A box changed its state, or is about to be taken back.
    Box,
    /// A message or an alarm asked to look sooner than the next tick.
    Wakeup,
    /// Something that gpuctl does not know: it looks all the same.
    Unknown,
}

impl Trigger {
    /// The trigger's name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Change => "change",
            Self::Command => "command",
            Self::Box => "box",
            Self::Wakeup => "wakeup",
            Self::Unknown => "unknown",
        }
    }
}

/// What one reconcile saw, decided and did.
#[derive(Debug)]
pub struct Reconciled {
    /// What was seen.
    pub observation: Observation,
    /// The parts that could not be read.
    pub errors: Vec<PortError>,
    /// What was decided.
    pub plan: Plan,
    /// What was done.
    pub acted: Vec<Acted>,
}

/// One reconcile, or `None` if another controller is at it. That reconcile may have looked before the caller's own change: who
/// has just made one tries again.
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
    /// Its name.
    pub owner: &'a str,
    /// Why it runs.
    pub trigger: Trigger,
    /// When it will be cut off: nothing is begun that could not be recorded by then (L6).
    pub until: Option<Timestamp>,
}

/// `reconcile`, for a caller who may be cut off.
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
    let reconciled = until_granted(ports, policy, caller.trigger, &fence).await;
    ports.ledger.release(&fence).await?;
    reconciled.map(Some)
}

/// One reconcile, and another at once whenever the cloud refused a start for want of capacity: the next offering must not wait
/// for the next tick. Each refusal is in the ledger by then, so no offering is asked twice.
async fn until_granted(
    ports: &Ports,
    policy: &Policy,
    trigger: Trigger,
    fence: &Fence,
) -> Result<Reconciled, PortError> {
    let mut left = REFUSALS_MAX;
    loop {
        let reconciled = reconcile_once(ports, policy, fence).await;
        ports.ledger.record(&Record::of(&reconciled, trigger, &fence.owner)).await?;
        left -= 1;
        let refused = |done: &Acted| matches!(&done.result, Err(error) if matches!(error.class, PortErrorClass::Refused(_)));
        if left == 0 || !reconciled.acted.iter().any(refused) || ports.clock.now() >= fence.until {
            return Ok(reconciled);
        }
    }
}

async fn reconcile_once(ports: &Ports, policy: &Policy, fence: &Fence) -> Reconciled {
    let (mut observed, plan) = plan(ports, policy, Witness::Controller).await;
    // What cannot be remembered is seen again; it must not keep a box from being stopped.
    if let Err(error) = observed.remember(ports).await {
        observed.errors.push(error);
    }
    let acted = act(ports, &observed.observation, &plan, fence.until).await;
    match ports.cloud.cancel_orphans().await {
        Ok(cancelled) => cancelled.iter().for_each(|what| tracing::info!("{what}")),
        Err(error) => observed.errors.push(error),
    }
    for done in &acted {
        let (verb, reason) = (crate::wire::plan::verb(&done.action), done.action.reason());
        match &done.result {
            Ok(()) => {
                tracing::info!(pool = %done.pool, r#box = %done.action.box_id(), rule = reason.rule.as_str(), "{verb}: {}", reason.text);
            }
            Err(error) => {
                tracing::warn!(pool = %done.pool, r#box = %done.action.box_id(), rule = reason.rule.as_str(), %error, "{verb} failed: {}", reason.text);
            }
        }
    }
    Reconciled { observation: observed.observation, errors: observed.errors, plan, acted }
}

/// Observe and decide, without acting or writing anything: `plan`, `explain`, `status`, and the worker's own look.
pub async fn plan(ports: &Ports, policy: &Policy, witness: Witness) -> (Observed, Plan) {
    let observed = observe(ports, policy, witness).await;
    let plan = decide(policy, &observed.observation);
    (observed, plan)
}
