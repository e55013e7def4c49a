//! The command line: parse, run, print the output or the error, exit with its code.
//!
//! Commands return documents and print nothing; `render` prints.

mod arguments;
mod backend;
mod commands;
mod context;
mod documents;
mod failure;
mod logging;
#[cfg(test)]
mod reference;
mod render;
mod version;
mod worker_program;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;

use arguments::Arguments;
use failure::{Code, Failure};
use render::{Confirmation, Format, Printer};

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    let arguments = match parse(&given) {
        Ok(arguments) => arguments,
        Err(error) => return Printer::new(format(&given), Confirmation::Ask).not_parsed(&error),
    };
    let format = if arguments.json { Format::Json } else { Format::Text };
    let confirmation = if arguments.yes { Confirmation::Given } else { Confirmation::Ask };
    let printer = Printer::new(format, confirmation);
    logging::start(arguments.show_calls, arguments.command.is_simulated());
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Code::Internal, "cannot start the async runtime").because(&error)
        })
        .and_then(|runtime| runtime.block_on(commands::run(arguments, &printer)));
    match outcome {
        Ok(output) => printer.output(&output),
        Err(failure) => printer.failure(&failure),
    }
}

fn parse(given: &[OsString]) -> Result<Arguments, clap::Error> {
    Arguments::from_arg_matches_mut(&mut arguments::command().try_get_matches_from(given)?)
}

/// The format that a command line asks for although it cannot be parsed.
fn format(given: &[OsString]) -> Format {
    let mut flags = given.iter().take_while(|argument| *argument != "--");
    if flags.any(|argument| argument == "--json") { Format::Json } else { Format::Text }
}
