//! A WAV file in other forms.

use std::io::Cursor;

use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler};

/// What clients of OpenAI take raw samples to be; Opus knows it, too.
const RATE_HZ: u32 = 24_000;
/// Samples that the resampler takes at once.
const CHUNK_SAMPLES: usize = 1_024;
/// Samples of a packet: 20 ms.
const FRAME: usize = RATE_HZ as usize / 50;
/// Clear speech.
const BITS_PER_SECOND: i32 = 48_000;

/// Samples of 16 bits, the low byte first.
pub(super) fn to_pcm(wav: &[u8]) -> Result<Vec<u8>, String> {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
    let whole = |sample: f32| (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16;
    Ok(samples(wav)?.into_iter().flat_map(|sample| whole(sample).to_le_bytes()).collect())
}

/// Ogg with Opus, which ends exactly where the sound does.
pub(super) fn to_opus(wav: &[u8]) -> Result<Vec<u8>, String> {
    encode(&samples(wav)?).map_err(|error| error.to_string())
}

fn encode(samples: &[f32]) -> opus_pure::Result<Vec<u8>> {
    let rate = i32::try_from(RATE_HZ).unwrap_or_default();
    let mut encoder = OpusEncoder::new(rate, 1, Application::Audio)?;
    encoder.bitrate_bps = BITS_PER_SECOND;
    let head = OpusHead::for_encoder(&encoder, RATE_HZ);
    // Positions in Ogg count at 48 kHz. The encoder's delay is flushed by silence, and the last position leaves it out.
    let ticks = 48_000 / RATE_HZ as usize;
    let skipped = usize::from(head.pre_skip);
    let frames = (samples.len() + skipped.div_ceil(ticks)).div_ceil(FRAME).max(1);
    let end = (skipped + samples.len() * ticks) as u64;
    let mut file = Vec::new();
    let mut writer = OggOpusWriter::new(&mut file, head)?;
    let mut packet = vec![0; MAX_PACKET_BYTES];
    for index in 0..frames {
        let begin = (index * FRAME).min(samples.len());
        let mut block = samples[begin..(begin + FRAME).min(samples.len())].to_vec();
        block.resize(FRAME, 0.0);
        let length = encoder.encode(&block, FRAME, &mut packet)?;
        if index + 1 < frames {
            writer.write_packet(&packet[..length])?;
        } else {
            let left = end.saturating_sub(u64::try_from(writer.granule()).unwrap_or_default());
            let left = u32::try_from(left).unwrap_or_default();
            writer.write_packet_with_duration(&packet[..length], left)?;
        }
    }
    writer.finish()?;
    Ok(file)
}

/// The samples of the first channel at `RATE_HZ`.
fn samples(wav: &[u8]) -> Result<Vec<f32>, String> {
    let mut reader = hound::WavReader::new(Cursor::new(wav)).map_err(|error| error.to_string())?;
    let spec = reader.spec();
    let found: Result<Vec<i16>, _> =
        reader.samples::<i16>().step_by(usize::from(spec.channels.max(1))).collect();
    let found = found.map_err(|error| error.to_string())?;
    let found: Vec<f32> = found.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect();
    if spec.sample_rate == RATE_HZ || found.is_empty() {
        return Ok(found);
    }
    resampled(&found, spec.sample_rate)
}

fn resampled(found: &[f32], rate_hz: u32) -> Result<Vec<f32>, String> {
    let (from, to, length) = (rate_hz as usize, RATE_HZ as usize, found.len());
    let mut resampler = Fft::<f32>::new(from, to, CHUNK_SAMPLES, 1, FixedSync::Input)
        .map_err(|error| format!("{error:?}"))?;
    let mut output = vec![0.0; resampler.process_all_needed_output_len(length)];
    let room = output.len();
    let input = SequentialSlice::new(found, 1, length).map_err(|error| format!("{error:?}"))?;
    let mut target =
        SequentialSlice::new_mut(&mut output, 1, room).map_err(|error| format!("{error:?}"))?;
    let done = resampler.process_all_into_buffer(&input, &mut target, length, None);
    let (_, made) = done.map_err(|error| format!("{error:?}"))?;
    output.truncate(made);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of a tone of 440 Hz.
    fn tone(rate_hz: u32) -> Vec<u8> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: rate_hz,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for n in 0..rate_hz {
            let turn = f64::from(n) / f64::from(rate_hz) * 440.0 * std::f64::consts::TAU;
            #[expect(clippy::cast_possible_truncation, reason = "within 16 bits")]
            writer.write_sample((turn.sin() * 16_000.0) as i16).unwrap();
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    fn crossings(samples: &[i16]) -> usize {
        samples.windows(2).filter(|two| (two[0] < 0) != (two[1] < 0)).count()
    }

    #[test]
    fn raw_samples_are_as_long_and_as_high_whatever_the_rate_was() {
        for rate_hz in [16_000, 22_050, 24_000] {
            let pcm = to_pcm(&tone(rate_hz)).unwrap();
            let samples: Vec<i16> =
                pcm.chunks(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
            assert!(samples.len().abs_diff(24_000) <= 1, "{rate_hz}: {}", samples.len());
            let found = crossings(&samples);
            assert!((878..=882).contains(&found), "{rate_hz}: {found}");
        }
        assert!(to_pcm(b"no sound").is_err());
    }

    #[test]
    fn opus_is_decoded_to_the_same_tone_of_the_same_length() {
        let file = to_opus(&tone(22_050)).unwrap();
        let mut reader = opus_pure::OggOpusReader::new(Cursor::new(file)).unwrap();
        let mut decoder = reader.head().decoder(24_000).unwrap();
        let mut trim = opus_pure::Trim::new(reader.head(), 24_000, 1).unwrap();
        let mut block = vec![0.0_f32; opus_pure::MAX_PACKET_SAMPLES];
        let mut samples = Vec::new();
        for packet in reader.packets() {
            let packet = packet.unwrap();
            let made =
                decoder.decode(&packet.data, opus_pure::MAX_PACKET_SAMPLES, &mut block).unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "within 16 bits")]
            samples.extend(
                trim.keep(&packet, &block[..made]).iter().map(|one| (one * 32_767.0) as i16),
            );
        }
        assert!(samples.len().abs_diff(24_000) <= 1, "{}", samples.len());
        let found = crossings(&samples);
        assert!((860..=900).contains(&found), "{found}");
    }
}
