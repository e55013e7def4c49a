//! What is fuzzed: every text must soon be parsed or rejected with a hint, and must never panic.
//!
//! The fuzz targets and `tests/corpus.rs` run the same functions.

use gpuctl_core::policy::Policy;
use gpuctl_core::schedule::{Calendar, Entry, EntrySpec, Schedule};
use gpuctl_core::units::{Timestamp, parse_duration, show_duration};

/// Instants at which parsed schedules are evaluated: the skipped and the repeated hour in New York, a leap day, and the first and last
/// known second.
const ASKED: [&str; 5] = [
    "2026-03-08T07:00:00Z",
    "2026-11-01T06:00:00Z",
    "2028-02-29T12:00:00Z",
    "1970-01-01T00:00:00Z",
    "2199-12-31T23:59:59Z",
];

/// A whole `gpuctl.toml`.
pub fn policy(text: &str) {
    match Policy::parse(text) {
        Ok(policy) => policy.pools.iter().for_each(|pool| ask(&pool.schedule)),
        Err(problems) => assert!(!problems.0.is_empty()),
    }
}

/// A text as each field of a window, and as dates.
pub fn fields(text: &str) {
    let some = || Some(text.to_owned());
    let utc = || EntrySpec { zone: Some("UTC".to_owned()), ..EntrySpec::default() };
    for spec in [
        EntrySpec { weekdays: some(), ..utc() },
        EntrySpec { monthdays: some(), ..utc() },
        EntrySpec { months: some(), ..utc() },
        EntrySpec { begin: some(), ..utc() },
        EntrySpec { end: some(), ..utc() },
        EntrySpec { zone: some(), ..EntrySpec::default() },
    ] {
        entry(&spec);
    }
    let _ = Calendar::parse_range(text);
}

/// A text as `start` and as `stop`, in a zone whose clocks change.
pub fn expression(text: &str) {
    let zone = || Some("America/New_York".to_owned());
    let hourly = || Some("cron(0 * * * ? *)".to_owned());
    let some = || Some(text.to_owned());
    entry(&EntrySpec { zone: zone(), start: some(), ..EntrySpec::default() });
    entry(&EntrySpec { zone: zone(), start: some(), stop: hourly(), ..EntrySpec::default() });
    entry(&EntrySpec { zone: zone(), start: hourly(), stop: some(), ..EntrySpec::default() });
}

/// A duration.
pub fn span(text: &str) {
    if let Ok(span) = parse_duration(text) {
        // At most two units are shown, so that the shown duration may be less than the parsed one.
        let shown = parse_duration(&show_duration(span));
        assert!(shown.is_ok_and(|shown| shown <= span));
    }
}

fn entry(spec: &EntrySpec) {
    match Entry::new(spec) {
        Ok(entry) => ask(&Schedule { entries: vec![entry], calendar: Calendar::default() }),
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| !problem.error.hint().is_empty()));
        }
    }
}

fn ask(schedule: &Schedule) {
    for text in ASKED {
        let at: Timestamp = text.parse().expect("an instant");
        let state = schedule.at(at);
        if let Some(next) = schedule.next_change(at) {
            assert!(next.at > at && next.desired != state.desired, "{schedule:?} at {text}");
        }
    }
    let _ = schedule.lint(ASKED[0].parse().expect("an instant"));
}
