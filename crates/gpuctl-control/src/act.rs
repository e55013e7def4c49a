//! Act: carry out a plan's actions, each once, each noted in the ledger before the world is asked.
//!
//! Nothing is retried here: the next reconcile sees what came of it and decides anew.

use gpuctl_core::observation::{Observation, Run, SeenPool};
use gpuctl_core::offering::{Offering, Refusal};
use gpuctl_core::plan::{Action, Plan};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};

use crate::ports::{PortError, PortErrorClass, Ports, StartOrder};

/// An action and what came of it.
#[derive(Debug)]
pub struct Acted {
    /// The pool.
    pub pool: PoolId,
    /// The action.
    pub action: Action,
    /// What came of it.
    pub result: Result<(), PortError>,
}

/// Carries out every action of the plan; one that fails does not keep the others. Past `until` nothing is begun.
pub async fn act(ports: &Ports, seen: &Observation, plan: &Plan, until: Timestamp) -> Vec<Acted> {
    let mut acted = Vec::new();
    for pool in &plan.pools {
        let Some(seen) = seen.pools.get(&pool.pool) else { continue };
        for action in &pool.actions {
            let result = if ports.clock.now() < until {
                carry_out(ports, (&pool.pool, seen), action, until).await
            } else {
                Err(too_late())
            };
            acted.push(Acted { pool: pool.pool.clone(), action: action.clone(), result });
        }
    }
    acted
}

async fn carry_out(
    ports: &Ports,
    (pool, seen): (&PoolId, &SeenPool),
    action: &Action,
    until: Timestamp,
) -> Result<(), PortError> {
    let last = seen.runs.iter().find(|run| run.box_id == *action.box_id());
    match action {
        Action::Start { box_id, reason } => {
            let at = ports.clock.now();
            let wanted = offering(seen, box_id);
            let run = Run {
                offering: wanted.clone().filter(|offering| !offering.is_unplaced()),
                ..Run::begin(pool.clone(), box_id.clone(), at, reason.clone())
            };
            // Equal for every try to follow the same earlier run, so that one order given twice starts one box (R4).
            let generation = last.map_or(0, |run| run.started_at.timestamp_micros());
            let token = format!("{pool}/{box_id}/{generation}");
            ports.ledger.save_run(&run).await?;
            let order = StartOrder { pool: pool.clone(), box_id: box_id.clone(), at, token };
            // Noting it may have taken until another controller acts.
            let started = if ports.clock.now() < until {
                ports.cloud.start(&order).await
            } else {
                Err(too_late())
            };
            if let Err(error) = &started
                && may_have_begun(error)
            {
                // The answer is missing, not the box: the next look sees what came of it, and a run that never began ends then.
                tracing::warn!(r#box = %box_id, %error, "it is not known whether the start was taken");
            } else if let Err(error) = &started {
                let failed = Run {
                    // Ended as it began: nothing ran, and nothing is billed.
                    stopped_at: Some(at),
                    error: Some(error.to_string()),
                    refusal: refusal(error),
                    offering: wanted,
                    ..run
                };
                ports.ledger.save_run(&failed).await?;
            }
            started
        }
        Action::Stop { box_id, mode, reason } => {
            if let Some(run) = last.filter(|run| run.stopped_at.is_none()) {
                let stopping_at = Some(ports.clock.now());
                let stopping = Run { stopping_at, stop: Some(reason.clone()), ..run.clone() };
                // A ledger that cannot be written must not keep a box on.
                if let Err(error) = ports.ledger.save_run(&stopping).await {
                    tracing::warn!(r#box = %box_id, %error, "the stop could not be noted");
                }
            }
            ports.cloud.stop(box_id, *mode).await
        }
    }
}

/// Whether a start may be under way although it failed for us.
fn may_have_begun(error: &PortError) -> bool {
    error.class == PortErrorClass::Unavailable
}

fn too_late() -> PortError {
    let text = "the pass took too long: another may be acting by now";
    PortError::new(PortErrorClass::LeaseLost, text)
}

fn offering(seen: &SeenPool, box_id: &BoxId) -> Option<Offering> {
    seen.boxes.value.iter().flatten().find(|one| one.id == *box_id)?.offering.clone()
}

/// A start that the cloud refused for want of capacity is remembered as such, with its own words: they name other zones.
fn refusal(error: &PortError) -> Option<Refusal> {
    let PortErrorClass::Refused(class) = error.class else { return None };
    let text = error.cause.as_ref().map_or_else(|| error.what.clone(), ToString::to_string);
    Some(Refusal { class, text })
}
