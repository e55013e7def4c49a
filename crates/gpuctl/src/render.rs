//! The only place that prints: output on standard output, everything else on standard error.
//!
//! Under `--json` standard output holds one JSON document and nothing else, and an error is one JSON document on standard error.

mod answer;
mod config;
mod cost;
#[cfg(feature = "aws")]
mod function;
mod jobs;
mod keys;
mod logs;
mod models;
mod output;
mod progress;
mod schedule;
mod simulate;
#[cfg(feature = "deploy")]
mod stack;
mod status;
mod text;
mod words;

use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::error::ErrorKind as ClapErrorKind;
use gpuctl_control::Reconciled;
use gpuctl_control::wire::plan::verb;
use serde::Serialize;

use crate::documents::logs::LogLineDocument;
use crate::documents::reply::{ErrorBody, ErrorDocument, versioned};
#[cfg(feature = "deploy")]
use crate::documents::stack::DifferenceDocument;
use crate::failure::{Code, Exit, Failure};
pub(crate) use logs::LogOwner;
pub(crate) use output::Output;
pub(crate) use progress::{Progress, Weeks};
pub(crate) use simulate::{Page, page};
#[cfg(test)]
pub(crate) use words::{LINE_CHARS_MAX, RESULT_CHARS_MAX, VALUE_CHARS_MAX};
pub(crate) use words::{escaped_line, shown};

/// How output is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Whether a command asks before something that cannot be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    Ask,
    /// `--yes`
    Given,
}

/// Prints.
pub(crate) struct Printer {
    format: Format,
    confirmation: Confirmation,
    last_states: Mutex<Vec<(String, String)>>,
}

impl Printer {
    pub(crate) fn new(format: Format, confirmation: Confirmation) -> Self {
        Self { format, confirmation, last_states: Mutex::default() }
    }

    /// Prints the output of a command. A reader that closed the pipe is not an error.
    pub(crate) fn output(&self, output: &Output) -> ExitCode {
        let text = match self.format {
            Format::Json => output.json(),
            Format::Text => text::output(output).map(|lines| lines.text().to_owned()),
        };
        if let Some(text) = text
            && let Err(error) = writeln!(std::io::stdout().lock(), "{text}")
            && error.kind() != ErrorKind::BrokenPipe
        {
            let failure = Failure::new(Code::FileUnwritable, "cannot write the output");
            return self.failure(&failure.because(&error));
        }
        match output {
            Output::WithExit(_, exit) => ExitCode::from(*exit as u8),
            _ => ExitCode::SUCCESS,
        }
    }

    /// Prints why the command line could not be parsed, or the help or version that it asks for.
    pub(crate) fn not_parsed(&self, error: &clap::Error) -> ExitCode {
        match (error.kind(), self.format) {
            (ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion, _) => {
                let _ = error.print();
                ExitCode::SUCCESS
            }
            (ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, Format::Text) => {
                self.no_command(error)
            }
            _ => self.failure(&error.into()),
        }
    }

    /// Prints what there is: `gpuctl` alone is a question, `gpuctl cost` an unfinished command.
    fn no_command(&self, error: &clap::Error) -> ExitCode {
        if std::env::args_os().len() > 1 {
            let _ = error.print();
            return ExitCode::from(Exit::Usage as u8);
        }
        self.output(&Output::Overview)
    }

    pub(crate) fn failure(&self, failure: &Failure) -> ExitCode {
        self.report_failure(failure);
        ExitCode::from(failure.exit() as u8)
    }

    /// Prints a failure, also one that does not end the command.
    pub(crate) fn report_failure(&self, failure: &Failure) {
        match self.format {
            Format::Text => to_stderr(text::failure(failure).text()),
            Format::Json => {
                let error = ErrorBody {
                    code: failure.code.as_str(),
                    message: failure.message.clone(),
                    causes: failure.causes.clone(),
                    hint: failure.hint.clone(),
                    exit: failure.exit() as u8,
                };
                to_stderr(&json(&versioned("gpuctl.error", ErrorDocument { error })));
            }
        }
    }

    #[cfg(feature = "aws")]
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// What is about to change, on standard error; nothing under `--json`.
    #[cfg(feature = "deploy")]
    pub(crate) fn difference(&self, difference: &DifferenceDocument) {
        if self.format == Format::Text {
            to_stderr(stack::difference(difference).text());
        }
    }

    /// Prints lines of a log that is followed; returns whether standard output still has a reader.
    pub(crate) fn lines(&self, lines: &[LogLineDocument], owner: LogOwner) -> bool {
        let mut out = std::io::stdout().lock();
        lines.iter().all(|line| writeln!(out, "{}", escaped_line(&logs::line(line, owner))).is_ok())
    }

    /// Copies the log of gpu-worker to standard error, line by line.
    pub(crate) fn relay(log: impl Read) {
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            to_stderr(&escaped_line(&format!("gpu-worker: {line}")));
        }
    }

    /// A remark of one line on standard error; nothing under `--json`.
    pub(crate) fn note(&self, text: &str) {
        if self.format == Format::Text {
            to_stderr(&escaped_line(text));
        }
    }

    pub(crate) fn warning(&self, text: &str) {
        to_stderr(&escaped_line(&format!("warning: {text}")));
    }

    /// Prints what a reconcile did, one line per action, with the time.
    pub(crate) fn reconciled(&self, reconciled: &Reconciled) {
        for line in action_lines(reconciled) {
            self.note(&format!("{}  {line}", words::clock(reconciled.observation.at)));
        }
    }

    /// Prints a box's state if it differs from the one printed last.
    pub(crate) fn state_change(&self, id: &str, state: &str) {
        let mut last = self.last_states.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.iter().position(|(known, _)| known == id);
        if known.is_some_and(|index| last[index].1 == state) {
            return;
        }
        if let Some(index) = known {
            last.swap_remove(index);
        }
        last.push((id.to_owned(), state.to_owned()));
        drop(last);
        self.note(&format!("{id} {state}"));
    }

    pub(crate) fn progress(&self, jobs: usize) -> Progress {
        Progress::new(jobs, self.format)
    }

    /// The progress of a fault simulation, shown on a terminal.
    pub(crate) fn weeks(&self, weeks: u64) -> Weeks {
        Weeks::new(weeks, self.format)
    }

    /// Asks for confirmation; without a terminal it fails and names `--yes`.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.confirmation == Confirmation::Given {
            return Ok(());
        }
        let declined = || {
            Failure::new(Code::UsageNotConfirmed, "not confirmed")
                .hint("add --yes to skip the confirmation")
        };
        if self.format == Format::Json || !std::io::stdin().is_terminal() {
            return Err(declined());
        }
        let _ = write!(std::io::stderr().lock(), "{} [y/N] ", escaped_line(question));
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(declined()) }
    }
}

/// What a reconcile did, one line per action.
fn action_lines(reconciled: &Reconciled) -> Vec<String> {
    let line = |acted: &gpuctl_control::act::Acted| {
        let (action, reason) = (&acted.action, acted.action.reason());
        let failed = acted.result.as_ref().err().map(|error| format!(" (failed: {error})"));
        format!(
            "{} {} because {}: {}{}",
            verb(action),
            action.box_id(),
            reason.rule.as_str(),
            reason.text,
            failed.unwrap_or_default()
        )
    };
    reconciled.acted.iter().map(line).collect()
}

fn json(document: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(document);
    words::safe_json(&json.expect("a document of texts and numbers is always JSON"))
}

/// Prints text that is escaped already.
fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}
