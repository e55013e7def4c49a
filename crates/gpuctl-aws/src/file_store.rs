//! `FileStore` on AWS: objects of S3 by their URI, and what lies on a disk that boxes share (EFS) or carries its text itself.

use std::sync::Arc;

use async_trait::async_trait;
use gpuctl_control::job::{InputLocation, InputUri, JobId};
use gpuctl_control::ports::{Fetched, FileStore, PortError, PortErrorClass};
use gpuctl_core::policy::Aws as Named;

use crate::{Aws, S3Files};

/// Files of an account.
pub struct AwsFiles {
    s3: S3Files,
    results: Option<S3Files>,
    here: Arc<dyn FileStore>,
}

impl AwsFiles {
    /// Files that are kept in `results`; what is not in S3 is fetched by `here`.
    #[must_use]
    pub fn new(aws: &Aws, results: Option<S3Files>, here: Arc<dyn FileStore>) -> Self {
        let s3 = results.clone().unwrap_or_else(|| S3Files::new(aws, "", ""));
        Self { s3, results, here }
    }
}

/// The place for results that the policy names.
///
/// # Errors
/// When it is no `s3://` URI.
pub fn results(aws: &Aws, named: &Named) -> Result<Option<S3Files>, PortError> {
    let Some(place) = &named.results else { return Ok(None) };
    let rest = place.strip_prefix("s3://").ok_or_else(|| {
        PortError::new(PortErrorClass::Other, format!("`{place}` is no place in S3"))
    })?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    Ok(Some(S3Files::new(aws, bucket, prefix)))
}

#[async_trait]
impl FileStore for AwsFiles {
    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, PortError> {
        match uri.location() {
            InputLocation::S3 { .. } => {
                let copy = self.s3.fetch(uri.as_str(), bytes_max).await?;
                Ok(Fetched::temporary(copy.into_temp_path()))
            }
            InputLocation::File(_) | InputLocation::Text(_) => {
                self.here.fetch(uri, bytes_max).await
            }
        }
    }

    async fn keep(&self, job: &JobId, name: &str, bytes: &[u8]) -> Result<String, PortError> {
        match &self.results {
            Some(results) => results.keep(job, name, bytes).await,
            // A stopped box loses what lies on its own disk sooner or later: better no result than one that is lost.
            None => {
                Err(PortError::new(PortErrorClass::Other, "there is no place for a result's files")
                    .hint("set `results = \"s3://bucket/prefix\"` in [cloud]"))
            }
        }
    }
}
