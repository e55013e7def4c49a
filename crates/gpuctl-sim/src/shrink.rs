//! Shrinks a failure: fewer kinds of faults, jobs, boxes and hours, as long as the same guarantee is violated.
//!
//! Greedy, within `TRIES_MAX` weeks: the result is small, not minimal.

use std::collections::BTreeSet;

use gpuctl_core::policy::Problems;

use crate::checks::Guarantee;
use crate::faults::Fault;
use crate::world::scenario::{HOURS_MIN, Only, WEEK_HOURS};
use crate::world::week::{Week, run};

/// Maximum number of weeks that one search runs.
pub const TRIES_MAX: u32 = 150;

/// The smallest week found in which `guarantee` is still violated, starting with the week of `seed` under `only`.
///
/// # Errors
/// As `week::run`.
pub fn shrink(seed: u64, only: &Only, guarantee: Guarantee) -> Result<(Only, Week), Problems> {
    let mut search =
        Search { seed, guarantee, best: only.clone(), week: run(seed, only)?, tries: TRIES_MAX };
    search.drop_faults()?;
    search.drop_jobs()?;
    search.drop_boxes()?;
    search.drop_hours()?;
    search.drop_faults()?;
    Ok((search.best, search.week))
}

struct Search {
    seed: u64,
    guarantee: Guarantee,
    best: Only,
    week: Week,
    tries: u32,
}

impl Search {
    /// Runs a smaller week, and keeps it if the guarantee is still violated in it.
    fn try_smaller(&mut self, smaller: Only) -> Result<bool, Problems> {
        if self.tries == 0 || smaller == self.best {
            return Ok(false);
        }
        self.tries -= 1;
        let week = run(self.seed, &smaller)?;
        let same = week.violation.as_ref().is_some_and(|broken| broken.guarantee == self.guarantee);
        if same {
            (self.best, self.week) = (smaller, week);
        }
        Ok(same)
    }

    /// First those that never happened, then one by one.
    fn drop_faults(&mut self) -> Result<(), Problems> {
        let seen: BTreeSet<Fault> =
            self.week.faults.keys().filter_map(|name| name.parse().ok()).collect();
        self.try_smaller(Only { faults: Some(seen.clone()), ..self.best.clone() })?;
        let left = self.best.faults.clone().unwrap_or_else(|| Fault::ALL.iter().copied().collect());
        for fault in left {
            let mut fewer = self.best.faults.clone().unwrap_or_else(|| seen.clone());
            fewer.remove(&fault);
            self.try_smaller(Only { faults: Some(fewer), ..self.best.clone() })?;
        }
        Ok(())
    }

    fn drop_jobs(&mut self) -> Result<(), Problems> {
        let most = usize::try_from(self.week.jobs).unwrap_or(usize::MAX);
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.try_smaller(Only { jobs: Some(middle), ..self.best.clone() })? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(())
    }

    fn drop_boxes(&mut self) -> Result<(), Problems> {
        for boxes in 1..4 {
            if self.try_smaller(Only { boxes: Some(boxes), ..self.best.clone() })? {
                break;
            }
        }
        Ok(())
    }

    fn drop_hours(&mut self) -> Result<(), Problems> {
        for hours in (HOURS_MIN..WEEK_HOURS).step_by(12) {
            if self.try_smaller(Only { hours: Some(hours), ..self.best.clone() })? {
                break;
            }
        }
        Ok(())
    }
}

impl Only {
    /// The options of `gpuctl simulate --faults` that run this subset, each after a space.
    #[must_use]
    pub fn flags(&self) -> String {
        let names = |faults: &BTreeSet<Fault>| match faults.is_empty() {
            true => "none".to_owned(),
            false => faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(","),
        };
        let left_out: Vec<&str> = self.without.iter().map(|fix| fix.name()).collect();
        let left_out = (!left_out.is_empty()).then(|| left_out.join(","));
        let flags = [
            self.faults.as_ref().map(|faults| format!(" --only {}", names(faults))),
            self.hours.map(|hours| format!(" --hours {hours}")),
            self.boxes.map(|boxes| format!(" --boxes {boxes}")),
            self.jobs.map(|jobs| format!(" --jobs {jobs}")),
            left_out.map(|left_out| format!(" --without {left_out}")),
        ];
        flags.into_iter().flatten().collect()
    }
}
