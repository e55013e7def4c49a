//! The documents that are stored as JSON, or that two programs exchange. What gpuctl alone prints is in its `documents`.
//!
//! A document names its `schema` and `version`. Within a version fields are only ever added. Numbers carry their unit in
//! their name, times are RFC 3339 in UTC.

pub mod explain;
pub mod function;
pub mod job;
pub mod models;
pub mod output;
pub mod plan;
pub mod record;
pub mod status;

use chrono::TimeDelta;
use gpuctl_core::plan::Reason;
use gpuctl_core::units::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A time as it is written: RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A span in seconds, to the millisecond.
#[must_use]
pub fn seconds(span: TimeDelta) -> f64 {
    span.num_milliseconds() as f64 / 1e3
}

/// A rule and its sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReasonDocument {
    pub rule: String,
    pub text: String,
}

impl From<&Reason> for ReasonDocument {
    fn from(reason: &Reason) -> Self {
        Self { rule: reason.rule.as_str().to_owned(), text: reason.text.clone() }
    }
}

/// A document under its name and version.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Versioned<D> {
    /// The schema's name, as `gpuctl.status`.
    pub schema: &'static str,
    /// Grows when a field changes its meaning or goes away.
    pub version: u32,
    /// The document's own fields.
    #[serde(flatten)]
    pub document: D,
}
