//! `models`: runs the worker, which has the models and ONNX Runtime, and shows its document.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use gpuctl_control::wire::models::VerifiedDocument;
use serde::de::DeserializeOwned;

use crate::arguments::{BenchArguments, ModelsCommand};
use crate::failure::{Code, Exit, Failure};
use crate::render::{Output, Printer};
use crate::worker_program::worker_program;

/// The worker's log level here: each downloaded file, and errors.
const WORKER_LOG: &str = "error,gpu_worker::models=info";

/// `gpuctl models …`.
pub(crate) fn run(config: Option<&Path>, command: &ModelsCommand) -> Result<Output, Failure> {
    let mut arguments: Vec<OsString> = Vec::new();
    match command {
        ModelsCommand::List => ask(config, "list", arguments).map(Output::Models),
        ModelsCommand::Verify { names } => {
            arguments.extend(names.iter().map(OsString::from));
            let verified: VerifiedDocument = ask(config, "verify", arguments)?;
            let right = verified.models.iter().all(|model| model.ok);
            let output = Output::ModelsVerified(verified);
            Ok(if right { output } else { output.exit(Exit::Failed) })
        }
        ModelsCommand::Pull { names, manifest, from } => {
            arguments.extend(names.iter().map(OsString::from));
            if let Some(manifest) = manifest {
                arguments.extend(["--manifest".into(), manifest.into()]);
            }
            if let Some(from) = from {
                arguments.extend(["--from".into(), from.into()]);
            }
            ask(config, "pull", arguments).map(Output::ModelsPulled)
        }
        ModelsCommand::Bench(wanted) => {
            ask(config, "bench", bench(wanted)).map(Output::ModelsBench)
        }
    }
}

fn bench(wanted: &BenchArguments) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = wanted.graphs.iter().map(OsString::from).collect();
    let given = [
        ("--batch", wanted.batch.as_ref()),
        ("--seconds", wanted.seconds.as_ref()),
        ("--side", wanted.side.as_ref()),
        ("--length", wanted.length.as_ref()),
        ("--device", wanted.device.as_ref()),
        ("--threads", wanted.threads.as_ref()),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            arguments.extend([name.into(), value.into()]);
        }
    }
    arguments
}

/// Runs the worker and reads its document. Its log, e.g. each downloaded file, goes to standard error.
fn ask<T: DeserializeOwned>(
    config: Option<&Path>,
    what: &str,
    arguments: Vec<OsString>,
) -> Result<T, Failure> {
    let program = worker_program();
    let shown = program.display();
    let mut command = Command::new(&program);
    command.arg("models").arg(what).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    if std::env::var_os("GPUCTL_LOG").is_none() {
        command.env("GPUCTL_LOG", WORKER_LOG);
    }
    let output = output(command).map_err(|error| {
        Failure::new(Code::WorkerMissing, format!("cannot run {shown}"))
            .because(&error)
            .hint("put gpu-worker next to gpuctl, or on the PATH")
    })?;
    if !output.status.success() {
        // Its error is on standard error already.
        let message = format!("gpu-worker models {what} failed: {}", output.status);
        return Err(Failure::new(Code::WorkerFailed, message));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::new(Code::WorkerUnreadable, format!("cannot read the output of {shown}"))
            .because(&error)
            .hint("gpuctl and gpu-worker must have the same version")
    })
}

/// The worker's output; meanwhile its log is printed.
fn output(mut command: Command) -> std::io::Result<std::process::Output> {
    let mut child = command.spawn()?;
    let log = child.stderr.take();
    std::thread::scope(|scope| {
        scope.spawn(|| log.map(Printer::relay));
        child.wait_with_output()
    })
}
