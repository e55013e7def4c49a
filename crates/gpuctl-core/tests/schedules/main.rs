//! Tables of vectors: a schedule, an instant, and what is wanted then.
//!
//! `vectors.json` in this folder was written by hand from the rules of `SCHEDULES.md`, and is always checked. A second file with the
//! answers of the AWS Instance Scheduler and of KEDA's cron is not part of the repository. If the environment variable
//! `GPUCTL_SHARED` names a folder with `schedules/vectors.json` (default: the folder `shared` beside the repository), its vectors are
//! checked too; otherwise the tests print that it is absent. Where we differ from it is listed below and in `SCHEDULES.md`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first surprise, and prints what it could not check"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};

use gpuctl_core::decide;
use gpuctl_core::observation::{
    BoxState, Hold, HoldWants, Observation, Seen, SeenBox, SeenPool, Witness,
};
use gpuctl_core::plan::Action;
use gpuctl_core::policy::Policy;
use gpuctl_core::schedule::{Desired, Entry, EntrySpec, Schedule};
use gpuctl_core::units::Timestamp;
use gpuctl_core::zone::Zone;
use serde_json::Value;

/// Where we differ: the vector, what we want, and the reason.
const DIFFERENT: [(&str, &str, &str); 4] = [
    (
        "ny_fall_begin_only_0130_06:00",
        "running",
        "a begin takes effect once, at the first 01:30, and applies from then on",
    ),
    (
        "end_only_2359_06-04T00:00",
        "stopped",
        "a lone edge applies for at least an hour, so that no tick can miss it (T2)",
    ),
    (
        "new_instance_outside_stop_new_false",
        "stopped",
        "what is wanted follows from the instant alone, not from what was seen first",
    ),
    (
        "retain_running_end_of_period",
        "stopped",
        "there is no such flag: a hold (`gpuctl start`) keeps a box up after its window",
    ),
];

/// Where the reference has a mechanism that is a hold here: the vector, and what the hold wants.
const HOLDS: [(&str, HoldWants); 4] = [
    ("manual_start_outside_kept", HoldWants::Running),
    ("manual_stop_inside_period_kept", HoldWants::Stopped),
    ("override_running", HoldWants::Running),
    ("override_stopped", HoldWants::Stopped),
];

/// Weekdays that are rejected here.
const REJECTED_DAYS: [&str; 3] = ["1L", "3L", "L"];

/// Cron expressions whose next instant differs: the expression and `after`, our next instant, and the reason.
const DIFFERENT_CRON: [(&str, &str, &str, &str); 4] = [
    (
        "30 2 11 3 *",
        "2012-03-11T00:00:00-05:00",
        "2012-03-11T03:00:00-04:00",
        "an edge in the skipped hour takes effect right after it",
    ),
    (
        "0 2 * * *",
        "2012-03-11T00:00:00-05:00",
        "2012-03-11T03:00:00-04:00",
        "an edge in the skipped hour takes effect right after it",
    ),
    (
        "0 1 * * *",
        "2012-11-04T01:00:00-04:00",
        "2012-11-05T01:00:00-05:00",
        "fixed hours fire once: a start the first time",
    ),
    (
        "30 1 4 11 *",
        "2012-11-04T01:45:00-04:00",
        "2013-11-04T01:30:00-05:00",
        "fixed hours fire once: a start the first time",
    ),
];

/// Our own vectors.
fn own() -> Value {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

/// The vectors that are not part of the repository.
fn shared() -> Option<Value> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder =
        std::env::var_os("GPUCTL_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = folder.join("schedules/vectors.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            eprintln!("only our own vectors are checked: cannot read {}: {error}", path.display());
            None
        }
    }
}

/// Runs `check` on each vector of that list, in both files.
fn each(list: &str, mut check: impl FnMut(&Value)) {
    for vectors in std::iter::once(own()).chain(shared()) {
        let vectors = vectors[list].as_array().unwrap();
        assert!(!vectors.is_empty());
        vectors.iter().for_each(&mut check);
    }
}

fn list<'v>(vectors: &'v Value, name: &str) -> &'v [Value] {
    vectors[name].as_array().unwrap()
}

fn text<'v>(vector: &'v Value, key: &str) -> &'v str {
    vector[key].as_str().unwrap_or_default()
}

/// The reference counts weekdays from Monday as 0; here they have names alone.
fn weekday_names(expression: &str) -> String {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let parts = expression.split('-').map(|part| match part.parse::<usize>() {
        Ok(number) => NAMES[number],
        Err(_) => part,
    });
    parts.collect::<Vec<_>>().join("-")
}

fn specs(vector: &Value) -> Vec<EntrySpec> {
    let joined = |period: &Value, key: &str| {
        let items = period[key].as_array()?.iter().map(|item| match key {
            "weekdays" => weekday_names(item.as_str().unwrap()),
            _ => item.as_str().unwrap().to_owned(),
        });
        Some(items.collect::<Vec<_>>().join(","))
    };
    let spec = |period: &Value| EntrySpec {
        zone: Some(text(vector, "tz").to_owned()),
        begin: period["begin"].as_str().map(str::to_owned),
        end: period["end"].as_str().map(str::to_owned),
        weekdays: joined(period, "weekdays"),
        monthdays: joined(period, "monthdays"),
        months: joined(period, "months"),
        ..EntrySpec::default()
    };
    list(vector, "periods").iter().map(spec).collect()
}

fn schedule(specs: &[EntrySpec]) -> Schedule {
    let entries = specs.iter().map(|spec| Entry::new(spec).unwrap()).collect();
    Schedule { entries, ..Schedule::default() }
}

fn instant(vector: &Value) -> Timestamp {
    if let Some(at) = vector["instant_utc"].as_str() {
        return at.parse().unwrap();
    }
    let local: NaiveDateTime = text(vector, "instant_local").parse().unwrap();
    let zone: Zone = text(vector, "tz").parse().unwrap();
    zone.from_local_datetime(&local).earliest().unwrap().to_utc()
}

/// What is expected of us where the reference says `theirs`.
fn ours<'a>(name: &str, theirs: &'a str) -> &'a str {
    let found = DIFFERENT.iter().find(|(vector, ..)| *vector == name);
    found.map_or(theirs, |(_, answer, _)| {
        assert_ne!(*answer, theirs, "{name} does not differ");
        answer
    })
}

#[test]
fn desired_states_are_as_expected() {
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    each("vectors", |vector| {
        let name = text(vector, "name");
        assert!(seen.insert(name.to_owned()), "there are two vectors {name}");
        let at = instant(vector);
        let state = if text(vector, "kind") == "desired_state" {
            schedule(&specs(vector)).at(at).desired.as_str()
        } else {
            state_after(vector, at)
        };
        let expected = ours(name, text(vector, "expect"));
        if state != expected {
            failures.push(format!("{name}: {state} in place of {expected}"));
        }
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_listed_differences_are_among_the_shared_vectors() {
    let Some(shared) = shared() else { return };
    let seen: BTreeSet<&str> =
        list(&shared, "vectors").iter().map(|vector| text(vector, "name")).collect();
    let known = DIFFERENT.iter().map(|(name, ..)| *name).chain(HOLDS.iter().map(|(name, _)| *name));
    let unknown: Vec<_> = known.filter(|name| !seen.contains(*name)).collect();
    assert!(unknown.is_empty(), "no such vectors: {unknown:?}");
    assert_eq!(seen.len(), 84);
}

/// The state of the box after one `decide`. Maintenance windows and overrides are holds here.
fn state_after(vector: &Value, at: Timestamp) -> &'static str {
    let held =
        HOLDS.iter().find(|(name, _)| *name == text(vector, "name")).map(|(_, wants)| *wants);
    let maintained = vector["maintenance_windows"].as_array().into_iter().flatten().any(|window| {
        let start: Timestamp = text(window, "start").parse().unwrap();
        (start..start + TimeDelta::hours(window["hours"].as_i64().unwrap())).contains(&at)
    });
    let hold = held.or(maintained.then_some(HoldWants::Running)).map(|wants| Hold {
        pool: "app".parse().unwrap(),
        wants,
        since: at - TimeDelta::minutes(5),
        until: at + TimeDelta::minutes(5),
        by: "ada".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    });
    let mut policy = Policy::parse("[pool.app]\ncommand = [\"./app\"]").unwrap();
    policy.pools[0].schedule = schedule(&specs(vector));
    let was_running = text(vector, "current_state") == "running";
    let state = if was_running { BoxState::Running } else { BoxState::Stopped };
    let one = SeenBox::new("app-1".parse().unwrap(), state, at - TimeDelta::hours(1));
    let seen = SeenPool {
        boxes: Seen::now(vec![one], at),
        queue: None,
        urgent: None,
        hold,
        runs: vec![],
        service: None,
        spent: None,
    };
    let pools = BTreeMap::from([(policy.pools[0].id.clone(), seen)]);
    let plan = decide(&policy, &Observation { at, witness: Witness::Controller, pools });
    let runs = match plan.pools[0].actions.first() {
        Some(Action::Start { .. }) => true,
        Some(Action::Stop { .. }) => false,
        None => was_running,
    };
    if runs { "running" } else { "stopped" }
}

/// The days of a month on which a whole-day window is open at noon.
fn days(spec: EntrySpec, month: &str) -> Vec<u32> {
    let schedule = schedule(&[EntrySpec { zone: Some("UTC".to_owned()), ..spec }]);
    let first: NaiveDate = format!("{month}-01").parse().unwrap();
    let noon = |day: &NaiveDate| day.and_hms_opt(12, 0, 0).unwrap().and_utc();
    first
        .iter_days()
        .take_while(|day| day.month() == first.month())
        .filter(|day| schedule.at(noon(day)).desired == Desired::Running)
        .map(|day| day.day())
        .collect()
}

#[test]
fn days_of_a_month_are_as_expected() {
    each("recurrence_days", |vector| {
        let expression = text(vector, "expr");
        let some = Some(expression.to_owned());
        let spec = match text(vector, "field") {
            "weekdays" => EntrySpec { weekdays: some, ..EntrySpec::default() },
            _ => EntrySpec { monthdays: some, ..EntrySpec::default() },
        };
        if text(vector, "field") == "weekdays" && REJECTED_DAYS.contains(&expression) {
            // T10: weekday numbers, and what `L` alone means, differ between tools.
            assert!(
                Entry::new(&EntrySpec { zone: Some("UTC".into()), ..spec }).is_err(),
                "{vector}"
            );
            return;
        }
        let expected: Vec<u64> =
            list(vector, "days").iter().map(|day| day.as_u64().unwrap()).collect();
        let found: Vec<u64> =
            days(spec, text(vector, "month")).into_iter().map(u64::from).collect();
        assert_eq!(found, expected, "{vector}");
    });
}

#[test]
fn ranges_of_weekdays_with_steps_go_past_the_end_of_the_week() {
    // Days 1 to 7 are Monday to Sunday; April 2024 begins on a Monday.
    each("range_values", |vector| {
        let (range, step) = text(vector, "expr").split_once('/').unwrap();
        let named = range
            .split('-')
            .map(|day| weekday_names(&(day.parse::<u32>().unwrap() - 1).to_string()));
        let weekdays = Some(format!("{}/{step}", named.collect::<Vec<_>>().join("-")));
        let found = days(EntrySpec { weekdays, ..EntrySpec::default() }, "2024-04");
        let found: BTreeSet<u64> =
            found.into_iter().filter(|day| *day <= 7).map(u64::from).collect();
        let expected = list(vector, "values").iter().map(|value| value.as_u64().unwrap()).collect();
        assert_eq!(found, expected, "{vector}");
    });
}

#[test]
fn texts_are_accepted_or_rejected_as_expected() {
    each("validation", |vector| {
        let (field, value) = (text(vector, "field"), text(vector, "value"));
        let zone = Some("UTC".to_owned());
        let some = |field_name| (field == field_name).then(|| value.to_owned());
        let mut spec = EntrySpec {
            zone,
            weekdays: some("weekdays"),
            monthdays: some("monthdays"),
            months: some("months"),
            begin: some("time"),
            ..EntrySpec::default()
        };
        if field == "period" {
            spec.begin = vector["value"]["begin"].as_str().map(str::to_owned);
            spec.end = vector["value"]["end"].as_str().map(str::to_owned);
        }
        if field == "instant" {
            // A time without an offset is not an instant.
            assert!("2026-11-22T09:00:00".parse::<Timestamp>().is_err());
            return;
        }
        let accepted = Entry::new(&spec).is_ok();
        let rejected = text(vector, "gpuctl").starts_with("reject");
        assert_eq!(accepted, !rejected, "{vector}");
    });
    let february = |text: &str| {
        days(EntrySpec { monthdays: Some(text.to_owned()), ..EntrySpec::default() }, "2023-02")
    };
    assert_eq!(february("30W"), [0; 0]);
    assert_eq!(february("1/15"), [1, 16]);
    assert_eq!(february("1-30/14"), [1, 15]);
}

#[test]
fn hours_per_day_are_as_expected() {
    each("usage", |vector| {
        let schedule = schedule(&specs(vector));
        let (from, to): (NaiveDate, NaiveDate) =
            (text(vector, "from").parse().unwrap(), text(vector, "to").parse().unwrap());
        for day in from.iter_days().take_while(|day| *day <= to) {
            let begin = day.and_hms_opt(0, 0, 0).unwrap().and_utc();
            let minutes = (0..1440).filter(|minute| {
                schedule.at(begin + TimeDelta::minutes(*minute)).desired == Desired::Running
            });
            let hours = minutes.count() / 60;
            let expected = vector["hours_per_day"][day.to_string()].as_u64().unwrap_or(0);
            assert_eq!(hours as u64, expected, "{} on {day}", text(vector, "name"));
        }
    });
}

#[test]
fn cron_expressions_fire_as_expected_where_clocks_are_changed() {
    each("cron_next_dst", |vector| {
        let (unix, after) = (text(vector, "expr"), text(vector, "after"));
        let fields: Vec<&str> = unix.split(' ').collect();
        let [minute, hour, monthday, month, "*"] = fields[..] else { panic!("{unix}") };
        let start = Some(format!("cron({minute} {hour} {monthday} {month} ? *)"));
        let spec =
            EntrySpec { zone: Some(text(vector, "tz").to_owned()), start, ..EntrySpec::default() };
        // The next fire is where a pair that stops a minute later begins to run.
        let stop = Some(format!(
            "cron({} {hour} {monthday} {month} ? *)",
            minute.parse::<u32>().unwrap() + 1
        ));
        let schedule = schedule(&[EntrySpec { stop, ..spec }]);
        let after_at: Timestamp = after.parse::<DateTime<chrono::FixedOffset>>().unwrap().to_utc();
        let next = std::iter::successors(schedule.next_change(after_at), |edge| {
            schedule.next_change(edge.at)
        })
        .find(|edge| edge.desired == Desired::Running)
        .map(|edge| edge.at);
        let different =
            DIFFERENT_CRON.iter().find(|(expr, from, ..)| (*expr, *from) == (unix, after));
        let expected = different.map_or(vector["next"].as_str(), |(_, _, answer, _)| Some(*answer));
        let expected = expected.map(|text| text.parse::<DateTime<Utc>>().unwrap());
        assert_eq!(next, expected, "{vector}");
    });
}
