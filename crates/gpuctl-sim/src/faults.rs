//! What can go wrong in the world: named kinds, each with an intensity, in windows that end before the week does.
//!
//! Each kind draws from a stream of its own, so that leaving one out leaves the others' draws alone.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use gpuctl_core::units::Timestamp;

use crate::chance::Chance;

macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $kind,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The kind's name on the command line and in documents.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

faults! {
    /// `Describe…` shows instances as they were up to 40 s ago (R5).
    DescribeLag "describe-lag",
    /// EC2's calls fail on its side.
    ApiErrors "api-errors",
    /// EC2 throttles beyond its buckets.
    Throttling "throttling",
    /// Spot ends in a zone: its boxes are taken back, starts are refused (P4, P8).
    SpotOutage "spot-outage",
    /// On demand is refused for want of capacity (P17).
    OnDemandOutage "on-demand-outage",
    /// Interruptions come without a notice (P12).
    NoNotice "no-notice",
    /// Refusals name no other zone.
    NoHint "no-hint",
    /// The account's quotas are too low (P9).
    Quota "quota",
    /// A start answers 200 and falls back to stopped (S1).
    FallBack "fall-back",
    /// A start stays pending for half an hour (S2).
    StuckPending "stuck-pending",
    /// A stop stays stopping for half an hour (S3).
    StuckStopping "stuck-stopping",
    /// A spot request ends while its box is stopped (P7).
    RequestEnds "request-ends",
    /// Counts are up to a minute old.
    CountsLag "counts-lag",
    /// Counts are off by a few, and show jobs where there are none (Q4, Q13).
    CountsNoise "counts-noise",
    /// The queue cannot be reached (Q5).
    QueueErrors "queue-errors",
    /// Messages are delivered twice (Q9).
    Duplicates "duplicates",
    /// The ledger cannot be reached.
    LedgerErrors "ledger-errors",
    /// A call does its work and its answer is lost.
    LostReplies "lost-replies",
    /// Calls take up to 14 s.
    SlowCalls "slow-calls",
    /// A controller dies between two calls and comes back later (R4, L6).
    ControllerCrash "controller-crash",
    /// A second controller works beside the first (R3).
    TwoControllers "two-controllers",
    /// Triggers come late, or twice (L15).
    LateTicks "late-ticks",
    /// No trigger comes at all for a while.
    MissingTicks "missing-ticks",
    /// A worker dies between two calls and its box stays on (W5).
    WorkerCrash "worker-crash",
    /// A job never ends and cannot be cancelled.
    WorkerHang "worker-hang",
    /// A worker's reports do not arrive.
    WorkerSilent "worker-silent",
    /// The machine is up and its worker never gets ready (W5).
    BootFails "boot-fails",
    /// A boot takes thrice its time.
    SlowBoot "slow-boot",
    /// Jobs that end their worker (Q7).
    Poison "poison",
    /// Messages that are no jobs (L3).
    Garbage "garbage",
    /// Somebody starts and stops boxes in the console (R1).
    ForeignHands "foreign-hands",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of fault")]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let found = Self::ALL.iter().find(|fault| fault.name() == text);
        found.copied().ok_or_else(|| FaultError(text.to_owned()))
    }
}

/// The most windows of one kind in a week.
const WINDOWS_MAX: i64 = 3;
/// The least and the most minutes of a window.
const WINDOW_MINUTES: (i64, i64) = (10, 720);
/// How many in a thousand kinds a week has.
const SHARE: i64 = 250;

/// The faults of one week.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    plans: Vec<Plan>,
    injected: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Plan {
    on: bool,
    /// In thousandths.
    intensity: i64,
    windows: Vec<(Timestamp, Timestamp)>,
    chance: Chance,
}

impl Faults {
    /// Draws a subset of the kinds, of those in `only` where it is given; all windows lie between `begin` and `end`.
    pub(crate) fn draw(
        seed: u64,
        (begin, end): (Timestamp, Timestamp),
        only: Option<&BTreeSet<Fault>>,
    ) -> Self {
        let plan = |fault: &Fault| {
            let mut chance = Chance::stream(seed, fault.name());
            let drawn = chance.permille(SHARE);
            let intensity = chance.pick(&[100, 300, 1_000]);
            let count = chance.between(1, WINDOWS_MAX);
            let windows = (0..count).map(|_| window(&mut chance, begin, end)).collect();
            let on = only.map_or(drawn, |only| drawn && only.contains(fault));
            Plan { on, intensity, windows, chance }
        };
        let plans: Vec<Plan> = Fault::ALL.iter().map(plan).collect();
        Self { injected: vec![0; plans.len()], plans }
    }

    /// Without what would come at or after this instant.
    pub(crate) fn cut_at(mut self, end: Timestamp) -> Self {
        for plan in &mut self.plans {
            plan.windows.retain(|(from, _)| *from < end);
            plan.windows.iter_mut().for_each(|(_, to)| *to = (*to).min(end));
            plan.on &= !plan.windows.is_empty();
        }
        self
    }

    /// The kinds that this week has.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Fault> {
        let on = |fault: &Fault| self.plans[*fault as usize].on;
        Fault::ALL.iter().copied().filter(on)
    }

    /// The windows of a kind, if the week has it.
    pub(crate) fn windows(&self, fault: Fault) -> &[(Timestamp, Timestamp)] {
        let plan = &self.plans[fault as usize];
        if plan.on { &plan.windows } else { &[] }
    }

    /// How strong a kind is at this instant, in thousandths; nothing outside its windows.
    pub(crate) fn strength(&self, fault: Fault, now: Timestamp) -> i64 {
        let plan = &self.plans[fault as usize];
        let within = |(from, to): &(Timestamp, Timestamp)| *from <= now && now < *to;
        if plan.on && plan.windows.iter().any(within) { plan.intensity } else { 0 }
    }

    /// The first instant after this one at which a kind begins or ends; until then every strength stays as it is.
    pub(crate) fn next_edge(&self, now: Timestamp) -> Option<Timestamp> {
        let windows = self.plans.iter().filter(|plan| plan.on).flat_map(|plan| &plan.windows);
        windows.flat_map(|(from, to)| [*from, *to]).filter(|edge| *edge > now).min()
    }

    /// Whether it strikes here: `share` times in a thousand at full strength. Nothing is drawn while it is off.
    pub(crate) fn inject(&mut self, fault: Fault, now: Timestamp, share: i64) -> bool {
        let strength = self.strength(fault, now);
        let struck = strength > 0 && self.chance(fault).between(0, 999_999) < share * strength;
        if struck {
            self.count(fault, 1);
        }
        struck
    }

    /// The kind's own stream.
    pub(crate) fn chance(&mut self, fault: Fault) -> &mut Chance {
        &mut self.plans[fault as usize].chance
    }

    pub(crate) fn count(&mut self, fault: Fault, times: u64) {
        self.injected[fault as usize] += times;
    }

    /// How often each kind struck.
    pub(crate) fn injected(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().map(|fault| (*fault, self.injected[*fault as usize]))
    }
}

fn window(chance: &mut Chance, begin: Timestamp, end: Timestamp) -> (Timestamp, Timestamp) {
    let span = (end - begin).num_minutes().max(1);
    let lasts = chance.between(WINDOW_MINUTES.0, WINDOW_MINUTES.1).min(span);
    let from = begin + TimeDelta::minutes(chance.between(0, span - lasts));
    (from, from + TimeDelta::minutes(lasts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_one_kind_out_leaves_the_others_alone() {
        let begin = Timestamp::UNIX_EPOCH;
        let end = begin + TimeDelta::days(5);
        for seed in 0..20 {
            let mut all = Faults::draw(seed, (begin, end), None);
            let kinds: Vec<Fault> = all.kinds().collect();
            let Some((left_out, kept)) = kinds.split_first() else { continue };
            let only = kept.iter().copied().collect();
            let mut fewer = Faults::draw(seed, (begin, end), Some(&only));
            assert!(fewer.windows(*left_out).is_empty());
            for fault in kept {
                assert_eq!(all.windows(*fault), fewer.windows(*fault));
                let at = all.windows(*fault)[0].0;
                let drawn = |faults: &mut Faults| {
                    (0..9).map(|_| faults.inject(*fault, at, 500)).collect::<Vec<_>>()
                };
                assert_eq!(drawn(&mut all), drawn(&mut fewer), "{fault}");
            }
            let last =
                Fault::ALL.iter().flat_map(|fault| all.windows(*fault)).map(|one| one.1).max();
            assert!(last.is_none_or(|last| last <= end));
        }
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(*fault));
        }
        assert!("gremlins".parse::<Fault>().is_err());
    }
}
