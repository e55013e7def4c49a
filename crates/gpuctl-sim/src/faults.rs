//! The faults of a simulated week: named kinds, each with an intensity, in windows that end before the week does.
//!
//! Each kind draws from a random stream of its own, so that leaving one out does not shift the others. What a kind does when it
//! happens is in `world`, where it happens.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use gpuctl_core::units::Timestamp;

use crate::chance::Chance;

gpuctl_core::named! {
    /// A kind of fault. Its sentence says what goes wrong.
    Fault {
        DescribeLag "describe-lag" "`Describe…` shows instances as they were up to 40 s ago (R5).",
        ApiErrors "api-errors" "EC2's calls fail with a server error.",
        Throttling "throttling" "EC2 throttles calls although its buckets are not empty.",
        SpotOutage "spot-outage" "Spot capacity ends in a zone: boxes there are interrupted, starts are refused (P4, P8).",
        OnDemandOutage "on-demand-outage" "On-demand starts are refused for lack of capacity (P17).",
        NoNotice "no-notice" "Interruptions come without a notice (P12).",
        NoHint "no-hint" "Refusals name no other zone.",
        Quota "quota" "The account's quotas are too low (P9).",
        FallBack "fall-back" "A start succeeds and the instance falls back to stopped (S1).",
        StuckPending "stuck-pending" "A start stays pending for half an hour (S2).",
        StuckStopping "stuck-stopping" "A stop stays stopping for half an hour (S3).",
        RequestEnds "request-ends" "A spot request ends while its box is stopped (P7).",
        CountsLag "counts-lag" "Counts are up to a minute old.",
        CountsNoise "counts-noise" "Counts are off by a few, and show jobs where there are none (Q4, Q13).",
        QueueErrors "queue-errors" "The queue cannot be reached (Q5).",
        Duplicates "duplicates" "Messages are delivered twice (Q9).",
        LedgerErrors "ledger-errors" "The ledger cannot be reached.",
        LostReplies "lost-replies" "A call takes effect and its response is lost.",
        SlowCalls "slow-calls" "Calls take up to 14 s.",
        ControllerCrash "controller-crash" "A controller crashes between two calls and is restarted later (R4, L6).",
        ControllerStall "controller-stall" "Controllers stand still for up to a minute between two calls, and go on, while a second one runs.",
        TwoControllers "two-controllers" "A second controller runs beside the first (R3).",
        LateTicks "late-ticks" "Ticks come late (L15).",
        MissingTicks "missing-ticks" "No tick comes at all for a while.",
        WorkerCrash "worker-crash" "A worker crashes between two calls and its box stays on (W5).",
        WorkerHang "worker-hang" "A job never ends and cannot be cancelled.",
        WorkerSilent "worker-silent" "A worker's reports do not arrive.",
        BootFails "boot-fails" "The machine is up and its worker never gets ready (W5).",
        SlowBoot "slow-boot" "A boot takes three times as long.",
        Poison "poison" "Jobs that crash their worker (Q7).",
        Garbage "garbage" "Messages that are not jobs (L3).",
        ForeignHands "foreign-hands" "An operator starts and stops boxes in the console (R1).",
        LedgerDown "ledger-down" "The ledger cannot be reached at all, for minutes or hours.",
        QueueDown "queue-down" "The queue cannot be reached at all, for minutes or hours.",
        StoreDown "store-down" "The store of inputs and results' files cannot be reached at all, for minutes or hours.",
        LedgerThrottled "ledger-throttled" "The ledger throttles calls.",
        QueueThrottled "queue-throttled" "The queue throttles calls.",
        StoreThrottled "store-throttled" "The store of files throttles calls.",
        BrokenBox "broken-box" "One box can run no job: its models are missing.",
        BrokenImage "broken-image" "No box can run a job: CUDA does not work.",
        BootLoop "boot-loop" "The worker ends as soon as it starts, on each boot.",
        ClockOff "clock-off" "Clocks of boxes are minutes off, and jump.",
        OutOfMemory "out-of-memory" "A worker is killed at some stage of a job, and its service manager restarts it.",
        ChildKilled "child-killed" "The signal that asks a worker to stop also kills the child process of its job.",
        Retention "retention" "The queue deletes messages that have waited for an hour.",
        Retries "retries" "A user retries failed and dead jobs.",
        Cancels "cancels" "A user cancels waiting and running jobs.",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text does not name a kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of fault")]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let found = Self::ALL.iter().find(|fault| fault.name() == text);
        found.copied().ok_or_else(|| FaultError(text.to_owned()))
    }
}

/// Maximum number of windows of one kind in a week.
const WINDOWS_MAX: i64 = 3;
/// The least and the greatest length of a window, in minutes.
const WINDOW_MINUTES: (i64, i64) = (10, 720);
/// Of a service that is down: most outages are ones that a worker outlasts with what it holds.
const OUTAGE_MINUTES: [(i64, i64); 3] = [(2, 10), (10, 29), (30, 360)];
/// The probability that a week has a kind, in thousandths.
const SHARE: i64 = 250;

/// The faults of one week, and how often each has happened.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// By kind.
    plans: Vec<FaultPlan>,
    injected: Vec<u64>,
}

/// A stretch of time: `from` is in it, `to` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Window {
    fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

#[derive(Clone, Debug)]
struct FaultPlan {
    on: bool,
    /// In thousandths.
    intensity: i64,
    windows: Vec<Window>,
    chance: Chance,
}

impl Faults {
    /// Draws a subset of the kinds, of those in `only` if it is given; all windows lie within `within`.
    pub(crate) fn draw(seed: u64, within: Window, only: Option<&BTreeSet<Fault>>) -> Self {
        let plan = |fault: &Fault| {
            let mut chance = Chance::stream(seed, fault.name());
            let drawn = chance.permille(SHARE);
            let intensity = chance.pick(&[100, 300, 1_000]);
            let count = chance.between(1, WINDOWS_MAX);
            let windows = (0..count).map(|_| fault.draw_window(&mut chance, within)).collect();
            let on = only.map_or(drawn, |only| drawn && only.contains(fault));
            FaultPlan { on, intensity, windows, chance }
        };
        let plans: Vec<FaultPlan> = Fault::ALL.iter().map(plan).collect();
        Self { injected: vec![0; plans.len()], plans }
    }

    /// Removes what would happen at or after `end`.
    pub(crate) fn cut_at(mut self, end: Timestamp) -> Self {
        for plan in &mut self.plans {
            plan.windows.retain(|window| window.from < end);
            plan.windows.iter_mut().for_each(|window| window.to = window.to.min(end));
            plan.on &= !plan.windows.is_empty();
        }
        self
    }

    /// The kinds that this week has.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Fault> {
        let on = |fault: &Fault| self.plans[*fault as usize].on;
        Fault::ALL.iter().copied().filter(on)
    }

    /// The windows of a kind; empty if the week does not have it.
    pub(crate) fn windows(&self, fault: Fault) -> &[Window] {
        let plan = &self.plans[fault as usize];
        if plan.on { &plan.windows } else { &[] }
    }

    /// The intensity of a kind at this instant, in thousandths; 0 outside its windows.
    pub(crate) fn strength(&self, fault: Fault, now: Timestamp) -> i64 {
        let plan = &self.plans[fault as usize];
        if plan.on && plan.windows.iter().any(|window| window.contains(now)) {
            plan.intensity
        } else {
            0
        }
    }

    /// Whether a window of the kind ends after this instant, and has begun before it.
    pub(crate) fn was_on(&self, fault: Fault, since: Timestamp) -> bool {
        self.windows(fault).iter().any(|window| window.from <= since && since < window.to)
    }

    /// The first instant after this one at which a kind begins or ends; until then every strength stays as it is.
    pub(crate) fn next_edge(&self, now: Timestamp) -> Option<Timestamp> {
        let windows = self.plans.iter().filter(|plan| plan.on).flat_map(|plan| &plan.windows);
        windows.flat_map(|window| [window.from, window.to]).filter(|edge| *edge > now).min()
    }

    /// Draws whether the fault happens here, with a probability of `share` thousandths at full intensity, and counts it if so.
    /// Outside its windows nothing is drawn.
    pub(crate) fn inject(&mut self, fault: Fault, now: Timestamp, share: i64) -> bool {
        let strength = self.strength(fault, now);
        let happens = strength > 0 && self.chance(fault).between(0, 999_999) < share * strength;
        if happens {
            self.count(fault, 1);
        }
        happens
    }

    /// The random stream of a kind.
    pub(crate) fn chance(&mut self, fault: Fault) -> &mut Chance {
        &mut self.plans[fault as usize].chance
    }

    pub(crate) fn count(&mut self, fault: Fault, times: u64) {
        self.injected[fault as usize] += times;
    }

    /// How often each kind has happened.
    pub(crate) fn injected(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().map(|fault| (*fault, self.injected[*fault as usize]))
    }
}

impl Fault {
    fn draw_window(self, chance: &mut Chance, within: Window) -> Window {
        let span = (within.to - within.from).num_minutes().max(1);
        let (least, most) = match self {
            Self::LedgerDown | Self::QueueDown | Self::StoreDown => chance.pick(&OUTAGE_MINUTES),
            _ => WINDOW_MINUTES,
        };
        let lasts = chance.between(least, most).min(span);
        let from = within.from + TimeDelta::minutes(chance.between(0, span - lasts));
        Window { from, to: from + TimeDelta::minutes(lasts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_one_kind_out_does_not_change_the_others() {
        let begin = Timestamp::UNIX_EPOCH;
        let within = Window { from: begin, to: begin + TimeDelta::days(5) };
        for seed in 0..20 {
            let mut all = Faults::draw(seed, within, None);
            let kinds: Vec<Fault> = all.kinds().collect();
            let Some((left_out, kept)) = kinds.split_first() else { continue };
            let only = kept.iter().copied().collect();
            let mut fewer = Faults::draw(seed, within, Some(&only));
            assert!(fewer.windows(*left_out).is_empty());
            for fault in kept {
                assert_eq!(all.windows(*fault), fewer.windows(*fault));
                let at = all.windows(*fault)[0].from;
                let drawn = |faults: &mut Faults| {
                    (0..9).map(|_| faults.inject(*fault, at, 500)).collect::<Vec<_>>()
                };
                assert_eq!(drawn(&mut all), drawn(&mut fewer), "{fault}");
            }
            let last =
                Fault::ALL.iter().flat_map(|fault| all.windows(*fault)).map(|one| one.to).max();
            assert!(last.is_none_or(|last| last <= within.to));
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
