//! Inputs and results as files of this machine: inputs where they are, results in one folder for each job under the state folder.
//!
//! A result's file is on the disk under its final name before the result names it. Nothing is fetched from other machines. How long
//! files are kept is `retention`'s.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use gpuctl_control::input::{InputRejected, admit};
use gpuctl_control::job::{InputLocation, InputUri, JobId};
use gpuctl_control::ports::{
    AttemptName, Fetched, FileStore, PortError, PortErrorClass, ResultFile, Upload, WorkingFile,
};
use gpuctl_control::state_folder;
use tempfile::NamedTempFile;

/// The folder of results in the state folder.
pub(crate) const FOLDER_NAME: &str = "results";
/// How names of files begin that a client is sending.
const INCOMING: &str = ".incoming-";
/// How names of folders begin that have a file which a client sent.
const UPLOAD: &str = "upload-";
/// Longest file name that every common file system takes.
const NAME_BYTES_MAX: usize = 255;

/// Files of this machine; cloning shares them.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    results: PathBuf,
    input_roots: Arc<[PathBuf]>,
}

impl LocalFiles {
    /// Files of the state folder `state`; inputs must be below the roots, or may be anywhere if there are none.
    #[must_use]
    pub fn new(state: &Path, input_roots: Vec<PathBuf>) -> Self {
        // The URI of a result must mean the same in every working folder.
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        Self { results: state.join(FOLDER_NAME), input_roots: input_roots.into() }
    }

    /// The file, if it may be read. What gpuctl keeps may be, wherever inputs must be: results, and inputs that clients sent.
    fn admitted(&self, path: &Path) -> Result<PathBuf, InputRejected> {
        admit(path, &self.input_roots).or_else(|refused| {
            admit(path, std::slice::from_ref(&self.results)).map_err(|_| refused)
        })
    }

    fn find(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, PortError> {
        let path = match uri.location() {
            InputLocation::Text(text) => return Fetched::of_text(&text),
            InputLocation::S3 { .. } => {
                return Err(InputRejected::Elsewhere { uri: uri.as_str().to_owned() }.into());
            }
            InputLocation::File(path) => self.admitted(&path)?,
        };
        let found = std::fs::metadata(&path)
            .map_err(|source| InputRejected::Unreadable { path: path.clone(), source })?;
        if found.len() > bytes_max {
            let (uri, bytes) = (uri.as_str().to_owned(), found.len());
            return Err(InputRejected::TooLarge { uri, bytes, bytes_max }.into());
        }
        Ok(Fetched::own(path))
    }

    fn working_folder(&self, job: &JobId, generation: u32) -> PathBuf {
        self.results.join(job.as_str()).join(WorkingFile::folder(generation))
    }

    fn write(
        &self,
        job: &JobId,
        attempt: &AttemptName,
        name: &str,
        bytes: &[u8],
    ) -> Result<String, PortError> {
        check_name(name)?;
        let folder = self.results.join(job.as_str()).join(attempt.as_str());
        let path = folder.join(name);
        write_durably(&folder, &path, bytes).map_err(|error| keep_error(&path, error))?;
        Ok(InputUri::of_path(&path).as_str().to_owned())
    }
}

#[async_trait]
impl FileStore for LocalFiles {
    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, PortError> {
        let (files, uri) = (self.clone(), uri.clone());
        off_thread(move || files.find(&uri, bytes_max)).await
    }

    async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        let (files, job, name) = (self.clone(), file.job.clone(), file.name.to_owned());
        let (attempt, bytes) = (file.attempt.clone(), file.bytes.to_vec());
        off_thread(move || files.write(&job, &attempt, &name, &bytes)).await
    }

    fn admit(&self, uri: &InputUri) -> Result<(), InputRejected> {
        match uri.location() {
            InputLocation::File(path) => self.admitted(&path).map(drop),
            InputLocation::S3 { .. } => {
                Err(InputRejected::Elsewhere { uri: uri.as_str().to_owned() })
            }
            InputLocation::Text(_) => Ok(()),
        }
    }

    async fn incoming(&self) -> Result<NamedTempFile, PortError> {
        let folder = self.results.clone();
        off_thread(move || {
            let made = state_folder::make(&folder)
                .and_then(|()| NamedTempFile::with_prefix_in(INCOMING, &folder));
            made.map_err(|error| keep_error(&folder, error))
        })
        .await
    }

    async fn take_in(&self, upload: Upload<'_>) -> Result<InputUri, PortError> {
        check_name(upload.name)?;
        let folder = format!("{UPLOAD}{}", upload.digest);
        let folder = self.results.join(upload.job.as_str()).join(folder);
        let (path, file) = (folder.join(upload.name), upload.file);
        off_thread(move || {
            let kept = state_folder::make(&folder)
                .and_then(|()| file.as_file().sync_all())
                .and_then(|()| persist(file, &folder, &path));
            kept.map_err(|error| keep_error(&path, error))?;
            Ok(InputUri::of_path(&path))
        })
        .await
    }

    async fn uploaded_bytes(&self) -> Result<u64, PortError> {
        let results = self.results.clone();
        off_thread(move || {
            let jobs = entries(&results).into_iter().flat_map(|job| entries(&job));
            let uploads = jobs.filter(|folder| is_upload(folder));
            let files = uploads.flat_map(|folder| entries(&folder));
            Ok(files.filter_map(|file| file.metadata().ok()).map(|facts| facts.len()).sum())
        })
        .await
    }

    async fn keep_working(&self, file: &WorkingFile<'_>) -> Result<String, PortError> {
        check_name(file.name)?;
        let folder = self.working_folder(file.job, file.generation);
        let (from, path) = (file.path.to_owned(), folder.join(file.name));
        off_thread(move || {
            copy_durably(&from, &folder, &path).map_err(|error| keep_error(&path, error))?;
            Ok(InputUri::of_path(&path).as_str().to_owned())
        })
        .await
    }

    async fn working(&self, file: &WorkingFile<'_>) -> Result<Option<Fetched>, PortError> {
        let path = self.working_folder(file.job, file.generation).join(file.name);
        off_thread(move || Ok(path.is_file().then(|| Fetched::own(path)))).await
    }

    async fn remove_working(&self, job: &JobId, generation: u32) -> Result<(), PortError> {
        let folder = self.working_folder(job, generation);
        off_thread(move || remove_folder(&folder)).await
    }

    async fn remove(&self, job: &JobId, attempt: Option<&AttemptName>) -> Result<(), PortError> {
        let mut folder = self.results.join(job.as_str());
        if let Some(attempt) = attempt {
            folder.push(attempt.as_str());
        }
        off_thread(move || remove_folder(&folder)).await
    }
}

fn remove_folder(folder: &Path) -> Result<(), PortError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let what = format!("cannot delete {}", folder.display());
            Err(PortError::new(PortErrorClass::Unavailable, what).because(error))
        }
        _ => Ok(()),
    }
}

fn is_upload(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(UPLOAD))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn check_name(name: &str) -> Result<(), PortError> {
    let plain = !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
        let what = format!("`{name}` is not a valid name for a job's file");
        return Err(PortError::new(PortErrorClass::Other, what));
    }
    Ok(())
}

/// Readers see the old file or the whole new one, also after a loss of power.
fn write_durably(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    state_folder::make(folder)?;
    let mut file = NamedTempFile::with_prefix_in(".new-", folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    persist(file, folder, path)
}

/// The same for the bytes of another file.
fn copy_durably(from: &Path, folder: &Path, path: &Path) -> io::Result<()> {
    state_folder::make(folder)?;
    let mut file = NamedTempFile::with_prefix_in(".new-", folder)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.as_file().sync_all()?;
    persist(file, folder, path)
}

/// Gives the file its final name, durably.
fn persist(file: NamedTempFile, folder: &Path, path: &Path) -> io::Result<()> {
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn keep_error(path: &Path, error: io::Error) -> PortError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let class = if full { PortErrorClass::Full } else { PortErrorClass::Unavailable };
    PortError::new(class, format!("cannot write {}", path.display()))
        .because(error)
        .hint("free some disk, and check the owner and permissions of the state folder")
}

async fn off_thread<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| {
        Err(PortError::new(PortErrorClass::Other, "reading or writing a file panicked")
            .because(error))
    })
}
