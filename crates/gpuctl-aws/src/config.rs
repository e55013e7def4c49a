//! The settings of every AWS client: credentials and endpoints from the SDK's default chain, time limits and retries from here.
//!
//! Profiles, SSO, IMDS, `AWS_ENDPOINT_URL` and the endpoint of each service (`AWS_ENDPOINT_URL_SQS` …) work as in the AWS CLI.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use chrono::{DateTime, TimeDelta};
use gpuctl_control::clock::{CorrectedClock, SystemClock};
use gpuctl_control::ports::{Clock, PortError, PortErrorClass};
use gpuctl_core::units::Timestamp;
use tokio::time::Instant;

use crate::calls::show;
use crate::credentials::Renewed;
use crate::error::port_error;

/// How long connecting may take; within a region it takes milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long one try of a call may take. `observe` waits 10 s for a part, so only a call whose tries all hang takes longer.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(8);

/// Tries of one call, the first included, in the SDK's standard retry mode (exponential back-off with jitter).
const ATTEMPTS_MAX: u32 = 3;

/// The settings that every client is made from; cloning shares them.
#[derive(Clone, Debug)]
pub struct Aws {
    sdk: SdkConfig,
    region: String,
    follow: FollowClock,
}

/// Whose credentials are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The account's twelve digits.
    pub account: String,
    /// Of the user or role.
    pub arn: String,
}

impl Aws {
    /// Finds region, credentials and endpoints; calls nothing yet.
    ///
    /// # Errors
    /// When no region is configured.
    pub async fn connect(region: Option<&str>, profile: Option<&str>) -> Result<Self, PortError> {
        Self::connect_to(None, region, profile).await
    }

    /// As `connect`, with every service at `endpoint` if one is given.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_to(
        endpoint: Option<&str>,
        region: Option<&str>,
        profile: Option<&str>,
    ) -> Result<Self, PortError> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        let credentials = Renewed::default_chain(region, profile).await;
        Self::load(loader.credentials_provider(credentials)).await
    }

    /// As `connect`, with this loader's settings, e.g. a test's endpoint and credentials.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn load(loader: ConfigLoader) -> Result<Self, PortError> {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX);
        let loader = loader.retry_config(retries).timeout_config(attempt_time(ATTEMPT_TIME_MAX));
        let sdk = loader.load().await;
        let Some(region) = sdk.region().map(ToString::to_string) else {
            return Err(PortError::new(PortErrorClass::Other, "no AWS region is configured").hint(
                "set `region` under [cloud] in gpuctl.toml, AWS_REGION, or a region in ~/.aws/config",
            ));
        };
        Ok(Self { sdk, region, follow: FollowClock::default() })
    }

    /// Every service at one endpoint, with placeholder credentials, for emulators.
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
        Self { sdk, region: region.to_owned(), follow: FollowClock::default() }
    }

    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The settings, for a client that changes some. It also needs `follow`.
    #[must_use]
    pub fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// The clock of everything on AWS: it follows the time in AWS's responses, so that processes on machines whose clocks differ compare
    /// times of one clock.
    #[must_use]
    pub fn clock(&self) -> Arc<CorrectedClock> {
        Arc::clone(&self.follow.clock)
    }

    /// Whether a response has told AWS's time. Until then the clock shows this machine's.
    #[must_use]
    pub fn knows_time(&self) -> bool {
        self.follow.has_heard.load(Ordering::Relaxed)
    }

    /// What each client needs, so that the clock follows the responses to its calls.
    pub(crate) fn follow(&self) -> FollowClock {
        self.follow.clone()
    }

    #[must_use]
    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// Another endpoint than AWS's gets path-style addresses: `bucket.127.0.0.1` is not a host name.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let path_style =
            self.sdk.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        let config = aws_sdk_s3::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_s3::Client::from_conf(config.force_path_style(path_style).build())
    }

    #[must_use]
    pub fn sts(&self) -> aws_sdk_sts::Client {
        let config = aws_sdk_sts::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_sts::Client::from_conf(config.build())
    }

    #[cfg(feature = "notify")]
    #[must_use]
    pub fn sns(&self) -> aws_sdk_sns::Client {
        let config = aws_sdk_sns::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_sns::Client::from_conf(config.build())
    }

    #[cfg(feature = "control")]
    #[must_use]
    pub fn quotas(&self) -> aws_sdk_servicequotas::Client {
        let config =
            aws_sdk_servicequotas::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_servicequotas::Client::from_conf(config.build())
    }

    #[cfg(feature = "control")]
    #[must_use]
    pub fn kms(&self) -> aws_sdk_kms::Client {
        let config = aws_sdk_kms::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_kms::Client::from_conf(config.build())
    }

    #[cfg(feature = "control")]
    #[must_use]
    pub fn ssm(&self) -> aws_sdk_ssm::Client {
        let config = aws_sdk_ssm::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_ssm::Client::from_conf(config.build())
    }

    #[cfg(feature = "deploy")]
    #[must_use]
    pub fn cloudformation(&self) -> aws_sdk_cloudformation::Client {
        let config =
            aws_sdk_cloudformation::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_cloudformation::Client::from_conf(config.build())
    }

    #[cfg(feature = "deploy")]
    pub(crate) fn efs(&self) -> aws_sdk_efs::Client {
        let config = aws_sdk_efs::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_efs::Client::from_conf(config.build())
    }

    /// EC2 for what has nothing to do with a pool's boxes.
    #[cfg(feature = "deploy")]
    pub(crate) fn ec2(&self) -> aws_sdk_ec2::Client {
        let config = aws_sdk_ec2::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_ec2::Client::from_conf(config.build())
    }

    #[cfg(feature = "deploy")]
    pub(crate) fn logs(&self) -> aws_sdk_cloudwatchlogs::Client {
        let config =
            aws_sdk_cloudwatchlogs::config::Builder::from(&self.sdk).interceptor(self.follow());
        aws_sdk_cloudwatchlogs::Client::from_conf(config.build())
    }

    /// Who the caller is, as AWS sees it: the cheapest call that proves credentials, clock and network.
    ///
    /// # Errors
    /// When AWS cannot be reached, or does not accept the credentials.
    pub async fn identity(&self) -> Result<CallerIdentity, PortError> {
        self.identity_and_clock().await.0
    }

    /// Who the caller is, and how far this machine's clock is ahead of AWS's: known from any response with a `Date`, also from an
    /// error (T14).
    pub async fn identity_and_clock(
        &self,
    ) -> (Result<CallerIdentity, PortError>, Option<TimeDelta>) {
        let clocks = ClockComparison::default();
        show(format_args!("sts get-caller-identity"));
        let call = self.sts().get_caller_identity().customize().interceptor(clocks.clone());
        let sent = call.send().await.map_err(|error| {
            port_error(
                "sts:GetCallerIdentity",
                "cannot find out whose credentials these are",
                error,
            )
        });
        let text = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
        let identity = |output: GetCallerIdentityOutput| CallerIdentity {
            account: text(output.account()),
            arn: text(output.arn()),
        };
        (sent.map(identity), clocks.ahead())
    }
}

/// Compares this machine's clock with the `Date` of each response.
#[derive(Clone, Debug, Default)]
struct ClockComparison(Arc<Mutex<Option<TimeDelta>>>);

impl ClockComparison {
    fn ahead(&self) -> Option<TimeDelta> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ClockComparison {
    fn name(&self) -> &'static str {
        "ClockComparison"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(theirs) = date(context) {
            let ahead = SystemClock.now() - theirs;
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        Ok(())
    }
}

/// Sets a clock by the `Date` of each response, errors included.
#[derive(Clone, Debug, Default)]
pub(crate) struct FollowClock {
    clock: Arc<CorrectedClock>,
    has_heard: Arc<AtomicBool>,
}

/// When a try of a call was sent.
#[derive(Clone, Copy, Debug)]
struct SentAt(Instant);

impl Storable for SentAt {
    type Storer = StoreReplace<Self>;
}

impl Intercept for FollowClock {
    fn name(&self) -> &'static str {
        "FollowClock"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(SentAt(Instant::now()));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(at), Some(SentAt(sent))) = (date(context), bag.load::<SentAt>()) {
            self.clock.heard(at, sent.elapsed());
            self.has_heard.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// When the server sent its response, in whole seconds.
fn date(context: &BeforeDeserializationInterceptorContextRef<'_>) -> Option<Timestamp> {
    let date = context.response().headers().get("date")?;
    DateTime::parse_from_rfc2822(date).ok().map(|date| date.to_utc())
}

/// This crate's time limits, with `max` for each try.
pub(crate) fn attempt_time(max: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIME_MAX)
        .operation_attempt_timeout(max)
        .build()
}
