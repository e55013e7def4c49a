//! `config` as text.

use super::words::Lines;
use crate::documents::config::{
    ConfigPathDocument, ConfigShowDocument, ConfigValidDocument, SettingDocument,
};

pub(super) fn path(document: &ConfigPathDocument) -> Lines {
    let mut lines = Lines::of(&document.config);
    lines.label("state", &document.state);
    if let Some(other) = &document.not_used {
        lines.label("not used", format!("{other}: the other one is nearer"));
    }
    lines
}

pub(super) fn valid(document: &ConfigValidDocument) -> Lines {
    Lines::of(format!("{} is valid; pools: {}", document.config, document.pools.join(", ")))
}

/// As a file that says everything: what has no value is a comment.
pub(super) fn show(document: &ConfigShowDocument) -> Lines {
    let mut lines = Lines::of(format!("# {}", document.config));
    for section in &document.sections {
        lines.blank();
        lines.add(&section.heading);
        for setting in &section.settings {
            let origin = if document.show_origin {
                format!("  # {}", origin(setting))
            } else {
                String::new()
            };
            for line in assignment(setting).lines() {
                lines.add(format!("{line}{origin}"));
            }
        }
    }
    lines
}

fn assignment(setting: &SettingDocument) -> String {
    match (&setting.value, setting.words) {
        (Some(value), _) => format!("{} = {value}", setting.key),
        (None, words) => format!("# {}: {}", setting.key, words.unwrap_or("none")),
    }
}

fn origin(setting: &SettingDocument) -> String {
    match setting.line {
        Some(line) => format!("line {line}"),
        None => setting.origin.clone(),
    }
}
