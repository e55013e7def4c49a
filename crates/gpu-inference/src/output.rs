//! What tasks return: plain data, and the files that belong to it. The worker writes it as JSON.

use std::time::Duration;

use gpu_tasks::WarningCode;

/// What a task returns for one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub result: TaskResult,
    pub files: Vec<OutputFile>,
    /// Of the pipeline and, once [`Pipeline::run`](crate::Pipeline::run) has returned it, of its input too.
    pub remarks: Remarks,
}

/// What a result is based on, and what is doubtful about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remarks {
    pub basis: Option<Basis>,
    pub warnings: Vec<Warning>,
}

impl Remarks {
    /// Adds a warning.
    pub(crate) fn warn(&mut self, code: WarningCode, message: impl Into<String>) {
        self.warnings.push(Warning { code, message: message.into() });
    }

    /// These, and after them those of a later stage, whose basis counts where it has one.
    pub(crate) fn followed_by(mut self, later: Self) -> Self {
        self.basis = later.basis.or(self.basis);
        self.warnings.extend(later.warnings);
        self
    }
}

/// What is doubtful about a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub code: WarningCode,
    /// What was found, with its measure.
    pub message: String,
}

/// What a result is based on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Basis {
    /// A recording.
    Audio(AudioBasis),
    /// A picture, or pages of a document.
    Picture(PictureBasis),
    /// A text that was read aloud.
    Text(TextBasis),
}

/// How much of a picture or document was looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureBasis {
    /// Pages that were looked at.
    pub pages: usize,
    /// Pages of the file.
    pub pages_total: usize,
    /// Of the first page in pixels, after it was turned upright.
    pub width: u32,
    pub height: u32,
    /// How its text was looked for, where it was.
    pub reading: Option<Reading>,
}

/// How text was looked for on pages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The parts in which they were looked at: one for each page that is not long.
    pub tiles: usize,
    /// How large the model saw the page that it saw smallest; 1 is its own size.
    pub scale: f32,
    /// Of the lines, those too low to be read for sure.
    pub lines_small: usize,
    /// What looked like a line and could not be read.
    pub lines_unread: usize,
}

/// How much of a text was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextBasis {
    /// Letters and digits of the text, without tags and other codes.
    pub letters: usize,
    /// Those that were said.
    pub said: usize,
}

/// How much of a recording was decoded, and what it is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AudioBasis {
    /// What was decoded.
    pub decoded: Duration,
    /// What was left out, as far as it is known.
    pub left_out: Duration,
    /// The largest sample; 1 is full scale.
    pub peak: f32,
    /// The effective value of the loudest tenth of a second.
    pub level: f32,
    /// Of the file.
    pub channels: u32,
    /// The channel that alone was used, from 1; `None`: their average.
    pub channel: Option<u32>,
    /// The file's tracks with sound; the first is used.
    pub tracks: u32,
}

/// The data that a task returns; sound, masks and tensors themselves are files.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// Of `voice.transcribe`.
    Transcript(Transcript),
    /// Of `vision.ocr`.
    Page(Page),
    /// Of `voice.synthesize`, `voice.convert` and `voice.denoise`.
    Sound(Sound),
    /// Of `text.embed`, and of `vision.embed` without labels.
    Embedding(Embedding),
    /// Of `text.classify`, and of `vision.embed` with labels.
    Classification(Classification),
    /// Of `vision.detect`.
    Detections(Detections),
    /// Of `vision.segment`.
    Segments(Segments),
    /// Of `onnx.run`, one for each output.
    Tensors(Vec<TensorSummary>),
}

/// A file that a task makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Unique within the output, without folders.
    pub name: String,
    /// E.g. `audio/wav`.
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

impl From<TaskResult> for Output {
    fn from(result: TaskResult) -> Self {
        Self { result, files: Vec::new(), remarks: Remarks::default() }
    }
}

/// The speech of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// All segments' texts, joined with spaces; empty if there is no speech.
    pub text: String,
    /// The pieces, in order.
    pub segments: Vec<Segment>,
    /// The recording's length.
    pub audio: Duration,
}

/// A piece of speech, some sentences long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// From the beginning of the recording.
    pub start: Duration,
    pub end: Duration,
    pub text: String,
    /// The speaker, numbered from 0 in the order in which they first speak; `None` unless the job asks for speakers.
    pub speaker: Option<usize>,
}

/// The text of a picture, or of a document's pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The pages that were read: one at least.
    pub pages: Vec<PageSize>,
    /// Page by page, each as it is read: from top to bottom and left to right.
    pub lines: Vec<Line>,
}

/// The size of a page in pixels, after it was turned upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    pub width: u32,
    pub height: u32,
}

/// A line of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub text: String,
    /// From 0 to 1.
    pub score: f32,
    /// Its corners as x, y in pixels: top left, top right, bottom right, bottom left.
    pub corners: [[f32; 2]; 4],
    /// Its page, from 0.
    pub page: usize,
}

/// A recording that a task made; the samples are in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    pub length: Duration,
    /// Samples per second.
    pub rate_hz: u32,
}

/// A text's or picture's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Of length 1: the squares add up to 1.
    pub values: Vec<f32>,
    /// Tokens of the text; `None` for a picture.
    pub tokens: Option<usize>,
    /// Whether the text was longer than the model takes; then the vector is that of its beginning.
    pub truncated: bool,
}

/// What a text or file was found to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The label that applies: of the best score, or a general one such as `txt` where no score is high enough.
    pub label: String,
    /// For a file, e.g. `image/png`.
    pub media_type: Option<String>,
    /// Best first; as many as the job's `top`.
    pub labels: Vec<Label>,
    /// Whether the text was longer than the model takes; then the labels are those of its beginning.
    pub truncated: bool,
}

/// A label with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    pub name: String,
    /// From 0 to 1.
    pub score: f32,
}

/// The objects in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Detections {
    /// In pixels, after the picture was turned upright.
    pub width: u32,
    pub height: u32,
    /// Highest score first.
    pub objects: Vec<Detection>,
}

/// An object in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// E.g. `face`.
    pub label: String,
    /// From 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom in pixels.
    pub edges: [f32; 4],
    /// Landmarks as x, y in pixels: of a face the eyes, the nose and the corners of the mouth.
    pub points: Vec<[f32; 2]>,
}

/// The masks of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Segments {
    /// In pixels, after the picture was turned upright.
    pub width: u32,
    pub height: u32,
    /// Highest score first.
    pub objects: Vec<Segmented>,
}

/// An object and its mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmented {
    /// The file with its mask.
    pub file: String,
    /// The name that the job asked for, if it did.
    pub label: Option<String>,
    /// From 0 to 1; `None` if the model gives none.
    pub score: Option<f32>,
    /// Left, top, right and bottom of its pixels; `None` if there are none.
    pub edges: Option<[u32; 4]>,
    /// Pixels that belong to the object.
    pub pixels: u64,
}

/// An output of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSummary {
    pub name: String,
    /// NumPy's name, e.g. `float32`.
    pub element_type: &'static str,
    pub shape: Vec<usize>,
    /// The numbers, if there are at most 64 and all are finite.
    pub values: Option<Vec<f64>>,
    /// The `.npy` file with all numbers.
    pub file: String,
}
