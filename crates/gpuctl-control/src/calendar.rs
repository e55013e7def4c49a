//! Reads the dates of an iCalendar file: its all-day events, with their recurrences.
//!
//! Events with a time of day are left out, since a schedule's calendar has whole dates alone, and so are cancelled events. What the
//! dates mean is up to the schedule.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use chrono::{Datelike, Days, NaiveDate};
use icalendar::parser::{Component, read_calendar, unfold};
use rrule::{Frequency, RRule, Tz, Unvalidated};

/// The largest file: a country's holidays of a decade are a tenth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The deepest nesting: a calendar holds events, which hold alarms. The parser goes as deep as the text.
const NESTING_MAX: usize = 8;

/// The years that recurrences are followed through, and outside which dates are left out.
const YEARS: RangeInclusive<i32> = 2020..=2059;

/// More than a date for each day of `YEARS`.
const OCCURRENCES_MAX: u16 = 15_000;

/// The longest single event.
const EVENT_DAYS_MAX: i64 = 366;

/// Why a file's dates cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// Not there, or not text.
    #[error("cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// Beyond `FILE_BYTES_MAX`.
    #[error("is larger than {} KiB", FILE_BYTES_MAX >> 10)]
    TooLarge,
    /// Another format, or a broken file.
    #[error("is not an iCalendar file")]
    Form,
    /// An event with an invalid date.
    #[error("has an event whose {0} cannot be read")]
    Event(&'static str),
    /// An invalid recurrence, or one more often than daily.
    #[error("has a recurrence that cannot be read: `{0}`")]
    Recurrence(String),
    /// Longer than `EVENT_DAYS_MAX`, or backwards.
    #[error("has an event that does not last from 1 to {EVENT_DAYS_MAX} days")]
    Length,
}

/// The dates of the file, in order.
///
/// # Errors
/// When the file cannot be read, or any part of it is not understood: a holiday that is silently lost costs a day of box time.
pub fn dates_of(path: &Path) -> Result<Vec<NaiveDate>, CalendarError> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CalendarError::TooLarge);
    }
    dates_in(&text)
}

fn dates_in(text: &str) -> Result<Vec<NaiveDate>, CalendarError> {
    let text = unfold(text);
    if nesting(&text) > NESTING_MAX || !text.trim_start().starts_with("BEGIN:VCALENDAR") {
        return Err(CalendarError::Form);
    }
    let calendar = read_calendar(&text).map_err(|_| CalendarError::Form)?;
    let mut dates = BTreeSet::new();
    for event in calendar.components.iter().filter(|part| part.name == "VEVENT") {
        let cancelled = event.find_prop("STATUS").is_some_and(|status| status.val == "CANCELLED");
        if !cancelled {
            dates.extend(event_dates(event)?);
        }
    }
    Ok(dates.into_iter().filter(|date| YEARS.contains(&date.year())).collect())
}

fn nesting(text: &str) -> usize {
    let mut depth = 0_usize;
    let depths = text.lines().map(|line| {
        let begins = line.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("BEGIN:"));
        let ends = line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("END:"));
        depth = (depth + usize::from(begins)).saturating_sub(usize::from(ends));
        depth
    });
    depths.max().unwrap_or(0)
}

fn event_dates(event: &Component<'_>) -> Result<BTreeSet<NaiveDate>, CalendarError> {
    let start = event.find_prop("DTSTART").ok_or(CalendarError::Event("DTSTART"))?;
    // A time of day follows the date after a `T`.
    if start.val.as_str().contains('T') {
        return Ok(BTreeSet::new());
    }
    let start = date(start.val.as_str()).ok_or(CalendarError::Event("DTSTART"))?;
    let length = length(event, start)?;
    let mut begins = BTreeSet::from([start]);
    begins.extend(listed(event, "RDATE")?);
    for rule in event.properties.iter().filter(|property| property.name == "RRULE") {
        begins.extend(recurrences(rule.val.as_str(), start)?);
    }
    for excluded in listed(event, "EXDATE")? {
        begins.remove(&excluded);
    }
    Ok(begins.into_iter().flat_map(|begin| begin.iter_days().take(length)).collect())
}

/// How many days it lasts; its end is exclusive.
fn length(event: &Component<'_>, start: NaiveDate) -> Result<usize, CalendarError> {
    let days = if let Some(end) = event.find_prop("DTEND") {
        (date(end.val.as_str()).ok_or(CalendarError::Event("DTEND"))? - start).num_days()
    } else if let Some(duration) = event.find_prop("DURATION") {
        duration_days(duration.val.as_str()).ok_or(CalendarError::Event("DURATION"))?
    } else {
        1
    };
    let fits = (1..=EVENT_DAYS_MAX).contains(&days);
    fits.then(|| usize::try_from(days).ok()).flatten().ok_or(CalendarError::Length)
}

/// `P3D` or `P1W`: what an all-day event may last.
fn duration_days(text: &str) -> Option<i64> {
    let text = text.strip_prefix('P')?;
    let (number, unit_days) = match text.strip_suffix('D') {
        Some(number) => (number, 1),
        None => (text.strip_suffix('W')?, 7),
    };
    number.parse::<i64>().ok()?.checked_mul(unit_days)
}

fn listed(event: &Component<'_>, name: &'static str) -> Result<Vec<NaiveDate>, CalendarError> {
    let lists = event.properties.iter().filter(|property| property.name == name);
    let texts = lists.flat_map(|list| list.val.as_str().split(','));
    texts.map(|text| date(text).ok_or(CalendarError::Event(name))).collect()
}

fn recurrences(text: &str, start: NaiveDate) -> Result<Vec<NaiveDate>, CalendarError> {
    let bad = || CalendarError::Recurrence(text.to_owned());
    let midnight =
        |day: NaiveDate| Some(day.and_hms_opt(0, 0, 0)?.and_utc().with_timezone(&Tz::UTC));
    let rule: RRule<Unvalidated> = with_whole_until(text).parse().map_err(|_| bad())?;
    let daily = [Frequency::Yearly, Frequency::Monthly, Frequency::Weekly, Frequency::Daily];
    if !daily.contains(&rule.get_freq()) {
        return Err(bad());
    }
    let (first, last) = (
        NaiveDate::from_ymd_opt(*YEARS.start(), 1, 1),
        NaiveDate::from_ymd_opt(*YEARS.end(), 12, 31),
    );
    // An event that begins in December may last into the first year.
    let first =
        first.and_then(|day| day.checked_sub_days(Days::new(EVENT_DAYS_MAX.unsigned_abs())));
    let ((Some(first), Some(last)), Some(start)) =
        ((first.and_then(midnight), last.and_then(midnight)), midnight(start))
    else {
        return Err(bad());
    };
    let set = rule.build(start).map_err(|_| bad())?;
    let found = set.after(first).before(last).all(OCCURRENCES_MAX);
    if found.limited {
        return Err(bad());
    }
    Ok(found.dates.into_iter().map(|at| at.date_naive()).collect())
}

/// The rule with an `UNTIL` that includes its whole day, in UTC as the start is: the parser would take the machine's time zone.
fn with_whole_until(text: &str) -> String {
    let parts = text.split(';').map(|part| match part.strip_prefix("UNTIL=") {
        Some(until) => format!("UNTIL={}T235959Z", until.get(..8).unwrap_or(until)),
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(";")
}

/// `20261225`, also as the date of `20261225T000000Z`.
fn date(text: &str) -> Option<NaiveDate> {
    let (day, time) = text.trim().split_once('T').unwrap_or((text.trim(), ""));
    let whole = day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit());
    let midnight = time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'Z');
    (whole && midnight).then(|| NaiveDate::parse_from_str(day, "%Y%m%d").ok()).flatten()
}

#[cfg(test)]
mod tests {
    use crate::text::with_causes;

    use super::*;

    fn dates(events: &[&str]) -> Result<Vec<String>, CalendarError> {
        let events: String = events
            .iter()
            .map(|event| format!("BEGIN:VEVENT\r\n{event}\r\nEND:VEVENT\r\n"))
            .collect();
        let found =
            dates_in(&format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n"))?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_day_events_are_dates_and_their_end_is_not_among_them() {
        let found = dates(&[
            "SUMMARY:Christmas\r\nDTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20261226",
            "DTSTART;VALUE=DATE:20261231",
            "DTSTART;VALUE=DATE:20270105\r\nDURATION:P2D",
            "SUMMARY:a meeting\r\nDTSTART:20261201T090000Z\r\nDTEND:20261201T100000Z",
            "STATUS:CANCELLED\r\nDTSTART;VALUE=DATE:20261202",
        ]);
        let expected = ["2026-12-24", "2026-12-25", "2026-12-31", "2027-01-05", "2027-01-06"];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn recurrences_are_followed_through_forty_years_and_no_further() {
        let yearly = dates(&["DTSTART;VALUE=DATE:19701225\r\nRRULE:FREQ=YEARLY"]).unwrap();
        assert_eq!(
            (yearly.len(), yearly[0].as_str(), yearly[39].as_str()),
            (40, "2020-12-25", "2059-12-25")
        );
        let daily = dates(&["DTSTART;VALUE=DATE:19700101\r\nRRULE:FREQ=DAILY"]).unwrap();
        assert_eq!(daily.len(), 14_610);
        let until = dates(&[
            "DTSTART;VALUE=DATE:20260105\r\nRRULE:FREQ=WEEKLY;BYDAY=MO;UNTIL=20260126\r\nEXDATE;VALUE=DATE:20260112,20260119\r\nRDATE;VALUE=DATE:20260201",
        ]);
        assert_eq!(until.unwrap(), ["2026-01-05", "2026-01-26", "2026-02-01"]);
        let thanksgiving = dates(&[
            "DTSTART;VALUE=DATE:20261126\r\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=3",
        ]);
        assert_eq!(thanksgiving.unwrap(), ["2026-11-26", "2027-11-25", "2028-11-23"]);
    }

    #[test]
    fn a_file_of_which_any_part_is_not_understood_is_rejected() {
        for event in [
            "SUMMARY:no start",
            "DTSTART;VALUE=DATE:2026122",
            "DTSTART;VALUE=DATE:20261301",
            "DTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20261224",
            "DTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20281224",
            "DTSTART;VALUE=DATE:20261224\r\nDURATION:PT1H",
            "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=SECONDLY",
            "DTSTART;VALUE=DATE:20261224\r\nRRULE:FREQ=NEVER",
            "DTSTART;VALUE=DATE:20261224\r\nEXDATE:soon",
        ] {
            assert!(dates(&[event]).is_err(), "{event}");
        }
        let deep = format!("BEGIN:VCALENDAR\n{}", "BEGIN:A\n".repeat(100_000));
        for text in ["", "a text", "BEGIN:VCALENDAR\n", "BEGIN:VEVENT\nEND:VEVENT\n", &deep] {
            assert!(matches!(dates_in(text), Err(CalendarError::Form)), "{text:.40}");
        }
        let missing = dates_of(Path::new("/nowhere/a.ics")).unwrap_err();
        assert!(with_causes(&missing).starts_with("cannot be read: No such file"));
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large.ics");
        std::fs::write(&large, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(matches!(dates_of(&large), Err(CalendarError::TooLarge)));
    }
}
