//! EventBridge's grammar: `cron(minutes hours day-of-month month day-of-week year)`, `rate(N unit)` and `at(date-time)`.
//!
//! `field` parses sets of numbers and names; `L`, `W` and `#` are those of `days`. `fires` says when an expression fires. Weekdays
//! must be names (T10), although EventBridge accepts numbers too.

use std::collections::BTreeSet;

use chrono::{NaiveDateTime, Timelike};

use super::EntryError;
use super::calendar::Turn;
use super::clocks::YEARS;
use super::days::{Days, Monthdays, Months, TEXT_CHARS_MAX, Weekdays};
use super::field::Field;
use super::fires::{Fires, FixedTimes, HourlyTimes, Times};
use crate::text::excerpt;
use crate::zone::Zone;

/// The weekdays as EventBridge counts them, from 1.
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const HOURS: usize = 24;

/// The longest rate in minutes: ten years, as for every duration.
const RATE_MINUTES_MAX: i64 = crate::units::DURATION_SECONDS_MAX / 60;

/// Parses an expression.
pub(super) fn parse(text: &str, zone: Zone, turn: Turn) -> Result<Fires, EntryError> {
    let inside = |name| text.trim().strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    let times = match (inside("cron"), inside("rate"), inside("at")) {
        _ if text.len() > TEXT_CHARS_MAX => return Err(EntryError::Expression(excerpt(text))),
        (Some(fields), ..) => parse_cron(fields)?,
        (_, Some(rate), _) => parse_rate(rate)?,
        (.., Some(at)) => parse_at(at)?,
        (None, None, None) => return Err(EntryError::Expression(excerpt(text))),
    };
    Ok(Fires { zone, turn, times })
}

/// EventBridge Scheduler's one-time schedule: a local date and time, to the minute.
fn parse_at(text: &str) -> Result<Times, EntryError> {
    let bad = || EntryError::At(excerpt(text));
    let whole = text.len() == "2026-12-01T13:00:00".len() && !text.starts_with(['+', '-']);
    let at = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").ok().filter(|_| whole);
    let at = at.filter(|at| YEARS.contains(&chrono::Datelike::year(at))).ok_or_else(bad)?;
    let minute = u16::try_from(at.hour() * 60 + at.minute()).map_err(|_| bad())?;
    if at.second() != 0 {
        return Err(bad());
    }
    Ok(Times::Once(at.date(), minute))
}

fn parse_cron(text: &str) -> Result<Times, EntryError> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, monthdays, months, weekdays, years] = fields[..] else {
        return Err(EntryError::CronFields(fields.len()));
    };
    let (monthdays, weekdays) = match (monthdays, weekdays) {
        ("?", "?") => return Err(EntryError::CronDays),
        (text, "?") => (parse_monthdays(text)?, Weekdays::EVERY),
        ("?", text) => (Monthdays::EVERY, parse_weekdays(text)?),
        _ => return Err(EntryError::CronDays),
    };
    let months = Months::of_numbers(read(Field::Month, months)?);
    let years = match years {
        "*" => None,
        text => {
            let years = read(Field::Year, text)?.into_iter();
            Some(years.filter_map(|year| i32::try_from(year).ok()).collect())
        }
    };
    let days = Days::new(weekdays, monthdays, months, years);
    let (minutes, hours) = (read(Field::Minute, minutes)?, read(Field::Hour, hours)?);
    if hours.len() == HOURS {
        let minutes = minutes.iter().fold(0, |mask, minute| mask | 1 << minute);
        return Ok(Times::EveryHour(HourlyTimes { days, minutes }));
    }
    let times = hours.iter().flat_map(|hour| minutes.iter().map(move |m| hour * 60 + m));
    let minutes = times.filter_map(|time| u16::try_from(time).ok()).collect();
    Ok(Times::Fixed(FixedTimes { days, minutes }))
}

fn read(field: Field, text: &str) -> Result<BTreeSet<u32>, EntryError> {
    field.read(text).ok_or_else(|| EntryError::CronField { field, text: excerpt(text) })
}

fn parse_monthdays(text: &str) -> Result<Monthdays, EntryError> {
    if text.contains(['L', 'W', 'l', 'w']) {
        let bad = |_| EntryError::CronField { field: Field::Monthday, text: excerpt(text) };
        return Monthdays::parse(text).map_err(bad);
    }
    Ok(Monthdays::of_numbers(read(Field::Monthday, text)?))
}

fn parse_weekdays(text: &str) -> Result<Weekdays, EntryError> {
    if let Some(names) = named_weekdays(text) {
        return Err(EntryError::CronWeekdayNumber { text: text.to_owned(), names });
    }
    let bad = || EntryError::CronField { field: Field::Weekday, text: excerpt(text) };
    // EventBridge has no steps here, and `#` only alone.
    if text.contains('/') || text.contains('#') && text.contains(',') {
        return Err(bad());
    }
    if text == "*" {
        return Ok(Weekdays::EVERY);
    }
    Weekdays::parse(text).map_err(|error| match error {
        EntryError::BareL => EntryError::BareL,
        _ => bad(),
    })
}

/// The text with its weekday numbers replaced by names; `None` if it has none.
fn named_weekdays(text: &str) -> Option<String> {
    let mut names = String::new();
    let mut found = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        // A number after `#` or `/` is not a day.
        if digits == 0 || names.ends_with(['#', '/']) {
            let length = digits.max(first.len_utf8());
            names.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        found = true;
        let number = rest[..digits].parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        names.push_str(number.and_then(|number| WEEKDAYS.get(number)).unwrap_or(&"?"));
        rest = &rest[digits..];
    }
    found.then_some(names)
}

fn parse_rate(text: &str) -> Result<Times, EntryError> {
    let bad = || EntryError::Rate(excerpt(text));
    let mut words = text.split_whitespace();
    let (Some(number), Some(unit), None) = (words.next(), words.next(), words.next()) else {
        return Err(bad());
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        number.parse::<i64>().ok().filter(|number| digits && *number > 0).ok_or_else(bad)?;
    let singular = unit.strip_suffix('s').unwrap_or(unit);
    let unit_minutes = match singular {
        "minute" => 1,
        "hour" => 60,
        "day" => 24 * 60,
        _ => return Err(bad()),
    };
    if (number == 1) != (unit == singular) {
        let right = if number == 1 { singular.to_owned() } else { format!("{singular}s") };
        return Err(EntryError::RateUnit {
            text: text.to_owned(),
            right: format!("{number} {right}"),
        });
    }
    let minutes = number.checked_mul(unit_minutes).filter(|minutes| *minutes <= RATE_MINUTES_MAX);
    minutes.map(Times::Rate).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str) -> Result<Times, EntryError> {
        parse(text, Zone::UTC, Turn::Begin).map(|fires| fires.times)
    }

    #[test]
    fn the_examples_of_eventbridge_are_parsed() {
        let fixed = |text, minutes: &[u16]| match times(text).unwrap() {
            Times::Fixed(found) => {
                assert_eq!(found.minutes, minutes, "{text}");
                found.days
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(fixed("cron(0 10 * * ? *)", &[600]), Days::EVERY);
        assert_eq!(
            fixed("cron(0 18 ? * MON-FRI *)", &[1080]).weekdays,
            Weekdays::parse("mon-fri").unwrap()
        );
        assert_eq!(fixed("cron(0 8 1 * ? *)", &[480]).monthdays, Monthdays::parse("1").unwrap());
        assert_eq!(fixed("cron(15 10 ? * FRIL 2022-2023)", &[615]).years, Some(vec![2022, 2023]));
        assert_eq!(fixed("cron(0 9 LW * ? *)", &[540]).monthdays, Monthdays::parse("LW").unwrap());
        assert_eq!(
            fixed("cron(0,30 8-9 ? JAN,jul SUN#2 *)", &[480, 510, 540, 570]).months,
            Months::parse("1,7").unwrap()
        );
        let evening: Vec<u16> =
            [0, 1, 2, 20, 21, 22, 23].iter().flat_map(|h| [h * 60, h * 60 + 30]).collect();
        assert_eq!(
            fixed("cron(0/30 20-2 ? * MON-FRI *)", &evening).weekdays,
            Weekdays::parse("mon-fri").unwrap()
        );
        assert_eq!(
            fixed("cron(0 8 ? NOV-FEB FRI-MON *)", &[480]),
            Days::new(
                Weekdays::parse("fri-mon").unwrap(),
                Monthdays::EVERY,
                Months::parse("nov-feb").unwrap(),
                None
            )
        );
        assert_eq!(
            fixed("cron(0 8 25 MAR/4 ? *)", &[480]).months,
            Months::parse("3,7,11").unwrap()
        );
        let first_of_december = "2026-12-01".parse().unwrap();
        assert_eq!(times("at(2026-12-01T13:00:00)"), Ok(Times::Once(first_of_december, 780)));
        let hourly = HourlyTimes { days: Days::EVERY, minutes: 1 | 1 << 30 };
        assert_eq!(times("cron(0/30 * ? * * *)"), Ok(Times::EveryHour(hourly)));
        assert_eq!(times("rate(1 minute)"), Ok(Times::Rate(1)));
        assert_eq!(times("rate(5 days)"), Ok(Times::Rate(7_200)));
    }

    #[test]
    fn t10_weekday_numbers_are_rejected_with_their_names() {
        for (text, expected) in [
            ("2-6", "MON-FRI"),
            ("6L", "FRIL"),
            ("3#2", "TUE#2"),
            ("1,7", "SUN,SAT"),
            ("6-2", "FRI-MON"),
            ("0", "?"),
        ] {
            let names = expected.to_owned();
            let error = EntryError::CronWeekdayNumber { text: text.to_owned(), names };
            assert_eq!(times(&format!("cron(0 9 ? * {text} *)")), Err(error));
        }
    }

    #[test]
    fn a_message_counts_one_field_as_well() {
        assert_eq!(times("cron(9)").unwrap_err().to_string(), "needs 6 fields, and has 1");
    }

    #[test]
    fn what_eventbridge_rejects_is_rejected() {
        for text in [
            "",
            "cron()",
            "cron(0 9 * * ?)",
            // T11: one of the two days must be open.
            "cron(0 9 * * * *)",
            "cron(0 9 ? * ? *)",
            "0 9 * * ? *",
            "cron(60 9 * * ? *)",
            "cron(0 24 * * ? *)",
            "cron(0 9 32 * ? *)",
            "cron(0 9 * 13 ? *)",
            "cron(0 9 ? * L *)",
            "cron(0 9 ? * FOO *)",
            "cron(0/0 9 * * ? *)",
            "cron(0 9 W * ? *)",
            "cron(0 ? * * ? *)",
            "cron(@daily 9 * * ? *)",
            "cron(0 9 * * ? 1969)",
            "cron(0/60 9 * * ? *)",
            "cron(0 9 * JAN/13 ? *)",
            "cron(0 9 * * ? 2027-2026)",
            "cron(0 9 ? * MON#1,WED#2 *)",
            "cron(0 9 ? * */2 *)",
            "cron(0 9 ? * MON-FRI/2 *)",
            "cron(0 9 ? * TUE/2 *)",
            "at()",
            "at(2026-12-01)",
            "at(2026-12-01T13:00)",
            "at(2026-12-01T13:00:30)",
            "at(2026-12-01T13:00:00Z)",
            "at(2026-02-30T13:00:00)",
            "at(1969-12-01T13:00:00)",
            "cron(4294967295/4294967295 9 * * ? *)",
            "cron(0 9 ? * MON#6 *)",
            "cron(0 9 ? * MON# *)",
            "rate(5 minute)",
            "rate(1 minutes)",
            "rate(0 minutes)",
            "rate(-1 hours)",
            "rate(5)",
            "rate(5 weeks)",
            "rate(99999999999999999999 days)",
            "rate(9999999 days)",
        ] {
            let error = times(text).unwrap_err();
            assert!(!error.hint().is_empty() && !error.to_string().is_empty(), "{text}");
        }
        assert!(times(&format!("cron({})", "0,".repeat(1_000_000))).is_err());
    }
}
