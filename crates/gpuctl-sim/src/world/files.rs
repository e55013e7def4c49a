//! The store of inputs and results' files: every input is there, and each file of a result is kept under its attempt.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gpuctl_control::job::{InputUri, JobId};
use gpuctl_control::ports::{AttemptName, Fetched, FileStore, PortError, ResultFile};

use super::ports::{Client, Service, Stage};

/// The files of results, by URI.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[async_trait]
impl FileStore for Client {
    async fn fetch(&self, uri: &InputUri, _: u64) -> Result<Fetched, PortError> {
        self.call(Service::Files).await?;
        self.pass(Stage::Fetched).await;
        // Nothing reads it: the simulated model knows the job by its id.
        Ok(Fetched::own(uri.as_str().into()))
    }

    async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        let uri = format!("{}{}", prefix(file.job, Some(file.attempt)), file.name);
        let reply = self.call(Service::Files).await?;
        self.shared.advance_to_now().files.insert(uri.clone(), file.bytes.to_vec());
        self.pass(Stage::FilesKept).await;
        reply.deliver(Ok(uri))
    }

    async fn remove(&self, job: &JobId, attempt: Option<&AttemptName>) -> Result<(), PortError> {
        let reply = self.call(Service::Files).await?;
        let prefix = prefix(job, attempt);
        self.shared.advance_to_now().files.retain(|uri, _| !uri.starts_with(&prefix));
        reply.deliver(Ok(()))
    }
}

fn prefix(job: &JobId, attempt: Option<&AttemptName>) -> String {
    let attempt = attempt.map(|attempt| format!("{}/", attempt.as_str())).unwrap_or_default();
    format!("s3://results/{job}/{attempt}")
}
