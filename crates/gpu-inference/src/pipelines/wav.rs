//! Sound as a file: 16-bit PCM, mono. Reading is in `audio`.

use crate::output::{Output, OutputFile, Sound, TaskResult};
use std::io::Cursor;
use std::time::Duration;

use hound::{SampleFormat, WavSpec, WavWriter};

/// The name of the file in an output.
const FILE_NAME: &str = "speech.wav";

/// The output that is this sound. Samples beyond -1 and 1 are cut off.
pub(crate) fn output(samples: &[f32], rate_hz: u32) -> Output {
    let micros = samples.len() as u64 * 1_000_000 / u64::from(rate_hz);
    let result = TaskResult::Sound(Sound { length: Duration::from_micros(micros), rate_hz });
    let file = OutputFile {
        name: FILE_NAME.to_owned(),
        media_type: "audio/wav",
        bytes: encode(samples, rate_hz),
    };
    Output { files: vec![file], ..result.into() }
}

fn encode(samples: &[f32], rate_hz: u32) -> Vec<u8> {
    const FITS: &str = "memory takes every byte, and the spec is one that WAV has";
    let spec = WavSpec {
        channels: 1,
        sample_rate: rate_hz,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut bytes = Cursor::new(Vec::with_capacity(44 + samples.len() * 2));
    let mut writer = WavWriter::new(&mut bytes, spec).expect(FITS);
    for sample in samples {
        writer.write_sample(quantised(*sample)).expect(FITS);
    }
    writer.finalize().expect(FITS);
    bytes.into_inner()
}

/// NaN becomes silence.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn quantised(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_written_as_16_bit_pcm_and_cut_off_where_it_is_too_loud() {
        let output = output(&[0.0, 1.0, -2.0, f32::NAN, 0.5], 8_000);
        let mut reader = hound::WavReader::new(Cursor::new(&output.files[0].bytes)).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels), (8_000, 1));
        let read: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(read, [0, 32_767, -32_767, 0, 16_384]);
        let TaskResult::Sound(sound) = output.result else { panic!() };
        assert_eq!(sound, Sound { length: Duration::from_micros(625), rate_hz: 8_000 });
    }
}
