//! From what a pipeline returns to what a job's result says: a JSON document.
//!
//! Files that belong to it are listed in it by `gpuctl-worker`, which stores them, or by the command `run`, which writes them.

mod vision;

use std::time::Duration;

use gpu_inference::{Basis, Output, Remarks, TaskResult, TextBasis};
use gpuctl_control::wire::output::{
    AudioBasisDocument, LineDocument, PageDocument, PageSizeDocument, PictureBasisDocument,
    SegmentDocument, SoundDocument, TextBasisDocument, TranscriptDocument, WarningDocument,
    to_value,
};
use serde_json::Value;

/// The `output` of a job's result: one JSON object, its fields given by the task, with what it is based on and what is doubtful about it.
#[must_use]
pub fn output_document(output: &Output) -> Value {
    let mut document = result_document(&output.result);
    let Remarks { basis, warnings } = &output.remarks;
    if let Some(basis) = basis {
        document["basis"] = basis_document(basis);
    }
    if !warnings.is_empty() {
        let warnings = warnings.iter().map(|warning| WarningDocument {
            code: warning.code.as_str(),
            message: warning.message.clone(),
        });
        document["warnings"] = to_value(&warnings.collect::<Vec<_>>());
    }
    document
}

fn basis_document(basis: &Basis) -> Value {
    match basis {
        Basis::Audio(audio) => {
            let whole = audio.decoded + audio.left_out;
            let used = if whole.is_zero() { 1.0 } else { audio.decoded.div_duration_f64(whole) };
            to_value(&AudioBasisDocument {
                decoded_seconds: seconds(audio.decoded),
                used_share: (used * 1e4).round() / 1e4,
                peak: audio.peak,
                level: audio.level,
                channels: audio.channels,
                channel: audio.channel,
                tracks: audio.tracks,
            })
        }
        Basis::Picture(picture) => {
            let reading = picture.reading;
            to_value(&PictureBasisDocument {
                pages: picture.pages,
                pages_total: picture.pages_total,
                width_pixels: picture.width,
                height_pixels: picture.height,
                tiles: reading.map(|reading| reading.tiles),
                scale: reading.map(|reading| reading.scale),
                lines_small: reading.map(|reading| reading.lines_small),
                lines_unread: reading.map(|reading| reading.lines_unread),
            })
        }
        Basis::Text(TextBasis { letters, said }) => {
            to_value(&TextBasisDocument { letters: *letters, letters_said: *said })
        }
    }
}

fn result_document(result: &TaskResult) -> Value {
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
            width_pixels: page.pages[0].width,
            height_pixels: page.pages[0].height,
            pages: page
                .pages
                .iter()
                .map(|page| PageSizeDocument {
                    width_pixels: page.width,
                    height_pixels: page.height,
                })
                .collect(),
            lines: page
                .lines
                .iter()
                .map(|line| LineDocument {
                    text: line.text.clone(),
                    score: line.score,
                    corners_pixels: line.corners,
                    page: line.page + 1,
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

#[cfg(test)]
mod tests {
    use gpu_inference::{AudioBasis, Sound, Warning, WarningCode};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_output_says_what_it_is_based_on_and_what_is_doubtful_about_it() {
        let sound = Sound { length: Duration::from_secs(1), rate_hz: 16_000 };
        let mut output = Output::from(TaskResult::Sound(sound));
        let bare = json!({ "audio_seconds": 1.0, "sample_rate_hz": 16_000 });
        assert_eq!(output_document(&output), bare);
        output.remarks = Remarks {
            basis: Some(Basis::Audio(AudioBasis {
                decoded: Duration::from_secs(3),
                left_out: Duration::from_secs(1),
                peak: 0.5,
                level: 0.25,
                channels: 2,
                channel: Some(1),
                tracks: 1,
            })),
            warnings: vec![Warning {
                code: WarningCode::AudioQuiet,
                message: "hardly to be heard".to_owned(),
            }],
        };
        let document = output_document(&output);
        let basis = json!({ "decoded_seconds": 3.0, "used_share": 0.75, "peak": 0.5, "level": 0.25, "channels": 2, "channel": 1, "tracks": 1 });
        assert_eq!(document["basis"], basis);
        let warnings = json!([{ "code": "audio.quiet", "message": "hardly to be heard" }]);
        assert_eq!(document["warnings"], warnings);
    }
}
