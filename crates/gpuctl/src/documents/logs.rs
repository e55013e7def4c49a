//! The document `gpuctl.logs`.

use serde::Serialize;

use gpuctl_control::log::LogLine;
use gpuctl_control::wire::time;

/// `gpuctl.logs`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogsDocument {
    /// Whether older lines are omitted: --limit cuts.
    pub(crate) older_left_out: bool,
    /// The lines, the oldest first.
    pub(crate) lines: Vec<LogLineDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogLineDocument {
    /// The box or the function that wrote it.
    pub(crate) source: String,
    /// When it was written, if it is known.
    pub(crate) at: Option<String>,
    /// E.g. `INFO`, if it has one.
    pub(crate) level: Option<String>,
    /// What it says.
    pub(crate) text: String,
}

impl LogLineDocument {
    /// The document of a line.
    pub(crate) fn of(source: &str, line: &LogLine) -> Self {
        Self {
            source: source.to_owned(),
            at: line.at.map(time),
            level: line.level.clone(),
            text: line.text.clone(),
        }
    }
}
