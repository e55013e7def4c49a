//! EventBridge's grammar: `cron(minutes hours day-of-month month day-of-week year)` and `rate(N unit)`.
//!
//! The `cron` crate parses sets of numbers and names, a field at a time; `L`, `W`, `#` and `?`, which it does not know, are parsed
//! here. Its iteration is not used: `fires` says when an expression fires. Weekdays must be names (T10), although EventBridge
//! accepts numbers too.

use cron::{Schedule as Fields, TimeUnitSpec};

use super::EntryError;
use super::calendar::Turn;
use super::days::{Days, Monthdays, Months, TEXT_CHARS_MAX, Weekdays};
use super::fires::{Fires, FixedTimes, HourlyTimes, Times};
use crate::zone::Zone;

/// The weekdays as EventBridge counts them, from 1.
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const HOURS: u32 = 24;

/// The longest rate in minutes: ten years, as for every duration.
const RATE_MINUTES_MAX: i64 = crate::units::DURATION_SECONDS_MAX / 60;

/// Parses an expression.
pub(super) fn parse(text: &str, zone: Zone, turn: Turn) -> Result<Fires, EntryError> {
    let inside = |name| text.trim().strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    let times = match (inside("cron"), inside("rate")) {
        _ if text.len() > TEXT_CHARS_MAX => return Err(EntryError::Expression(shorten(text))),
        (Some(fields), _) => parse_cron(fields)?,
        (_, Some(rate)) => parse_rate(rate)?,
        (None, None) => return Err(EntryError::Expression(text.to_owned())),
    };
    Ok(Fires { zone, turn, times })
}

fn shorten(text: &str) -> String {
    format!("{}…", text.chars().take(20).collect::<String>())
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
    let months = Months::of_numbers(Field::Month.read(months)?.months().iter());
    let years = Field::Year.read(years)?;
    let years = (!years.years().is_all())
        .then(|| years.years().iter().filter_map(|year| i32::try_from(year).ok()).collect());
    let days = Days { weekdays, monthdays, months, years };
    let (minutes, hours) = (Field::Minute.read(minutes)?, Field::Hour.read(hours)?);
    let minutes = minutes.minutes();
    if hours.hours().count() == HOURS {
        let minutes = minutes.iter().fold(0, |mask, minute| mask | 1 << minute);
        return Ok(Times::EveryHour(HourlyTimes { days, minutes }));
    }
    let times = hours.hours().iter().flat_map(|hour| minutes.iter().map(move |m| hour * 60 + m));
    let minutes = times.filter_map(|time| u16::try_from(time).ok()).collect();
    Ok(Times::Fixed(FixedTimes { days, minutes }))
}

fn parse_monthdays(text: &str) -> Result<Monthdays, EntryError> {
    if text.contains(['L', 'W', 'l', 'w']) {
        let bad = |_| EntryError::CronField { field: Field::Monthday, text: text.to_owned() };
        return Monthdays::parse(text).map_err(bad);
    }
    Ok(Monthdays::of_numbers(Field::Monthday.read(text)?.days_of_month().iter()))
}

fn parse_weekdays(text: &str) -> Result<Weekdays, EntryError> {
    if let Some(names) = named_weekdays(text) {
        return Err(EntryError::CronWeekdayNumber { text: text.to_owned(), names });
    }
    let ours = |item: &str| item.contains('#') || item.ends_with(['L', 'l']);
    if text.split(',').any(ours) {
        let bad = |error| match error {
            EntryError::BareL => EntryError::BareL,
            _ => EntryError::CronField { field: Field::Weekday, text: text.to_owned() },
        };
        return Weekdays::parse(text).map_err(bad);
    }
    let numbers = Field::Weekday.read(text)?;
    // The crate counts Sunday as 1; in our mask, bit 0 is Monday.
    let mask = numbers.days_of_week().iter().fold(0, |mask, day| mask | 1 << ((day + 5) % 7));
    Ok(Weekdays::of_mask(mask))
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
    let bad = || EntryError::Rate(text.to_owned());
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

/// The fields of a cron expression, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Minute,
    Hour,
    Monthday,
    Month,
    Weekday,
    Year,
}

impl Field {
    /// The name in messages, as in EventBridge's documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minutes",
            Self::Hour => "hours",
            Self::Monthday => "day-of-month",
            Self::Month => "month",
            Self::Weekday => "day-of-week",
            Self::Year => "year",
        }
    }

    /// Its range, with examples.
    pub(super) fn grammar(self) -> &'static str {
        match self {
            Self::Minute => "minutes go from 0 to 59, e.g. `0`, `0,30`, `0/15` or `*`",
            Self::Hour => "hours go from 0 to 23, e.g. `9`, `9-17`, `0/6` or `*`",
            Self::Monthday => "days go from 1 to 31, e.g. `1`, `1-15`, `L`, `15W`, `LW` or `*`",
            Self::Month => "months go from 1 to 12 or JAN to DEC, e.g. `1-3`, `JAN,JUL` or `*`",
            Self::Weekday => "days are names, e.g. `MON-FRI`, `SAT,SUN`, `MON#1`, `FRIL` or `*`",
            Self::Year => "years go from 1970 to 2100, e.g. `2026`, `2026-2028` or `*`",
        }
    }

    /// Parses an expression whose other fields are `*`.
    fn read(self, text: &str) -> Result<Fields, EntryError> {
        let bad = || EntryError::CronField { field: self, text: text.to_owned() };
        // The crate also accepts `?` and shorthands such as `@daily`.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b",-*/".contains(&byte);
        if !text.bytes().all(known) {
            return Err(bad());
        }
        let mut fields = ["*"; 6];
        fields[self as usize] = text;
        format!("0 {}", fields.join(" ")).parse().map_err(|_| bad())
    }
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
            ("2-6/2", "MON-FRI/2"),
            ("0", "?"),
        ] {
            let names = expected.to_owned();
            let error = EntryError::CronWeekdayNumber { text: text.to_owned(), names };
            assert_eq!(times(&format!("cron(0 9 ? * {text} *)")), Err(error));
        }
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
            "cron(5-1 9 * * ? *)",
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
