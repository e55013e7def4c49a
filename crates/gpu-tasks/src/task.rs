//! The names of the tasks. Which model does a task is said by the models' manifests.

use std::fmt;
use std::str::FromStr;

/// What a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// `voice.transcribe`: speech to text.
    VoiceTranscribe,
    /// `voice.synthesize`: text to speech.
    VoiceSynthesize,
    /// `voice.convert`: speech in the voice of a reference recording.
    VoiceConvert,
    /// `voice.denoise`: speech without the noise.
    VoiceDenoise,
    /// `vision.ocr`: the text in a picture.
    VisionOcr,
    /// `vision.embed`: a picture or text as a vector.
    VisionEmbed,
    /// `vision.segment`: masks of what is in a picture.
    VisionSegment,
    /// `vision.detect`: boxes around what is in a picture.
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

/// A name that is not one of [`Task::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no task `{}`: {}{}", crate::shown(given), did_you_mean(given), known())]
pub struct UnknownTask {
    /// What was given, in full.
    pub given: String,
}

impl UnknownTask {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "task.unknown"
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "`gpuctl submit --help` lists the tasks"
    }
}

fn did_you_mean(given: &str) -> String {
    let near = crate::nearest(given, Task::ALL.map(Task::name));
    near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default()
}

fn known() -> String {
    format!("known are {}", Task::ALL.map(Task::name).join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_back() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_and_all_known_ones() {
        let error = "vision.orc".parse::<Task>().unwrap_err().to_string();
        let expected = "there is no task `vision.orc`: did you mean `vision.ocr`? known are voice.transcribe, ";
        assert!(error.starts_with(expected), "{error}");
        let error = "transcribe".parse::<Task>().unwrap_err().to_string();
        assert!(error.starts_with("there is no task `transcribe`: known are "), "{error}");
        let long = "\u{1b}".repeat(1_000).parse::<Task>().unwrap_err().to_string();
        assert!(long.len() < 1_000 && !long.contains('\u{1b}'), "{long}");
    }
}
