//! How loud a recording is, and what to say where it is too quiet.

use gpu_tasks::WarningCode;

use crate::output::Remarks;

/// Below -66 dB nothing but the rounding of 16 bits is left.
const SILENCE_LEVEL_MAX: f32 = 0.0005;
/// Below -46 dB the speech models miss words: ordinary speech has -30 dB and more.
const QUIET_LEVEL_MAX: f32 = 0.005;
/// Blocks whose effective value is taken: a tenth of a second.
const BLOCKS_PER_SECOND: u32 = 10;

/// How loud a recording is; 1 is full scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loudness {
    /// The largest sample.
    pub(super) peak: f32,
    /// The effective value of the loudest block: unlike the peak, it is not that of a click.
    pub(super) level: f32,
}

impl Loudness {
    pub(super) fn of(samples: &[f32], rate_hz: u32) -> Self {
        let block = (rate_hz / BLOCKS_PER_SECOND).max(1) as usize;
        let peak = samples.iter().fold(0.0, |most: f32, sample| most.max(sample.abs()));
        let level = samples.chunks(block).map(|samples| effective(samples, block));
        Self { peak, level: level.fold(0.0, f32::max) }
    }

    /// Warns of a recording in which little can be heard.
    pub(super) fn remark(self, remarks: &mut Remarks) {
        let decibels = 20.0 * self.level.log10();
        if self.level == 0.0 {
            remarks.warn(WarningCode::AudioSilent, "all samples are zero");
        } else if self.level < SILENCE_LEVEL_MAX {
            let message = format!("nothing in it is louder than {decibels:.0} dB of full scale");
            remarks.warn(WarningCode::AudioSilent, message);
        } else if self.level < QUIET_LEVEL_MAX {
            let message = format!("its loudest moment has {decibels:.0} dB of full scale");
            remarks.warn(WarningCode::AudioQuiet, message);
        }
    }
}

/// The effective value; what a last block lacks counts as silence.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "to f32")]
fn effective(samples: &[f32], block: usize) -> f32 {
    let sum: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / block as f64).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_is_a_peak_and_no_level() {
        let mut samples = vec![0.001; 16_000];
        samples[5_000] = 1.0;
        let Loudness { peak, level } = Loudness::of(&samples, 16_000);
        assert!((peak - 1.0).abs() < 1e-6 && (0.001..0.03).contains(&level), "{peak} {level}");
        assert_eq!(Loudness::of(&[], 16_000), Loudness { peak: 0.0, level: 0.0 });
    }
}
