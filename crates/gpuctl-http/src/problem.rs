//! Errors as clients get them: problem documents (RFC 9457) with a stable code and what to do about it.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use gpu_tasks::TaskError;
use gpuctl_control::input::InputRejected;
use gpuctl_control::job::InputUriError;
use gpuctl_control::media::MediaError;
use gpuctl_control::models::ModelError;
use gpuctl_control::pools::NoQueue;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::submit::SubmitError;
use gpuctl_control::text::with_causes;
use schemars::JsonSchema;
use serde::Serialize;

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) hint: String,
    /// Which part of the body is wrong, as a JSON pointer.
    pub(crate) pointer: Option<String>,
    pub(crate) job_id: Option<String>,
    /// After how many seconds another try may help.
    pub(crate) retry_after: Option<u64>,
}

/// How a problem is written.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProblemDocument {
    /// `urn:gpuctl:error:` and the code.
    r#type: String,
    /// What the status means.
    title: &'static str,
    status: u16,
    /// A short, stable code such as `input.wrong_kind`.
    code: &'static str,
    /// What is wrong.
    detail: String,
    /// What to do about it.
    hint: String,
    /// Which part of the body is wrong, as a JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

/// How long to wait after a failure that may pass.
const RETRY_SECONDS: u64 = 5;

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            hint: String::new(),
            pointer: None,
            job_id: None,
            retry_after: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Of a body that cannot be read.
    pub(crate) fn form(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request.body", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            r#type: format!("urn:gpuctl:error:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            hint: self.hint.clone(),
            pointer: self.pointer.clone(),
            job_id: self.job_id.clone(),
        };
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // An adapter with errors of another shape finds it here.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Self {
        let (status, code) = match error.class {
            PortErrorClass::Full => (StatusCode::INSUFFICIENT_STORAGE, "backend.full"),
            PortErrorClass::NotFound => (StatusCode::NOT_FOUND, "backend.not_found"),
            PortErrorClass::Conflict => (StatusCode::CONFLICT, "backend.conflict"),
            PortErrorClass::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "backend.unavailable"),
            PortErrorClass::Throttled => (StatusCode::SERVICE_UNAVAILABLE, "backend.throttled"),
            PortErrorClass::LeaseLost => (StatusCode::SERVICE_UNAVAILABLE, "backend.lease_lost"),
            PortErrorClass::Denied => (StatusCode::INTERNAL_SERVER_ERROR, "backend.denied"),
            PortErrorClass::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "backend.corrupt"),
            PortErrorClass::TooNew => (StatusCode::INTERNAL_SERVER_ERROR, "backend.too_new"),
            PortErrorClass::Refused(_) | PortErrorClass::TooLarge | PortErrorClass::Other => {
                (StatusCode::INTERNAL_SERVER_ERROR, "backend.other")
            }
        };
        // Causes name files and calls of the server: they are for its log.
        tracing::warn!(error = %gpuctl_control::log::shown(with_causes(&error)), "a request failed");
        let hint = error.hint.clone().unwrap_or_else(|| "see the log of `gpuctl serve`".to_owned());
        let problem = Self::new(status, code, error.what).hint(hint);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => problem.retry_after(RETRY_SECONDS),
            _ => problem,
        }
    }
}

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        let pointer = match &error {
            TaskError::Task(_) | TaskError::Command(_) => "/task",
            TaskError::Param(_) => "/params",
        };
        // The hints are those of the command line, except where they name it.
        let hint = match &error {
            TaskError::Task(_) => "`GET /v1/tasks` lists the tasks".to_owned(),
            TaskError::Param(_) if error.hint().contains("--param") => {
                "send the file as a part of a multipart body that has the param's name".to_owned()
            }
            TaskError::Param(_) | TaskError::Command(_) => error.hint(),
        };
        Self::new(UNPROCESSABLE, error.code(), error.to_string()).hint(hint).at(pointer)
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Self {
        Self::new(UNPROCESSABLE, error.code(), error.to_string()).hint(error.hint()).at("/model")
    }
}

impl From<NoQueue> for Problem {
    fn from(error: NoQueue) -> Self {
        Self::new(UNPROCESSABLE, error.code(), error.to_string()).hint(error.hint()).at("/pool")
    }
}

impl From<MediaError> for Problem {
    fn from(error: MediaError) -> Self {
        let status = match error {
            MediaError::Empty { .. } => UNPROCESSABLE,
            MediaError::WrongKind { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        };
        Self::new(status, error.code(), error.to_string()).hint(error.hint())
    }
}

impl From<InputUriError> for Problem {
    fn from(error: InputUriError) -> Self {
        let hint = "send a text as `text`, a file as the part `file` of a multipart body, or name an `s3://BUCKET/KEY`";
        Self::new(UNPROCESSABLE, "input.uri", error.to_string()).hint(hint).at("/input")
    }
}

impl From<InputRejected> for Problem {
    fn from(error: InputRejected) -> Self {
        Self::new(UNPROCESSABLE, error.code(), error.to_string()).hint(error.hint()).at("/input")
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(error) => error.into(),
            SubmitError::Port(error) => error.into(),
        }
    }
}
