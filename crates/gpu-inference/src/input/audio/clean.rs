//! Samples that cannot be sound: NaN, infinities, and what is far beyond full scale.

use gpu_tasks::WarningCode;

use super::source::Packet;
use crate::output::Remarks;

/// Recordings in floating point exceed full scale, which is 1, by some decibels; what is beyond this is in another scale, or damaged.
const SOUND_MAX: f32 = 4.0;
/// No scale is beyond that of 32-bit integers.
const NUMBER_MAX: f32 = 4.3e9;
/// Where these and one sample in a thousand are beyond, all are in another scale. Single ones are damage.
const SCALED_SHARE: u64 = 1_000;
const SCALED_SAMPLES: u64 = 10;
/// Full scale of 16, 24 and 32 bits.
const SCALES: [f32; 3] = [32_768.0, 8_388_608.0, 2_147_483_648.0];

/// What to do about samples beyond full scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Only count them: they may be another scale.
    #[default]
    Keep,
    /// They are damage.
    Silence,
}

/// What was found among the samples of a recording.
#[derive(Debug, Default)]
pub(super) struct Findings {
    frames: u64,
    samples: u64,
    /// Samples that were made silent.
    silenced: u64,
    /// Where the first of them is, in seconds.
    first_seconds: Option<f64>,
    /// Samples beyond full scale that are numbers.
    beyond: u64,
    peak: f32,
}

impl Findings {
    /// Makes NaN and infinities silent, and what would become one in a sum: one such value would spread over all that a model hears.
    pub(super) fn clean(&mut self, packet: &mut Packet, beyond: Beyond) {
        let limit = if beyond == Beyond::Silence { SOUND_MAX } else { NUMBER_MAX };
        let channels = packet.channels.max(1);
        for (index, sample) in packet.interleaved.iter_mut().enumerate() {
            let height = sample.abs();
            if height.is_finite() && height <= limit {
                self.beyond += u64::from(height > SOUND_MAX);
                self.peak = self.peak.max(height);
                continue;
            }
            *sample = 0.0;
            self.silenced += 1;
            let frame = self.frames + (index / channels) as u64;
            #[expect(clippy::cast_precision_loss, reason = "for a message")]
            self.first_seconds.get_or_insert(frame as f64 / f64::from(packet.rate_hz.max(1)));
        }
        self.samples += packet.interleaved.len() as u64;
        self.frames += packet.frames() as u64;
    }

    /// Whether no sample is left.
    pub(super) fn nothing_left(&self) -> bool {
        self.samples > 0 && self.silenced == self.samples
    }

    /// Whether samples are beyond full scale that can only be damage.
    pub(super) fn has_wild(&self) -> bool {
        self.beyond > 0 && !self.is_scaled()
    }

    fn is_scaled(&self) -> bool {
        self.beyond > SCALED_SAMPLES + self.samples / SCALED_SHARE
    }

    /// What the samples have to be divided by.
    pub(super) fn scale(&self) -> f32 {
        if !self.is_scaled() {
            return 1.0;
        }
        // Fewer bits are not in use: it is a gain.
        let known =
            SCALES.into_iter().find(|&scale| self.peak > 128.0 && self.peak <= scale * 1.01);
        known.unwrap_or(self.peak)
    }

    pub(super) fn remark(&self, remarks: &mut Remarks) {
        if self.silenced > 0 {
            let (silenced, first) = (self.silenced, self.first_seconds.unwrap_or(0.0));
            let message = format!(
                "samples that are not numbers, or far beyond full scale, were silenced: {silenced}, the first at {first:.3} s"
            );
            remarks.warn(WarningCode::AudioSamples, message);
        }
        if self.is_scaled() {
            let (peak, scale) = (self.peak, self.scale());
            let message = format!(
                "its samples go up to {peak:.0}, where 1 is full scale: they were divided by {scale:.0}"
            );
            remarks.warn(WarningCode::AudioScale, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(samples: &[f32], beyond: Beyond) -> (Vec<f32>, Findings) {
        let mut packet = Packet { interleaved: samples.to_vec(), channels: 1, rate_hz: 8_000 };
        let mut findings = Findings::default();
        findings.clean(&mut packet, beyond);
        (packet.interleaved, findings)
    }

    #[test]
    fn what_is_no_number_never_goes_on() {
        let bad = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
        let (kept, findings) = cleaned(&bad, Beyond::Keep);
        assert_eq!(kept, [0.0; 6]);
        assert!(findings.nothing_left());
        let (kept, findings) = cleaned(&[0.5, f32::NAN, f32::MIN_POSITIVE / 4.0], Beyond::Keep);
        assert_eq!(kept, [0.5, 0.0, f32::MIN_POSITIVE / 4.0]);
        assert_eq!((findings.silenced, findings.nothing_left(), findings.scale()), (1, false, 1.0));
    }

    #[test]
    fn one_sample_beyond_is_damage_and_many_are_another_scale() {
        let mut samples = vec![0.5; 5_000];
        samples[7] = 30_000.0;
        let (_, findings) = cleaned(&samples, Beyond::Keep);
        assert!(findings.has_wild());
        let (kept, findings) = cleaned(&samples, Beyond::Silence);
        assert_eq!((kept[7], findings.has_wild(), findings.silenced), (0.0, false, 1));
        for (peak, scale) in [
            (5.0, 5.0),
            (100.0, 100.0),
            (900.0, 32_768.0),
            (32_768.0, 32_768.0),
            (1e6, 8_388_608.0),
        ] {
            let (_, findings) = cleaned(&vec![peak; 100], Beyond::Keep);
            assert_eq!((findings.has_wild(), findings.scale()), (false, scale), "{peak}");
        }
        let (_, findings) = cleaned(&[3.9; 100], Beyond::Keep);
        assert_eq!((findings.beyond, findings.scale()), (0, 1.0), "ordinary overs stay");
    }
}
