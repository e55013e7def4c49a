//! `gpu-worker run`: one input through a task's model, without a queue.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use gpu_inference::{Params, Task, decode};
use gpu_worker::cancel::ItemCancel;
use gpu_worker::result::output_document;
use gpu_worker::{Engine, EngineSetup, output_files};
use gpuctl_control::job::{InputLocation, InputUri, JobFailure};
use gpuctl_control::log::shown;
use gpuctl_control::params::params_of;
use gpuctl_control::ports::Fetched;
use gpuctl_worker::{BoxFault, Fault, FileDocument, OutputFile, file_document, with_files};

use super::{print, runtime};
use crate::arguments::RunArguments;

/// Prints the output; its files are written only where the command line names a folder.
pub(crate) fn run(setup: EngineSetup, wanted: &RunArguments) -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(setup);
    let task: Task = wanted.task.parse()?;
    let params = params(task, wanted)?;
    let text = wanted.text.as_deref().map(Fetched::of_text).transpose()?;
    let file = text.as_ref().map(Fetched::path).or(wanted.file.as_deref());
    let file = file.expect("clap asks for a file or a text");
    let prepared = decode(task, file, &params, &engine.limits())?;
    let model = (task, wanted.model.as_deref());
    let inferring = engine.run(model, prepared, ItemCancel::default(), Arc::default());
    let inferred = runtime()?.block_on(inferring).map_err(|fault| match fault {
        Fault::Input(JobFailure { message, hint, .. })
        | Fault::Box(BoxFault { message, hint, .. }) => {
            format!("{message} ({})", hint.unwrap_or_default())
        }
        Fault::Cancelled => "cancelled".to_owned(),
    })?;
    for warning in &inferred.output.remarks.warnings {
        tracing::warn!("{} [{}]", shown(&warning.message), warning.code.as_str());
    }
    let document = output_document(&inferred.output);
    let files = write_files(&output_files(inferred.output), wanted.output.as_deref())?;
    print(&with_files(document, &files))
}

/// The params, with the files that they name.
fn params(task: Task, wanted: &RunArguments) -> Result<Params, Box<dyn Error>> {
    let here = std::env::current_dir()?;
    let mut params = Params::read(task, &params_of(&wanted.param, &here))?;
    for (name, uri) in params.clone().uris() {
        let InputLocation::File(path) = uri.parse::<InputUri>()?.location() else {
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
