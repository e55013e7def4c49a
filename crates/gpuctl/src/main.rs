//! The command line: parse, run, print the answer or the error, exit with its code.
//!
//! Commands return documents and print nothing; `render` prints.

mod arguments;
mod commands;
mod context;
mod failure;
mod place;
mod render;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use arguments::Arguments;
use render::Printer;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(arguments.json);
    let filter = EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::new("cannot start the async runtime").because(&error))
        .and_then(|runtime| runtime.block_on(commands::run(arguments, &printer)));
    match outcome {
        Ok(answer) => printer.answer(&answer),
        Err(failure) => printer.failure(&failure),
    }
}
