//! Lines of logs, as `time level message`.

use super::words::{Lines, short};
use crate::documents::logs::{LogLineDocument, LogsDocument};

/// Whether a line names its box or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOwner {
    /// It does: the lines are of several.
    Shown,
    /// It does not: all lines are of one.
    Omitted,
}

/// The lines; they name their box where they are of several.
pub(super) fn logs(document: &LogsDocument) -> Lines {
    let Some(first) = document.lines.first() else { return Lines::of("no lines") };
    let is_one = document.lines.iter().all(|line| line.source == first.source);
    let owner = if is_one { LogOwner::Omitted } else { LogOwner::Shown };
    let mut lines = Lines::default();
    if document.older_left_out {
        lines.add("… older lines are omitted: a larger --limit shows them");
    }
    for one in &document.lines {
        lines.add(line(one, owner));
    }
    lines
}

pub(super) fn line(line: &LogLineDocument, owner: LogOwner) -> String {
    let source =
        if owner == LogOwner::Shown { format!("{}  ", line.source) } else { String::new() };
    let at = line.at.as_deref().map(|at| format!("{} ", short(at))).unwrap_or_default();
    let level = line.level.as_deref().map(|level| format!("{level:<5} ")).unwrap_or_default();
    // Tabs are common in logs, and harmless: they are shown as spaces and not escaped.
    format!("{source}{at}{level}{}", line.text.replace('\t', "    "))
}
