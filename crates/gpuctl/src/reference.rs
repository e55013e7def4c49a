//! `COMMANDS.md`, generated from the definition of the command line. `UPDATE_GOLDEN=1 cargo test` writes it anew.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use crate::arguments::Arguments;
use crate::failure::{Code, Exit};
use crate::render::{LINE_CHARS_MAX, RESULT_CHARS_MAX, VALUE_CHARS_MAX};

/// Lines of the page have at most this many characters.
const WIDTH: usize = 120;

/// The page.
fn page() -> String {
    let mut root = Arguments::command();
    root.build();
    let mut page = String::from(
        "# Commands of gpuctl\n\nGenerated from the definition of the command line: edit `src/arguments.rs`, then run\n\
         `UPDATE_GOLDEN=1 cargo test --workspace --bins -- reference`.\n\n## Options of every command\n\n",
    );
    root.get_arguments().filter(|one| one.is_global_set()).for_each(|one| argument(&mut page, one));
    for command in root.get_subcommands() {
        section(&mut page, command, &mut vec!["gpuctl"]);
    }
    exit_codes(&mut page);
    error_codes(&mut page);
    output(&mut page);
    page
}

fn section<'a>(page: &mut String, command: &'a Command, path: &mut Vec<&'a str>) {
    if command.get_name() == "help" {
        return;
    }
    path.push(command.get_name());
    let _ = write!(page, "\n## `{}`\n\n", path.join(" "));
    wrapped(page, "", &format!("{}.", about(command)));
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|one| !one.is_global_set() && one.get_id() != "help")
        .collect();
    if !command.has_subcommands() || !own.is_empty() {
        usage(page, command, own);
    }
    command.get_subcommands().for_each(|inner| section(page, inner, path));
    path.pop();
}

fn usage(page: &mut String, command: &Command, own: Vec<&Arg>) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace("\n       ", "\n");
    let _ = write!(page, "\n```text\n{usage}\n```\n");
    if !own.is_empty() {
        page.push('\n');
    }
    own.into_iter().for_each(|one| argument(page, one));
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    // Its paragraphs end without a full stop, as a short help does.
    about.map(|text| text.to_string().replace("\n\n", ". ")).unwrap_or_default()
}

fn argument(page: &mut String, argument: &Arg) {
    let values: Vec<&str> = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(clap::builder::Str::as_str)
        .collect();
    let takes_value = argument.get_action().takes_values();
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let flags: Vec<String> = short.into_iter().chain(long).collect();
    let mut name = flags.join(", ");
    if takes_value {
        let _ = write!(name, "{}{}", if name.is_empty() { "" } else { " " }, values.join(" "));
    }
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    if takes_value {
        let defaults: Vec<String> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        if !defaults.is_empty() {
            let _ = write!(help, " [default: {}]", defaults.join(" "));
        }
        let possible: Vec<String> = argument
            .get_possible_values()
            .iter()
            .map(|value| value.get_name().to_owned())
            .collect();
        if !possible.is_empty() {
            let _ = write!(help, " [possible values: {}]", possible.join(", "));
        }
    }
    wrapped(page, "- ", &format!("`{name}`: {help}"));
}

/// A paragraph or list item, wrapped; further lines are indented below the first.
fn wrapped(page: &mut String, bullet: &str, text: &str) {
    let mut line = bullet.to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() >= WIDTH {
            let _ = writeln!(page, "{}", line.trim_end());
            line = " ".repeat(bullet.len());
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(page, "{}", line.trim_end());
}

fn exit_codes(page: &mut String) {
    page.push_str("\n## Exit codes\n\n- `0`: done\n");
    for (exit, meaning) in [
        (Exit::Failed, "the operation failed"),
        (Exit::Usage, "the command line or the configuration is invalid"),
        (Exit::ChangesPending, "`plan --exit-code`: there is something to do"),
        (
            Exit::NotCarriedOut,
            "a start or stop is outranked by another rule, or cannot happen; or a permission is missing",
        ),
        (Exit::TimedOut, "`--wait` timed out; the operation continues"),
        (Exit::OverBudget, "a budget, or a limit that was given, does not allow the cost"),
        (Exit::Interrupted, "interrupted while waiting; the operation continues"),
    ] {
        let _ = writeln!(page, "- `{}`: {meaning}", exit as u8);
    }
}

fn error_codes(page: &mut String) {
    page.push_str("\n## Error codes\n\n");
    wrapped(
        page,
        "",
        "Under `--json` an error is one document `gpuctl.error` on standard error; `error.code` is one of these, and is never \
         renamed. The exit code stands in brackets.",
    );
    page.push('\n');
    for code in Code::ALL {
        let text = format!("`{}` ({}): {}", code.as_str(), code.exit() as u8, code.meaning());
        wrapped(page, "- ", &text);
    }
}

fn output(page: &mut String) {
    page.push_str("\n## Output\n\n");
    let text = format!(
        "Text output escapes control characters, line breaks inside values, and characters that change the direction of text, \
         e.g. `\\u{{1b}}`. It cuts a line after {LINE_CHARS_MAX} characters, a value in an error about the command line after \
         {VALUE_CHARS_MAX}, and a job's text after {RESULT_CHARS_MAX}. Under `--json` standard output is one document, with \
         everything uncut."
    );
    wrapped(page, "", &text);
}

#[test]
fn commands_md_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/COMMANDS.md");
    let page = page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &page).expect("COMMANDS.md can be written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == page,
        "COMMANDS.md is not current: run with UPDATE_GOLDEN=1 and look at the difference"
    );
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}
