//! What a job's `output` holds: one document for each kind of task. Its field names are a contract with the programs that read results.

use gpu_tasks::Task;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde_json::{Value, json};

/// What is doubtful about an output, in its `warnings`; absent where nothing is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WarningDocument {
    pub code: &'static str,
    pub message: String,
}

/// What an output is based on, in its `basis`, where its input is a recording.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AudioBasisDocument {
    pub decoded_seconds: f64,
    /// From 0 to 1: less than 1 where parts could not be decoded.
    pub used_share: f64,
    /// The largest sample; 1 is full scale.
    pub peak: f32,
    /// The effective value of the loudest tenth of a second.
    pub level: f32,
    /// Of the file.
    pub channels: u32,
    /// The channel that alone was used, from 1; absent where they were mixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<u32>,
    /// Tracks with sound in the file, of which the first is used.
    pub tracks: u32,
}

/// What an output is based on, in its `basis`, where its input is a picture or document.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PictureBasisDocument {
    /// Pages that were looked at, and those that the file has.
    pub pages: usize,
    pub pages_total: usize,
    /// Of the first page, after it was turned upright.
    pub width_pixels: u32,
    pub height_pixels: u32,
    /// Of `vision.ocr` only: the parts in which the pages were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<usize>,
    /// How large the model saw the page that it saw smallest; 1 is its own size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// Of the lines, those too low to be read for sure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines_small: Option<usize>,
    /// What looked like a line and could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines_unread: Option<usize>,
}

/// What speech is based on.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TextBasisDocument {
    /// Letters and digits of the text, without tags and other codes.
    pub letters: usize,
    /// Those that were said.
    pub letters_said: usize,
}

/// The output of `voice.transcribe`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TranscriptDocument {
    /// The texts of all segments.
    pub text: String,
    pub audio_seconds: f64,
    pub segments: Vec<SegmentDocument>,
}

/// A piece of speech; its times count from the beginning of the recording.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SegmentDocument {
    pub start_seconds: f64,
    pub end_seconds: f64,
    pub text: String,
    /// `S1`, `S2`, …, numbered in the order in which they begin to speak; only where a job asks for speakers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
}

/// The output of `vision.ocr`. Sizes and corners are those of a page after it was turned upright.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PageDocument {
    /// The lines, separated by line breaks.
    pub text: String,
    /// Of the first page.
    pub width_pixels: u32,
    pub height_pixels: u32,
    /// The pages that were read: one unless the file is a document of several.
    pub pages: Vec<PageSizeDocument>,
    pub lines: Vec<LineDocument>,
}

/// The size of a page.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PageSizeDocument {
    pub width_pixels: u32,
    pub height_pixels: u32,
}

/// A line of text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LineDocument {
    pub text: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
    /// As x, y: top left, top right, bottom right, bottom left.
    pub corners_pixels: [[f32; 2]; 4],
    /// Its page, from 1.
    pub page: usize,
}

/// The output of the tasks that make sound; the sound is the first of its `files`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SoundDocument {
    pub audio_seconds: f64,
    pub sample_rate_hz: u32,
}

/// The output of `text.embed`, and of `vision.embed` without labels.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EmbeddingDocument {
    /// Of length 1: its squares add up to 1.
    pub vector: Vec<f32>,
    /// How many tokens the text has; absent for a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Whether the text was too long for the model: then the vector is that of its beginning.
    pub truncated: bool,
}

/// The output of `text.classify`, and of `vision.embed` with labels.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClassificationDocument {
    /// The best label.
    pub label: String,
    /// For a file: its type, e.g. `image/png`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The best labels, the most probable first.
    pub labels: Vec<LabelDocument>,
    /// Whether the text was too long for the model: then the labels are those of its beginning.
    pub truncated: bool,
}

/// A label and its score.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LabelDocument {
    pub label: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
}

/// The output of `vision.detect`. Sizes and edges are those of the picture after it was turned upright.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DetectionsDocument {
    pub width_pixels: u32,
    pub height_pixels: u32,
    /// The highest score first.
    pub objects: Vec<DetectionDocument>,
}

/// One object in a picture.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DetectionDocument {
    pub label: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom.
    pub edges_pixels: [f32; 4],
    /// Points on it as x, y, e.g. the eyes of a face; absent where the model finds none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub points_pixels: Vec<[f32; 2]>,
}

/// The output of `vision.segment`. Sizes and edges are those of the picture after it was turned upright.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SegmentsDocument {
    pub width_pixels: u32,
    pub height_pixels: u32,
    /// The highest score first.
    pub objects: Vec<SegmentedDocument>,
}

/// An object and its mask.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SegmentedDocument {
    /// The name of the mask's file among `files`: white where the object is.
    pub file: String,
    /// The words by which the object was asked for, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How sure the model is, from 0 to 1; absent where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Left, top, right and bottom of its pixels; `null` where it has none.
    pub edges_pixels: Option<[u32; 4]>,
    /// How many pixels belong to it.
    pub pixels: u64,
}

/// The output of `onnx.run`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TensorsDocument {
    pub tensors: Vec<TensorDocument>,
}

/// One output of the graph.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TensorDocument {
    pub name: String,
    /// NumPy's name of the element type, e.g. `float32`.
    pub dtype: String,
    pub shape: Vec<usize>,
    /// The numbers in row-major order; absent where they are many, or one is not finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<f64>>,
    /// The name of the file among `files` that has all numbers.
    pub file: String,
}

/// The document as JSON.
#[must_use]
pub fn to_value(document: &impl Serialize) -> Value {
    serde_json::to_value(document).expect("a document of texts and numbers is always JSON")
}

/// The JSON Schema of a task's output.
#[must_use]
pub fn schema(task: Task) -> Value {
    let whole = |schema: Schema| with_remarks(schema.to_value());
    match task {
        Task::VoiceTranscribe => whole(schema_for!(TranscriptDocument)),
        Task::VoiceSynthesize | Task::VoiceConvert | Task::VoiceDenoise => {
            whole(schema_for!(SoundDocument))
        }
        Task::VisionOcr => whole(schema_for!(PageDocument)),
        Task::VisionSegment => whole(schema_for!(SegmentsDocument)),
        Task::VisionDetect => whole(schema_for!(DetectionsDocument)),
        Task::TextEmbed => whole(schema_for!(EmbeddingDocument)),
        Task::TextClassify => whole(schema_for!(ClassificationDocument)),
        Task::OnnxRun => whole(schema_for!(TensorsDocument)),
        Task::VisionEmbed => json!({
            "anyOf": [whole(schema_for!(EmbeddingDocument)), whole(schema_for!(ClassificationDocument))]
        }),
    }
}

/// With what every output may have: what it is based on, what is doubtful about it, and its files.
fn with_remarks(mut schema: Value) -> Value {
    let basis = [
        schema_for!(AudioBasisDocument),
        schema_for!(PictureBasisDocument),
        schema_for!(TextBasisDocument),
    ];
    let properties = &mut schema["properties"];
    properties["basis"] = json!({ "anyOf": basis });
    properties["warnings"] = json!({ "type": "array", "items": schema_for!(WarningDocument) });
    properties["files"] = json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "uri", "bytes", "sha256", "media_type"],
            "properties": {
                "name": { "type": "string" },
                "uri": { "type": ["string", "null"] },
                "bytes": { "type": "integer" },
                "sha256": { "type": "string" },
                "media_type": { "type": "string" },
            },
        },
    });
    schema
}
