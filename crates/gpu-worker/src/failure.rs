//! Errors as a job's result shows them: a stable code, a sentence with its causes, and a hint. What the codes are is decided
//! where the errors arise.

use std::error::Error;

use gpu_inference::{InputError, ModelError, RunError, RuntimeError, TaskError};
use gpuctl_control::job::{InputUriError, JobFailure};
pub use gpuctl_control::text::with_causes;

/// A failure with this code and hint; its message is the error with its causes.
pub fn failure(code: &str, error: &dyn Error, hint: &str) -> JobFailure {
    JobFailure { code: code.to_owned(), message: with_causes(error), hint: Some(hint.to_owned()) }
}

/// A param that should name a file by its URI, and does not.
#[must_use]
pub fn uri(error: &InputUriError) -> JobFailure {
    failure("input.param", error, error.hint())
}

/// An input that cannot be decoded.
#[must_use]
pub fn input(error: &InputError) -> JobFailure {
    failure(error.code(), error, error.hint())
}

/// A task or params that no worker accepts.
#[must_use]
pub fn task(error: &TaskError) -> JobFailure {
    failure(error.code(), error, &error.hint())
}

/// A model that cannot be opened.
#[must_use]
pub fn model(error: &ModelError) -> JobFailure {
    failure(error.code(), error, error.hint())
}

/// ONNX Runtime that cannot be loaded.
#[must_use]
pub fn runtime(error: &RuntimeError) -> JobFailure {
    failure(error.code(), error, error.hint())
}

/// A model that failed on an input.
#[must_use]
pub fn run(error: &RunError) -> JobFailure {
    failure(error.code(), error, error.hint())
}
