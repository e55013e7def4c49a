//! Files in S3: a job's input is fetched to the disk, a result's files are stored, and a local input is uploaded under a name that
//! its content gives. Nothing is ever deleted here.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use chrono::TimeDelta;
use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, PortErrorClass, ResultFile};
use gpuctl_control::text::hexadecimal;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::config::{Aws, attempt_time};
use crate::error::port_error;

/// Tries of one download, the first included; each goes on where the one before was interrupted.
const FETCH_TRIES_MAX: u32 = 4;

/// The largest file in one upload: S3's limit on a single `PutObject`.
const UPLOAD_BYTES_MAX: u64 = 5 * 1_024 * 1_024 * 1_024;

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
}

/// The location of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObjectLocation {
    bucket: String,
    key: String,
}

/// A download, as far as it has come.
struct Download {
    file: NamedTempFile,
    bytes: u64,
    /// Of the first response, so that a change of the object between two tries is noticed.
    etag: Option<String>,
}

impl S3Files {
    /// The folder `prefix` of a bucket; an empty prefix is the bucket itself.
    #[must_use]
    pub fn new(aws: &Aws, bucket: &str, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client: aws.s3(), bucket: bucket.to_owned(), prefix }
    }

    /// Fetches an object of any bucket into a temporary file, which is deleted when the returned handle is dropped. An object of
    /// more than `bytes_max` bytes is `Full`, and is not downloaded.
    ///
    /// # Errors
    /// When the object is too large, does not exist, cannot be read or changes meanwhile, or the file cannot be written.
    pub async fn fetch(&self, uri: &str, bytes_max: u64) -> Result<NamedTempFile, PortError> {
        let location = ObjectLocation::parse(uri)?;
        let file = NamedTempFile::new().map_err(|error| no_file(&error))?;
        let mut download = Download { file, bytes: 0, etag: None };
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
        let file = self.fetch(uri, bytes_max).await?;
        std::fs::read_to_string(file.path()).map_err(|error| {
            PortError::new(PortErrorClass::Corrupt, format!("{uri} is not a text")).because(error)
        })
    }

    /// Stores a job's file under `jobs/JOB/ATTEMPT/NAME`; returns its URI.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        let (job, attempt) = (file.job, file.attempt.as_str());
        let key = format!("{}jobs/{job}/{attempt}/{}", self.prefix, file.name);
        let body = ByteStream::from(file.bytes.to_vec());
        self.put(key, body, file.bytes.len() as u64).await
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
        if length > UPLOAD_BYTES_MAX {
            let what = format!("{} is larger than the 5 GiB of one upload", path.display());
            return Err(PortError::new(PortErrorClass::Full, what));
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
        self.put(key, body, length).await
    }

    /// Whether the object exists with this length. Without the permission to ask it counts as missing, and is uploaded again.
    async fn has(&self, key: &str, length: u64) -> bool {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let found = call.send().await;
        found.is_ok_and(|found| {
            found.content_length().and_then(|l| u64::try_from(l).ok()) == Some(length)
        })
    }

    async fn put(&self, key: String, body: ByteStream, length: u64) -> Result<String, PortError> {
        let slowest = Duration::from_secs(length / UPLOAD_BYTES_A_SECOND_MIN);
        let most = UPLOAD_TIME_MIN.to_std().unwrap_or_default() + slowest;
        let call = self.client.put_object().bucket(&self.bucket).key(&key).body(body).customize();
        let patient = aws_sdk_s3::config::Builder::new().timeout_config(attempt_time(most));
        let sent = call.config_override(patient).send().await;
        let uri = self.uri(&key);
        match sent {
            Ok(_) => Ok(uri),
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
        let mut call = self.client.get_object().bucket(&location.bucket).key(&location.key);
        if download.bytes > 0 {
            call = call.range(format!("bytes={}-", download.bytes));
        }
        let sent = call.set_if_match(download.etag.clone()).send().await;
        let mut object = sent.map_err(|error| port_error("s3:GetObject", what(), error))?;
        let left = object.content_length().and_then(|left| u64::try_from(left).ok()).unwrap_or(0);
        let too_large = || {
            PortError::new(
                PortErrorClass::Full,
                format!("{location} has more than {bytes_max} bytes"),
            )
            .hint("send a smaller one")
        };
        if download.bytes.saturating_add(left) > bytes_max {
            return Err(too_large());
        }
        download.etag = object.e_tag().map(ToOwned::to_owned);
        loop {
            let chunk = object.body.try_next().await.map_err(|error| {
                PortError::new(PortErrorClass::Unavailable, what()).because(error)
            })?;
            let Some(chunk) = chunk else { break };
            download.bytes += chunk.len() as u64;
            if download.bytes > bytes_max {
                return Err(too_large());
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
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
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

/// Why a temporary file cannot be written.
fn no_file(error: &std::io::Error) -> PortError {
    let class = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => PortErrorClass::Full,
        _ => PortErrorClass::Other,
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
