//! `gpuctl schedule` as text: one row per day, without colour.

use std::fmt::Write;

use super::text::line;
use crate::documents::schedule::{
    DayDocument, PartDocument, ScheduleAtDocument, ScheduleLintDocument, ScheduleShowDocument,
};

/// The length of a character of the bar.
const CELL_MINUTES: usize = 30;

/// The most times in a row; the bar and the JSON show all.
const TIMES_MAX: usize = 4;

pub(super) fn at(document: &ScheduleAtDocument) -> String {
    let mut text = format!("{}: {}\n", document.pool, wants(document.desired));
    line(&mut text, "at", &format!("{} {} ({})", document.at_local, document.zone, document.at));
    line(&mut text, "because", &document.reason);
    let next = document.next_change.as_ref().map_or("no change ahead".to_owned(), |next| {
        format!("{} {}: {}", next.at_local, wants(next.desired), next.reason)
    });
    line(&mut text, "next", &next);
    text
}

fn wants(desired: &str) -> &'static str {
    match desired {
        "running" => "wanted running",
        "stopped" => "wanted stopped",
        _ => "not decided",
    }
}

pub(super) fn show(document: &ScheduleShowDocument) -> String {
    let mut text = format!("{}: local time of {}\n", document.pool, document.zone);
    for (index, entry) in (1..).zip(&document.entries) {
        line(&mut text, &format!("entry {index}"), entry);
    }
    // Every three hours, above its cell.
    let scale: String = (0..24).step_by(3).map(|hour| format!("{hour:<6}")).collect();
    let _ = writeln!(text, "\n{:16}{scale}24", "");
    for day in &document.days {
        let row = format!(
            "{} {}  {}  {:>7}  {}",
            day.weekday,
            day.date,
            bar(day),
            hours(running_minutes(day)),
            remarks(day)
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let days = document.days.len();
    let _ = writeln!(
        text,
        "\n{} running in {days} {}; █ running, ▒ partly, · stopped, - not decided",
        hours(document.days.iter().map(running_minutes).sum()),
        if days == 1 { "day" } else { "days" }
    );
    text
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

pub(super) fn lint(document: &ScheduleLintDocument) -> String {
    if document.warnings.is_empty() {
        return format!("no warnings for the schedules of {}", document.pools.join(", "));
    }
    let mut text = String::new();
    for warning in &document.warnings {
        let _ = writeln!(text, "{}, entry {}: {}", warning.pool, warning.entry, warning.message);
        let _ = writeln!(text, "  hint: {}", warning.hint);
    }
    text
}
