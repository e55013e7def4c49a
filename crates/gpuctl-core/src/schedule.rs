//! Windows of local time in which a pool should be up: a pure function of the instant.
//!
//! A window's edges are turned into instants, and the state is read off the interval between them, so that no effect ever
//! depends on looking at an exact minute (T2). Where clocks change: an edge in the skipped hour takes effect at the first
//! instant after it (T3), a begin in the repeated hour at its first pass, an end at its second, so that a window neither
//! closes early nor opens twice (T4).

use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Weekday};
use chrono_tz::Tz;

use crate::units::Timestamp;

/// How far ahead the next edge is looked for: windows repeat weekly, and a zone may skip a day (T5).
const DAYS_AHEAD_MAX: u64 = 9;

/// One window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    zone: Tz,
    /// By `Weekday::num_days_from_monday`: the days on which the window begins.
    weekdays: [bool; 7],
    begin: NaiveTime,
    end: NaiveTime,
}

/// Why a window was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not in the zone database.
    #[error("`{0}` is no time zone")]
    Zone(String),
    /// Not weekdays.
    #[error("`{0}` is no weekday or range of them")]
    Weekdays(String),
    /// Not a time of day.
    #[error("`{0}` is no time of day")]
    Time(String),
    /// The window would be empty or a whole day: the writer must say which (T9).
    #[error("begin and end are both {0}")]
    Empty(NaiveTime),
}

impl WindowError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Zone(_) => "use a name from the IANA database, as `Asia/Tokyo`, `Europe/Berlin` or `UTC`".to_owned(),
            // T10: 0, 1 and 7 each mean different days in cron, EventBridge and ISO.
            Self::Weekdays(_) => "use names, as `mon-fri` or `sat,sun`; numbers mean different days to different tools".to_owned(),
            Self::Time(_) => "write it as `09:00`".to_owned(),
            Self::Empty(_) => "leave both out for a whole day".to_owned(),
        }
    }
}

impl Window {
    /// A window from its settings; a missing begin or end is midnight, missing weekdays are all of them.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn new(
        zone: &str,
        weekdays: Option<&str>,
        begin: Option<&str>,
        end: Option<&str>,
    ) -> Result<Self, WindowError> {
        let zone = zone.parse().map_err(|_| WindowError::Zone(zone.to_owned()))?;
        let weekdays = weekdays.map_or(Ok([true; 7]), parse_weekdays)?;
        let (begin_at, end_at) = (parse_time(begin)?, parse_time(end)?);
        if begin_at == end_at && (begin.is_some() || end.is_some()) {
            return Err(WindowError::Empty(begin_at));
        }
        Ok(Self { zone, weekdays, begin: begin_at, end: end_at })
    }

    /// Whether the window is open, and when that changes, if it does within `DAYS_AHEAD_MAX`.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> (bool, Option<Timestamp>) {
        let today = now.with_timezone(&self.zone).date_naive();
        let mut open_until: Option<Timestamp> = None;
        for ahead in 0..=DAYS_AHEAD_MAX {
            // An overnight window that is open now began yesterday.
            let Some(day) = today
                .checked_sub_days(Days::new(1))
                .and_then(|d| d.checked_add_days(Days::new(ahead)))
            else {
                continue;
            };
            let Some((begin, end)) = self.interval(day) else { continue };
            match open_until {
                // Windows that meet are one: a whole day runs into the next.
                Some(until) if begin > until => return (true, Some(until)),
                Some(until) => open_until = Some(until.max(end)),
                None if end <= now => {}
                None if begin <= now => open_until = Some(end),
                None => return (false, Some(begin)),
            }
        }
        // Open for as far as we look: it never closes.
        (open_until.is_some(), None)
    }

    /// The window that begins on local day `day`, if one does.
    fn interval(&self, day: NaiveDate) -> Option<(Timestamp, Timestamp)> {
        let weekday = day.weekday().num_days_from_monday() as usize;
        if !self.weekdays[weekday] {
            return None;
        }
        let end_day =
            if self.end <= self.begin { day.checked_add_days(Days::new(1))? } else { day };
        let begin = self.instant(day, self.begin)?.0;
        let end = self.instant(end_day, self.end)?.1;
        (begin < end).then_some((begin, end))
    }

    /// The first and the last instant at which local clocks show this time; in a gap, the first instant after it.
    fn instant(&self, day: NaiveDate, time: NaiveTime) -> Option<(Timestamp, Timestamp)> {
        let local = day.and_time(time);
        // The longest gap is a whole skipped day (T5); zone offsets change on whole minutes in all dates that matter.
        for minutes in 0..=(25 * 60) {
            let moved = local.checked_add_signed(TimeDelta::minutes(minutes))?;
            let found = self.zone.from_local_datetime(&moved);
            if let (Some(first), Some(last)) = (found.earliest(), found.latest()) {
                return Some((first.to_utc(), last.to_utc()));
            }
        }
        None
    }
}

fn parse_time(text: Option<&str>) -> Result<NaiveTime, WindowError> {
    text.map_or(Ok(NaiveTime::MIN), |text| {
        NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| WindowError::Time(text.to_owned()))
    })
}

fn parse_weekdays(text: &str) -> Result<[bool; 7], WindowError> {
    let bad = || WindowError::Weekdays(text.to_owned());
    let day = |name: &str| {
        let name = name.trim();
        if name.bytes().any(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        name.parse::<Weekday>().map(|day| day.num_days_from_monday() as usize).map_err(|_| bad())
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // `sat-mon` wraps around the week's end.
        let length = (last + 7 - first) % 7;
        for step in 0..=length {
            days[(first + step) % 7] = true;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(window: &Window, now: &str, open: bool, next: Option<&str>) {
        assert_eq!(window.at(at(now)), (open, next.map(at)), "{window:?} at {now}");
    }

    #[test]
    fn office_hours_in_tokyo_open_at_midnight_utc() {
        let window =
            Window::new("Asia/Tokyo", Some("mon-fri"), Some("09:00"), Some("19:00")).unwrap();
        check(&window, "2026-11-20T00:00:00Z", true, Some("2026-11-20T10:00:00Z"));
        check(&window, "2026-11-19T23:59:59Z", false, Some("2026-11-20T00:00:00Z"));
        // Friday evening: the next begin is Monday's.
        check(&window, "2026-11-20T10:00:00Z", false, Some("2026-11-23T00:00:00Z"));
    }

    #[test]
    fn t1_an_overnight_window_has_no_hole_at_midnight() {
        let window = Window::new("UTC", Some("fri"), Some("22:00"), Some("06:00")).unwrap();
        check(&window, "2026-11-20T23:59:59Z", true, Some("2026-11-21T06:00:00Z"));
        check(&window, "2026-11-21T00:00:00Z", true, Some("2026-11-21T06:00:00Z"));
        check(&window, "2026-11-21T06:00:00Z", false, Some("2026-11-27T22:00:00Z"));
    }

    #[test]
    fn t3_a_begin_in_the_skipped_hour_takes_effect_right_after_it() {
        let window = Window::new("America/New_York", None, Some("02:30"), Some("05:00")).unwrap();
        check(&window, "2026-03-08T06:59:00Z", false, Some("2026-03-08T07:00:00Z"));
    }

    #[test]
    fn t4_an_end_in_the_repeated_hour_comes_once_and_not_early() {
        let window = Window::new("America/New_York", None, Some("00:00"), Some("01:30")).unwrap();
        check(&window, "2026-11-01T05:45:00Z", true, Some("2026-11-01T06:30:00Z"));
        check(&window, "2026-11-01T06:30:00Z", false, Some("2026-11-02T05:00:00Z"));
    }

    #[test]
    fn a_window_of_all_days_never_changes() {
        let window = Window::new("Pacific/Apia", None, None, None).unwrap();
        check(&window, "2011-12-30T12:00:00Z", true, None);
    }

    #[test]
    fn bad_settings_are_refused_with_a_hint() {
        for (zone, days, begin, end) in [
            ("Mars/Base", None, None, None),
            ("UTC", Some("1-5"), None, None),
            ("UTC", Some("wensday"), None, None),
            ("UTC", Some(""), None, None),
            ("UTC", None, Some("25:00"), None),
            ("UTC", None, Some("09:00"), Some("09:00")),
        ] {
            let error = Window::new(zone, days, begin, end).unwrap_err();
            assert!(!error.hint().is_empty());
        }
    }
}
