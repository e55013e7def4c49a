//! Calls of EC2's query protocol, signed here: a worker makes two of them, at most once in its life, and building `aws-sdk-ec2`
//! for that takes minutes and gigabytes.
//!
//! The endpoint is `AWS_ENDPOINT_URL_EC2`, `AWS_ENDPOINT_URL`, or the region's. Dual-stack and FIPS endpoints are not derived
//! from the SDK's settings; one of the variables must name them.

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_sts::config::BehaviorVersion;
use aws_sdk_sts::config::http::{HttpRequest, HttpResponse};
use aws_sdk_sts::error::{BoxError, ErrorMetadata, ProvideErrorMetadata};
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{
    HttpStatusCodeClassifier, TransientErrorClassifier,
};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::units::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Aws;
use crate::error::port_error;

/// The version of the EC2 API, the same since 2016 in every SDK.
const VERSION: &str = "2016-11-15";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// EC2 in one region.
#[derive(Debug)]
pub(super) struct Query {
    aws: Aws,
}

/// One call of the API.
pub(super) struct Call<'a> {
    /// E.g. `StopInstances`.
    pub(super) action: &'a str,
    /// Names and values, in any order.
    pub(super) params: &'a [(&'a str, &'a str)],
    /// The error's text if it fails.
    pub(super) what: String,
    /// The time of the signature, which AWS accepts for five minutes before and after.
    pub(super) now: Timestamp,
}

/// An error response of EC2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ErrorResponse(ErrorMetadata);

impl ProvideErrorMetadata for ErrorResponse {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

impl Query {
    pub(super) fn new(aws: &Aws) -> Self {
        Self { aws: aws.clone() }
    }

    /// Makes the call; faults of the network and of EC2 are retried as the SDK's clients do.
    ///
    /// # Errors
    /// When there are no credentials, or EC2 cannot be reached or rejects the call.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<(), PortError> {
        let action = format!("ec2:{}", call.action);
        let request = self.signed(&call).await?;
        let sdk = self.aws.sdk();
        let mut operation = Operation::builder()
            .service_name("EC2")
            .operation_name(call.action.to_owned())
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint())
            .no_auth()
            .retry_classifier(TransientErrorClassifier::<ErrorResponse>::new())
            .retry_classifier(HttpStatusCodeClassifier::default());
        if let Some(retries) = sdk.retry_config() {
            operation = operation.standard_retry(retries);
        }
        if let Some(limits) = sdk.timeout_config() {
            operation = operation.timeout_config(limits.clone());
        }
        if let Some(client) = sdk.http_client() {
            operation = operation.http_client(client);
        }
        let operation = operation
            .serializer(|request: Request| request.into_http())
            .deserializer::<(), ErrorResponse>(read)
            .build();
        operation.invoke(request).await.map_err(|error| port_error(&action, call.what, error))
    }

    fn endpoint(&self) -> String {
        let named = std::env::var("AWS_ENDPOINT_URL_EC2").ok().filter(|url| !url.is_empty());
        let named = named.or_else(|| self.aws.sdk().endpoint_url().map(str::to_owned));
        named.unwrap_or_else(|| {
            let region = self.aws.region();
            let end = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://ec2.{region}.{end}")
        })
    }

    async fn signed(&self, call: &Call<'_>) -> Result<Request, PortError> {
        let failed = |cause: BoxError| {
            PortError::new(PortErrorClass::Denied, call.what.clone())
                .because(cause)
                .hint("give the box an instance profile")
        };
        let provider = self.aws.sdk().credentials_provider();
        let provider = provider.ok_or_else(|| failed("there are no credentials".into()))?;
        let credentials = provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| failed(error.into()))?;
        let target = Target { endpoint: &self.endpoint(), region: self.aws.region() };
        sign(credentials, &target, call).map_err(failed)
    }
}

/// Where a call is sent.
struct Target<'a> {
    endpoint: &'a str,
    region: &'a str,
}

fn sign(
    credentials: Credentials,
    target: &Target<'_>,
    call: &Call<'_>,
) -> Result<Request, BoxError> {
    let body = body(call);
    let uri = format!("{}/", target.endpoint.trim_end_matches('/'));
    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(target.region)
        .name("ec2")
        .time(call.now.into())
        .settings(SigningSettings::default())
        .build()?
        .into();
    let headers = [("content-type", FORM)].into_iter();
    let bytes = SignableBody::Bytes(body.as_bytes());
    let request = SignableRequest::new("POST", uri, headers, bytes)?;
    let (signed, _) = http_request::sign(request, &params)?.into_parts();
    let headers = signed.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Request { headers: headers.collect(), body })
}

/// A signed request, which can be sent several times.
#[derive(Debug)]
struct Request {
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn into_http(self) -> Result<HttpRequest, BoxError> {
        let mut request = HttpRequest::new(self.body.into());
        request.set_method("POST")?;
        request.set_uri("/")?;
        request.headers_mut().insert("content-type", FORM);
        for (name, value) in self.headers {
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

fn body(call: &Call<'_>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let first = [("Action", call.action), ("Version", VERSION)];
    let params = first.iter().chain(call.params);
    params
        .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)))
        .collect::<Vec<_>>()
        .join("&")
}

fn read(response: &HttpResponse) -> Result<(), OrchestratorError<ErrorResponse>> {
    if response.status().is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(response.body().bytes().unwrap_or_default());
    let between = |tag: &str| {
        let rest = body.split_once(&format!("<{tag}>"))?.1;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let code = between("Code").unwrap_or_else(|| response.status().as_u16().to_string());
    let message = between("Message").unwrap_or_else(|| "EC2 gave no message".to_owned());
    let error = ErrorMetadata::builder().code(code).message(message).build();
    Err(OrchestratorError::operation(ErrorResponse(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signatures are botocore's, for the same request at the same time.
    #[test]
    fn a_call_is_signed_as_botocore_signs_it() {
        let call = Call {
            action: "StopInstances",
            params: &[("InstanceId.1", "i-0123456789abcdef0")],
            what: String::new(),
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
        };
        let target =
            Target { endpoint: "https://ec2.us-east-1.amazonaws.com", region: "us-east-1" };
        for (token, expected) in [
            (None, "24cba6857ac96c9feda7cee56114a496198ba22600f8e06a9a918820137d725c"),
            (Some("a-token"), "1e06b49a561cbd99e20a8ef23f33592bd5ff3f793e3e269d2847e7e66c63d237"),
        ] {
            let token = token.map(str::to_owned);
            let credentials = Credentials::from_keys("AKIDEXAMPLE", "wJalrXUtnFEMI", token);
            let request = sign(credentials, &target, &call).unwrap();
            let is_it = |(name, _): &&(String, String)| name == "authorization";
            let (_, value) = request.headers.iter().find(is_it).unwrap();
            assert!(value.ends_with(expected), "{value}");
        }
    }
}
