//! One field of numbers or names, as EventBridge writes it: a list of `*`, `9`, `MON`, `9-17`, `20-2`, `0/15`, `MAR/4`, `1-31/10`.
//!
//! Cron expressions and windows share this grammar. Names and ranges that wrap become numbers here, since the `cron` crate knows no
//! range that wraps and no step from a name; the crate then reads the numbers. `L`, `W`, `#` and `?` are read elsewhere.

use std::collections::BTreeSet;

use chrono::{Month, Weekday};
use cron::{Schedule as Numbers, TimeUnitSpec};

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
            Self::Hour => "hours go from 0 to 23, e.g. `9`, `9-17`, `20-2`, `0/6` or `*`",
            Self::Monthday => "days go from 1 to 31, e.g. `1`, `1-15`, `L`, `15W`, `LW` or `*`",
            Self::Month => {
                "months go from 1 to 12 or JAN to DEC, e.g. `NOV-FEB`, `JAN,JUL`, `MAR/4` or `*`"
            }
            Self::Weekday => {
                "days are names, e.g. `MON-FRI`, `FRI-MON`, `MON#1` (alone), `FRIL` or `*`, without steps"
            }
            Self::Year => "years go from 1970 to 2100, e.g. `2026`, `2026-2028` or `*`",
        }
    }

    /// The least and the greatest number. EventBridge counts weekdays from Sunday, as 1.
    fn bounds(self) -> (u32, u32) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::Monthday => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (1, 7),
            Self::Year => (1970, 2100),
        }
    }

    /// The numbers that the text names.
    pub(super) fn read(self, text: &str) -> Option<BTreeSet<u32>> {
        let items: Option<Vec<String>> =
            text.split(',').map(|item| self.as_numbers(item)).collect();
        let mut fields = ["*"; 6];
        let numbers = items?.join(",");
        fields[self as usize] = &numbers;
        let read: Numbers = format!("0 {}", fields.join(" ")).parse().ok()?;
        Some(match self {
            Self::Minute => read.minutes().iter().collect(),
            Self::Hour => read.hours().iter().collect(),
            Self::Monthday => read.days_of_month().iter().collect(),
            Self::Month => read.months().iter().collect(),
            Self::Weekday => read.days_of_week().iter().collect(),
            Self::Year => read.years().iter().collect(),
        })
    }

    /// An item of the list with numbers alone, and a range that wraps as a list of them.
    fn as_numbers(self, item: &str) -> Option<String> {
        let (range, step) =
            item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let step = match step {
            Some(step) => Some(self.step(step)?),
            None => None,
        };
        let stepped = |range: String| step.map_or(range.clone(), |step| format!("{range}/{step}"));
        if range.trim() == "*" {
            return Some(stepped("*".to_owned()));
        }
        let Some((first, last)) = range.split_once('-') else {
            return Some(stepped(self.number(range)?.to_string()));
        };
        let (first, last) = (self.number(first)?, self.number(last)?);
        let (least, greatest) = self.bounds();
        if first <= last {
            return Some(stepped(format!("{first}-{last}")));
        }
        // Years go on and on: none of their ranges wraps.
        let wraps = self != Self::Year;
        let numbers = (first..=greatest).chain(least..=last).step_by(step.unwrap_or(1));
        wraps.then(|| numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(","))
    }

    /// A step is at least 1 (T8), and one past the greatest number is a mistake.
    fn step(self, text: &str) -> Option<usize> {
        let step = number(text).filter(|step| (1..=self.bounds().1).contains(step))?;
        usize::try_from(step).ok()
    }

    /// A number within the bounds, or a name in any case.
    fn number(self, text: &str) -> Option<u32> {
        let text = text.trim();
        let (least, greatest) = self.bounds();
        let named = || match self {
            Self::Month => text.parse::<Month>().ok().map(|month| month.number_from_month()),
            Self::Weekday => text.parse::<Weekday>().ok().map(|day| day.number_from_sunday()),
            _ => None,
        };
        number(text).or_else(named).filter(|number| (least..=greatest).contains(number))
    }
}

/// Digits only: `u32::from_str` also takes a plus sign.
pub(super) fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_have_ranges_that_wrap_and_steps_from_names() {
        for (field, text, expected) in [
            (Field::Hour, "20-2", &[0, 1, 2, 20, 21, 22, 23][..]),
            (Field::Hour, "22-2/2", &[0, 2, 22]),
            (Field::Minute, "50-5/10", &[0, 50]),
            (Field::Monthday, "29-2", &[1, 2, 29, 30, 31]),
            (Field::Month, "NOV-feb", &[1, 2, 11, 12]),
            (Field::Month, "MAR/4", &[3, 7, 11]),
            (Field::Month, "March-December/4", &[3, 7, 11]),
            (Field::Weekday, "FRI-MON", &[1, 2, 6, 7]),
            (Field::Weekday, "SAT-SUN", &[1, 7]),
            (Field::Weekday, "sun-fri", &[1, 2, 3, 4, 5, 6]),
            (Field::Year, "2026-2028", &[2026, 2027, 2028]),
        ] {
            let numbers: Vec<u32> = field.read(text).unwrap().into_iter().collect();
            assert_eq!(numbers, expected, "{text}");
        }
        assert_eq!(Field::Minute.read("*").unwrap().len(), 60);
    }

    #[test]
    fn what_is_no_number_of_the_field_is_rejected() {
        for (field, text) in [
            (Field::Hour, ""),
            (Field::Hour, "24"),
            (Field::Hour, "1-"),
            (Field::Hour, "0/24"),
            (Field::Hour, "0/0"),
            (Field::Hour, "+1"),
            (Field::Minute, "0/60"),
            (Field::Minute, "4294967295/4294967295"),
            (Field::Month, "JAN-DEC/13"),
            (Field::Month, "sept"),
            (Field::Month, "*/*"),
            (Field::Weekday, "MON-FRI/8"),
            (Field::Weekday, "8"),
            (Field::Year, "2028-2026"),
            (Field::Year, "2101"),
            (Field::Monthday, "?"),
            (Field::Monthday, "@daily"),
        ] {
            assert_eq!(field.read(text), None, "{text}");
        }
    }
}
