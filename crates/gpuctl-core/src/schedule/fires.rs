//! When a start or a stop fires: the single instants of a cron expression, of a rate, or of a one-sided window.
//!
//! Fixed times fire once a day: in the repeated hour a start the first time and a stop the second time, and in the skipped
//! hour at the first instant after it. An expression that fires in every hour follows real time: twice in the repeated
//! hour, not at all in the skipped one. Searches go day by day or minute by minute, within limits that hold for any expression.

use chrono::{Days as Count, DurationRound, NaiveDate, TimeDelta, Timelike};

use super::calendar::{Calendar, Turn};
use super::clocks::{self, DAY_MINUTES, Occurrence, YEARS, instant};
use super::days::Days;
use super::work;
use crate::units::Timestamp;
use crate::zone::Zone;

/// A lone start or stop applies until the end of its local day, and for at least this long: no tick is longer, so that none
/// misses it (T2).
pub const LONE_EDGE_MIN: TimeDelta = TimeDelta::hours(1);

/// The most minutes that a search walks: two days, since clocks may repeat hours.
const MINUTES_WALKED_MAX: u32 = 2 * 24 * 60;

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// The instants at which something starts or stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fires {
    pub(super) zone: Zone,
    pub(super) turn: Turn,
    pub(super) times: Times,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Times {
    Fixed(FixedTimes),
    EveryHour(HourlyTimes),
    /// Each time this number of minutes has passed, counted from 1970-01-01T00:00Z.
    Rate(i64),
    /// On that date, at that minute of the day, and never again.
    Once(NaiveDate, u16),
}

/// Certain minutes of certain days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FixedTimes {
    pub(super) days: Days,
    /// Minutes of the day, sorted, never empty.
    pub(super) minutes: Vec<u16>,
}

/// Certain minutes of every hour of certain days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HourlyTimes {
    pub(super) days: Days,
    /// Bit n for minute n.
    pub(super) minutes: u64,
}

impl Fires {
    /// The first instant after `after` and up to `limit`.
    pub(super) fn next(
        &self,
        calendar: &Calendar,
        after: Timestamp,
        limit: Timestamp,
    ) -> Option<Timestamp> {
        let found = match &self.times {
            Times::Fixed(times) => self.next_fixed(calendar, times, after, limit),
            Times::EveryHour(times) => self.next_hourly(calendar, times, after, limit),
            Times::Rate(minutes) => self.next_of_rate(calendar, *minutes, after),
            Times::Once(day, minute) => self.once(calendar, *day, *minute).filter(|at| *at > after),
        };
        found.filter(|at| *at <= limit)
    }

    /// The last instant up to `upto`.
    pub(super) fn last(&self, calendar: &Calendar, upto: Timestamp) -> Option<Timestamp> {
        match &self.times {
            Times::Fixed(times) => self.last_fixed(calendar, times, upto),
            Times::EveryHour(times) => self.last_hourly(calendar, times, upto),
            Times::Rate(minutes) => self.last_of_rate(calendar, *minutes, upto),
            Times::Once(day, minute) => self.once(calendar, *day, *minute).filter(|at| *at <= upto),
        }
    }

    fn next_fixed(
        &self,
        calendar: &Calendar,
        times: &FixedTimes,
        after: Timestamp,
        limit: Timestamp,
    ) -> Option<Timestamp> {
        // Where clocks are set back over midnight, yesterday's times may still be to come.
        let mut day = clocks::date(self.zone, after).checked_sub_days(Count::new(1))?;
        let limit = clocks::date(self.zone, limit).checked_add_days(Count::new(1))?;
        loop {
            day = calendar.next_from(&times.days, self.turn, day, limit)?;
            let past = times.minutes.partition_point(|minute| self.at(day, *minute) <= Some(after));
            if let Some(minute) = times.minutes.get(past) {
                return self.at(day, *minute);
            }
            day = day.succ_opt()?;
        }
    }

    fn last_fixed(
        &self,
        calendar: &Calendar,
        times: &FixedTimes,
        upto: Timestamp,
    ) -> Option<Timestamp> {
        let mut day = clocks::date(self.zone, upto).checked_add_days(Count::new(1))?;
        loop {
            day = calendar.last_to(&times.days, self.turn, day, first_day()?)?;
            let past = times.minutes.partition_point(|minute| self.at(day, *minute) <= Some(upto));
            if let Some(index) = past.checked_sub(1) {
                return self.at(day, times.minutes[index]);
            }
            day = day.pred_opt()?;
        }
    }

    fn next_hourly(
        &self,
        calendar: &Calendar,
        times: &HourlyTimes,
        after: Timestamp,
        limit: Timestamp,
    ) -> Option<Timestamp> {
        let mut at = after.duration_trunc(MINUTE).ok()? + MINUTE;
        let last_day = clocks::date(self.zone, limit).checked_add_days(Count::new(1))?;
        for _ in 0..MINUTES_WALKED_MAX {
            work::step();
            let local = at.with_timezone(&self.zone);
            let day = local.date_naive();
            let begins = calendar.next_from(&times.days, self.turn, day, last_day)?;
            at = if begins == day {
                if times.minutes & 1 << local.minute() != 0 {
                    return Some(at);
                }
                at + MINUTE
            } else if at < instant(self.zone, day, 0, Occurrence::Second)? {
                // Clocks are set back over this midnight: the day before has more minutes to come.
                at + MINUTE
            } else {
                instant(self.zone, begins, 0, Occurrence::First)?.max(at + MINUTE)
            };
        }
        None
    }

    fn last_hourly(
        &self,
        calendar: &Calendar,
        times: &HourlyTimes,
        upto: Timestamp,
    ) -> Option<Timestamp> {
        let mut at = upto.duration_trunc(MINUTE).ok()?;
        for _ in 0..MINUTES_WALKED_MAX {
            work::step();
            let local = at.with_timezone(&self.zone);
            let day = local.date_naive();
            let ends = calendar.last_to(&times.days, self.turn, day, first_day()?)?;
            at = if ends == day {
                if times.minutes & 1 << local.minute() != 0 {
                    return Some(at);
                }
                at - MINUTE
            } else if at > instant(self.zone, day, DAY_MINUTES, Occurrence::First)? {
                // Likewise, the day after has had minutes before.
                at - MINUTE
            } else {
                (instant(self.zone, ends, DAY_MINUTES, Occurrence::Second)? - MINUTE)
                    .min(at - MINUTE)
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
        // Each round passes one skipped date.
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

    /// An extra date repeats nothing that happens once.
    fn once(&self, calendar: &Calendar, day: NaiveDate, minute: u16) -> Option<Timestamp> {
        (!calendar.skips(self.turn, day)).then(|| self.at(day, minute)).flatten()
    }

    fn at(&self, day: NaiveDate, minute: u16) -> Option<Timestamp> {
        let occurrence = match self.turn {
            Turn::Begin => Occurrence::First,
            Turn::End => Occurrence::Second,
        };
        instant(self.zone, day, minute, occurrence)
    }
}

/// The rate's last instant up to `at`, plus `further` intervals.
fn of_rate(minutes: i64, at: Timestamp, further: i64) -> Option<Timestamp> {
    let seconds = minutes * 60;
    Timestamp::from_timestamp((at.timestamp().div_euclid(seconds) + further) * seconds, 0)
}

/// The day before the first known year: in some zones it is still that day when the year begins in UTC.
fn first_day() -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(YEARS.start() - 1, 12, 31)
}
