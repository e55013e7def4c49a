//! Schedules minute by minute against an independent evaluation: it walks along local clocks, and applies the rules of
//! `SCHEDULES.md` to what they show. The zones and days are those on which clocks are changed (T3, T4, T5); the zone data is that of
//! the program (T13).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "a test ends at the first surprise, and its walks are short"
)]

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Weekday};

use gpuctl_core::schedule::{Calendar, Desired, Entry, EntrySpec, Schedule};
use gpuctl_core::units::Timestamp;
use gpuctl_core::zone::Zone;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Days that are walked before and after the compared ones: they include every weekday.
const MARGIN_DAYS: i64 = 9;
const COMPARED_DAYS: i64 = 2;

/// Days on which clocks are changed, and the ends of years and of Februaries.
const ZONES_AND_DAYS: [(&str, &str); 22] = [
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/London", "2024-03-31"),
    ("Europe/London", "2024-10-27"),
    ("Australia/Lord_Howe", "2024-04-07"),
    ("Australia/Lord_Howe", "2024-10-06"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Apia", "2011-12-31"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/St_Johns", "2010-03-14"),
    ("America/St_Johns", "2010-11-07"),
    ("America/Havana", "2024-03-10"),
    ("America/Havana", "2024-11-03"),
    ("Africa/Cairo", "2024-04-26"),
    ("Asia/Kathmandu", "1986-01-01"),
    ("Asia/Kathmandu", "2026-12-31"),
    ("Asia/Tokyo", "2026-12-31"),
    ("Asia/Kolkata", "2024-02-29"),
    ("America/New_York", "2025-12-31"),
    ("Antarctica/Troll", "2024-03-31"),
    ("UTC", "2028-02-29"),
];

#[derive(Clone, Debug)]
enum DayRule {
    Every,
    Weekdays(BTreeSet<u8>),
    Nth(u8, u8),
    Last(u8),
    Monthdays(u32, u32, u32),
    NearestWorking(u32),
    LastDay,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Begin,
    End,
}

#[derive(Clone, Debug)]
enum Hours {
    Every,
    At(BTreeSet<u32>),
}

#[derive(Clone, Debug)]
enum Case {
    /// Minutes of the day, from 0 to 1440.
    Window(DayRule, Option<u32>, Option<u32>),
    Cron(Option<Fires>, Option<Fires>),
}

#[derive(Clone, Debug)]
struct Fires {
    days: DayRule,
    hours: Hours,
    minutes: BTreeSet<u32>,
}

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl DayRule {
    fn spec(&self, spec: &mut EntrySpec) {
        let name = |day: &u8| NAMES[usize::from(*day)];
        match self {
            Self::Every => {}
            Self::Weekdays(days) => {
                spec.weekdays = Some(days.iter().map(name).collect::<Vec<_>>().join(","));
            }
            Self::Nth(day, nth) => spec.weekdays = Some(format!("{}#{nth}", name(day))),
            Self::Last(day) => spec.weekdays = Some(format!("{}#L", name(day))),
            Self::Monthdays(first, last, step) => {
                spec.monthdays = Some(format!("{first}-{last}/{step}"));
            }
            Self::NearestWorking(day) => spec.monthdays = Some(format!("{day}W")),
            Self::LastDay => spec.monthdays = Some("L".to_owned()),
        }
    }

    /// The day-of-month and the day-of-week field.
    fn fields(&self) -> (String, String) {
        let mut spec = EntrySpec::default();
        self.spec(&mut spec);
        match (spec.weekdays, spec.monthdays) {
            (Some(days), _) => ("?".to_owned(), days.replace("#L", "L").to_uppercase()),
            (_, days) => (days.unwrap_or("*".to_owned()), "?".to_owned()),
        }
    }

    fn holds(&self, day: NaiveDate) -> bool {
        let weekday = |day: NaiveDate| u8::try_from(day.weekday().num_days_from_monday()).unwrap();
        let month: Vec<NaiveDate> = day
            .with_day(1)
            .unwrap()
            .iter_days()
            .take_while(|other| other.month() == day.month())
            .collect();
        let same: Vec<_> = month.iter().filter(|other| weekday(**other) == weekday(day)).collect();
        match self {
            Self::Every => true,
            Self::Weekdays(days) => days.contains(&weekday(day)),
            Self::Nth(wanted, nth) => {
                weekday(day) == *wanted && same.get(usize::from(*nth) - 1) == Some(&&day)
            }
            Self::Last(wanted) => weekday(day) == *wanted && same.last() == Some(&&day),
            Self::Monthdays(first, last, step) => {
                (*first..=*last).any(|n| (n - first) % step == 0 && n == day.day())
            }
            Self::NearestWorking(wanted) => month
                .iter()
                .filter(|_| *wanted as usize <= month.len())
                .filter(|other| !matches!(other.weekday(), Weekday::Sat | Weekday::Sun))
                .min_by_key(|other| other.day().abs_diff(*wanted))
                .is_some_and(|nearest| *nearest == day),
            Self::LastDay => month.last() == Some(&day),
        }
    }
}

impl Fires {
    fn text(&self) -> String {
        let join =
            |set: &BTreeSet<u32>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let hours = match &self.hours {
            Hours::Every => "*".to_owned(),
            Hours::At(hours) => join(hours),
        };
        let (monthdays, weekdays) = self.days.fields();
        format!("cron({} {hours} {monthdays} * {weekdays} *)", join(&self.minutes))
    }

    /// The minutes of the walk at which it fires.
    fn minutes_of(&self, walk: &Walk, calendar: &Calendar, turn: Turn) -> Vec<usize> {
        let Hours::At(hours) = &self.hours else {
            return (0..walk.local.len())
                .filter(|index| happens(&self.days, calendar, walk.local[*index].date(), turn))
                .filter(|index| self.minutes.contains(&walk.local[*index].minute()))
                .collect();
        };
        let times: Vec<u32> = hours
            .iter()
            .flat_map(|hour| self.minutes.iter().map(move |minute| hour * 60 + minute))
            .collect();
        walk.edges(&self.days, calendar, &times, turn)
    }
}

fn happens(rule: &DayRule, calendar: &Calendar, day: NaiveDate, turn: Turn) -> bool {
    let skipped = turn == Turn::Begin && calendar.skip.contains(&day);
    calendar.extra.contains(&day) || rule.holds(day) && !skipped
}

/// What local clocks show, minute by minute.
struct Walk {
    begin: Timestamp,
    local: Vec<NaiveDateTime>,
    /// The first and the last minute of the walk at which a time is shown.
    shown: BTreeMap<NaiveDateTime, (usize, usize)>,
}

impl Walk {
    fn new(zone: Zone, day: NaiveDate) -> Self {
        let begin = day.and_hms_opt(0, 0, 0).unwrap().and_utc() - TimeDelta::days(MARGIN_DAYS);
        let minutes = (2 * MARGIN_DAYS + COMPARED_DAYS) * 24 * 60;
        let at = |minute| (begin + TimeDelta::minutes(minute)).with_timezone(&zone).naive_local();
        let local: Vec<_> = (0..minutes).map(at).collect();
        let mut shown = BTreeMap::new();
        for (index, time) in local.iter().enumerate() {
            shown.entry(*time).or_insert((index, index)).1 = index;
        }
        Self { begin, local, shown }
    }

    fn at(&self, index: usize) -> Timestamp {
        self.begin + TimeDelta::minutes(index as i64)
    }

    /// The minute of the walk at which something at that local time begins or ends; in a gap, the first one after it. `None` beyond
    /// the walk.
    fn index(&self, wanted: NaiveDateTime, turn: Turn) -> Option<usize> {
        match self.shown.get(&wanted) {
            Some((first, last)) => Some(if turn == Turn::Begin { *first } else { *last }),
            None => self.local.iter().position(|local| *local > wanted),
        }
    }

    fn days(&self) -> impl Iterator<Item = NaiveDate> {
        let (first, last) = (self.local[0].date(), self.local[self.local.len() - 1].date());
        // The first and the last day are not walked completely.
        (first + Days::new(1)).iter_days().take_while(move |day| *day + Days::new(1) < last)
    }

    fn edges(&self, rule: &DayRule, calendar: &Calendar, times: &[u32], turn: Turn) -> Vec<usize> {
        let days = self.days().filter(|day| happens(rule, calendar, *day, turn));
        let mut indices: Vec<usize> = days
            .flat_map(|day| {
                times.iter().filter_map(move |time| self.index(time_of(day, *time), turn))
            })
            .collect();
        indices.sort_unstable();
        indices
    }

    /// From each of those minutes to the end of its day, and for an hour at least.
    fn lone(&self, indices: &[usize]) -> Vec<bool> {
        let mut held = vec![false; self.local.len()];
        for index in indices {
            let next_day = self.local[*index].date() + Days::new(1);
            let end = self.index(next_day.into(), Turn::End).unwrap_or(held.len());
            let end = end.max(index + 60).min(held.len());
            held[*index..end].fill(true);
        }
        held
    }
}

fn time_of(day: NaiveDate, minute: u32) -> NaiveDateTime {
    day.and_hms_opt(0, 0, 0).unwrap() + TimeDelta::minutes(minute.into())
}

/// What one case wants, minute by minute: whether it runs, and whether a lone stop of it applies.
fn naive(case: &Case, walk: &Walk, calendar: &Calendar) -> (Vec<bool>, Vec<bool>) {
    let none = || vec![false; walk.local.len()];
    match case {
        Case::Window(rule, Some(begin), None) => {
            (walk.lone(&walk.edges(rule, calendar, &[*begin], Turn::Begin)), none())
        }
        Case::Window(rule, None, Some(end)) => {
            (none(), walk.lone(&walk.edges(rule, calendar, &[*end], Turn::End)))
        }
        Case::Window(rule, begin, end) => {
            let (begin, end) = (begin.unwrap_or(0), end.unwrap_or(1440));
            let mut runs = none();
            for day in walk.days().filter(|day| happens(rule, calendar, *day, Turn::Begin)) {
                let end_day = if end <= begin { day + Days::new(1) } else { day };
                let from = walk.index(time_of(day, begin), Turn::Begin);
                let until = walk.index(time_of(end_day, end), Turn::End);
                if let (Some(from), Some(until)) = (from, until)
                    && from < until
                {
                    runs[from..until].fill(true);
                }
            }
            (runs, none())
        }
        Case::Cron(Some(start), None) => {
            (walk.lone(&start.minutes_of(walk, calendar, Turn::Begin)), none())
        }
        Case::Cron(None, Some(stop)) => {
            (none(), walk.lone(&stop.minutes_of(walk, calendar, Turn::End)))
        }
        Case::Cron(start, stop) => {
            let minutes = |fires: &Option<Fires>, turn| -> BTreeSet<usize> {
                let fires = fires.as_ref().unwrap();
                fires.minutes_of(walk, calendar, turn).into_iter().collect()
            };
            let (starts, stops) = (minutes(start, Turn::Begin), minutes(stop, Turn::End));
            let mut runs = none();
            let mut on = false;
            for (index, held) in runs.iter_mut().enumerate() {
                on = starts.contains(&index) || on && !stops.contains(&index);
                *held = on;
            }
            (runs, none())
        }
    }
}

fn combined(cases: &[Case], walk: &Walk, calendar: &Calendar) -> Vec<Desired> {
    let all: Vec<_> = cases.iter().map(|case| naive(case, walk, calendar)).collect();
    let runs = |index: usize| all.iter().any(|(runs, _)| runs.get(index) == Some(&true));
    let two_sided = cases.iter().any(|case| {
        matches!(
            case,
            Case::Window(_, Some(_), Some(_))
                | Case::Window(_, None, None)
                | Case::Cron(Some(_), Some(_))
        )
    });
    (0..walk.local.len())
        .map(|index| {
            let bridged = index > 0 && runs(index - 1) && runs(index + 1);
            if runs(index) || bridged {
                Desired::Running
            } else if two_sided || all.iter().any(|(_, stops)| stops[index]) {
                Desired::Stopped
            } else {
                Desired::Any
            }
        })
        .collect()
}

fn entry(case: &Case, zone: &str) -> Entry {
    let mut spec = EntrySpec { zone: Some(zone.to_owned()), ..EntrySpec::default() };
    let time = |minute: &u32| format!("{}:{:02}", minute / 60, minute % 60);
    match case {
        Case::Window(rule, begin, end) => {
            rule.spec(&mut spec);
            spec.begin = begin.as_ref().map(time);
            spec.end = end.as_ref().map(time);
        }
        Case::Cron(start, stop) => {
            spec.start = start.as_ref().map(Fires::text);
            spec.stop = stop.as_ref().map(Fires::text);
        }
    }
    Entry::new(&spec).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"))
}

fn day_rule() -> impl Strategy<Value = DayRule> {
    prop_oneof![
        4 => Just(DayRule::Every),
        4 => prop::collection::btree_set(0..7_u8, 1..5).prop_map(DayRule::Weekdays),
        1 => (0..7_u8, 1..6_u8).prop_map(|(day, nth)| DayRule::Nth(day, nth)),
        1 => (0..7_u8).prop_map(DayRule::Last),
        1 => (1..31_u32, 0..31_u32, 1..12_u32)
            .prop_map(|(first, more, step)| DayRule::Monthdays(first, (first + more).min(31), step)),
        1 => (1..32_u32).prop_map(DayRule::NearestWorking),
        1 => Just(DayRule::LastDay),
    ]
}

/// Often near midnight and the hours in which clocks change.
fn time() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..210_u32, 1 => 1380..1440_u32, 2 => 0..1440_u32, 1 => (0..24_u32).prop_map(|hour| hour * 60)]
}

fn fires(days: impl Strategy<Value = DayRule>) -> impl Strategy<Value = Fires> {
    let hours = prop_oneof![
        1 => Just(Hours::Every),
        3 => prop::collection::btree_set(prop_oneof![0..4_u32, 0..24_u32], 1..4).prop_map(Hours::At),
    ];
    let minutes = prop::collection::btree_set(0..60_u32, 1..4);
    (days, hours, minutes).prop_map(|(days, hours, minutes)| Fires { days, hours, minutes })
}

/// Of a pair, both fire within the walk's margin, so that the walk knows the state.
fn weekly() -> impl Strategy<Value = DayRule> {
    prop_oneof![
        Just(DayRule::Every),
        prop::collection::btree_set(0..7_u8, 1..5).prop_map(DayRule::Weekdays)
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let end = prop_oneof![time().prop_map(|end| end.max(1)), 1..1441_u32];
    let window = (day_rule(), time(), end).prop_map(|(rule, begin, end)| {
        Case::Window(rule, Some(begin), Some(if end == begin { end + 1 } else { end }))
    });
    prop_oneof![
        4 => window,
        1 => day_rule().prop_map(|rule| Case::Window(rule, None, None)),
        1 => (day_rule(), time()).prop_map(|(rule, begin)| Case::Window(rule, Some(begin), None)),
        1 => (day_rule(), time()).prop_map(|(rule, end)| Case::Window(rule, None, Some(end))),
        1 => fires(day_rule()).prop_map(|start| Case::Cron(Some(start), None)),
        1 => fires(day_rule()).prop_map(|stop| Case::Cron(None, Some(stop))),
        3 => (fires(weekly()), fires(weekly()))
            .prop_map(|(start, stop)| Case::Cron(Some(start), Some(stop))),
    ]
}

fn calendar(day: NaiveDate) -> impl Strategy<Value = Calendar> {
    let near = move || {
        prop::collection::btree_set(
            (0..5_u64).prop_map(move |n| day + Days::new(n) - Days::new(1)),
            0..3,
        )
    };
    (near(), near(), any::<bool>()).prop_map(|(skip, extra, has)| {
        let extra = extra.difference(&skip).copied().collect();
        if has { Calendar { skip, extra, ..Calendar::default() } } else { Calendar::default() }
    })
}

fn world() -> impl Strategy<Value = (&'static str, NaiveDate, Vec<Case>, Calendar)> {
    let zone_and_day = prop_oneof![
        4 => prop::sample::select(ZONES_AND_DAYS.to_vec())
            .prop_map(|(zone, day)| (zone, day.parse::<NaiveDate>().unwrap() - Days::new(1))),
        1 => (prop::sample::select(ZONES_AND_DAYS.to_vec()), 0..20_000_u64).prop_map(|((zone, _), days)| {
            (zone, NaiveDate::from_ymd_opt(1975, 1, 1).unwrap() + Days::new(days))
        }),
    ];
    zone_and_day.prop_flat_map(|(zone, day)| {
        (Just(zone), Just(day), prop::collection::vec(case(), 1..4), calendar(day))
    })
}

/// The same few cases every time; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` try others, and more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20_261_122),
        seed => seed,
    };
    let cases = std::env::var_os("PROPTEST_CASES").map_or(24, |_| asked.cases);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..asked }
}

/// What the schedule says, against the walk, at the minutes around each change and at every half hour.
#[track_caller]
fn compare(zone: &str, walk: &Walk, case: &Case) {
    let none = Calendar::default();
    let expected = combined(std::slice::from_ref(case), walk, &none);
    let schedule = Schedule { entries: vec![entry(case, zone)], calendar: none };
    let from = usize::try_from(MARGIN_DAYS * 1440).unwrap();
    let until = from + usize::try_from(COMPARED_DAYS * 1440).unwrap();
    let changes = |index: &usize| (index - 1..=index + 1).any(|p| expected[p] != expected[p - 1]);
    for index in (from..until).filter(|index| index % 30 == 0 || changes(index)) {
        let (at, local) = (walk.at(index), walk.local[index]);
        assert_eq!(schedule.at(at).desired, expected[index], "{case:?} in {zone}, local {local}");
    }
}

#[test]
fn windows_follow_the_clocks_at_every_half_hour_of_the_night() {
    let times: Vec<u32> = (0..8).map(|half| half * 30).chain([1380, 1410]).collect();
    for (zone, day) in ZONES_AND_DAYS {
        let day = day.parse::<NaiveDate>().unwrap() - Days::new(1);
        let walk = Walk::new(zone.parse().unwrap(), day);
        for begin in &times {
            compare(zone, &walk, &Case::Window(DayRule::Every, Some(*begin), None));
            compare(zone, &walk, &Case::Window(DayRule::Every, None, Some(*begin)));
            for end in times.iter().filter(|end| *end != begin) {
                compare(zone, &walk, &Case::Window(DayRule::Every, Some(*begin), Some(*end)));
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_minute_follows_the_clocks_and_the_rules((zone, day, cases, calendar) in world()) {
        let walk = Walk::new(zone.parse().unwrap(), day);
        let expected = combined(&cases, &walk, &calendar);
        let entries = cases.iter().map(|case| entry(case, zone)).collect();
        let schedule = Schedule { entries, calendar };
        let from = usize::try_from(MARGIN_DAYS * 1440).unwrap();
        let until = from + usize::try_from(COMPARED_DAYS * 1440).unwrap();
        for (index, expected) in expected.iter().enumerate().take(until).skip(from) {
            let at = walk.at(index);
            prop_assert_eq!(
                schedule.at(at).desired, *expected,
                "{} in {}, local {}", at, zone, walk.local[index]
            );
        }
        // The next change is the first minute that differs, seen from anywhere before it.
        for index in (from..until).filter(|index| index % 61 == 0 || expected[*index] != expected[index - 1]) {
            let next = (index..until).find(|later| expected[*later] != expected[index]);
            let found = schedule.next_change(walk.at(index) + TimeDelta::seconds(17));
            match (next, found) {
                (Some(next), found) => {
                    let found = found.map(|edge| (edge.at, edge.desired));
                    prop_assert_eq!(found, Some((walk.at(next), expected[next])), "from {}", walk.at(index));
                }
                (None, Some(found)) => prop_assert!(found.at >= walk.at(until), "{:?}", found),
                (None, None) => {}
            }
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic_or_loop(
        texts in prop::collection::vec(prop_oneof![
            ".{0,40}",
            "[a-zA-Z0-9#LW,/?*() -]{0,30}",
            "cron\\([0-9*?/,#LWA-Z -]{0,40}\\)",
            "rate\\([0-9a-z -]{0,30}\\)",
            "[0-9]{1,30}[-/][0-9]{1,30}",
        ], 8)
    ) {
        let text = |index: usize| Some(texts[index].clone());
        let window = EntrySpec {
            zone: Some("UTC".to_owned()), begin: text(0), end: text(1), weekdays: text(2),
            monthdays: text(3), months: text(4), ..EntrySpec::default()
        };
        let pair = EntrySpec { zone: None, start: text(5), stop: text(6), ..EntrySpec::default() };
        for spec in [window, pair] {
            match Entry::new(&spec) {
                Ok(entry) => {
                    let schedule = Schedule { entries: vec![entry], calendar: Calendar::default() };
                    let now = "2026-11-22T00:00:00Z".parse().unwrap();
                    let _ = (schedule.at(now), schedule.next_change(now), schedule.lint(now));
                }
                Err(problems) => {
                    prop_assert!(!problems.is_empty());
                    prop_assert!(problems.iter().all(|problem| !problem.error.hint().is_empty()));
                }
            }
        }
        let _ = Calendar::parse_range(&texts[7]);
    }
}
