//! Generated demand, for users without a history and for tests: the same parameters give the same jobs on every machine.
//!
//! Random numbers come from ChaCha, whose output is stable across versions, and use integers only, since logarithms differ between
//! math libraries. A trace ends early at `ROWS_MAX` jobs or ten years.

use super::{Demand, Job, ROWS_MAX, TRACE_MS_MAX};
use crate::chance::Chance;

const DAY_MS: i64 = 86_400_000;

/// Jobs that arrive independently of each other, at the same rate day and night.
#[derive(Clone, Debug)]
pub struct Poisson {
    /// The length of the trace.
    pub span_ms: i64,
    /// The mean time between two arrivals.
    pub gap_mean_ms: i64,
    /// The mean service time, exponentially distributed.
    pub service_mean_ms: i64,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// Jobs that arrive independently of each other while an office is open, from Monday to Friday; time 0 is a Monday's midnight.
#[derive(Clone, Debug)]
pub struct OfficeHours {
    /// The length of the trace in weeks.
    pub weeks: u32,
    /// The times of day between which jobs arrive.
    pub open_ms: std::ops::Range<i64>,
    /// The mean time between two arrivals.
    pub gap_mean_ms: i64,
    /// The mean service time, exponentially distributed.
    pub service_mean_ms: i64,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// Bursts of jobs, with nothing in between.
#[derive(Clone, Debug)]
pub struct Bursts {
    /// The length of the trace.
    pub span_ms: i64,
    /// The mean time from the end of a burst to the next.
    pub quiet_mean_ms: i64,
    /// How many jobs a burst has.
    pub jobs: u32,
    /// The mean time between two arrivals in a burst.
    pub gap_mean_ms: i64,
    /// The mean service time, exponentially distributed.
    pub service_mean_ms: i64,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// The demand that `wanted` describes.
#[must_use]
pub fn poisson(wanted: &Poisson) -> Demand {
    let mut chance = Chance::seeded(wanted.seed);
    let mut at_ms = 0;
    take(wanted.span_ms, || {
        at_ms += chance.exponential_ms(wanted.gap_mean_ms);
        Job { at_ms, service_ms: chance.exponential_ms(wanted.service_mean_ms) }
    })
}

/// The demand that `wanted` describes; empty if its hours are empty or not within a day.
#[must_use]
pub fn office_hours(wanted: &OfficeHours) -> Demand {
    let mut chance = Chance::seeded(wanted.seed);
    let (begin_ms, end_ms) = (wanted.open_ms.start, wanted.open_ms.end);
    if !(0 <= begin_ms && begin_ms < end_ms && end_ms <= DAY_MS) {
        return Demand::default();
    }
    // Time runs only while the office is open.
    let mut open_ms = 0;
    take(i64::from(wanted.weeks) * 7 * DAY_MS, || {
        open_ms += chance.exponential_ms(wanted.gap_mean_ms);
        let (workday, since_begin_ms) =
            (open_ms / (end_ms - begin_ms), open_ms % (end_ms - begin_ms));
        let day = workday / 5 * 7 + workday % 5;
        let at_ms = day.saturating_mul(DAY_MS).saturating_add(begin_ms + since_begin_ms);
        Job { at_ms, service_ms: chance.exponential_ms(wanted.service_mean_ms) }
    })
}

/// The demand that `wanted` describes.
#[must_use]
pub fn bursts(wanted: &Bursts) -> Demand {
    let mut chance = Chance::seeded(wanted.seed);
    let (mut at_ms, mut left) = (0, 0);
    take(wanted.span_ms, || {
        let gap_mean_ms = if left == 0 { wanted.quiet_mean_ms } else { wanted.gap_mean_ms };
        left = if left == 0 { wanted.jobs.saturating_sub(1) } else { left - 1 };
        at_ms += chance.exponential_ms(gap_mean_ms);
        Job { at_ms, service_ms: chance.exponential_ms(wanted.service_mean_ms) }
    })
}

/// Jobs, in order of arrival, until the span is over.
fn take(span_ms: i64, next: impl FnMut() -> Job) -> Demand {
    let span_ms = span_ms.min(TRACE_MS_MAX);
    let jobs = std::iter::repeat_with(next).take_while(|job| job.at_ms < span_ms);
    Demand { jobs: jobs.take(ROWS_MAX).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn all(seed: u64) -> [Demand; 3] {
        let (span_ms, gap_mean_ms, service_mean_ms) = (28 * DAY_MS, 600_000, 3_000);
        let open_ms = 9 * HOUR_MS..19 * HOUR_MS;
        [
            poisson(&Poisson { span_ms, gap_mean_ms, service_mean_ms, seed }),
            office_hours(&OfficeHours { weeks: 4, open_ms, gap_mean_ms, service_mean_ms, seed }),
            bursts(&Bursts {
                span_ms,
                quiet_mean_ms: 4 * HOUR_MS,
                jobs: 25,
                gap_mean_ms: 1_000,
                service_mean_ms,
                seed,
            }),
        ]
    }

    #[test]
    fn a_seed_gives_the_same_jobs_on_every_machine() {
        let known = all(7).map(|demand| {
            let (count, first, hundredth) = (demand.jobs.len(), demand.jobs[0], demand.jobs[99]);
            (count, first.at_ms, first.service_ms, hundredth.at_ms)
        });
        let expected = [
            (4_075, 84_002, 6_213, 56_680_320),
            (1_279, 32_484_002, 6_213, 139_480_320),
            (4_175, 2_016_049, 6_213, 37_491_704),
        ];
        assert_eq!(known, expected);
        assert_ne!(all(7), all(8));
    }

    #[test]
    fn generated_demand_is_a_valid_trace() {
        for demand in all(1) {
            assert_eq!(Demand::new(demand.jobs().to_vec()), Ok(demand));
        }
    }

    #[test]
    fn jobs_come_only_while_the_office_is_open() {
        let [_, office, _] = all(3);
        for job in office.jobs() {
            let (day, hour) = (job.at_ms / DAY_MS, job.at_ms % DAY_MS / HOUR_MS);
            assert!(day % 7 < 5 && (9..19).contains(&hour), "day {day}, hour {hour}");
        }
    }

    #[test]
    fn absurd_parameters_give_a_finite_trace() {
        let poisson = |span_ms, gap_mean_ms| {
            poisson(&Poisson { span_ms, gap_mean_ms, service_mean_ms: i64::MAX, seed: 1 })
        };
        assert_eq!(poisson(1, 0).jobs().len(), ROWS_MAX);
        assert!(poisson(i64::MAX, i64::MAX).span_ms() <= TRACE_MS_MAX);
        assert_eq!(poisson(-1, 1).jobs(), []);
    }
}
