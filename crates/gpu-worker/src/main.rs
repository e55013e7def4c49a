//! The program on the box: it reads arguments and configuration, and hands over to one of `commands`.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use gpuctl_control::config::Config;
use gpuctl_control::log::shown;
use gpuctl_control::text::with_causes;
use tracing_subscriber::EnvFilter;

mod arguments;
mod backend;
mod commands;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // ONNX Runtime logs hundreds of lines a session at `info`.
    let filter =
        EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new("info,ort=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A configuration's problems have a line each.
            for line in with_causes(&*error).lines() {
                tracing::error!("{}", shown(line));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let config = Config::load(arguments.config.as_deref())?;
    let setup = commands::engine_setup(&config)?;
    match arguments.command {
        Command::Check => commands::print(&gpu_worker::check::check(&setup)),
        Command::Serve(wanted) => commands::serve::serve(&config, setup, wanted),
        Command::Models(command) => commands::models::models(&setup, command),
        Command::Run(wanted) => commands::run::run(setup, &wanted),
    }
}
