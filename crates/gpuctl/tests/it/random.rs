//! A small generator, so that a failure can be repeated with its seed.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// With the seed in this variable, or this one; printed, so that a failure shows it.
    pub(crate) fn from_environment(variable: &str, seed: u64) -> Self {
        let wanted = std::env::var(variable).ok().and_then(|seed| seed.parse().ok());
        let seed = wanted.unwrap_or(seed);
        println!("{variable}={seed}");
        Self(seed)
    }

    /// A number below this bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// In a new order (Fisher, Yates).
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let chosen = usize::try_from(self.below(last as u64 + 1)).unwrap();
            all.swap(last, chosen);
        }
    }
}
