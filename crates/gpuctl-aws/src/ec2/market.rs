//! Current spot prices.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::Region;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{InstanceType, SpotPrice};
use gpuctl_control::ports::{Clock, PortError};
use gpuctl_core::units::MicroUsd;

use super::{failed, truncated};
use crate::Aws;
use crate::calls::show;
use crate::prices::usd;

/// The operating system that prices are for; those of Red Hat and SUSE are higher.
const PRODUCT: &str = "Linux/UNIX";

/// The current price of each type in its cheapest zone; types without spot in this region are left out.
pub(crate) async fn spot_prices(
    aws: &Aws,
    region: &str,
    types: &BTreeSet<String>,
) -> Result<BTreeMap<String, MicroUsd>, PortError> {
    let settings = Builder::from(aws.sdk())
        .region(Region::new(region.to_owned()))
        .interceptor(truncated::RejectTruncatedResponse)
        .interceptor(aws.follow());
    let client = Client::from_conf(settings.build());
    let names: Vec<&str> = types.iter().map(String::as_str).collect();
    let now = aws.clock().now();
    show(format_args!(
        "ec2 describe-spot-price-history --region {region} --instance-types {} --product-descriptions {PRODUCT} --start-time {}",
        names.join(" "),
        now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    ));
    let call = client
        .describe_spot_price_history()
        .set_instance_types(Some(names.into_iter().map(InstanceType::from).collect()))
        .product_descriptions(PRODUCT)
        // A history that starts now has one row a type and zone: the price in force.
        .start_time(DateTime::from_secs(now.timestamp()));
    let mut rows = call.into_paginator().items().send();
    let mut newest = Newest::default();
    while let Some(row) = rows.next().await {
        let row = row.map_err(|error| {
            let what = format!("the spot prices in {region} cannot be read");
            failed("ec2:DescribeSpotPriceHistory", what, error)
        })?;
        newest.add(&row);
    }
    Ok(newest.cheapest())
}

/// The newest price by type and zone, with its time in seconds since 1970.
#[derive(Default)]
struct Newest(BTreeMap<(String, String), (i64, MicroUsd)>);

impl Newest {
    fn add(&mut self, row: &SpotPrice) {
        let parts = || {
            let market =
                (row.instance_type()?.as_str().to_owned(), row.availability_zone()?.to_owned());
            Some((market, row.timestamp()?.secs(), usd(row.spot_price()?)?))
        };
        let Some((market, at, price)) = parts() else { return };
        let known = self.0.entry(market).or_insert((at, price));
        if known.0 <= at {
            *known = (at, price);
        }
    }

    fn cheapest(self) -> BTreeMap<String, MicroUsd> {
        let mut cheapest: BTreeMap<String, MicroUsd> = BTreeMap::new();
        for ((kind, _), (_, price)) in self.0 {
            let known = cheapest.entry(kind).or_insert(price);
            *known = price.min(*known);
        }
        cheapest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_price_of_the_cheapest_zone_counts() {
        let mut newest = Newest::default();
        for (zone, at, price) in
            [("a", 20, "0.3000"), ("a", 10, "0.1000"), ("b", 5, "0.2500"), ("c", 5, "nothing")]
        {
            newest.add(
                &SpotPrice::builder()
                    .instance_type(InstanceType::G4dnXlarge)
                    .availability_zone(zone)
                    .timestamp(DateTime::from_secs(at))
                    .spot_price(price)
                    .build(),
            );
        }
        assert_eq!(newest.cheapest(), [("g4dn.xlarge".to_owned(), MicroUsd(250_000))].into());
    }
}
