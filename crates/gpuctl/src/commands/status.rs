//! `status`, `plan` and `explain`: observe and decide, and show it. They act on nothing and write nothing.
//!
//! A command that has reconciled shows the status of that reconcile: a second observation would read everything from AWS again.

use gpuctl_control::Reconciled;
use gpuctl_control::act::Acted;
use gpuctl_control::plan as observe_and_decide;
use gpuctl_control::spending;
use gpuctl_control::wire::explain::ExplainDocument;
use gpuctl_control::wire::plan::{PlanDocument, SubmitDocument};
use gpuctl_control::wire::status::StatusDocument;
use gpuctl_core::decide;
use gpuctl_core::observation::{BoxState, Observation, Run, SeenPool, Witness};
use gpuctl_core::plan::{Action, Plan};
use gpuctl_core::units::{PoolId, Timestamp};

use crate::arguments::PlanArguments;
use crate::context::Context;
use crate::failure::{Code, Exit, Failure};
use crate::render::Output;

/// `gpuctl status [POOL]`.
pub(super) async fn status(context: &Context, pool: Option<&PoolId>) -> Result<Output, Failure> {
    let seen = observe(context, pool).await?;
    let policy = &context.config.policy;
    let mut status = StatusDocument::of(&seen.observation, &seen.plan, &policy.cost, seen.errors);
    let spending = spending::of_pools(&*context.ports.ledger, policy, &seen.observation);
    let document = &mut status.document;
    let (outdated, spending) = tokio::join!(context.outdated(), spending);
    match outdated {
        Ok(found) => document.note_outdated(&found),
        Err(error) => document.errors.push(error.to_string()),
    }
    match spending {
        Ok(spending) => document.note_spending(&spending),
        Err(error) => document.errors.push(error.to_string()),
    }
    document.config = Some(context.config.source());
    document.config_not_used = context.config.not_used().map(|file| file.display().to_string());
    document.state = context
        .config
        .policy
        .cloud
        .aws
        .is_none()
        .then(|| context.config.state.display().to_string());
    Ok(Output::Status(status))
}

/// The status of some pools after a reconcile: what it observed, and what its actions changed.
pub(super) fn of_reconciled(
    context: &Context,
    reconciled: &Reconciled,
    pools: &[PoolId],
) -> Output {
    let mut observation = reconciled.observation.clone();
    for acted in reconciled.acted.iter().filter(|acted| acted.result.is_ok()) {
        if let Some(seen) = observation.pools.get_mut(&acted.pool) {
            apply(seen, acted, reconciled.observation.at);
        }
    }
    let mut plan = reconciled.plan.clone();
    plan.pools.retain(|plan| pools.contains(&plan.pool));
    let errors = reconciled.errors.iter().map(ToString::to_string).collect();
    Output::Status(StatusDocument::of(&observation, &plan, &context.config.policy.cost, errors))
}

/// What a successful action changes: the box's state and its run.
fn apply(seen: &mut SeenPool, acted: &Acted, at: Timestamp) {
    let box_id = acted.action.box_id();
    let boxes = seen.boxes.value.iter_mut().flatten();
    for one in boxes.filter(|one| one.id == *box_id) {
        one.state = match acted.action {
            Action::Start { .. } => BoxState::Pending,
            Action::Stop { .. } => BoxState::Stopping,
        };
        one.since = at;
    }
    match &acted.action {
        Action::Start { reason, .. } => {
            let run = Run::begin(acted.pool.clone(), box_id.clone(), at, reason.clone());
            seen.runs.insert(0, run);
        }
        Action::Stop { reason, .. } => {
            if let Some(run) = seen.runs.iter_mut().find(|run| run.box_id == *box_id) {
                run.stop = Some(reason.clone());
            }
        }
    }
}

/// `gpuctl plan [POOL] [--at TIME]`.
pub(super) async fn plan(context: &Context, wanted: &PlanArguments) -> Result<Output, Failure> {
    let at = wanted.at.as_ref().map(|at| context.time(at)).transpose()?;
    let pool = wanted.pool.as_ref();
    let mut seen = observe(context, pool).await?;
    if let Some(at) = at {
        seen.plan = decide(&context.config.policy, &seen.observation.moved_to(at));
        seen.plan.pools.retain(|entry| pool.is_none_or(|id| entry.pool == *id));
    }
    let is_pending = seen.plan.pools.iter().any(|pool| !pool.actions.is_empty());
    let submits = SubmitDocument::all(&context.config.policy, pool, seen.plan.at);
    let output = Output::Plan(PlanDocument::of(&seen.plan, submits, seen.errors));
    Ok(if wanted.exit_code && is_pending { output.exit(Exit::ChangesPending) } else { output })
}

/// `gpuctl explain POOL`.
pub(super) async fn explain_pool(context: &Context, pool: &PoolId) -> Result<Output, Failure> {
    let seen = observe(context, Some(pool)).await?;
    let at = seen.observation.at;
    let (Some(found), Some(plan)) = (seen.observation.pools.get(pool), seen.plan.pools.first())
    else {
        return Err(Failure::new(Code::PoolUnread, format!("pool `{pool}` could not be read")));
    };
    Ok(Output::Explain(Box::new(ExplainDocument::of(found, plan, at, seen.errors))))
}

/// An observation, and what was decided from it for the wanted pools.
struct Seen {
    observation: Observation,
    plan: Plan,
    errors: Vec<String>,
}

async fn observe(context: &Context, pool: Option<&PoolId>) -> Result<Seen, Failure> {
    if let Some(id) = pool {
        context.pool(id)?;
    }
    let (observed, mut plan) =
        observe_and_decide(&context.ports, &context.config.policy, Witness::Controller).await;
    plan.pools.retain(|entry| pool.is_none_or(|id| entry.pool == *id));
    let errors = observed.errors.iter().map(ToString::to_string).collect();
    Ok(Seen { observation: observed.observation, plan, errors })
}

#[cfg(test)]
mod tests {
    use gpuctl_control::wire::status::state;
    use gpuctl_core::observation::{Seen, SeenBox};
    use gpuctl_core::plan::{Reason, Rule, StopMode};

    use super::*;

    fn pool() -> SeenPool {
        let now = Timestamp::UNIX_EPOCH;
        let id = "gpu-1".parse().expect("a name");
        let one = SeenBox::new(id, BoxState::Stopped, now);
        let boxes = Seen::now(vec![one], now);
        SeenPool {
            boxes,
            queue: None,
            urgent: None,
            hold: None,
            runs: Vec::new(),
            service: None,
            spent: None,
        }
    }

    #[test]
    fn an_action_changes_the_state_and_the_run_that_status_shows() {
        let (mut seen, at) = (pool(), Timestamp::UNIX_EPOCH + chrono::TimeDelta::hours(1));
        let reason = |text: &str| Reason::new(Rule::Hold, text);
        let box_id = || "gpu-1".parse().expect("a name");
        let act = |action| Acted { pool: "gpu".parse().expect("a name"), action, result: Ok(()) };
        let start = act(Action::Start { box_id: box_id(), reason: reason("ada started it") });
        apply(&mut seen, &start, at);
        let shown = |seen: &SeenPool| seen.boxes.value.as_deref().map(state);
        assert_eq!(shown(&seen), Some("pending"));
        assert_eq!(
            (seen.runs[0].started_at, seen.runs[0].start.text.as_str()),
            (at, "ada started it")
        );
        let reason = reason("ada stopped it");
        let stop = act(Action::Stop { box_id: box_id(), mode: StopMode::Drain, reason });
        apply(&mut seen, &stop, at);
        assert_eq!(shown(&seen), Some("stopping"));
        assert_eq!(seen.runs[0].stop.as_ref().map(|reason| reason.rule), Some(Rule::Hold));
    }
}
