//! Single cases. `tests/minutes.rs` checks every minute of random schedules, `tests/schedules.rs` tables of vectors.

use super::*;
use crate::policy::Policy;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The schedule of a pool that has those tables.
fn schedule(text: &str) -> Schedule {
    let text =
        text.replace("[[]]", "[[pool.a.schedule]]").replace("[calendar]", "[pool.a.calendar]");
    Policy::parse(&text).unwrap_or_else(|found| panic!("{:?}", found.0)).pools.remove(0).schedule
}

#[track_caller]
fn check(schedule: &Schedule, now: &str, desired: Desired, next: Option<(&str, Desired)>) {
    let found = schedule.next_change(at(now)).map(|edge| (edge.at, edge.desired));
    let expected = (desired, next.map(|(text, desired)| (at(text), desired)));
    assert_eq!((schedule.at(at(now)).desired, found), expected, "at {now}");
}

use Desired::{Any, Running, Stopped};

#[test]
fn office_hours_in_tokyo_open_at_midnight_utc() {
    let office = schedule(
        "[[]]\nzone = \"Asia/Tokyo\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"19:00\"",
    );
    check(&office, "2026-11-20T00:00:00Z", Running, Some(("2026-11-20T10:00:00Z", Stopped)));
    check(&office, "2026-11-19T23:59:59Z", Stopped, Some(("2026-11-20T00:00:00Z", Running)));
    // Friday evening: the next begin is Monday's.
    check(&office, "2026-11-20T10:00:00Z", Stopped, Some(("2026-11-23T00:00:00Z", Running)));
    let state = office.at(at("2026-11-20T00:00:00Z"));
    assert_eq!(state.reason, "inside `mon-fri 09:00-19:00 Asia/Tokyo`");
}

#[test]
fn t1_an_overnight_window_has_no_hole_at_midnight() {
    let night =
        schedule("[[]]\nzone = \"UTC\"\nweekdays = \"fri\"\nbegin = \"22:00\"\nend = \"06:00\"");
    for now in ["2026-11-20T23:59:59Z", "2026-11-21T00:00:00Z"] {
        check(&night, now, Running, Some(("2026-11-21T06:00:00Z", Stopped)));
    }
    check(&night, "2026-11-21T06:00:00Z", Stopped, Some(("2026-11-27T22:00:00Z", Running)));
}

#[test]
fn t3_t4_edges_where_clocks_change_come_once_and_not_early() {
    let spring = schedule("[[]]\nzone = \"America/New_York\"\nbegin = \"02:30\"\nend = \"05:00\"");
    check(&spring, "2026-03-08T06:59:00Z", Stopped, Some(("2026-03-08T07:00:00Z", Running)));
    let autumn = schedule("[[]]\nzone = \"America/New_York\"\nbegin = \"00:00\"\nend = \"01:30\"");
    check(&autumn, "2026-11-01T05:45:00Z", Running, Some(("2026-11-01T06:30:00Z", Stopped)));
    check(&autumn, "2026-11-01T06:30:00Z", Stopped, Some(("2026-11-02T05:00:00Z", Running)));
    let hourly = schedule(
        "[[]]\nzone = \"America/New_York\"\nstart = \"cron(0 * * * ? *)\"\nstop = \"cron(30 * * * ? *)\"",
    );
    check(&hourly, "2026-11-01T05:45:00Z", Stopped, Some(("2026-11-01T06:00:00Z", Running)));
    check(&hourly, "2026-03-08T06:45:00Z", Stopped, Some(("2026-03-08T07:00:00Z", Running)));
}

#[test]
fn a_schedule_of_all_days_never_changes() {
    let days = schedule("[[]]\nzone = \"Pacific/Apia\"");
    check(&days, "2011-12-30T12:00:00Z", Running, None);
    let halves = "[[]]\nzone = \"UTC\"\nbegin = \"00:00\"\nend = \"12:00\"\n[[]]\nzone = \"UTC\"\nbegin = \"12:00\"\nend = \"24:00\"";
    check(&schedule(halves), "2026-11-22T12:00:00Z", Running, None);
}

#[test]
fn t2_a_lone_edge_applies_until_the_end_of_its_day_and_for_an_hour() {
    let begin = schedule("[[]]\nzone = \"UTC\"\nbegin = \"10:00\"");
    check(&begin, "2026-11-22T09:59:00Z", Any, Some(("2026-11-22T10:00:00Z", Running)));
    check(&begin, "2026-11-22T10:00:00Z", Running, Some(("2026-11-23T00:00:00Z", Any)));
    let stop = schedule("[[]]\nstop = \"cron(59 23 * * ? *)\"");
    check(&stop, "2026-11-22T23:59:00Z", Stopped, Some(("2026-11-23T00:59:00Z", Any)));
    assert_eq!(
        stop.at(at("2026-11-23T00:00:00Z")).reason,
        "`stop cron(59 23 * * ? *) UTC`: in effect until the end of that day"
    );
}

#[test]
fn t4_a_lone_edge_at_a_repeated_midnight_applies_to_its_own_day() {
    // St. John's went from 00:01 back to 23:01.
    let midnight = schedule("[[]]\nzone = \"America/St_Johns\"\nbegin = \"00:00\"");
    check(&midnight, "2010-11-07T02:45:00Z", Running, None);
    // The second time of the 6th comes after the first minute of the 7th, which is skipped.
    let hourly = schedule(
        "[[]]\nzone = \"America/St_Johns\"\nstart = \"cron(1 * * * ? *)\"\nstop = \"cron(2 * * * ? *)\"\n[calendar]\nskip = [\"2010-11-07\"]",
    );
    check(&hourly, "2010-11-07T01:32:00Z", Stopped, Some(("2010-11-07T02:31:00Z", Running)));
}

#[test]
fn a_pair_runs_from_start_to_stop_and_the_start_wins_a_tie() {
    let weekend =
        schedule("[[]]\nstart = \"cron(0 18 ? * FRI *)\"\nstop = \"cron(0 6 ? * MON *)\"");
    check(&weekend, "2026-11-22T00:00:00Z", Running, Some(("2026-11-23T06:00:00Z", Stopped)));
    check(&weekend, "2026-11-24T00:00:00Z", Stopped, Some(("2026-11-27T18:00:00Z", Running)));
    let tie = schedule("[[]]\nstart = \"rate(12 hours)\"\nstop = \"rate(6 hours)\"");
    check(&tie, "2026-11-22T12:00:00Z", Running, Some(("2026-11-22T18:00:00Z", Stopped)));
    check(&tie, "2026-11-22T18:00:00Z", Stopped, Some(("2026-11-23T00:00:00Z", Running)));
    let always = schedule("[[]]\nstart = \"rate(1 minute)\"\nstop = \"rate(1 hour)\"");
    check(&always, "2026-11-22T12:00:00Z", Running, None);
}

#[test]
fn t15_a_search_for_what_never_comes_ends() {
    for start in ["cron(0 9 30 2 ? *)", "cron(0 9 * * ? 2020)", "cron(0 9 31 4,6,9,11 ? *)"] {
        let never = schedule(&format!("[[]]\nstart = \"{start}\""));
        check(&never, "2026-11-22T00:00:00Z", Any, None);
    }
}

#[test]
fn a_gap_of_a_minute_does_not_stop_a_pool_and_one_of_two_does() {
    let gap = |begin: &str| {
        schedule(&format!(
            "[[]]\nzone = \"UTC\"\nbegin = \"05:00\"\nend = \"10:00\"\n[[]]\nzone = \"UTC\"\nbegin = \"{begin}\"\nend = \"15:00\""
        ))
    };
    check(&gap("10:01"), "2026-11-22T09:00:00Z", Running, Some(("2026-11-22T15:00:00Z", Stopped)));
    check(&gap("10:01"), "2026-11-22T10:00:30Z", Running, Some(("2026-11-22T15:00:00Z", Stopped)));
    check(&gap("10:02"), "2026-11-22T10:00:30Z", Stopped, Some(("2026-11-22T10:02:00Z", Running)));
}

#[test]
fn a_calendar_skips_what_begins_and_adds_whole_days() {
    let days = schedule(
        "[[]]\nzone = \"UTC\"\nweekdays = \"mon-fri\"\nbegin = \"22:00\"\nend = \"06:00\"\n[calendar]\nskip = [\"2026-12-24..2026-12-25\"]\nextra = [\"2026-12-27\"]",
    );
    // Wednesday's window ends on the 24th, Thursday's and Friday's do not begin, Sunday's does.
    check(&days, "2026-12-24T05:00:00Z", Running, Some(("2026-12-24T06:00:00Z", Stopped)));
    check(&days, "2026-12-24T06:00:00Z", Stopped, Some(("2026-12-27T22:00:00Z", Running)));
    assert_eq!(
        days.at(at("2026-12-24T23:00:00Z")).reason,
        "outside its schedule; 2026-12-24 is a date to skip"
    );
    let pair = schedule(
        "[[]]\nstart = \"cron(0 9 ? * MON-FRI *)\"\nstop = \"cron(0 17 ? * MON-FRI *)\"\n[calendar]\nskip = [\"2026-12-25\"]\nextra = [\"2026-12-26\"]",
    );
    check(&pair, "2026-12-25T12:00:00Z", Stopped, Some(("2026-12-26T09:00:00Z", Running)));
    check(&pair, "2026-12-26T12:00:00Z", Running, Some(("2026-12-26T17:00:00Z", Stopped)));
    let rate = schedule(
        "[[]]\nstart = \"rate(1 minute)\"\n[calendar]\nskip = [\"2026-12-25..2030-12-25\"]",
    );
    check(&rate, "2026-12-26T00:00:00Z", Any, Some(("2030-12-26T00:00:00Z", Running)));
}

#[test]
fn beyond_the_known_years_a_schedule_wants_nothing() {
    let days = schedule("[[]]\nzone = \"Asia/Tokyo\"");
    for now in [
        Timestamp::MIN_UTC,
        Timestamp::MAX_UTC,
        at("1969-12-31T23:59:59Z"),
        at("2200-01-01T00:00:00Z"),
    ] {
        assert_eq!((days.at(now).desired, days.next_change(now)), (Any, None));
        assert!(days.lint(now).is_empty());
    }
    for now in ["1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z"] {
        assert_eq!(days.at(at(now)).desired, Running, "{now}");
        let _ = days.next_change(at(now));
    }
}

#[test]
fn t5_days_are_as_long_as_clocks_make_them() {
    let apia = schedule("[[]]\nzone = \"Pacific/Apia\"\nbegin = \"09:00\"\nend = \"17:00\"");
    let dates: Vec<_> =
        apia.days(at("2011-12-29T20:00:00Z"), 3).map(|day| day.date.to_string()).collect();
    assert_eq!(dates, ["2011-12-29", "2011-12-31"]);
    let ny = schedule("[[]]\nzone = \"America/New_York\"\nbegin = \"22:00\"\nend = \"03:00\"");
    let days: Vec<_> = ny.days(at("2026-10-31T12:00:00Z"), 2).collect();
    let hours = |day: &Day| (day.end - day.begin).num_hours();
    assert_eq!(days.iter().map(hours).collect::<Vec<_>>(), [24, 25]);
    let runs = |day: &Day| -> i64 {
        let running = day.parts.iter().filter(|(desired, ..)| *desired == Running);
        running.map(|(_, begin, end)| (*end - *begin).num_hours()).sum()
    };
    assert_eq!(days.iter().map(runs).collect::<Vec<_>>(), [5, 6]);
}

#[track_caller]
fn warns(text: &str, expected: &[(usize, &str)]) {
    let found = schedule(text).lint(at("2026-11-22T00:00:00Z"));
    let found: Vec<_> =
        found.iter().map(|warning| (warning.entry, warning.message.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn lint_warns_of_what_is_probably_not_meant() {
    let office =
        "[[]]\nzone = \"UTC\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"17:00\"\n";
    warns(office, &[]);
    warns(
        "[[]]\nstart = \"cron(0 9 30 2 ? *)\"",
        &[(1, "`start cron(0 9 30 2 ? *) UTC` never matches from now on")],
    );
    warns(
        &format!(
            "{office}[[]]\nzone = \"UTC\"\nweekdays = \"tue\"\nbegin = \"10:00\"\nend = \"11:00\""
        ),
        &[(2, "`tue 10:00-11:00 UTC` is redundant: entry 1, `mon-fri 09:00-17:00 UTC`, covers it")],
    );
    warns(
        &format!("{office}{office}"),
        &[(
            2,
            "`mon-fri 09:00-17:00 UTC` is redundant: entry 1, `mon-fri 09:00-17:00 UTC`, covers it",
        )],
    );
    warns(
        &format!(
            "{office}[[]]\nzone = \"UTC\"\nweekdays = \"fri\"\nbegin = \"16:00\"\nend = \"20:00\""
        ),
        &[(
            2,
            "`fri 16:00-20:00 UTC` overlaps entry 1, `mon-fri 09:00-17:00 UTC`, first from 2026-11-27 16:00 to 2026-11-27 17:00",
        )],
    );
    warns(
        &format!(
            "{office}[[]]\nzone = \"UTC\"\nweekdays = \"mon-fri\"\nbegin = \"17:00\"\nend = \"18:00\""
        ),
        &[],
    );
    warns(
        &format!("{office}[[]]\nzone = \"UTC\"\nend = \"16:00\""),
        &[(
            2,
            "`stop at 16:00 UTC` contradicts entry 1, `mon-fri 09:00-17:00 UTC`, first at 2026-11-23 16:00: running wins, so it stops nothing then",
        )],
    );
    warns(
        "[[]]\nstart = \"cron(0 9 ? * MON *)\"\nstop = \"cron(0 9 * * ? *)\"",
        &[(
            1,
            "`start cron(0 9 ? * MON *) stop cron(0 9 * * ? *) UTC` starts and stops at the same minute, first at 2026-11-23 09:00: the start wins",
        )],
    );
    warns(
        "[[]]\nzone = \"America/New_York\"\nbegin = \"02:15\"\nend = \"02:45\"",
        &[(
            1,
            "`02:15-02:45 America/New_York` does not happen on 2027-03-14: clocks are set forward over the whole of it",
        )],
    );
}

#[test]
fn all_problems_of_an_entry_are_reported_each_at_its_key() {
    let spec = |pairs: &[(&str, &str)]| {
        let get =
            |key| pairs.iter().find(|(known, _)| *known == key).map(|(_, text)| (*text).to_owned());
        EntrySpec {
            zone: get("zone"),
            begin: get("begin"),
            end: get("end"),
            weekdays: get("weekdays"),
            monthdays: get("monthdays"),
            months: get("months"),
            start: get("start"),
            stop: get("stop"),
        }
    };
    let keys = |pairs: &[(&str, &str)]| -> Vec<&str> {
        let problems = Entry::new(&spec(pairs)).unwrap_err();
        assert!(problems.iter().all(|problem| !problem.error.hint().is_empty()));
        problems.iter().map(|problem| problem.key).collect()
    };
    assert_eq!(
        keys(&[
            ("weekdays", "1-5"),
            ("monthdays", "0"),
            ("months", "sup"),
            ("begin", "24:00"),
            ("end", "9")
        ]),
        ["zone", "weekdays", "monthdays", "months", "begin", "end"]
    );
    // T9, T12.
    assert_eq!(keys(&[("zone", "UTC"), ("begin", "09:00"), ("end", "9:00")]), ["end"]);
    assert_eq!(keys(&[("zone", "Mars/Base")]), ["zone"]);
    let typo = EntryError::Zone("Europe/Berln".to_owned());
    assert_eq!(typo.hint(), "did you mean `Europe/Berlin`?");
    assert_eq!(
        keys(&[("begin", "09:00"), ("months", "1"), ("start", "rate(1 hours)")]),
        ["begin", "months", "start"]
    );
    assert_eq!(keys(&[("zone", "Mars/Base"), ("start", "cron(0 9 * * ? *)")]), ["zone"]);
    for time in ["25:00", "24:01", "09:60", "9", "9:5", "+9:00", "09:00:00", "", "é9:00"] {
        assert_eq!(keys(&[("zone", "UTC"), ("end", time)]), ["end"], "{time}");
    }
    assert!(Entry::new(&spec(&[("zone", "UTC"), ("begin", "4:35"), ("end", "24:00")])).is_ok());
}

#[test]
fn a_time_that_comes_once_is_not_repeated_on_extra_dates() {
    let once = "[[]]\nzone = \"Asia/Tokyo\"\nstart = \"at(2026-12-01T13:00:00)\"\nstop = \"at(2026-12-01T18:00:00)\"\n";
    let plain = schedule(once);
    check(&plain, "2026-11-30T00:00:00Z", Stopped, Some(("2026-12-01T04:00:00Z", Running)));
    check(&plain, "2026-12-01T04:00:00Z", Running, Some(("2026-12-01T09:00:00Z", Stopped)));
    check(&plain, "2026-12-01T09:00:00Z", Stopped, None);
    let extra = schedule(&format!("{once}[calendar]\nextra = [\"2026-12-24\"]"));
    check(&extra, "2026-12-02T00:00:00Z", Stopped, None);
    let skipped = schedule(&format!("{once}[calendar]\nskip = [\"2026-12-01\"]"));
    check(&skipped, "2026-11-30T00:00:00Z", Stopped, None);
    warns(
        "[[]]\nstart = \"at(2020-12-01T13:00:00)\"",
        &[(1, "`start at(2020-12-01T13:00:00) UTC` never matches from now on")],
    );
}

#[test]
fn hours_that_wrap_are_judged_by_their_own_day() {
    let evenings = schedule("[[]]\nstart = \"cron(0 20-2 ? * MON *)\"\nstop = \"rate(5 minutes)\"");
    // Monday, 2026-11-23: from midnight to two, and from twenty on. The hours after Monday's midnight are Tuesday's, which has none.
    check(&evenings, "2026-11-23T01:03:00Z", Running, Some(("2026-11-23T01:05:00Z", Stopped)));
    check(&evenings, "2026-11-23T02:06:00Z", Stopped, Some(("2026-11-23T20:00:00Z", Running)));
    check(&evenings, "2026-11-23T23:06:00Z", Stopped, Some(("2026-11-30T00:00:00Z", Running)));
}

#[test]
fn a_zone_with_one_offset_all_year_is_warned_of() {
    let found = schedule("[[]]\nzone = \"EST\"").lint(at("2026-11-22T00:00:00Z"));
    assert!(found[0].hint.contains("America/New_York"), "{found:?}");
}

/// Work is counted, since seconds depend on the machine.
#[test]
fn the_work_for_a_hundred_entries_is_bounded() {
    let now = at("2026-11-22T00:00:00Z");
    let never = "[[]]\nstart = \"cron(0 0 30 2 ? *)\"\nstop = \"cron(0 1 30 2 ? *)\"\n".repeat(100);
    let never = schedule(&never);
    assert!(work::steps_of(|| never.lint(now)) < 10_000);
    assert!(work::steps_of(|| never.days(now, 366).count()) < 1_000_000);
    let pairs = |count: u32| {
        let pair = |minute: u32| {
            let (start, stop) = (minute % 60, (minute + 1) % 60);
            format!(
                "[[]]\nzone = \"America/New_York\"\nstart = \"cron({start}/2 * * * ? *)\"\nstop = \"cron({stop}/2 * * * ? *)\"\n"
            )
        };
        schedule(&(0..count).map(pair).collect::<String>())
    };
    let (one, all) = (pairs(1), pairs(100));
    let steps = work::steps_of(|| one.lint(now));
    assert!(steps < 20_000, "{steps}");
    let steps = work::steps_of(|| all.lint(now));
    assert!(steps < 10_000_000, "{steps}");
}

#[test]
fn days_are_shown_without_a_search_past_their_end() {
    let skipped = schedule("[[]]\nzone = \"UTC\"\n[calendar]\nskip = [\"2026-01-01..2060-12-31\"]");
    let now = at("2026-11-22T00:00:00Z");
    assert!(work::steps_of(|| skipped.days(now, 366).count()) < 100_000);
}
