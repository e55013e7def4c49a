//! How long it takes to evaluate a schedule at each minute of a year, and that the last quarter takes no longer than the first.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

use std::hint::black_box;
use std::time::Instant;

use chrono::TimeDelta;
use gpuctl_core::policy::Policy;
use gpuctl_core::schedule::{Desired, Schedule};
use gpuctl_core::units::Timestamp;

const MINUTES: i32 = 525_600;

const WINDOW: &str =
    "zone = \"Asia/Tokyo\"\nweekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"19:00\"";
const PAIR: &str = "zone = \"America/New_York\"\nstart = \"cron(0 9 ? * MON-FRI *)\"\nstop = \"cron(0 19 ? * MON-FRI *)\"";
const LAST_FRIDAY: &str =
    "zone = \"Europe/Berlin\"\nweekdays = \"fri#L\"\nbegin = \"22:00\"\nend = \"06:00\"";
const HALVES: [&str; 2] = [
    "zone = \"Europe/Berlin\"\nbegin = \"00:00\"\nend = \"12:00\"",
    "zone = \"Europe/Berlin\"\nbegin = \"12:00\"\nend = \"24:00\"",
];

fn main() {
    let at = |schedule: &Schedule, now| schedule.at(now).desired == Desired::Running;
    let both = |schedule: &Schedule, now| at(schedule, now) | schedule.next_change(now).is_some();
    year("a window, state", &[WINDOW], at);
    year("a pair, state", &[PAIR], at);
    year("a window, state and next change", &[WINDOW], both);
    year("a pair, state and next change", &[PAIR], both);
    year("window, pair, last Friday: state and next change", &[WINDOW, PAIR, LAST_FRIDAY], both);
    let schedule = schedule(&HALVES);
    let (began, rounds) = (Instant::now(), 1_000);
    for _ in 0..rounds {
        assert!(black_box(&schedule).next_change(begin()).is_none());
    }
    println!(
        "the next change of two windows that never end: {} ns (it gives up after its limit)",
        began.elapsed().as_nanos() / rounds
    );
}

fn year(name: &str, entries: &[&str], look: impl Fn(&Schedule, Timestamp) -> bool) {
    let schedule = schedule(entries);
    let mut quarters_ns = [0; 4];
    let mut held = 0;
    for (quarter, spent_ns) in (0..).zip(&mut quarters_ns) {
        let began = Instant::now();
        for minute in 0..MINUTES / 4 {
            let now = begin() + TimeDelta::minutes((quarter * (MINUTES / 4) + minute).into());
            held += u32::from(look(black_box(&schedule), now));
        }
        *spent_ns = began.elapsed().as_nanos() / (MINUTES / 4).unsigned_abs() as u128;
    }
    black_box(held);
    let mean = quarters_ns.iter().sum::<u128>() / 4;
    println!(
        "{name}: {mean} ns an instant over {MINUTES} (by quarter of the year: {quarters_ns:?})"
    );
}

fn schedule(entries: &[&str]) -> Schedule {
    let entries: String =
        entries.iter().map(|entry| format!("[[pool.a.schedule]]\n{entry}\n")).collect();
    Policy::parse(&entries).unwrap().pools.remove(0).schedule
}

fn begin() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}
