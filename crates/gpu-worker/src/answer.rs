//! From what a pipeline answers to what a job's result keeps of it: a document, and files beside it.

mod vision;

use std::time::Duration;

use gpu_inference::{OutputFile, TaskResult};
use gpuctl_control::text::hexadecimal;
use gpuctl_control::wire::answer::{
    FileDocument, LineDocument, PageDocument, SegmentDocument, SoundDocument, TranscriptDocument,
    to_value,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A model's answer as the result keeps it.
#[must_use]
pub fn answer_of(answer: &TaskResult) -> Value {
    match answer {
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

/// To the millisecond: the pipelines know no better.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}

/// A file as the result lists it; `uri` says where it is kept.
#[must_use]
pub fn file_of(file: &OutputFile, uri: Option<String>) -> FileDocument {
    FileDocument {
        name: file.name.clone(),
        uri,
        bytes: file.bytes.len() as u64,
        sha256: hexadecimal(&Sha256::digest(&file.bytes)),
        media_type: file.media_type.to_owned(),
    }
}
