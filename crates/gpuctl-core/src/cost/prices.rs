//! Prices of an hour: the dated table that ships with the program, and fetched rows, each of which replaces the shipped row of its
//! type and region.
//!
//! Both have the same format. Callers know where the fetched table is, and how to ask AWS for it.

use std::sync::{Arc, LazyLock};

use chrono::NaiveDate;

use crate::offering::CapacityType;
use crate::suggest;
use crate::units::MicroUsd;

/// The most fetched rows. Policies name some dozens of types; each look-up walks all rows.
pub const PRICES_MAX: usize = 1_000;

/// The shipped prices and the fetched ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceTable {
    fetched: Arc<[Price]>,
}

/// The price of an instance type in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub instance_type: String,
    pub region: String,
    /// An hour on demand.
    pub on_demand: MicroUsd,
    /// An hour of spot in the cheapest zone, where it was known.
    pub spot: Option<MicroUsd>,
    /// The day or month of these prices, e.g. `2026-11-22` or `2025-10`; `gpuctl.toml` for the policy's own.
    pub as_of: String,
    pub source: PriceSource,
}

/// The origin of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceSource {
    /// The table that ships with the program.
    Shipped,
    /// AWS's price lists, by `gpuctl cost prices --refresh`.
    Fetched,
    /// `[cost] usd_hour`.
    Policy,
}

/// Why a table of prices cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceTableError {
    /// A row does not have five cells, or one of them is not valid.
    #[error("line {line}: `{text}` is not a valid row of prices")]
    Row {
        /// Counted from 1.
        line: usize,
        text: String,
    },
    #[error("it has more than {PRICES_MAX} rows")]
    TooLong,
}

/// The regions' cities, as people call them.
const CITIES: [(&str, &str); 22] = [
    ("bahrain", "me-south-1"),
    ("california", "us-west-1"),
    ("dublin", "eu-west-1"),
    ("frankfurt", "eu-central-1"),
    ("hong kong", "ap-east-1"),
    ("ireland", "eu-west-1"),
    ("london", "eu-west-2"),
    ("milan", "eu-south-1"),
    ("montreal", "ca-central-1"),
    ("mumbai", "ap-south-1"),
    ("ohio", "us-east-2"),
    ("oregon", "us-west-2"),
    ("osaka", "ap-northeast-3"),
    ("paris", "eu-west-3"),
    ("sao paulo", "sa-east-1"),
    ("seoul", "ap-northeast-2"),
    ("singapore", "ap-southeast-1"),
    ("stockholm", "eu-north-1"),
    ("sydney", "ap-southeast-2"),
    ("tokyo", "ap-northeast-1"),
    ("virginia", "us-east-1"),
    ("zurich", "eu-central-2"),
];

impl PriceTable {
    /// "Did you mean …?" for a type or a region that no price is known for; `None` if both are known, or none is near.
    #[must_use]
    pub fn did_you_mean(&self, instance_type: &str, region: &str) -> Option<String> {
        let types = || self.prices().map(|price| price.instance_type.as_str());
        let regions = || self.prices().map(|price| price.region.as_str());
        if !regions().any(|known| known == region) {
            let city = CITIES.iter().find(|(city, _)| city.eq_ignore_ascii_case(region.trim()));
            let meant = city.map(|(_, region)| format!("did you mean `{region}`?"));
            return meant.or_else(|| suggest::did_you_mean(region, regions()));
        }
        (!types().any(|known| known == instance_type))
            .then(|| suggest::did_you_mean(instance_type, types()))
            .flatten()
    }

    /// The shipped prices and `fetched` ones, which replace those of the same type and region.
    #[must_use]
    pub fn with(fetched: Vec<Price>) -> Self {
        Self { fetched: fetched.into() }
    }

    /// Reads a table of fetched prices.
    ///
    /// # Errors
    /// If any row is not valid: half a table would silently mix prices of two dates.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        let rows = rows(text).map(|(line, text)| {
            let row = || PriceTableError::Row { line, text: text.to_owned() };
            read(text, PriceSource::Fetched).ok_or_else(row)
        });
        let fetched: Vec<Price> = rows.take(PRICES_MAX + 1).collect::<Result<_, _>>()?;
        if fetched.len() > PRICES_MAX {
            Err(PriceTableError::TooLong)
        } else {
            Ok(Self::with(fetched))
        }
    }

    /// The fetched prices as text, as `parse` reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "# Prices of Linux boxes in USD an hour; spot is that of the cheapest zone. Written by `gpuctl cost prices --refresh`.\n{COLUMNS}\n"
        );
        for price in self.fetched.iter() {
            let spot = price.spot.map(decimal).unwrap_or_default();
            let cells: [&str; 5] = [
                &price.instance_type,
                &price.region,
                &decimal(price.on_demand),
                &spot,
                &price.as_of,
            ];
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }

    /// The fetched prices, with those of the same type and region replaced by `newer` ones.
    #[must_use]
    pub fn renewed(&self, newer: Vec<Price>) -> Self {
        let stays =
            |old: &&Price| !newer.iter().any(|new| new.is_of(&old.instance_type, &old.region));
        let mut all: Vec<Price> = self.fetched.iter().filter(stays).cloned().collect();
        all.extend(newer);
        all.sort_by(|a, b| (&a.instance_type, &a.region).cmp(&(&b.instance_type, &b.region)));
        Self::with(all)
    }

    #[must_use]
    pub fn price(&self, instance_type: &str, region: &str) -> Option<&Price> {
        self.fetched.iter().chain(shipped()).find(|price| price.is_of(instance_type, region))
    }

    /// All prices, the fetched ones first.
    pub fn prices(&self) -> impl Iterator<Item = &Price> {
        let is_newer =
            |old: &Price| self.fetched.iter().any(|new| new.is_of(&old.instance_type, &old.region));
        self.fetched.iter().chain(shipped().iter().filter(move |price| !is_newer(price)))
    }
}

impl Price {
    /// The price of an hour; `None` if the spot price is not known.
    #[must_use]
    pub fn hour(&self, capacity: CapacityType) -> Option<MicroUsd> {
        match capacity {
            CapacityType::Spot => self.spot,
            CapacityType::OnDemand => Some(self.on_demand),
        }
    }

    /// The origin and date in words, e.g. `shipped prices of 2025-10`.
    #[must_use]
    pub fn origin(&self) -> String {
        match self.source {
            PriceSource::Shipped => format!("shipped prices of {}", self.as_of),
            PriceSource::Fetched => format!("prices fetched on {}", self.as_of),
            PriceSource::Policy => self.as_of.to_string(),
        }
    }

    /// The day of the price, or the first of the month if only that is known; `None` for the policy's own price.
    #[must_use]
    pub fn taken_on(&self) -> Option<NaiveDate> {
        day(&self.as_of)
    }

    fn is_of(&self, instance_type: &str, region: &str) -> bool {
        self.instance_type == instance_type && self.region == region
    }
}

impl PriceSource {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shipped => "shipped",
            Self::Fetched => "fetched",
            Self::Policy => "gpuctl.toml",
        }
    }
}

const SHIPPED: &str = include_str!("prices.csv");
const COLUMNS: &str = "instance_type,region,on_demand_usd_hour,spot_usd_hour,as_of";

fn shipped() -> &'static [Price] {
    static PRICES: LazyLock<Vec<Price>> = LazyLock::new(|| {
        let row = |(_, text)| {
            read(text, PriceSource::Shipped).expect("the shipped table is checked by a test")
        };
        rows(SHIPPED).map(row).collect()
    });
    &PRICES
}

/// The rows of a table with their line numbers, without comments and the header.
fn rows(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_row =
        |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with('#') && *line != COLUMNS;
    (1..).zip(text.lines()).filter(is_row)
}

fn read(row: &str, source: PriceSource) -> Option<Price> {
    let cells: Vec<&str> = row.split(',').collect();
    let [instance_type, region, on_demand, spot, as_of] = cells.try_into().ok()?;
    let spot = match spot {
        "" => None,
        spot => Some(MicroUsd::parse(spot)?),
    };
    day(as_of)?;
    Some(Price {
        instance_type: instance_type.to_owned(),
        region: region.to_owned(),
        on_demand: MicroUsd::parse(on_demand)?,
        spot,
        as_of: as_of.to_owned(),
        source,
    })
}

/// Reads `2026-11-22`, or `2026-11` as the first of the month.
fn day(text: &str) -> Option<NaiveDate> {
    text.parse().ok().or_else(|| format!("{text}-01").parse().ok())
}

fn decimal(price: MicroUsd) -> String {
    format!("{}.{:06}", price.0 / 1_000_000, price.0 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FETCHED: &str = "# a comment\ninstance_type,region,on_demand_usd_hour,spot_usd_hour,as_of\n\
        g4dn.xlarge,ap-northeast-1,0.72,0.300001,2026-11-22\nc7i.large,ap-northeast-1,0.1121,,2026-11-22\n";

    #[test]
    fn every_row_of_the_shipped_table_has_a_price() {
        let table = PriceTable::default();
        assert!(table.prices().count() > 30);
        for price in table.prices() {
            assert!(price.on_demand > MicroUsd(0), "{price:?}");
            assert!(price.spot.is_none_or(|spot| spot < price.on_demand), "{price:?}");
            assert!(price.taken_on().is_some(), "{price:?}");
        }
    }

    #[test]
    fn a_fetched_row_replaces_the_shipped_one_and_no_other() {
        let (shipped, table) = (PriceTable::default(), PriceTable::parse(FETCHED).unwrap());
        let of = |table: &PriceTable, kind: &str, region: &str| {
            table.price(kind, region).map(|price| (price.on_demand, price.origin()))
        };
        assert_eq!(
            of(&shipped, "g4dn.xlarge", "ap-northeast-1"),
            Some((MicroUsd(710_000), "shipped prices of 2025-10".to_owned()))
        );
        assert_eq!(
            of(&table, "g4dn.xlarge", "ap-northeast-1"),
            Some((MicroUsd(720_000), "prices fetched on 2026-11-22".to_owned()))
        );
        assert_eq!(
            of(&table, "g4dn.xlarge", "us-east-1"),
            of(&shipped, "g4dn.xlarge", "us-east-1")
        );
        assert_eq!(of(&shipped, "c7i.large", "ap-northeast-1"), None);
        assert_eq!(table.prices().count(), shipped.prices().count() + 1);
    }

    #[test]
    fn a_written_table_is_read_back_and_newer_rows_replace_old_ones() {
        let table = PriceTable::parse(FETCHED).unwrap();
        assert_eq!(
            PriceTable::parse(&table.text()).unwrap().prices().count(),
            table.prices().count()
        );
        let newer = Price {
            on_demand: MicroUsd(700_000),
            as_of: "2026-12-01".to_owned(),
            ..table.price("g4dn.xlarge", "ap-northeast-1").unwrap().clone()
        };
        let renewed = table.renewed(vec![newer.clone()]);
        assert_eq!(renewed.price("g4dn.xlarge", "ap-northeast-1"), Some(&newer));
        assert_eq!(PriceTable::parse(&renewed.text()), Ok(renewed.clone()));
        assert_eq!(renewed.price("c7i.large", "ap-northeast-1").unwrap().as_of, "2026-11-22");
    }

    #[test]
    fn a_row_that_is_not_valid_is_named_with_its_line() {
        for row in ["g5.xlarge,us-east-1,1.0", "g5.xlarge,us-east-1,a,,2026-11", "a,b,1,,soon"] {
            let error = PriceTable::parse(&format!("# prices\n{row}")).unwrap_err();
            assert_eq!(error.to_string(), format!("line 2: `{row}` is not a valid row of prices"));
        }
    }
}
