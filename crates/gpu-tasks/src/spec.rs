//! Which params each task has: name, kind and range, default, meaning.
//!
//! A task's list is what all its models together support. A model that does not support one of them rejects the job
//! when it runs.

use std::fmt;

use crate::task::Task;

/// One param of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamSpec {
    /// The name in jobs.
    pub name: &'static str,
    /// Type and range of its values.
    pub kind: ParamKind,
    /// Whether a job must have it.
    pub need: Need,
    /// What it changes, for users.
    pub meaning: &'static str,
}

/// Whether a job must have a param.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A job may leave it out.
    Optional {
        /// What is used then, for users.
        default: &'static str,
    },
    /// There is no sensible default.
    Required,
}

/// Type and range of a param's values; `Display` describes it for users. All ranges include both ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamKind {
    /// A number; a whole one counts too.
    Number {
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
    },
    /// A whole number.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// True, false, or a whole number in this range.
    FlagOrInteger {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// A text of at least one character. A number counts as its digits.
    Text {
        /// The longest text, in characters.
        chars_max: usize,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of at least one text; a single text is a list of one.
    Texts {
        /// The longest list.
        count_max: usize,
        /// The longest text in it, in characters.
        chars_max: usize,
    },
    /// A list of at least one row of numbers, e.g. points or boxes; a single row is a list of one.
    Rows {
        /// Numbers in a row.
        width: usize,
        /// The longest list.
        count_max: usize,
    },
    /// The URI of a file that is decoded like the task's own input.
    File,
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::FlagOrInteger { min, max } => {
                write!(f, "true, false, or a whole number from {min} to {max}")
            }
            Self::Text { chars_max } => write!(f, "a text of 1 to {chars_max} characters"),
            Self::Choice(known) => write!(f, "one of {}", known.join(", ")),
            Self::Texts { count_max, chars_max } => {
                write!(f, "1 to {count_max} texts of 1 to {chars_max} characters")
            }
            Self::Rows { width, count_max } => {
                write!(f, "1 to {count_max} rows of {width} numbers: [[…], …]")
            }
            Self::File => f.write_str("the URI of a file, e.g. file:///…"),
        }
    }
}

impl Task {
    /// The params that its jobs may have.
    #[must_use]
    pub const fn params(self) -> &'static [ParamSpec] {
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

/// A conference call; more voices than that are not told apart reliably.
const SPEAKERS_MAX: i64 = 20;
/// A language's name or code.
const LANGUAGE_CHARS_MAX: usize = 20;
/// A speaker's or voice's name.
const VOICE_CHARS_MAX: usize = 100;
/// The value of `as` for a text that searches should find; the other value is `query`.
pub const AS_PASSAGE: &str = "passage";
/// Most labels that a picture is compared with: one call of the text tower takes 64.
const LABELS_MAX: usize = 1_000;
/// Longest label or phrase: models take 32 to 64 tokens.
const LABEL_CHARS_MAX: usize = 200;
/// Most points and boxes of a picture: each box is a run of the decoder.
const PROMPTS_MAX: usize = 100;
/// Most labels in a result.
const TOP_MAX: i64 = 1_000;
/// A score or a probability.
const SHARE: ParamKind = ParamKind::Number { min: 0.0, max: 1.0 };
/// The default of a param whose value is the model's business.
const OF_THE_MODEL: Need = Need::Optional { default: "the model's" };

const TRANSCRIBE: &[ParamSpec] = &[
    ParamSpec {
        name: "speakers",
        kind: ParamKind::FlagOrInteger { min: 1, max: SPEAKERS_MAX },
        need: Need::Optional { default: "false" },
        meaning: "say who speaks: `true` finds the number of speakers, a number sets it",
    },
    ParamSpec {
        name: "language",
        kind: ParamKind::Text { chars_max: LANGUAGE_CHARS_MAX },
        need: Need::Optional { default: "detected" },
        meaning: "the language that is spoken (Whisper only)",
    },
];

const SYNTHESIZE: &[ParamSpec] = &[
    ParamSpec {
        name: "voice",
        kind: ParamKind::Text { chars_max: VOICE_CHARS_MAX },
        need: Need::Optional { default: "the model's first" },
        meaning: "the voice, of a model with several",
    },
    ParamSpec {
        name: "language",
        kind: ParamKind::Text { chars_max: LANGUAGE_CHARS_MAX },
        need: Need::Optional { default: "the voice's" },
        meaning: "the language that the text is read in (Kokoro only)",
    },
    ParamSpec {
        name: "speed",
        kind: ParamKind::Number { min: 0.25, max: 4.0 },
        need: Need::Optional { default: "1" },
        meaning: "2 speaks twice as fast",
    },
    ParamSpec {
        name: "noise",
        kind: ParamKind::Number { min: 0.0, max: 2.0 },
        need: OF_THE_MODEL,
        meaning: "how much the sound varies (Piper and MeloTTS only)",
    },
    ParamSpec {
        name: "noise_w",
        kind: ParamKind::Number { min: 0.0, max: 2.0 },
        need: OF_THE_MODEL,
        meaning: "how much the rhythm varies (Piper and MeloTTS only)",
    },
];

const CONVERT: &[ParamSpec] = &[
    ParamSpec {
        name: "reference",
        kind: ParamKind::File,
        need: Need::Required,
        meaning: "a recording of the voice that the result is to have",
    },
    ParamSpec {
        name: "tau",
        kind: SHARE,
        need: Need::Optional { default: "0.3" },
        meaning: "how much the sound may vary; some exports have it built in and reject it",
    },
];

const EMBED_PICTURE: &[ParamSpec] = &[ParamSpec {
    name: "labels",
    kind: ParamKind::Texts { count_max: LABELS_MAX, chars_max: LABEL_CHARS_MAX },
    need: Need::Optional { default: "none" },
    meaning: "return how well each label fits instead of a vector, e.g. `[\"a cat\", \"a dog\"]`",
}];

const SEGMENT: &[ParamSpec] = &[
    ParamSpec {
        name: "points",
        kind: ParamKind::Rows { width: 3, count_max: PROMPTS_MAX },
        need: Need::Optional { default: "none" },
        meaning: "points on the object, `[x, y, 1]`, and beside it, `[x, y, 0]`, in pixels (SAM 2 only)",
    },
    ParamSpec {
        name: "boxes",
        kind: ParamKind::Rows { width: 4, count_max: PROMPTS_MAX },
        need: Need::Optional { default: "none" },
        meaning: "boxes around objects, `[left, top, right, bottom]` in pixels (SAM 2 and 3)",
    },
    ParamSpec {
        name: "text",
        kind: ParamKind::Text { chars_max: LABEL_CHARS_MAX },
        need: Need::Optional { default: "none" },
        meaning: "the name of the objects, e.g. `a cat` (SAM 3 only)",
    },
    ParamSpec {
        name: "score_min",
        kind: SHARE,
        need: OF_THE_MODEL,
        meaning: "leave out objects with a lower score (SAM 3 only)",
    },
];

const DETECT: &[ParamSpec] = &[ParamSpec {
    name: "score_min",
    kind: SHARE,
    need: OF_THE_MODEL,
    meaning: "leave out objects with a lower score",
}];

const EMBED_TEXT: &[ParamSpec] = &[ParamSpec {
    name: "as",
    kind: ParamKind::Choice(&["query", AS_PASSAGE]),
    need: Need::Optional { default: "query" },
    meaning: "whether the text searches or is to be found; only models trained with prefixes (E5) tell them apart",
}];

const CLASSIFY: &[ParamSpec] = &[ParamSpec {
    name: "top",
    kind: ParamKind::Integer { min: 1, max: TOP_MAX },
    need: Need::Optional { default: "5" },
    meaning: "the number of labels in the result, best first",
}];
