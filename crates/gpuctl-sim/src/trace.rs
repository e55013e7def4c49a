//! The inputs of a replay: the jobs that arrive, where spot capacity is available, and the spot price.
//!
//! A trace is checked once, when it is read (`read`) or generated (`generate`), and trusted from then on. What it costs to serve it
//! is for `bounds` and `replay` to say.

pub mod generate;
mod prices;
mod read;

use std::collections::BTreeMap;

use gpuctl_core::units::DURATION_SECONDS_MAX;

pub use prices::PriceHistory;
pub use read::{BYTES_MAX, LINE_BYTES_MAX, Problem, TraceError};

/// The most rows of one trace: a job every minute for nine years.
pub const ROWS_MAX: usize = 5_000_000;

/// The latest instant of a trace, and the longest job: ten years. With `ROWS_MAX`, no sum over a trace can overflow.
pub const TRACE_MS_MAX: i64 = DURATION_SECONDS_MAX * 1_000;

/// The jobs that arrive, in order of arrival. It may be empty; a file without jobs is invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    jobs: Vec<Job>,
}

/// A job of a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its arrival, since the start of the trace.
    pub at_ms: i64,
    /// How long it occupies a box; may be 0.
    pub service_ms: i64,
}

impl Demand {
    /// These jobs, which must be in order of arrival.
    ///
    /// # Errors
    /// At the first invalid job, with the line that it would have in a file.
    pub fn new(jobs: Vec<Job>) -> Result<Self, TraceError> {
        if jobs.len() > ROWS_MAX {
            return Err(TraceError { line: 1, problem: Problem::TooManyRows });
        }
        let mut last_ms = 0;
        for (line, job) in (2..).zip(&jobs) {
            job.check(&mut last_ms).map_err(|problem| TraceError { line, problem })?;
        }
        Ok(Self { jobs })
    }

    /// Reads `t_s,service_s`, plain or compressed by gzip; seconds may have decimals, of which three count.
    ///
    /// # Errors
    /// At the first line that cannot be read.
    pub fn read(bytes: &[u8]) -> Result<Self, TraceError> {
        let (mut jobs, mut last_ms) = (Vec::new(), 0);
        read::rows(bytes, ["t_s", "service_s"], |[at, service]| {
            let job = Job {
                at_ms: read::seconds("t_s", at)?,
                service_ms: read::seconds("service_s", service)?,
            };
            job.check(&mut last_ms)?;
            jobs.push(job);
            Ok(())
        })?;
        Ok(Self { jobs })
    }

    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// From the start of the trace to the last arrival.
    #[must_use]
    pub fn span_ms(&self) -> i64 {
        self.jobs.last().map_or(0, |job| job.at_ms)
    }

    /// The mean service time; 0 without jobs.
    #[must_use]
    pub fn mean_service_ms(&self) -> i64 {
        let jobs = i128::try_from(self.jobs.len()).unwrap_or(i128::MAX).max(1);
        let sum: i128 = self.jobs.iter().map(|job| i128::from(job.service_ms)).sum();
        i64::try_from(sum / jobs).unwrap_or(i64::MAX)
    }

    /// The first half of the time and the second, which counts its time from its own beginning. Either may be empty.
    #[must_use]
    pub fn split_half(&self) -> (Self, Self) {
        let half_ms = self.span_ms() / 2;
        let (first, second) = self.jobs.split_at(self.jobs.partition_point(|j| j.at_ms < half_ms));
        let moved = |job: &Job| Job { at_ms: job.at_ms - half_ms, ..*job };
        (Self { jobs: first.to_vec() }, Self { jobs: second.iter().map(moved).collect() })
    }
}

impl Job {
    /// Whether it can follow a job that arrived at `last_ms`, which becomes its own arrival.
    fn check(self, last_ms: &mut i64) -> Result<(), Problem> {
        read::check_instant(self.at_ms, last_ms)?;
        read::check_range("service_s", self.service_ms)
    }
}

/// In which zones spot capacity is available, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// By zone, the instants at which it changes; before the first there is no capacity.
    changes_ms: BTreeMap<String, Vec<i64>>,
}

impl Availability {
    /// Reads `t_s,zone,available`, plain or compressed by gzip; 1 is available, 0 is not, and rows that change nothing are fine.
    ///
    /// # Errors
    /// At the first line that cannot be read.
    pub fn read(bytes: &[u8]) -> Result<Self, TraceError> {
        let (mut availability, mut last_ms) = (Self::default(), 0);
        read::rows(bytes, ["t_s", "zone", "available"], |[at, zone, available]| {
            let at_ms = read::seconds("t_s", at)?;
            read::check_instant(at_ms, &mut last_ms)?;
            availability.set(at_ms, read::zone(zone)?, read::flag("available", available)?);
            Ok(())
        })?;
        Ok(availability)
    }

    /// The zones of the trace, by name.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        self.changes_ms.keys().map(String::as_str)
    }

    /// Whether spot capacity is available in this zone at this instant; `false` for an unknown zone.
    #[must_use]
    pub fn at(&self, zone: &str, ms: i64) -> bool {
        let (past, _) = self.split(zone, ms);
        is_available_after(past)
    }

    /// The first instant after `ms` at which the zone changes.
    #[must_use]
    pub fn next_change(&self, zone: &str, ms: i64) -> Option<i64> {
        let (_, ahead) = self.split(zone, ms);
        ahead.first().copied()
    }

    /// Adds the zones of another region; a zone of the same name is replaced.
    pub fn join(&mut self, other: Self) {
        self.changes_ms.extend(other.changes_ms);
    }

    /// When the last zone changes for the last time.
    #[must_use]
    pub fn span_ms(&self) -> i64 {
        self.changes_ms.values().filter_map(|changes| changes.last()).copied().max().unwrap_or(0)
    }

    /// The zone's changes until this instant, and those after it.
    fn split(&self, zone: &str, ms: i64) -> (&[i64], &[i64]) {
        let changes = self.changes_ms.get(zone).map_or(&[][..], Vec::as_slice);
        changes.split_at(changes.partition_point(|at_ms| *at_ms <= ms))
    }

    fn set(&mut self, at_ms: i64, zone: &str, available: bool) {
        let changes = self.changes_ms.entry(zone.to_owned()).or_default();
        if is_available_after(changes) == available {
            return;
        }
        // Two changes at one instant cancel out.
        if changes.pop_if(|last| *last == at_ms).is_none() {
            changes.push(at_ms);
        }
    }
}

/// Each change flips the state; the first makes the zone available.
fn is_available_after(changes: &[i64]) -> bool {
    !changes.len().is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(arrivals_ms: &[i64]) -> Demand {
        Demand::new(arrivals_ms.iter().map(|&at_ms| Job { at_ms, service_ms: 1 }).collect())
            .unwrap()
    }

    #[test]
    fn the_held_back_half_begins_in_the_middle_of_the_time() {
        let (first, second) = demand(&[0, 10, 49, 50, 51, 100]).split_half();
        assert_eq!(first, demand(&[0, 10, 49]));
        assert_eq!(second, demand(&[0, 1, 50]));
        assert_eq!(demand(&[]).split_half(), (demand(&[]), demand(&[])));
        assert_eq!(demand(&[7, 7]).split_half(), (demand(&[]), demand(&[4, 4])));
    }

    #[test]
    fn invalid_jobs_are_rejected_with_the_line_they_would_have() {
        let job = |at_ms, service_ms| Job { at_ms, service_ms };
        let cases = [
            (vec![job(5, 0), job(4, 0)], 3, Problem::Unsorted),
            (vec![job(-1, 0)], 2, Problem::Negative("t_s")),
            (vec![job(0, -1)], 2, Problem::Negative("service_s")),
            (vec![job(0, 0), job(TRACE_MS_MAX + 1, 0)], 3, Problem::TooLong("t_s")),
        ];
        for (jobs, line, problem) in cases {
            assert_eq!(Demand::new(jobs), Err(TraceError { line, problem }));
        }
    }

    #[test]
    fn a_zone_is_unavailable_until_its_first_change_and_then_keeps_its_state() {
        let text = "t_s,zone,available\n0,b,1\n1,a,0\n2,a,1\n2,b,1\n2.5,a,0\n2.5,a,1\n4,a,0\n";
        let seen = Availability::read(text.as_bytes()).unwrap();
        assert_eq!(seen.zones().collect::<Vec<_>>(), ["a", "b"]);
        let a = |ms| (seen.at("a", ms), seen.next_change("a", ms));
        assert_eq!([a(-1), a(1_000), a(1_999)], [(false, Some(2_000)); 3]);
        assert_eq!([a(2_000), a(2_500), a(3_999)], [(true, Some(4_000)); 3]);
        assert_eq!(a(4_000), (false, None));
        assert_eq!(
            (seen.at("b", -1), seen.at("b", 0), seen.next_change("b", 0)),
            (false, true, None)
        );
        assert_eq!((seen.at("c", 0), seen.next_change("c", 0)), (false, None));
    }
}
