//! Priorities of jobs on one queue, and whose turn it is: higher ones first, and lower ones often enough that none waits for ever.

use std::fmt;
use std::str::FromStr;

/// How urgent a job is, compared with others of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// Of this many jobs that a queue gives out while several priorities wait, one is not of the highest.
pub const LOWER_EVERY: u64 = 8;

impl Priority {
    /// Every priority, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name on the command line and in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The order in which to look for the next job, after that number was given out: normal and low jobs take turns in coming first.
    #[must_use]
    pub fn order(given_out: u64) -> [Self; 3] {
        let (turn, round) = (given_out % LOWER_EVERY, given_out / LOWER_EVERY);
        match (turn == LOWER_EVERY - 1, round % 2) {
            (false, _) => [Self::High, Self::Normal, Self::Low],
            (true, 0) => [Self::Low, Self::Normal, Self::High],
            (true, _) => [Self::Normal, Self::Low, Self::High],
        }
    }

    /// How many jobs of each priority come next, `max` in all, by the number of each that waits.
    #[must_use]
    pub fn shares(given_out: u64, max: u32, mut waiting: [u32; 3]) -> [u32; 3] {
        let mut shares = [0; 3];
        for n in 0..u64::from(max) {
            let order = Self::order(given_out.wrapping_add(n));
            let Some(next) = order.into_iter().find(|one| waiting[*one as usize] > 0) else {
                break;
            };
            waiting[next as usize] -= 1;
            shares[next as usize] += 1;
        }
        shares
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not a priority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a priority (one of: high, normal, low)")]
pub struct PriorityError(String);

impl FromStr for Priority {
    type Err = PriorityError;
    fn from_str(text: &str) -> Result<Self, PriorityError> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| PriorityError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of each come, one at a time, while all three wait for ever.
    fn one_at_a_time(count: u64) -> [u32; 3] {
        let mut taken = [0; 3];
        for n in 0..count {
            taken[Priority::order(n)[0] as usize] += 1;
        }
        taken
    }

    #[test]
    fn no_priority_waits_for_ever_and_most_jobs_are_of_the_highest() {
        assert_eq!(one_at_a_time(16), [14, 1, 1]);
        assert_eq!(one_at_a_time(1_600), [1_400, 100, 100]);
    }

    #[test]
    fn a_batch_has_the_same_shares_as_one_job_after_the_other() {
        let mut total = [0; 3];
        let mut given_out = 0;
        for max in [1, 10, 3, 128, 7, 11] {
            let shares = Priority::shares(given_out, max, [1_000; 3]);
            assert_eq!(shares.iter().sum::<u32>(), max);
            (0..3).for_each(|n| total[n] += shares[n]);
            given_out += u64::from(max);
        }
        assert_eq!(total, one_at_a_time(given_out));
    }

    #[test]
    fn what_does_not_wait_leaves_its_turn_to_others() {
        assert_eq!(Priority::shares(0, 16, [100, 0, 100]), [14, 0, 2]);
        assert_eq!(Priority::shares(0, 16, [0, 100, 100]), [0, 15, 1]);
        assert_eq!(Priority::shares(7, 4, [1, 0, 2]), [1, 0, 2]);
        assert_eq!(Priority::shares(0, 4, [0; 3]), [0; 3]);
    }

    #[test]
    fn a_priority_is_read_by_its_name() {
        for priority in Priority::ALL {
            assert_eq!(priority.as_str().parse(), Ok(priority));
        }
        assert!("urgent".parse::<Priority>().is_err());
    }
}
