//! Today's prices: on demand from the Price List, spot from EC2's price in the cheapest zone.
//!
//! All or nothing: if one price cannot be fetched, the caller keeps the old ones.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::Region;
use aws_sdk_pricing::Client;
use aws_sdk_pricing::config::Builder;
use aws_sdk_pricing::types::{Filter, FilterType};
use chrono::NaiveDate;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::cost::{Price, PriceSource};
use gpuctl_core::units::MicroUsd;
use serde::Deserialize;

use crate::Aws;
use crate::calls::show;
use crate::ec2::spot_prices;
use crate::error::port_error;

/// A region with an endpoint of the Price List, which has few; each returns the prices of all regions.
const PRICE_LIST_REGION: &str = "us-east-1";

/// Rows in one page: the most that the Price List returns. One type in one region has a handful.
const PAGE_ROWS_MAX: i32 = 100;

/// Types in one fetch: each is a call.
const TYPES_MAX: usize = 100;

/// The prices of these types in one region, as of `today`.
///
/// # Errors
/// When a type has no price on demand there, or AWS cannot be asked.
pub async fn fetch_prices(
    aws: &Aws,
    region: &str,
    types: &BTreeSet<String>,
    today: NaiveDate,
) -> Result<Vec<Price>, PortError> {
    if types.len() > TYPES_MAX {
        let text = format!("{} instance types are more than {TYPES_MAX}", types.len());
        return Err(PortError::new(PortErrorClass::Other, text)
            .hint("name some of them with --instance-type"));
    }
    let spot = spot_prices(aws, region, types).await?;
    let settings = Builder::from(aws.sdk()).region(Region::new(PRICE_LIST_REGION));
    let client = Client::from_conf(settings.interceptor(aws.follow()).build());
    let mut prices = Vec::new();
    for instance_type in types {
        prices.push(Price {
            instance_type: instance_type.clone(),
            region: region.to_owned(),
            on_demand: on_demand(&client, region, instance_type).await?,
            spot: spot.get(instance_type).copied(),
            as_of: today.to_string(),
            source: PriceSource::Fetched,
        });
    }
    Ok(prices)
}

async fn on_demand(
    client: &Client,
    region: &str,
    instance_type: &str,
) -> Result<MicroUsd, PortError> {
    let what = format!("the price of {instance_type} in {region} cannot be read");
    let filters = filters(region, instance_type);
    show(format_args!(
        "pricing get-products --region {PRICE_LIST_REGION} --service-code AmazonEC2 --filters {}",
        cli_words(&filters)
    ));
    let call = client.get_products().service_code("AmazonEC2").set_filters(Some(filters));
    let mut pages = call.max_results(PAGE_ROWS_MAX).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| port_error("pricing:GetProducts", what.clone(), error))?;
        for row in page.price_list() {
            let corrupt =
                |error| PortError::new(PortErrorClass::Corrupt, what.clone()).because(error);
            found.extend(hourly(row).map_err(corrupt)?);
        }
    }
    // If two rows match all filters: budgets count a price that is too high rather than too low.
    found.into_iter().max().ok_or_else(|| {
        let text = format!("AWS lists no price of {instance_type} in {region}");
        PortError::new(PortErrorClass::NotFound, text)
            .hint("check the type's name, and that the region has it")
    })
}

/// Linux on shared hardware, without licensed software, in use: what a pool's boxes are.
fn filters(region: &str, instance_type: &str) -> Vec<Filter> {
    let pairs = [
        ("instanceType", instance_type),
        ("regionCode", region),
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
    ];
    let filter = |(field, value)| {
        let filter = Filter::builder().r#type(FilterType::TermMatch).field(field).value(value);
        filter.build().expect("all three parts are given")
    };
    pairs.into_iter().map(filter).collect()
}

/// The filters as arguments of the AWS CLI.
fn cli_words(filters: &[Filter]) -> String {
    let word =
        |one: &Filter| format!("Type=TERM_MATCH,Field={},Value={}", one.field(), one.value());
    filters.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// One row of the Price List: a product and its terms, as a JSON document in a string.
#[derive(Deserialize)]
struct Row {
    product: Product,
    terms: Terms,
}

#[derive(Deserialize)]
struct Product {
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    /// Tells capacity blocks, which are paid for in advance, from on-demand; older rows lack it.
    marketoption: Option<String>,
}

#[derive(Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand", default)]
    on_demand: BTreeMap<String, Term>,
}

#[derive(Deserialize)]
struct Term {
    #[serde(rename = "priceDimensions")]
    dimensions: BTreeMap<String, Dimension>,
}

#[derive(Deserialize)]
struct Dimension {
    unit: String,
    #[serde(rename = "pricePerUnit")]
    price: BTreeMap<String, String>,
}

/// The row's prices of an hour in dollars. Prices of zero are left out: they are for reserved capacity.
fn hourly(row: &str) -> Result<Vec<MicroUsd>, serde_json::Error> {
    let row: Row = serde_json::from_str(row)?;
    if row.product.attributes.marketoption.is_some_and(|market| market != "OnDemand") {
        return Ok(Vec::new());
    }
    let dimensions =
        row.terms.on_demand.into_values().flat_map(|term| term.dimensions.into_values());
    let by_hour = dimensions.filter(|one| matches!(one.unit.as_str(), "Hrs" | "Hours"));
    let usd = by_hour.filter_map(|one| usd(one.price.get("USD")?));
    Ok(usd.filter(|price| *price > MicroUsd(0)).collect())
}

/// Reads a price in dollars; AWS writes ten decimals. Fractions of a micro-dollar are rounded up.
pub(crate) fn usd(text: &str) -> Option<MicroUsd> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (kept, rest) = fraction.split_at_checked(6).unwrap_or((fraction, ""));
    let price = MicroUsd::parse(&format!("{whole}.{kept}"))?;
    let is_more = rest.bytes().any(|digit| digit != b'0');
    Some(price + MicroUsd(i64::from(is_more)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the shape that AWS documents for `GetProducts`, written by hand.
    fn row(market: &str, unit: &str, usd: &str) -> String {
        let attributes = serde_json::json!({
            "instanceType": "g4dn.xlarge", "regionCode": "ap-northeast-1", "operatingSystem": "Linux",
            "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": market,
        });
        serde_json::json!({
            "product": { "productFamily": "Compute Instance", "sku": "SKU1", "attributes": attributes },
            "serviceCode": "AmazonEC2",
            "terms": {
                "OnDemand": { "SKU1.TERM": {
                    "sku": "SKU1", "effectiveDate": "2026-11-01T00:00:00Z", "offerTermCode": "TERM", "termAttributes": {},
                    "priceDimensions": { "SKU1.TERM.RATE": {
                        "unit": unit, "endRange": "Inf", "beginRange": "0", "appliesTo": [], "rateCode": "SKU1.TERM.RATE",
                        "description": "an hour of it", "pricePerUnit": { "USD": usd },
                    } },
                } },
                "Reserved": { "SKU1.YEAR": { "priceDimensions": {}, "termAttributes": { "LeaseContractLength": "1yr" } } },
            },
            "version": "20261101000000", "publicationDate": "2026-11-01T00:00:00Z",
        })
        .to_string()
    }

    #[test]
    fn the_hour_on_demand_is_read_out_of_a_row_and_nothing_else() {
        for (market, unit, usd, expected) in [
            ("OnDemand", "Hrs", "0.7100000000", vec![MicroUsd(710_000)]),
            ("OnDemand", "Hrs", "0.0000000000", vec![]),
            ("OnDemand", "Quantity", "99.0", vec![]),
            ("CapacityBlock", "Hrs", "0.7100000000", vec![]),
        ] {
            assert_eq!(hourly(&row(market, unit, usd)).unwrap(), expected, "{market} {unit} {usd}");
        }
        assert!(hourly("{\"product\": {}}").is_err());
        let chinese = row("OnDemand", "Hrs", "1").replace("USD", "CNY");
        assert_eq!(hourly(&chinese).unwrap(), []);
    }

    #[test]
    fn ten_digits_are_rounded_up_to_micro_dollars() {
        for (text, micro) in
            [("0.7100000000", 710_000), ("0.0000010001", 2), ("0.00001", 10), ("3", 3_000_000)]
        {
            assert_eq!(usd(text), Some(MicroUsd(micro)), "{text}");
        }
        assert_eq!(usd("a lot"), None);
    }
}
