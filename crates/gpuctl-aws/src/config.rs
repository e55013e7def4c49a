//! One connection's settings for every AWS client: credentials and endpoints from the SDK's own chain, time limits and retries from here.
//!
//! Profiles, SSO, IMDS, `AWS_ENDPOINT_URL` and the endpoint of each service (`AWS_ENDPOINT_URL_SQS` …) work as in the AWS CLI.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use gpuctl_control::ports::{PortError, PortErrorClass};

use crate::error::port_error;

/// How long connecting may take: within a region it takes milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long one try of a call may take. With `ATTEMPTS_MAX` a call outlasts `observe`'s patience only where all tries hang.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(8);

/// Tries of one call, the first included: the standard mode, with back-off and jitter.
const ATTEMPTS_MAX: u32 = 3;

/// The settings that every client is made from; cloning shares them.
#[derive(Clone, Debug)]
pub struct Aws {
    sdk: SdkConfig,
    region: String,
}

/// Who the credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account's number.
    pub account: String,
    /// The user's or role's ARN.
    pub arn: String,
}

impl Aws {
    /// Finds region, credentials and endpoints; asks AWS nothing yet.
    ///
    /// # Errors
    /// When no region is named anywhere.
    pub async fn connect(region: Option<&str>, profile: Option<&str>) -> Result<Self, PortError> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        Self::load(loader).await
    }

    /// As `connect`, with what else the loader is set to: endpoint or credentials of a test's own.
    ///
    /// # Errors
    /// As there.
    pub async fn load(loader: ConfigLoader) -> Result<Self, PortError> {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX);
        let loader = loader.retry_config(retries).timeout_config(attempt_time(ATTEMPT_TIME_MAX));
        let sdk = loader.load().await;
        let Some(region) = sdk.region().map(ToString::to_string) else {
            return Err(PortError::new(PortErrorClass::Other, "no AWS region is named").hint(
                "set `region` under [cloud] in gpuctl.toml, AWS_REGION, or a region in ~/.aws/config",
            ));
        };
        Ok(Self { sdk, region })
    }

    /// Every service at one endpoint with made-up credentials, for emulators.
    #[must_use]
    pub fn at(endpoint: &str, region: &str) -> Self {
        let credentials = Credentials::from_keys("test", "test", None);
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
            .timeout_config(attempt_time(ATTEMPT_TIME_MAX))
            .build();
        Self { sdk, region: region.to_owned() }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The settings themselves, for a client with other ones.
    #[must_use]
    pub fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// SQS.
    #[must_use]
    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.sdk)
    }

    /// DynamoDB.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.sdk)
    }

    /// S3. An endpoint of one's own is asked by path: `bucket.127.0.0.1` is no name.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let own =
            self.sdk.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        let config = aws_sdk_s3::config::Builder::from(&self.sdk).force_path_style(own).build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// STS.
    #[must_use]
    pub fn sts(&self) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::new(&self.sdk)
    }

    /// SNS.
    #[cfg(feature = "notify")]
    #[must_use]
    pub fn sns(&self) -> aws_sdk_sns::Client {
        aws_sdk_sns::Client::new(&self.sdk)
    }

    /// SSM.
    #[cfg(feature = "control")]
    #[must_use]
    pub fn ssm(&self) -> aws_sdk_ssm::Client {
        aws_sdk_ssm::Client::new(&self.sdk)
    }

    /// Who we are, as AWS sees it: the cheapest call that proves credentials, clock and network.
    ///
    /// # Errors
    /// When AWS cannot be asked, or does not know us.
    pub async fn identity(&self) -> Result<Identity, PortError> {
        let answer = self.sts().get_caller_identity().send().await.map_err(|error| {
            port_error("sts:GetCallerIdentity", "cannot learn who these credentials are", error)
        })?;
        let text = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
        Ok(Identity { account: text(answer.account()), arn: text(answer.arn()) })
    }
}

/// The house's limits, with another one on each try.
pub(crate) fn attempt_time(max: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIME_MAX)
        .operation_attempt_timeout(max)
        .build()
}
