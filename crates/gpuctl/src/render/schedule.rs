//! `gpuctl schedule` as text: one row per day, without colour.

use std::fmt::Write;

use super::status::submit;
use super::words::{Lines, shown_name};
use crate::documents::schedule::{
    CalendarDocument, DayDocument, PartDocument, ScheduleAtDocument, ScheduleLintDocument,
    ScheduleShowDocument,
};

/// The length of a character of the bar.
const CELL_MINUTES: usize = 30;

/// The most times in a row; the bar and the JSON show all.
const TIMES_MAX: usize = 4;

pub(super) fn at(document: &ScheduleAtDocument) -> Lines {
    let mut lines = Lines::of(format!("{}: {}", document.pool, wants(document.desired)));
    lines.label("at", format!("{} {} ({})", document.at_local, document.zone, document.at));
    lines.label("because", &document.reason);
    let next = document.next_change.as_ref().map_or("no change ahead".to_owned(), |next| {
        format!("{} {}: {}", next.at_local, wants(next.desired), next.reason)
    });
    lines.label("next", next);
    lines
}

fn wants(desired: &str) -> &'static str {
    match desired {
        "running" => "wanted running",
        "stopped" => "wanted stopped",
        _ => "not decided",
    }
}

pub(super) fn show(document: &ScheduleShowDocument) -> Lines {
    let mut lines = Lines::of(format!("{}: local time of {}", document.pool, document.zone));
    for (index, entry) in (1..).zip(&document.entries) {
        lines.label(&format!("entry {index}"), entry);
    }
    // Every three hours, above its cell.
    let scale: String = (0..24).step_by(3).map(|hour| format!("{hour:<6}")).collect();
    lines.blank();
    lines.add(format!("{:16}{scale}24", ""));
    for day in &document.days {
        let row = format!(
            "{} {}  {}  {:>7}  {}",
            day.weekday,
            day.date,
            bar(day),
            hours(running_minutes(day)),
            remarks(day)
        );
        lines.add(row);
    }
    let days = document.days.len();
    lines.blank();
    lines.add(format!(
        "{} running in {days} {}; █ running, ▒ partly, · stopped, - not decided",
        hours(document.days.iter().map(running_minutes).sum()),
        if days == 1 { "day" } else { "days" }
    ));
    lines
}

fn running_minutes(day: &DayDocument) -> i64 {
    day.parts.iter().filter(|part| part.desired == "running").map(|part| part.minutes).sum()
}

fn hours(minutes: i64) -> String {
    match (minutes / 60, minutes % 60) {
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h{minutes:02}m"),
    }
}

/// The day from its start to its end; a day on which clocks change is shorter or longer than the scale.
fn bar(day: &DayDocument) -> String {
    let minutes = |part: &PartDocument| usize::try_from(part.minutes).unwrap_or(0);
    let each = day.parts.iter().flat_map(|part| std::iter::repeat_n(part.desired, minutes(part)));
    let each: Vec<&str> = each.collect();
    each.chunks(CELL_MINUTES)
        .map(|cell| match cell.iter().filter(|desired| **desired == "running").count() {
            0 if cell.contains(&"stopped") => '·',
            0 => '-',
            running if running == cell.len() => '█',
            _ => '▒',
        })
        .collect()
}

fn remarks(day: &DayDocument) -> String {
    let running: Vec<String> = day
        .parts
        .iter()
        .filter(|part| part.desired == "running")
        .map(|part| format!("{}-{}", part.begin_local, part.end_local))
        .collect();
    let more = running.len().saturating_sub(TIMES_MAX);
    let mut remarks = running[..running.len() - more].join(", ");
    if more > 0 {
        let _ = write!(remarks, " and {more} more");
    }
    match day.calendar {
        Some("skip") => remarks.push_str(" (a date to skip)"),
        Some(_) => remarks.push_str(" (an extra date)"),
        None => {}
    }
    if (day.hours - 24.0).abs() > f64::EPSILON {
        let _ = write!(remarks, " (clocks change: a day of {} hours)", day.hours);
    }
    remarks.trim_start().to_owned()
}

/// E.g. `x: skip_file holidays.ics has 12 dates, next 2026-12-25`.
fn calendar(calendar: &CalendarDocument) -> String {
    let name = match &calendar.file {
        Some(file) => format!("{} {}", calendar.setting, shown_name(file)),
        None => calendar.setting.to_owned(),
    };
    let dates = if calendar.dates == 1 { "date" } else { "dates" };
    let next = if calendar.next.is_empty() {
        "none ahead".to_owned()
    } else {
        format!("next {}", calendar.next.join(", "))
    };
    let mut line = format!("{}: {name} has {} {dates}, {next}", calendar.pool, calendar.dates);
    if calendar.left_out > 0 {
        let _ = write!(line, "; {} with a time of day do not count", calendar.left_out);
    }
    line
}

pub(super) fn lint(document: &ScheduleLintDocument) -> Lines {
    let mut lines = Lines::default();
    if document.warnings.is_empty() {
        lines.add(format!("no warnings for the schedules of {}", document.pools.join(", ")));
    }
    for warning in &document.warnings {
        lines.add(format!("{}, entry {}: {}", warning.pool, warning.entry, warning.message));
        lines.add(format!("  hint: {}", warning.hint));
    }
    for calendar in &document.calendars {
        lines.add(self::calendar(calendar));
    }
    for one in &document.submits {
        lines.add(submit(one));
        if let Some(problem) = &one.problem {
            lines.add(format!("  problem: {problem}"));
        }
    }
    if let Some(warning) = &document.time_zones.warning {
        lines.add(warning);
    }
    lines
}
