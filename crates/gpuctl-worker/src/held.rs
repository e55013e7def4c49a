//! A finished job's result before it is committed, and how it is put away on disk for a later commit.

use std::io;

use gpuctl_control::job::JobResult;
use gpuctl_control::ports::AttemptName;
use gpuctl_control::wire::job::{result_from_json, result_to_json};
use gpuctl_core::without::Fix;
use serde::{Deserialize, Serialize};

use crate::{FileDocument, OutputFile, Scratch};

const RESULT: &str = "result-";

/// A result that is not committed yet.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// Its output does not list its files yet.
    pub(crate) result: JobResult,
    pub(crate) files: Vec<OutputFile>,
    /// Those that are stored already, in their order.
    pub(crate) stored: Vec<FileDocument>,
}

/// A result as it is put away; its files are blobs of their own.
#[derive(Serialize, Deserialize)]
struct PutAway {
    result: String,
    files: Vec<FileName>,
}

#[derive(Serialize, Deserialize)]
struct FileName {
    name: String,
    media_type: String,
}

impl Finished {
    pub(crate) fn attempt(&self) -> AttemptName {
        let result = &self.result;
        if Fix::FilesNotFenced.is_left_out() {
            let any = gpuctl_core::units::BoxId::of_pool(&"any".parse().expect("a name"), 1);
            return AttemptName::new(0, &any, result.job.submitted_at);
        }
        AttemptName::new(result.job.generation, &result.box_id, result.received_at)
    }

    /// The memory that its files take.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    fn key(&self) -> String {
        format!("{RESULT}{}-{}", self.result.job.id, self.result.job.generation)
    }

    /// Writes it to the disk: the files first, so that a result which is there is whole.
    pub(crate) fn put_away(&self, scratch: &dyn Scratch) -> io::Result<String> {
        let key = self.key();
        for (number, file) in self.files.iter().enumerate() {
            scratch.put(&format!("{key}.{number}"), &file.bytes)?;
        }
        let name = |file: &OutputFile| FileName {
            name: file.name.clone(),
            media_type: file.media_type.clone(),
        };
        let files = self.files.iter().map(name).collect();
        let away = PutAway { result: result_to_json(&self.result), files };
        scratch.put(&key, &serde_json::to_vec(&away)?)?;
        Ok(key)
    }

    /// Reads what was put away under this key.
    pub(crate) fn take_back(scratch: &dyn Scratch, key: &str) -> io::Result<Self> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let text = scratch.get(key)?.ok_or_else(missing)?;
        let away: PutAway = serde_json::from_slice(&text)?;
        let result = result_from_json(&away.result).map_err(io::Error::other)?;
        let mut files = Vec::with_capacity(away.files.len());
        for (number, FileName { name, media_type }) in away.files.into_iter().enumerate() {
            let bytes = scratch.get(&format!("{key}.{number}"))?.ok_or_else(missing)?;
            files.push(OutputFile { name, bytes, media_type });
        }
        Ok(Self { result, files, stored: Vec::new() })
    }
}

/// The keys of all results that are put away.
pub(crate) fn keys(scratch: &dyn Scratch) -> io::Result<Vec<String>> {
    let mut names = scratch.list()?;
    names.retain(|name| name.starts_with(RESULT) && !name.contains('.'));
    Ok(names)
}

/// Deletes what was put away under this key, the result first.
pub(crate) fn discard(scratch: &dyn Scratch, key: &str) -> io::Result<()> {
    scratch.remove(key)?;
    let files = scratch.list()?.into_iter().filter(|name| name.starts_with(&format!("{key}.")));
    files.into_iter().try_for_each(|name| scratch.remove(&name))
}
