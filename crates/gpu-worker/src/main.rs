//! The program on the box: it reads arguments and configuration, and hands over to one of `commands`.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use gpuctl_control::config::{Config, ConfigError};
use gpuctl_control::log::shown;
use gpuctl_control::text::with_causes;
use tracing_subscriber::EnvFilter;

mod arguments;
mod backend;
mod commands;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(at, "a panic: {}", shown(panic.payload_as_str().unwrap_or("no text")));
    }));
    match run(arguments) {
        Ok(code) => code,
        Err((error, code)) => {
            // A configuration's problems have a line each.
            for line in with_causes(&*error).lines() {
                tracing::error!("{}", shown(line));
            }
            code
        }
    }
}

/// What is logged. ONNX Runtime says hundreds of lines a session at `info`; what Symphonia finds wrong with a recording is in its job's
/// result, and no error of this program.
const LOGGED: &str = "info,ort=warn,symphonia=off";

/// An error, and the exit code for it.
type Failed = (Box<dyn Error>, ExitCode);

/// The exit code for a wrong configuration: repeating is useless.
pub(crate) const WRONG_CONFIGURATION: u8 = 2;

fn run(arguments: Arguments) -> Result<ExitCode, Failed> {
    let wrong = |error| (error, ExitCode::from(WRONG_CONFIGURATION));
    if let Command::Exec(wanted) = &arguments.command {
        return commands::exec::exec(wanted)
            .map_err(|error| (error, ExitCode::from(commands::exec::NOT_STARTED)));
    }
    let config =
        Config::load(arguments.config.as_deref()).map_err(|error| wrong(in_full(error)))?;
    let setup = commands::engine_setup(&config).map_err(wrong)?;
    let done = match arguments.command {
        Command::Serve(wanted) => {
            return commands::serve::serve(&config, setup, wanted)
                .map(|never| match never {})
                .map_err(wrong);
        }
        Command::Check { json: true } => commands::print(&gpu_worker::check::check(&setup)),
        Command::Check { json: false } => commands::check_models(&setup),
        Command::Models(command) => commands::models::models(&setup, command),
        Command::Box(command) => {
            return commands::own_box::own_box(&config, command)
                .map(|()| ExitCode::SUCCESS)
                .map_err(wrong);
        }
        Command::Run(wanted) => commands::run::run(setup, &wanted),
        Command::Exec(_) => unreachable!("it is done without a configuration, above"),
    };
    done.map(|()| ExitCode::SUCCESS).map_err(|error| (error, ExitCode::FAILURE))
}

/// A configuration's error with all its problems, a line each.
fn in_full(error: ConfigError) -> Box<dyn Error> {
    let ConfigError::Invalid { problems, .. } = &error else { return Box::from(error) };
    let lines = problems.0.iter().map(|problem| format!("\n{problem}"));
    lines.fold(error.to_string(), |text, line| text + &line).into()
}
