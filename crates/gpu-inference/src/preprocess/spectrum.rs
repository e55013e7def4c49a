//! Spectra of sound and mel filters, as the models were trained on: each family names its own sizes.
//!
//! Only frames and filters are here: whether a recording is mirrored at its ends first, and which logarithm comes after,
//! differs between the families.

use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};

/// A short-time Fourier transform with a periodic Hann window.
pub(crate) struct Spectrum {
    transform: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    hop: usize,
}

/// How mel filters are spaced and weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MelScale {
    /// HTK's formula, and triangles of height 1.
    Htk,
    /// Slaney's: linear up to 1 kHz, and triangles of equal area.
    Slaney,
}

/// Triangular filters over the bins of a spectrum.
pub(crate) struct MelFilters {
    /// For each filter its first bin and the weights from there.
    filters: Vec<(usize, Vec<f32>)>,
}

impl Spectrum {
    /// Frames of `size` samples, `hop` apart; a window shorter than the frame lies in its middle.
    pub(crate) fn new(size: usize, window: usize, hop: usize) -> Self {
        let step = std::f64::consts::TAU / window as f64;
        #[expect(clippy::cast_possible_truncation, reason = "to f32")]
        let hann = (0..window).map(|i| (0.5 - 0.5 * (step * i as f64).cos()) as f32);
        let mut padded = vec![0.0; size];
        let begin = (size - window) / 2;
        padded[begin..begin + window].iter_mut().zip(hann).for_each(|(slot, value)| *slot = value);
        let transform = RealFftPlanner::new().plan_fft_forward(size);
        Self { transform, window: padded, hop }
    }

    /// Bins of a frame.
    pub(crate) fn bins(&self) -> usize {
        self.window.len() / 2 + 1
    }

    /// How many whole frames there are.
    pub(crate) fn count(&self, samples: usize) -> usize {
        samples.checked_sub(self.window.len()).map_or(0, |rest| rest / self.hop + 1)
    }

    /// Each whole frame's spectrum, one after the other.
    pub(crate) fn each(&self, samples: &[f32], mut see: impl FnMut(&[Complex32])) {
        let mut frame = self.transform.make_input_vec();
        let mut spectrum = self.transform.make_output_vec();
        for start in (0..self.count(samples.len())).map(|index| index * self.hop) {
            let window = &samples[start..start + frame.len()];
            for ((slot, sample), weight) in frame.iter_mut().zip(window).zip(&self.window) {
                *slot = sample * weight;
            }
            self.transform
                .process(&mut frame, &mut spectrum)
                .expect("the buffers have the transform's sizes");
            see(&spectrum);
        }
    }
}

impl MelFilters {
    /// `count` filters from 0 Hz to half of `rate_hz`, for frames of `size` samples.
    pub(crate) fn new(scale: MelScale, count: usize, size: usize, rate_hz: u32) -> Self {
        let top = scale.mel(f64::from(rate_hz) / 2.0);
        let corner = |i: usize| scale.hz(top * i as f64 / (count + 1) as f64);
        let bin_hz = f64::from(rate_hz) / size as f64;
        let filter = |index: usize| {
            let (low, middle, high) = (corner(index), corner(index + 1), corner(index + 2));
            let height = match scale {
                MelScale::Htk => 1.0,
                MelScale::Slaney => 2.0 / (high - low),
            };
            let weight = |bin: usize| {
                let hz = bin as f64 * bin_hz;
                let slope = ((hz - low) / (middle - low)).min((high - hz) / (high - middle));
                slope.max(0.0) * height
            };
            let first = (0..=size / 2).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
            let weights = (first..=size / 2).map(weight).take_while(|&weight| weight > 0.0);
            #[expect(clippy::cast_possible_truncation, reason = "to f32")]
            let weights = weights.map(|weight| weight as f32).collect();
            (first, weights)
        };
        Self { filters: (0..count).map(filter).collect() }
    }

    /// What passes each filter of a frame's power.
    pub(crate) fn apply(&self, power: &[f32]) -> impl Iterator<Item = f32> {
        self.filters.iter().map(|(first, weights)| {
            power[*first..].iter().zip(weights).map(|(power, weight)| power * weight).sum()
        })
    }
}

/// Hz to mel below the break of Slaney's scale, and where that break is.
const SLANEY_HZ: f64 = 200.0 / 3.0;
const SLANEY_BREAK_HZ: f64 = 1_000.0;

impl MelScale {
    fn mel(self, hz: f64) -> f64 {
        match self {
            Self::Htk => 2_595.0 * (1.0 + hz / 700.0).log10(),
            Self::Slaney if hz < SLANEY_BREAK_HZ => hz / SLANEY_HZ,
            Self::Slaney => {
                SLANEY_BREAK_HZ / SLANEY_HZ + (hz / SLANEY_BREAK_HZ).ln() / slaney_step()
            }
        }
    }

    fn hz(self, mel: f64) -> f64 {
        let broken = SLANEY_BREAK_HZ / SLANEY_HZ;
        match self {
            Self::Htk => 700.0 * (10_f64.powf(mel / 2_595.0) - 1.0),
            Self::Slaney if mel < broken => mel * SLANEY_HZ,
            Self::Slaney => SLANEY_BREAK_HZ * ((mel - broken) * slaney_step()).exp(),
        }
    }
}

/// 27 mels to a factor of 6.4.
fn slaney_step() -> f64 {
    6.4_f64.ln() / 27.0
}

/// The samples with their ends mirrored, `margin` on each side; the outermost sample itself is not repeated.
pub(crate) fn mirrored(samples: &[f32], margin: usize) -> Vec<f32> {
    let last = samples.len().saturating_sub(1);
    let at = |index: usize| samples.get(index.min(last)).copied().unwrap_or(0.0);
    let mut padded = Vec::with_capacity(samples.len() + 2 * margin);
    padded.extend((1..=margin).rev().map(at));
    padded.extend_from_slice(samples);
    padded.extend((1..=margin).map(|back| at(last.saturating_sub(back))));
    padded
}

/// The sound that the reference values below are of.
#[cfg(test)]
pub(crate) fn test_sound(samples: u16) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "to f32")]
    let wave = |i: u16| {
        let i = f64::from(i);
        (0.5 * (0.05 * i).sin() + 0.3 * (0.31 * i + 1.0).sin() + 0.1 * (1.7 * i).sin()) as f32
    };
    (0..samples).map(wave).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_mirrored_without_their_last_sample_also_of_a_short_sound() {
        assert_eq!(mirrored(&[1.0, 2.0, 3.0], 2), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]);
        assert_eq!(mirrored(&[1.0], 2), [1.0; 5]);
        assert_eq!(mirrored(&[], 1), [0.0, 0.0]);
    }

    /// librosa 0.11.0: `librosa.filters.mel(sr=16000, n_fft=512, n_mels=40, htk=True, norm=None)` and
    /// `librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)`.
    #[test]
    fn mel_filters_are_those_of_librosa() {
        let at = |filters: &MelFilters, filter: usize, bin: usize| {
            let (first, weights) = &filters.filters[filter];
            bin.checked_sub(*first).and_then(|bin| weights.get(bin)).copied().unwrap_or(0.0)
        };
        let htk = MelFilters::new(MelScale::Htk, 40, 512, 16_000);
        let slaney = MelFilters::new(MelScale::Slaney, 80, 400, 16_000);
        let expected = HTK_REFERENCE;
        for (filter, bin, weight) in expected {
            assert!((at(&htk, filter, bin) - weight).abs() < 1e-5, "{filter} {bin}");
        }
        for (filter, bin, weight) in SLANEY_REFERENCE {
            assert!((at(&slaney, filter, bin) - weight).abs() < 1e-6, "{filter} {bin}");
        }
    }

    const HTK_REFERENCE: [(usize, usize, f32); 8] = [
        (0, 1, 0.70424),
        (0, 2, 0.6158705),
        (5, 9, 0.4874126),
        (5, 11, 0.5079578),
        (20, 55, 0.1690371),
        (20, 60, 0.8128515),
        (39, 224, 0.01300447),
        (39, 240, 0.9640791),
    ];

    const SLANEY_REFERENCE: [(usize, usize, f32); 8] = [
        (1, 1, 0.001990822),
        (1, 2, 0.02287177),
        (10, 10, 0.01990822),
        (10, 11, 0.004954375),
        (40, 42, 0.005411105),
        (40, 43, 0.01473557),
        (79, 186, 0.0003667417),
        (79, 193, 0.003141313),
    ];
}
