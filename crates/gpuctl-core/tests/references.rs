//! Schedules against other programs: what scripts/make-references.py wrote into the cache.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::PathBuf;

use chrono::{Offset, TimeDelta, TimeZone};
use gpuctl_core::schedule::{Desired, Entry, EntrySpec, Schedule};
use gpuctl_core::units::Timestamp;
use gpuctl_core::zone::{self, Zone};
use serde_json::Value;

/// The same rule as that of scripts/environment.sh.
fn reference(name: &str) -> Value {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
    let cache = folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .unwrap_or_else(|| folder("HOME").unwrap().join(".cache/gpuctl"));
    let file = cache.join("schedules").join(name);
    let text = std::fs::read_to_string(&file);
    let text = text.unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/make-references.py makes it", file.display())
    });
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_zone_shows_what_the_tzdata_of_python_shows() {
    let reference = reference("zones.json");
    assert_eq!(reference["version"], zone::VERSION, "zone::RELEASED has the day of the release");
    let instants: Vec<i64> = serde_json::from_value(reference["instants"].clone()).unwrap();
    let zones = reference["seconds"].as_object().unwrap();
    assert_eq!(zones.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut names: Vec<_> = Zone::names().collect();
        names.sort_unstable();
        names
    });
    let mut differences = Vec::new();
    for (name, seconds) in zones {
        let zone: Zone = name.parse().unwrap();
        for (at, expected) in instants.iter().zip(seconds.as_array().unwrap()) {
            let at = Timestamp::from_timestamp(*at, 0).unwrap();
            let shown = zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
            if i64::from(shown) != expected.as_i64().unwrap() {
                differences.push(format!("{name} at {at}: {shown} s, and not {expected} s"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A schedule that runs for the minute of each fire.
fn minutes_of(cron: &str) -> Schedule {
    let spec = EntrySpec {
        start: Some(format!("cron({cron})")),
        stop: Some("rate(1 minute)".to_owned()),
        ..EntrySpec::default()
    };
    let entry = Entry::new(&spec).unwrap_or_else(|problems| panic!("{cron}: {problems:?}"));
    Schedule { entries: vec![entry], ..Schedule::default() }
}

#[test]
fn cron_expressions_fire_when_aws_croniter_says() {
    let reference = reference("cron.json");
    let begin = Timestamp::from_timestamp(reference["begin"].as_i64().unwrap(), 0).unwrap();
    let expressions = reference["expressions"].as_array().unwrap();
    assert!(expressions.len() > 200, "{}", expressions.len());
    for one in expressions {
        let cron = one["cron"].as_str().unwrap();
        let schedule = minutes_of(cron);
        let runs = |at: Timestamp| schedule.at(at).desired == Desired::Running;
        let mut from = begin;
        for fire in one["fires"].as_array().unwrap() {
            let fire = Timestamp::from_timestamp(fire.as_i64().unwrap(), 0).unwrap();
            assert!(runs(fire), "{cron} does not fire at {fire}");
            // Fires that are two minutes apart or less make one stretch, in which there is no edge.
            if !runs(from) && fire - from > TimeDelta::minutes(2) {
                let next = schedule.next_change(from).unwrap();
                assert_eq!(next.at, fire, "{cron} after {from}");
            }
            from = fire + TimeDelta::minutes(1);
        }
    }
}
