//! `start…`, `stop…`, `release` and `retire`: a hold with an expiry, then one reconcile. There is no second way to start a box.

use chrono::{Local, NaiveTime, TimeZone};
use gpuctl_control::Reconciled;
use gpuctl_control::Trigger;
use gpuctl_control::hold::{self, HOLD_DEFAULT, HoldRequest};
use gpuctl_core::observation::{HoldWants, SeenBox};
use gpuctl_core::plan::{PoolPlan, Rule};
use gpuctl_core::units::{BoxId, PoolId, Timestamp, show_span};

use super::status::status_document;
use crate::arguments::HoldArguments;
use crate::context::{Context, user};
use crate::failure::{Exit, Failure};
use crate::render::{Output, Printer};

/// Sets a hold on each pool, acts on it, and waits if asked to.
pub(crate) async fn hold(
    context: &Context,
    printer: &Printer,
    pools: Vec<PoolId>,
    wants: HoldWants,
    arguments: &HoldArguments,
) -> Result<Output, Failure> {
    let now = context.now();
    let until = until(now, arguments)?;
    for pool in &pools {
        context.pool(pool)?;
    }
    let request = HoldRequest {
        wants,
        since: now,
        until,
        by: user(),
        why: arguments.reason.clone(),
        over_budget: arguments.over_budget,
    };
    hold::set(&*context.ports.ledger, &pools, &request).await?;
    let deadline = now + arguments.timeout;
    loop {
        let reconciled = context.reconcile(Trigger::Command).await?;
        reconciled.iter().for_each(|reconciled| printer.reconciled(reconciled));
        let failed = reconciled
            .iter()
            .flat_map(|reconciled| &reconciled.acted)
            .find(|acted| pools.contains(&acted.pool) && acted.result.is_err());
        if let Some(Err(error)) = failed.map(|acted| &acted.result) {
            return Err(error.into());
        }
        if let Some(reason) =
            reconciled.as_ref().and_then(|reconciled| over_budget(reconciled, &pools))
        {
            return Err(
                Failure::new(reason).hint("allow this hold to spend more: `--over-budget USD`")
            );
        }
        // Another controller may be in the middle of a reconcile that began before the hold: then the next one acts on it.
        if !arguments.wait && reconciled.is_some() {
            break;
        }
        if let Some(reconciled) = &reconciled
            && reached(reconciled, &pools, wants, printer)?
        {
            break;
        }
        if context.now() > deadline {
            let message = format!("not {} after {}", goal(wants), show_span(arguments.timeout));
            return Err(Failure { exit: Exit::TimedOut, ..Failure::new(message) }
                .hint("the hold stays in force and gpuctl keeps trying; `gpuctl explain POOL` shows what it waits for"));
        }
        tokio::time::sleep(context.poll_every()).await;
    }
    let mut document = status_document(context, None).await?;
    document.document.pools.retain(|pool| pools.iter().any(|id| id.as_str() == pool.pool));
    Ok(Output::Status(document))
}

/// Ends a pool's hold, and the effect of earlier starts and stops outside gpuctl; then one reconcile, in which schedule and queue decide.
pub(crate) async fn release(
    context: &Context,
    printer: &Printer,
    pool: &PoolId,
) -> Result<Output, Failure> {
    context.pool(pool)?;
    let ledger = &*context.ports.ledger;
    hold::release(ledger, std::slice::from_ref(pool), &user(), context.now()).await?;
    context.reconcile_until_free(printer).await;
    Ok(Output::Status(status_document(context, Some(pool)).await?))
}

/// `gpuctl retire BOX`: terminates the box. Whether the pool starts another is decided by its rules.
pub(crate) async fn retire(
    context: &Context,
    printer: &Printer,
    box_id: &BoxId,
    yes: bool,
) -> Result<Output, Failure> {
    let listing = context.ports.cloud.boxes(&context.config.policy).await?;
    let mut all = listing.pools.values().flatten();
    if !all.any(|one| one.id == *box_id) {
        return Err(Failure::new(format!("there is no box `{box_id}`"))
            .hint("`gpuctl status` shows the boxes of all pools"));
    }
    if !yes {
        printer.confirm(&format!("terminate box {box_id}, its disk and its spot request?"))?;
    }
    context.ports.cloud.retire(box_id).await?;
    context.reconcile_until_free(printer).await;
    Ok(Output::Status(status_document(context, None).await?))
}

/// Why a pool's budget forbids the hold, if it does.
fn over_budget(reconciled: &Reconciled, pools: &[PoolId]) -> Option<String> {
    let down = |plan: &&PoolPlan| {
        let boxes =
            reconciled.observation.pools.get(&plan.pool).and_then(|seen| seen.boxes.value.as_ref());
        plan.actions.is_empty() && boxes.is_some_and(|boxes| !boxes.iter().any(SeenBox::is_up))
    };
    let plans = reconciled.plan.pools.iter().filter(|plan| pools.contains(&plan.pool)).filter(down);
    let mut blocked = plans.flat_map(|plan| plan.blocked.iter().map(move |reason| (plan, reason)));
    let (plan, reason) = blocked.find(|(_, reason)| reason.rule == Rule::Budget)?;
    Some(format!("`{}` is not started: {}", plan.pool, reason.text))
}

fn goal(wants: HoldWants) -> &'static str {
    match wants {
        HoldWants::Running => "running",
        HoldWants::Stopped => "stopped",
    }
}

/// Whether every pool is as wanted; a start that failed since the hold was set ends the wait.
fn reached(
    reconciled: &Reconciled,
    pools: &[PoolId],
    wants: HoldWants,
    printer: &Printer,
) -> Result<bool, Failure> {
    use gpuctl_core::observation::BoxState;
    let mut all = true;
    for id in pools {
        let seen = reconciled.observation.pools.get(id);
        // Boxes that could not be read are in an unknown state.
        let Some((seen, boxes)) = seen.and_then(|seen| Some((seen, seen.boxes.value.as_ref()?)))
        else {
            return Ok(false);
        };
        let since = seen.hold.as_ref().map(|hold| hold.since).unwrap_or_default();
        if let Some(run) = seen.runs.first().filter(|run| {
            wants == HoldWants::Running && run.failed_to_start() && run.started_at >= since
        }) {
            let cause =
                run.error.clone().unwrap_or_else(|| "it ended before it was ready".to_owned());
            return Err(Failure {
                causes: vec![cause],
                ..Failure::new(format!("box `{}` did not start", run.box_id))
            }
            .hint(format!(
                "`gpuctl logs {}` shows what it wrote; `gpuctl doctor` checks what it needs",
                run.box_id
            )));
        }
        if wants == HoldWants::Running && boxes.is_empty() {
            return Err(Failure::new(format!("pool `{id}` has nothing to run on this machine"))
                .hint("give it a `queue` or a `command`: a pool with only a schedule starts no box here"));
        }
        let there = match wants {
            HoldWants::Running => boxes.iter().any(|one| one.state == BoxState::Running),
            HoldWants::Stopped => boxes.iter().all(|one| one.state == BoxState::Stopped),
        };
        for one in boxes {
            printer.state_change(one.id.as_str(), one.state.as_str());
        }
        all &= there;
    }
    Ok(all)
}

fn until(now: Timestamp, arguments: &HoldArguments) -> Result<Timestamp, Failure> {
    let until = match (&arguments.until, arguments.lasts) {
        (Some(text), _) => parse_until(now, text).ok_or_else(|| {
            Failure::usage(format!("`{text}` is not a valid time"))
                .hint("write e.g. `18:00` or `2026-11-21T18:00:00Z`")
        })?,
        (None, lasts) => now + lasts.unwrap_or(HOLD_DEFAULT),
    };
    hold::check_length(until - now)?;
    Ok(until)
}

/// The next time that local clocks show `18:00`, or the instant that an RFC 3339 text names.
fn parse_until(now: Timestamp, text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok()?;
    let today = now.with_timezone(&Local).date_naive();
    [today, today.succ_opt()?]
        .into_iter()
        .filter_map(|day| Local.from_local_datetime(&day.and_time(time)).earliest())
        .map(|at| at.to_utc())
        .find(|at| *at > now)
}
