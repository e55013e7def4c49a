//! The document `gpuctl.logs`.

use serde::Serialize;

use super::time;
use crate::log::LogLine;

/// `gpuctl.logs`.
#[derive(Clone, Debug, Serialize)]
pub struct LogsDocument {
    /// Whether there are older lines that were left out.
    pub older_left_out: bool,
    /// The lines, the oldest first.
    pub lines: Vec<LogLineDocument>,
}

/// A line.
#[derive(Clone, Debug, Serialize)]
pub struct LogLineDocument {
    /// The box or the function whose it is.
    pub source: String,
    /// When it was written, if it is known.
    pub at: Option<String>,
    /// Its weight, as `INFO`, if it has one.
    pub level: Option<String>,
    /// What it says.
    pub text: String,
}

impl LogLineDocument {
    /// The document of a line.
    #[must_use]
    pub fn of(source: &str, line: &LogLine) -> Self {
        Self {
            source: source.to_owned(),
            at: line.at.map(time),
            level: line.level.clone(),
            text: line.text.clone(),
        }
    }
}
