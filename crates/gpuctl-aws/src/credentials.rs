//! Credentials that are renewed without a restart. The SDK renews those that have an end; a profile's or the environment's have none that
//! it knows, and it reads a profile's file once: a daemon would use keys from before it was last written, until they are rejected.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;

/// How long credentials without an end are used before they are read again. The SDK would keep them for 15 minutes.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Makes a chain of sources that has read none of them yet.
type Make =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = SharedCredentialsProvider> + Send>> + Send + Sync>;

/// The default chain, read anew where the SDK would keep what it has read.
pub(crate) struct Renewed {
    /// Keeps what renews itself: a session, or what the instance's metadata said before it could not be reached.
    held: SharedCredentialsProvider,
    make: Make,
}

impl Renewed {
    /// The sources of the AWS CLI, in its order.
    pub(crate) async fn default_chain(region: Option<&str>, profile: Option<&str>) -> Self {
        let (region, profile) = (region.map(str::to_owned), profile.map(str::to_owned));
        Self::over(Box::new(move || {
            let mut chain = DefaultCredentialsChain::builder();
            if let Some(region) = region.clone() {
                chain = chain.region(Region::new(region));
            }
            if let Some(profile) = &profile {
                chain = chain.profile_name(profile);
            }
            Box::pin(async move { SharedCredentialsProvider::new(chain.build().await) })
        }))
        .await
    }

    async fn over(make: Make) -> Self {
        Self { held: make().await, make }
    }

    async fn provide(&self) -> Result<Credentials, CredentialsError> {
        let found = self.held.provide_credentials().await?;
        if found.expiry().is_some() {
            return Ok(found);
        }
        let mut read = (self.make)().await.provide_credentials().await?;
        let end = read.expiry_mut();
        *end = end.or(Some(SystemTime::from(SystemClock.now()) + READ_AGAIN_AFTER));
        Ok(read)
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("held", &self.held).finish_non_exhaustive()
    }
}

impl ProvideCredentials for Renewed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.held.fallback_on_interrupt()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The key ids of three calls, after each of which the SDK soon asks again; the chain has another one each time that it is made.
    async fn keys(expires: Option<SystemTime>) -> Vec<String> {
        let made = Arc::new(AtomicUsize::new(0));
        let make: Make = Box::new(move || {
            let name = format!("key-{}", made.fetch_add(1, Ordering::Relaxed));
            let credentials = Credentials::new(name, "secret", None, expires, "test");
            Box::pin(async move { SharedCredentialsProvider::new(credentials) })
        });
        let renewed = Renewed::over(make).await;
        let mut keys = Vec::new();
        for _ in 0..3 {
            let found = renewed.provide_credentials().await.unwrap();
            let left = found.expiry().unwrap().duration_since(SystemTime::from(SystemClock.now()));
            assert!(left.unwrap_or_default() <= READ_AGAIN_AFTER, "the SDK would keep them");
            keys.push(found.access_key_id().to_owned());
        }
        keys
    }

    #[tokio::test]
    async fn keys_without_an_end_are_read_again_and_a_session_is_kept() {
        assert_eq!(keys(None).await, ["key-1", "key-2", "key-3"]);
        assert_eq!(keys(Some(SystemTime::UNIX_EPOCH)).await, ["key-0", "key-0", "key-0"]);
    }
}
