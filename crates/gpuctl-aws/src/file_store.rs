//! `FileStore` on AWS: objects of S3 by their URI; files on a disk that boxes share (EFS) and texts go to another store.

use std::sync::Arc;

use async_trait::async_trait;
use gpuctl_control::job::{InputLocation, InputUri, JobId};
use gpuctl_control::ports::{
    AttemptName, Fetched, FileStore, PortError, PortErrorClass, ResultFile,
};
use gpuctl_core::policy::Aws as Named;

use crate::{Aws, S3Files};

/// Files of an account.
pub struct AwsFiles {
    s3: S3Files,
    results: Option<S3Files>,
    local: Arc<dyn FileStore>,
}

impl AwsFiles {
    /// Stores files in `results`; what does not lie in S3 is fetched by `local`.
    #[must_use]
    pub fn new(aws: &Aws, results: Option<S3Files>, local: Arc<dyn FileStore>) -> Self {
        let s3 = results.clone().unwrap_or_else(|| S3Files::new(aws, "", ""));
        Self { s3, results, local }
    }
}

/// The folder in S3 for results, from `results` in the policy; `None` if it names none.
///
/// # Errors
/// When it is not an `s3://` URI.
pub fn results(aws: &Aws, named: &Named) -> Result<Option<S3Files>, PortError> {
    let Some(uri) = &named.results else { return Ok(None) };
    let rest = uri.strip_prefix("s3://").ok_or_else(|| {
        PortError::new(PortErrorClass::Other, format!("`{uri}` is not a valid S3 URI"))
            .hint("set `results = \"s3://bucket/prefix\"` in [cloud]")
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
                self.local.fetch(uri, bytes_max).await
            }
        }
    }

    async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        match &self.results {
            Some(results) => results.keep(file).await,
            // Files on the box's own disk would be lost with the box: no result is better than a result that gets lost.
            None => Err(PortError::new(
                PortErrorClass::Other,
                "there is no `results` under [cloud], so a result's files cannot be kept",
            )
            .hint("set `results = \"s3://bucket/prefix\"` in [cloud]")),
        }
    }

    async fn remove(&self, _: &JobId, _: Option<&AttemptName>) -> Result<(), PortError> {
        Ok(())
    }
}
