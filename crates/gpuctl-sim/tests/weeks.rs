//! Weeks of the faulty world: clean ones, faulty ones, and those that once broke a promise.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use gpuctl_sim::faults::Fault;
use gpuctl_sim::world::scenario::Only;
use gpuctl_sim::world::week::{Week, run};

/// Faulty weeks in the normal test run; `gpuctl simulate --faults` runs a thousand.
const SEEDS: u64 = 32;

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
    for seed in 0..6 {
        let only = Only { faults: Some(BTreeSet::new()), ..Only::default() };
        let week = kept(seed, &only);
        assert!(week.faults.is_empty(), "{:?}", week.faults);
        assert!(week.jobs > 0 && week.checks > week.jobs, "{week:?}");
    }
}

#[test]
fn every_promise_is_kept_while_things_go_wrong() {
    let mut struck = BTreeSet::new();
    for seed in 0..SEEDS {
        struck.extend(kept(seed, &Only::default()).faults.into_keys());
    }
    let never: Vec<&str> =
        Fault::ALL.iter().map(|fault| fault.name()).filter(|name| !struck.contains(name)).collect();
    assert!(never.is_empty(), "never struck: {never:?}");
}

#[test]
fn a_seed_is_the_same_week_every_time() {
    for seed in [3, 11] {
        let only = Only { hours: Some(72), ..Only::default() };
        let told = |week: &Week| format!("{week:?}");
        assert_eq!(told(&run(seed, &only).unwrap()), told(&run(seed, &only).unwrap()));
    }
}
