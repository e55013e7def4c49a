//! The UTC months and days that money is counted in, as AWS bills them.

use chrono::{Datelike, Days, Months, NaiveDate, NaiveTime};

use crate::units::{MicroUsd, Timestamp};

/// A period of time in which costs are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub begin: Timestamp,
    /// Not part of the period itself.
    pub end: Timestamp,
}

impl Period {
    /// What the whole period costs if spending goes on at the same pace. The first hour counts as a whole one: from a few seconds
    /// nothing follows for a month.
    #[must_use]
    pub fn forecast(&self, spent: MicroUsd, now: Timestamp) -> MicroUsd {
        let whole = (self.end - self.begin).num_seconds();
        let elapsed = (now - self.begin).num_seconds().clamp(3_600, whole.max(3_600));
        let sum = i128::from(spent.0) * i128::from(whole.max(elapsed)) / i128::from(elapsed);
        MicroUsd(i64::try_from(sum).unwrap_or(i64::MAX))
    }
}

/// The month of `now` in UTC, as AWS bills it.
#[must_use]
pub fn month_of(now: Timestamp) -> Period {
    let first = now.date_naive().with_day(1).unwrap_or_default();
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    Period { begin: midnight(first), end: midnight(first + Months::new(1)) }
}

/// The day of `now` in UTC, from midnight to midnight.
#[must_use]
pub fn day_of(now: Timestamp) -> Period {
    let begin = now.date_naive().and_time(NaiveTime::MIN).and_utc();
    Period { begin, end: begin + Days::new(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn months_and_days_are_those_of_utc_and_a_forecast_assumes_the_same_pace() {
        let month = month_of(at("2026-12-31T23:59:59Z"));
        assert_eq!(
            (month.begin, month.end),
            (at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z"))
        );
        let day = day_of(at("2026-11-21T06:00:00Z"));
        assert_eq!(
            day.forecast(MicroUsd(1_000_000), at("2026-11-21T06:00:00Z")),
            MicroUsd(4_000_000)
        );
        assert_eq!(
            day.forecast(MicroUsd(1_000_000), at("2026-11-21T00:00:01Z")),
            MicroUsd(24_000_000)
        );
        assert_eq!(day.forecast(MicroUsd(1_000_000), day.end), MicroUsd(1_000_000));
    }
}
