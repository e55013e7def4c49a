//! A job's input file, decoded: the CPU work before a model sees it.
//!
//! Every way in which a customer's file can be wrong ends here in a named error, before it costs memory or GPU time.
//! Decoding itself is in `audio` and `picture`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::audio::{self, Audio, SAMPLE_RATE_HZ};
use crate::picture::{self, Picture};
use crate::pipelines::ocr;
use crate::tensors::{self, Tensors};
use gpu_tasks::Task;
use gpu_tasks::{ParamKind, Params};

/// Longest recording by default: 4 hours, 0.9 GB as 16 kHz samples.
pub(crate) const AUDIO_SECONDS_MAX: u32 = 4 * 60 * 60;
/// Largest picture by default: 100 megapixels, 0.3 GB as RGB.
pub(crate) const IMAGE_PIXELS_MAX: u64 = 100_000_000;
/// Longest side of a picture by default: an A4 page at 2,500 dpi.
pub(crate) const IMAGE_SIDE_MAX: u32 = 30_000;
/// Longest text by default: some forty pages.
pub(crate) const TEXT_CHARS_MAX: usize = 100_000;
/// Longest text to be said: about ten minutes of speech.
const SPOKEN_CHARS_MAX: usize = 10_000;
/// Largest file of bytes by default: tensors, and files of any kind to be classified.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;
/// The rate that voice conversion is trained on.
pub(crate) const CONVERT_RATE_HZ: u32 = 22_050;
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

/// A job's input, decoded, with its params.
#[derive(Debug, Clone)]
pub struct Prepared {
    content: Content,
    params: Params,
    /// The files among the params, decoded too.
    attached: BTreeMap<&'static str, Content>,
    /// What it is for, if that is known.
    task: Option<Task>,
}

/// What an input is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A recording.
    Audio(Audio),
    /// A picture.
    Picture(Picture),
    /// A text, without spaces around it; never empty.
    Text(String),
    /// A file as it is.
    Bytes(Vec<u8>),
    /// Named tensors.
    Tensors(Tensors),
}

impl Prepared {
    /// The input.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The params.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A file among the params.
    #[must_use]
    pub fn attached(&self, name: &str) -> Option<&Content> {
        self.attached.get(name)
    }

    /// Inputs of one bucket can share a batch without one waiting for or padding the other.
    #[must_use]
    pub fn shape_bucket(&self) -> u64 {
        match &self.content {
            // These models scale every picture to one size, or sort them out themselves.
            Content::Picture(_) if self.task.is_some_and(|task| task != Task::VisionOcr) => 0,
            Content::Audio(audio) => audio.duration().as_secs() / AUDIO_BUCKET_SECONDS,
            Content::Picture(picture) => {
                let (width, height) = ocr::detection_size(picture.rgb().dimensions());
                u64::from(width) << 32 | u64::from(height)
            }
            Content::Text(text) => u64::from(text.len().next_power_of_two().ilog2()),
            Content::Bytes(_) | Content::Tensors(_) => 0,
        }
    }

    /// How much work it is: samples, pixels, or bytes.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match &self.content {
            Content::Audio(audio) => audio.samples().len() as u64,
            Content::Picture(picture) => {
                u64::from(picture.rgb().width()) * u64::from(picture.rgb().height())
            }
            Content::Text(text) => text.len() as u64,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Tensors(tensors) => {
                tensors.values().map(|tensor| tensor.elements().len() as u64).sum()
            }
        }
    }
}

impl From<Content> for Prepared {
    /// An input without params.
    fn from(content: Content) -> Self {
        Self { content, params: Params::default(), attached: BTreeMap::new(), task: None }
    }
}

/// What a task's input is decoded as.
#[derive(Clone, Copy)]
enum Wanted {
    Audio { rate_hz: u32 },
    Picture,
    Text { chars_max: usize },
    PictureOrText,
    Bytes,
    Tensors,
}

impl Wanted {
    fn of(task: Task) -> Self {
        match task {
            Task::VoiceTranscribe | Task::VoiceDenoise => Self::Audio { rate_hz: SAMPLE_RATE_HZ },
            Task::VoiceConvert => Self::Audio { rate_hz: CONVERT_RATE_HZ },
            Task::VoiceSynthesize => Self::Text { chars_max: SPOKEN_CHARS_MAX },
            Task::TextEmbed => Self::Text { chars_max: usize::MAX },
            Task::VisionOcr | Task::VisionSegment | Task::VisionDetect => Self::Picture,
            Task::VisionEmbed => Self::PictureOrText,
            Task::TextClassify => Self::Bytes,
            Task::OnnxRun => Self::Tensors,
        }
    }

    fn decode(self, path: &Path, limits: &InputLimits) -> Result<Content, InputError> {
        let file = open(path)?;
        match self {
            Self::Audio { rate_hz } => {
                audio::decode(file, path, limits, rate_hz).map(Content::Audio)
            }
            Self::Picture => picture::decode(file, path, limits).map(Content::Picture),
            Self::Text { chars_max } => {
                text(file, path, limits.text_chars_max.min(chars_max)).map(Content::Text)
            }
            Self::PictureOrText => match picture::decode(file, path, limits) {
                Ok(picture) => Ok(Content::Picture(picture)),
                // What begins like no picture may be a text; a damaged picture is not.
                Err(InputError::WrongKind { .. }) => text(open(path)?, path, limits.text_chars_max)
                    .map(Content::Text)
                    .map_err(|error| match error {
                        InputError::WrongKind { path, .. } => {
                            InputError::WrongKind { path, wanted: "a picture or a text in UTF-8" }
                        }
                        other => other,
                    }),
                Err(error) => Err(error),
            },
            Self::Bytes => bytes(file, path, limits.file_bytes_max).map(Content::Bytes),
            Self::Tensors => {
                let bytes = bytes(file, path, limits.file_bytes_max)?;
                tensors::decode(&bytes, path, limits).map(Content::Tensors)
            }
        }
    }
}

/// Decodes a job's input, and the files among its params. Needs no model and no GPU, so it can run while another batch does.
///
/// # Errors
/// A file is missing, no regular file, empty, of another kind, damaged, cut short, or beyond the limits.
pub fn decode(
    task: Task,
    path: &Path,
    params: &Params,
    limits: &InputLimits,
) -> Result<Prepared, InputError> {
    let wanted = Wanted::of(task);
    let content = wanted.decode(path, limits)?;
    let mut attached = BTreeMap::new();
    for spec in task.params() {
        if let (ParamKind::File, Some(path)) = (spec.kind, params.file(spec.name)) {
            attached.insert(spec.name, wanted.decode(path, limits)?);
        }
    }
    Ok(Prepared { content, params: params.clone(), attached, task: Some(task) })
}

fn text(file: File, path: &Path, chars_max: usize) -> Result<String, InputError> {
    // No character has more than four bytes, and a mark of the byte order may lead them.
    let bytes_max = (chars_max as u64).saturating_mul(4).saturating_add(4);
    let too_long = || InputError::TextTooLong { path: path.to_owned(), chars_max };
    let bytes = bytes(file, path, bytes_max).map_err(|error| match error {
        InputError::FileTooLarge { .. } => too_long(),
        other => other,
    })?;
    let wrong_kind = |_| InputError::WrongKind { path: path.to_owned(), wanted: "a text in UTF-8" };
    let text = String::from_utf8(bytes).map_err(wrong_kind)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.contains('\0') {
        return Err(InputError::WrongKind { path: path.to_owned(), wanted: "a text in UTF-8" });
    }
    match text.chars().count() {
        0 => Err(InputError::NoText { path: path.to_owned() }),
        chars if chars > chars_max => Err(too_long()),
        _ => Ok(text.to_owned()),
    }
}

fn bytes(file: File, path: &Path, bytes_max: u64) -> Result<Vec<u8>, InputError> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > bytes_max {
        return Err(InputError::FileTooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

/// Why an input cannot be used. Every variant is about the file or its params, so trying again gives the same.
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
    /// A text is longer than allowed.
    #[error("{} is too long: {chars_max} characters are allowed", path.display())]
    TextTooLong {
        /// The input.
        path: PathBuf,
        /// The limit.
        chars_max: usize,
    },
    /// A text of spaces, or of nothing.
    #[error("{} holds no text", path.display())]
    NoText {
        /// The input.
        path: PathBuf,
    },
    /// A file is larger than allowed.
    #[error("{} is too large: {bytes_max} bytes are allowed", path.display())]
    FileTooLarge {
        /// The input.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
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
            Self::TextTooLong { .. } => "input.text_too_long",
            Self::NoText { .. } => "input.no_text",
            Self::FileTooLarge { .. } => "input.too_large",
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
                "convert it, e.g. with ffmpeg, to 16-bit WAV, to PNG, or to UTF-8"
            }
            Self::Damaged { .. } => "check that another program can open the file",
            Self::TooLong { .. } => "cut the recording, or raise the limit",
            Self::TooLarge { .. } => "scale the picture down, or raise the limit",
            Self::NoSamples { .. } => "check the program that recorded the file",
            Self::TextTooLong { .. } => "submit it in parts",
            Self::NoText { .. } => "write what shall be said or read into the file",
            Self::FileTooLarge { .. } => "cut it into parts",
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
