//! Act: carry out a plan's actions, each once, each noted in the ledger before the cloud is asked.
//!
//! Nothing is retried here: the next reconcile sees what came of it and decides again. Nothing is ordered after the end of the right
//! to act: by then another controller may be acting.

use std::time::Duration;

use gpuctl_core::observation::{Observation, Run, SeenPool};
use gpuctl_core::offering::{Offering, Refusal};
use gpuctl_core::plan::{Action, Plan, Reason, StopMode};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_core::without::Fix;

use crate::log::shown;
use crate::ports::{Fence, PortError, PortErrorClass, Ports, StartOrder};
use crate::text::with_causes;

/// An action and what came of it.
#[derive(Debug)]
pub struct Acted {
    /// The pool of the box.
    pub pool: PoolId,
    /// As the plan has it.
    pub action: Action,
    /// Whether the cloud accepted it. A start that it accepted may still fail.
    pub result: Result<(), PortError>,
}

/// What allows a process to act, and until when.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// A controller's lease.
    Lease(&'a Fence),
    /// A worker's right to stop its own box: it has no lease, and acts no later than this.
    OwnBox { until: Timestamp },
}

impl<'a> Right<'a> {
    fn until(self) -> Timestamp {
        match self {
            Self::Lease(fence) => fence.until,
            Self::OwnBox { until } => until,
        }
    }

    pub(crate) fn fence(self) -> Option<&'a Fence> {
        match self {
            Self::Lease(fence) => (!Fix::UnfencedWrites.is_left_out()).then_some(fence),
            Self::OwnBox { .. } => None,
        }
    }

    /// How much of it is left.
    ///
    /// # Errors
    /// `LeaseLost` when it is over.
    fn left(self, ports: &Ports) -> Result<Duration, PortError> {
        let left = self.until() - ports.clock.now();
        left.to_std().ok().filter(|left| !left.is_zero()).ok_or_else(|| {
            let text = "the reconcile took too long: another may be acting by now";
            PortError::new(PortErrorClass::LeaseLost, text)
        })
    }

    /// Makes a call to the cloud, with its retries, while the right lasts: it is not begun afterwards, and is cut off at the end.
    ///
    /// # Errors
    /// The call's, `LeaseLost` if it was not begun, or `Unavailable` if it was cut off: whether it took effect is not known then.
    pub(crate) async fn call<T>(
        self,
        ports: &Ports,
        call: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        match tokio::time::timeout(self.left(ports)?, call).await {
            Ok(result) => result,
            Err(_) => {
                let text = "the cloud did not answer before the end of the reconcile's lease";
                Err(PortError::new(PortErrorClass::Unavailable, text))
            }
        }
    }
}

impl<'a> From<&'a Fence> for Right<'a> {
    fn from(fence: &'a Fence) -> Self {
        Self::Lease(fence)
    }
}

impl From<Timestamp> for Right<'_> {
    fn from(until: Timestamp) -> Self {
        Self::OwnBox { until }
    }
}

/// Carries out every action of the plan; one that fails does not keep the others. After the end of the right nothing is ordered.
pub async fn act<'a>(
    ports: &Ports,
    seen: &Observation,
    plan: &Plan,
    right: impl Into<Right<'a>>,
) -> Vec<Acted> {
    let right = right.into();
    let mut acted = Vec::new();
    for plan in &plan.pools {
        let Some(seen) = seen.pools.get(&plan.pool) else { continue };
        let actor = Actor { ports, pool: &plan.pool, seen, right };
        for action in &plan.actions {
            let result = actor.carry_out(action).await;
            acted.push(Acted { pool: plan.pool.clone(), action: action.clone(), result });
        }
    }
    acted
}

/// Acts on the boxes of one pool.
struct Actor<'a> {
    ports: &'a Ports,
    pool: &'a PoolId,
    seen: &'a SeenPool,
    right: Right<'a>,
}

impl Actor<'_> {
    async fn carry_out(&self, action: &Action) -> Result<(), PortError> {
        self.right.left(self.ports)?;
        match action {
            Action::Start { box_id, reason } => self.start(box_id, reason).await,
            Action::Stop { box_id, mode, reason } => self.stop(box_id, *mode, reason).await,
        }
    }

    async fn start(&self, box_id: &BoxId, reason: &Reason) -> Result<(), PortError> {
        let at = self.ports.clock.now();
        let wanted = self.offering(box_id);
        let run = Run {
            offering: wanted.clone().filter(|offering| !offering.is_unplaced()),
            ..Run::begin(self.pool.clone(), box_id.clone(), at, reason.clone())
        };
        self.ports.ledger.save_run(&run, self.right.fence()).await?;
        let order = self.order(box_id, at);
        let started = self.right.call(self.ports, self.ports.cloud.start(&order)).await;
        match &started {
            Ok(()) => {}
            Err(error) if may_have_begun(error) => {
                // The response is missing, not the box: the next reconcile sees what came of it, and ends a run that never began.
                let error = with_causes(error);
                tracing::warn!(r#box = %box_id, error = %shown(error), "whether the start was accepted is not known");
            }
            Err(error) => {
                let failed = Run {
                    // Ended when it began: nothing ran, and nothing is billed.
                    stopped_at: Some(at),
                    error: Some(error.to_string()),
                    refusal: refusal(error),
                    offering: wanted,
                    ..run
                };
                self.ports.ledger.save_run(&failed, self.right.fence()).await?;
            }
        }
        started
    }

    async fn stop(&self, box_id: &BoxId, mode: StopMode, reason: &Reason) -> Result<(), PortError> {
        if let Some(run) = self.last_run(box_id).filter(|run| run.stopped_at.is_none()) {
            let stopping_at = Some(self.ports.clock.now());
            let stopping = Run { stopping_at, stop: Some(reason.clone()), ..run.clone() };
            match self.ports.ledger.save_run(&stopping, self.right.fence()).await {
                Ok(()) => {}
                Err(error) if error.class == PortErrorClass::Conflict => {
                    let text = "another controller has taken over";
                    return Err(PortError::new(PortErrorClass::LeaseLost, text).because(error));
                }
                // A ledger that cannot be written must not keep a box on.
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(r#box = %box_id, error = %shown(error), "the stop could not be noted");
                }
            }
        }
        if mode == StopMode::Retire {
            return self.right.call(self.ports, self.ports.cloud.retire(box_id)).await;
        }
        if Fix::StopAfterLease.is_left_out() {
            return self.ports.cloud.stop(box_id, mode).await;
        }
        self.right.call(self.ports, self.ports.cloud.stop(box_id, mode)).await
    }

    /// The token is equal for every try that follows the same earlier run, so that an order given twice starts one box (R4).
    fn order(&self, box_id: &BoxId, at: Timestamp) -> StartOrder {
        let (pool, last) = (self.pool, self.last_run(box_id));
        let generation = last.map_or(0, |run| run.started_at.timestamp_micros());
        let token = format!("{pool}/{box_id}/{generation}");
        StartOrder { pool: pool.clone(), box_id: box_id.clone(), at, token }
    }

    fn last_run(&self, box_id: &BoxId) -> Option<&Run> {
        self.seen.runs.iter().find(|run| run.box_id == *box_id)
    }

    fn offering(&self, box_id: &BoxId) -> Option<Offering> {
        let mut boxes = self.seen.boxes.value.iter().flatten();
        boxes.find(|one| one.id == *box_id)?.offering.clone()
    }
}

/// Whether the box of a start that failed for us may be starting all the same.
fn may_have_begun(error: &PortError) -> bool {
    error.class == PortErrorClass::Unavailable
}

/// A start that the cloud refused for want of capacity is kept as such, with the cloud's message, which names other zones.
fn refusal(error: &PortError) -> Option<Refusal> {
    let PortErrorClass::Refused(class) = error.class else { return None };
    let text = error.cause.as_ref().map_or_else(|| error.what.clone(), ToString::to_string);
    Some(Refusal { class, text })
}
