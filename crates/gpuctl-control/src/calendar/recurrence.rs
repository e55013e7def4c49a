//! The days on which a recurrence begins, with a limit on the work of a whole file.

use chrono::{Datelike, NaiveDate};
use gpuctl_core::zone::Zone;
use rrule::{Frequency, NWeekday, RRule, Tz, Unvalidated};

use super::YEARS;
use super::event::Fault;
use super::values::{last_day, value};

/// The most days that all recurrences of a file are followed through: those of twenty that are daily.
const STEPS_MAX: usize = 600_000;

/// What a rule costs that matches no day: the search for one is as long.
const FRUITLESS_STEPS: usize = 50_000;

/// What is left of `STEPS_MAX`.
#[derive(Debug)]
pub(super) struct Steps(usize);

impl Steps {
    pub(super) fn new() -> Self {
        Self(STEPS_MAX)
    }

    fn take(&mut self, steps: usize) -> Result<(), Fault> {
        self.0 = self.0.checked_sub(steps).ok_or(Fault::Work)?;
        Ok(())
    }
}

/// The days on which the rule `text` begins, from `start` on; `None` if it ends before.
pub(super) fn days(
    text: &str,
    start: NaiveDate,
    home: Option<Zone>,
    steps: &mut Steps,
) -> Result<Option<Vec<NaiveDate>>, Fault> {
    let bad = || Fault::Recurrence(text.to_owned());
    let (rule, until) = parts(text, home).ok_or_else(bad)?;
    if until.is_some_and(|until| until < start) {
        return Ok(None);
    }
    // In UTC the parser never asks for the zone of the machine, nor for its own zones, which are older than ours.
    let rule: RRule<Unvalidated> = rule.parse().map_err(|_| bad())?;
    let daily = [Frequency::Yearly, Frequency::Monthly, Frequency::Weekly, Frequency::Daily];
    let bounds = rule.get_interval() > 0 && rule.get_count() != Some(0);
    if !bounds || !daily.contains(&rule.get_freq()) || contradicts_itself(&rule) {
        return Err(bad());
    }
    let midnight = start.and_time(chrono::NaiveTime::MIN).and_utc().with_timezone(&Tz::UTC);
    let set = rule.build(midnight).map_err(|_| bad())?.limit();
    let mut days = Vec::new();
    for at in &set {
        steps.take(1)?;
        let day = at.date_naive();
        if day.year() > *YEARS.end() {
            break;
        }
        days.push(day);
    }
    if days.is_empty() {
        steps.take(FRUITLESS_STEPS)?;
    }
    Ok(Some(days))
}

/// Whether it has what RFC 5545 forbids and the library passes over, as if it were not there: that makes a Monday of each month every day.
fn contradicts_itself(rule: &RRule<Unvalidated>) -> bool {
    let is_numbered = rule.get_by_weekday().iter().any(|day| matches!(day, NWeekday::Nth(..)));
    let has_numbers = matches!(rule.get_freq(), Frequency::Monthly | Frequency::Yearly)
        && rule.get_by_week_no().is_empty();
    let chooses_of_nothing = !rule.get_by_set_pos().is_empty()
        && rule.get_by_weekday().is_empty()
        && rule.get_by_month_day().is_empty()
        && rule.get_by_month().is_empty()
        && rule.get_by_year_day().is_empty()
        && rule.get_by_week_no().is_empty();
    let zeroth = rule.get_by_month_day().contains(&0) || rule.get_by_year_day().contains(&0);
    is_numbered && !has_numbers || chooses_of_nothing || zeroth
}

/// The rule with an `UNTIL` at the end of its last day, in UTC as the start is; and that day.
fn parts(text: &str, home: Option<Zone>) -> Option<(String, Option<NaiveDate>)> {
    // The parser cuts values between bytes, and panics within other letters.
    if !text.is_ascii() {
        return None;
    }
    let mut last = None;
    let mut parts = Vec::new();
    for part in text.to_ascii_uppercase().split(';').filter(|part| !part.trim().is_empty()) {
        let (name, given) = part.split_once('=')?;
        match name.trim() {
            "UNTIL" => {
                last = Some(last_day(value(given)?, home)?);
                parts.push(format!("UNTIL={}T235959Z", last?.format("%Y%m%d")));
            }
            // Midnight, where nothing else can be meant.
            "BYHOUR" | "BYMINUTE" | "BYSECOND" if given.trim().trim_matches('0').is_empty() => {}
            // The parser takes a number that it cannot read for none: each week.
            "BYDAY" if !given.split(',').all(is_weekday) => return None,
            _ => parts.push(part.to_owned()),
        }
    }
    // A rule with a time of day would begin several times a day.
    let has_times = parts.iter().any(|part| {
        ["BYHOUR", "BYMINUTE", "BYSECOND"].iter().any(|name| part.trim().starts_with(name))
    });
    (!has_times).then(|| (parts.join(";"), last))
}

/// Whether it is a day of the week, perhaps with a number: `MO`, `1MO`, `-1MO`.
fn is_weekday(text: &str) -> bool {
    let text = text.trim();
    let Some((number, day)) = text.split_at_checked(text.len().saturating_sub(2)) else {
        return false;
    };
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let is_number = !digits.starts_with('+')
        && digits.parse::<u8>().is_ok_and(|number| (1..=53).contains(&number));
    ["MO", "TU", "WE", "TH", "FR", "SA", "SU"].contains(&day) && (number.is_empty() || is_number)
}
