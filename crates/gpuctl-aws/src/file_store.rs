//! `FileStore` on AWS: objects of S3 by their URI; files on a disk that boxes share (EFS) and texts go to another store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gpuctl_control::input::{InputRejected, KEY_BYTES_MAX};
use gpuctl_control::job::{InputLocation, InputUri, InputUriError, JobId};
use gpuctl_control::ports::{
    AttemptName, Fetched, FileStore, PortError, PortErrorClass, ResultFile, Upload, WorkingFile,
};
use gpuctl_core::policy::{Aws as Named, Policy};

use crate::{Aws, S3Files};

/// The name of the policy where it lies in S3, often in the bucket of `results`.
const POLICY_NAME: &str = "gpuctl.toml";

/// Files of an account.
pub struct AwsFiles {
    s3: S3Files,
    results: Option<S3Files>,
    local: Arc<dyn FileStore>,
    places: InputPlaces,
}

/// Where inputs may be. Who may send a message names the input, and the box reads it with its own rights: so a message may name only what
/// the policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputPlaces {
    /// Buckets by name, each with the account that must own it, if that is known.
    buckets: BTreeMap<String, Option<String>>,
    /// Whether files on the box's disk may be inputs: those in `input_roots`.
    has_roots: bool,
}

impl InputPlaces {
    /// The bucket of `results`, `input_buckets` and `input_roots`.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let results = policy.cloud.aws.as_ref().and_then(|aws| aws.results.as_deref());
        let results = results.and_then(|uri| uri.strip_prefix("s3://"));
        let results = results.map(|rest| rest.split('/').next().unwrap_or(rest));
        let mut buckets: BTreeMap<String, Option<String>> =
            results.map(|bucket| (bucket.to_owned(), None)).into_iter().collect();
        for named in &policy.worker.input_buckets {
            match named.split_once('/') {
                Some((owner, bucket)) => buckets.insert(bucket.to_owned(), Some(owner.to_owned())),
                None => buckets.insert(named.clone(), None),
            };
        }
        Self { buckets, has_roots: !policy.worker.input_roots.is_empty() }
    }

    /// Whether this may be an input; if it is in a bucket, also the account that must own it, if that is known.
    ///
    /// # Errors
    /// When it may not.
    pub fn admit(&self, uri: &InputUri) -> Result<Option<&str>, InputRejected> {
        match uri.location() {
            InputLocation::S3 { bucket, key } => match self.buckets.get(&bucket) {
                Some(_) if key.len() > KEY_BYTES_MAX => {
                    let (uri, bytes) = (uri.as_str().to_owned(), key.len());
                    Err(InputRejected::KeyTooLong { uri, bytes })
                }
                Some(_) if key.rsplit('/').next() == Some(POLICY_NAME) => {
                    Err(InputRejected::Policy { uri: uri.as_str().to_owned() })
                }
                Some(owner) => Ok(owner.as_deref()),
                None => Err(InputRejected::Bucket { uri: uri.as_str().to_owned() }),
            },
            InputLocation::File(path) if !self.has_roots => Err(InputRejected::Outside { path }),
            InputLocation::File(_) | InputLocation::Text(_) => Ok(None),
        }
    }
}

impl AwsFiles {
    /// Stores files in `results`; inputs are fetched from `places`, and what does not lie in S3 by `local`.
    #[must_use]
    pub fn new(
        aws: &Aws,
        results: Option<S3Files>,
        local: Arc<dyn FileStore>,
        places: InputPlaces,
    ) -> Self {
        let s3 = results.clone().unwrap_or_else(|| S3Files::new(aws, "", ""));
        Self { s3, results, local, places }
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

fn no_results() -> PortError {
    let what = "there is no `results` under [cloud], so a job's files cannot be kept";
    PortError::new(PortErrorClass::Other, what)
        .hint("set `results = \"s3://bucket/prefix\"` in [cloud]")
}

#[async_trait]
impl FileStore for AwsFiles {
    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, PortError> {
        let owner = self.places.admit(uri)?;
        match uri.location() {
            InputLocation::S3 { .. } => {
                let copy = self.s3.fetch(uri.as_str(), bytes_max, owner).await?;
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
            None => Err(no_results()),
        }
    }

    async fn keep_working(&self, file: &WorkingFile<'_>) -> Result<String, PortError> {
        self.results.as_ref().ok_or_else(no_results)?.keep_working(file).await
    }

    async fn working(&self, file: &WorkingFile<'_>) -> Result<Option<Fetched>, PortError> {
        let found = self.results.as_ref().ok_or_else(no_results)?.working(file).await?;
        Ok(found.map(|copy| Fetched::temporary(copy.into_temp_path())))
    }

    async fn remove_working(&self, job: &JobId, generation: u32) -> Result<(), PortError> {
        match &self.results {
            Some(results) => results.remove_working(job, generation).await,
            None => Ok(()),
        }
    }

    fn admit(&self, uri: &InputUri) -> Result<(), InputRejected> {
        self.places.admit(uri).map(drop)
    }

    /// S3 has no names of parts of a file: the copy is uploaded under the name that it has in a folder of its own.
    async fn take_in(&self, upload: Upload<'_>) -> Result<InputUri, PortError> {
        let Some(results) = &self.results else {
            let what = "there is no `results` under [cloud] to upload inputs to";
            return Err(PortError::new(PortErrorClass::Other, what)
                .hint("set `results = \"s3://bucket/prefix\"` in [cloud]"));
        };
        let unwritten = |error: std::io::Error| {
            PortError::new(PortErrorClass::Unavailable, "cannot name an uploaded file")
                .because(error)
        };
        let folder = tempfile::tempdir().map_err(unwritten)?;
        let path = folder.path().join(upload.name);
        upload.file.persist(&path).map_err(|error| unwritten(error.error))?;
        let copy = results.upload(&path).await?;
        copy.parse().map_err(|error: InputUriError| {
            let what = format!("`{copy}` is not a valid input URI");
            PortError::new(PortErrorClass::Other, what).because(error)
        })
    }

    async fn remove(&self, job: &JobId, attempt: Option<&AttemptName>) -> Result<(), PortError> {
        match &self.results {
            Some(results) => results.remove(job, attempt).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_name_only_the_places_of_the_policy() {
        let places = |more: &str| {
            let text = format!(
                "[cloud]\nkind = \"aws\"\ntable = \"t\"\nresults = \"s3://own/gpuctl\"\n\
                 [pool.gpu]\nqueue = \"jobs\"\ninstances = [\"i-0123456789abcdef0\"]\n[worker]\n{more}"
            );
            InputPlaces::of(&Policy::parse(&text).unwrap())
        };
        let code = |places: &InputPlaces, uri: &str| {
            places.admit(&uri.parse().unwrap()).err().map(|refusal| refusal.code())
        };
        let strict = places("");
        assert_eq!(code(&strict, "s3://own/a.wav"), None);
        assert_eq!(code(&strict, "data:,text"), None);
        for uri in [
            "s3://other/a.wav",
            "s3://own.other/a.wav",
            "s3://own/gpuctl.toml",
            "s3://own/prod/gpuctl.toml",
            "file:///home/ubuntu/.aws/credentials",
        ] {
            assert_eq!(code(&strict, uri), Some("input.outside"), "{uri}");
        }
        let wide =
            places("input_buckets = [\"other\", \"123456789012/third\"]\ninput_roots = [\"/mnt\"]");
        for uri in ["s3://own/a", "s3://other/a", "s3://third/a", "file:///mnt/a"] {
            assert_eq!(code(&wide, uri), None, "{uri}");
        }
        let long = |bytes: usize| format!("s3://own/{}", "k".repeat(bytes));
        assert_eq!(code(&wide, &long(KEY_BYTES_MAX)), None);
        assert_eq!(code(&wide, &long(KEY_BYTES_MAX + 1)), Some("input.key_too_long"));
        let third = "s3://third/a".parse().unwrap();
        assert_eq!(wide.admit(&third).unwrap(), Some("123456789012"));
    }
}
