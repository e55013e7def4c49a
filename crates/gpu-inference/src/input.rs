//! A job's input file, decoded: the CPU work before a model sees it.
//!
//! A file that cannot be used gets a named error here, before it costs memory or GPU time. The decoders are in `audio`,
//! `picture`, `text` and `tensors`.

pub(crate) mod audio;
mod bytes;
mod error;
mod hints;
pub(crate) mod kind;
pub(crate) mod picture;
pub(crate) mod tensors;
pub(crate) mod text;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use gpu_tasks::{ParamKind, Params, Task};

use crate::cancel::Cancel;
use crate::output::{Remarks, Warning};

use self::audio::{Audio, SAMPLE_RATE_HZ};
pub use self::bytes::FileEnds;
pub use self::error::{InputError, InputLimits};
pub use self::kind::FileKind;
use self::picture::{Pages, Picture};
use self::tensors::Tensors;
pub use self::text::Text;

/// Longest text to be spoken: about ten minutes of speech.
const SPOKEN_CHARS_MAX: usize = 10_000;
/// The rate that voice conversion is trained on.
pub(crate) const CONVERT_RATE_HZ: u32 = 22_050;

/// A job's input, decoded, with its params.
#[derive(Debug, Clone)]
pub struct Prepared {
    content: Content,
    params: Params,
    /// The files among the params, decoded too.
    attached: BTreeMap<&'static str, Content>,
    /// What it is for, if that is known.
    task: Option<Task>,
    remarks: Remarks,
}

/// What an input is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A recording.
    Audio(Audio),
    /// A picture.
    Picture(Picture),
    /// A text, without spaces around it; never empty.
    Text(Text),
    /// A file as it is: its two ends, where it is long.
    Bytes(FileEnds),
    /// Named tensors.
    Tensors(Tensors),
    /// In the form that an opened model takes: see [`crate::Preparation`].
    Ready(Ready),
}

/// An input in the form that one opened model takes.
#[derive(Clone)]
pub struct Ready {
    /// The number of the preparation that made it.
    pub(crate) by: u64,
    pub(crate) form: Arc<dyn Any + Send + Sync>,
    pub(crate) load: Load,
}

/// How much work and memory a model's form of an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// The memory that it takes.
    pub(crate) bytes: u64,
    /// How much of a batch's budget it takes: pixels or tokens.
    pub(crate) cost: u64,
    /// Only inputs of one bucket share a batch.
    pub(crate) shape_bucket: u64,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("by", &self.by)
            .field("load", &self.load)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// This input, with what was decoded replaced by a model's form of it.
    pub(crate) fn made_ready(self, ready: Ready) -> Self {
        Self { content: Content::Ready(ready), ..self }
    }

    /// What it is for, if that is known.
    pub(crate) fn task(&self) -> Option<Task> {
        self.task
    }

    /// What was found while it was decoded.
    #[must_use]
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
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
}

impl Prepared {
    /// The memory that it holds, without its params.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.attached.values().map(Content::bytes).sum::<u64>() + self.content.bytes()
    }
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Self::Audio(audio) => size_of_val(audio.samples()) as u64,
            Self::Picture(picture) => {
                picture.pages().iter().map(|page| page.as_raw().len() as u64).sum()
            }
            Self::Text(text) => text.len() as u64,
            Self::Bytes(ends) => ends.held_bytes(),
            Self::Tensors(tensors) => {
                tensors.values().map(|tensor| tensor.elements().bytes()).sum()
            }
            Self::Ready(ready) => ready.load.bytes,
        }
    }
}

impl From<Content> for Prepared {
    /// An input without params.
    fn from(content: Content) -> Self {
        let (params, attached) = (Params::default(), BTreeMap::new());
        Self { content, params, attached, task: None, remarks: Remarks::default() }
    }
}

/// What a task's input is decoded as.
#[derive(Clone, Copy)]
enum Wanted {
    Audio { rate_hz: u32 },
    Picture(Pages),
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
            Task::VisionOcr => Self::Picture(Pages::All),
            Task::VisionSegment | Task::VisionDetect => Self::Picture(Pages::First),
            Task::VisionEmbed => Self::PictureOrText,
            Task::TextClassify => Self::Bytes,
            Task::OnnxRun => Self::Tensors,
        }
    }

    /// What is found on the way goes into `remarks`.
    fn decode(
        self,
        path: &Path,
        decoder: &Decoder,
        remarks: &mut Remarks,
    ) -> Result<Content, InputError> {
        let limits = &decoder.limits;
        let file = match self {
            // An empty file is a kind of file, too.
            Self::Bytes => open_any(path)?,
            _ => open(path)?,
        };
        match self {
            Self::Audio { rate_hz } => {
                audio::decode(&file, path, decoder, rate_hz, remarks).map(Content::Audio)
            }
            Self::Picture(pages) => {
                picture::decode(file, path, decoder, pages, remarks).map(Content::Picture)
            }
            Self::Text { chars_max } => {
                let chars_max = limits.text_chars_max.min(chars_max);
                text(file, path, chars_max, remarks).map(Content::Text)
            }
            Self::PictureOrText => {
                match picture::decode(file, path, decoder, Pages::First, remarks) {
                    Ok(picture) => Ok(Content::Picture(picture)),
                    // What begins like no picture may be a text; a damaged picture is not.
                    Err(InputError::WrongKind { .. }) => {
                        text(open(path)?, path, limits.text_chars_max, remarks)
                            .map(Content::Text)
                            .map_err(|error| match error {
                                InputError::WrongKind { path, .. } => {
                                    InputError::WrongKind { path, wanted: "a picture or a text" }
                                }
                                other => other,
                            })
                    }
                    Err(error) => Err(error),
                }
            }
            Self::Bytes => {
                let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
                FileEnds::read(file).map(Content::Bytes).map_err(unreadable)
            }
            Self::Tensors => {
                let bytes = bytes(file, path, limits.file_bytes_max)?;
                tensors::decode(&bytes, path, limits).map(Content::Tensors)
            }
        }
    }
}

impl Wanted {
    fn bytes_max(self, path: &Path, limits: &InputLimits) -> Result<u64, InputError> {
        let file = open_any(path)?;
        let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        let text = |chars_max: usize| TEXT_COPIES * text_bytes_max(chars_max).min(file_bytes);
        match self {
            Self::Audio { rate_hz } => audio::bytes_max(file, path, limits, rate_hz),
            Self::Picture(pages) => picture::bytes_max(file, path, limits, pages),
            Self::Text { chars_max } => Ok(text(limits.text_chars_max.min(chars_max))),
            Self::PictureOrText => match picture::bytes_max(file, path, limits, Pages::First) {
                Err(InputError::WrongKind { .. }) => Ok(text(limits.text_chars_max)),
                bytes => bytes,
            },
            Self::Bytes => Ok(file_bytes.min(bytes::HELD_BYTES_MAX)),
            Self::Tensors if file_bytes <= limits.file_bytes_max => {
                tensors::bytes_max(file, limits).map_err(unreadable)
            }
            Self::Tensors => Ok(0),
        }
    }
}

/// How inputs are decoded: within limits, until a job is cancelled.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    pub limits: InputLimits,
    pub cancel: Cancel,
}

impl Decoder {
    /// Decodes a job's input, and the files among its params. Needs no model and no GPU, so it can run while another batch does.
    ///
    /// # Errors
    /// A file is missing, no regular file, empty, of another kind, damaged, cut short, or beyond the limits; or the job was cancelled.
    pub fn decode(&self, task: Task, path: &Path, params: &Params) -> Result<Prepared, InputError> {
        let wanted = Wanted::of(task);
        let mut remarks = Remarks::default();
        let content = self.decode_file(wanted, path, &mut remarks)?;
        let mut attached = BTreeMap::new();
        for (name, path) in attached_files(task, params) {
            let mut found = Remarks::default();
            attached.insert(name, self.decode_file(wanted, path, &mut found)?);
            for Warning { code, message } in found.warnings {
                remarks.warn(code, format!("{name}: {message}"));
            }
        }
        Ok(Prepared { content, params: params.clone(), attached, task: Some(task), remarks })
    }

    fn decode_file(
        &self,
        wanted: Wanted,
        path: &Path,
        remarks: &mut Remarks,
    ) -> Result<Content, InputError> {
        surviving(path, || wanted.decode(path, self, remarks)).map_err(|error| match error {
            InputError::WrongKind { path, wanted } => match kind::of_file(&path) {
                Some(found) => InputError::OtherKind { path, found, wanted },
                None => InputError::WrongKind { path, wanted },
            },
            other => other,
        })
    }

    /// The most memory that [`Decoder::decode`] takes for this input, by the headers of its files and the limits: what to keep free
    /// before decoding. It is 0 for what will be refused by its header.
    #[must_use]
    pub fn bytes_max(&self, task: Task, path: &Path, params: &Params) -> u64 {
        let wanted = Wanted::of(task);
        let files = attached_files(task, params).map(|(_, path)| path).chain([path]);
        let bytes_max = |path| surviving(path, || wanted.bytes_max(path, &self.limits));
        files.map(|path| bytes_max(path).unwrap_or(0)).sum()
    }
}

/// Decodes a job's input as [`Decoder::decode`], without an end to its time.
///
/// # Errors
/// As there.
pub fn decode(
    task: Task,
    path: &Path,
    params: &Params,
    limits: &InputLimits,
) -> Result<Prepared, InputError> {
    Decoder { limits: *limits, cancel: Cancel::new() }.decode(task, path, params)
}

/// The outcome of a decoder, or the error that it panicked: a worker holds other jobs beside this one. What a decoder left half done is
/// dropped with it.
fn surviving<T>(
    path: &Path,
    decode: impl FnOnce() -> Result<T, InputError>,
) -> Result<T, InputError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let problem = crate::text::cut(text.unwrap_or("it did not say why").to_owned());
        Err(InputError::Crash { path: path.to_owned(), problem })
    })
}

/// Name and place of each param that is a file.
fn attached_files(task: Task, params: &Params) -> impl Iterator<Item = (&'static str, &Path)> {
    let files = task.params().iter().filter(|spec| spec.kind == ParamKind::File);
    files.filter_map(|spec| Some((spec.name, params.file(spec.name)?)))
}

fn text(
    file: File,
    path: &Path,
    chars_max: usize,
    remarks: &mut Remarks,
) -> Result<Text, InputError> {
    let too_long = || InputError::TextTooLong { path: path.to_owned(), chars_max };
    let bytes = bytes(file, path, text_bytes_max(chars_max)).map_err(|error| match error {
        InputError::FileTooLarge { .. } => too_long(),
        other => other,
    })?;
    let wrong_kind = || InputError::WrongKind { path: path.to_owned(), wanted: "a text" };
    if kind::is_no_text(&bytes) {
        return Err(wrong_kind());
    }
    let decoded = text::decode(&bytes).ok_or_else(wrong_kind)?;
    decoded.remark(remarks);
    let text = Text::from(decoded);
    match text.chars().count() {
        0 => Err(InputError::NoText { path: path.to_owned() }),
        chars if chars > chars_max => Err(too_long()),
        _ => Ok(text),
    }
}

/// A text's bytes, and twice what they become: of a byte of an old encoding up to three.
const TEXT_COPIES: u64 = 7;

/// No character has more than four bytes, and a mark of the byte order may lead them.
fn text_bytes_max(chars_max: usize) -> u64 {
    (chars_max as u64).saturating_mul(4).saturating_add(4)
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

/// Opens a regular, non-empty file.
fn open(path: &Path) -> Result<File, InputError> {
    let file = open_any(path)?;
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    match file.metadata().map_err(unreadable)?.len() {
        0 => Err(InputError::Empty { path: path.to_owned() }),
        _ => Ok(file),
    }
}

/// Opens a regular file.
fn open_any(path: &Path) -> Result<File, InputError> {
    let own = || path.to_owned();
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            InputError::Missing { path: own() }
        }
        _ => InputError::Unreadable { path: own(), source },
    };
    // Asked before opening: to open a named pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(InputError::Folder { path: own() });
    }
    if !metadata.is_file() {
        return Err(InputError::NotAFile { path: own() });
    }
    File::open(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_panics_is_an_error_of_its_input() {
        let path = Path::new("odd.tif");
        let error = surviving::<()>(path, || panic!("row {} is missing", 7)).unwrap_err();
        assert_eq!(error.code(), "input.crash");
        assert_eq!(error.blame(), gpu_tasks::Blame::Input);
        assert!(error.to_string().contains("odd.tif") && error.to_string().contains("row 7"));
        assert!(error.hint(Task::VisionOcr).starts_with("save it as PNG"));
        assert!(error.hint(Task::VoiceDenoise).starts_with("convert it with `ffmpeg"));
        let long = surviving::<()>(path, || panic!("{}", "x".repeat(1 << 20))).unwrap_err();
        assert!(long.to_string().len() < 4 << 10);
    }
}
