//! Prices of what is not a box: a dated table that ships with the program, with its sources.

use std::sync::LazyLock;

use crate::units::MicroUsd;

const TABLE: &str = include_str!("services.csv");

/// The price of a part of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePrice {
    pub item: &'static str,
    region: &'static str,
    /// What `units` units cost.
    usd: MicroUsd,
    units: i64,
    pub unit: &'static str,
    /// The month of this price, e.g. `2026-11`.
    pub as_of: &'static str,
    pub source: &'static str,
}

impl ServicePrice {
    /// What a number of units costs, rounded up to the next micro-dollar.
    #[must_use]
    pub fn of(&self, units: i64) -> MicroUsd {
        self.usd.per(self.units, units)
    }
}

/// The price of an item in a region, else the one of us-east-1.
#[must_use]
pub fn service_price(item: &str, region: &str) -> Option<&'static ServicePrice> {
    static ROWS: LazyLock<Vec<ServicePrice>> =
        LazyLock::new(|| TABLE.lines().filter_map(row).collect());
    let in_region = |wanted: &str| ROWS.iter().find(|row| row.item == item && row.region == wanted);
    in_region(region).or_else(|| in_region("*"))
}

/// A row; `None` for comments and the heading.
fn row(line: &'static str) -> Option<ServicePrice> {
    let mut cells = line.splitn(7, ',');
    let mut next = || cells.next();
    Some(ServicePrice {
        item: next()?,
        region: next()?,
        usd: MicroUsd::parse(next()?)?,
        units: next()?.parse().ok()?,
        unit: next()?,
        as_of: next()?,
        source: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{GP3_USD_GIB_MONTH, IPV4_USD_HOUR};

    #[test]
    fn every_row_is_read_and_agrees_with_the_constants() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count() - 1;
        assert_eq!(TABLE.lines().filter_map(row).count(), rows);
        let price = |item, region, units| service_price(item, region).unwrap().of(units);
        assert_eq!(price("disk", "us-east-1", 1), GP3_USD_GIB_MONTH);
        assert_eq!(price("disk", "ap-northeast-1", 100), MicroUsd(9_600_000));
        assert_eq!(price("address", "mars-1", 1), IPV4_USD_HOUR);
        // A tick a minute.
        assert_eq!(price("schedule", "us-east-1", 43_200), MicroUsd(43_200));
        assert_eq!(service_price("moon", "us-east-1"), None);
    }
}
