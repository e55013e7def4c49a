//! iCalendar files against recurring-ical-events: what scripts/make-references.py wrote into the cache.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::PathBuf;

use chrono::Datelike;
use gpuctl_control::calendar::{CalendarError, dates_in};
use serde_json::Value;

/// The same rule as that of scripts/environment.sh.
fn reference() -> Value {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
    let cache = folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .unwrap_or_else(|| folder("HOME").unwrap().join(".cache/gpuctl"));
    let file = cache.join("schedules/calendars.json");
    let text = std::fs::read_to_string(&file);
    let text = text.unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/make-references.py makes it", file.display())
    });
    serde_json::from_str(&text).unwrap()
}

#[test]
fn all_day_events_are_on_the_days_that_recurring_ical_events_says() {
    let reference = reference();
    let years: [i32; 2] = serde_json::from_value(reference["years"].clone()).unwrap();
    let files = reference["files"].as_array().unwrap();
    assert!(files.len() > 100, "{}", files.len());
    for file in files {
        let text = file["text"].as_str().unwrap();
        let expected: Vec<String> = serde_json::from_value(file["dates"].clone()).unwrap();
        let found = match dates_in(text) {
            Ok(found) => found.dates,
            Err(CalendarError::Nothing { .. }) => Vec::new(),
            Err(error) => panic!("{error}\n{text}"),
        };
        let found = found.iter().filter(|day| (years[0]..years[1]).contains(&day.year()));
        assert_eq!(found.map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn every_file_of_the_fuzz_corpus_has_dates_or_is_rejected_in_short() {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../gpuctl-core/fuzz/corpus/calendar");
    let files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 5, "{}", files.len());
    for file in files {
        if let Err(error) = dates_in(&std::fs::read_to_string(&file).unwrap()) {
            assert!(error.to_string().len() < 2_000, "{}: {error}", file.display());
        }
    }
}
