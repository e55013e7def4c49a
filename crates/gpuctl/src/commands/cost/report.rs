//! `cost report`: jobs, waits and box time of a period, and what they cost compared with an always-on box.

use chrono::TimeDelta;
use gpuctl_control::job::JobState;
use gpuctl_control::observe::observe;
use gpuctl_control::ports::Totals;
use gpuctl_control::wire::{seconds, time};
use gpuctl_core::cost::{BoxCost, MONTH_SECONDS, Price, box_cost, month_at_this_rate, price_of};
use gpuctl_core::observation::Witness;
use gpuctl_core::period::{Period, month_of};
use gpuctl_core::units::{MicroUsd, nearest_rank};

use crate::arguments::ReportArguments;
use crate::context::Context;
use crate::documents::reply::{CostReportDocument, JobCounts, PriceDocument};
use crate::failure::{Code, Failure};
use crate::render::Output;

/// `gpuctl cost report`: of the time until now, or of a month.
pub(super) async fn report(context: &Context, wanted: &ReportArguments) -> Result<Output, Failure> {
    // A box that stopped by itself is in the ledger's runs only after an observation.
    let observed = observe(&context.ports, &context.config.policy, Witness::Controller).await;
    if let Some(error) = observed.remember(&context.ports, None).await.into_iter().next() {
        return Err(error.into());
    }
    let now = context.now();
    let asked = wanted.month.map_or(Period { begin: now - wanted.since, end: now }, month_of);
    if asked.begin > now {
        return Err(Failure::new(Code::PeriodInFuture, "that month is in the future")
            .hint("`gpuctl cost estimate` estimates future costs"));
    }
    let history = History::read(context, Period { end: asked.end.min(now), ..asked }).await?;
    let settings = &context.config.policy.cost;
    let price = price_of(settings).ok_or_else(|| {
        let message =
            format!("no price is known for {} in {}", settings.instance_type, settings.region);
        Failure::new(Code::PriceUnknown, message)
            .hint("`gpuctl cost prices` lists the known ones; set [cost] to one of them")
    })?;
    let boxes = context.config.policy.pools.iter().map(|pool| pool.boxes_max.get()).sum();
    let cost = box_cost(&history.totals.runs, boxes, history.period, settings, &price);
    Ok(Output::CostReport(Box::new(document(&history, &cost, &price, boxes))))
}

/// The jobs and runs of a period.
struct History {
    /// From the first job or run: the always-on box that the report compares with starts then, not earlier.
    period: Period,
    totals: Totals,
}

impl History {
    async fn read(context: &Context, asked: Period) -> Result<Self, Failure> {
        let totals = context.ports.ledger.totals(asked).await?;
        let runs = totals.runs.iter().map(|total| total.first);
        let first = totals.first_job.into_iter().chain(runs).min();
        let begin = first.unwrap_or(asked.begin).max(asked.begin);
        Ok(Self { period: Period { begin, end: asked.end }, totals })
    }

    /// A day that has begun counts as a whole one, after the first: the rest of it may be without jobs.
    fn whole_days(&self) -> TimeDelta {
        let lasts = self.period.end - self.period.begin;
        let days = TimeDelta::days(lasts.num_days());
        if lasts > days && lasts.num_days() > 0 { days + TimeDelta::days(1) } else { lasts }
    }
}

fn document(history: &History, cost: &BoxCost, price: &Price, boxes: u32) -> CostReportDocument {
    let waits = &history.totals.waits;
    let rank = |percent| nearest_rank(waits, percent).map(seconds);
    let lasts = history.whole_days();
    let month = |usd, hour| month_at_this_rate(usd, lasts, hour, boxes).map(MicroUsd::as_usd);
    CostReportDocument {
        since: time(history.period.begin),
        until: time(history.period.end),
        jobs: count(&history.totals),
        wait_seconds_p50: rank(50),
        wait_seconds_p95: rank(95),
        wait_seconds_max: rank(100),
        starts: cost.starts,
        box_seconds: cost.box_seconds,
        billed_seconds: cost.billed_seconds,
        box_usd: cost.spent.as_usd(),
        standing_usd: cost.standing.as_usd(),
        usd: (cost.spent + cost.standing).as_usd(),
        priced_as: PriceDocument::of(price),
        on_demand_usd: cost.on_demand.as_usd(),
        spot_usd: cost.spot.map(MicroUsd::as_usd),
        always_on_usd: cost.always_on.as_usd(),
        saved_usd: cost.always_on.as_usd() - cost.spent.as_usd(),
        on_demand_usd_month: month(cost.on_demand, price.on_demand),
        spot_usd_month: cost.spot.zip(price.spot).and_then(|(usd, hour)| month(usd, hour)),
        always_on_usd_month: price.on_demand.per_hour_for(MONTH_SECONDS).as_usd(),
    }
}

fn count(totals: &Totals) -> JobCounts {
    let of = |state| totals.states.get(&state).copied().unwrap_or_default();
    JobCounts {
        submitted: totals.states.values().sum(),
        succeeded: of(JobState::Succeeded),
        failed: of(JobState::Failed),
        dead: of(JobState::Dead),
        open: of(JobState::Queued),
        cancelled: of(JobState::Cancelled),
        purged: of(JobState::Purged),
        expired: of(JobState::Expired),
    }
}
