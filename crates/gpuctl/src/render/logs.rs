//! Lines of logs, as `time level message`.

use super::text;
use crate::documents::logs::{LogLineDocument, LogsDocument};

/// Whether a line says owner it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOwner {
    /// It does: the lines are of several.
    Shown,
    /// It does not: all lines are of one.
    Omitted,
}

/// The lines; they name their box where they are of several.
pub(super) fn logs(document: &LogsDocument) -> String {
    let Some(first) = document.lines.first() else { return "no lines".to_owned() };
    let is_one = document.lines.iter().all(|line| line.source == first.source);
    let owner = if is_one { LogOwner::Omitted } else { LogOwner::Shown };
    let mut text = String::new();
    if document.older_left_out {
        text.push_str("… older lines are omitted: a larger --limit shows them\n");
    }
    for one in &document.lines {
        text.push_str(&line(one, owner));
        text.push('\n');
    }
    text
}

pub(super) fn line(line: &LogLineDocument, owner: LogOwner) -> String {
    let source =
        if owner == LogOwner::Shown { format!("{}  ", line.source) } else { String::new() };
    let at = line.at.as_deref().map(|at| format!("{} ", text::short(at))).unwrap_or_default();
    let level = line.level.as_deref().map(|level| format!("{level:<5} ")).unwrap_or_default();
    format!("{source}{at}{level}{}", line.text)
}
