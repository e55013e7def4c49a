//! The command line: parse, run, print the output or the error, exit with its code.
//!
//! Commands return documents and print nothing; `render` prints.

mod arguments;
mod backend;
mod commands;
mod context;
mod documents;
mod failure;
mod render;
mod worker_program;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

use arguments::Arguments;
use render::Printer;

/// The target under which AWS calls are logged.
const CALLS: &str = "gpuctl::calls";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(arguments.json);
    log(arguments.show_calls);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::new("cannot start the async runtime").because(&error))
        .and_then(|runtime| runtime.block_on(commands::run(arguments, &printer)));
    match outcome {
        Ok(output) => printer.output(&output),
        Err(failure) => printer.failure(&failure),
    }
}

/// Logs to stderr at the level of `GPUCTL_LOG`; with --show-calls each AWS call as a bare line to copy.
fn log(show_calls: bool) {
    let filter = EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    let is_call = |target: &str| target == CALLS;
    let usual = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let calls = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false);
    tracing_subscriber::registry()
        .with(usual.with_filter(filter))
        .with(calls.with_filter(filter_fn(move |event| show_calls && is_call(event.target()))))
        .init();
}
