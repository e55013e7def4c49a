//! What a recording's file is, and its sound packet by packet.
//!
//! The content decides, the name may be anything. Plain samples are read by `pcm`, MPEG frames by `mpeg`, all else by `container`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::container::{self, Container};
use super::mpeg::{self, MpegStream};
use super::pcm::PcmStream;
use super::wave::{self, Coded, HeaderError, Layout, Next};
use super::{external, flac, joined, matroska};
use crate::input::error::InputError;

/// What is accepted, in the words of the error.
pub(super) const WANTED: &str =
    "a recording (WAV, MP3, FLAC, Ogg, Opus, WebM, Matroska, MP4, M4A, AAC, AIFF, CAF or AU)";
/// Rates outside are rejected: telephone to high-resolution audio. A header's 4 GHz would need 32 GB of resampler.
const SOURCE_RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// The most channels of a recording.
const CHANNELS_MAX: usize = 256;

/// Some samples of a recording.
#[derive(Debug, Default)]
pub(super) struct Packet {
    /// A sample of each channel in turn.
    pub(super) interleaved: Vec<f32>,
    pub(super) channels: usize,
    pub(super) rate_hz: u32,
}

impl Packet {
    /// Empties it for samples of this kind.
    pub(super) fn start(&mut self, rate_hz: u32, channels: usize) {
        self.interleaved.clear();
        (self.rate_hz, self.channels) = (rate_hz, channels);
    }

    /// Samples of each channel.
    pub(super) fn frames(&self) -> usize {
        self.interleaved.len() / self.channels.max(1)
    }

    /// Drops frames in front, and keeps a number of the rest.
    pub(super) fn keep(&mut self, dropped: u64, kept: u64) {
        let samples = |frames: u64| {
            usize::try_from(frames).unwrap_or(usize::MAX).saturating_mul(self.channels)
        };
        let front = samples(dropped).min(self.interleaved.len());
        let length = samples(kept);
        self.interleaved.drain(..front);
        self.interleaved.truncate(length);
    }
}

/// A recording that is being decoded.
pub(super) trait Stream {
    /// Puts the next samples into `packet`; false at the end. A packet may be empty.
    fn next(&mut self, packet: &mut Packet) -> Result<bool, InputError>;

    /// More than this cannot be in a file of its size.
    fn length_max(&self) -> Duration;

    /// Its length, where the header says it and the file bears it out.
    fn announced(&self) -> Option<Duration>;

    /// Tracks with sound.
    fn tracks(&self) -> usize {
        1
    }

    /// What could not be decoded so far.
    fn left_out(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the file ends within a part of it, which is missing then.
    fn lacks_end(&self) -> bool {
        false
    }

    /// What was decoded beyond the length that the header says.
    fn beyond(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether it was decoded to its end; called there.
    fn finish(&mut self) -> Result<(), InputError> {
        Ok(())
    }
}

/// A recording in a file.
pub(super) struct Source<'a> {
    pub(super) stream: Box<dyn Stream + 'a>,
    /// Where more sound begins in the file.
    pub(super) next: Option<Next>,
    /// What the file holds beyond what its header announces.
    pub(super) beyond: Duration,
}

impl<'a> Source<'a> {
    /// The sound that begins there: a recording, or a further part of one.
    pub(super) fn open(mut file: File, path: &'a Path, place: Next) -> Result<Self, InputError> {
        let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
        let of_header = |error| header_error(path, error);
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        let start = match place {
            Next::Recording(start) => start,
            Next::Chunk { at, start, coded } => {
                let layout = wave::chunk_layout(&mut file, file_bytes, (start, at), &coded);
                return Self::of_layout(file, path, layout.map_err(of_header)?);
            }
        };
        let start = mpeg::after_tags(&mut file, start, file_bytes).map_err(unreadable)?;
        let layout = wave::layout(&mut file, start, file_bytes).map_err(of_header)?;
        if let Some(layout) = layout {
            return Self::of_layout(file, path, layout);
        }
        if let Some(name) = external::known_kind(&mut file, start).map_err(unreadable)? {
            let problem = format!("it is {name}");
            return Err(InputError::Unsupported { path: path.to_owned(), problem });
        }
        let next = joined::next(&mut file, &(start..file_bytes)).map_err(unreadable)?;
        let data = start..next.unwrap_or(file_bytes);
        let next = next.map(Next::Recording);
        if let Some(parts) = flac::parts(&mut file, &data).map_err(unreadable)? {
            let container = Container::open(file, path, parts.header, parts.frames)?;
            let stream = Box::new(container.with_frames(parts.samples));
            return Ok(Self { stream, next, beyond: Duration::ZERO });
        }
        if let Some(parts) = matroska::parts(&mut file, &data).map_err(unreadable)? {
            let stream = Box::new(Container::matroska(file, path, parts, data.end)?);
            return Ok(Self { stream, next, beyond: Duration::ZERO });
        }
        let again = file.try_clone().map_err(unreadable)?;
        let is_container = container::is_known(&mut file, start).map_err(unreadable)?;
        let mpeg = if is_container { None } else { MpegStream::open(again, path, data.clone())? };
        let stream: Box<dyn Stream> = match mpeg {
            Some(mpeg) => Box::new(mpeg),
            None => Box::new(Container::open(file, path, Vec::new(), data)?),
        };
        Ok(Self { stream, next, beyond: Duration::ZERO })
    }

    fn of_layout(file: File, path: &'a Path, layout: Layout) -> Result<Self, InputError> {
        let Layout { coded, data, cut, beyond, next } = layout;
        let own = || path.to_owned();
        let further;
        let stream: Box<dyn Stream> = match coded {
            Coded::Pcm(format) => {
                check(path, format.rate_hz, format.channels)?;
                let frame = format.frame_bytes() as u64;
                if let Some(bytes) = cut {
                    return Err(InputError::AudioTruncated {
                        path: own(),
                        expected_frames: bytes / frame,
                        found_frames: data.end.saturating_sub(data.start) / frame,
                    });
                }
                further = time_of(beyond / frame, format.rate_hz);
                Box::new(PcmStream::open(file, path, format, &data)?)
            }
            Coded::Mpeg => match MpegStream::open(file, path, data.clone())? {
                Some(mpeg) => {
                    let share = Share { length: mpeg.length_max(), rate_hz: mpeg.rate_hz(), data };
                    if let Some(bytes) = cut {
                        return Err(share.truncated(path, bytes));
                    }
                    further = share.of(beyond);
                    Box::new(mpeg)
                }
                None => {
                    let problem = "its header says MP3, and it holds no frames of MP3".to_owned();
                    return Err(InputError::Damaged { path: own(), problem });
                }
            },
            Coded::Other { tag, description } => match container::wave_header(tag, &description) {
                Some(header) => {
                    let nibbles = Nibbles::of(&description);
                    if let Some(bytes) = cut {
                        return Err(nibbles.truncated(path, bytes, &data));
                    }
                    further = time_of(nibbles.frames(beyond), nibbles.rate_hz);
                    Box::new(Container::open(file, path, header, data)?)
                }
                None => {
                    let problem = format!("its codec is {}", container::wave_codec(tag));
                    return Err(InputError::Unsupported { path: own(), problem });
                }
            },
        };
        Ok(Self { stream, next, beyond: further })
    }
}

fn header_error(path: &Path, error: HeaderError) -> InputError {
    let path = path.to_owned();
    match error {
        HeaderError::Io(source) => InputError::Unreadable { path, source },
        HeaderError::Damaged(problem) => InputError::Damaged { path, problem },
        HeaderError::Unsupported(problem) => InputError::Unsupported { path, problem },
    }
}

/// Sound with two samples in a byte.
struct Nibbles {
    channels: u64,
    rate_hz: u32,
}

impl Nibbles {
    /// By its description in WAV.
    fn of(description: &[u8]) -> Self {
        let rate = description.get(4..8).and_then(|bytes| bytes.first_chunk().copied());
        Self {
            channels: description.get(2).map_or(1, |&channels| channels.max(1).into()),
            rate_hz: rate.map_or(0, u32::from_le_bytes),
        }
    }

    fn frames(&self, bytes: u64) -> u64 {
        2 * bytes / self.channels
    }

    /// The error of a recording whose header announces more bytes than there are.
    fn truncated(&self, path: &Path, announced: u64, data: &Range<u64>) -> InputError {
        InputError::AudioTruncated {
            path: path.to_owned(),
            expected_frames: self.frames(announced),
            found_frames: self.frames(data.end.saturating_sub(data.start)),
        }
    }
}

/// The length of coded sound, and the bytes that it takes: how long some of them last.
struct Share {
    length: Duration,
    rate_hz: u32,
    data: Range<u64>,
}

impl Share {
    fn of(&self, bytes: u64) -> Duration {
        let all = u128::from(self.data.end.saturating_sub(self.data.start)).max(1);
        let micros = self.length.as_micros() * u128::from(bytes) / all;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The error of a recording whose header announces more bytes.
    fn truncated(&self, path: &Path, announced: u64) -> InputError {
        let frames = |length: Duration| {
            let frames = length.as_micros() * u128::from(self.rate_hz) / 1_000_000;
            u64::try_from(frames).unwrap_or(u64::MAX)
        };
        InputError::AudioTruncated {
            path: path.to_owned(),
            expected_frames: frames(self.of(announced)),
            found_frames: frames(self.length),
        }
    }
}

/// Rejects what no recording has, and what would take too much memory.
pub(super) fn check(path: &Path, rate_hz: u32, channels: usize) -> Result<(), InputError> {
    if rate_hz == 0 {
        let problem = "its sample rate is 0 Hz".to_owned();
        return Err(InputError::Damaged { path: path.to_owned(), problem });
    }
    let problem = if !SOURCE_RATES_HZ.contains(&rate_hz) {
        format!("a sample rate of {rate_hz} Hz")
    } else if channels > CHANNELS_MAX {
        format!("{channels} channels, {CHANNELS_MAX} are allowed")
    } else {
        return Ok(());
    };
    Err(InputError::Unsupported { path: path.to_owned(), problem })
}

/// How long a number of frames takes.
pub(super) fn time_of(frames: u64, rate_hz: u32) -> Duration {
    let micros = u128::from(frames) * 1_000_000 / u128::from(rate_hz.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}
