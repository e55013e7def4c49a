//! Each fix that a simulated week guards, left out: the week finds what it prevents, and not otherwise. WITHOUT.md lists them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use gpuctl_core::without::Fix;
use gpuctl_sim::checks::Guarantee;
use gpuctl_sim::faults::Fault;
use gpuctl_sim::world::scenario::Only;
use gpuctl_sim::world::week::run;

/// A fix, and weeks that find that it is left out.
struct Found {
    fix: Fix,
    guarantee: Guarantee,
    /// Where to look first: one of the next `SEEDS` weeks, of these faults alone, shows it.
    seed: u64,
    faults: &'static [Fault],
}

fn found(fix: Fix, guarantee: Guarantee, seed: u64, faults: &'static [Fault]) -> Found {
    Found { fix, guarantee, seed, faults }
}

/// Fixes that no week of the first two hundred finds to be left out.
const NOT_FOUND: [Fix; 1] = [Fix::LifetimeFromReady];

/// Faults that keep leases from being extended.
const NO_LEASES: &[Fault] = &[
    Fault::QueueErrors,
    Fault::QueueDown,
    Fault::QueueThrottled,
    Fault::Duplicates,
    Fault::SlowCalls,
    Fault::LostReplies,
];

/// How many weeks are tried: whether one of them shows it must not depend on each detail of gpuctl.
const SEEDS: u64 = 30;

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn all() -> Vec<Found> {
    vec![
        found(Fix::StopAfterLease, Guarantee::OneActor, 100, &[Fault::ControllerStall]),
        found(Fix::UnfencedWrites, Guarantee::Fenced, 0, &[Fault::ControllerStall]),
        found(Fix::BootLoopNoGrowth, Guarantee::BootLoops, 22, &[Fault::BootLoop]),
        found(
            Fix::FinalErrorOnBoxFault,
            Guarantee::WhoseFault,
            12,
            &[Fault::BrokenBox, Fault::StoreThrottled],
        ),
        found(
            Fix::DropUnkeptResult,
            Guarantee::KeepsWork,
            7,
            &[
                Fault::LedgerErrors,
                Fault::LedgerThrottled,
                Fault::StoreThrottled,
                Fault::LostReplies,
            ],
        ),
        found(Fix::AckWithDeadReceipt, Guarantee::LiveAck, 200, NO_LEASES),
        found(Fix::FullHandsAfterCrash, Guarantee::WhoseFault, 26, &[Fault::Poison]),
        found(
            Fix::RestartCountsAsBoot,
            Guarantee::WhoseFault,
            41,
            &[Fault::OutOfMemory, Fault::WorkerCrash, Fault::Poison],
        ),
        found(
            Fix::JobClockFromReceipt,
            Guarantee::WhoseFault,
            90,
            &[Fault::StoreDown, Fault::LedgerDown, Fault::QueueDown],
        ),
        found(Fix::PrefetchTen, Guarantee::Hoarding, 99, &[]),
        found(Fix::FilesNotFenced, Guarantee::OwnFiles, 66, &[Fault::Duplicates]),
        found(
            Fix::ExitWithoutPowerOff,
            Guarantee::Workerless,
            0,
            &[Fault::BootLoop, Fault::LedgerDown],
        ),
        found(Fix::UncorrectedClock, Guarantee::Clocks, 11, &[Fault::ClockOff]),
        found(Fix::SilenceAfterOutage, Guarantee::Clocks, 219, &[Fault::LedgerDown]),
        // Few weeks have two starts in the console within an outage of the ledger, and a budget that they exceed.
        found(
            Fix::EndedUnseen,
            Guarantee::Budget,
            692,
            &[
                Fault::LedgerErrors,
                Fault::LostReplies,
                Fault::SlowCalls,
                Fault::ControllerCrash,
                Fault::ControllerStall,
                Fault::MissingTicks,
                Fault::ForeignHands,
                Fault::LedgerDown,
                Fault::LedgerThrottled,
                Fault::QueueThrottled,
            ],
        ),
        found(Fix::SuspectByReceiveCount, Guarantee::Poison, 0, Fault::ALL),
        found(
            Fix::DuplicateGeneration,
            Guarantee::DurableFirst,
            133,
            &[
                Fault::Retries,
                Fault::Duplicates,
                Fault::QueueErrors,
                Fault::Poison,
                Fault::LostReplies,
            ],
        ),
    ]
}

#[test]
fn every_fix_is_found_to_be_left_out() {
    let all = all();
    let listed: BTreeSet<Fix> = all.iter().map(|found| found.fix).collect();
    assert_eq!(listed.len(), all.len(), "a fix is listed twice");
    let missing = |fix: &&Fix| !listed.contains(fix) && !NOT_FOUND.contains(fix);
    assert_eq!(Fix::ALL.iter().find(missing), None, "a fix is missing");
    for Found { fix, guarantee, seed, faults } in all {
        let faults = Some(faults.iter().copied().collect());
        let with = Only { faults, ..Only::default() };
        let without = Only { without: [fix].into(), ..with.clone() };
        let broken = |seed, only| run(seed, only).unwrap().violation.map(|one| one.guarantee);
        let seed = (seed..seed + SEEDS).find(|seed| broken(*seed, &without) == Some(guarantee));
        let seed = seed.unwrap_or_else(|| panic!("no week finds that {fix} is left out"));
        assert_eq!(broken(seed, &with), None, "week {seed} with {fix}");
    }
}

#[test]
fn the_page_lists_them() {
    let mut page = "# Fixes that a simulated week guards

Written by `tests/without.rs`: `UPDATE_GOLDEN=1 cargo test -p gpuctl-sim --test without`. Each row is a name for `--without` of
[`gpuctl simulate --faults`](README.md#leave-a-fix-out), what happens then, and the guarantee that a week finds broken.

| name | without it | guarantee |
|---|---|---|
"
    .to_owned();
    for Found { fix, guarantee, .. } in all() {
        let (without, guarantee) = (fix.sentence(), guarantee.name());
        let _ = writeln!(page, "| `{fix}` | {without} | {guarantee} |");
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
