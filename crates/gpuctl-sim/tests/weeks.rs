//! Weeks of the faulty world: clean ones, faulty ones, and those that once broke a promise.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use gpuctl_sim::faults::Fault;
use gpuctl_sim::world::scenario::Only;
use gpuctl_sim::world::week::{Week, run};

/// Faulty weeks in the normal test run; `gpuctl simulate --faults` runs a thousand.
const SEEDS: u64 = 24;
/// … which are shorter here, since an unoptimised build takes ten times as long.
const HOURS: u32 = 60;

fn kept(seed: u64, only: &Only) -> Week {
    let week = run(seed, only).unwrap();
    let broken =
        week.violation.as_ref().map(|broken| format!("{broken}\n{}", broken.events.join("\n")));
    let again = format!("gpuctl simulate --faults --seed {seed}{}", only.flags());
    assert!(broken.is_none(), "{again}\n{}", broken.unwrap_or_default());
    week
}

#[test]
fn weeks_without_faults_work_off_every_job() {
    for seed in 0..4 {
        let only = Only { faults: Some(BTreeSet::new()), hours: Some(HOURS), ..Only::default() };
        let week = kept(seed, &only);
        assert!(week.faults.is_empty(), "{:?}", week.faults);
        assert!(week.checks > week.jobs, "{week:?}");
    }
}

#[test]
fn every_promise_is_kept_while_things_go_wrong() {
    let only = Only { hours: Some(HOURS), ..Only::default() };
    let mut struck = BTreeSet::new();
    for seed in 0..SEEDS {
        struck.extend(kept(seed, &only).faults.into_keys());
    }
    assert!(struck.len() > 15, "{struck:?}");
}

/// Weeks that broke a promise once: the seed, what is left of it, and what was wrong.
const ONCE_BROKEN: [(u64, &[Fault], u32, usize, usize, &str); 6] = [
    (
        36,
        &[Fault::ForeignHands],
        36,
        1,
        0,
        "a box that was started in the console cost nothing after 15 s",
    ),
    (100, &[], 24, 3, 9, "two boxes at once were one start too many for starts_per_hour_max"),
    (
        106,
        &[Fault::DescribeLag],
        168,
        1,
        160,
        "a box that the listing showed late was started twice",
    ),
    (
        53,
        &[Fault::LostReplies, Fault::LateTicks],
        120,
        2,
        1,
        "a start whose answer was lost cost nothing",
    ),
    (
        10,
        &[Fault::LedgerErrors],
        132,
        1,
        11,
        "an idle box went on while the ledger could not always be read",
    ),
    (
        145,
        &[Fault::Throttling, Fault::SpotOutage, Fault::StuckPending, Fault::LedgerErrors],
        156,
        4,
        18,
        "an older run of a box stayed open for ever",
    ),
];

#[test]
fn weeks_that_once_broke_a_promise_keep_it() {
    for (seed, faults, hours, boxes, jobs, _) in ONCE_BROKEN {
        let only = Only {
            faults: Some(faults.iter().copied().collect()),
            hours: Some(hours),
            boxes: Some(boxes),
            jobs: Some(jobs),
        };
        kept(seed, &only);
    }
}

#[test]
fn a_seed_is_the_same_week_every_time() {
    for seed in [3, 11] {
        let only = Only { hours: Some(72), ..Only::default() };
        let told = |week: &Week| format!("{week:?}");
        assert_eq!(told(&run(seed, &only).unwrap()), told(&run(seed, &only).unwrap()));
    }
}
