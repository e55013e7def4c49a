//! Scores outcomes in box time, dollars and waits, and against the cheapest schedule that keeps the wait limit.
//!
//! It replays nothing and knows no policy; `replay` gives it the outcomes, `bounds` the cheapest schedules.

use chrono::TimeDelta;
use gpuctl_core::units::{MicroUsd, nearest_rank};

use crate::bounds;
use crate::replay::Outcome;
use crate::trace::Demand;

/// How one policy did, over one trace or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// Time that boxes were up, boots included.
    pub box_time: TimeDelta,
    /// The part of it on spot.
    pub spot_time: TimeDelta,
    /// For each trace, box time over the bound, in thousandths; below 1,000 where jobs wait longer than the limit.
    pub ratios_permille: Vec<i64>,
    /// The price of the box time.
    pub usd: MicroUsd,
    /// How long the traces are together, on an always-on box.
    pub span: TimeDelta,
    /// How often a box was started.
    pub starts: u32,
    /// How long jobs waited: p50, p95, maximum.
    pub waits: [TimeDelta; 3],
    /// Jobs whose wait exceeds that on an always-on box by more than the limit.
    pub late_jobs: usize,
    /// Jobs that were never finished.
    pub jobs_lost: usize,
    /// How often a spot box was interrupted.
    pub interruptions: u32,
}

/// What the outcomes on one trace are compared with.
#[derive(Clone, Debug)]
pub struct Baseline {
    max_wait_ms: i64,
    bound_ms: i64,
    clairvoyant: Clairvoyant,
    span_ms: i64,
    /// How long each job would wait on an always-on box.
    always_on_waits_ms: Vec<i64>,
}

/// The least box time with knowledge of the future, under other constraints than the wait limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clairvoyant {
    /// The service time of the jobs alone: no policy can need less.
    pub service: TimeDelta,
    /// If a stopped box starts when a job arrives and stops whenever that is cheaper.
    pub same_start: TimeDelta,
    /// If no job waits for a boot.
    pub prewarm: TimeDelta,
}

impl Clairvoyant {
    fn new(demand: &Demand, boot_ms: i64) -> Self {
        let service_ms = demand.jobs().iter().map(|job| job.service_ms).sum();
        Self {
            service: TimeDelta::milliseconds(service_ms),
            same_start: TimeDelta::milliseconds(bounds::clairvoyant_same_start(demand, boot_ms)),
            prewarm: TimeDelta::milliseconds(bounds::prewarm(demand, boot_ms)),
        }
    }
}

impl std::iter::Sum for Clairvoyant {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            service: sum.service + one.service,
            same_start: sum.same_start + one.same_start,
            prewarm: sum.prewarm + one.prewarm,
        })
    }
}

impl Baseline {
    /// Computes the bounds of one trace.
    #[must_use]
    pub fn new(demand: &Demand, boot: TimeDelta, max_wait: TimeDelta) -> Self {
        let (boot_ms, max_wait_ms) = (boot.num_milliseconds(), max_wait.num_milliseconds());
        let always_on = bounds::always_on(demand);
        let waits = always_on.starts_ms.iter().zip(demand.jobs());
        Self {
            max_wait_ms,
            bound_ms: bounds::wait_limit(demand, boot_ms, max_wait_ms),
            clairvoyant: Clairvoyant::new(demand, boot_ms),
            span_ms: always_on.box_ms,
            always_on_waits_ms: waits.map(|(start_ms, job)| start_ms - job.at_ms).collect(),
        }
    }

    /// The least box time with which every job keeps the wait limit: `bounds::wait_limit`.
    #[must_use]
    pub fn bound(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.bound_ms)
    }

    /// The bounds with knowledge of the future.
    #[must_use]
    pub fn clairvoyant(&self) -> Clairvoyant {
        self.clairvoyant
    }

    /// From the start of the trace to the end of its last job on an always-on box.
    #[must_use]
    pub fn span(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.span_ms)
    }

    fn late_jobs(&self, outcome: &Outcome) -> usize {
        let late = |(wait, always_on): &(&Option<i64>, &i64)| {
            wait.is_none_or(|wait| wait > *always_on + self.max_wait_ms)
        };
        outcome.waits_ms.iter().zip(&self.always_on_waits_ms).filter(late).count()
    }
}

/// The score of one policy. `outcomes` has one outcome per baseline, in the same order; several rounds of them may follow each
/// other.
#[must_use]
pub fn score(baselines: &[Baseline], outcomes: &[Outcome]) -> Score {
    let sum = |of: fn(&Outcome) -> i64| outcomes.iter().map(of).sum::<i64>();
    let mut waits: Vec<i64> =
        outcomes.iter().flat_map(|one| one.waits_ms.iter().flatten()).copied().collect();
    waits.sort_unstable();
    let rank = |percent| TimeDelta::milliseconds(nearest_rank(&waits, percent).unwrap_or(0));
    let pairs = || baselines.iter().cycle().zip(outcomes);
    let usd = MicroUsd(sum(|one| one.usd.0));
    let span_ms: i64 = pairs().map(|(baseline, _)| baseline.span_ms).sum();
    Score {
        box_time: TimeDelta::milliseconds(sum(|one| one.box_ms)),
        spot_time: TimeDelta::milliseconds(sum(|one| one.spot_ms)),
        ratios_permille: pairs()
            .map(|(baseline, one)| scaled(one.box_ms, 1_000, baseline.bound_ms))
            .collect(),
        usd,
        span: TimeDelta::milliseconds(span_ms),
        starts: outcomes.iter().map(|one| one.starts).sum(),
        waits: [rank(50), rank(95), rank(100)],
        late_jobs: pairs().map(|(baseline, one)| baseline.late_jobs(one)).sum(),
        jobs_lost: outcomes
            .iter()
            .flat_map(|one| &one.waits_ms)
            .filter(|wait| wait.is_none())
            .count(),
        interruptions: outcomes.iter().map(|one| one.interruptions).sum(),
    }
}

fn scaled(value: i64, by: i64, over: i64) -> i64 {
    let product = i128::from(value) * i128::from(by) / i128::from(over.max(1));
    i64::try_from(product).unwrap_or(i64::MAX)
}
