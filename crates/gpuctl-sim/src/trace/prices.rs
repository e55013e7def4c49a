//! The spot price per hour as it changes, from a file of one's own or from what `DescribeSpotPriceHistory` returned.
//!
//! Whether capacity is available at that price is in `Availability`.

use std::collections::BTreeMap;

use gpuctl_core::units::{MicroUsd, Timestamp};

use super::read::{self, Problem, TraceError};

/// The price of an hour of spot in each zone, over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceHistory {
    /// By zone, each price with the instant from which it is in force, in order.
    changes: BTreeMap<String, Vec<(i64, MicroUsd)>>,
}

impl PriceHistory {
    /// Reads `t_s,zone,usd_hour`, or `timestamp_utc,az,instance_type,usd_per_hour` as EC2's history has it, plain or compressed by
    /// gzip. Of the second only the rows of `instance_type` count; its time begins with the first row of any type.
    ///
    /// # Errors
    /// At the first line that cannot be read.
    pub fn read(bytes: &[u8], instance_type: &str) -> Result<Self, TraceError> {
        match Self::read_seconds(bytes) {
            Err(own @ TraceError { problem: Problem::Header { .. }, .. }) => {
                match Self::read_timestamps(bytes, instance_type) {
                    Err(TraceError { problem: Problem::Header { .. }, .. }) => Err(own),
                    answer => answer,
                }
            }
            answer => answer,
        }
    }

    fn read_seconds(bytes: &[u8]) -> Result<Self, TraceError> {
        let (mut history, mut last_ms) = (Self::default(), 0);
        read::rows(bytes, ["t_s", "zone", "usd_hour"], |[at, zone, hour]| {
            let at_ms = read::seconds("t_s", at)?;
            read::check_instant(at_ms, &mut last_ms)?;
            history.set(at_ms, read::zone(zone)?, read::usd("usd_hour", hour)?);
            Ok(())
        })?;
        Ok(history)
    }

    fn read_timestamps(bytes: &[u8], instance_type: &str) -> Result<Self, TraceError> {
        let (mut history, mut last_ms) = (Self::default(), 0);
        let mut begin: Option<Timestamp> = None;
        let header = ["timestamp_utc", "az", "instance_type", "usd_per_hour"];
        read::rows(bytes, header, |[at, zone, kind, hour]| {
            let at = read::timestamp("timestamp_utc", at)?;
            let at_ms = (at - *begin.get_or_insert(at)).num_milliseconds();
            if at_ms < last_ms {
                return Err(Problem::Unsorted);
            }
            read::check_range("timestamp_utc", at_ms)?;
            last_ms = at_ms;
            // What does not count must be readable all the same.
            let (zone, hour) = (read::zone(zone)?, read::usd("usd_per_hour", hour)?);
            if kind == instance_type {
                history.set(at_ms, zone, hour);
            }
            Ok(())
        })?;
        Ok(history)
    }

    /// Whether a price of this zone is known.
    #[must_use]
    pub fn knows(&self, zone: &str) -> bool {
        self.changes.contains_key(zone)
    }

    /// The zones with a price, in order of their names.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        self.changes.keys().map(String::as_str)
    }

    /// The price of an hour in this zone at this instant. Before the first change it is the first price, and after the last one it
    /// stays; `None` for a zone that is not known.
    #[must_use]
    pub fn at(&self, zone: &str, ms: i64) -> Option<MicroUsd> {
        let changes = self.changes.get(zone)?;
        let ahead = changes.partition_point(|(at_ms, _)| *at_ms <= ms);
        changes.get(ahead.saturating_sub(1)).map(|(_, hour)| *hour)
    }

    /// The first instant after this one at which the price of the zone may change, if it does.
    #[must_use]
    pub fn next_change(&self, zone: &str, ms: i64) -> Option<i64> {
        let changes = self.changes.get(zone)?;
        changes.get(changes.partition_point(|(at_ms, _)| *at_ms <= ms)).map(|(at_ms, _)| *at_ms)
    }

    fn set(&mut self, at_ms: i64, zone: &str, hour: MicroUsd) {
        let changes = self.changes.entry(zone.to_owned()).or_default();
        // Of two prices at one instant the later line counts.
        changes.pop_if(|(last_ms, _)| *last_ms == at_ms);
        changes.push((at_ms, hour));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "t_s,zone,usd_hour\n10,a,0.2\n10,b,0.5\n20,a,0.3\n20,a,0.25\n30.5,a,1\n";

    fn rejected(text: &str) -> String {
        PriceHistory::read(text.as_bytes(), "g4dn.xlarge").unwrap_err().to_string()
    }

    #[test]
    fn a_price_is_in_force_until_the_next_one_and_the_first_before_it() {
        let history = PriceHistory::read(OWN.as_bytes(), "any").unwrap();
        assert_eq!(history.zones().collect::<Vec<_>>(), ["a", "b"]);
        let a = |ms| (history.at("a", ms).map(|hour| hour.0), history.next_change("a", ms));
        assert_eq!(a(0), (Some(200_000), Some(10_000)));
        assert_eq!(a(19_999), (Some(200_000), Some(20_000)));
        assert_eq!(a(20_000), (Some(250_000), Some(30_500)));
        assert_eq!(a(i64::MAX), (Some(1_000_000), None));
        assert_eq!((history.at("c", 0), history.knows("c")), (None, false));
    }

    #[test]
    fn ec2s_own_history_is_read_for_one_type() {
        let text = "timestamp_utc,az,instance_type,usd_per_hour\n\
            2019-12-20T06:39:10.000Z,a,p3.16xlarge,26.44\n\
            2019-12-20T06:39:12.500Z,a,p3.2xlarge,3.305\n\
            2019-12-20T08:39:13+02:00,b,p3.2xlarge,3\n";
        let history = PriceHistory::read(text.as_bytes(), "p3.2xlarge").unwrap();
        assert_eq!(history.at("a", 0), Some(MicroUsd(3_305_000)));
        assert_eq!(
            (history.next_change("a", 0), history.next_change("b", 0)),
            (Some(2_500), Some(3_000))
        );
        let other = PriceHistory::read(text.as_bytes(), "g4dn.xlarge").unwrap();
        assert_eq!(other.zones().count(), 0);
    }

    #[test]
    fn a_history_that_cannot_be_read_is_rejected_with_its_line() {
        let aws = "timestamp_utc,az,instance_type,usd_per_hour\n";
        for (text, message) in [
            ("", "line 1: the trace is empty"),
            ("t_s,zone\n", "line 1: the header is `t_s,zone`, not `t_s,zone,usd_hour`"),
            ("t_s,zone,usd_hour\n", "line 2: the trace is empty"),
            ("t_s,zone,usd_hour\n1,a\n", "line 2: columns: 2 instead of 3"),
            (
                "t_s,zone,usd_hour\n1,a,$1\n",
                "line 2: `$1` in column `usd_hour` is not a valid price",
            ),
            (
                "t_s,zone,usd_hour\n1,a,-0.1\n",
                "line 2: `-0.1` in column `usd_hour` is not a valid price",
            ),
            (
                "t_s,zone,usd_hour\n1,a,100001\n",
                "line 2: `100001` in column `usd_hour` is not a valid price",
            ),
            ("t_s,zone,usd_hour\n1,a b,1\n", "line 2: `a b` is not a valid zone name"),
            ("t_s,zone,usd_hour\n2,a,1\n1,a,1\n", "line 3: earlier than the line before"),
            (
                &format!("{aws}yesterday,a,p3.2xlarge,1\n"),
                "line 2: `yesterday` in column `timestamp_utc` is not a valid time",
            ),
            (
                &format!("{aws}2020-01-02T00:00:00Z,a,x,1\n\n2020-01-01T00:00:00Z,a,x,1\n"),
                "line 4: earlier than the line before",
            ),
            (
                &format!("{aws}2020-01-02T00:00:00Z,a,x,1\n2031-01-02T00:00:00Z,a,x,1\n"),
                "line 3: column `timestamp_utc` is beyond ten years",
            ),
            (
                &format!("{aws}2020-01-02T00:00:00Z,a,x,free\n"),
                "line 2: `free` in column `usd_per_hour` is not a valid price",
            ),
        ] {
            assert_eq!(rejected(text), message, "{text:?}");
        }
    }
}
