//! Lines of logs, as `time level message`.

use super::text;
use crate::documents::logs::{LogLineDocument, LogsDocument};

/// Whether a line says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// It does: several may write.
    Said,
    /// It need not: one was asked for.
    Known,
}

/// The lines; whose they are is said where they are of several.
pub(super) fn logs(document: &LogsDocument) -> String {
    let Some(first) = document.lines.first() else { return "no lines".to_owned() };
    let is_one = document.lines.iter().all(|line| line.source == first.source);
    let whose = if is_one { Whose::Known } else { Whose::Said };
    let mut text = String::new();
    if document.older_left_out {
        text.push_str("… older lines are left out: --limit shows more\n");
    }
    for one in &document.lines {
        text.push_str(&line(one, whose));
        text.push('\n');
    }
    text
}

/// A line.
pub(super) fn line(line: &LogLineDocument, whose: Whose) -> String {
    let source = if whose == Whose::Said { format!("{}  ", line.source) } else { String::new() };
    let at = line.at.as_deref().map(|at| format!("{} ", text::short(at))).unwrap_or_default();
    let level = line.level.as_deref().map(|level| format!("{level:<5} ")).unwrap_or_default();
    format!("{source}{at}{level}{}", line.text)
}
