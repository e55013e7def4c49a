//! What a job's `output` holds, one document a task.

use serde::Serialize;

/// The output of `voice.transcribe`.
#[derive(Clone, Debug, Serialize)]
pub struct TranscriptDocument {
    /// The whole text.
    pub text: String,
    /// The recording's length.
    pub audio_seconds: f64,
    /// The text in pieces, each with its time.
    pub segments: Vec<SegmentDocument>,
}

/// A piece of speech.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentDocument {
    /// When it begins.
    pub start_seconds: f64,
    /// When it ends.
    pub end_seconds: f64,
    /// What was said.
    pub text: String,
    /// Who said it, as `S1`: numbered as they begin to speak, where a job asks for speakers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
}

/// The output of `vision.ocr`.
#[derive(Clone, Debug, Serialize)]
pub struct PageDocument {
    /// The lines, one below the other.
    pub text: String,
    /// The upright picture's width.
    pub width_pixels: u32,
    /// Its height.
    pub height_pixels: u32,
    /// The lines.
    pub lines: Vec<LineDocument>,
}

/// A line of text.
#[derive(Clone, Debug, Serialize)]
pub struct LineDocument {
    /// What it says.
    pub text: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
    /// Its corners as x, y: top left, top right, bottom right, bottom left.
    pub corners_pixels: [[f32; 2]; 4],
}

/// The output of the tasks that make sound; the sound is the first of its `files`.
#[derive(Clone, Debug, Serialize)]
pub struct SoundDocument {
    /// Its length.
    pub audio_seconds: f64,
    /// Samples a second.
    pub sample_rate_hz: u32,
}

/// The output of `text.embed`, and of `vision.embed` without labels.
#[derive(Clone, Debug, Serialize)]
pub struct EmbeddingDocument {
    /// The vector; its squares add up to 1.
    pub vector: Vec<f32>,
    /// How many tokens the text has; absent for a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Whether the text was too long for the model: the vector is of its beginning.
    pub truncated: bool,
}

/// The output of `text.classify`, and of `vision.embed` with labels.
#[derive(Clone, Debug, Serialize)]
pub struct ClassificationDocument {
    /// The label that holds.
    pub label: String,
    /// For a file: its type, as `image/png`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The best labels, from the likeliest on.
    pub labels: Vec<LabelDocument>,
    /// Whether the text was too long for the model: the answer is about its beginning.
    pub truncated: bool,
}

/// A label and its score.
#[derive(Clone, Debug, Serialize)]
pub struct LabelDocument {
    /// Its name.
    pub label: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
}

/// The output of `vision.detect`.
#[derive(Clone, Debug, Serialize)]
pub struct DetectionsDocument {
    /// The upright picture's width.
    pub width_pixels: u32,
    /// Its height.
    pub height_pixels: u32,
    /// What is in it, from the surest on.
    pub objects: Vec<DetectionDocument>,
}

/// One thing in a picture.
#[derive(Clone, Debug, Serialize)]
pub struct DetectionDocument {
    /// What it is.
    pub label: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom.
    pub edges_pixels: [f32; 4],
    /// Places on it as x, y.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub points_pixels: Vec<[f32; 2]>,
}

/// The output of `vision.segment`.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentsDocument {
    /// The upright picture's width.
    pub width_pixels: u32,
    /// Its height.
    pub height_pixels: u32,
    /// The things, from the surest on.
    pub objects: Vec<SegmentedDocument>,
}

/// A thing and its mask.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentedDocument {
    /// The file with its mask: white where it is.
    pub file: String,
    /// What was asked for, if by a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How sure the model is, from 0 to 1, if it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Left, top, right and bottom of its pixels; `null` where it has none.
    pub edges_pixels: Option<[u32; 4]>,
    /// How many pixels belong to it.
    pub pixels: u64,
}

/// The output of `onnx.run`.
#[derive(Clone, Debug, Serialize)]
pub struct TensorsDocument {
    /// What the model answered with.
    pub tensors: Vec<TensorDocument>,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorDocument {
    /// Its name.
    pub name: String,
    /// NumPy's name of its element type.
    pub dtype: String,
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its numbers, if they are few and finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<f64>>,
    /// The file that has them all.
    pub file: String,
}

/// A file of a result: one entry of an output's `files`.
#[derive(Clone, Debug, Serialize)]
pub struct FileDocument {
    /// Its name.
    pub name: String,
    /// Where it is kept; `None` where nobody asked to keep it.
    pub uri: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Its content's hash, in hexadecimal digits.
    pub sha256: String,
    /// What it is, as `audio/wav`.
    pub media_type: String,
}

/// The output with the list of its files.
#[must_use]
pub fn with_files(mut output: serde_json::Value, files: &[FileDocument]) -> serde_json::Value {
    if let (Some(fields), false) = (output.as_object_mut(), files.is_empty()) {
        fields.insert("files".to_owned(), to_value(&files));
    }
    output
}

/// The document as it is stored.
#[must_use]
pub fn to_value(document: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(document).expect("a document of texts and numbers is always JSON")
}
