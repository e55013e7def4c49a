//! `start…`, `stop…`, `release` and `retire`: a hold with an expiry, then one reconcile. There is no second way to start a box.

use chrono::{Local, NaiveTime, TimeZone};
use gpuctl_control::Reconciled;
use gpuctl_control::Trigger;
use gpuctl_control::hold::{self, HOLD_DEFAULT, HoldRequest};
use gpuctl_control::pools;
use gpuctl_core::observation::{BoxState, HoldWants, SeenBox, SeenPool};
use gpuctl_core::plan::{PoolPlan, Rule};
use gpuctl_core::units::{BoxId, PoolId, Timestamp, show_duration};

use super::status;
use crate::arguments::{HoldArguments, HoldCommand};
use crate::context::{Context, user};
use crate::failure::{Code, Failure};
use crate::render::{Output, Printer};

/// Sets a hold on each pool, acts on it, and waits if asked to.
pub(super) async fn hold(
    context: &Context,
    printer: &Printer,
    command: HoldCommand,
) -> Result<Output, Failure> {
    let asked = Asked::of(command);
    let now = context.now();
    let goal =
        Goal { pools: pools::targeted(&context.config.policy, &asked.target)?, wants: asked.wants };
    let request = HoldRequest {
        wants: asked.wants,
        since: now,
        until: until(now, &asked.arguments)?,
        by: user(),
        why: asked.arguments.reason.clone(),
        over_budget: asked.arguments.over_budget,
    };
    hold::set(&*context.ports.ledger, &goal.pools, &request).await?;
    goal.act(context, printer, &asked.arguments).await
}

/// What a command asks for.
struct Asked {
    /// A pool's name, or `all`.
    target: String,
    wants: HoldWants,
    arguments: HoldArguments,
}

impl Asked {
    fn of(command: HoldCommand) -> Self {
        let (target, wants, arguments) = match command {
            HoldCommand::StartAll(hold) => (pools::ALL.to_owned(), HoldWants::Running, hold),
            HoldCommand::StartApp(hold) => ("app".to_owned(), HoldWants::Running, hold),
            HoldCommand::StartGpu(hold) => ("gpu".to_owned(), HoldWants::Running, hold),
            HoldCommand::Start { pool, hold } => (pool.to_string(), HoldWants::Running, hold),
            HoldCommand::StopAll(hold) => (pools::ALL.to_owned(), HoldWants::Stopped, hold),
            HoldCommand::StopApp(hold) => ("app".to_owned(), HoldWants::Stopped, hold),
            HoldCommand::StopGpu(hold) => ("gpu".to_owned(), HoldWants::Stopped, hold),
            HoldCommand::Stop { pool, hold } => (pool.to_string(), HoldWants::Stopped, hold),
        };
        Self { target, wants, arguments }
    }
}

/// The pools of a hold, and the state that it wants.
struct Goal {
    pools: Vec<PoolId>,
    wants: HoldWants,
}

impl Goal {
    /// Reconciles once, or with `--wait` until the goal is reached. The status is that of the last reconcile.
    async fn act(
        &self,
        context: &Context,
        printer: &Printer,
        arguments: &HoldArguments,
    ) -> Result<Output, Failure> {
        let deadline = context.now() + arguments.timeout;
        loop {
            // `None`: another controller is reconciling, and may have observed before the hold was set.
            if let Some(reconciled) = context.reconcile(Trigger::Command).await? {
                printer.reconciled(&reconciled);
                self.check(&reconciled)?;
                if !arguments.wait || self.is_reached(&reconciled, printer)? {
                    return Ok(status::of_reconciled(&reconciled, &self.pools));
                }
            }
            if context.now() > deadline {
                let message = format!(
                    "the boxes are not {} after {}",
                    self.state(),
                    show_duration(arguments.timeout)
                );
                return Err(Failure::new(Code::WaitTimedOut, message)
                    .hint("the hold stays in force and gpuctl keeps trying; `gpuctl explain POOL` shows what it waits for"));
            }
            tokio::time::sleep(context.poll_every()).await;
        }
    }

    fn state(&self) -> &'static str {
        match self.wants {
            HoldWants::Running => "running",
            HoldWants::Stopped => "stopped",
        }
    }

    /// Fails if an action on the pools failed, or a budget forbids the start.
    fn check(&self, reconciled: &Reconciled) -> Result<(), Failure> {
        let of_pools = reconciled.acted.iter().filter(|acted| self.pools.contains(&acted.pool));
        if let Some(error) = of_pools.filter_map(|acted| acted.result.as_ref().err()).next() {
            return Err(error.into());
        }
        match self.over_budget(reconciled) {
            Some(reason) => Err(Failure::new(Code::HoldOverBudget, reason)
                .hint("allow this hold to spend more: `--over-budget USD`")),
            None => Ok(()),
        }
    }

    /// Why a pool's budget forbids the hold, if it does.
    fn over_budget(&self, reconciled: &Reconciled) -> Option<String> {
        let is_down = |plan: &&PoolPlan| {
            let seen = reconciled.observation.pools.get(&plan.pool);
            let boxes = seen.and_then(|seen| seen.boxes.value.as_ref());
            plan.actions.is_empty() && boxes.is_some_and(|boxes| !boxes.iter().any(SeenBox::is_up))
        };
        let plans = reconciled.plan.pools.iter().filter(|plan| self.pools.contains(&plan.pool));
        plans.filter(is_down).find_map(|plan| {
            let reason = plan.blocked.iter().find(|reason| reason.rule == Rule::Budget)?;
            Some(format!("`{}` is not started: {}", plan.pool, reason.text))
        })
    }

    /// Whether every pool is in the wanted state; fails if a start has failed since the hold was set.
    fn is_reached(&self, reconciled: &Reconciled, printer: &Printer) -> Result<bool, Failure> {
        let mut all = true;
        for id in &self.pools {
            let seen = reconciled.observation.pools.get(id);
            // Boxes that could not be read are in an unknown state.
            let Some((seen, boxes)) =
                seen.and_then(|seen| Some((seen, seen.boxes.value.as_ref()?)))
            else {
                return Ok(false);
            };
            for one in boxes {
                printer.state_change(one.id.as_str(), one.state.as_str());
            }
            all &= match self.wants {
                HoldWants::Running => {
                    check_start(id, seen, boxes)?;
                    boxes.iter().any(|one| one.state == BoxState::Running)
                }
                HoldWants::Stopped => boxes.iter().all(|one| one.state == BoxState::Stopped),
            };
        }
        Ok(all)
    }
}

/// Fails if the pool has nothing to start, or a start has failed since the hold was set.
fn check_start(pool: &PoolId, seen: &SeenPool, boxes: &[SeenBox]) -> Result<(), Failure> {
    let since = seen.hold.as_ref().map(|hold| hold.since).unwrap_or_default();
    let is_failed =
        seen.runs.first().filter(|run| run.failed_to_start() && run.started_at >= since);
    if let Some(run) = is_failed {
        let cause = run.error.clone().unwrap_or_else(|| "it ended before it was ready".to_owned());
        let message = format!("box `{}` did not start", run.box_id);
        let failure = Failure { causes: vec![cause], ..Failure::new(Code::BoxNotStarted, message) };
        return Err(failure.hint(format!(
            "`gpuctl logs {}` shows what it wrote; `gpuctl doctor` checks what it needs",
            run.box_id
        )));
    }
    if boxes.is_empty() {
        let message = format!("pool `{pool}` has nothing to run on this machine");
        return Err(Failure::new(Code::PoolNothingToRun, message).hint(
            "give it a `queue` or a `command`: a pool with only a schedule starts no box here",
        ));
    }
    Ok(())
}

/// Ends a pool's hold, and the effect of earlier starts and stops outside gpuctl; then one reconcile, in which schedule and
/// queue decide.
pub(super) async fn release(
    context: &Context,
    printer: &Printer,
    pool: &PoolId,
) -> Result<Output, Failure> {
    context.pool(pool)?;
    let (ledger, pools) = (&*context.ports.ledger, std::slice::from_ref(pool));
    hold::release(ledger, pools, &user(), context.now()).await?;
    match context.reconcile_until_free(printer).await {
        Some(reconciled) => Ok(status::of_reconciled(&reconciled, pools)),
        None => status::status(context, Some(pool)).await,
    }
}

/// `gpuctl retire BOX`: terminates the box. Whether the pool starts another is decided by its rules.
pub(super) async fn retire(
    context: &Context,
    printer: &Printer,
    box_id: &BoxId,
) -> Result<Output, Failure> {
    let listing = context.ports.cloud.boxes(&context.config.policy).await?;
    let mut all = listing.pools.values().flatten();
    if !all.any(|one| one.id == *box_id) {
        return Err(Failure::new(Code::BoxUnknown, format!("there is no box `{box_id}`"))
            .hint("`gpuctl status` shows the boxes of all pools"));
    }
    printer.confirm(&format!("terminate box {box_id}, its disk and its spot request?"))?;
    context.ports.cloud.retire(box_id).await?;
    match context.reconcile_until_free(printer).await {
        Some(reconciled) => Ok(status::of_reconciled(&reconciled, &context.pools())),
        None => status::status(context, None).await,
    }
}

fn until(now: Timestamp, arguments: &HoldArguments) -> Result<Timestamp, Failure> {
    let until = match (&arguments.until, arguments.lasts) {
        (Some(text), _) => parse_until(now, text).ok_or_else(|| {
            Failure::new(Code::UsageInvalidValue, format!("`{text}` is not a valid time"))
                .hint("write e.g. `18:00` or `2026-11-21T18:00:00Z`")
        })?,
        (None, lasts) => now + lasts.unwrap_or(HOLD_DEFAULT),
    };
    hold::check_length(until - now)?;
    Ok(until)
}

/// The next time that local clocks show e.g. `18:00`, or an RFC 3339 time.
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
