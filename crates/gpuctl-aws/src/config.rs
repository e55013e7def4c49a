//! One connection's settings for every AWS client: credentials and endpoints from the SDK's own chain, time limits and retries from here.
//!
//! Profiles, SSO, IMDS, `AWS_ENDPOINT_URL` and the endpoint of each service (`AWS_ENDPOINT_URL_SQS` …) work as in the AWS CLI.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use chrono::{DateTime, TimeDelta};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{Clock, PortError, PortErrorClass};

use crate::calls::show;
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

    /// Service Quotas.
    #[cfg(feature = "control")]
    #[must_use]
    pub fn quotas(&self) -> aws_sdk_servicequotas::Client {
        aws_sdk_servicequotas::Client::new(&self.sdk)
    }

    /// KMS.
    #[cfg(feature = "control")]
    #[must_use]
    pub fn kms(&self) -> aws_sdk_kms::Client {
        aws_sdk_kms::Client::new(&self.sdk)
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
        self.identity_and_clock().await.0
    }

    /// Who we are, and how far this machine's clock is ahead of AWS's: known from any answer that says when it was given, also a
    /// refusal.
    pub async fn identity_and_clock(&self) -> (Result<Identity, PortError>, Option<TimeDelta>) {
        let watch = Watch::default();
        show(format_args!("sts get-caller-identity"));
        let call = self.sts().get_caller_identity().customize().interceptor(watch.clone());
        let answer = call.send().await.map_err(|error| {
            port_error("sts:GetCallerIdentity", "cannot learn who these credentials are", error)
        });
        let text = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
        let who = |answer: GetCallerIdentityOutput| Identity {
            account: text(answer.account()),
            arn: text(answer.arn()),
        };
        (answer.map(who), watch.ahead())
    }
}

/// Compares the clocks whenever an answer comes in.
#[derive(Clone, Debug, Default)]
struct Watch(Arc<Mutex<Option<TimeDelta>>>);

impl Watch {
    fn ahead(&self) -> Option<TimeDelta> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "Watch"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(theirs) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) {
            let ahead = SystemClock.now() - theirs.to_utc();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        Ok(())
    }
}

/// The house's limits, with another one on each try.
pub(crate) fn attempt_time(max: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIME_MAX)
        .operation_attempt_timeout(max)
        .build()
}
