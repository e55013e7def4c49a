//! `[[pool.NAME.schedule]]` and `[pool.NAME.calendar]`: reads the texts from the policy; `crate::schedule` parses them.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::NaiveDate;

use super::ReadDates;
use super::section::Section;
use crate::schedule::{CALENDAR_DATES_MAX, Calendar, Entry, EntryError, EntrySpec, Schedule};

/// The most entries of one pool: every decision evaluates each of them.
const ENTRIES_MAX: usize = 100;

pub(super) fn read(pool: &mut Section<'_, '_, '_>, dates: ReadDates<'_>) -> Schedule {
    let entries = pool.list("schedule", entry);
    if entries.len() > ENTRIES_MAX {
        let at = pool.span.clone();
        pool.problem("schedule", at, format!("has more than {ENTRIES_MAX} entries"), None);
    }
    if pool.has("calendar") && !pool.has("schedule") {
        let at = pool.span.clone();
        let hint = "a calendar changes a schedule: add `[[….schedule]]`, or remove it".to_owned();
        pool.problem("calendar", at, "has no schedule to change".to_owned(), Some(hint));
    }
    Schedule { entries, calendar: calendar(pool.section("calendar"), dates) }
}

fn entry(mut section: Section<'_, '_, '_>) -> Option<Entry> {
    let mut spans: Vec<(&str, Range<usize>)> = Vec::new();
    let mut text = |key| {
        let (span, text) = section.text(key)?;
        spans.push((key, span));
        Some(text)
    };
    let spec = EntrySpec {
        zone: text("zone"),
        begin: text("begin"),
        end: text("end"),
        weekdays: text("weekdays"),
        monthdays: text("monthdays"),
        months: text("months"),
        start: text("start"),
        stop: text("stop"),
    };
    let entry = Entry::new(&spec).map_err(|problems| {
        for problem in problems {
            let found = spans.iter().find(|(key, _)| *key == problem.key);
            let span = found.map_or(section.span.clone(), |(_, span)| span.clone());
            let (message, hint) = (problem.error.to_string(), problem.error.hint());
            // A value of the wrong type is reported already.
            if found.is_some() || !section.has(problem.key) {
                section.problem(problem.key, span, message, Some(hint));
            }
        }
    });
    section.report_unknown_keys();
    entry.ok()
}

fn calendar(mut section: Section<'_, '_, '_>, dates: ReadDates<'_>) -> Calendar {
    let mut skip = listed(&mut section, "skip");
    skip.extend(filed(&mut section, "skip_file", dates));
    let mut extra = listed(&mut section, "extra");
    extra.extend(filed(&mut section, "extra_file", dates));
    let at = section.span.clone();
    if let Some(both) = skip.intersection(&extra).next() {
        let hint = "remove it from one of the two".to_owned();
        section.problem(
            "",
            at.clone(),
            format!("{both} is in both `skip` and `extra`"),
            Some(hint),
        );
    }
    if skip.len().max(extra.len()) > CALENDAR_DATES_MAX {
        let error = EntryError::TooManyDates;
        section.problem("", at, error.to_string(), Some(error.hint()));
    }
    section.report_unknown_keys();
    Calendar { skip, extra }
}

fn listed(section: &mut Section<'_, '_, '_>, key: &'static str) -> BTreeSet<NaiveDate> {
    let mut all = BTreeSet::new();
    let Some((span, texts)) = section.texts(key) else { return all };
    for text in texts {
        match Calendar::parse_dates(&text) {
            Ok(dates) => all.extend(dates),
            Err(error) => {
                section.problem(key, span.clone(), error.to_string(), Some(error.hint()));
            }
        }
    }
    all
}

fn filed(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
    dates: ReadDates<'_>,
) -> Vec<NaiveDate> {
    let Some((span, path)) = section.text(key) else { return Vec::new() };
    dates(&path).unwrap_or_else(|error| {
        let hint = "an iCalendar file, e.g. `holidays.ics`, relative to gpuctl.toml".to_owned();
        section.problem(key, span, format!("`{path}` {error}"), Some(hint));
        Vec::new()
    })
}
