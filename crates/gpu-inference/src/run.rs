//! What a pipeline does: it runs batches, and stops when told to.
//!
//! Which jobs share a batch is the worker's decision; that a result does not depend on it is the pipeline's duty.

use gpu_tasks::{Blame, Params};
use ort::session::{Session, SessionInputs, SessionOutputs};

pub(crate) use crate::cancel::Cancel;
use crate::cancel::Cancelled;
use crate::input::Prepared;
use crate::onnx_error::{About, OnnxError};
use crate::output::Output;
use crate::preparation::Preparation;
use crate::preprocess::phonemes::PhonemeError;

/// The code of a model family, with its opened sessions.
pub(crate) trait Run: Send {
    /// One output for each input, in order, none of which depends on the other inputs.
    ///
    /// # Errors
    /// The work was cancelled, an input is of the wrong kind, or the model failed. Then no input has an output.
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError>;

    /// How its inputs are prepared before their batch runs; `None`: they are run as they were decoded.
    fn preparation(&self) -> Option<Preparation> {
        None
    }
}

/// Why a batch has no outputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// [`Cancel`] was set.
    #[error("cancelled")]
    Cancelled,
    /// The model's code panicked on an input.
    #[error("the model's code panicked")]
    Panicked,
    /// An input is of the wrong kind.
    #[error("input {index} of the batch is not {wanted}")]
    WrongInput {
        /// Position in the batch, from 0.
        index: usize,
        wanted: &'static str,
    },
    /// A file for a model of texts is none.
    #[error("the file is not a text")]
    NotText,
    /// A text of white space only, or a file without a byte.
    #[error("the file holds no text")]
    NoText,
    /// The model cannot use this input, though it is of the right kind.
    #[error("the model cannot use this input: {problem}")]
    Unfit { problem: String },
    /// ONNX Runtime failed.
    #[error("the model failed in the stage {stage}")]
    Model {
        stage: &'static str,
        #[source]
        source: OnnxError,
    },
    /// A param has a value that this model does not know.
    #[error("the param {name} is {found}, not {wanted}")]
    Param { name: &'static str, found: String, wanted: String },
    /// The task has the param, but this model does not support it.
    #[error("this model does not support the param {name}: {reason}")]
    UnsupportedParam { name: &'static str, reason: String },
    /// The text could not be turned into phonemes.
    #[error("the text cannot be turned into phonemes")]
    Phonemes(#[source] PhonemeError),
    /// Most letters of a text are none of the voice's language.
    #[error(
        "most letters of the text are {script}, which a voice for the language {language} cannot read aloud"
    )]
    WrongScript { script: &'static str, language: String },
    /// A text has letters that cannot be read aloud in the voice's language.
    #[error("the text has {what}, which this voice cannot read aloud")]
    Unreadable { what: &'static str },
    /// A recording is too short to recognise a voice.
    #[error("a recording is too short: {seconds_min} s are needed to recognise a voice")]
    TooShort { seconds_min: f32 },
    /// Nothing in the text has a sound in this voice.
    #[error("nothing in the text can be said with this voice")]
    NothingToSay,
    /// An output has another shape than the graph declares.
    #[error("the model's output in the stage {stage} has the wrong shape {shape:?}")]
    Shape { stage: &'static str, shape: Vec<usize> },
}

impl From<Cancelled> for RunError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<PhonemeError> for RunError {
    fn from(error: PhonemeError) -> Self {
        match error {
            PhonemeError::Cancelled => Self::Cancelled,
            error => Self::Phonemes(error),
        }
    }
}

impl RunError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotText => "input.wrong_kind",
            Self::NoText => "input.no_text",
            Self::Unfit { .. } => "input.unfit",
            Self::Param { .. } | Self::UnsupportedParam { .. } => "input.param",
            Self::Phonemes(source) => source.code(),
            Self::NothingToSay => "input.nothing_to_say",
            Self::Unreadable { .. } | Self::WrongScript { .. } => "input.unreadable_text",
            Self::TooShort { .. } => "input.too_short",
            // A job's task and model are matched before a batch is made, so a wrong kind is a fault of the program.
            Self::Cancelled | Self::Panicked | Self::WrongInput { .. } | Self::Shape { .. } => {
                "model.run"
            }
            Self::Model { source, .. } => match source.about() {
                About::TooMuchMemory => "input.memory",
                about => about.code().unwrap_or("model.run"),
            },
        }
    }

    /// Whose fault it is, if the input was alone in its batch. A run that was cancelled says nothing about its input.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Cancelled => Blame::Box,
            Self::Model { source, .. } => source.blame(),
            Self::Phonemes(source) => source.blame(),
            // A model's graphs were checked when it was opened, so what fails now, and alone, fails because of its input.
            Self::Panicked
            | Self::WrongInput { .. }
            | Self::NotText
            | Self::NoText
            | Self::Unfit { .. }
            | Self::Param { .. }
            | Self::UnsupportedParam { .. }
            | Self::WrongScript { .. }
            | Self::Unreadable { .. }
            | Self::TooShort { .. }
            | Self::NothingToSay
            | Self::Shape { .. } => Blame::Input,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Cancelled => "the job was cancelled; another worker may have it",
            Self::Panicked => "please report it with the input",
            Self::WrongInput { .. } => "decode the input for the model's own task",
            Self::NotText => {
                "submit a text; Magika (`--model magika-v3-3`) tells what other files are"
            }
            Self::NoText => "write the text into the file",
            Self::Unfit { .. } => {
                "change the input or its params accordingly, or name another model"
            }
            Self::Model { source, .. } => source.hint(),
            Self::Param { .. } | Self::UnsupportedParam { .. } => {
                "leave it out for the model's default, or name another model"
            }
            Self::Phonemes(source) => source.hint(),
            Self::WrongScript { .. } => {
                "name a model of the text's language with --model, or the language with --param language=…"
            }
            Self::Unreadable { .. } => "write these letters as they are spoken, Japanese in kana",
            Self::TooShort { .. } => "submit a longer recording",
            Self::NothingToSay => "check the text's language against the voice's",
            Self::Shape { .. } => "the manifest names a file of another model",
        }
    }
}

/// Rejects a param that the task has but the model does not support: ignoring it silently is worse.
pub(crate) fn reject_unsupported_params(
    params: &Params,
    supported: &[&str],
) -> Result<(), RunError> {
    let Some(name) = params.given().find(|name| !supported.contains(name)) else { return Ok(()) };
    let known = if supported.is_empty() { "no params".to_owned() } else { supported.join(", ") };
    Err(RunError::UnsupportedParam { name, reason: format!("it supports {known}") })
}

/// Runs a session; a cancelled job ends it between two nodes of its graph.
pub(crate) fn run_session<'r, 's: 'r, 'i, 'v: 'i, const N: usize>(
    session: &'s mut Session,
    stage: &'static str,
    inputs: impl Into<SessionInputs<'i, 'v, N>>,
    cancel: &'r Cancel,
) -> Result<SessionOutputs<'r>, RunError> {
    let options = cancel.run_options().map_err(failed(stage))?;
    cancel.check()?;
    session.run_with_options(inputs, options).map_err(failed(stage))
}

/// Adds the stage to an error of ONNX Runtime.
pub(crate) fn failed(stage: &'static str) -> impl Fn(ort::Error) -> RunError {
    move |error| match OnnxError::from(error) {
        stopped if stopped.about() == About::Stopped => RunError::Cancelled,
        source => RunError::Model { stage, source },
    }
}
