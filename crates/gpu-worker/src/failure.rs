//! Errors as a job's result shows them: a stable code, a sentence with its causes, and a hint. What the codes are is decided
//! where the errors arise.

use std::error::Error;

use gpu_inference::{InputError, ModelError, RunError, RuntimeError, TaskError};
use gpuctl_control::input::InputRejected;
use gpuctl_control::job::{InputUriError, JobFailure};
use gpuctl_control::ports::PortError;
pub use gpuctl_control::text::with_causes;

/// A failure with this code and hint; its message is the error with its causes.
pub fn failure(code: &str, error: &dyn Error, hint: &str) -> JobFailure {
    JobFailure { code: code.to_owned(), message: with_causes(error), hint: Some(hint.to_owned()) }
}

/// An input that cannot be fetched, and could not be by another try either.
#[must_use]
pub fn fetch(error: &PortError) -> JobFailure {
    match error.source().and_then(|cause| cause.downcast_ref::<InputRejected>()) {
        Some(refusal) => failure(refusal.code(), refusal, refusal.hint()),
        None => {
            let hint = error.hint.as_deref().unwrap_or("check that the worker can read it");
            failure("input.unreadable", error, hint)
        }
    }
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

/// A result for which there is no room.
#[must_use]
pub fn commit(error: &PortError) -> JobFailure {
    failure("result.full", error, error.hint.as_deref().unwrap_or("free some disk"))
}
