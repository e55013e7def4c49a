//! `start…`, `stop…`, `release`, `drain` and `retire`: a hold with an expiry, then one reconcile; or an order to one box. There is no
//! second way to start a box.

use chrono::{Local, NaiveTime, TimeZone};
use gpuctl_control::act::act;
use gpuctl_control::hold::{self, HOLD_DEFAULT, HoldRequest};
use gpuctl_control::outcome::{HoldOutcome, NotCarriedOut, Why, outcome_of_hold};
use gpuctl_control::ports::Fence;
use gpuctl_control::{Reconciled, Trigger, plan, pools};
use gpuctl_core::observation::{BoxState, HoldWants, SeenBox, SeenPool, Witness};
use gpuctl_core::plan::{Action, Plan, PoolPlan, Reason, Rule, StopMode};
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
        until_empty: until_empty(context, &goal, &asked.arguments)?,
    };
    hold::set(&*context.ports.ledger, &goal.pools, &request).await?;
    goal.act(context, printer, &asked.arguments).await
}

/// Whether the hold ends with its queue. Only a start of pools that have one can.
fn until_empty(context: &Context, goal: &Goal, arguments: &HoldArguments) -> Result<bool, Failure> {
    let policy = &context.config.policy;
    let has_queue = |id: &PoolId| policy.pool(id).is_some_and(|pool| pool.queue().is_some());
    if !arguments.until_empty {
        return Ok(false);
    }
    if goal.wants == HoldWants::Stopped {
        return Err(Failure::new(Code::UsageConflict, "`--until-empty` is for a start")
            .hint("a stop ends at its time: `--for` or `--until`"));
    }
    if let Some(pool) = goal.pools.iter().find(|pool| !has_queue(pool)) {
        let message = format!("pool `{pool}` has no queue that could become empty");
        return Err(Failure::new(Code::PoolNoQueue, message)
            .hint("leave `--until-empty` out: `--for` says when the hold ends"));
    }
    Ok(true)
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
        let mut told: Vec<String> = Vec::new();
        loop {
            // `None`: another controller is reconciling, and may have observed before the hold was set.
            if let Some(reconciled) = context.reconcile(Trigger::Command).await? {
                printer.reconciled(&reconciled);
                let last = if arguments.wait { deadline } else { Timestamp::MAX_UTC };
                for text in self.check(&reconciled, last)? {
                    // A sentence counts down: it is told once for its beginning.
                    let key = text.split(':').next().unwrap_or_default().to_owned();
                    if !told.contains(&key) {
                        printer.note(&text);
                        told.push(key);
                    }
                }
                if !arguments.wait || self.is_reached(&reconciled, printer)? {
                    return Ok(status::of_reconciled(context, &reconciled, &self.pools));
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

    /// Fails if the hold on a pool is not carried out, and would not be by `last`; returns what is only carried out later.
    fn check(&self, reconciled: &Reconciled, last: Timestamp) -> Result<Vec<String>, Failure> {
        let mut later = Vec::new();
        let mut failed: Option<Failure> = None;
        for pool in &self.pools {
            let failure = match outcome_of_hold(reconciled, pool, self.wants) {
                HoldOutcome::CarriedOut => continue,
                HoldOutcome::Later(text, at) if at.is_none_or(|at| at <= last) => {
                    later.push(text);
                    continue;
                }
                HoldOutcome::Later(text, _) => Failure::new(Code::StartOutranked, text)
                    .hint("gpuctl starts it then; a longer --timeout waits for it"),
                HoldOutcome::Not(not) => self.not_carried_out(not),
                HoldOutcome::Failed(error) => error.into(),
            };
            match &mut failed {
                Some(first) => first.causes.push(failure.message),
                None => failed = Some(failure),
            }
        }
        failed.map_or(Ok(later), Err)
    }

    fn not_carried_out(&self, not: NotCarriedOut) -> Failure {
        let code = match (not.why, self.wants) {
            (Why::Outranked, HoldWants::Running) => Code::StartOutranked,
            (Why::Outranked, HoldWants::Stopped) => Code::StopOutranked,
            (Why::Impossible, _) => Code::StartImpossible,
            (Why::OverBudget, _) => Code::HoldOverBudget,
            (Why::NothingToRun, _) => Code::PoolNothingToRun,
            (Why::Unread, _) => Code::PoolUnread,
        };
        Failure::new(code, not.text).hint(not.hint)
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
                    check_start(seen)?;
                    boxes.iter().any(|one| one.state == BoxState::Running)
                }
                HoldWants::Stopped => boxes.iter().all(|one| one.state == BoxState::Stopped),
            };
        }
        Ok(all)
    }
}

/// Fails if a start has failed since the hold was set.
fn check_start(seen: &SeenPool) -> Result<(), Failure> {
    let since = seen.hold.as_ref().map(|hold| hold.since).unwrap_or_default();
    let is_failed =
        seen.runs.first().filter(|run| run.failed_to_start() && run.started_at >= since);
    let Some(run) = is_failed else { return Ok(()) };
    let cause = run.error.clone().unwrap_or_else(|| "it ended before it was ready".to_owned());
    let message = format!("box `{}` did not start", run.box_id);
    let failure = Failure { causes: vec![cause], ..Failure::new(Code::BoxNotStarted, message) };
    Err(failure.hint(format!(
        "`gpuctl logs {}` shows what it wrote; `gpuctl doctor` checks what it needs",
        run.box_id
    )))
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
    let held = ledger.memory(pool).await?.hold.is_some_and(|hold| hold.until > context.now());
    if !held {
        printer.note(&format!("pool `{pool}` had no hold: nothing to end but what was started or stopped outside gpuctl"));
    }
    hold::release(ledger, pools, &user(), context.now()).await?;
    match context.reconcile_until_free(printer).await {
        Some(reconciled) => Ok(status::of_reconciled(context, &reconciled, pools)),
        None => status::status(context, Some(pool)).await,
    }
}

/// `gpuctl drain BOX`: the box's worker receives no more, finishes what it holds, and the box stops. It is an action like those that
/// rules ask for, so the run has its reason. Whether the pool starts another box, or this one again, is decided by its rules.
pub(super) async fn drain(
    context: &Context,
    printer: &Printer,
    box_id: &BoxId,
) -> Result<Output, Failure> {
    // What is acted on is observed under the lease, as in a reconcile: before it another controller may have changed the box.
    let fence = context.lease().await?;
    let drained = drain_under(context, box_id, &fence).await;
    context.ports.ledger.release(&fence).await?;
    let (pool, text) = drained?;
    printer.note(&text);
    status::status(context, Some(&pool)).await
}

/// Orders the drain; returns the box's pool, and what to say.
async fn drain_under(
    context: &Context,
    box_id: &BoxId,
    fence: &Fence,
) -> Result<(PoolId, String), Failure> {
    let (observed, _) = plan(&context.ports, &context.config.policy, Witness::Controller).await;
    let the_box =
        |pool: &SeenPool| pool.boxes.value.iter().flatten().find(|one| one.id == *box_id).cloned();
    let pools = &observed.observation.pools;
    let Some((pool, one)) = pools.iter().find_map(|(id, seen)| Some((id, the_box(seen)?))) else {
        let errors = observed.errors.iter().map(ToString::to_string).collect();
        let unknown = Failure::new(Code::BoxUnknown, format!("there is no box `{box_id}`"));
        return Err(Failure { causes: errors, ..unknown }
            .hint("`gpuctl status` shows the boxes of all pools"));
    };
    if !one.is_up() {
        return Ok((pool.clone(), format!("{box_id} is {} already", one.state.as_str())));
    }
    // P18: a box that we stop now could afterwards be started by EC2 only.
    if one.interruption.is_some() {
        let text = format!("{box_id} is being interrupted by EC2: it drains and stops by itself");
        return Ok((pool.clone(), text));
    }
    let reason = Reason::new(Rule::Hold, format!("{} drains the box", user()));
    let action = Action::Stop { box_id: box_id.clone(), mode: StopMode::Drain, reason };
    let order = Plan { at: observed.observation.at, pools: vec![only(pool, action)] };
    for acted in act(&context.ports, &observed.observation, &order, fence).await {
        acted.result?;
    }
    let text = format!("{box_id} receives no more jobs, and stops after those that it holds");
    Ok((pool.clone(), text))
}

/// A plan of one action.
fn only(pool: &PoolId, action: Action) -> PoolPlan {
    PoolPlan {
        pool: pool.clone(),
        boxes_wanted: 0,
        verdicts: Vec::new(),
        actions: vec![action],
        blocked: Vec::new(),
        next_change: None,
        kept: Vec::new(),
    }
}

/// `gpuctl retire`: terminates a box, or all that are outdated. Whether the pool starts another is decided by its rules.
pub(super) async fn retire(
    context: &Context,
    printer: &Printer,
    wanted: Option<&BoxId>,
) -> Result<Output, Failure> {
    let listing = context.ports.cloud.boxes(&context.config.policy).await?;
    let all: Vec<SeenBox> = listing.pools.into_values().flatten().collect();
    let boxes = match wanted {
        None => outdated(context, printer, &all).await?,
        Some(id) if all.iter().any(|one| one.id == *id) => vec![id.clone()],
        Some(id) => {
            return Err(Failure::new(Code::BoxUnknown, format!("there is no box `{id}`"))
                .hint("`gpuctl status` shows the boxes of all pools"));
        }
    };
    for id in &boxes {
        printer.confirm(&format!("terminate box {id}, its disk and its spot request?"))?;
        context.ports.cloud.retire(id).await?;
    }
    match context.reconcile_until_free(printer).await {
        Some(reconciled) => Ok(status::of_reconciled(context, &reconciled, &context.pools())),
        None => status::status(context, None).await,
    }
}

/// The outdated boxes that are stopped; one that is up may have jobs.
async fn outdated(
    context: &Context,
    printer: &Printer,
    all: &[SeenBox],
) -> Result<Vec<BoxId>, Failure> {
    let mut found = context.outdated().await?;
    let is_stopped =
        |id: &BoxId| all.iter().any(|one| one.id == *id && one.state == BoxState::Stopped);
    found.retain(|(id, how)| {
        let stopped = is_stopped(id);
        let what =
            if stopped { "" } else { "; it is not stopped, and stays: `gpuctl drain` it first" };
        printer.note(&format!("box {id} {how}{what}"));
        stopped
    });
    if found.is_empty() {
        printer.note("no stopped box is outdated");
    }
    Ok(found.into_iter().map(|(id, _)| id).collect())
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
