//! The port of files: inputs, also those that clients send, and the files of results.

use std::io::Write;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gpuctl_core::units::{BoxId, Timestamp};
use tempfile::{NamedTempFile, TempPath};

use super::{PortError, PortErrorClass};
use crate::input::InputRejected;
use crate::job::{InputUri, JobId};

/// Files: a job's inputs, wherever they are, and the files of its result.
#[async_trait]
pub trait FileStore: Send + Sync {
    /// The input as a file on this machine: the file itself, or a copy that is deleted with the returned value.
    ///
    /// A failure that another try would not change has an [`InputRejected`] as its cause; an input larger than `bytes_max` is one.
    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, PortError>;

    /// Writes one file of a job's result durably, and returns its URI. No other attempt writes to the same place.
    async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError>;

    /// Refuses what no worker of this store may fetch. What can only be told by fetching it passes.
    fn admit(&self, _uri: &InputUri) -> Result<(), InputRejected> {
        Ok(())
    }

    /// A new file for an input that a client sends, on the disk that it is to stay on. It is deleted when it is dropped, unless `take_in`
    /// makes it a job's.
    async fn incoming(&self) -> Result<NamedTempFile, PortError> {
        NamedTempFile::new().map_err(|error| {
            let class = PortErrorClass::Unavailable;
            PortError::new(class, "cannot make a file for an input").because(error)
        })
    }

    /// Makes a file of `incoming` an input of this job, durably, and returns its URI; `digest` is a part of that, so that other bytes have
    /// another one. It goes with the job's other files.
    async fn take_in(&self, upload: Upload<'_>) -> Result<InputUri, PortError> {
        let what = format!("{} is not kept here", upload.name);
        Err(PortError::new(PortErrorClass::Other, what))
    }

    /// How many bytes of this machine's disk the files of `take_in` take, of jobs that wait and of those that have ended.
    async fn uploaded_bytes(&self) -> Result<u64, PortError> {
        Ok(0)
    }

    /// Keeps a file that a job's later attempts go on with, such as a checkpoint, durably and in place of any other of its name: readers see
    /// the old one or the whole new one. Returns its URI.
    async fn keep_working(&self, file: &WorkingFile<'_>) -> Result<String, PortError> {
        let what = format!("{} is not kept here", file.name);
        Err(PortError::new(PortErrorClass::Other, what))
    }

    /// What `keep_working` has kept last under this name, if anything; `path` of `file` is not looked at.
    async fn working(&self, _file: &WorkingFile<'_>) -> Result<Option<Fetched>, PortError> {
        Ok(None)
    }

    /// Deletes all that `keep_working` has kept of this generation of the job. None is a success.
    async fn remove_working(&self, _job: &JobId, _generation: u32) -> Result<(), PortError> {
        Ok(())
    }

    /// Deletes the files of one attempt, or of all attempts of the job. None is a success.
    async fn remove(&self, job: &JobId, attempt: Option<&AttemptName>) -> Result<(), PortError>;
}

/// A file that a client sent as an input.
#[derive(Debug)]
pub struct Upload<'a> {
    pub job: &'a JobId,
    /// A plain file name.
    pub name: &'a str,
    /// Of its bytes, in hexadecimal digits.
    pub digest: &'a str,
    pub file: NamedTempFile,
}

/// A file of a job's result.
#[derive(Clone, Copy, Debug)]
pub struct ResultFile<'a> {
    pub job: &'a JobId,
    pub attempt: &'a AttemptName,
    /// A plain file name.
    pub name: &'a str,
    pub bytes: &'a [u8],
}

/// A file that a job's later attempts go on with.
#[derive(Clone, Copy, Debug)]
pub struct WorkingFile<'a> {
    pub job: &'a JobId,
    pub generation: u32,
    /// A plain file name.
    pub name: &'a str,
    /// Where it lies on this machine.
    pub path: &'a Path,
}

impl WorkingFile<'_> {
    /// The folder of such files beside those of attempts.
    #[must_use]
    pub fn folder(generation: u32) -> String {
        format!("working-{generation}")
    }
}

/// Tells an attempt from all others of its job, in names of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptName(String);

impl AttemptName {
    /// The attempt at this generation of the job that this box received at this time.
    #[must_use]
    pub fn new(generation: u32, box_id: &BoxId, received_at: Timestamp) -> Self {
        Self(format!("{generation}-{box_id}-{}", received_at.timestamp_micros()))
    }

    /// The name as text: a plain file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A store without files, for a controller that runs no jobs.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

#[async_trait]
impl FileStore for NoFiles {
    async fn fetch(&self, uri: &InputUri, _: u64) -> Result<Fetched, PortError> {
        let what = format!("{} is not fetched here", uri.as_str());
        Err(PortError::new(PortErrorClass::Other, what))
    }

    async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        Err(PortError::new(PortErrorClass::Other, format!("{} is not kept here", file.name)))
    }

    fn admit(&self, uri: &InputUri) -> Result<(), InputRejected> {
        Err(InputRejected::Elsewhere { uri: uri.as_str().to_owned() })
    }

    async fn remove(&self, _: &JobId, _: Option<&AttemptName>) -> Result<(), PortError> {
        Ok(())
    }
}

/// An input on this machine.
#[derive(Debug)]
pub struct Fetched {
    path: PathBuf,
    /// The copy, deleted when this is dropped; `None` where the file is the user's own.
    _temporary: Option<TempPath>,
}

impl Fetched {
    /// A file of the user's, which stays.
    #[must_use]
    pub fn own(path: PathBuf) -> Self {
        Self { path, _temporary: None }
    }

    /// A copy, which is deleted with this value.
    #[must_use]
    pub fn temporary(copy: TempPath) -> Self {
        Self { path: copy.to_path_buf(), _temporary: Some(copy) }
    }

    /// A file of a text that is in the URI itself.
    ///
    /// # Errors
    /// When it cannot be written to the folder of temporary files.
    pub fn of_text(text: &str) -> Result<Self, PortError> {
        let write = || {
            let mut file = NamedTempFile::with_suffix(".txt")?;
            file.write_all(text.as_bytes())?;
            Ok(Self::temporary(file.into_temp_path()))
        };
        write().map_err(|error: std::io::Error| {
            let class = PortErrorClass::Unavailable;
            PortError::new(class, "cannot write a text to a temporary file").because(error)
        })
    }

    /// The file on this machine, as long as this value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
