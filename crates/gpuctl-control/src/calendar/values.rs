//! Dates, date-times and durations of iCalendar, and which day a date-time means in an event of whole days.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike};
use gpuctl_core::zone::Zone;

/// What a property such as `DTSTART` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Date(NaiveDate),
    /// In the zone of the property, or wherever the reader is.
    Local(NaiveDateTime),
    Utc(NaiveDateTime),
}

/// `20261225`, `20261225T000000` or `20261225T000000Z`.
pub(super) fn value(text: &str) -> Option<Value> {
    let text = text.trim().to_ascii_uppercase();
    let Some((date, time)) = text.split_once('T') else { return date(&text).map(Value::Date) };
    let (time, is_utc) = time.strip_suffix('Z').map_or((time, false), |time| (time, true));
    // A leap second is that of the minute's end.
    let time = if time.ends_with("60") { format!("{}59", time.get(..4)?) } else { time.to_owned() };
    let time = digits(&time, 6).then(|| NaiveTime::parse_from_str(&time, "%H%M%S").ok())??;
    let at = self::date(date)?.and_time(time);
    Some(if is_utc { Value::Utc(at) } else { Value::Local(at) })
}

fn date(text: &str) -> Option<NaiveDate> {
    digits(text, 8).then(|| NaiveDate::parse_from_str(text, "%Y%m%d").ok()).flatten()
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `P3D`, `P1W`, `+P1DT12H0M0S`.
pub(super) fn duration(text: &str) -> Option<TimeDelta> {
    let text = text.trim().to_ascii_uppercase();
    let text = text.strip_prefix('+').unwrap_or(&text).strip_prefix('P')?;
    let (days, times) = text.split_once('T').unwrap_or((text, ""));
    let mut seconds = 0_i64;
    for (part, units) in [(days, "WD"), (times, "HMS")] {
        let mut number = String::new();
        for character in part.chars() {
            if character.is_ascii_digit() {
                number.push(character);
                continue;
            }
            let unit = match units.contains(character).then_some(character)? {
                'W' => 7 * 86_400,
                'D' => 86_400,
                'H' => 3_600,
                'M' => 60,
                _ => 1,
            };
            let whole = number.parse::<i64>().ok()?.checked_mul(unit)?;
            seconds = seconds.checked_add(whole)?;
            number.clear();
        }
        if !number.is_empty() {
            return None;
        }
    }
    (!text.is_empty() && !text.ends_with('T')).then(|| TimeDelta::try_seconds(seconds)).flatten()
}

/// The day that begins at `value`, which has the zone `own`, where clocks are those of `home`; `None` if none does.
pub(super) fn day_from(value: Value, own: Option<Zone>, home: Option<Zone>) -> Option<NaiveDate> {
    match value {
        Value::Date(date) => Some(date),
        Value::Local(at) => midnight(at).or_else(|| {
            let at = own?.from_local_datetime(&at).earliest()?;
            midnight(at.with_timezone(&home?).naive_local())
        }),
        Value::Utc(at) => home.and_then(|home| midnight(at_home(at, home))).or_else(|| nearest(at)),
    }
}

/// The last day of a recurrence that goes until `value`.
pub(super) fn last_day(value: Value, home: Option<Zone>) -> Option<NaiveDate> {
    match (value, home) {
        (Value::Date(date), _) => Some(date),
        (Value::Local(at), _) => Some(at.date()),
        (Value::Utc(at), Some(home)) => Some(at_home(at, home).date()),
        // The last second of a day, as some write it.
        (Value::Utc(at), None) if at.second() == 59 => {
            nearest(at + TimeDelta::seconds(1))?.pred_opt()
        }
        (Value::Utc(at), None) => Some(nearest(at).unwrap_or(at.date())),
    }
}

fn at_home(utc: NaiveDateTime, home: Zone) -> NaiveDateTime {
    utc.and_utc().with_timezone(&home).naive_local()
}

fn midnight(at: NaiveDateTime) -> Option<NaiveDate> {
    (at.time() == NaiveTime::MIN).then_some(at.date())
}

/// The day that begins at that instant somewhere from UTC-10:45 to UTC+13, where nearly all people live. Exchange writes local
/// midnights in UTC, so that the last hours of a UTC day belong to the next one.
fn nearest(utc: NaiveDateTime) -> Option<NaiveDate> {
    let is_midnight_somewhere = utc.second() == 0 && utc.minute().is_multiple_of(15);
    is_midnight_somewhere.then(|| (utc + TimeDelta::hours(13)).date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_times_are_checked_to_the_second() {
        let at = |text: &str| value(text).map(|value| format!("{value:?}"));
        assert_eq!(at("20261225").as_deref(), Some("Date(2026-12-25)"));
        assert_eq!(at("20261225t000000z").as_deref(), Some("Utc(2026-12-25T00:00:00)"));
        assert_eq!(at("20161231T235960Z").as_deref(), Some("Utc(2016-12-31T23:59:59)"));
        for text in ["", "2026122", "20261301", "20261225T999999", "20261225T", "20261225T0000Z"] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_sums_of_their_parts() {
        let hours = |text: &str| duration(text).map(|span| span.num_hours());
        for (text, expected) in
            [("P1D", 24), ("P2W", 336), ("P1DT0H0M0S", 24), ("+P1D", 24), ("PT24H", 24)]
        {
            assert_eq!(hours(text), Some(expected), "{text}");
        }
        for text in ["", "P", "PT", "-P1D", "P1", "P1H", "1D", "PT1D", "P99999999999999999999D"] {
            assert_eq!(hours(text), None, "{text}");
        }
    }

    #[test]
    fn a_local_midnight_in_utc_is_its_local_day() {
        let berlin = "Europe/Berlin".parse().ok();
        for (text, home, expected) in [
            ("20260301T230000Z", berlin, "2026-03-02"),
            ("20260301T230000Z", None, "2026-03-02"),
            ("20260302T050000Z", None, "2026-03-02"),
            ("20260301T110000Z", None, "2026-03-02"),
            ("20260302T000000Z", None, "2026-03-02"),
        ] {
            let day = day_from(value(text).unwrap(), None, home).unwrap();
            assert_eq!(day.to_string(), expected, "{text}");
        }
        assert_eq!(day_from(value("20260301T091700Z").unwrap(), None, None), None);
        for (text, expected) in [
            ("20261019T230000Z", "2026-10-20"),
            ("20261019T225959Z", "2026-10-19"),
            ("20261231T235959Z", "2026-12-31"),
            ("20261020T050000Z", "2026-10-20"),
        ] {
            let day = last_day(value(text).unwrap(), None).unwrap();
            assert_eq!(day.to_string(), expected, "{text}");
        }
    }
}
