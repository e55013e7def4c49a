//! Each fix that a simulated week guards, left out: the week finds what it prevents, and not otherwise. WITHOUT.md lists them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use gpuctl_core::without::Fix;
use gpuctl_sim::checks::Guarantee;
use gpuctl_sim::faults::Fault;
use gpuctl_sim::world::scenario::Only;
use gpuctl_sim::world::week::run;

/// The first seed at which a whole week finds that the fix is left out, and a smaller week that shows it.
struct Found {
    fix: Fix,
    /// Of whole weeks, from 0.
    seed: u64,
    guarantee: Guarantee,
    small: Small,
}

/// A week shrunk by `gpuctl simulate --faults`.
struct Small {
    seed: u64,
    faults: &'static [Fault],
    hours: u32,
    boxes: usize,
    jobs: usize,
}

const FOUND: &[Found] = &[
    Found {
        fix: Fix::StopAfterLease,
        seed: 54,
        guarantee: Guarantee::OneActor,
        small: Small {
            seed: 54,
            faults: &[Fault::CountsNoise, Fault::ControllerStall],
            hours: 60,
            boxes: 2,
            jobs: 35,
        },
    },
    Found {
        fix: Fix::UnfencedWrites,
        seed: 1,
        guarantee: Guarantee::Fenced,
        small: Small { seed: 1, faults: &[Fault::ControllerStall], hours: 48, boxes: 1, jobs: 0 },
    },
];

/// Fixes that are still to come.
const NOT_YET: [Fix; 2] = [Fix::BootLoopNoGrowth, Fix::LifetimeFromReady];

/// Seeds that `gpuctl simulate --faults --without` runs.
const SEEDS: u64 = 200;

#[test]
fn every_fix_is_found_to_be_left_out() {
    let listed: BTreeSet<Fix> = FOUND.iter().map(|found| found.fix).collect();
    assert_eq!(listed.len(), FOUND.len(), "a fix is listed twice");
    let missing = |fix: &&Fix| !listed.contains(fix) && !NOT_YET.contains(fix);
    assert_eq!(Fix::ALL.iter().find(missing), None, "a fix is missing");
    for Found { fix, seed, guarantee, small } in FOUND {
        assert!(*seed < SEEDS, "{fix}");
        let with = Only {
            faults: Some(small.faults.iter().copied().collect()),
            hours: Some(small.hours),
            boxes: Some(small.boxes),
            jobs: Some(small.jobs),
            without: BTreeSet::new(),
        };
        let without = Only { without: [*fix].into(), ..with.clone() };
        let broken = run(small.seed, &without).unwrap().violation;
        assert_eq!(broken.map(|one| one.guarantee), Some(*guarantee), "without {fix}");
        let broken = run(small.seed, &with).unwrap().violation;
        assert!(broken.is_none(), "with {fix}: {broken:?}");
    }
}

#[test]
fn the_page_lists_them() {
    let mut page = "# Fixes that a simulated week guards

Written by `tests/without.rs`: `UPDATE_GOLDEN=1 cargo test -p gpuctl-sim --test without`. Each row is a name for `--without` of
[`gpuctl simulate --faults`](README.md#leave-a-fix-out), what happens then, the guarantee that a week finds broken, and the first seed of a
whole week that does.

| name | without it | guarantee | seed |
|---|---|---|---|
"
    .to_owned();
    for Found { fix, seed, guarantee, .. } in FOUND {
        let (without, guarantee) = (fix.sentence(), guarantee.name());
        let _ = writeln!(page, "| `{fix}` | {without} | {guarantee} | {seed} |");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("WITHOUT.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "UPDATE_GOLDEN=1 writes it"
    );
}
