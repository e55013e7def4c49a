//! From what a pipeline returns to what a job's result says: a JSON document.
//!
//! Files that belong to it are listed in it by `gpuctl-worker`, which stores them, or by the command `run`, which writes them.

mod document;
mod vision;

use std::time::Duration;

use gpu_inference::TaskResult;
use serde_json::Value;

use self::document::{
    LineDocument, PageDocument, SegmentDocument, SoundDocument, TranscriptDocument, to_value,
};

/// The `output` of a job's result: one JSON object, its fields given by the task.
#[must_use]
pub fn output_document(result: &TaskResult) -> Value {
    match result {
        TaskResult::Transcript(transcript) => to_value(&TranscriptDocument {
            text: transcript.text.clone(),
            audio_seconds: seconds(transcript.audio),
            segments: transcript
                .segments
                .iter()
                .map(|segment| SegmentDocument {
                    start_seconds: seconds(segment.start),
                    end_seconds: seconds(segment.end),
                    text: segment.text.clone(),
                    speaker: segment.speaker.map(|number| format!("S{}", number + 1)),
                })
                .collect(),
        }),
        TaskResult::Sound(sound) => to_value(&SoundDocument {
            audio_seconds: seconds(sound.length),
            sample_rate_hz: sound.rate_hz,
        }),
        TaskResult::Page(page) => to_value(&PageDocument {
            text: page.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n"),
            width_pixels: page.width,
            height_pixels: page.height,
            lines: page
                .lines
                .iter()
                .map(|line| LineDocument {
                    text: line.text.clone(),
                    score: line.score,
                    corners_pixels: line.corners,
                })
                .collect(),
        }),
        TaskResult::Embedding(found) => vision::embedding(found),
        TaskResult::Classification(found) => vision::classification(found),
        TaskResult::Detections(found) => vision::detections(found),
        TaskResult::Segments(found) => vision::segments(found),
        TaskResult::Tensors(found) => vision::tensors(found),
    }
}

/// To the millisecond, which is finer than any pipeline measures.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}
