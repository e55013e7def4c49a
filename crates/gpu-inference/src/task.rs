//! The tasks that jobs can ask for.
//!
//! Names only; which model does a task is said by the manifests.

use std::fmt;
use std::str::FromStr;

/// What a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// `voice.transcribe`: speech to text.
    VoiceTranscribe,
    /// `vision.ocr`: the text in a picture.
    VisionOcr,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 2] = [Self::VoiceTranscribe, Self::VisionOcr];

    /// The name in jobs and manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VoiceTranscribe => "voice.transcribe",
            Self::VisionOcr => "vision.ocr",
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
        let expected = "unknown task \"vision.orc\": known are voice.transcribe, vision.ocr";
        assert_eq!(error.to_string(), expected);
    }
}
