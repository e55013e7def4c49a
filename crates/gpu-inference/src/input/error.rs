//! Why an input cannot be used, and how large inputs may be.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use gpu_tasks::{Blame, Task};
use rustix::io::Errno;

use super::hints;
use super::kind::FileKind;
use crate::cancel::Cancelled;
use crate::text;

/// Longest recording by default: 4 hours, 0.9 GB as 16 kHz samples.
const AUDIO_SECONDS_MAX: u32 = 4 * 60 * 60;
/// Largest picture by default: 100 megapixels, 0.3 GB as RGB.
const IMAGE_PIXELS_MAX: u64 = 100_000_000;
/// Longest side of a picture by default: an A4 page at 2,500 dpi.
const IMAGE_SIDE_MAX: u32 = 30_000;
/// Longest text by default: some forty pages.
const TEXT_CHARS_MAX: usize = 100_000;
/// Largest file of bytes by default: tensors, and files of any kind to be classified.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The largest inputs that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputLimits {
    /// Longest recording.
    pub audio_seconds_max: u32,
    /// Most pixels of a picture.
    pub image_pixels_max: u64,
    /// Longest side of a picture.
    pub image_side_max: u32,
    /// Longest text.
    pub text_chars_max: usize,
    /// Largest file that is read as bytes.
    pub file_bytes_max: u64,
}

impl Default for InputLimits {
    fn default() -> Self {
        Self {
            audio_seconds_max: AUDIO_SECONDS_MAX,
            image_pixels_max: IMAGE_PIXELS_MAX,
            image_side_max: IMAGE_SIDE_MAX,
            text_chars_max: TEXT_CHARS_MAX,
            file_bytes_max: FILE_BYTES_MAX,
        }
    }
}

/// Whether a file cannot be read because of what its path names: that is so on every box. A broken disk or a full table of open files is
/// the machine's.
fn is_of_the_path(error: &io::Error) -> bool {
    use io::ErrorKind::{
        InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
    };
    matches!(
        error.kind(),
        NotFound | PermissionDenied | NotADirectory | IsADirectory | InvalidInput | InvalidFilename
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// The kernel's number of an error for which the machine is to blame. Without one it is the decoder's own, e.g. about an early end; and the kernel
/// refuses a place in a file that is beyond all counting, which only a file's header can ask for.
pub(crate) fn of_machine(error: &io::Error) -> Option<i32> {
    error.raw_os_error().filter(|&code| code != Errno::INVAL.raw_os_error())
}

impl InputError {
    /// What a decoder says about a file: damage, unless the machine could not read the file.
    pub(crate) fn of_decoder(path: &Path, error: &dyn Error, io: Option<&io::Error>) -> Self {
        let path = path.to_owned();
        match io.and_then(of_machine) {
            Some(code) => Self::Unreadable { path, source: io::Error::from_raw_os_error(code) },
            None => Self::Damaged { path, problem: text::said(error) },
        }
    }
}

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// There is no such file.
    #[error("there is no file {}", text::path(path))]
    Missing { path: PathBuf },
    /// The file cannot be read.
    #[error("cannot read {}", text::path(path))]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A folder.
    #[error("{} is a folder", text::path(path))]
    Folder { path: PathBuf },
    /// A pipe or device.
    #[error("{} is not a regular file", text::path(path))]
    NotAFile { path: PathBuf },
    /// The file has no bytes.
    #[error("{} is empty (0 bytes)", text::path(path))]
    Empty { path: PathBuf },
    /// The file is not of a kind that the task takes.
    #[error("{} is not {wanted}", text::path(path))]
    WrongKind { path: PathBuf, wanted: &'static str },
    /// The same, of a kind that is known by its first bytes.
    #[error("{} is {}, not {wanted}", text::path(path), found.name)]
    OtherKind { path: PathBuf, found: FileKind, wanted: &'static str },
    /// The right kind of file, but with a feature that is not supported.
    #[error("{} cannot be decoded: {problem}", text::path(path))]
    Unsupported { path: PathBuf, problem: String },
    /// The right kind of file, which only a program can read that is not installed.
    #[error("{} cannot be decoded without {program}: {problem}", text::path(path))]
    NeedsProgram { path: PathBuf, problem: String, program: &'static str },
    /// A recording ends before its header says.
    #[error(
        "{} is truncated: its header announces {expected_frames} frames, found {found_frames}",
        text::path(path)
    )]
    AudioTruncated {
        path: PathBuf,
        /// Samples per channel that the header announces.
        expected_frames: u64,
        /// Samples per channel that are there.
        found_frames: u64,
    },
    /// A recording ends before its file says, which does not count samples.
    #[error("{} is truncated: the recording's data ends too early", text::path(path))]
    RecordingTruncated { path: PathBuf },
    /// A picture ends before its last line.
    #[error("{} is truncated: the picture's data ends too early", text::path(path))]
    PictureTruncated { path: PathBuf },
    /// The content contradicts itself.
    #[error("{} is damaged: {problem}", text::path(path))]
    Damaged { path: PathBuf, problem: String },
    /// The decoder panicked.
    #[error("the decoder crashed on {}: {problem}", text::path(path))]
    Crash { path: PathBuf, problem: String },
    /// A recording is longer than allowed.
    #[error("{} is too long: {seconds} s or more, {seconds_max} s are allowed", text::path(path))]
    TooLong {
        path: PathBuf,
        /// Its length, as far as it is known.
        seconds: u64,
        seconds_max: u32,
    },
    /// A picture is larger than allowed.
    #[error(
        "{} is too large: {width} x {height} pixels, {pixels_max} in all and {side_max} a side are allowed",
        text::path(path)
    )]
    TooLarge {
        path: PathBuf,
        width: u32,
        height: u32,
        /// The limit of the area.
        pixels_max: u64,
        /// The limit of a side.
        side_max: u32,
    },
    /// A document has more pages than allowed, or they have more pixels.
    #[error(
        "{} is too large: {pages} pages of {pixels} pixels in all, {pages_max} and {pixels_max} are allowed",
        text::path(path)
    )]
    TooManyPages { path: PathBuf, pages: usize, pages_max: usize, pixels: u64, pixels_max: u64 },
    /// A text is longer than allowed.
    #[error("{} is too long: {chars_max} characters are allowed", text::path(path))]
    TextTooLong { path: PathBuf, chars_max: usize },
    /// A text of white space only.
    #[error("{} holds no text", text::path(path))]
    NoText { path: PathBuf },
    /// A file is larger than allowed.
    #[error("{} is too large: {bytes_max} bytes are allowed", text::path(path))]
    FileTooLarge { path: PathBuf, bytes_max: u64 },
    /// A recording without a single sample.
    #[error("{} holds no samples", text::path(path))]
    NoSamples { path: PathBuf },
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<Cancelled> for InputError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl InputError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "input.missing",
            Self::Unreadable { .. } => "input.unreadable",
            Self::Folder { .. } => "input.folder",
            Self::NotAFile { .. } => "input.not_a_file",
            Self::Empty { .. } => "input.empty",
            Self::WrongKind { .. } | Self::OtherKind { .. } => "input.wrong_kind",
            Self::Unsupported { .. } | Self::NeedsProgram { .. } => "input.unsupported",
            Self::AudioTruncated { .. }
            | Self::RecordingTruncated { .. }
            | Self::PictureTruncated { .. } => "input.truncated",
            Self::Damaged { .. } => "input.damaged",
            Self::Crash { .. } => "input.crash",
            Self::TooLong { .. } => "input.too_long",
            Self::TooLarge { .. } | Self::TooManyPages { .. } => "input.too_large",
            Self::NoSamples { .. } => "input.no_samples",
            Self::TextTooLong { .. } => "input.text_too_long",
            Self::NoText { .. } => "input.no_text",
            Self::FileTooLarge { .. } => "input.too_large",
            Self::Cancelled => "input.cancelled",
        }
    }

    /// Whose fault it is: the file's, except where the machine could not read it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unreadable { source, .. } if !is_of_the_path(source) => Blame::Box,
            Self::Cancelled => Blame::Box,
            _ => Blame::Input,
        }
    }

    /// What to do about it, of an input for this task.
    #[must_use]
    pub fn hint(&self, task: Task) -> &'static str {
        match self {
            Self::Missing { .. } => "check the job's input path",
            Self::Unreadable { .. } => "check the file's permissions and the disk",
            Self::Folder { .. } => "submit one job per file",
            Self::NotAFile { .. } => "write what it gives into a file, and submit that",
            Self::Empty { .. }
            | Self::AudioTruncated { .. }
            | Self::RecordingTruncated { .. }
            | Self::PictureTruncated { .. } => {
                "the upload or copy was probably cut off: submit the whole file"
            }
            Self::OtherKind { found, .. } => hints::for_kind(task, *found),
            Self::WrongKind { .. } => hints::for_unknown(task),
            Self::Unsupported { .. } => hints::for_unsupported(task),
            Self::Damaged { .. } => hints::for_damaged(task),
            Self::TooLong { .. } => {
                "cut the recording, or raise `audio_seconds_max` under [worker]"
            }
            Self::TooLarge { .. } => {
                "scale the picture down, or raise `image_pixels_max` under [worker]"
            }
            Self::NeedsProgram { program: "ffmpeg", .. } => {
                "install ffmpeg on the worker's machine, or convert the recording to WAV, FLAC or MP3"
            }
            Self::NeedsProgram { program: "heif-convert", .. } => {
                "`apt-get install libheif-examples` on the worker's machine, or submit the picture as PNG"
            }
            Self::NeedsProgram { .. } => {
                "`apt-get install poppler-utils` on the worker's machine, or submit the pages as PNG or TIFF"
            }
            Self::TooManyPages { .. } => "submit its pages in parts",
            Self::NoSamples { .. } => "check the program that recorded the file",
            Self::TextTooLong { .. } => "submit it in parts",
            Self::NoText { .. } => "write the text into the file",
            Self::FileTooLarge { .. } => hints::for_too_large(task),
            Self::Crash { .. } => hints::for_crash(task),
            Self::Cancelled => "the job was cancelled; another worker may have it",
        }
    }
}
