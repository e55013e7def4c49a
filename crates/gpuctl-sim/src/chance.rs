//! Random numbers that are the same on every machine: one ChaCha8 stream per purpose, so that draws of one do not shift the others.
//!
//! Integers only, since logarithms differ between math libraries.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::trace::TRACE_MS_MAX;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The stream of a seed for one purpose. The name selects the stream: renaming it changes every week.
    pub(crate) fn stream(seed: u64, name: &str) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        // FNV-1a: short names only have to land on different streams.
        let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        chance.set_stream(stream);
        Self(chance)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both included. The modulo bias is below 2^-30 for every range used here.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).max(0).unsigned_abs() + 1;
        low.saturating_add_unsigned(self.0.next_u64() % width)
    }

    /// Draws `true` with a probability of `share` in 1,000.
    pub(crate) fn permille(&mut self, share: i64) -> bool {
        self.between(0, 999) < share
    }

    /// Draws one of `from`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let last = i64::try_from(from.len()).unwrap_or(i64::MAX) - 1;
        from[usize::try_from(self.between(0, last)).unwrap_or(0)]
    }

    /// Draws an exponentially distributed time, at most `TRACE_MS_MAX`.
    ///
    /// By comparing uniform numbers only (von Neumann 1951): a run of falling numbers that begins with x has an odd length with
    /// probability e^-x. Then x is the fraction, and the runs that failed before are the whole part.
    pub(crate) fn exponential_ms(&mut self, mean_ms: i64) -> i64 {
        let mut whole: i128 = 0;
        loop {
            let first = self.0.next_u32();
            let (mut last, mut length_is_odd) = (first, true);
            loop {
                let next = self.0.next_u32();
                if next >= last {
                    break;
                }
                (last, length_is_odd) = (next, !length_is_odd);
            }
            if length_is_odd {
                let times_2_32 = (whole << 32) + i128::from(first);
                let ms = (i128::from(mean_ms.clamp(0, TRACE_MS_MAX)) * times_2_32) >> 32;
                return i64::try_from(ms).map_or(TRACE_MS_MAX, |ms| ms.min(TRACE_MS_MAX));
            }
            whole += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_draw_apart_and_each_the_same_every_time() {
        let draw = |name| Chance::stream(7, name).bits();
        assert_eq!(draw("boots"), draw("boots"));
        assert_ne!(draw("boots"), draw("lag"));
    }

    #[test]
    fn times_have_the_mean_and_the_spread_of_the_exponential_distribution() {
        let mut chance = Chance::seeded(1);
        let drawn: Vec<_> = (0..100_000).map(|_| chance.exponential_ms(1_000)).collect();
        let mean = drawn.iter().sum::<i64>() / 100_000;
        assert!((990..=1_010).contains(&mean), "{mean}");
        // e^-1 and e^-3 of them are longer than one mean and three.
        for (limit_ms, expected) in [(1_000, 36_788), (3_000, 4_979)] {
            let longer = drawn.iter().filter(|ms| **ms > limit_ms).count();
            assert!(longer.abs_diff(expected) < 500, "{longer} above {limit_ms}");
        }
    }
}
