//! `cost`: what box time cost, and what it would cost on EC2, from the ledger and the known prices.

use chrono::TimeDelta;
use gpuctl_control::job::JobState;
use gpuctl_control::observe::observe;
use gpuctl_control::ports::{JobEntry, JobFilter};
use gpuctl_control::wire::{seconds, time};
use gpuctl_core::cost::{
    CostSettings, IPV4_USD_HOUR, MONTH_SECONDS, PriceTable, box_cost, month_of_use, price_of,
};
use gpuctl_core::observation::Witness;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::period::{Period, month_of};
use gpuctl_core::units::{MicroUsd, Timestamp, nearest_rank};

use super::prices;
use crate::arguments::{CostCommand, EstimateArguments};
use crate::context::Context;
use crate::documents::reply::{
    ComponentDocument, CostReportDocument, EstimateDocument, JobCounts, PriceDocument,
};
use crate::failure::Failure;
use crate::render::Output;

/// The days of a month in prices.
const MONTH_DAYS: f64 = 30.0;

/// The most jobs that a report reads.
const JOBS_MAX: u32 = 1_000_000;

/// `gpuctl cost …`.
pub(crate) async fn run(context: &Context, command: CostCommand) -> Result<Output, Failure> {
    match command {
        CostCommand::Report { since, month } => report(context, since, month).await,
        CostCommand::Estimate(wanted) => estimate(&context.config.policy.cost, &wanted),
        CostCommand::Prices(wanted) if wanted.refresh => prices::refresh(context, &wanted).await,
        CostCommand::Prices(wanted) => prices::known(&context.config.policy.cost, &wanted),
    }
}

/// `gpuctl cost report`: of the time until now, or of a month.
async fn report(
    context: &Context,
    since: TimeDelta,
    month: Option<Timestamp>,
) -> Result<Output, Failure> {
    // A box that stopped by itself is in the ledger's runs only after an observation.
    observe(&context.ports, &context.config.policy, Witness::Controller)
        .await
        .remember(&context.ports)
        .await?;
    let now = context.now();
    let asked = month.map_or(Period { begin: now - since, end: now }, month_of);
    if asked.begin > now {
        return Err(Failure::usage("that month is in the future")
            .hint("`gpuctl cost estimate` estimates future costs"));
    }
    let until = asked.end.min(now);
    let mut jobs = context
        .ports
        .ledger
        .jobs(JobFilter { state: None, limit: JOBS_MAX, since: Some(asked.begin) })
        .await?;
    jobs.retain(|entry| entry.job.submitted_at < until);
    let mut runs = context.ports.ledger.runs_since(asked.begin).await?;
    runs.retain(|run| run.started_at < until);
    // The always-on box that the report compares with starts at the first job or run, not earlier.
    let first = jobs
        .iter()
        .map(|entry| entry.job.submitted_at)
        .chain(runs.iter().map(|run| run.started_at))
        .min();
    let since = first.unwrap_or(asked.begin).max(asked.begin);
    let period = Period { begin: since, end: until };
    let wanted = &context.config.policy.cost;
    let price = price_of(wanted).ok_or_else(|| {
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
    let rank = |percent| nearest_rank(&waits, percent).map(seconds);
    let boxes = context.config.policy.pools.iter().map(|pool| pool.boxes_max.get()).sum();
    let cost = box_cost(&runs, boxes, period, wanted, &price);
    // A short period counts as a whole day: one burst in a minute is a day with one burst, not a month full of them.
    let days = f64::from(i32::try_from((until - since).num_days() + 1).unwrap_or(i32::MAX));
    let month = |usd: MicroUsd| usd.as_usd() * MONTH_DAYS / days;
    Ok(Output::CostReport(Box::new(CostReportDocument {
        since: time(since),
        until: time(until),
        jobs: count(&jobs),
        wait_seconds_p50: rank(50),
        wait_seconds_p95: rank(95),
        wait_seconds_max: rank(100),
        starts: cost.starts,
        box_seconds: cost.box_seconds,
        billed_seconds: cost.billed_seconds,
        box_usd: cost.spent.as_usd(),
        standing_usd: cost.standing.as_usd(),
        usd: (cost.spent + cost.standing).as_usd(),
        priced_as: PriceDocument::of(&price),
        on_demand_usd: cost.on_demand.as_usd(),
        spot_usd: cost.spot.map(MicroUsd::as_usd),
        always_on_usd: cost.always_on.as_usd(),
        on_demand_usd_month: month(cost.on_demand),
        spot_usd_month: cost.spot.map(month),
        always_on_usd_month: price.on_demand.per_hour_for(MONTH_SECONDS).as_usd(),
    })))
}

/// `gpuctl cost estimate`.
fn estimate(policy: &CostSettings, wanted: &EstimateArguments) -> Result<Output, Failure> {
    let instance_type = wanted.instance_type.as_deref().unwrap_or(&policy.instance_type);
    let region = wanted.region.as_deref().unwrap_or(&policy.region);
    let prices = &policy.prices;
    let (hour, from) =
        hour_price(prices, (instance_type, region), wanted.capacity, wanted.usd_hour)?;
    let days = wanted.days_per_month;
    let mut parts = Parts::default();
    let kind = wanted.capacity;
    let detail = format!("{} a day on {days} days, {kind}", hours(wanted.hours_per_day));
    parts.add(instance_type, detail, month_of_use(hour, wanted.hours_per_day, days));
    for other in &wanted.with_box {
        let kind = (other.instance_type.as_str(), region);
        let (hour, _) = hour_price(prices, kind, CapacityType::OnDemand, other.usd_hour)?;
        let detail =
            format!("{} a day on {days} days at {hour} an hour", hours(other.hours_per_day));
        parts.add(&other.instance_type, detail, month_of_use(hour, other.hours_per_day, days));
    }
    if wanted.disk_gib > 0 {
        let price = policy.disk_usd_gib_month;
        let detail = format!("{} GiB at {price} a month, stopped or not", wanted.disk_gib);
        parts.add("disk", detail, price.times(i64::from(wanted.disk_gib)));
    }
    if wanted.public_ipv4 {
        let detail = format!("{IPV4_USD_HOUR} an hour, stopped or not");
        parts.add("address", detail, IPV4_USD_HOUR.per_hour_for(MONTH_SECONDS));
    }
    for (name, usd) in &wanted.with {
        parts.add(name, "as given".to_owned(), *usd);
    }
    Ok(Output::Estimate(EstimateDocument {
        instance_type: instance_type.to_owned(),
        region: region.to_owned(),
        capacity: wanted.capacity.as_str(),
        usd_hour: hour.as_usd(),
        usd_hour_from: from,
        hours_month: seconds(wanted.hours_per_day) / 3_600.0 * f64::from(days),
        usd_month: parts.sum.as_usd(),
        components: parts.documents,
        always_on_usd_month: hour.per_hour_for(MONTH_SECONDS).as_usd(),
    }))
}

fn hours(span: TimeDelta) -> String {
    format!("{} h", seconds(span) / 3_600.0)
}

/// The parts of an estimate and their sum.
#[derive(Default)]
struct Parts {
    sum: MicroUsd,
    documents: Vec<ComponentDocument>,
}

impl Parts {
    fn add(&mut self, name: &str, detail: String, month: MicroUsd) {
        self.sum = self.sum + month;
        let (name, usd_month) = (name.to_owned(), month.as_usd());
        self.documents.push(ComponentDocument { name, detail, usd_month });
    }
}

/// The price of an hour and where it comes from.
pub(super) fn hour_price(
    prices: &PriceTable,
    (instance_type, region): (&str, &str),
    capacity: CapacityType,
    given: Option<MicroUsd>,
) -> Result<(MicroUsd, String), Failure> {
    if let Some(hour) = given {
        return Ok((hour, "as given".to_owned()));
    }
    let known = prices.price(instance_type, region);
    let found = known.and_then(|price| Some((price.hour(capacity)?, price.origin())));
    found.ok_or_else(|| {
        let message = format!("no {capacity} price is known for {instance_type} in {region}");
        Failure::usage(message).hint("give one with --usd-hour (or TYPE:HOURS@USD); `gpuctl cost prices` lists the known ones, with `--refresh` it asks AWS")
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
