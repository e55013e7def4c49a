//! A pool's calendar: dates on which nothing begins, and dates on which everything does.
//!
//! Callers read calendar files; here are only dates. A stop is never skipped, so that a holiday cannot keep a box up.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use chrono::{Datelike, Days as Count, NaiveDate};

use super::EntryError;
use super::clocks::YEARS;
use super::days::Days;
use crate::text::excerpt;

/// The most dates of one calendar: every day of forty years.
pub const CALENDAR_DATES_MAX: usize = 40 * 366;

/// Dates on which the day fields of a schedule do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// Dates on which nothing begins.
    pub skip: BTreeSet<NaiveDate>,
    /// Dates on which entries begin and end whatever their day fields say.
    pub extra: BTreeSet<NaiveDate>,
    /// Where they come from, in the order of the settings.
    pub sources: Vec<Source>,
}

/// A list of dates, or a file with some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The setting, e.g. `skip_file`.
    pub key: &'static str,
    /// The path as it was written.
    pub file: Option<String>,
    pub dates: BTreeSet<NaiveDate>,
    /// How many events of the file do not count, since they have a time of day.
    pub left_out: usize,
}

/// Whether something begins or ends, which calendars treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Begin,
    End,
}

impl Calendar {
    /// Reads `2026-12-25` or `2026-12-24..2026-12-31`, both ends included.
    ///
    /// # Errors
    /// If the text is neither, or has too many dates.
    pub fn parse_range(text: &str) -> Result<RangeInclusive<NaiveDate>, EntryError> {
        let bad = || EntryError::Dates(excerpt(text));
        let date = |text: &str| {
            let text = text.trim();
            let whole = text.len() == "2026-12-25".len() && !text.starts_with(['+', '-']);
            let date = text.parse::<NaiveDate>().ok().filter(|_| whole);
            date.filter(|date| YEARS.contains(&date.year())).ok_or_else(bad)
        };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let (first, last) = (date(first)?, date(last)?);
        let days = usize::try_from((last - first).num_days()).map_err(|_| bad())?;
        if days >= CALENDAR_DATES_MAX {
            return Err(EntryError::TooManyDates);
        }
        Ok(first..=last)
    }

    pub(super) fn skips(&self, turn: Turn, day: NaiveDate) -> bool {
        turn == Turn::Begin && self.skip.contains(&day)
    }

    /// The first day from `day` to `limit` that matches and is not skipped, or is extra.
    pub(super) fn next_from(
        &self,
        days: &Days,
        turn: Turn,
        mut day: NaiveDate,
        limit: NaiveDate,
    ) -> Option<NaiveDate> {
        if day > limit {
            return None;
        }
        let extra = self.extra.range(day..=limit).next().copied();
        let limit = extra.unwrap_or(limit);
        while let Some(found) = days.next_from(day, limit) {
            if !self.skips(turn, found) {
                return Some(found);
            }
            day = found.checked_add_days(Count::new(1))?;
        }
        extra
    }

    /// The last such day from `day` back to `limit`.
    pub(super) fn last_to(
        &self,
        days: &Days,
        turn: Turn,
        mut day: NaiveDate,
        limit: NaiveDate,
    ) -> Option<NaiveDate> {
        if day < limit {
            return None;
        }
        let extra = self.extra.range(limit..=day).next_back().copied();
        let limit = extra.unwrap_or(limit);
        while let Some(found) = days.last_to(day, limit) {
            if !self.skips(turn, found) {
                return Some(found);
            }
            day = found.checked_sub_days(Count::new(1))?;
        }
        extra
    }
}
