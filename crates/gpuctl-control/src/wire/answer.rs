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
