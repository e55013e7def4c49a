//! When a start or a stop fires: the single instants of a cron expression, of a rate, or of a one-sided window.
//!
//! Fixed times fire once a day: in the repeated hour a start at its first pass and a stop at its second, and in the skipped
//! hour at the first instant after it. An expression that fires in every hour follows real time: twice in the repeated
//! hour, not at all in the skipped one. Searches go day by day and minute by minute within limits, whatever the expression.

use chrono::{Days as Count, DurationRound, NaiveDate, TimeDelta, Timelike};
use chrono_tz::Tz;

use super::calendar::{Calendar, Turn};
use super::clocks::{self, DAY_MINUTES, Occurrence, YEARS, instant};
use super::days::Days;
use crate::units::Timestamp;

/// A lone start or stop holds to the end of its local day, and at least so long: no tick is longer, so none misses it (T2).
pub const LONE_EDGE_MIN: TimeDelta = TimeDelta::hours(1);

/// Minutes that a search in a day may walk: two days, since clocks may repeat hours.
const MINUTES_WALKED_MAX: u32 = 2 * 24 * 60;

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// The instants at which something starts or stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fires {
    pub(super) zone: Tz,
    pub(super) turn: Turn,
    pub(super) times: Times,
}

/// When in a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// At these minutes of the day, sorted, never empty.
    Fixed(Days, Vec<u16>),
    /// At these minutes of every hour: bit n for minute n.
    EveryHour(Days, u64),
    /// Every so many minutes since 1970-01-01T00:00Z.
    Rate(i64),
}

impl Fires {
    /// The first one after `after` and up to `limit`.
    pub(super) fn next(
        &self,
        calendar: &Calendar,
        after: Timestamp,
        limit: Timestamp,
    ) -> Option<Timestamp> {
        let found = match &self.times {
            Times::Fixed(days, minutes) => self.next_fixed(calendar, (days, minutes), after, limit),
            Times::EveryHour(days, mask) => {
                self.next_in_hours(calendar, (days, *mask), after, limit)
            }
            Times::Rate(minutes) => self.next_of_rate(calendar, *minutes, after),
        };
        found.filter(|at| *at <= limit)
    }

    /// The last one at or before `upto`.
    pub(super) fn last(&self, calendar: &Calendar, upto: Timestamp) -> Option<Timestamp> {
        match &self.times {
            Times::Fixed(days, minutes) => self.last_fixed(calendar, (days, minutes), upto),
            Times::EveryHour(days, mask) => self.last_in_hours(calendar, (days, *mask), upto),
            Times::Rate(minutes) => self.last_of_rate(calendar, *minutes, upto),
        }
    }

    fn next_fixed(
        &self,
        calendar: &Calendar,
        (days, minutes): (&Days, &[u16]),
        after: Timestamp,
        limit: Timestamp,
    ) -> Option<Timestamp> {
        // Where clocks are set back over midnight, yesterday's fires may be still to come.
        let mut day = clocks::date(self.zone, after).checked_sub_days(Count::new(1))?;
        let limit = clocks::date(self.zone, limit).checked_add_days(Count::new(1))?;
        loop {
            day = calendar.next_from((days, self.turn), day, limit)?;
            let past = minutes.partition_point(|minute| self.at(day, *minute) <= Some(after));
            if let Some(minute) = minutes.get(past) {
                return self.at(day, *minute);
            }
            day = day.succ_opt()?;
        }
    }

    fn last_fixed(
        &self,
        calendar: &Calendar,
        (days, minutes): (&Days, &[u16]),
        upto: Timestamp,
    ) -> Option<Timestamp> {
        let mut day = clocks::date(self.zone, upto).checked_add_days(Count::new(1))?;
        loop {
            day = calendar.last_to((days, self.turn), day, first_day()?)?;
            let past = minutes.partition_point(|minute| self.at(day, *minute) <= Some(upto));
            if let Some(place) = past.checked_sub(1) {
                return self.at(day, minutes[place]);
            }
            day = day.pred_opt()?;
        }
    }

    fn next_in_hours(
        &self,
        calendar: &Calendar,
        (days, mask): (&Days, u64),
        after: Timestamp,
        limit: Timestamp,
    ) -> Option<Timestamp> {
        let mut at = after.duration_trunc(MINUTE).ok()? + MINUTE;
        let last_day = clocks::date(self.zone, limit).checked_add_days(Count::new(1))?;
        for _ in 0..MINUTES_WALKED_MAX {
            let local = at.with_timezone(&self.zone);
            let day = local.date_naive();
            let begins = calendar.next_from((days, self.turn), day, last_day)?;
            let midnight = instant(self.zone, day, 0, Occurrence::Second)?;
            at = if begins != day && at < midnight {
                // Clocks go back over this midnight: the day before has minutes to come.
                at + MINUTE
            } else if begins != day {
                instant(self.zone, begins, 0, Occurrence::First)?.max(at + MINUTE)
            } else if mask & 1 << local.minute() != 0 {
                return Some(at);
            } else {
                at + MINUTE
            };
        }
        None
    }

    fn last_in_hours(
        &self,
        calendar: &Calendar,
        (days, mask): (&Days, u64),
        upto: Timestamp,
    ) -> Option<Timestamp> {
        let mut at = upto.duration_trunc(MINUTE).ok()?;
        for _ in 0..MINUTES_WALKED_MAX {
            let local = at.with_timezone(&self.zone);
            let day = local.date_naive();
            let ends = calendar.last_to((days, self.turn), day, first_day()?)?;
            let midnight = instant(self.zone, day, DAY_MINUTES, Occurrence::First)?;
            at = if ends != day && at > midnight {
                // … and here the day after had some before.
                at - MINUTE
            } else if ends != day {
                (instant(self.zone, ends, DAY_MINUTES, Occurrence::Second)? - MINUTE)
                    .min(at - MINUTE)
            } else if mask & 1 << local.minute() != 0 {
                return Some(at);
            } else {
                at - MINUTE
            };
        }
        None
    }

    fn next_of_rate(
        &self,
        calendar: &Calendar,
        minutes: i64,
        after: Timestamp,
    ) -> Option<Timestamp> {
        let mut after = after;
        // Each turn passes a skipped date.
        for _ in 0..=calendar.skip.len() {
            let at = of_rate(minutes, after, 1)?;
            if !calendar.skips(self.turn, clocks::date(self.zone, at)) {
                return Some(at);
            }
            after = clocks::end_of_day(self.zone, at)? - TimeDelta::seconds(1);
        }
        None
    }

    fn last_of_rate(
        &self,
        calendar: &Calendar,
        minutes: i64,
        upto: Timestamp,
    ) -> Option<Timestamp> {
        let mut upto = upto;
        for _ in 0..=calendar.skip.len() {
            let at = of_rate(minutes, upto, 0)?;
            let day = clocks::date(self.zone, at);
            if !calendar.skips(self.turn, day) {
                return Some(at);
            }
            upto = instant(self.zone, day, 0, Occurrence::First)? - TimeDelta::seconds(1);
        }
        None
    }

    fn at(&self, day: NaiveDate, minute: u16) -> Option<Timestamp> {
        let pass = match self.turn {
            Turn::Begin => Occurrence::First,
            Turn::End => Occurrence::Second,
        };
        instant(self.zone, day, minute, pass)
    }
}

/// The rate's last instant up to `at`, and so many further.
fn of_rate(minutes: i64, at: Timestamp, further: i64) -> Option<Timestamp> {
    let seconds = minutes * 60;
    Timestamp::from_timestamp((at.timestamp().div_euclid(seconds) + further) * seconds, 0)
}

/// The day before the first year: somewhere on Earth it is still that day when the year begins.
fn first_day() -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(YEARS.start() - 1, 12, 31)
}
