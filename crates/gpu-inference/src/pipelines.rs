//! What a worker can do with an opened model: run batches, and stop when told.
//!
//! One pipeline is one set of sessions and runs on one thread at a time. Which jobs share a batch is the worker's
//! decision; that the answer does not depend on it is the pipeline's duty.

pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod denoise;
pub(crate) mod detect;
pub(crate) mod ocr;
pub(crate) mod raw;
pub(crate) mod segment;
pub(crate) mod sentence;
pub(crate) mod siglip;
pub(crate) mod synthesize;
pub(crate) mod transcribe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::input::Prepared;
use crate::phonemes::PhonemeError;
use crate::runtime::Device;
use crate::wav::Sound;
use classify::Classification;
use detect::Detections;
use gpu_tasks::Params;
use ocr::Page;
use raw::TensorSummary;
use segment::Segments;
use sentence::Embedding;
use transcribe::Transcript;

/// An opened model.
pub trait Pipeline: Send {
    /// Where it runs.
    fn device(&self) -> Device;

    /// Most inputs that [`Pipeline::run`] takes at once with profit.
    fn batch_max(&self) -> usize;

    /// Answers each input, in order. An answer does not depend on the other inputs.
    ///
    /// # Errors
    /// The work was cancelled, an input is of the wrong kind, or the model failed. Then no input has an answer.
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError>;
}

/// A pipeline's answer to one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// What it says.
    pub result: TaskResult,
    /// What it made.
    pub files: Vec<OutputFile>,
}

/// What a pipeline says, one kind a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// The answer of `voice.transcribe`.
    Transcript(Transcript),
    /// The answer of `vision.ocr`.
    Page(Page),
    /// The answer of every task that makes sound; the sound is its file.
    Sound(Sound),
    /// The answer of `text.embed`, and of `vision.embed` without labels.
    Embedding(Embedding),
    /// The answer of `text.classify`, and of `vision.embed` with labels.
    Classification(Classification),
    /// The answer of `vision.detect`.
    Detections(Detections),
    /// The answer of `vision.segment`.
    Segments(Segments),
    /// The answer of `onnx.run`.
    Tensors(Vec<TensorSummary>),
}

/// A file that belongs to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name, unique within the answer; no folders.
    pub name: String,
    /// What it is, as `audio/wav`.
    pub media_type: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl From<TaskResult> for Output {
    /// An answer without files.
    fn from(result: TaskResult) -> Self {
        Self { result, files: Vec::new() }
    }
}

/// A flag that stops a run between two stages, e.g. when the job's lease is lost. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run shall stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), RunError> {
        if self.is_cancelled() { Err(RunError::Cancelled) } else { Ok(()) }
    }
}

/// Why a batch has no answers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// [`Cancel`] was set.
    #[error("cancelled")]
    Cancelled,
    /// The model's code broke off on an input.
    #[error("the model's code broke off")]
    Panicked,
    /// An input is of the wrong kind.
    #[error("input {index} of the batch is not {wanted}")]
    WrongInput {
        /// Its place in the batch.
        index: usize,
        /// The kind that the pipeline takes.
        wanted: &'static str,
    },
    /// The model cannot use this input, though it is of the right kind.
    #[error("the model cannot use this input: {problem}")]
    Unfit {
        /// Why not.
        problem: String,
    },
    /// ONNX Runtime failed.
    #[error("the model failed in the stage {stage}")]
    Model {
        /// The stage of the pipeline.
        stage: &'static str,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// A param has a value that this model does not know.
    #[error("the param {name} is {found}, not {wanted}")]
    Param {
        /// Its name.
        name: &'static str,
        /// What was given.
        found: String,
        /// What this model knows.
        wanted: String,
    },
    /// The text could not be turned into phonemes.
    #[error("the text cannot be turned into phonemes")]
    Phonemes(#[source] PhonemeError),
    /// A sentence is longer than the model can take.
    #[error("a sentence is too long: {phonemes_max} phonemes are allowed")]
    SentenceTooLong {
        /// The limit.
        phonemes_max: usize,
    },
    /// A text holds what the voice's language cannot be read with.
    #[error("the text has {what}, which cannot be read aloud here")]
    Unreadable {
        /// The kind of letters.
        what: &'static str,
    },
    /// A recording is too short to hear a voice in it.
    #[error("a recording is too short: {seconds_min} s are needed to hear a voice")]
    TooShort {
        /// The limit.
        seconds_min: f32,
    },
    /// Nothing in the text has a sound in this voice.
    #[error("nothing in the text can be said with this voice")]
    NothingToSay,
    /// The model answered with another shape than its graph promises.
    #[error("the model's answer in the stage {stage} has the shape {shape:?}")]
    Shape {
        /// The stage of the pipeline.
        stage: &'static str,
        /// The answer's shape.
        shape: Vec<usize>,
    },
}

impl RunError {
    /// A short, stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unfit { .. } => "input.unfit",
            Self::Param { .. } => "input.param",
            Self::Phonemes(source) => source.code(),
            Self::SentenceTooLong { .. } => "input.sentence_too_long",
            Self::NothingToSay => "input.nothing_to_say",
            Self::Unreadable { .. } => "input.unreadable_text",
            Self::TooShort { .. } => "input.too_short",
            _ => "model.run",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Cancelled => "another worker has the job",
            Self::Panicked => "please report it, with the input",
            Self::WrongInput { .. } => "decode the input for the model's own task",
            Self::Unfit { .. } => {
                "change the input or its params as it says, or name another model"
            }
            Self::Model { .. } => {
                "try it alone; if it runs then, the batch needed more memory than there is"
            }
            Self::Param { .. } => "leave it out for the model's default, or name another model",
            Self::Phonemes(source) => source.hint(),
            Self::SentenceTooLong { .. } => "end sentences with a full stop, or begin new lines",
            Self::Unreadable { .. } => "write it in kana, or as it is spoken",
            Self::TooShort { .. } => "submit a longer recording",
            Self::NothingToSay => "check the text's language against the voice's",
            Self::Shape { .. } => "the manifest names a file of another model",
        }
    }
}

/// A wish that the model cannot mind is refused: to leave it unheard would be worse.
pub(crate) fn reject_unsupported_params(
    params: &Params,
    supported: &[&str],
) -> Result<(), RunError> {
    let Some(name) = params.given().find(|name| !supported.contains(name)) else { return Ok(()) };
    let known = if supported.is_empty() { "no params".to_owned() } else { supported.join(", ") };
    let wanted = format!("absent: this model supports {known}");
    Err(RunError::Param { name, found: "given".to_owned(), wanted })
}

/// Names the stage in an error of ONNX Runtime.
pub(crate) fn failed(stage: &'static str) -> impl Fn(ort::Error) -> RunError {
    move |source| RunError::Model { stage, source }
}
