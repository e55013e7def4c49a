//! On which days: the fields `weekdays`, `monthdays` and `months`, and the years of a cron expression.
//!
//! All fields are ANDed (T11). A day that a month does not have never matches, and is not an error (T7). Hours, zones and
//! calendars are elsewhere.

use std::collections::BTreeSet;

use chrono::{Datelike, NaiveDate, Weekday};

use super::clocks::YEARS;
use super::field::{Field, number};
use super::{EntryError, work};
use crate::text::excerpt;

/// The longest text of a field: EventBridge's limit for a whole expression.
pub(super) const TEXT_CHARS_MAX: usize = 256;

/// A day more than the years that schedules know: in some zones it is still the year before when one begins in UTC.
const FIRST: NaiveDate = NaiveDate::from_ymd_opt(*YEARS.start() - 1, 12, 31).expect("a date");
const LAST: NaiveDate = NaiveDate::from_ymd_opt(*YEARS.end() + 1, 1, 2).expect("a date");

/// A rule for days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) weekdays: Weekdays,
    pub(super) monthdays: Monthdays,
    pub(super) months: Months,
    /// Sorted; `None` for every year.
    pub(super) years: Option<Vec<i32>>,
    /// No day outside matches, so that a search for what never happens ends at once.
    reach: (NaiveDate, NaiveDate),
}

impl Days {
    pub(super) const EVERY: Self = Self {
        weekdays: Weekdays::EVERY,
        monthdays: Monthdays::EVERY,
        months: Months::EVERY,
        years: None,
        reach: (FIRST, LAST),
    };

    pub(super) fn new(
        weekdays: Weekdays,
        monthdays: Monthdays,
        months: Months,
        years: Option<Vec<i32>>,
    ) -> Self {
        let days = Self { weekdays, monthdays, months, years, reach: (FIRST, LAST) };
        // Without a match the first is after the last.
        let first = days.next_from(FIRST, LAST).unwrap_or(LAST);
        let last = days.last_to(LAST, FIRST).unwrap_or(FIRST);
        Self { reach: (first, last), ..days }
    }

    /// The first matching day from `day` to `limit`.
    pub(super) fn next_from(&self, day: NaiveDate, limit: NaiveDate) -> Option<NaiveDate> {
        let (first, last) = self.reach;
        self.find(day.max(first), Direction::Ahead, |day| day <= limit.min(last))
    }

    /// The last matching day from `day` back to `limit`.
    pub(super) fn last_to(&self, day: NaiveDate, limit: NaiveDate) -> Option<NaiveDate> {
        let (first, last) = self.reach;
        self.find(day.min(last), Direction::Back, |day| day >= limit.max(first))
    }

    /// Skips whole months and years that cannot match, so that a search over centuries is short.
    fn find(
        &self,
        mut day: NaiveDate,
        direction: Direction,
        within: impl Fn(NaiveDate) -> bool,
    ) -> Option<NaiveDate> {
        while within(day) {
            work::step();
            day = if !self.has_year(day.year()) {
                direction.next_year(self.years.as_deref()?, day)?
            } else if !self.months.matches(day.month()) {
                direction.next_month(day)?
            } else if self.weekdays.matches(day) && self.monthdays.matches(day) {
                return Some(day);
            } else {
                direction.step(day)?
            };
        }
        None
    }

    fn has_year(&self, year: i32) -> bool {
        self.years.as_ref().is_none_or(|years| years.binary_search(&year).is_ok())
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Ahead,
    Back,
}

impl Direction {
    fn step(self, day: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Ahead => day.succ_opt(),
            Self::Back => day.pred_opt(),
        }
    }

    /// The day nearest to `day` in the month after or before.
    fn next_month(self, day: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Ahead => last_of_month(day)?.succ_opt(),
            Self::Back => day.with_day(1)?.pred_opt(),
        }
    }

    /// The day nearest to `day` in the next of `years` in this direction.
    fn next_year(self, years: &[i32], day: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Ahead => {
                let year = years.iter().find(|year| **year > day.year())?;
                NaiveDate::from_ymd_opt(*year, 1, 1)
            }
            Self::Back => {
                let year = years.iter().rev().find(|year| **year < day.year())?;
                NaiveDate::from_ymd_opt(*year, 12, 31)
            }
        }
    }
}

fn last_of_month(day: NaiveDate) -> Option<NaiveDate> {
    day.with_day(u32::from(day.num_days_in_month()))
}

/// Days of the week: every one, the nth of the month, or the last of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weekdays {
    /// Bit 0 is Monday, here and below.
    plain: u8,
    /// Index 0 for the first such day of the month, to index 4 for the fifth.
    nth: [u8; 5],
    last: u8,
}

impl Weekdays {
    pub(super) const EVERY: Self = Self { plain: 0x7f, nth: [0; 5], last: 0 };
    const NONE: Self = Self { plain: 0, nth: [0; 5], last: 0 };

    fn matches(self, day: NaiveDate) -> bool {
        let bit = 1 << day.weekday().num_days_from_monday();
        let nth = self.nth[(day.day0() / 7) as usize];
        let last = day.day() + 7 > u32::from(day.num_days_in_month());
        (self.plain | nth) & bit != 0 || last && self.last & bit != 0
    }

    /// Reads `mon-fri`, `sat,sun`, `fri-mon/2`, `mon#1`, `fri#L`, `friL`.
    pub(super) fn parse(text: &str) -> Result<Self, EntryError> {
        let mut days = Self::NONE;
        for item in items(text).ok_or_else(|| EntryError::Weekdays(excerpt(text)))? {
            days.add(item)?;
        }
        Ok(days)
    }

    fn add(&mut self, item: &str) -> Result<(), EntryError> {
        let bad = || EntryError::Weekdays(excerpt(item));
        if let Some((name, nth)) = item.split_once('#') {
            let bit = 1 << weekday(name)?;
            match nth.trim() {
                "L" | "l" => self.last |= bit,
                nth => {
                    let nth = nth.parse::<usize>().ok().filter(|nth| (1..=5).contains(nth));
                    self.nth[nth.ok_or_else(bad)? - 1] |= bit;
                }
            }
            return Ok(());
        }
        if item.eq_ignore_ascii_case("l") {
            return Err(EntryError::BareL);
        }
        if let Some(name) = item.strip_suffix(['L', 'l']) {
            self.last |= 1 << weekday(name)?;
            return Ok(());
        }
        let range = item.split('/').next().unwrap_or(item);
        for name in range.split('-') {
            weekday(name)?;
        }
        // `mon/2` could mean only Monday, or every second day from it.
        if item.contains('/') && !range.contains('-') {
            return Err(bad());
        }
        // EventBridge counts Sunday as 1; here, bit 0 is Monday.
        for day in Field::Weekday.read(item).ok_or_else(bad)? {
            self.plain |= 1 << ((day + 5) % 7);
        }
        Ok(())
    }
}

/// The index of the day in the week, from Monday as 0.
fn weekday(name: &str) -> Result<u32, EntryError> {
    let name = name.trim();
    // T10: tools use three numberings, so that any number may be a mistake.
    if name.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(EntryError::WeekdayNumber(excerpt(name)));
    }
    let day = name.parse::<Weekday>().map_err(|_| EntryError::Weekdays(excerpt(name)))?;
    Ok(day.num_days_from_monday())
}

/// Days of the month: by number, the last, or the working day nearest to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Monthdays {
    /// Bit n for day n.
    plain: u32,
    /// Bit n for the working day nearest to day n, inside the month.
    nearest_working: u32,
    last: bool,
    last_working: bool,
}

impl Monthdays {
    pub(super) const EVERY: Self = Self { plain: !1, ..Self::NONE };
    const NONE: Self = Self { plain: 0, nearest_working: 0, last: false, last_working: false };

    /// Days by their numbers.
    pub(super) fn of_numbers(numbers: BTreeSet<u32>) -> Self {
        Self {
            plain: numbers.into_iter().filter(|n| *n < 32).fold(0, |mask, n| mask | 1 << n),
            ..Self::NONE
        }
    }

    fn matches(self, day: NaiveDate) -> bool {
        if self.plain & 1 << day.day() != 0 {
            return true;
        }
        let Some(last) = last_of_month(day) else { return false };
        self.last && day == last
            || self.last_working && Some(day) == nearest_working(last)
            || (1..=last.day())
                .filter(|n| self.nearest_working & 1 << n != 0)
                .any(|n| day.with_day(n).and_then(nearest_working) == Some(day))
    }

    /// Reads `1-15`, `20-5`, `1,15,L`, `15W`, `LW`, `1-31/10`, `1/15`.
    pub(super) fn parse(text: &str) -> Result<Self, EntryError> {
        let bad = || EntryError::Monthdays(excerpt(text));
        let mut days = Self::NONE;
        for item in items(text).ok_or_else(bad)? {
            days.add(item).ok_or_else(|| EntryError::Monthdays(excerpt(item)))?;
        }
        Ok(days)
    }

    /// Reads the same for a window. A range that wraps is a slip there more often than it is meant.
    pub(super) fn parse_of_window(text: &str) -> Result<Self, EntryError> {
        match text.split(',').find(|item| Self::without_wrap(item).is_some()) {
            Some(item) => Err(EntryError::Monthdays(excerpt(item.trim()))),
            None => Self::parse(text),
        }
    }

    /// `20-31,1-5` for `20-5`; `None` for what does not wrap.
    pub(super) fn without_wrap(item: &str) -> Option<String> {
        let (first, last) = item.split_once('-')?;
        let day = |text: &str| number(text).filter(|day| (1..=31).contains(day));
        let (first, last) = (day(first)?, day(last)?);
        (first > last).then(|| format!("{first}-31,1-{last}"))
    }

    fn add(&mut self, item: &str) -> Option<()> {
        let number = |text: &str| number(text).filter(|n| (1..=31).contains(n));
        match item.to_ascii_uppercase().as_str() {
            "L" => self.last = true,
            "LW" => self.last_working = true,
            other => {
                if let Some(text) = other.strip_suffix('W') {
                    self.nearest_working |= 1 << number(text)?;
                    return Some(());
                }
                self.plain |= Self::of_numbers(plain(Field::Monthday, other)?).plain;
            }
        }
        Some(())
    }
}

/// The day from Monday to Friday that is nearest to `day` in the same month.
fn nearest_working(day: NaiveDate) -> Option<NaiveDate> {
    let last: u32 = day.num_days_in_month().into();
    match (day.weekday(), day.day()) {
        (Weekday::Sat, 1) => day.with_day(3),
        (Weekday::Sat, n) => day.with_day(n - 1),
        (Weekday::Sun, n) if n == last => day.with_day(n - 2),
        (Weekday::Sun, n) => day.with_day(n + 1),
        _ => Some(day),
    }
}

/// Months: bit n for month n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Months(u16);

impl Months {
    pub(super) const EVERY: Self = Self(0b1_1111_1111_1110);

    /// Months by their numbers, from 1.
    pub(super) fn of_numbers(numbers: BTreeSet<u32>) -> Self {
        Self(numbers.into_iter().filter(|n| *n < 13).fold(0, |mask, n| mask | 1 << n))
    }

    fn matches(self, month: u32) -> bool {
        self.0 & 1 << month != 0
    }

    /// Reads `jan-mar`, `nov-feb`, `1,7`, `1/3`, `jan-dec/2`.
    pub(super) fn parse(text: &str) -> Result<Self, EntryError> {
        let mut months = Self(0);
        for item in items(text).ok_or_else(|| EntryError::Months(excerpt(text)))? {
            months.add(item).ok_or_else(|| EntryError::Months(excerpt(item)))?;
        }
        Ok(months)
    }

    fn add(&mut self, item: &str) -> Option<()> {
        self.0 |= Self::of_numbers(plain(Field::Month, item)?).0;
        Some(())
    }
}

/// The numbers of an item. A window without a field has every day: it needs no `*`.
fn plain(field: Field, item: &str) -> Option<BTreeSet<u32>> {
    (!item.contains('*')).then(|| field.read(item)).flatten()
}

/// The parts of a list with commas; `None` if one is empty or the text is too long.
fn items(text: &str) -> Option<impl Iterator<Item = &str>> {
    let fits = text.len() <= TEXT_CHARS_MAX && text.split(',').all(|item| !item.trim().is_empty());
    fits.then(|| text.split(',').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The days of a month that match.
    fn days(rule: &Days, year: i32, month: u32) -> Vec<u32> {
        let first = NaiveDate::from_ymd_opt(year, month, 1).unwrap();
        first
            .iter_days()
            .take_while(|day| day.month() == month)
            .filter(|day| rule.next_from(*day, *day).is_some())
            .map(|day| day.day())
            .collect()
    }

    fn weekdays(text: &str) -> Days {
        Days { weekdays: Weekdays::parse(text).unwrap(), ..Days::EVERY }
    }

    fn monthdays(text: &str) -> Days {
        Days { monthdays: Monthdays::parse(text).unwrap(), ..Days::EVERY }
    }

    #[test]
    fn t7_nth_and_last_weekdays_are_those_of_the_month() {
        assert_eq!(days(&weekdays("mon#1,fri#L"), 2024, 4), [1, 26]);
        assert_eq!(days(&weekdays("MonL"), 2024, 4), [29]);
        assert_eq!(days(&weekdays("thu#5"), 2024, 4), [0; 0]);
        assert_eq!(days(&weekdays("sun#1"), 2024, 9), [1]);
    }

    #[test]
    fn t7_the_nearest_working_day_stays_in_its_month() {
        assert_eq!(days(&monthdays("1W"), 2023, 4), [3]);
        assert_eq!(days(&monthdays("30W"), 2023, 4), [28]);
        assert_eq!(days(&monthdays("LW"), 2023, 4), [28]);
        for text in ["29W", "30W", "31W"] {
            assert_eq!(days(&monthdays(text), 2023, 2), [0; 0], "{text}");
        }
        assert_eq!(days(&monthdays("29W"), 2024, 2), [29]);
    }

    #[test]
    fn t8_ranges_steps_and_lists_mean_what_they_say() {
        assert_eq!(days(&monthdays("1/15"), 2024, 3), [1, 16, 31]);
        assert_eq!(days(&monthdays("1-31/10"), 2024, 3), [1, 11, 21, 31]);
        assert_eq!(days(&monthdays("28-31"), 2023, 2), [28]);
        assert_eq!(days(&monthdays("27-2"), 2023, 2), [1, 2, 27, 28]);
        assert_eq!(days(&monthdays("L, 2"), 2024, 2), [2, 29]);
        assert_eq!(days(&weekdays("Saturday-mon/2"), 2024, 4), [1, 6, 8, 13, 15, 20, 22, 27, 29]);
        assert_eq!(Months::parse("nov-feb").unwrap().0, 0b1_1000_0000_0110);
        assert_eq!(
            Months::parse("1/4,12").unwrap(),
            Months::parse("Jan,may,september,dec").unwrap()
        );
    }

    #[test]
    fn texts_that_are_not_valid_are_rejected() {
        for text in [
            "",
            "wensday",
            "mon,",
            "2-L",
            "L-2",
            "mon#0",
            "mon#6",
            "mon#",
            "#1",
            "mon/2",
            "mon-fri/0",
            "mon-fri/8",
            "*",
        ] {
            assert!(Weekdays::parse(text).is_err(), "{text}");
        }
        assert_eq!(Weekdays::parse("1-5"), Err(EntryError::WeekdayNumber("1".to_owned())));
        assert_eq!(Weekdays::parse("L"), Err(EntryError::BareL));
        for text in [
            "",
            "0",
            "32",
            "1/32",
            "W",
            "2W-15",
            "1-L",
            "1/0",
            "+1",
            "1-31/",
            "1--2",
            "99999999999",
        ] {
            assert!(Monthdays::parse(text).is_err(), "{text}");
        }
        for text in ["", "sup", "befruary", "^-6", "L-2", "0", "13", "jan-", "jan/0", "jan-dec/13"]
        {
            assert!(Months::parse(text).is_err(), "{text}");
        }
        assert!(Weekdays::parse(&"mon,".repeat(100)).is_err());
    }

    #[test]
    fn a_search_finds_what_is_rare_and_ends_where_there_is_nothing() {
        let date = |text: &str| text.parse::<NaiveDate>().unwrap();
        let next = |rule: &Days, from| rule.next_from(date(from), date("2199-12-31"));
        let last = |rule: &Days, from| rule.last_to(date(from), date("1970-01-01"));
        let leap_monday = Days {
            months: Months::parse("feb").unwrap(),
            monthdays: Monthdays::parse("29").unwrap(),
            ..weekdays("mon")
        };
        // 2100 is not a leap year.
        assert_eq!(next(&leap_monday, "2072-03-01"), Some(date("2112-02-29")));
        assert_eq!(last(&leap_monday, "2026-01-01"), Some(date("2016-02-29")));
        let never = Days { months: Months::parse("feb").unwrap(), ..monthdays("30") };
        assert_eq!((next(&never, "2026-01-01"), last(&never, "2026-01-01")), (None, None));
        let past = Days { years: Some(vec![2020, 2022]), ..Days::EVERY };
        assert_eq!(next(&past, "2026-01-01"), None);
        assert_eq!(last(&past, "2026-01-01"), Some(date("2022-12-31")));
        assert_eq!(next(&past, "2021-05-01"), Some(date("2022-01-01")));
    }
}
