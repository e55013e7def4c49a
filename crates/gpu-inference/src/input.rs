//! A job's input file, decoded: the CPU work before a model sees it.
//!
//! Every way in which a customer's file can be wrong ends here in a named error, before it costs memory or GPU time.
//! Decoding itself is in `audio` and `picture`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::audio::{self, Audio};
use crate::picture::{self, Picture};
use crate::pipelines::ocr;
use crate::task::Task;

/// Longest recording by default: 4 hours, 0.9 GB as 16 kHz samples.
pub const AUDIO_SECONDS_MAX: u32 = 4 * 60 * 60;
/// Largest picture by default: 100 megapixels, 0.3 GB as RGB.
pub const IMAGE_PIXELS_MAX: u64 = 100_000_000;
/// Longest side of a picture by default: an A4 page at 2,500 dpi.
pub const IMAGE_SIDE_MAX: u32 = 30_000;
/// Shape buckets of audio: pieces are cut from it anyway, so this only keeps long files from short ones.
const AUDIO_BUCKET_SECONDS: u64 = 30;

/// The largest inputs that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputLimits {
    /// Longest recording.
    pub audio_seconds_max: u32,
    /// Most pixels of a picture.
    pub image_pixels_max: u64,
    /// Longest side of a picture.
    pub image_side_max: u32,
}

impl Default for InputLimits {
    fn default() -> Self {
        Self {
            audio_seconds_max: AUDIO_SECONDS_MAX,
            image_pixels_max: IMAGE_PIXELS_MAX,
            image_side_max: IMAGE_SIDE_MAX,
        }
    }
}

/// A decoded input.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// A recording.
    Audio(Audio),
    /// A picture.
    Picture(Picture),
}

impl Prepared {
    /// Inputs of one bucket can share a batch without one waiting for or padding the other.
    #[must_use]
    pub fn shape_bucket(&self) -> u64 {
        match self {
            Self::Audio(audio) => audio.duration().as_secs() / AUDIO_BUCKET_SECONDS,
            Self::Picture(picture) => {
                let (width, height) = ocr::detection_size(picture.rgb().dimensions());
                u64::from(width) << 32 | u64::from(height)
            }
        }
    }

    /// How much work it is: samples or pixels.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Self::Audio(audio) => audio.samples().len() as u64,
            Self::Picture(picture) => {
                u64::from(picture.rgb().width()) * u64::from(picture.rgb().height())
            }
        }
    }
}

/// Decodes a job's input. Needs no model and no GPU, so it can run while another batch does.
///
/// # Errors
/// The file is missing, no regular file, empty, of another kind, damaged, cut short, or beyond the limits.
pub fn decode(task: Task, path: &Path, limits: &InputLimits) -> Result<Prepared, InputError> {
    let file = open(path)?;
    match task {
        Task::VoiceTranscribe => audio::decode(file, path, limits).map(Prepared::Audio),
        Task::VisionOcr => picture::decode(file, path, limits).map(Prepared::Picture),
    }
}

/// Why an input cannot be used. Every variant is about the file, so trying again gives the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// There is no such file.
    #[error("no file {}", path.display())]
    Missing {
        /// The input.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The input.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder, pipe or device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The input.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("{} is empty (0 bytes)", path.display())]
    Empty {
        /// The input.
        path: PathBuf,
    },
    /// The file is of no kind that can be decoded.
    #[error("{} is not {wanted}", path.display())]
    WrongKind {
        /// The input.
        path: PathBuf,
        /// The kinds that can be decoded.
        wanted: &'static str,
    },
    /// The right kind of file, but with a feature that is not supported.
    #[error("{} cannot be decoded: {problem}", path.display())]
    Unsupported {
        /// The input.
        path: PathBuf,
        /// The feature.
        problem: String,
    },
    /// A recording ends before its header says.
    #[error("{} is truncated: its header announces {expected_frames} frames, found {found_frames}", path.display())]
    AudioTruncated {
        /// The input.
        path: PathBuf,
        /// Samples per channel that the header announces.
        expected_frames: u64,
        /// Samples per channel that are there.
        found_frames: u64,
    },
    /// A picture ends before its last line.
    #[error("{} is truncated: the picture's data ends too early", path.display())]
    PictureTruncated {
        /// The input.
        path: PathBuf,
    },
    /// The content contradicts itself.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The input.
        path: PathBuf,
        /// What the decoder said.
        problem: String,
    },
    /// A recording is longer than allowed.
    #[error("{} is too long: {seconds} s or more, {seconds_max} s are allowed", path.display())]
    TooLong {
        /// The input.
        path: PathBuf,
        /// Its length, as far as it is known.
        seconds: u64,
        /// The limit.
        seconds_max: u32,
    },
    /// A picture is larger than allowed.
    #[error("{} is too large: {width} x {height} pixels, {pixels_max} in all and {side_max} a side are allowed", path.display())]
    TooLarge {
        /// The input.
        path: PathBuf,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The limit of the area.
        pixels_max: u64,
        /// The limit of a side.
        side_max: u32,
    },
    /// A recording without a single sample.
    #[error("{} holds no samples", path.display())]
    NoSamples {
        /// The input.
        path: PathBuf,
    },
}

impl InputError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "input.missing",
            Self::Unreadable { .. } => "input.unreadable",
            Self::NotAFile { .. } => "input.not_a_file",
            Self::Empty { .. } => "input.empty",
            Self::WrongKind { .. } => "input.wrong_kind",
            Self::Unsupported { .. } => "input.unsupported",
            Self::AudioTruncated { .. } | Self::PictureTruncated { .. } => "input.truncated",
            Self::Damaged { .. } => "input.damaged",
            Self::TooLong { .. } => "input.too_long",
            Self::TooLarge { .. } => "input.too_large",
            Self::NoSamples { .. } => "input.no_samples",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "check the job's input path",
            Self::Unreadable { .. } => "check the file's permissions and the disk",
            Self::NotAFile { .. } => "submit one job per file",
            Self::Empty { .. } | Self::AudioTruncated { .. } | Self::PictureTruncated { .. } => {
                "the upload or copy was probably cut off: submit the whole file"
            }
            Self::WrongKind { .. } | Self::Unsupported { .. } => {
                "convert it, e.g. with ffmpeg, to 16-bit WAV or to PNG"
            }
            Self::Damaged { .. } => "check that another program can open the file",
            Self::TooLong { .. } => "cut the recording, or raise the limit",
            Self::TooLarge { .. } => "scale the picture down, or raise the limit",
            Self::NoSamples { .. } => "check the program that recorded the file",
        }
    }
}

/// Opens a regular, non-empty file.
fn open(path: &Path) -> Result<File, InputError> {
    let own = || path.to_owned();
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            InputError::Missing { path: own() }
        }
        _ => InputError::Unreadable { path: own(), source },
    };
    // Asked before opening: to open a named pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(InputError::NotAFile { path: own() });
    }
    if metadata.len() == 0 {
        return Err(InputError::Empty { path: own() });
    }
    File::open(path).map_err(unreadable)
}
