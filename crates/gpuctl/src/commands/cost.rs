//! `cost`: what box time cost, and what it would cost on EC2, from the ledger and the known prices.

mod estimate;
mod forecast;
mod report;

use gpuctl_control::config::Config;
use gpuctl_core::cost::PriceTable;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::MicroUsd;

use super::prices;
use crate::arguments::{CostCommand, StackCostArguments};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::render::Output;

/// `gpuctl cost …`.
pub(super) async fn run(config: Config, command: CostCommand) -> Result<Output, Failure> {
    let known = &config.policy.cost;
    match command {
        CostCommand::Report(wanted) => report::report(&Context::open(config).await?, &wanted).await,
        CostCommand::Forecast => forecast::forecast(&Context::open(config).await?).await,
        CostCommand::Check { max_usd_month } => {
            forecast::check(&Context::open(config).await?, max_usd_month).await
        }
        CostCommand::Stack(wanted) => stack(&config, &wanted),
        CostCommand::Estimate(wanted) => estimate::estimate(known, &wanted),
        CostCommand::Prices(wanted) if wanted.refresh => {
            prices::refresh(&Context::open(config).await?, &wanted).await
        }
        CostCommand::Prices(wanted) => prices::known(known, &wanted),
    }
}

#[cfg(feature = "deploy")]
fn stack(config: &Config, wanted: &StackCostArguments) -> Result<Output, Failure> {
    super::deploy::bill(&config.policy, wanted)
}

#[cfg(not(feature = "deploy"))]
fn stack(_: &Config, _: &StackCostArguments) -> Result<Output, Failure> {
    Err(crate::backend::without_deploy())
}

/// An instance type in a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoxKind<'a> {
    pub(super) instance_type: &'a str,
    pub(super) region: &'a str,
}

/// The price of an hour, and where it comes from: `as given`, or a table and its date.
#[derive(Clone, Debug)]
pub(super) struct HourPrice {
    pub(super) usd: MicroUsd,
    pub(super) origin: String,
}

/// The given price of an hour, else the known one.
pub(super) fn hour_price(
    prices: &PriceTable,
    kind: BoxKind<'_>,
    capacity: CapacityType,
    given: Option<MicroUsd>,
) -> Result<HourPrice, Failure> {
    if let Some(usd) = given {
        return Ok(HourPrice { usd, origin: "as given".to_owned() });
    }
    let known = prices.price(kind.instance_type, kind.region);
    let found = known
        .and_then(|price| Some(HourPrice { usd: price.hour(capacity)?, origin: price.origin() }));
    found.ok_or_else(|| {
        let BoxKind { instance_type, region } = kind;
        let message = format!("no {capacity} price is known for {instance_type} in {region}");
        let meant = prices.did_you_mean(instance_type, region).map(|meant| meant + " Or ");
        Failure::new(Code::PriceUnknown, message).hint(meant.unwrap_or_default() +
            "give one with --usd-hour (or TYPE:HOURS@USD); `gpuctl cost prices` lists the known ones, `--refresh` fetches them from AWS",
        )
    })
}
