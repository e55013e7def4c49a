//! Inputs and results' files.

use async_trait::async_trait;
use gpuctl_control::input::InputRejected;
use gpuctl_control::job::{InputUri, JobId};
use gpuctl_control::ports::{
    AttemptName, Fetched, FileStore, PortError, PortErrorClass, ResultFile,
};

use super::{Call, World};

#[async_trait]
impl FileStore for World {
    async fn fetch(&self, uri: &InputUri, bytes_max: u64) -> Result<Fetched, PortError> {
        if uri.as_str().contains("forbidden") {
            return Err(PortError::new(PortErrorClass::Denied, "not allowed"));
        }
        if uri.as_str().contains("throttled") {
            return Err(PortError::new(PortErrorClass::Throttled, "slow down"));
        }
        if uri.as_str().contains("large") {
            let (uri, bytes) = (uri.as_str().to_owned(), u64::MAX);
            return Err(InputRejected::TooLarge { uri, bytes, bytes_max }.into());
        }
        if uri.as_str().contains("gone") {
            return Err(InputRejected::Missing { uri: uri.as_str().to_owned() }.into());
        }
        self.check(Call::Fetch)?;
        Ok(Fetched::own("/dev/null".into()))
    }

    async fn keep(&self, file: &ResultFile<'_>) -> Result<String, PortError> {
        self.check(Call::Keep)?;
        let name = format!("{}/{}/{}", file.job, file.attempt.as_str(), file.name);
        self.state().files.insert(name.clone(), file.bytes.to_vec());
        Ok(name)
    }

    async fn remove(&self, job: &JobId, attempt: Option<&AttemptName>) -> Result<(), PortError> {
        let prefix = format!("{job}/{}", attempt.map_or("", AttemptName::as_str));
        self.state().files.retain(|name, _| !name.starts_with(&prefix));
        Ok(())
    }
}
