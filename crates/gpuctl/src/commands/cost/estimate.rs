//! `cost estimate`: the monthly cost of a box, from its hours of use.

use chrono::TimeDelta;
use gpuctl_control::wire::seconds;
use gpuctl_core::cost::{CostSettings, IPV4_USD_HOUR, MONTH_SECONDS, month_of_use};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::MicroUsd;

use super::{BoxKind, hour_price};
use crate::arguments::{EstimateArguments, SecondBox};
use crate::documents::reply::{ComponentDocument, EstimateDocument};
use crate::failure::Failure;
use crate::render::Output;

/// `gpuctl cost estimate`.
pub(super) fn estimate(
    policy: &CostSettings,
    wanted: &EstimateArguments,
) -> Result<Output, Failure> {
    let kind = BoxKind {
        instance_type: wanted.instance_type.as_deref().unwrap_or(&policy.instance_type),
        region: wanted.region.as_deref().unwrap_or(&policy.region),
    };
    let hour = hour_price(&policy.prices, kind, wanted.capacity, wanted.usd_hour)?;
    let mut parts = Parts::default();
    let days = wanted.days_per_month;
    let detail =
        format!("{} a day on {days} days, {}", hours(wanted.hours_per_day), wanted.capacity);
    let month = month_of_use(hour.usd, wanted.hours_per_day, days);
    parts.add(kind.instance_type, detail, month);
    for other in &wanted.with_box {
        add_second_box(&mut parts, policy, wanted, other)?;
    }
    add_standing(&mut parts, policy, wanted);
    Ok(Output::Estimate(EstimateDocument {
        instance_type: kind.instance_type.to_owned(),
        region: kind.region.to_owned(),
        capacity: wanted.capacity.as_str(),
        usd_hour: hour.usd.as_usd(),
        usd_hour_from: hour.origin,
        hours_month: seconds(wanted.hours_per_day) / 3_600.0 * f64::from(days),
        usd_month: parts.sum.as_usd(),
        components: parts.documents,
        always_on_usd_month: hour.usd.per_hour_for(MONTH_SECONDS).as_usd(),
    }))
}

/// `--with-box`: an on-demand box on the same days.
fn add_second_box(
    parts: &mut Parts,
    policy: &CostSettings,
    wanted: &EstimateArguments,
    other: &SecondBox,
) -> Result<(), Failure> {
    let kind = BoxKind {
        instance_type: &other.instance_type,
        region: wanted.region.as_deref().unwrap_or(&policy.region),
    };
    let hour = hour_price(&policy.prices, kind, CapacityType::OnDemand, other.usd_hour)?.usd;
    let days = wanted.days_per_month;
    let detail = format!("{} a day on {days} days at {hour} an hour", hours(other.hours_per_day));
    parts.add(kind.instance_type, detail, month_of_use(hour, other.hours_per_day, days));
    Ok(())
}

/// What costs whether the box runs or not.
fn add_standing(parts: &mut Parts, policy: &CostSettings, wanted: &EstimateArguments) {
    if wanted.disk_gib > 0 {
        let price = policy.disk_usd_gib_month;
        let detail = format!("{} GiB at {price} a month, stopped or not", wanted.disk_gib);
        parts.add("disk", detail, price.times(i64::from(wanted.disk_gib)));
    }
    if wanted.public_ipv4 {
        let detail = format!("{IPV4_USD_HOUR} an hour, stopped or not");
        parts.add("address", detail, IPV4_USD_HOUR.per_hour_for(MONTH_SECONDS));
    }
    for fixed in &wanted.with {
        parts.add(&fixed.name, "as given".to_owned(), fixed.usd);
    }
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
