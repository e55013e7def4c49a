//! What box time costs: per-second billing with EC2's minimum, from a dated table of prices that ships with the program.
//!
//! Prices change: the table says when it was taken, and every figure made from it can say so too.

use chrono::TimeDelta;

use crate::observation::Run;
use crate::units::{MicroUsd, Timestamp};

/// EC2 bills Linux boxes by the second, but at least this much a start.
pub const BILLED_SECONDS_MIN: i64 = 60;

/// When and where the shipped prices were taken.
pub const PRICES_AS_OF: &str = "2025-10";

const TABLE: &str = include_str!("prices.csv");

/// One row of the shipped table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The EC2 instance type.
    pub instance_type: &'static str,
    /// The AWS region.
    pub region: &'static str,
    /// On demand, an hour.
    pub on_demand: MicroUsd,
    /// Spot in the cheapest zone, an hour, where the snapshot had one.
    pub spot: Option<MicroUsd>,
}

/// The shipped prices.
pub fn prices() -> impl Iterator<Item = Price> {
    TABLE.lines().filter(|line| !line.starts_with('#')).skip(1).map(|line| {
        let mut cells = line.split(',');
        let mut cell = || cells.next().unwrap_or_default();
        Price {
            instance_type: cell(),
            region: cell(),
            on_demand: MicroUsd::parse(cell()).expect("the shipped table is checked by a test"),
            spot: MicroUsd::parse(cell()),
        }
    })
}

/// The price of a type in a region.
#[must_use]
pub fn price(instance_type: &str, region: &str) -> Option<Price> {
    prices().find(|price| price.instance_type == instance_type && price.region == region)
}

/// The instance types of the shipped table, some more than once.
pub fn instance_types() -> impl Iterator<Item = &'static str> {
    prices().map(|price| price.instance_type)
}

/// The regions of the shipped table, some more than once.
pub fn regions() -> impl Iterator<Item = &'static str> {
    prices().map(|price| price.region)
}

/// The seconds that EC2 bills for one run of a box.
#[must_use]
pub fn billed_seconds(ran: TimeDelta) -> i64 {
    let whole = ran.num_seconds() + i64::from(ran.subsec_nanos() > 0);
    whole.max(BILLED_SECONDS_MIN)
}

/// What the runs of some boxes cost over a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoxCost {
    /// Starts within the period.
    pub starts: u32,
    /// Seconds that boxes were up within it.
    pub box_seconds: i64,
    /// Seconds that EC2 would bill for them.
    pub billed_seconds: i64,
    /// The billed seconds on demand.
    pub on_demand: MicroUsd,
    /// The billed seconds on spot, where a price is known.
    pub spot: Option<MicroUsd>,
    /// One box up for the whole period, on demand.
    pub always_on: MicroUsd,
}

/// What `runs` cost from `since` until `now`: a run that reaches beyond the period counts with its part within it.
#[must_use]
pub fn box_cost(runs: &[Run], since: Timestamp, now: Timestamp, price: &Price) -> BoxCost {
    let mut cost = BoxCost {
        always_on: price.on_demand.per_hour_for((now - since).num_seconds().max(0)),
        ..BoxCost::default()
    };
    for run in runs {
        let ran = run.stopped_at.unwrap_or(now).min(now) - run.started_at.max(since);
        if ran < TimeDelta::zero() {
            continue;
        }
        cost.starts += u32::from(run.started_at >= since);
        cost.box_seconds += (ran + TimeDelta::milliseconds(500)).num_seconds();
        // The minimum is a start's: a run from before the period has paid it there.
        let began_here = run.started_at >= since;
        cost.billed_seconds += if began_here { billed_seconds(ran) } else { ran.num_seconds() };
    }
    cost.on_demand = price.on_demand.per_hour_for(cost.billed_seconds);
    cost.spot = price.spot.map(|spot| spot.per_hour_for(cost.billed_seconds));
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_shipped_table_has_a_price() {
        assert!(prices().count() > 30);
        for price in prices() {
            assert!(price.on_demand > MicroUsd(0), "{price:?}");
            assert!(price.spot.is_none_or(|spot| spot < price.on_demand), "{price:?}");
        }
    }

    #[test]
    fn the_seeds_box_costs_what_the_seed_says() {
        let tokyo = price("g4dn.xlarge", "ap-northeast-1").unwrap();
        assert_eq!(tokyo.on_demand, MicroUsd(710_000));
        // Seed 004: always on, 720 hours, is $511.
        assert_eq!(tokyo.on_demand.per_hour_for(720 * 3_600), MicroUsd(511_200_000));
    }

    #[test]
    fn a_short_run_is_billed_for_a_minute() {
        for (ms, billed) in [(0, 60), (1_500, 60), (60_000, 60), (60_001, 61), (61_000, 61)] {
            assert_eq!(billed_seconds(TimeDelta::milliseconds(ms)), billed, "{ms} ms");
        }
    }
}
