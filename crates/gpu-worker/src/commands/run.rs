//! `gpu-worker run`: one input through a task's model, without a queue.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use gpu_inference::{Params, Task, TaskError, decode};
use gpu_worker::cancel::ItemCancel;
use gpu_worker::engine::Inferred;
use gpu_worker::failure;
use gpu_worker::result::output_document;
use gpu_worker::{Engine, EngineSetup, output_files};
use gpuctl_control::job::{InputLocation, InputUri, JobFailure};
use gpuctl_control::log::shown;
use gpuctl_control::params::params_of;
use gpuctl_control::ports::Fetched;
use gpuctl_control::wire::job::FailureDocument;
use gpuctl_worker::{FileDocument, OutputFile, file_document, with_files};
use serde_json::json;

use super::{print, runtime};
use crate::arguments::RunArguments;

/// Prints the output, or the error that a job's result would have; its files are written only where the command line names a folder.
pub(crate) fn run(setup: EngineSetup, wanted: &RunArguments) -> Result<(), Box<dyn Error>> {
    let inferred = match infer(setup, wanted) {
        Ok(inferred) => inferred,
        Err(error) => {
            if let Some(Failed(failure)) = error.downcast_ref() {
                print(&json!({"error": FailureDocument::of(failure)}))?;
            }
            return Err(error);
        }
    };
    for warning in &inferred.output.remarks.warnings {
        tracing::warn!("{} [{}]", shown(&warning.message), warning.code.as_str());
    }
    let document = output_document(&inferred.output);
    let files = write_files(&output_files(inferred.output), wanted.output.as_deref())?;
    print(&with_files(document, &files))
}

fn infer(setup: EngineSetup, wanted: &RunArguments) -> Result<Inferred, Box<dyn Error>> {
    let engine = Engine::new(setup);
    let task: Result<Task, _> = wanted.task.parse();
    let task = task.map_err(|error| Failed(failure::task(&TaskError::from(error))))?;
    let params = params(task, wanted)?;
    let text = wanted.text.as_deref().map(Fetched::of_text).transpose()?;
    let file = text.as_ref().map(Fetched::path).or(wanted.file.as_deref());
    let file = file.expect("clap asks for a file or a text");
    let failed = |fault| -> Box<dyn Error> {
        match failure::shown(fault) {
            Some(failure) => Failed(failure).into(),
            None => "cancelled".into(),
        }
    };
    let prepared = decode(task, file, &params, &engine.limits())
        .map_err(|error| failed(failure::input(&error, task)))?;
    let model = (task, wanted.model.as_deref());
    let inferring = engine.run(model, prepared, ItemCancel::default(), Arc::default());
    runtime()?.block_on(inferring).map_err(failed)
}

/// What a job's result would show in place of an output.
#[derive(Debug)]
struct Failed(JobFailure);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobFailure { code, message, hint } = &self.0;
        write!(f, "{message} [{code}]")?;
        hint.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

impl Error for Failed {}

/// The params, with the files that they name.
fn params(task: Task, wanted: &RunArguments) -> Result<Params, Box<dyn Error>> {
    let here = std::env::current_dir()?;
    let params = Params::read(task, &params_of(&wanted.param, &here));
    let mut params = params.map_err(|error| Failed(failure::task(&TaskError::from(error))))?;
    for (name, uri) in params.clone().uris() {
        let uri: InputUri = uri.parse().map_err(|error| Failed(failure::uri(&error)))?;
        let InputLocation::File(path) = uri.location() else {
            return Err(format!("{name}: only files of this machine can be read here").into());
        };
        params.set_file(name, path);
    }
    Ok(params)
}

/// Without a folder the files are only described: a command that prints should not write unasked.
fn write_files(
    files: &[OutputFile],
    folder: Option<&Path>,
) -> Result<Vec<FileDocument>, Box<dyn Error>> {
    let Some(folder) = folder else {
        if !files.is_empty() {
            tracing::warn!("{} files are not written: name a folder with --output", files.len());
        }
        return Ok(files.iter().map(|file| file_document(file, None)).collect());
    };
    std::fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let mut written = Vec::with_capacity(files.len());
    for file in files {
        let path = folder.join(&file.name);
        std::fs::write(&path, &file.bytes)?;
        written.push(file_document(file, Some(InputUri::of_path(&path).as_str().to_owned())));
    }
    Ok(written)
}
