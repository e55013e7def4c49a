//! clap's parse errors as failures: with a code, and with values from the command line made safe to show.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Code, Failure};
use crate::render::shown;

impl From<&clap::Error> for Failure {
    fn from(error: &clap::Error) -> Self {
        let text = safe_text(error);
        let mut paragraphs = text.split("\n\n");
        let first = paragraphs.next().unwrap_or_default();
        let message = one_line(first.trim_start_matches("error: "));
        let is_hint =
            |part: &&str| part.trim_start().starts_with("tip:") || part.starts_with("Usage:");
        let hints: Vec<String> = paragraphs.filter(is_hint).flat_map(hints).collect();
        let failure = Self::new(code(error.kind()), message);
        if hints.is_empty() { failure } else { failure.hint(hints.join("; ")) }
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::UnknownArgument => Code::UsageUnknownArgument,
        ErrorKind::InvalidSubcommand => Code::UsageUnknownCommand,
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
            Code::UsageInvalidValue
        }
        ErrorKind::NoEquals | ErrorKind::TooFewValues | ErrorKind::MissingRequiredArgument => {
            Code::UsageMissingArgument
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Code::UsageMissingCommand
        }
        ErrorKind::ArgumentConflict => Code::UsageConflict,
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues => Code::UsageTooManyValues,
        _ => Code::UsageOther,
    }
}

/// clap's text, with each value from the command line replaced by its shown form: a value must not add lines or
/// paragraphs, on which the parsing above relies.
fn safe_text(error: &clap::Error) -> String {
    let mut values: Vec<&str> =
        error.context().flat_map(|(kind, value)| given(kind, value)).collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let mut text = error.render().to_string();
    for value in values {
        let safe = shown(value);
        if safe != *value {
            text = text.replace(value, &safe);
        }
    }
    text
}

/// The parts of an error's context that the user typed.
fn given(kind: ContextKind, value: &ContextValue) -> Vec<&str> {
    match (kind, value) {
        (ContextKind::Usage | ContextKind::Custom, _) => Vec::new(),
        (_, ContextValue::String(text)) => vec![text],
        (_, ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The tips, or the usage line.
fn hints(paragraph: &str) -> Vec<String> {
    if let Some(usage) = paragraph.strip_prefix("Usage:") {
        return vec![format!("usage: {}", one_line(usage))];
    }
    paragraph.split("tip:").map(one_line).filter(|tip| !tip.is_empty()).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
