//! Reads the dates of an iCalendar file: its all-day events, with their recurrences.
//!
//! Events with a time of day are left out and counted, since a schedule's calendar has whole dates alone, and so are cancelled events.
//! From midnight to midnight is all day, as Outlook writes it. What the dates mean is up to the schedule.

mod event;
mod lines;
mod recurrence;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use chrono::{Datelike, NaiveDate, TimeDelta};
use gpuctl_core::policy::FileDates;
use gpuctl_core::text::excerpt;
use gpuctl_core::zone::Zone;

use event::{Event, EventDays, Replaces};
use lines::RawCalendar;
use recurrence::Steps;

pub use event::{Fault, Label};

/// The largest file: a country's holidays of a decade are a tenth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The deepest nesting: a calendar holds events, which hold alarms.
const NESTING_MAX: usize = 8;

/// The years that recurrences are followed through, and outside which dates are left out.
const YEARS: RangeInclusive<i32> = 2020..=2059;

/// Why a file's dates cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// Not there, or not text.
    #[error("cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// A pipe or a device may have no end.
    #[error("is not a regular file")]
    NotAFile,
    /// Beyond `FILE_BYTES_MAX`.
    #[error("is larger than {} KiB", FILE_BYTES_MAX >> 10)]
    TooLarge,
    /// Another format, or a broken file.
    #[error("is not an iCalendar file, or is broken at line {0}")]
    Form(usize),
    /// A calendar that is a reply, or not in the Gregorian calendar.
    #[error("has a calendar with `{text}`, which is not supported", text = excerpt(.0))]
    Calendar(String),
    #[error("has an event ({0}) that {1}")]
    Event(Label, Fault),
    /// It would skip nothing, which is not what such a file is for.
    #[error("has no all-day event from {} to {}{why}", YEARS.start(), YEARS.end())]
    Nothing { why: String },
}

/// What the events of a file without dates are, with the first that has no occurrence.
fn why_nothing(events: &[Event], cancelled: usize, timed: usize) -> String {
    let without = events.iter().filter(|event| {
        let EventDays::Whole { begins, .. } = &event.days else { return false };
        begins.iter().all(|begin| !YEARS.contains(&begin.year()))
    });
    let first = without.clone().next().map(|event| format!(" ({})", event.label));
    let without = (without.count(), "without an occurrence in these years");
    let parts = [(timed, "with a time of day"), (cancelled, "cancelled"), without];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() {
        return String::new();
    }
    format!("; its events: {}{}", parts.join(", "), first.unwrap_or_default())
}

/// The dates of the file, in order.
///
/// # Errors
/// When the file cannot be read, has no dates, or any part of it is not understood: a holiday that is silently lost costs a day of
/// box time.
pub fn dates_of(path: &Path) -> Result<FileDates, CalendarError> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(CalendarError::NotAFile);
    }
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CalendarError::TooLarge);
    }
    dates_in(&text)
}

/// The dates of an iCalendar text.
///
/// # Errors
/// As for `dates_of`.
pub fn dates_in(text: &str) -> Result<FileDates, CalendarError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut steps = Steps::new();
    let mut events = Vec::new();
    for calendar in lines::read(text)? {
        let (zone, is_cancelled) = (zone_of(&calendar), check(&calendar)?);
        for raw in &calendar.events {
            let read = Event::read(raw, zone, &mut steps);
            let mut event = read.map_err(|(label, fault)| CalendarError::Event(label, fault))?;
            event.is_cancelled |= is_cancelled;
            events.push(event);
        }
    }
    let cancelled = events.iter().filter(|event| event.is_cancelled).count();
    let timed = |event: &&Event| !event.is_cancelled && matches!(event.days, EventDays::Timed);
    let timed = events.iter().filter(timed).count();
    let events = replace(events)?;
    let dates = dates(&events);
    if dates.is_empty() {
        return Err(CalendarError::Nothing { why: why_nothing(&events, cancelled, timed) });
    }
    Ok(FileDates { dates, left_out: timed })
}

/// Whether it cancels all its events; an error if it is not one of dates that are.
fn check(calendar: &RawCalendar) -> Result<bool, CalendarError> {
    let mut is_cancelled = false;
    for property in &calendar.properties {
        let value = property.value.to_ascii_uppercase();
        match (property.name.as_str(), value.as_str()) {
            ("METHOD", "CANCEL") => is_cancelled = true,
            ("METHOD", "PUBLISH" | "REQUEST" | "ADD") | ("CALSCALE", "GREGORIAN") => {}
            (name @ ("METHOD" | "CALSCALE"), _) => {
                return Err(CalendarError::Calendar(format!("{name}:{}", property.value)));
            }
            _ => {}
        }
    }
    Ok(is_cancelled)
}

/// The zone of events that name none: that of the calendar, or the only one that it describes.
fn zone_of(calendar: &RawCalendar) -> Option<Zone> {
    let named = calendar.properties.iter().find(|property| property.name == "X-WR-TIMEZONE");
    let named = named.and_then(|property| event::zone_of(&property.value));
    let zones: BTreeSet<&str> = calendar.zones.iter().map(String::as_str).collect();
    let only = zones.first().filter(|_| zones.len() == 1);
    named.or_else(|| event::zone_of(only?))
}

/// Takes from each series the occurrences that another event replaces (RFC 5545, 3.8.4.4), and then all that is cancelled.
fn replace(mut events: Vec<Event>) -> Result<Vec<Event>, CalendarError> {
    keep_latest(&mut events);
    let (mut series, changes): (Vec<Event>, Vec<Event>) =
        events.into_iter().partition(|event| event.replaces == Replaces::Nothing);
    let mut by_series: BTreeMap<Option<&str>, Vec<&Event>> = BTreeMap::new();
    for change in &changes {
        by_series.entry(change.uid.as_deref()).or_default().push(change);
    }
    for event in &mut series {
        let EventDays::Whole { begins, .. } = &mut event.days else { continue };
        for change in by_series.get(&event.uid.as_deref()).into_iter().flatten() {
            match &change.replaces {
                Replaces::Nothing => {}
                Replaces::Day(day) => {
                    begins.remove(day);
                }
                Replaces::Time(text) => {
                    let fault = Fault::NotADay("RECURRENCE-ID", text.clone());
                    return Err(CalendarError::Event(change.label.clone(), fault));
                }
            }
        }
    }
    series.extend(changes);
    series.retain(|event| !event.is_cancelled);
    Ok(series)
}

/// Of several versions of an event, or of one occurrence, keeps those with the greatest sequence number; of an occurrence the last
/// one. Some producers give all their events the same UID: these stay.
fn keep_latest(events: &mut Vec<Event>) {
    let id = |event: &Event| Some((event.uid.clone()?, format!("{:?}", event.replaces)));
    let mut latest: BTreeMap<(String, String), (i64, usize)> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        if let Some(id) = id(event) {
            let newest = latest.entry(id).or_insert((event.sequence, index));
            *newest = (*newest).max((event.sequence, index));
        }
    }
    let mut index = 0;
    events.retain(|event| {
        let newest = id(event).and_then(|id| latest.get(&id).copied());
        let kept = newest.is_none_or(|(sequence, newest)| {
            let is_series = event.replaces == Replaces::Nothing;
            event.sequence == sequence && (is_series || index == newest)
        });
        index += 1;
        kept
    });
}

/// The days of all events in `YEARS`, each marked by where it begins and ends: long events that recur daily overlap a lot.
fn dates(events: &[Event]) -> Vec<NaiveDate> {
    let (Some(first), Some(last)) = (
        NaiveDate::from_ymd_opt(*YEARS.start(), 1, 1),
        NaiveDate::from_ymd_opt(*YEARS.end(), 12, 31),
    ) else {
        return Vec::new();
    };
    let mut changes: BTreeMap<NaiveDate, i64> = BTreeMap::new();
    for event in events {
        let EventDays::Whole { begins, length } = &event.days else { continue };
        for begin in begins {
            let Some(end) = begin.checked_add_signed(TimeDelta::days(*length)) else { continue };
            if *begin <= last && end > first {
                *changes.entry(first.max(*begin)).or_default() += 1;
                *changes.entry(end).or_default() -= 1;
            }
        }
    }
    let mut open = 0;
    let days = first.iter_days().take_while(|day| day.year() <= *YEARS.end());
    days.filter(|day| {
        open += changes.get(day).unwrap_or(&0);
        open > 0
    })
    .collect()
}

#[cfg(test)]
mod tests;
