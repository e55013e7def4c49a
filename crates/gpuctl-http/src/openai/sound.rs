//! A WAV file in other forms.

use std::io::Cursor;

use flac_codec::encode::{FlacSampleWriter, Options};
use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead};
use oxideav_mp3::frame::ChannelMode;
use oxideav_mp3::stream_encoder::Mp3Encoder;
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
/// The most that MP3 has at this rate: below it this encoder is much worse than others.
const MP3_KBPS: u32 = 160;
/// Samples that an MP3 is behind its sound: without as many more its end is lost.
const MP3_DELAY: usize = 1_152;

/// Samples of 16 bits, the low byte first.
pub(super) fn to_pcm(wav: &[u8]) -> Result<Vec<u8>, String> {
    Ok(whole(&samples(wav)?).flat_map(i16::to_le_bytes).collect())
}

/// Samples of 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn whole(samples: &[f32]) -> impl Iterator<Item = i16> {
    samples.iter().map(|sample| (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16)
}

/// MP3, at a constant bit rate.
pub(super) fn to_mp3(wav: &[u8]) -> Result<Vec<u8>, String> {
    let mut samples: Vec<i16> = whole(&samples(wav)?).collect();
    samples.resize(samples.len() + MP3_DELAY, 0);
    let said = |error| format!("{error:?}");
    let mut encoder =
        Mp3Encoder::new(MP3_KBPS, RATE_HZ, ChannelMode::SingleChannel).map_err(said)?;
    encoder.push_samples(&samples).map_err(said)?;
    let mut file = Vec::new();
    encoder.finish(&mut file).map_err(said)?;
    Ok(file)
}

/// FLAC, of the samples as they are.
pub(super) fn to_flac(wav: &[u8]) -> Result<Vec<u8>, String> {
    let (rate_hz, found) = first_channel(wav)?;
    let mut samples: Vec<i32> = found.into_iter().map(i32::from).collect();
    // The encoder makes no file without one.
    if samples.is_empty() {
        samples.push(0);
    }
    let length = Some(samples.len() as u64);
    let mut file = Cursor::new(Vec::new());
    let said = |error: flac_codec::Error| error.to_string();
    let options = Options::default();
    let mut writer =
        FlacSampleWriter::new(&mut file, options, rate_hz, 16, 1, length).map_err(said)?;
    writer.write(&samples).map_err(said)?;
    writer.finalize().map_err(said)?;
    Ok(file.into_inner())
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
    let (rate_hz, found) = first_channel(wav)?;
    let found: Vec<f32> = found.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect();
    if rate_hz == RATE_HZ || found.is_empty() {
        return Ok(found);
    }
    resampled(&found, rate_hz)
}

/// The rate, and the samples of the first channel.
fn first_channel(wav: &[u8]) -> Result<(u32, Vec<i16>), String> {
    let mut reader = hound::WavReader::new(Cursor::new(wav)).map_err(|error| error.to_string())?;
    let spec = reader.spec();
    let found: Result<Vec<i16>, _> =
        reader.samples::<i16>().step_by(usize::from(spec.channels.max(1))).collect();
    Ok((spec.sample_rate, found.map_err(|error| error.to_string())?))
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
        let turn = |n| f64::from(n) / f64::from(rate_hz) * 440.0 * std::f64::consts::TAU;
        #[expect(clippy::cast_possible_truncation, reason = "within 16 bits")]
        wav(rate_hz, (0..rate_hz).map(|n| (turn(n).sin() * 16_000.0) as i16))
    }

    fn wav(rate_hz: u32, samples: impl Iterator<Item = i16>) -> Vec<u8> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: rate_hz,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        samples.for_each(|sample| writer.write_sample(sample).unwrap());
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

    /// What another decoder makes of the file: its rate and samples.
    fn decoded(file: Vec<u8>) -> (u32, Vec<i16>) {
        use symphonia::core::formats::{FormatOptions, TrackType};
        use symphonia::core::io::MediaSourceStream;
        use symphonia::core::meta::MetadataOptions;
        let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
        let (form, meta) = (FormatOptions::default(), MetadataOptions::default());
        let probe = symphonia::default::get_probe();
        let mut format = probe.probe(&Default::default(), stream, form, meta).unwrap();
        let track = format.default_track(TrackType::Audio).unwrap();
        let codec = track.codec_params.as_ref().unwrap().audio().unwrap().clone();
        let codecs = symphonia::default::get_codecs();
        let mut decoder = codecs.make_audio_decoder(&codec, &Default::default()).unwrap();
        let (mut samples, mut block) = (Vec::new(), Vec::<i16>::new());
        while let Some(packet) = format.next_packet().unwrap() {
            decoder.decode(&packet).unwrap().copy_to_vec_interleaved(&mut block);
            samples.extend_from_slice(&block);
        }
        (codec.sample_rate.unwrap(), samples)
    }

    #[test]
    fn mp3_is_decoded_to_the_same_tone_and_to_its_end() {
        for rate_hz in [16_000, 24_000] {
            let (rate, samples) = decoded(to_mp3(&tone(rate_hz)).unwrap());
            assert_eq!(rate, 24_000);
            // Whole frames of 24 ms, the first of which is silent.
            assert!((25_000..26_600).contains(&samples.len()), "{}", samples.len());
            let loud = |sample: &i16| sample.unsigned_abs() > 4_000;
            let begin = samples.iter().position(loud).unwrap();
            let end = samples.iter().rposition(loud).unwrap();
            assert!((end - begin).abs_diff(24_000) < 200, "{begin} to {end}");
            let sound = &samples[begin + 600..end - 600];
            let found = crossings(sound) * 24_000 / sound.len();
            assert!((878..=882).contains(&found), "{rate_hz}: {found}");
            // A tone of this height.
            let peak = f64::from(sound.iter().map(|sample| sample.unsigned_abs()).max().unwrap());
            let power: f64 = sound.iter().map(|sample| f64::from(*sample).powi(2)).sum();
            let mean = (power / sound.len() as f64).sqrt();
            assert!((peak / 16_000.0 - 1.0).abs() < 0.05, "{peak}");
            assert!((mean / (16_000.0 / 2.0_f64.sqrt()) - 1.0).abs() < 0.02, "{mean}");
        }
    }

    #[test]
    fn flac_is_decoded_to_the_very_samples() {
        for rate_hz in [16_000, 22_050] {
            let wav = tone(rate_hz);
            let (rate, samples) = decoded(to_flac(&wav).unwrap());
            assert_eq!((rate, samples), first_channel(&wav).unwrap());
        }
    }

    #[test]
    fn silence_noise_and_no_sound_have_a_file_in_each_format() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as u16).cast_signed()
        };
        let noise: Vec<i16> = (0..12_000).map(|_| noise()).collect();
        for samples in [vec![], vec![1_000], vec![0; 6_000], noise] {
            let wav = wav(24_000, samples.iter().copied());
            assert_eq!(to_pcm(&wav).unwrap().len(), samples.len() * 2);
            for convert in [to_mp3, to_flac, to_opus] {
                assert!(!convert(&wav).unwrap().is_empty(), "{} samples", samples.len());
            }
        }
    }
}
