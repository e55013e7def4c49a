//! `status`, `plan` and `explain`: observe and decide, and show it. Nothing is acted on and nothing written.

use gpuctl_control::plan as observe_and_decide;
use gpuctl_control::wire::explain::ExplainDocument;
use gpuctl_control::wire::plan::{PlanDocument, PoolPlanDocument, RunDocument};
use gpuctl_control::wire::status::{BoxDocument, QueueDocument, StatusDocument, state};
use gpuctl_control::wire::{Versioned, time};
use gpuctl_core::decide;
use gpuctl_core::observation::{Observation, Witness};
use gpuctl_core::plan::Plan;
use gpuctl_core::units::{PoolId, Timestamp};

use crate::context::Context;
use crate::failure::Failure;
use crate::render::Output;

/// `gpuctl status [POOL]`.
pub(crate) async fn status(context: &Context, pool: Option<&PoolId>) -> Result<Output, Failure> {
    Ok(Output::Status(status_document(context, pool).await?))
}

pub(crate) async fn status_document(
    context: &Context,
    pool: Option<&PoolId>,
) -> Result<Versioned<StatusDocument>, Failure> {
    let (observation, plan, errors) = look(context, pool).await?;
    Ok(StatusDocument::of(&observation, &plan, errors))
}

/// `gpuctl plan [POOL] [--at INSTANT]`.
pub(crate) async fn plan(
    context: &Context,
    pool: Option<&PoolId>,
    at: Option<Timestamp>,
) -> Result<Output, Failure> {
    let (observation, mut plan, errors) = look(context, pool).await?;
    if let Some(at) = at {
        plan = decide(&context.config.policy, &observation.moved_to(at));
        plan.pools.retain(|entry| pool.is_none_or(|id| entry.pool == *id));
    }
    Ok(Output::Plan(PlanDocument::of(&plan, errors)))
}

/// `gpuctl explain POOL`.
pub(crate) async fn explain(context: &Context, pool: &PoolId) -> Result<Output, Failure> {
    let (observation, plan, errors) = look(context, Some(pool)).await?;
    let at = observation.at;
    let (Some(seen), Some(plan)) = (observation.pools.get(pool), plan.pools.first()) else {
        return Err(Failure::new(format!("pool `{pool}` was not seen")));
    };
    let queue = seen.queue.as_ref().and_then(|queue| queue.value.as_ref());
    Ok(Output::Explain(Box::new(ExplainDocument {
        at: time(at),
        plan: PoolPlanDocument::of(plan),
        state: seen.boxes.value.as_deref().map_or("unknown", state),
        boxes: seen.boxes.value.iter().flatten().map(|one| BoxDocument::of(one, at)).collect(),
        queue: queue.map(|queue| QueueDocument::of(queue, at)),
        last_run: seen.runs.first().map(|run| RunDocument::of(run, at)),
        errors,
    })))
}

async fn look(
    context: &Context,
    pool: Option<&PoolId>,
) -> Result<(Observation, Plan, Vec<String>), Failure> {
    if let Some(id) = pool {
        context.pool(id)?;
    }
    let (observed, mut plan) =
        observe_and_decide(&context.ports, &context.config.policy, Witness::Controller).await;
    plan.pools.retain(|entry| pool.is_none_or(|id| entry.pool == *id));
    let errors = observed.errors.iter().map(ToString::to_string).collect();
    Ok((observed.observation, plan, errors))
}
