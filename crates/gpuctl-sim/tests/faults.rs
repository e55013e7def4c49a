//! Fault simulation: weeks without faults, weeks with faults, and weeks that once violated a guarantee.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use gpuctl_sim::faults::Fault;
use gpuctl_sim::world::scenario::Only;
use gpuctl_sim::world::week::{Week, run};

/// Weeks with faults in the normal test run; `gpuctl simulate --faults` runs a thousand.
const SEEDS: u64 = 16;
/// Their length: shorter than a week, since an unoptimised build takes ten times as long.
const HOURS: u32 = 48;

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
    for seed in 0..3 {
        let only = Only { faults: Some(BTreeSet::new()), hours: Some(HOURS), ..Only::default() };
        let week = kept(seed, &only);
        assert!(week.faults.is_empty(), "{:?}", week.faults);
        assert!(week.checks > week.jobs, "{week:?}");
    }
}

#[test]
fn every_guarantee_holds_while_things_go_wrong() {
    let only = Only { hours: Some(HOURS), ..Only::default() };
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        seen.extend(kept(seed, &only).faults.into_keys());
    }
    assert!(!seen.is_empty(), "no fault happened");
}

/// A week that once violated a guarantee, shrunk, and the bug that it found.
struct OnceBroken {
    seed: u64,
    faults: &'static [Fault],
    hours: u32,
    boxes: usize,
    jobs: usize,
    was: &'static str,
}

const ONCE_BROKEN: [OnceBroken; 14] = [
    OnceBroken {
        seed: 36,
        faults: &[Fault::ForeignHands],
        hours: 36,
        boxes: 1,
        jobs: 0,
        was: "a box that was started in the console cost nothing after 15 s",
    },
    OnceBroken {
        seed: 100,
        faults: &[],
        hours: 24,
        boxes: 3,
        jobs: 9,
        was: "two boxes at once were one start too many for starts_per_hour_max",
    },
    OnceBroken {
        seed: 106,
        faults: &[Fault::DescribeLag],
        hours: 168,
        boxes: 1,
        jobs: 160,
        was: "a box that the listing showed late was started twice",
    },
    OnceBroken {
        seed: 53,
        faults: &[Fault::LostReplies, Fault::LateTicks],
        hours: 120,
        boxes: 2,
        jobs: 1,
        was: "a start whose response was lost cost nothing",
    },
    OnceBroken {
        seed: 10,
        faults: &[Fault::LedgerErrors],
        hours: 132,
        boxes: 1,
        jobs: 11,
        was: "an idle box stayed on while the ledger failed now and then",
    },
    OnceBroken {
        seed: 145,
        faults: &[Fault::Throttling, Fault::SpotOutage, Fault::StuckPending, Fault::LedgerErrors],
        hours: 156,
        boxes: 4,
        jobs: 18,
        was: "an older run of a box stayed open for ever",
    },
    OnceBroken {
        seed: 733,
        faults: &[Fault::LedgerThrottled, Fault::BrokenBox],
        hours: 84,
        boxes: 3,
        jobs: usize::MAX,
        was: "a run that was never seen ready, nor its end, cost nothing",
    },
    OnceBroken {
        // The whole week: it was found before weeks could be shrunk.
        seed: 408,
        faults: Fault::ALL,
        hours: 168,
        boxes: usize::MAX,
        jobs: usize::MAX,
        was: "ticks that the simulation skipped missed that an overdue report had arrived",
    },
    OnceBroken {
        seed: 692,
        faults: &[
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
        hours: 96,
        boxes: 3,
        jobs: 63,
        was: "a box that was started in the console and stopped while the ledger took no writes cost nothing",
    },
    OnceBroken {
        seed: 1_001,
        faults: &[Fault::ForeignHands, Fault::LedgerThrottled],
        hours: 60,
        boxes: 1,
        jobs: 26,
        was: "of a run that counts until the next start the check did not excuse the time before another one in it",
    },
    OnceBroken {
        seed: 1_374,
        faults: &[
            Fault::ApiErrors,
            Fault::ControllerCrash,
            Fault::Poison,
            Fault::Garbage,
            Fault::OutOfMemory,
            Fault::Retention,
            Fault::Retries,
        ],
        hours: 72,
        boxes: 1,
        jobs: 49,
        was: "a crash while no job ran was none, so that poison used up a receive of what its worker held once more",
    },
    OnceBroken {
        seed: 1_510,
        faults: &[Fault::ControllerStall, Fault::BrokenBox],
        hours: 108,
        boxes: 1,
        jobs: usize::MAX,
        was: "the check did not see the fault for which a worker had ended hours before a user's hold on its box did",
    },
    OnceBroken {
        seed: 1_899,
        faults: &[Fault::CountsLag, Fault::Duplicates, Fault::LedgerErrors],
        hours: 60,
        boxes: 2,
        jobs: usize::MAX,
        was: "a worker acked although a heartbeat that came back meanwhile had not found the message",
    },
    OnceBroken {
        seed: 2_400,
        faults: &[Fault::StuckPending, Fault::LedgerErrors, Fault::LostReplies],
        hours: 24,
        boxes: 2,
        jobs: 3,
        was: "an idle box stayed up for as long as one boot had been stuck",
    },
];

#[test]
fn weeks_that_once_violated_a_guarantee_keep_it() {
    for OnceBroken { seed, faults, hours, boxes, jobs, was } in ONCE_BROKEN {
        let only = Only {
            faults: Some(faults.iter().copied().collect()),
            hours: Some(hours),
            boxes: Some(boxes),
            jobs: Some(jobs),
            ..Only::default()
        };
        let broken = run(seed, &only).unwrap().violation;
        assert!(broken.is_none(), "again, {was}: {broken:?}");
    }
}

#[test]
fn a_seed_is_the_same_week_every_time() {
    for seed in [3, 11] {
        let only = Only { hours: Some(72), ..Only::default() };
        let shown = |week: &Week| format!("{week:?}");
        assert_eq!(shown(&run(seed, &only).unwrap()), shown(&run(seed, &only).unwrap()));
    }
}
