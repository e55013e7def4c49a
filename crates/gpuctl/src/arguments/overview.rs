//! The commands in groups: what `gpuctl` says without a command, and the list of `gpuctl --help`.

use std::fmt::Write;

use clap::{Command, CommandFactory};

use super::Arguments;

/// Each command is in one group.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Boxes",
        &[
            "status",
            "start",
            "start-gpu",
            "start-app",
            "start-all",
            "stop",
            "stop-gpu",
            "stop-app",
            "stop-all",
            "release",
            "explain",
            "plan",
            "schedule",
            "drain",
            "retire",
            "logs",
        ],
    ),
    (
        "Jobs",
        &["submit", "jobs", "job", "retry", "cancel", "queue", "redrive", "purge", "serve", "keys"],
    ),
    ("Cost", &["cost", "simulate", "tune", "history"]),
    (
        "Setup",
        &[
            "init",
            "config",
            "doctor",
            "models",
            "run",
            "backup",
            "restore",
            "completions",
            "man",
            "version",
        ],
    ),
    ("AWS", &["deploy", "diff", "destroy", "invoke"]),
];

/// Lines of the list have at most this many characters.
const WIDTH: usize = 100;
/// Where descriptions begin.
const INDENT: usize = 15;

/// The command line's definition, with the commands of `--help` in groups.
pub(crate) fn command() -> Command {
    let command = Arguments::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}Options:\n{{options}}{{after-help}}",
        list(&command)
    );
    command.help_template(template)
}

/// What `gpuctl` alone prints.
pub(crate) fn overview() -> String {
    let mut text = String::from(
        "gpuctl runs GPU boxes only while there is work for them.\n\n\
         \x20 gpuctl init                                   write a commented gpuctl.toml\n\
         \x20 gpuctl submit voice.transcribe FILE --wait    run a job on this machine\n\
         \x20 gpuctl status                                 see what is on, and why\n\n",
    );
    for (group, names) in GROUPS {
        // `start` stands for `start-gpu` and the like.
        let names: Vec<&str> = names.iter().copied().filter(|name| !name.contains('-')).collect();
        let _ = writeln!(text, "{group:<7}{}", names.join(" "));
    }
    text + "`gpuctl --help` describes them all, `gpuctl COMMAND --help` one of them."
}

/// The commands with their descriptions, group by group.
fn list(command: &Command) -> String {
    let mut text = String::new();
    for (group, names) in GROUPS {
        let _ = writeln!(text, "{group}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            line(&mut text, name, &about.map(ToString::to_string).unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

/// A command and its description, wrapped.
fn line(text: &mut String, name: &str, about: &str) {
    let mut line = format!("  {name:<width$}", width = INDENT - 3);
    for word in about.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = " ".repeat(INDENT - 1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let command = Arguments::command();
        let mut known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }

    #[test]
    fn the_overview_fits_on_a_small_terminal() {
        let text = overview();
        assert!(text.lines().count() <= 12, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
