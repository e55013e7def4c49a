//! Errors as a job's result or a worker's report shows them: a stable code, a sentence with its causes, and a hint. What the codes are,
//! and whose fault each is, is decided where the errors arise.

use std::error::Error;

use gpu_inference::{Blame, InputError, ModelError, RunError, RuntimeError, Task, TaskError};
use gpuctl_control::job::{InputUriError, JobFailure};
pub use gpuctl_control::text::with_causes;
use gpuctl_worker::{BoxFault, Fault};

/// A failure with this code and hint; its message is the error with its causes.
pub fn failure(code: &str, error: &dyn Error, hint: &str) -> JobFailure {
    JobFailure { code: code.to_owned(), message: with_causes(error), hint: Some(hint.to_owned()) }
}

/// A param that should name a file by its URI, and does not.
#[must_use]
pub fn uri(error: &InputUriError) -> JobFailure {
    failure("input.param", error, error.hint())
}

/// A task or params that no worker accepts.
#[must_use]
pub fn task(error: &TaskError) -> JobFailure {
    failure(error.code(), error, &error.hint())
}

/// An input that cannot be decoded for its task.
#[must_use]
pub fn input(error: &InputError, task: Task) -> Fault {
    match error {
        InputError::Cancelled => Fault::Cancelled,
        error => fault(error.blame(), failure(error.code(), error, error.hint(task))),
    }
}

/// A model that cannot be opened.
#[must_use]
pub fn model(error: &ModelError) -> Fault {
    fault(error.blame(), failure(error.code(), error, error.hint()))
}

/// ONNX Runtime that cannot be loaded, or a device that does not work.
#[must_use]
pub fn runtime(error: &RuntimeError) -> Fault {
    fault(error.blame(), failure(error.code(), error, error.hint()))
}

/// A model that failed on an input.
#[must_use]
pub fn run(error: &RunError) -> Fault {
    match error {
        RunError::Cancelled => Fault::Cancelled,
        error => fault(error.blame(), failure(error.code(), error, error.hint())),
    }
}

fn fault(blame: Blame, failure: JobFailure) -> Fault {
    match blame {
        Blame::Input => Fault::Input(failure),
        Blame::Box => Fault::Box(box_fault(failure)),
    }
}

/// What a result would show of it, or the worker's report; nothing of a job that was cancelled.
#[must_use]
pub fn shown(fault: Fault) -> Option<JobFailure> {
    match fault {
        Fault::Input(failure) => Some(failure),
        Fault::Box(BoxFault { code, message, hint }) => Some(JobFailure { code, message, hint }),
        Fault::Cancelled | Fault::HandedOver | Fault::Hung => None,
    }
}

/// The same, said of the box.
#[must_use]
pub fn box_fault(failure: JobFailure) -> BoxFault {
    BoxFault { code: failure.code, message: failure.message, hint: failure.hint }
}
