//! Recordings: WAV, FLAC and MP3 to mono samples at the rate of a model.
//!
//! Decoding and resampling go packet by packet, so that memory holds the model's samples and no more, and a header
//! with a wrong length can neither exhaust memory nor make a cut file pass for a whole one. It finds no speech.

mod level;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler};
use symphonia::core::codecs::audio::well_known::{CODEC_ID_FLAC, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

use self::level::Loudness;
use super::Decoder;
use super::error::{InputError, InputLimits};
use crate::output::{AudioBasis, Basis, Remarks};
use crate::text;

/// The rate that the speech models are trained on.
pub(crate) const SAMPLE_RATE_HZ: u32 = 16_000;
/// What is accepted, in the words of the error.
const WANTED: &str = "a WAV, FLAC or MP3 recording";
/// Rates outside are rejected: telephone to high-resolution audio. A header's 4 GHz would need 32 GB of resampler.
const SOURCE_RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// Most that is read before the sound begins: tags with pictures.
const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Samples that the resampler takes at once.
const CHUNK_SAMPLES: usize = 4096;
/// The least of MPEG audio.
const MP3_BITS_PER_SECOND_MIN: u64 = 8_000;
/// MP3 encoders round their delay and padding; two MPEG frames.
const MP3_TOLERANCE_FRAMES: u64 = 2 * 1152;

/// A decoded recording.
#[derive(Debug, Clone)]
pub struct Audio {
    samples: Vec<f32>,
    rate_hz: u32,
}

impl Audio {
    /// Mono samples at [`Audio::rate_hz`].
    #[must_use]
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Its length.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.samples.len() as u64 * 1_000_000 / u64::from(self.rate_hz))
    }

    /// Samples a second.
    #[must_use]
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }
}

/// The time that a number of samples at [`SAMPLE_RATE_HZ`] takes.
pub(crate) fn duration_of(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(SAMPLE_RATE_HZ))
}

/// Decodes a recording to samples at `target_hz`. `path` is only named in errors.
pub(crate) fn decode(
    file: File,
    path: &Path,
    decoder: &Decoder,
    target_hz: u32,
    remarks: &mut Remarks,
) -> Result<Audio, InputError> {
    let Decoder { limits, cancel } = decoder;
    let mut source = Source::open(file, path)?;
    let rate_hz = source.rate_hz;
    let frames_max = u64::from(limits.audio_seconds_max) * u64::from(rate_hz);
    let too_long = |frames: u64| InputError::TooLong {
        path: path.to_owned(),
        seconds: frames / u64::from(rate_hz),
        seconds_max: limits.audio_seconds_max,
    };
    if let Some(frames) = source.expected_frames.filter(|&frames| frames > frames_max) {
        return Err(too_long(frames));
    }
    let mut resampled = Resampled::new([rate_hz, target_hz], path)?;
    let mut mono = Vec::new();
    let mut found_frames = 0;
    while source.next(&mut mono)? {
        cancel.check()?;
        found_frames += mono.len() as u64;
        if found_frames > frames_max {
            return Err(too_long(found_frames));
        }
        source.check_not_more(found_frames)?;
        resampled.push(&mono);
    }
    source.check_complete(found_frames)?;
    match resampled.finish() {
        samples if samples.is_empty() => Err(InputError::NoSamples { path: path.to_owned() }),
        samples => {
            let audio = Audio { samples, rate_hz: target_hz };
            source.describe(&audio, remarks);
            Ok(audio)
        }
    }
}

/// The most memory that the samples of a recording take, by its header, its size and the limits.
pub(crate) fn bytes_max(
    file: File,
    path: &Path,
    limits: &InputLimits,
    target_hz: u32,
) -> Result<u64, InputError> {
    let source = Source::open(file, path)?;
    let frames_max = u64::from(limits.audio_seconds_max) * u64::from(source.rate_hz);
    if source.expected_frames.is_some_and(|frames| frames > frames_max) {
        return Ok(0);
    }
    let frames = source.frames_max.min(frames_max) + CHUNK_SAMPLES as u64;
    let samples = frames * u64::from(target_hz) / u64::from(source.rate_hz);
    Ok(samples * size_of::<f32>() as u64)
}

/// A recording that is being decoded.
struct Source<'a> {
    path: &'a Path,
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track_id: u32,
    rate_hz: u32,
    /// Samples per channel that the header announces; none where it is silent or only guesses.
    expected_frames: Option<u64>,
    /// More frames cannot be in a file of this size, or must not by its header.
    frames_max: u64,
    /// By how much less may come.
    tolerance_frames: u64,
    /// The most of any packet.
    channels: usize,
    /// Tracks with sound.
    tracks: usize,
    interleaved: Vec<f32>,
    any_decoded: bool,
    /// What ended the stream early.
    failure: Option<SymphoniaError>,
}

impl<'a> Source<'a> {
    fn open(file: File, path: &'a Path) -> Result<Self, InputError> {
        let own = || path.to_owned();
        let unreadable = |source| InputError::Unreadable { path: own(), source };
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        let bytes_left = Arc::new(AtomicU64::new(HEADER_BYTES_MAX));
        let file = HeaderReader { file, file_bytes, bytes_left: Arc::clone(&bytes_left) };
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        let options = (FormatOptions::default(), MetadataOptions::default());
        let format = symphonia::default::get_probe()
            // No hint: the content decides, the extension may be anything.
            .probe(&Hint::new(), stream, options.0, options.1)
            .map_err(|error| probe_error(path, &error))?;
        bytes_left.store(u64::MAX, Ordering::Relaxed);
        let wrong_kind = || InputError::WrongKind { path: own(), wanted: WANTED };
        let track = format.default_track(TrackType::Audio).ok_or_else(wrong_kind)?;
        let codec = track.codec_params.as_ref().and_then(|params| params.audio());
        let codec = codec.ok_or_else(wrong_kind)?;
        let rate_hz = codec.sample_rate.unwrap_or(0);
        if !SOURCE_RATES_HZ.contains(&rate_hz) {
            let problem = format!("a sample rate of {rate_hz} Hz");
            return Err(InputError::Unsupported { path: own(), problem });
        }
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(codec, &AudioDecoderOptions::default())
            .map_err(|error| InputError::Unsupported {
                path: own(),
                problem: text::said(&error),
            })?;
        let (expected_frames, tolerance_frames) = announced_frames(track, codec);
        let frames_max = match codec.codec {
            CODEC_ID_MP3 => file_bytes * 8 * u64::from(rate_hz) / MP3_BITS_PER_SECOND_MIN,
            CODEC_ID_FLAC => expected_frames.unwrap_or(u64::MAX),
            // A frame of PCM has a byte at least.
            _ => expected_frames.unwrap_or(u64::MAX).min(file_bytes),
        };
        let is_sound = |track: &&Track| track.track_type() == Some(TrackType::Audio);
        let tracks = format.tracks().iter().filter(is_sound).count();
        Ok(Self {
            path,
            track_id: track.id,
            format,
            decoder,
            rate_hz,
            expected_frames,
            frames_max,
            tolerance_frames,
            channels: 0,
            tracks,
            interleaved: Vec::new(),
            any_decoded: false,
            failure: None,
        })
    }

    /// Puts the next packet's samples, mixed to one channel, into `mono`; false at the end.
    fn next(&mut self, mono: &mut Vec<f32>) -> Result<bool, InputError> {
        mono.clear();
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(false),
                Err(error) => {
                    self.failure = Some(error);
                    return Ok(false);
                }
            };
            if packet.track_id != self.track_id {
                continue;
            }
            match self.decoder.decode(&packet) {
                Ok(buffer) => {
                    let channels = buffer.spec().channels().count().max(1);
                    if buffer.spec().rate() != self.rate_hz {
                        return Err(self.damaged("the sample rate changes".to_owned()));
                    }
                    buffer.copy_to_vec_interleaved(&mut self.interleaved);
                    self.channels = self.channels.max(channels);
                    mix(&self.interleaved, channels, mono);
                    self.any_decoded = true;
                    return Ok(true);
                }
                // An MP3 cut out of a stream begins with frames that need earlier ones.
                Err(SymphoniaError::DecodeError(_)) if !self.any_decoded => {}
                Err(error) => return Err(of_symphonia(self.path, &error)),
            }
        }
    }

    /// A header that announces less than comes would let a file take more memory than was kept free for it.
    fn check_not_more(&self, found_frames: u64) -> Result<(), InputError> {
        let frames_max = self.frames_max;
        if found_frames <= frames_max {
            return Ok(());
        }
        Err(self.damaged(format!("it holds more than the {frames_max} frames of its header")))
    }

    /// Whether as much was decoded as the header announces.
    fn check_complete(&self, found_frames: u64) -> Result<(), InputError> {
        let path = self.path.to_owned();
        let failure = self.failure.as_ref().map(|error| of_symphonia(self.path, error));
        if let Some(unreadable @ InputError::Unreadable { .. }) = failure {
            return Err(unreadable);
        }
        match (self.expected_frames, &self.failure) {
            (Some(expected_frames), _)
                if found_frames.saturating_add(self.tolerance_frames) < expected_frames =>
            {
                Err(InputError::AudioTruncated { path, expected_frames, found_frames })
            }
            // The recording is complete; what follows is not sound, e.g. a tag.
            (Some(_), _) | (None, None) => Ok(()),
            // A stream of unknown length (its header says 2^32 - 1) ends where the file does.
            (None, Some(SymphoniaError::IoError(error)))
                if error.kind() == ErrorKind::UnexpectedEof =>
            {
                Ok(())
            }
            (None, Some(error)) => Err(of_symphonia(self.path, error)),
        }
    }

    /// What the decoded recording is like.
    fn describe(&self, audio: &Audio, remarks: &mut Remarks) {
        let loudness = Loudness::of(audio.samples(), audio.rate_hz());
        remarks.basis = Some(Basis::Audio(AudioBasis {
            decoded: audio.duration(),
            left_out: Duration::ZERO,
            peak: loudness.peak,
            level: loudness.level,
            channels: u32::try_from(self.channels).unwrap_or(u32::MAX),
            tracks: u32::try_from(self.tracks).unwrap_or(u32::MAX),
        }));
        loudness.remark(remarks);
    }

    fn damaged(&self, problem: String) -> InputError {
        InputError::Damaged { path: self.path.to_owned(), problem }
    }
}

/// A file of which only so much is read before the sound begins: tags may hold anything.
struct HeaderReader {
    file: File,
    file_bytes: u64,
    bytes_left: Arc<AtomicU64>,
}

impl Read for HeaderReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let left = self.bytes_left.load(Ordering::Relaxed);
        let left = left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("its header has more than {HEADER_BYTES_MAX} bytes"))
        })?;
        self.bytes_left.store(left, Ordering::Relaxed);
        Ok(read)
    }
}

impl Seek for HeaderReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl MediaSource for HeaderReader {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.file_bytes)
    }
}

/// Turns a stream of samples into one at another rate, with the resampler's delay cut off.
struct Resampled {
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
    fn new(rates_hz: [u32; 2], path: &Path) -> Result<Self, InputError> {
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

    fn push(&mut self, samples: &[f32]) {
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

    fn finish(mut self) -> Vec<f32> {
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

fn of_symphonia(path: &Path, error: &SymphoniaError) -> InputError {
    let io = match error {
        SymphoniaError::IoError(io) => Some(io),
        _ => None,
    };
    InputError::of_decoder(path, error, io)
}

fn probe_error(path: &Path, error: &SymphoniaError) -> InputError {
    match of_symphonia(path, error) {
        InputError::Damaged { .. } => {}
        unreadable => return unreadable,
    }
    let path = path.to_owned();
    match error {
        SymphoniaError::DecodeError(problem) => {
            InputError::Damaged { path, problem: (*problem).to_owned() }
        }
        SymphoniaError::IoError(error) if error.kind() == ErrorKind::Other => {
            InputError::Damaged { path, problem: text::said(error) }
        }
        SymphoniaError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            InputError::Damaged { path, problem: "it ends inside its header".to_owned() }
        }
        _ => InputError::WrongKind { path, wanted: WANTED },
    }
}

/// The frames that the header promises, and by how many it may be off.
fn announced_frames(track: &Track, codec: &AudioCodecParameters) -> (Option<u64>, u64) {
    if codec.codec != CODEC_ID_MP3 {
        return (track.num_frames, 0);
    }
    // Without an encoder's delay in the header, the number is a guess from the first frames' bit rate.
    (track.num_frames.filter(|_| track.delay.is_some()), MP3_TOLERANCE_FRAMES)
}

fn mix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    if channels == 1 {
        mono.extend_from_slice(interleaved);
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "channels are few")]
    let share = 1.0 / channels as f32;
    mono.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share));
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn channels_are_averaged() {
        let mut mono = Vec::new();
        mix(&[1.0, 0.0, 0.5, -0.5], 2, &mut mono);
        assert_eq!(mono, [0.5, 0.0]);
    }
}
