//! `backup`, `restore` and `jobs export`: the state of this machine in one file, and jobs with results of any ledger in a folder.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use gpuctl_control::config::Config;
use gpuctl_control::input::INPUT_BYTES_MAX;
use gpuctl_control::job::{InputLocation, InputUri};
use gpuctl_control::ports::JobFilter;
use gpuctl_control::wire::job::JobDocument;
use serde_json::Value;

use super::simulate::JOBS_MAX;
use crate::context::Context;
use crate::documents::reply::CopiedDocument;
use crate::failure::{Code, Exit, Failure};
use crate::render::{Output, Printer};

/// `gpuctl backup`.
pub(super) fn backup(context: &Context, path: &Path) -> Result<Output, Failure> {
    let Some(store) = &context.backend.store else {
        let hint = "`gpuctl jobs export FOLDER` copies jobs and results; infra/README.md says what DynamoDB and S3 restore by themselves";
        return Err(
            Failure::new(Code::BackendOther, "the state is on AWS, not on this machine").hint(hint)
        );
    };
    let contents = store.back_up(path)?;
    Ok(Output::Copied(CopiedDocument {
        files: contents.files,
        ..CopiedDocument::of("backup", path, contents.jobs)
    }))
}

/// `gpuctl restore`.
pub(super) fn restore(config: &Config, path: &Path, replace: bool) -> Result<Output, Failure> {
    let restored = gpuctl_local::restore(&config.state, path, replace)?;
    Ok(Output::Copied(CopiedDocument {
        files: restored.contents.files,
        replaced: restored.replaced.map(|folder| folder.display().to_string()),
        ..CopiedDocument::of("restore", &config.state, restored.contents.jobs)
    }))
}

/// `gpuctl jobs export`: each job is a line of `jobs.jsonl`, and its results' files lie below `files/JOB/ATTEMPT/`.
pub(super) async fn export(
    context: &Context,
    printer: &Printer,
    folder: &Path,
    since: Option<TimeDelta>,
) -> Result<Output, Failure> {
    let filter =
        JobFilter { state: None, limit: JOBS_MAX, since: since.map(|age| context.now() - age) };
    let entries = context.ports.ledger.jobs(filter).await?;
    if entries.len() >= JOBS_MAX as usize {
        printer.warning(&format!("only the newest {JOBS_MAX} jobs are exported"));
    }
    fs::create_dir(folder).map_err(|error| unwritable(folder, &error))?;
    let list = folder.join("jobs.jsonl");
    let file = File::create_new(&list).map_err(|error| unwritable(&list, &error))?;
    let (mut lines, mut done) =
        (BufWriter::new(file), CopiedDocument::of("export", folder, entries.len() as u64));
    for entry in &entries {
        let id = &entry.job.id;
        let earlier = match entry.job.generation {
            0 => Vec::new(),
            _ => context.ports.ledger.results(id).await?,
        };
        let document = JobDocument::of(entry).with_earlier(&earlier);
        let text = serde_json::to_string(&document).expect("a document is JSON");
        writeln!(lines, "{text}").map_err(|error| unwritable(&list, &error))?;
        for uri in files_of(&document) {
            match copy(context, &uri, &folder.join("files").join(id.as_str())).await {
                Ok(()) => done.files += 1,
                Err(failure) => done.missing.push(format!("{uri}: {}", failure.message)),
            }
        }
    }
    lines.flush().map_err(|error| unwritable(&list, &error))?;
    let is_whole = done.missing.is_empty();
    let output = Output::Copied(done);
    Ok(if is_whole { output } else { output.exit(Exit::Failed) })
}

/// The URIs of the files of all results.
fn files_of(document: &JobDocument) -> Vec<String> {
    let outputs = document.earlier.iter().map(|one| &one.output).chain([&document.output]);
    let files = outputs.flatten().filter_map(|output| output.get("files")?.as_array());
    files
        .flatten()
        .filter_map(|file| file.get("uri").and_then(Value::as_str))
        .map(str::to_owned)
        .collect()
}

async fn copy(context: &Context, uri: &str, folder: &Path) -> Result<(), Failure> {
    let invalid = || Failure::new(Code::FileUnreadable, "it is not a file of a result");
    let uri: InputUri = uri.parse().map_err(|_| invalid())?;
    let place = match uri.location() {
        InputLocation::File(path) => path,
        InputLocation::S3 { key, .. } => PathBuf::from(key),
        InputLocation::Text(_) => return Err(invalid()),
    };
    let (Some(name), Some(attempt)) = (place.file_name(), place.parent().and_then(Path::file_name))
    else {
        return Err(invalid());
    };
    let folder = folder.join(attempt);
    let found = context.ports.files.fetch(&uri, INPUT_BYTES_MAX).await?;
    let to = folder.join(name);
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(found.path(), &to).map(drop))
        .map_err(|error| unwritable(&to, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::FileUnwritable, format!("{} cannot be written", path.display()))
        .because(error)
}
