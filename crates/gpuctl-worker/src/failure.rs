//! Failures of jobs that the worker finds itself: an input that cannot be fetched, and a result for which there is no room.

use std::error::Error;

use gpuctl_control::input::InputRejected;
use gpuctl_control::job::JobFailure;
use gpuctl_control::ports::PortError;
use gpuctl_control::text::with_causes;

/// An input that cannot be fetched, and could not be by another try either.
pub(crate) fn fetch(error: &PortError) -> JobFailure {
    match error.source().and_then(|cause| cause.downcast_ref::<InputRejected>()) {
        Some(refusal) => failure(refusal.code(), refusal, refusal.hint()),
        None => {
            let hint = error.hint.as_deref().unwrap_or("check that the worker can read it");
            failure("input.unreadable", error, hint)
        }
    }
}

/// A result for which there is no room.
pub(crate) fn commit(error: &PortError) -> JobFailure {
    failure("result.full", error, error.hint.as_deref().unwrap_or("free some disk"))
}

fn failure(code: &str, error: &dyn Error, hint: &str) -> JobFailure {
    JobFailure { code: code.to_owned(), message: with_causes(error), hint: Some(hint.to_owned()) }
}
