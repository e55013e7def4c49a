//! The tasks that jobs can ask for.
//!
//! Names only; which model does a task is said by the manifests.

use std::fmt;
use std::str::FromStr;

use crate::params::{Need, ParamKind, ParamSpec};

/// What a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// `voice.transcribe`: speech to text.
    VoiceTranscribe,
    /// `voice.synthesize`: text to speech.
    VoiceSynthesize,
    /// `voice.convert`: speech in the voice of a reference.
    VoiceConvert,
    /// `voice.denoise`: speech without the noise.
    VoiceDenoise,
    /// `vision.ocr`: the text in a picture.
    VisionOcr,
    /// `vision.embed`: a picture or text as a vector.
    VisionEmbed,
    /// `vision.segment`: masks of what is in a picture.
    VisionSegment,
    /// `vision.detect`: boxes of what is in a picture.
    VisionDetect,
    /// `text.embed`: a text as a vector.
    TextEmbed,
    /// `text.classify`: labels for a text or file.
    TextClassify,
    /// `onnx.run`: any model on tensors.
    OnnxRun,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 11] = [
        Self::VoiceTranscribe,
        Self::VoiceSynthesize,
        Self::VoiceConvert,
        Self::VoiceDenoise,
        Self::VisionOcr,
        Self::VisionEmbed,
        Self::VisionSegment,
        Self::VisionDetect,
        Self::TextEmbed,
        Self::TextClassify,
        Self::OnnxRun,
    ];

    /// The name in jobs and manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VoiceTranscribe => "voice.transcribe",
            Self::VoiceSynthesize => "voice.synthesize",
            Self::VoiceConvert => "voice.convert",
            Self::VoiceDenoise => "voice.denoise",
            Self::VisionOcr => "vision.ocr",
            Self::VisionEmbed => "vision.embed",
            Self::VisionSegment => "vision.segment",
            Self::VisionDetect => "vision.detect",
            Self::TextEmbed => "text.embed",
            Self::TextClassify => "text.classify",
            Self::OnnxRun => "onnx.run",
        }
    }

    /// The params that its jobs may have.
    #[must_use]
    pub(crate) const fn params(self) -> &'static [ParamSpec] {
        match self {
            Self::VoiceTranscribe => TRANSCRIBE,
            Self::VoiceSynthesize => SYNTHESIZE,
            Self::VoiceConvert => CONVERT,
            Self::VisionEmbed => EMBED_PICTURE,
            Self::VisionSegment => SEGMENT,
            Self::VisionDetect => DETECT,
            Self::TextEmbed => EMBED_TEXT,
            Self::TextClassify => CLASSIFY,
            Self::VoiceDenoise | Self::VisionOcr | Self::OnnxRun => &[],
        }
    }
}

const CONVERT: &[ParamSpec] = &[
    required("reference", ParamKind::File),
    optional("tau", ParamKind::Number { min: 0.0, max: 1.0 }),
];

const TRANSCRIBE: &[ParamSpec] = &[
    optional("speakers", ParamKind::FlagOrInteger { min: 1, max: SPEAKERS_MAX }),
    optional("language", ParamKind::Text { chars_max: 20 }),
];

/// A conference call; more voices than that are not told apart reliably.
const SPEAKERS_MAX: i64 = 20;

/// Which of them a voice minds depends on its family.
const SYNTHESIZE: &[ParamSpec] = &[
    optional("voice", ParamKind::Text { chars_max: 100 }),
    optional("language", ParamKind::Text { chars_max: 20 }),
    optional("speed", ParamKind::Number { min: 0.25, max: 4.0 }),
    optional("noise", ParamKind::Number { min: 0.0, max: 2.0 }),
    optional("noise_w", ParamKind::Number { min: 0.0, max: 2.0 }),
];

/// The choice of `as` for a text that is to be found; the other is a question.
pub(crate) const AS_PASSAGE: &str = "passage";
/// Most labels that a picture is compared with: one call of the text tower takes 64.
const LABELS_MAX: usize = 1_000;
/// Longest label or phrase: models take 32 to 64 tokens.
const LABEL_CHARS_MAX: usize = 200;
/// Most points and boxes of a picture: each box is a run of the decoder.
const PROMPTS_MAX: usize = 100;
/// Most labels in an answer.
const TOP_MAX: i64 = 1_000;

const EMBED_PICTURE: &[ParamSpec] =
    &[optional("labels", ParamKind::Texts { count_max: LABELS_MAX, chars_max: LABEL_CHARS_MAX })];
const SEGMENT: &[ParamSpec] = &[
    optional("points", ParamKind::Rows { width: 3, count_max: PROMPTS_MAX }),
    optional("boxes", ParamKind::Rows { width: 4, count_max: PROMPTS_MAX }),
    optional("text", ParamKind::Text { chars_max: LABEL_CHARS_MAX }),
    optional("score_min", SHARE),
];
const DETECT: &[ParamSpec] = &[optional("score_min", SHARE)];
const EMBED_TEXT: &[ParamSpec] = &[optional("as", ParamKind::Choice(&["query", AS_PASSAGE]))];
const CLASSIFY: &[ParamSpec] = &[optional("top", ParamKind::Integer { min: 1, max: TOP_MAX })];
const SHARE: ParamKind = ParamKind::Number { min: 0.0, max: 1.0 };

const fn optional(name: &'static str, kind: ParamKind) -> ParamSpec {
    ParamSpec { name, kind, need: Need::Optional }
}

const fn required(name: &'static str, kind: ParamKind) -> ParamSpec {
    ParamSpec { name, kind, need: Need::Required }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(text: &str) -> Result<Self, UnknownTask> {
        let task = Self::ALL.into_iter().find(|task| task.name() == text);
        task.ok_or_else(|| UnknownTask { given: text.to_owned() })
    }
}

/// A task that no code does.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown task {given:?}: known are {}", Task::ALL.map(Task::name).join(", "))]
pub struct UnknownTask {
    /// What was given.
    pub given: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_alike_and_a_wrong_one_lists_the_known() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        let error = "vision.orc".parse::<Task>().unwrap_err();
        let expected = "unknown task \"vision.orc\": known are voice.transcribe, voice.synthesize,";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
