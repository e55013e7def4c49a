//! `cost`: what box time was, and what it would be on EC2, from the ledger and the shipped prices.

use chrono::TimeDelta;
use gpuctl_control::job::JobState;
use gpuctl_control::observe::observe;
use gpuctl_control::ports::{JobEntry, JobFilter};
use gpuctl_control::wire::reply::{CostReportDocument, JobCounts, PriceDocument, PricesDocument};
use gpuctl_control::wire::{seconds, time};
use gpuctl_core::cost::{box_cost, price, prices as shipped};
use gpuctl_core::observation::Witness;

use crate::context::Context;
use crate::failure::Failure;
use crate::render::Answer;

/// The most jobs that a report looks at.
const JOBS_MAX: u32 = 1_000_000;

/// A month of 30 days: what AWS's own examples and the seeds count with.
const MONTH_SECONDS: i64 = 30 * 86_400;

/// `gpuctl cost report`.
pub(crate) async fn report(context: &Context, period: TimeDelta) -> Result<Answer, Failure> {
    // A box that ended by itself is not in the ledger's runs before somebody has looked.
    observe(&context.ports, &context.config.policy, Witness::Controller)
        .await
        .remember(&context.ports)
        .await?;
    let now = context.now();
    let asked = now - period;
    let jobs = context
        .ports
        .ledger
        .jobs(JobFilter { state: None, limit: JOBS_MAX, since: Some(asked) })
        .await?;
    let runs = context.ports.ledger.runs_since(asked).await?;
    // A period that began before the first sign of life would compare with a box that nobody had asked for.
    let first = jobs
        .iter()
        .map(|entry| entry.job.submitted_at)
        .chain(runs.iter().map(|run| run.started_at))
        .min();
    let since = first.unwrap_or(asked).max(asked);
    let wanted = &context.config.policy.cost;
    let price = price(&wanted.instance_type, &wanted.region).ok_or_else(|| {
        let message =
            format!("no price is known for {} in {}", wanted.instance_type, wanted.region);
        Failure::usage(message)
            .hint("`gpuctl cost prices` lists the known ones; set [cost] to one of them")
    })?;
    let mut waits: Vec<TimeDelta> = jobs
        .iter()
        .filter_map(|entry| Some(entry.result.as_ref()?.received_at - entry.job.submitted_at))
        .collect();
    waits.sort_unstable();
    let rank = |percent: usize| {
        (waits.len() * percent).div_ceil(100).checked_sub(1).map(|index| seconds(waits[index]))
    };
    let document = CostReportDocument {
        since: time(since),
        until: time(now),
        jobs: count(&jobs),
        wait_seconds_p50: rank(50),
        wait_seconds_p95: rank(95),
        wait_seconds_max: rank(100),
        starts: 0,
        box_seconds: 0,
        billed_seconds: 0,
        priced_as: PriceDocument::of(&price),
        on_demand_usd: 0.0,
        spot_usd: None,
        always_on_usd: 0.0,
        always_on_usd_month: price.on_demand.per_hour_for(MONTH_SECONDS).as_usd(),
        on_demand_usd_month: 0.0,
        spot_usd_month: None,
    };
    // A burst of a minute stands for a day with one such burst, not for a month full of them.
    let days = f64::from(i32::try_from((now - since).num_days() + 1).unwrap_or(i32::MAX));
    Ok(Answer::CostReport(document.with_cost(&box_cost(&runs, since, now, &price), days)))
}

/// `gpuctl cost prices`.
pub(crate) fn prices() -> Answer {
    Answer::Prices(PricesDocument {
        prices: shipped().map(|price| PriceDocument::of(&price)).collect(),
    })
}

fn count(jobs: &[JobEntry]) -> JobCounts {
    let mut counts = JobCounts::default();
    for entry in jobs {
        counts.submitted += 1;
        match entry.state {
            JobState::Succeeded => counts.succeeded += 1,
            JobState::Failed => counts.failed += 1,
            JobState::Dead => counts.dead += 1,
            JobState::Queued | JobState::Running => counts.open += 1,
            JobState::Purged => counts.purged += 1,
        }
    }
    counts
}
