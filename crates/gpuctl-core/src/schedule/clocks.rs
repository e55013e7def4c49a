//! Local clocks: which instant a local time means, also on days on which clocks are changed.
//!
//! A time in the skipped hour means the first instant after it (T3). A time in the repeated hour comes twice, and the
//! caller says which time is meant (T4). The zones are bundled with the program (T13).

use chrono::{Datelike, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};

use super::work;
use crate::units::Timestamp;
use crate::zone::Zone;

/// The years that schedules know, as in EventBridge. No instant in them is near the limits of `chrono`.
pub(super) const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;

/// More than the longest gap, a day (in Apia, T5), plus the greatest distance of a zone from UTC, 15 hours.
const NEAR: TimeDelta = TimeDelta::hours(48);

/// The minutes of a day, which as a time is `24:00`.
pub(super) const DAY_MINUTES: u16 = 24 * 60;

/// Which of the two times in the repeated hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occurrence {
    /// What begins does so at once.
    First,
    /// What ends does not end early.
    Second,
}

/// The instant at which clocks of the zone show that minute of the day; in a gap, the first instant after it.
pub(super) fn instant(
    zone: Zone,
    day: NaiveDate,
    minute: u16,
    occurrence: Occurrence,
) -> Option<Timestamp> {
    work::step();
    let local = day.and_hms_opt(0, 0, 0)?.checked_add_signed(TimeDelta::minutes(minute.into()))?;
    let found = zone.from_local_datetime(&local);
    let found = match occurrence {
        Occurrence::First => found.earliest(),
        Occurrence::Second => found.latest(),
    };
    found.map(|at| at.to_utc()).or_else(|| after_gap(zone, local))
}

/// The instant at which clocks jump over `local`.
fn after_gap(zone: Zone, local: NaiveDateTime) -> Option<Timestamp> {
    let offset = |at: NaiveDateTime| zone.offset_from_utc_datetime(&at).fix().local_minus_utc();
    let mut before = local.checked_sub_signed(NEAR)?;
    let mut after = local.checked_add_signed(NEAR)?;
    let old = offset(before);
    while after - before > TimeDelta::seconds(1) {
        let middle = before + (after - before) / 2;
        if offset(middle) == old { before = middle } else { after = middle }
    }
    // Halving may leave fractions of a second; clocks are changed at whole seconds.
    chrono::SubsecRound::trunc_subsecs(after, 0).and_utc().into()
}

/// The date that clocks of the zone show.
pub(super) fn date(zone: Zone, at: Timestamp) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The end of the local day in which `at` lies.
pub(super) fn end_of_day(zone: Zone, at: Timestamp) -> Option<Timestamp> {
    instant(zone, date(zone, at), DAY_MINUTES, Occurrence::Second)
}

/// The end of the last year that schedules know.
pub(super) fn last() -> Timestamp {
    let end = NaiveDate::from_ymd_opt(YEARS.end() + 1, 1, 1);
    end.and_then(|day| day.and_hms_opt(0, 0, 0)).map_or(Timestamp::MAX_UTC, |end| end.and_utc())
}

/// Whether schedules know the instant.
pub(super) fn is_known(at: Timestamp) -> bool {
    YEARS.contains(&at.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(zone: &str, local: &str, first: &str, second: &str) {
        let (day, time) = local.split_once(' ').unwrap();
        let (hour, minute) = time.split_once(':').unwrap();
        let minute = hour.parse::<u16>().unwrap() * 60 + minute.parse::<u16>().unwrap();
        let (zone, day) = (zone.parse().unwrap(), day.parse().unwrap());
        for (occurrence, expected) in [(Occurrence::First, first), (Occurrence::Second, second)] {
            assert_eq!(
                instant(zone, day, minute, occurrence),
                Some(expected.parse().unwrap()),
                "{occurrence:?}"
            );
        }
    }

    #[test]
    fn t3_t4_t5_every_local_time_has_its_instants() {
        let ny = "America/New_York";
        check(ny, "2026-03-08 02:30", "2026-03-08T07:00:00Z", "2026-03-08T07:00:00Z");
        check(ny, "2026-11-01 01:30", "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z");
        check(ny, "2026-11-01 24:00", "2026-11-02T05:00:00Z", "2026-11-02T05:00:00Z");
        check(
            "Australia/Lord_Howe",
            "2024-04-07 01:45",
            "2024-04-06T14:45:00Z",
            "2024-04-06T15:15:00Z",
        );
        check(
            "America/Sao_Paulo",
            "2018-11-04 00:00",
            "2018-11-04T03:00:00Z",
            "2018-11-04T03:00:00Z",
        );
        check("Pacific/Apia", "2011-12-30 09:00", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z");
        check("Asia/Kathmandu", "2026-01-01 00:00", "2025-12-31T18:15:00Z", "2025-12-31T18:15:00Z");
    }
}
