//! The folder in which a command runs, and the files of its result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gpuctl_control::job::Job;
use gpuctl_control::state_folder;
use gpuctl_worker::OutputFile;

use super::snapshot::{SnapshotError, check_size, entries, pack};

/// The log, in the folder and in the result.
pub(super) const LOG: &str = "command-log.txt";
/// The metrics likewise.
pub(super) const METRICS: &str = "command-metrics.jsonl";
/// The two checkpoints where they are kept.
pub(super) const CHECKPOINTS: [&str; 2] = ["command-checkpoint.zip", "command-checkpoint-2.zip"];
/// How long the job has run, where that is kept.
pub(super) const NOTE: &str = "command-note.json";
/// The most files of a result.
const OUTPUTS_MAX: usize = 1_000;

/// The folder of one attempt, which ends with this value. Its name is of no other attempt: one of the same job may still be coming to its end.
pub(super) struct Folders(PathBuf);

/// Removes what a worker has left that was killed; what cannot be removed yet is there for the next one.
pub(super) fn sweep(all: &Path) {
    match fs::remove_dir_all(all) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "what earlier commands have left could not be removed");
        }
        _ => {}
    }
}

impl Folders {
    /// Empty folders for this job, below `all`.
    pub(super) fn make(all: &Path, job: &Job) -> io::Result<Self> {
        state_folder::make(all)?;
        let name = format!("{}-{}-", job.id, job.generation);
        let root = tempfile::Builder::new().prefix(&name).tempdir_in(all)?.keep();
        let folders = Self(root.canonicalize()?);
        for folder in [folders.output(), folders.checkpoint(), folders.temporary()] {
            state_folder::make(&folder)?;
        }
        Ok(folders)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint")
    }

    pub(super) fn empty_checkpoint(&self) -> io::Result<()> {
        fs::remove_dir_all(self.checkpoint())?;
        state_folder::make(&self.checkpoint())
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.0.join("tmp")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join(LOG)
    }

    pub(super) fn metrics(&self) -> PathBuf {
        self.0.join(METRICS)
    }

    pub(super) fn note(&self) -> PathBuf {
        self.0.join(NOTE)
    }

    /// Where the checkpoint is packed before it is kept.
    pub(super) fn archive(&self) -> PathBuf {
        self.0.join(CHECKPOINTS[0])
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of a result: those in `output_dir`, each folder in it as one archive; log and metrics.
pub(super) fn outputs(folders: &Folders, mib_max: u32) -> Result<Vec<OutputFile>, SnapshotError> {
    let folder = folders.output();
    check_size(&entries(&folder)?, mib_max)?;
    let mut listed: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    listed.sort();
    let mut files = Vec::new();
    for path in listed {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let facts = path.symlink_metadata()?;
        if name.starts_with('.') || [LOG, METRICS].contains(&name) {
            continue;
        }
        if facts.is_file() {
            files.push(output(name.to_owned(), fs::read(&path)?));
        } else if facts.is_dir() {
            let archive = folders.temporary().join("output.zip");
            pack(&path, None, &archive, mib_max)?;
            files.push(output(format!("{name}.zip"), fs::read(&archive)?));
        }
        if files.len() > OUTPUTS_MAX {
            return Err(SnapshotError::TooMany);
        }
    }
    for (name, path) in [(LOG, folders.log()), (METRICS, folders.metrics())] {
        let bytes = fs::read(&path)?;
        if !bytes.is_empty() {
            files.push(output(name.to_owned(), bytes));
        }
    }
    Ok(files)
}

fn output(name: String, bytes: Vec<u8>) -> OutputFile {
    let media_type = match Path::new(&name).extension().and_then(|end| end.to_str()) {
        Some("txt" | "log") => "text/plain",
        Some("csv") => "text/csv",
        Some("json") => "application/json",
        Some("jsonl") => "application/jsonl",
        Some("zip") => "application/zip",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    OutputFile { name, bytes, media_type: media_type.to_owned() }
}
