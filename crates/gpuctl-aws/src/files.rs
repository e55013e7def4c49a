//! Files in S3: a job's input is fetched to the disk, a result's files are stored and removed, and a local input is uploaded under a name
//! that its content gives.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ExpirationStatus, LifecycleRule, ObjectIdentifier};
use chrono::TimeDelta;
use gpuctl_control::clock::CorrectedClock;
use gpuctl_control::input::{INPUT_BYTES_MAX, InputRejected};
use gpuctl_control::job::JobId;
use gpuctl_control::log::shown;
use gpuctl_control::ports::{
    AttemptName, Clock, PortError, PortErrorClass, ResultFile, WorkingFile,
};
use gpuctl_control::text::hexadecimal;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::config::{Aws, attempt_time};
use crate::error::{class_of, code, port_error};

/// Tries of one download, the first included; each goes on where the one before was interrupted.
const FETCH_TRIES_MAX: u32 = 4;

/// Uploads of one file, the first included, while S3 finds another write of the same object under way.
const KEEP_TRIES_MAX: u32 = 4;

/// The slowest upload that is not taken for a hanging one, in bytes a second, on top of `UPLOAD_TIME_MIN`.
const UPLOAD_BYTES_A_SECOND_MIN: u64 = 256 * 1_024;

/// How long any upload may take, however small.
const UPLOAD_TIME_MIN: TimeDelta = TimeDelta::seconds(30);

/// Bytes read at once for a file's digest.
const READ_BYTES: usize = 1_024 * 1_024;

/// A folder in a bucket.
#[derive(Clone)]
pub struct S3Files {
    client: Client,
    bucket: String,
    prefix: String,
    clock: Arc<CorrectedClock>,
}

/// The location of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObjectLocation {
    bucket: String,
    key: String,
    /// The account that must own the bucket.
    owner: Option<String>,
}

/// What an upload does with an object that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Keep,
    Replace,
}

/// A download, as far as it has come.
struct Download {
    file: NamedTempFile,
    bytes: u64,
    /// Of the first response, so that a change of the object between two tries is noticed.
    etag: Option<String>,
    /// Of the whole object, once a response told it.
    length: Option<u64>,
}

impl S3Files {
    /// The folder `prefix` of a bucket; an empty prefix is the bucket itself.
    #[must_use]
    pub fn new(aws: &Aws, bucket: &str, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client: aws.s3(), bucket: bucket.to_owned(), prefix, clock: aws.clock() }
    }

    /// Fetches an object of any bucket into a temporary file, which is deleted when the returned handle is dropped. With an `owner` the
    /// bucket must belong to that account. An object of more than `bytes_max` bytes is not downloaded.
    ///
    /// # Errors
    /// An [`InputRejected`] as the cause when the object is too large or does not exist; else when it cannot be read or changes
    /// meanwhile, or the file cannot be written.
    pub async fn fetch(
        &self,
        uri: &str,
        bytes_max: u64,
        owner: Option<&str>,
    ) -> Result<NamedTempFile, PortError> {
        let location =
            ObjectLocation { owner: owner.map(str::to_owned), ..ObjectLocation::parse(uri)? };
        let file = NamedTempFile::new().map_err(|error| no_file(&error))?;
        let mut download = Download { file, bytes: 0, etag: None, length: None };
        for left in (0..FETCH_TRIES_MAX).rev() {
            match self.fetch_on(&location, bytes_max, &mut download).await {
                Err(error) if error.class == PortErrorClass::Unavailable && left > 0 => {
                    tracing::debug!(uri = %shown(uri), bytes = download.bytes, %error, "the download was interrupted; continuing");
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        download.file.flush().map_err(|error| no_file(&error))?;
        Ok(download.file)
    }

    /// The text of an object that gpuctl has stored.
    ///
    /// # Errors
    /// As `fetch`, and when it is not UTF-8.
    pub async fn text(&self, uri: &str, bytes_max: u64) -> Result<String, PortError> {
        let file = self.fetch(uri, bytes_max, None).await?;
        std::fs::read_to_string(file.path()).map_err(|error| {
            PortError::new(PortErrorClass::Corrupt, format!("{uri} is not a text")).because(error)
        })
    }

    /// Stores a job's file under `jobs/JOB/ATTEMPT/NAME`; returns its URI. What is there already stays: only an earlier try of the same
    /// attempt writes there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        let key = format!("{}{}", self.folder(file.job, Some(file.attempt)), file.name);
        let mut left = KEEP_TRIES_MAX;
        loop {
            let (key, body) = (key.clone(), ByteStream::from(file.bytes.to_vec()));
            left -= 1;
            match self.put(key, body, file.bytes.len() as u64, Existing::Keep).await {
                // Our own earlier try may still be under way. S3 says to upload again (API Reference, `PutObject`, `If-None-Match`).
                Err(error) if error.class == PortErrorClass::Conflict && left > 0 => {}
                Err(error) if error.class == PortErrorClass::Conflict => {
                    return Err(PortError { class: PortErrorClass::Unavailable, ..error });
                }
                kept => return kept,
            }
        }
    }

    /// Deletes the files of one attempt, or of all attempts of the job.
    ///
    /// # Errors
    /// When they cannot be listed or deleted; some may be deleted then.
    pub async fn remove(
        &self,
        job: &JobId,
        attempt: Option<&AttemptName>,
    ) -> Result<(), PortError> {
        self.remove_below(&self.folder(job, attempt)).await
    }

    /// Stores a job's file under `jobs/JOB/working-GENERATION/NAME`, in place of what is there; returns its URI.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub async fn keep_working(&self, file: &WorkingFile<'_>) -> Result<String, PortError> {
        let unread = |error: std::io::Error| {
            PortError::new(PortErrorClass::Other, format!("cannot read {}", file.path.display()))
                .because(error)
        };
        let length = std::fs::metadata(file.path).map_err(unread)?.len();
        let body = ByteStream::from_path(file.path).await;
        let body = body.map_err(|error| unread(std::io::Error::other(error)))?;
        self.put(self.working_key(file), body, length, Existing::Replace).await
    }

    /// What was kept last, if anything.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub async fn working(
        &self,
        file: &WorkingFile<'_>,
    ) -> Result<Option<NamedTempFile>, PortError> {
        match self.fetch(&self.uri(&self.working_key(file)), u64::MAX, None).await {
            Err(error) if error.class == PortErrorClass::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Deletes what was kept of a job's generation.
    ///
    /// # Errors
    /// As `remove`.
    pub async fn remove_working(&self, job: &JobId, generation: u32) -> Result<(), PortError> {
        let folder = WorkingFile::folder(generation);
        self.remove_below(&format!("{}{folder}/", self.folder(job, None))).await
    }

    fn working_key(&self, file: &WorkingFile<'_>) -> String {
        let folder = WorkingFile::folder(file.generation);
        format!("{}{folder}/{}", self.folder(file.job, None), file.name)
    }

    async fn remove_below(&self, prefix: &str) -> Result<(), PortError> {
        let what = || format!("cannot delete {}", self.uri(prefix));
        let call = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| port_error("s3:ListBucket", what(), error))?;
            let keys = page.contents.unwrap_or_default().into_iter().filter_map(|one| one.key);
            let object = |key| ObjectIdentifier::builder().key(key).build().expect("it has a key");
            let objects: Vec<ObjectIdentifier> = keys.map(object).collect();
            if objects.is_empty() {
                continue;
            }
            let these = Delete::builder().set_objects(Some(objects)).quiet(true).build();
            let these = these.expect("it has objects");
            let call = self.client.delete_objects().bucket(&self.bucket).delete(these);
            let deleted = call.send().await;
            let deleted = deleted.map_err(|error| port_error("s3:DeleteObject", what(), error))?;
            if let Some(error) = deleted.errors().first() {
                let code = error.code().unwrap_or_default();
                return Err(PortError::new(class_of(code), what())
                    .because(format!("{code}: {}", error.message().unwrap_or_default())));
            }
        }
        Ok(())
    }

    /// Where a job's files lie, with the slash at its end: no other job's name begins so.
    fn folder(&self, job: &JobId, attempt: Option<&AttemptName>) -> String {
        let job = format!("{}jobs/{job}/", self.prefix);
        attempt.map_or_else(|| job.clone(), |attempt| format!("{job}{}/", attempt.as_str()))
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Writes, reads and deletes an object of its own.
    ///
    /// # Errors
    /// The first of these that fails.
    pub async fn probe(&self) -> Result<(), PortError> {
        let job = JobId::new(self.clock.now());
        let attempt = AttemptName::new(0, &"doctor".parse().expect("a name"), self.clock.now());
        let file = ResultFile { job: &job, attempt: &attempt, name: "probe", bytes: b"probe" };
        let uri = self.keep(&file).await?;
        let read = self.text(&uri, 100).await.map(drop);
        self.remove(&job, None).await?;
        read
    }

    /// Whether a lifecycle rule of the bucket deletes objects; `None` if that cannot be read.
    pub async fn has_lifecycle(&self) -> Option<bool> {
        let call = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket);
        match call.send().await {
            Ok(found) => {
                let deletes = |rule: &LifecycleRule| {
                    rule.expiration().is_some() && rule.status() == &ExpirationStatus::Enabled
                };
                Some(found.rules().iter().any(deletes))
            }
            Err(error) if code(&error) == Some("NoSuchLifecycleConfiguration") => Some(false),
            Err(_) => None,
        }
    }

    /// Uploads a file; returns its URI. The same content under the same name is one object, and is uploaded once.
    ///
    /// # Errors
    /// When it cannot be read or written, or is larger than one upload may be.
    pub async fn upload(&self, path: &Path) -> Result<String, PortError> {
        let unread = |error: std::io::Error| {
            PortError::new(PortErrorClass::Other, format!("cannot read {}", path.display()))
                .because(error)
        };
        let length = std::fs::metadata(path).map_err(unread)?.len();
        if length > INPUT_BYTES_MAX {
            let (uri, bytes_max) = (path.display().to_string(), INPUT_BYTES_MAX);
            return Err(InputRejected::TooLarge { uri, bytes: length, bytes_max }.into());
        }
        let read = path.to_owned();
        let digest = tokio::task::spawn_blocking(move || digest(&read)).await;
        let digest = digest.map_err(std::io::Error::other).and_then(|done| done).map_err(unread)?;
        let name = path.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
        let key = format!("{}inputs/{digest}/{name}", self.prefix);
        if self.has(&key, length).await {
            return Ok(self.uri(&key));
        }
        let body = ByteStream::from_path(path)
            .await
            .map_err(|error| unread(std::io::Error::other(error)))?;
        self.put(key, body, length, Existing::Replace).await
    }

    /// Whether the object exists with this length. Without the permission to ask it counts as missing, and is uploaded again.
    async fn has(&self, key: &str, length: u64) -> bool {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let found = call.send().await;
        found.is_ok_and(|found| {
            found.content_length().and_then(|l| u64::try_from(l).ok()) == Some(length)
        })
    }

    pub(crate) async fn put(
        &self,
        key: String,
        body: ByteStream,
        length: u64,
        existing: Existing,
    ) -> Result<String, PortError> {
        let slowest = Duration::from_secs(length / UPLOAD_BYTES_A_SECOND_MIN);
        let most = UPLOAD_TIME_MIN.to_std().unwrap_or_default() + slowest;
        let call = self.client.put_object().bucket(&self.bucket).key(&key).body(body);
        let unless = (existing == Existing::Keep).then(|| "*".to_owned());
        let patient = aws_sdk_s3::config::Builder::new().timeout_config(attempt_time(most));
        let call = call.set_if_none_match(unless).customize().config_override(patient);
        let uri = self.uri(&key);
        match call.send().await {
            Ok(_) => Ok(uri),
            Err(error) if code(&error) == Some("PreconditionFailed") => Ok(uri),
            Err(error) => Err(port_error("s3:PutObject", format!("cannot write {uri}"), error)),
        }
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Downloads what is still missing.
    async fn fetch_on(
        &self,
        location: &ObjectLocation,
        bytes_max: u64,
        download: &mut Download,
    ) -> Result<(), PortError> {
        let what = || format!("cannot fetch {location}");
        if download.length == Some(download.bytes) && download.bytes > 0 {
            // The connection broke after the last byte: S3 would reject a range behind it.
            return Ok(());
        }
        let mut call = self.client.get_object().bucket(&location.bucket).key(&location.key);
        if download.bytes > 0 {
            call = call.range(format!("bytes={}-", download.bytes));
        }
        let call = call.set_expected_bucket_owner(location.owner.clone());
        let sent = call.set_if_match(download.etag.clone()).send().await;
        let mut object = sent.map_err(|error| match code(&error) {
            Some("NoSuchKey" | "NoSuchBucket") => {
                no_other_try(location, InputRejected::Missing { uri: location.to_string() })
            }
            Some("InvalidObjectState") => {
                no_other_try(location, InputRejected::Archived { uri: location.to_string() })
            }
            Some("KeyTooLongError") => {
                let (uri, bytes) = (location.to_string(), location.key.len());
                no_other_try(location, InputRejected::KeyTooLong { uri, bytes })
            }
            // It was replaced between two tries: the next fetch begins anew.
            Some("PreconditionFailed" | "InvalidRange") => {
                PortError::new(PortErrorClass::Unavailable, format!("{location} changed meanwhile"))
            }
            _ => port_error("s3:GetObject", what(), error),
        })?;
        let left = object.content_length().and_then(|left| u64::try_from(left).ok()).unwrap_or(0);
        let too_large = |bytes| {
            let uri = location.to_string();
            PortError::from(InputRejected::TooLarge { uri, bytes, bytes_max })
        };
        let length = download.bytes.saturating_add(left);
        if length > bytes_max {
            return Err(too_large(length));
        }
        download.length = Some(length);
        download.etag = object.e_tag().map(ToOwned::to_owned);
        loop {
            let chunk = object.body.try_next().await.map_err(|error| {
                PortError::new(PortErrorClass::Unavailable, what()).because(error)
            })?;
            let Some(chunk) = chunk else { break };
            download.bytes += chunk.len() as u64;
            if download.bytes > bytes_max {
                return Err(too_large(download.bytes));
            }
            download.file.write_all(&chunk).map_err(|error| no_file(&error))?;
        }
        Ok(())
    }
}

impl ObjectLocation {
    /// Reads `s3://bucket/key`; nothing in the key is decoded.
    fn parse(uri: &str) -> Result<Self, PortError> {
        let parts = uri.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        match parts {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), owner: None })
            }
            _ => {
                Err(PortError::new(PortErrorClass::Other, format!("`{uri}` is not a valid S3 URI")))
            }
        }
    }
}

impl std::fmt::Display for ObjectLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// The fault is the object's own: no other try, and no other box, would read it.
fn no_other_try(location: &ObjectLocation, refusal: InputRejected) -> PortError {
    let what = format!("cannot fetch {location}");
    PortError::new(PortErrorClass::NotFound, what).hint(refusal.hint()).because(refusal)
}

/// Why a temporary file cannot be written.
fn no_file(error: &std::io::Error) -> PortError {
    let class = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => PortErrorClass::Full,
        _ => PortErrorClass::Unavailable,
    };
    PortError::new(class, "cannot write a temporary file")
        .because(error.to_string())
        .hint("check the disk that TMPDIR names")
}

/// The name that the content gives: 128 bits of its SHA-256, so that two inputs do not share it.
fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = std::io::Read::read(&mut file, &mut buffer)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
    }
    Ok(hexadecimal(&digest.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_bucket_and_key_or_is_rejected() {
        let location = ObjectLocation::parse("s3://in/a/b c%.wav").unwrap();
        assert_eq!((location.bucket.as_str(), location.key.as_str()), ("in", "a/b c%.wav"));
        assert_eq!(location.to_string(), "s3://in/a/b c%.wav");
        for bad in ["s3://in", "s3:///key", "s3://in/", "file:///a", "in/key"] {
            assert!(ObjectLocation::parse(bad).is_err(), "{bad}");
        }
    }
}
