//! What spot costs now.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::Region;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{InstanceType, SpotPrice};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{Clock, PortError};
use gpuctl_core::units::MicroUsd;

use super::{failed, whole};
use crate::Aws;
use crate::calls::show;
use crate::prices::usd;

/// What a box's image is; Red Hat's and SUSE's cost more.
const PRODUCT: &str = "Linux/UNIX";

/// The price in the cheapest zone, of those types that have one in this region.
pub(crate) async fn spot_prices(
    aws: &Aws,
    region: &str,
    types: &BTreeSet<String>,
) -> Result<BTreeMap<String, MicroUsd>, PortError> {
    let settings = Builder::from(aws.sdk()).region(Region::new(region.to_owned()));
    let client = Client::from_conf(settings.interceptor(whole::Whole).build());
    let names: Vec<&str> = types.iter().map(String::as_str).collect();
    let now = SystemClock.now();
    show(format_args!(
        "ec2 describe-spot-price-history --region {region} --instance-types {} --product-descriptions {PRODUCT} --start-time {}",
        names.join(" "),
        now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    ));
    let call = client
        .describe_spot_price_history()
        .set_instance_types(Some(names.into_iter().map(InstanceType::from).collect()))
        .product_descriptions(PRODUCT)
        // From now on: then EC2 answers with what is in force.
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

/// The newest price of each type in each zone.
#[derive(Default)]
struct Newest(BTreeMap<(String, String), (i64, MicroUsd)>);

impl Newest {
    fn add(&mut self, row: &SpotPrice) {
        let parts = || {
            let place =
                (row.instance_type()?.as_str().to_owned(), row.availability_zone()?.to_owned());
            Some((place, row.timestamp()?.secs(), usd(row.spot_price()?)?))
        };
        let Some((place, at, price)) = parts() else { return };
        let known = self.0.entry(place).or_insert((at, price));
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
