//! `models`: asked of the worker, which has the models and ONNX Runtime; this program shows what it found.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use gpuctl_control::wire::models::VerifiedDocument;
use serde::de::DeserializeOwned;

use crate::arguments::{BenchArguments, ModelsCommand};
use crate::context::worker_program;
use crate::failure::{Exit, Failure};
use crate::render::Answer;

/// Of what the worker says, people here want to see each file that it fetched, and what went wrong.
const WORKER_LOG: &str = "error,gpu_worker::models=info";

/// `gpuctl models …`.
pub(crate) fn run(config: Option<&Path>, command: &ModelsCommand) -> Result<Answer, Failure> {
    let mut arguments: Vec<OsString> = Vec::new();
    match command {
        ModelsCommand::List => ask(config, "list", arguments).map(Answer::Models),
        ModelsCommand::Verify { names } => {
            arguments.extend(names.iter().map(OsString::from));
            let verified: VerifiedDocument = ask(config, "verify", arguments)?;
            let right = verified.models.iter().all(|model| model.ok);
            let answer = Answer::ModelsVerified(verified);
            Ok(if right { answer } else { answer.exit(Exit::Failed) })
        }
        ModelsCommand::Pull { names, manifest, from } => {
            arguments.extend(names.iter().map(OsString::from));
            if let Some(manifest) = manifest {
                arguments.extend(["--manifest".into(), manifest.into()]);
            }
            if let Some(from) = from {
                arguments.extend(["--from".into(), from.into()]);
            }
            ask(config, "pull", arguments).map(Answer::ModelsPulled)
        }
        ModelsCommand::Bench(wanted) => {
            ask(config, "bench", bench(wanted)).map(Answer::ModelsBench)
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

/// Starts the worker and reads its document. What it says meanwhile, as of each fetched file, goes to the terminal.
fn ask<T: DeserializeOwned>(
    config: Option<&Path>,
    what: &str,
    arguments: Vec<OsString>,
) -> Result<T, Failure> {
    let program = worker_program();
    let mut command = Command::new(&program);
    command.arg("models").arg(what).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    if std::env::var_os("GPUCTL_LOG").is_none() {
        command.env("GPUCTL_LOG", WORKER_LOG);
    }
    let output = command.output().map_err(|error| {
        Failure::new(format!("cannot run {}", program.display()))
            .because(&error)
            .hint("put gpu-worker beside gpuctl, or into the search path")
    })?;
    if !output.status.success() {
        // It has said why on standard error.
        return Err(Failure::new(format!("gpu-worker models {what} failed: {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::new(format!("{} answered what cannot be read", program.display()))
            .because(&error)
            .hint("gpuctl and gpu-worker must be of one version")
    })
}
