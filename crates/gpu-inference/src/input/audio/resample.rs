//! From one rate to another.

use std::path::Path;

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler};

use crate::input::error::InputError;
use crate::text;

/// Samples that the resampler takes at once.
pub(super) const CHUNK_SAMPLES: usize = 4096;

/// Turns a stream of samples into one at another rate, with the resampler's delay cut off.
pub(super) struct Resampled {
    /// None: the rate is right already.
    resampler: Option<Fft<f32>>,
    waiting: Vec<f32>,
    chunk: Vec<f32>,
    output: Vec<f32>,
    pushed_samples: usize,
    /// From, and to.
    rates_hz: [u32; 2],
}

impl Resampled {
    pub(super) fn new(rates_hz: [u32; 2], path: &Path) -> Result<Self, InputError> {
        let [from, to] = rates_hz;
        let resampler = if from == to {
            None
        } else {
            let made = Fft::new(from as usize, to as usize, CHUNK_SAMPLES, 1, FixedSync::Input);
            Some(made.map_err(|error| InputError::Unsupported {
                path: path.to_owned(),
                problem: text::said(&error),
            })?)
        };
        let chunk = vec![0.0; resampler.as_ref().map_or(0, Resampler::output_frames_max)];
        let (waiting, output) = (Vec::new(), Vec::new());
        Ok(Self { resampler, waiting, chunk, output, pushed_samples: 0, rates_hz })
    }

    pub(super) fn push(&mut self, samples: &[f32]) {
        self.pushed_samples += samples.len();
        if self.resampler.is_none() {
            self.output.extend_from_slice(samples);
            return;
        }
        self.waiting.extend_from_slice(samples);
        let mut used = 0;
        while self.waiting.len() - used >= CHUNK_SAMPLES {
            used += self.convert(used);
        }
        self.waiting.drain(..used);
    }

    pub(super) fn finish(mut self) -> Vec<f32> {
        let Some(resampler) = &self.resampler else { return self.output };
        let delay = resampler.output_delay();
        let ratio = f64::from(self.rates_hz[1]) / f64::from(self.rates_hz[0]);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded up")]
        let length = (self.pushed_samples as f64 * ratio).ceil() as usize;
        // The last samples come out of the filter only when silence follows them.
        while self.output.len() < delay + length {
            self.convert(0);
            self.waiting.clear();
        }
        self.output.truncate(delay + length);
        self.output.drain(..delay);
        self.output
    }

    /// Converts one chunk of `waiting` from `start`; a short one is filled up with silence.
    fn convert(&mut self, start: usize) -> usize {
        const FITS: &str = "the buffers are as large as the resampler asks for";
        let resampler = self.resampler.as_mut().expect("called only with a resampler");
        let input = &self.waiting[start..];
        let needed = resampler.input_frames_next();
        let indexing = Indexing::new().partial_len(input.len().min(needed));
        let length = self.chunk.len();
        let source = SequentialSlice::new(input, 1, input.len()).expect(FITS);
        let mut target = SequentialSlice::new_mut(&mut self.chunk, 1, length).expect(FITS);
        let done = resampler.process_into_buffer(&source, &mut target, Some(&indexing));
        let (used, made) = done.expect(FITS);
        self.output.extend_from_slice(&self.chunk[..made]);
        used.min(input.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::audio::SAMPLE_RATE_HZ;

    #[expect(clippy::cast_possible_truncation, reason = "to f32")]
    fn tone(rate_hz: u32, tone_hz: f64, seconds: u32) -> Vec<f32> {
        let step = std::f64::consts::TAU * tone_hz / f64::from(rate_hz);
        (0..rate_hz * seconds).map(|i| (step * f64::from(i)).sin() as f32).collect()
    }

    fn resample(samples: &[f32], rate_hz: u32) -> Vec<f32> {
        let mut resampled = Resampled::new([rate_hz, SAMPLE_RATE_HZ], Path::new("x")).unwrap();
        for packet in samples.chunks(1152) {
            resampled.push(packet);
        }
        resampled.finish()
    }

    #[test]
    fn a_tone_keeps_its_place_and_height_at_every_source_rate() {
        let expected = tone(SAMPLE_RATE_HZ, 440.0, 1);
        for rate_hz in [8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 44_099] {
            let found = resample(&tone(rate_hz, 440.0, 1), rate_hz);
            assert_eq!(found.len(), expected.len(), "{rate_hz} Hz");
            let inner = 400..15_600;
            let error = inner.map(|i| (found[i] - expected[i]).abs()).fold(0.0, f32::max);
            // The delay is cut off in whole samples; half a sample of this tone is 0.086.
            assert!(error < 0.09, "{rate_hz} Hz: off by {error}");
        }
    }

    #[test]
    fn a_tone_above_half_the_rate_vanishes_instead_of_folding_down() {
        let found = resample(&tone(48_000, 12_000.0, 1), 48_000);
        let loudest = found[400..15_600].iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(loudest < 0.01, "{loudest}");
    }

    #[test]
    fn a_recording_shorter_than_a_chunk_is_kept() {
        assert_eq!(resample(&[0.5; 30], 48_000).len(), 10);
        assert!(resample(&[], 48_000).is_empty());
    }
}
