//! clap's parse errors as failures: with a code, and with values from the command line made safe to show.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use gpuctl_core::suggest::nearest;

use super::{Code, Failure};
use crate::render::shown;

impl From<&clap::Error> for Failure {
    fn from(error: &clap::Error) -> Self {
        let text = safe_text(error);
        let mut paragraphs = text.split("\n\n");
        let first = paragraphs.next().unwrap_or_default();
        let message = one_line(first.trim_start_matches("error: "));
        match error.kind() {
            ErrorKind::InvalidSubcommand => {
                return Self::new(Code::UsageUnknownCommand, message).hint(other_command(error));
            }
            // clap lists all commands there.
            ErrorKind::MissingSubcommand if message.starts_with("'gpuctl' requires") => {
                return Self::new(Code::UsageMissingCommand, "no command was given").hint(COMMANDS);
            }
            _ => {}
        }
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

const COMMANDS: &str = "`gpuctl` alone lists the commands, `gpuctl --help` describes them";

/// The commands that other programs call by other names.
const OTHER_NAMES: [(&str, &str); 13] = [
    ("apply", "plan"),
    ("dash", "serve"),
    ("delete", "cancel"),
    ("info", "status"),
    ("list", "jobs"),
    ("login", "doctor"),
    ("ls", "jobs"),
    ("ps", "status"),
    ("result", "job"),
    ("rm", "cancel"),
    ("top", "status"),
    ("undeploy", "destroy"),
    ("why", "explain"),
];

/// What to type in place of a command that there is not: the one that is meant by another name, or the nearest; never several, of which one could
/// stop a box.
fn other_command(error: &clap::Error) -> String {
    let given = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(given)) => given.as_str(),
        _ => "",
    };
    let root = crate::arguments::command();
    let same = OTHER_NAMES.iter().find(|(other, _)| *other == given).map(|(_, name)| *name);
    let near = || nearest(given, root.get_subcommands().map(Command::get_name));
    let inner = || {
        let below = |outer: &Command| {
            let name = nearest(given, outer.get_subcommands().map(Command::get_name))?;
            Some(format!("{} {name}", outer.get_name()))
        };
        root.get_subcommands().find_map(below)
    };
    match same.or_else(near).map(ToOwned::to_owned).or_else(inner) {
        Some(name) => format!("did you mean `gpuctl {name}`? `gpuctl` alone lists the commands"),
        None => COMMANDS.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(line: &str) -> String {
        let error = crate::arguments::command().try_get_matches_from(line.split(' '));
        Failure::from(&error.expect_err("not a command")).hint.unwrap_or_default()
    }

    #[test]
    fn a_mistyped_command_gets_one_suggestion() {
        for (line, expected) in [
            ("gpuctl statsu", "gpuctl status"),
            ("gpuctl stpo-gpu", "gpuctl stop-gpu"),
            ("gpuctl cost reprot", "gpuctl cost report"),
        ] {
            assert!(hint(line).starts_with(&format!("did you mean `{expected}`?")), "{line}");
        }
    }

    #[test]
    fn no_word_is_taken_for_a_command_that_stops_boxes() {
        for word in ["top", "stp", "shop", "retry-all", "destiny"] {
            let hint = hint(&format!("gpuctl {word}"));
            assert!(
                ["`gpuctl stop", "purge", "retire", "destroy"]
                    .iter()
                    .all(|name| !hint.contains(name)),
                "{word}: {hint}"
            );
        }
    }

    #[test]
    fn other_programs_names_lead_to_commands_that_there_are() {
        let root = crate::arguments::command();
        for (other, name) in OTHER_NAMES {
            assert!(root.find_subcommand(name).is_some(), "{name}");
            assert!(root.find_subcommand(other).is_none(), "{other}");
        }
    }
}
