//! Files in S3: a job's input is fetched to the disk, its output is kept, and a local input is uploaded under its content's name.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use chrono::TimeDelta;
use gpuctl_control::job::JobId;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::text::hexadecimal;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::config::{Aws, attempt_time};
use crate::error::port_error;

/// Downloads that are taken up again where they broke off, the first try included.
const FETCH_TRIES_MAX: u32 = 4;

/// The largest file of one upload: S3's limit on a single one.
const UPLOAD_BYTES_MAX: u64 = 5 * 1_024 * 1_024 * 1_024;

/// How slow an upload may be before it counts as hanging, in bytes a second; beside `UPLOAD_TIME_MIN`.
const UPLOAD_BYTES_A_SECOND_MIN: u64 = 256 * 1_024;

/// What any upload may take.
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

/// An object's place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    bucket: String,
    key: String,
}

/// How far a download has come.
struct Download {
    file: NamedTempFile,
    bytes: u64,
    /// So that a change in between is noticed.
    etag: Option<String>,
}

impl S3Files {
    /// The folder `prefix` of a bucket; an empty one is the bucket itself.
    #[must_use]
    pub fn new(aws: &Aws, bucket: &str, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client: aws.s3(), bucket: bucket.to_owned(), prefix }
    }

    /// Fetches an object of any bucket into a file that is deleted with the answer. One of more than `bytes_max` is `Full`,
    /// and is not downloaded.
    ///
    /// # Errors
    /// When it is too large, not there, may not be read, changes meanwhile, or cannot be written.
    pub async fn fetch(&self, uri: &str, bytes_max: u64) -> Result<NamedTempFile, PortError> {
        let place = Place::of(uri)?;
        let file = NamedTempFile::new().map_err(|error| no_file(&error))?;
        let mut download = Download { file, bytes: 0, etag: None };
        for left in (0..FETCH_TRIES_MAX).rev() {
            match self.fetch_on(&place, bytes_max, &mut download).await {
                Err(error) if error.class == PortErrorClass::Unavailable && left > 0 => {
                    tracing::debug!(uri, bytes = download.bytes, %error, "the download goes on where it broke off");
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        download.file.flush().map_err(|error| no_file(&error))?;
        Ok(download.file)
    }

    /// The text of an object that this program has kept.
    ///
    /// # Errors
    /// As `fetch`, and when it is no text.
    pub async fn text(&self, uri: &str, bytes_max: u64) -> Result<String, PortError> {
        let file = self.fetch(uri, bytes_max).await?;
        std::fs::read_to_string(file.path()).map_err(|error| {
            PortError::new(PortErrorClass::Corrupt, format!("{uri} is no text")).because(error)
        })
    }

    /// Keeps a job's file; answers its URI.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn keep(&self, job: &JobId, name: &str, bytes: &[u8]) -> Result<String, PortError> {
        let key = format!("{}jobs/{job}/{name}", self.prefix);
        let body = ByteStream::from(bytes.to_vec());
        self.put(key, (body, bytes.len() as u64)).await
    }

    /// Uploads a file; answers its URI. The same content under the same name is one object, and is uploaded once.
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
        self.put(key, (body, length)).await
    }

    /// Whether it is there already; who may not ask uploads again.
    async fn has(&self, key: &str, length: u64) -> bool {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let found = call.send().await;
        found.is_ok_and(|found| {
            found.content_length().and_then(|l| u64::try_from(l).ok()) == Some(length)
        })
    }

    async fn put(
        &self,
        key: String,
        (body, length): (ByteStream, u64),
    ) -> Result<String, PortError> {
        let slowest = Duration::from_secs(length / UPLOAD_BYTES_A_SECOND_MIN);
        let most = UPLOAD_TIME_MIN.to_std().unwrap_or_default() + slowest;
        let call = self.client.put_object().bucket(&self.bucket).key(&key).body(body).customize();
        let patient = aws_sdk_s3::config::Builder::new().timeout_config(attempt_time(most));
        let answer = call.config_override(patient).send().await;
        let uri = self.uri(&key);
        match answer {
            Ok(_) => Ok(uri),
            Err(error) => Err(port_error("s3:PutObject", format!("cannot write {uri}"), error)),
        }
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Goes on where the download broke off.
    async fn fetch_on(
        &self,
        place: &Place,
        bytes_max: u64,
        download: &mut Download,
    ) -> Result<(), PortError> {
        let what = || format!("cannot fetch {place}");
        let mut call = self.client.get_object().bucket(&place.bucket).key(&place.key);
        if download.bytes > 0 {
            call = call.range(format!("bytes={}-", download.bytes));
        }
        let answer = call.set_if_match(download.etag.clone()).send().await;
        let mut answer = answer.map_err(|error| port_error("s3:GetObject", what(), error))?;
        let left = answer.content_length().and_then(|left| u64::try_from(left).ok()).unwrap_or(0);
        let too_large = || {
            PortError::new(PortErrorClass::Full, format!("{place} has more than {bytes_max} bytes"))
                .hint("raise the limit on inputs under [worker] in gpuctl.toml, or send a smaller one")
        };
        if download.bytes.saturating_add(left) > bytes_max {
            return Err(too_large());
        }
        download.etag = answer.e_tag().map(ToOwned::to_owned);
        loop {
            let chunk = answer.body.try_next().await.map_err(|error| {
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

impl Place {
    /// `s3://bucket/key`, the key as it is.
    fn of(uri: &str) -> Result<Self, PortError> {
        let parts = uri.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        match parts {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err(PortError::new(
                PortErrorClass::Other,
                format!("`{uri}` is no `s3://bucket/key`"),
            )),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

fn no_file(error: &std::io::Error) -> PortError {
    let class = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => PortErrorClass::Full,
        _ => PortErrorClass::Other,
    };
    PortError::new(class, "cannot write a temporary file")
        .because(error.to_string())
        .hint("look at the disk that TMPDIR names")
}

/// The content's name: enough of its digest that two inputs never share it.
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
    fn a_uri_names_bucket_and_key_or_is_refused() {
        let place = Place::of("s3://in/a/b c%.wav").unwrap();
        assert_eq!((place.bucket.as_str(), place.key.as_str()), ("in", "a/b c%.wav"));
        assert_eq!(place.to_string(), "s3://in/a/b c%.wav");
        for bad in ["s3://in", "s3:///key", "s3://in/", "file:///a", "in/key"] {
            assert!(Place::of(bad).is_err(), "{bad}");
        }
    }
}
