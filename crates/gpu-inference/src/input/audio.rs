//! Recordings to mono samples at the rate of a model.
//!
//! Decoding and resampling go packet by packet, so that memory holds the model's samples and no more, and a header with a wrong length can neither
//! exhaust memory nor make a cut file pass for a whole one. NaN and infinities end here. It finds no speech.

mod clean;
mod container;
pub(crate) mod external;
mod file_part;
mod flac;
mod joined;
mod level;
mod matroska;
mod mixing;
mod mp4;
mod mpeg;
mod ogg;
mod opus;
mod pcm;
mod resample;
mod source;
mod wave;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use gpu_tasks::WarningCode;

use self::clean::{Beyond, Findings};
use self::level::Loudness;
use self::mixing::{Mixing, Power};
use self::resample::{CHUNK_SAMPLES, Resampled};
use self::source::{Packet, Source, time_of};
use self::wave::Next;
use super::Decoder;
use super::error::{InputError, InputLimits};
use crate::output::{AudioBasis, Basis, Remarks};

/// The rate that the speech models are trained on.
pub(crate) const SAMPLE_RATE_HZ: u32 = 16_000;
/// Recordings in one file, and parts of one, one behind the other.
const RECORDINGS_MAX: usize = 10_000;
/// By how much a recording may be longer than its file should hold: the end of a last packet.
const LENGTH_SLACK: Duration = Duration::from_secs(1);

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
        time_of(self.samples.len() as u64, self.rate_hz)
    }

    /// Samples a second.
    #[must_use]
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }
}

/// The time that a number of samples at [`SAMPLE_RATE_HZ`] takes.
pub(crate) fn duration_of(samples: usize) -> Duration {
    time_of(samples as u64, SAMPLE_RATE_HZ)
}

/// Decodes a recording to samples at `target_hz`. `path` is only named in errors.
pub(crate) fn decode(
    file: &File,
    path: &Path,
    decoder: &Decoder,
    target_hz: u32,
    remarks: &mut Remarks,
) -> Result<Audio, InputError> {
    let problem = match decode_here(file, path, decoder, target_hz, remarks) {
        Err(InputError::Unsupported { problem, .. }) => problem,
        decoded => return decoded,
    };
    let seconds_max = decoder.limits.audio_seconds_max;
    let converted = external::convert(path, problem, seconds_max, &decoder.cancel)?;
    decode_here(converted.as_file(), path, decoder, target_hz, remarks)
}

fn decode_here(
    file: &File,
    path: &Path,
    decoder: &Decoder,
    target_hz: u32,
    remarks: &mut Remarks,
) -> Result<Audio, InputError> {
    let mut choice = Choice::default();
    let mut pass = Pass::run(file, path, decoder, target_hz, choice)?;
    // What the whole recording is like shows how its parts have to be taken: once or twice more, and only where the first way was wrong.
    while let Some(better) = pass.better(choice) {
        choice = better;
        drop(pass);
        pass = Pass::run(file, path, decoder, target_hz, choice)?;
    }
    pass.finish(path, choice, remarks)
}

/// The most memory that the samples of a recording take, by its header, its size and the limits.
pub(crate) fn bytes_max(
    file: File,
    path: &Path,
    limits: &InputLimits,
    target_hz: u32,
) -> Result<u64, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let file_bytes = file.metadata().map_err(unreadable)?.len();
    let limit = Duration::from_secs(limits.audio_seconds_max.into());
    let Source { stream, next, .. } = Source::open(file, path, Next::Recording(0))?;
    if stream.announced().is_some_and(|length| length > limit) {
        return Ok(0);
    }
    // A recording behind another is not looked at: its sound has a kilobyte a second at least.
    let further = next.map_or(0, |next| file_bytes.saturating_sub(next.at()));
    let length =
        stream.length_max().saturating_add(time_of(further, 1_000)).min(limit) + LENGTH_SLACK;
    let samples = length.as_micros() * u128::from(target_hz) / 1_000_000 + CHUNK_SAMPLES as u128;
    Ok(u64::try_from(samples).unwrap_or(u64::MAX).saturating_mul(size_of::<f32>() as u64))
}

/// How a recording's samples are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Choice {
    mixing: Mixing,
    beyond: Beyond,
}

/// One way through a file.
struct Pass<'a> {
    path: &'a Path,
    decoder: &'a Decoder,
    choice: Choice,
    output: Output,
    findings: Findings,
    power: Power,
    /// At the rates of the file.
    decoded: Duration,
    left_out: Duration,
    /// It ends within a part of the stream.
    lacks_end: bool,
    /// What the file holds beyond what its header announces.
    beyond: Duration,
    channels: usize,
    tracks: usize,
    /// Why a recording behind another could not be read.
    further: Option<InputError>,
}

impl<'a> Pass<'a> {
    fn run(
        file: &File,
        path: &'a Path,
        decoder: &'a Decoder,
        target_hz: u32,
        choice: Choice,
    ) -> Result<Self, InputError> {
        let mut pass = Self {
            path,
            decoder,
            choice,
            output: Output { target_hz, finished: Vec::new(), open: None },
            findings: Findings::default(),
            power: Power::default(),
            decoded: Duration::ZERO,
            left_out: Duration::ZERO,
            lacks_end: false,
            beyond: Duration::ZERO,
            channels: 0,
            tracks: 0,
            further: None,
        };
        let mut next = Some(Next::Recording(0));
        // A further part of the first recording is as needed as its beginning.
        let mut is_first = true;
        for _ in 0..RECORDINGS_MAX {
            let Some(place) = next else { break };
            is_first &= place.at() == 0 || matches!(place, Next::Chunk { .. });
            let file = file.try_clone();
            let file =
                file.map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
            match Source::open(file, path, place).and_then(|source| pass.add(source)) {
                Ok(behind) => next = behind,
                Err(
                    error @ (InputError::Cancelled
                    | InputError::TooLong { .. }
                    | InputError::Unreadable { .. }),
                ) => {
                    return Err(error);
                }
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    pass.further = Some(error);
                    break;
                }
            }
        }
        Ok(pass)
    }

    /// Adds a whole recording, or a part of one; returns where the next one in the file begins.
    fn add(&mut self, source: Source<'_>) -> Result<Option<Next>, InputError> {
        let Source { mut stream, next, beyond } = source;
        let length_max = stream.length_max().saturating_add(LENGTH_SLACK);
        let before = self.decoded;
        if let Some(length) = stream.announced() {
            self.check_limit(before.saturating_add(length))?;
        }
        let (mut packet, mut mono) = (Packet::default(), Vec::new());
        while stream.next(&mut packet)? {
            self.decoder.cancel.check()?;
            self.decoded += time_of(packet.frames() as u64, packet.rate_hz);
            self.check_limit(self.decoded)?;
            if self.decoded - before > length_max {
                let problem = "it holds more than a file of its size can".to_owned();
                return Err(InputError::Damaged { path: self.path.to_owned(), problem });
            }
            self.findings.clean(&mut packet, self.choice.beyond);
            mono.clear();
            self.choice.mixing.mix(&packet, &mut mono);
            self.power.add(&packet, &mono);
            self.channels = self.channels.max(packet.channels);
            self.output.push(&mono, packet.rate_hz, self.path)?;
        }
        stream.finish()?;
        self.left_out += stream.left_out();
        self.lacks_end |= stream.lacks_end();
        self.tracks = self.tracks.max(stream.tracks());
        self.beyond += beyond + stream.beyond();
        Ok(next)
    }

    fn check_limit(&self, length: Duration) -> Result<(), InputError> {
        let seconds_max = self.decoder.limits.audio_seconds_max;
        if length <= Duration::from_secs(seconds_max.into()) {
            return Ok(());
        }
        Err(InputError::TooLong {
            path: self.path.to_owned(),
            seconds: length.as_secs(),
            seconds_max,
        })
    }

    /// A better way to take the samples.
    fn better(&self, choice: Choice) -> Option<Choice> {
        let mut better = choice;
        if self.findings.has_wild() {
            better.beyond = Beyond::Silence;
        } else if choice.mixing == Mixing::Average
            && let Some(channel) = self.power.cancelled()
        {
            better.mixing = Mixing::Only(channel);
        }
        (better != choice).then_some(better)
    }

    /// The recording, with what is to be said of it.
    fn finish(
        self,
        path: &Path,
        choice: Choice,
        remarks: &mut Remarks,
    ) -> Result<Audio, InputError> {
        if self.findings.nothing_left() {
            let problem = "none of its samples is a number".to_owned();
            return Err(InputError::Damaged { path: path.to_owned(), problem });
        }
        let (scale, target_hz) = (self.findings.scale(), self.output.target_hz);
        let mut samples = self.output.finish();
        if samples.is_empty() {
            return Err(InputError::NoSamples { path: path.to_owned() });
        }
        if scale > 1.0 {
            samples.iter_mut().for_each(|sample| *sample /= scale);
        }
        let audio = Audio { samples, rate_hz: target_hz };
        let Loudness { peak, level } = Loudness::of(audio.samples(), target_hz);
        remarks.basis = Some(Basis::Audio(AudioBasis {
            decoded: audio.duration().saturating_sub(self.left_out),
            left_out: self.left_out,
            peak,
            level,
            channels: u32::try_from(self.channels).unwrap_or(u32::MAX),
            channel: match choice.mixing {
                Mixing::Only(channel) => u32::try_from(channel + 1).ok(),
                Mixing::Average => None,
            },
            tracks: u32::try_from(self.tracks).unwrap_or(u32::MAX),
        }));
        self.findings.remark(remarks);
        choice.mixing.remark(self.channels, remarks);
        Loudness { peak, level }.remark(remarks);
        remark_parts(&audio, self.left_out, self.further.as_ref(), remarks);
        if self.lacks_end {
            let message =
                "the file ends within a part of the recording, the rest of which is missing";
            remarks.warn(WarningCode::AudioDamaged, message.to_owned());
        }
        remark_header(self.beyond, self.tracks, remarks);
        Ok(audio)
    }
}

/// Warns of what could not be decoded.
fn remark_parts(
    audio: &Audio,
    left_out: Duration,
    further: Option<&InputError>,
    remarks: &mut Remarks,
) {
    if !left_out.is_zero() {
        let (lost, whole) = (left_out.as_secs_f64(), audio.duration().as_secs_f64());
        let message = format!("{lost:.2} s of {whole:.2} s could not be decoded and were left out");
        remarks.warn(WarningCode::AudioDamaged, message);
    }
    if let Some(error) = further {
        remarks.warn(
            WarningCode::AudioDamaged,
            format!("a further recording in the file was left out: {error}"),
        );
    }
}

/// Warns of what a header says that is not so, or not all.
fn remark_header(beyond: Duration, tracks: usize, remarks: &mut Remarks) {
    if !beyond.is_zero() {
        let message = format!(
            "{:.2} s follow what its header announces; they were used too",
            beyond.as_secs_f64()
        );
        remarks.warn(WarningCode::AudioLength, message);
    }
    if tracks > 1 {
        remarks.warn(
            WarningCode::AudioTracks,
            format!("it has {tracks} tracks with sound; the first was used"),
        );
    }
}

/// Samples at the target's rate, of a stream whose own rate may change.
struct Output {
    target_hz: u32,
    finished: Vec<f32>,
    /// With the rate of what goes into it.
    open: Option<(u32, Resampled)>,
}

impl Output {
    fn push(&mut self, mono: &[f32], rate_hz: u32, path: &Path) -> Result<(), InputError> {
        if mono.is_empty() {
            return Ok(());
        }
        match &mut self.open {
            Some((rate, open)) if *rate == rate_hz => open.push(mono),
            _ => {
                self.close();
                let mut opened = Resampled::new([rate_hz, self.target_hz], path)?;
                opened.push(mono);
                self.open = Some((rate_hz, opened));
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some((_, open)) = self.open.take() else { return };
        let samples = open.finish();
        if self.finished.is_empty() {
            self.finished = samples;
        } else {
            self.finished.extend(samples);
        }
    }

    fn finish(mut self) -> Vec<f32> {
        self.close();
        self.finished
    }
}
