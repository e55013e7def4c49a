//! What a failed AWS call means: one function from any SDK error to a `PortError` with a class and a hint.
//!
//! It looks at the error's code, never at its text: several codes (`InsufficientInstanceCapacity` among them) have no type of their own.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use gpuctl_control::ports::{PortError, PortErrorClass};

/// What to say of `error`, which `action` (as IAM writes it: `sqs:ReceiveMessage`) met; `what` failed, in words.
pub fn port_error<E>(
    action: &str,
    what: impl Into<String>,
    error: SdkError<E, HttpResponse>,
) -> PortError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (class, hint) = meaning(action, &error);
    let failed = PortError::new(class, what).because(cause(error));
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// The code that AWS gave, if it answered with one.
pub fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    let code = error.as_service_error()?.code()?;
    // SQS's older protocol prefixes some: `AWS.SimpleQueueService.NonExistentQueue`.
    Some(code.rsplit('.').next().unwrap_or(code))
}

fn meaning<E>(action: &str, error: &SdkError<E, HttpResponse>) -> (PortErrorClass, Option<String>)
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let Some(code) = code(error) {
        return by_code(action, code);
    }
    if let Some(hint) = credentials(error) {
        return (PortErrorClass::Denied, Some(hint.to_owned()));
    }
    let hint = match error {
        SdkError::TimeoutError(_) => "AWS did not answer in time; the next try may work",
        SdkError::DispatchFailure(_) => {
            "AWS cannot be reached: look at the network, at the region's name, and at AWS_ENDPOINT_URL if it is set"
        }
        SdkError::ConstructionFailure(_) => {
            return (PortErrorClass::Other, None);
        }
        _ => "AWS answered what cannot be read; the next try may work",
    };
    (PortErrorClass::Unavailable, Some(hint.to_owned()))
}

fn by_code(action: &str, code: &str) -> (PortErrorClass, Option<String>) {
    let (class, hint) = match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "AuthorizationError"
        | "AuthorizationErrorException" | "KmsAccessDenied" | "KMSAccessDeniedException"
        | "Forbidden" => (PortErrorClass::Denied, format!("allow `{action}` in the IAM policy of this user or role")),
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => (
            PortErrorClass::Denied,
            "the credentials have expired: log in again (`aws sso login`), or renew them".to_owned(),
        ),
        "InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch" | "InvalidSignatureException" | "AuthFailure"
        | "MissingAuthenticationToken" | "MissingAuthenticationTokenException"
        | "IncompleteSignature" | "InvalidToken" | "OptInRequired" => (
            PortErrorClass::Denied,
            "AWS does not accept these credentials: look at the profile, at the clock, and whether the region is enabled".to_owned(),
        ),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
        | "InvalidRegion" => (
            PortErrorClass::NotFound,
            "it lies in another region: set `region` under [cloud] in gpuctl.toml".to_owned(),
        ),
        "Throttling" | "ThrottlingException" | "ThrottledException" | "RequestLimitExceeded"
        | "RequestThrottled" | "RequestThrottledException" | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException" | "LimitExceededException" | "SlowDown"
        | "KmsThrottled" | "OverLimit" => (
            PortErrorClass::Throttled,
            "AWS asks for fewer calls; the next try may work".to_owned(),
        ),
        "QueueDoesNotExist" | "NonExistentQueue" | "ResourceNotFoundException" | "NotFound"
        | "NotFoundException" | "NoSuchBucket" | "NoSuchKey" | "ParameterNotFound" => (
            PortErrorClass::NotFound,
            "look at its name, and whether account and region are the right ones".to_owned(),
        ),
        "ConditionalCheckFailedException" | "TransactionConflictException" | "ResourceInUseException"
        | "PurgeQueueInProgress" | "ConditionalRequestConflict" | "PreconditionFailed" => {
            return (PortErrorClass::Conflict, None);
        }
        "ServiceUnavailable" | "Unavailable" | "InternalError" | "InternalFailure"
        | "InternalServerError" | "InternalServerErrorException" | "RequestTimeout"
        | "RequestTimeoutException" => (
            PortErrorClass::Unavailable,
            "the fault is AWS's; the next try may work".to_owned(),
        ),
        _ => return (PortErrorClass::Other, None),
    };
    (class, Some(hint))
}

/// What to do where no credentials could be had, if that is what failed.
fn credentials(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(credentials) = one.downcast_ref::<CredentialsError>() {
            return Some(match credentials {
                CredentialsError::CredentialsNotLoaded(_) => {
                    "there are no AWS credentials: run `aws configure` or `aws sso login`, or give the box an instance profile"
                }
                CredentialsError::InvalidConfiguration(_) => {
                    "the AWS profile cannot be used as it is: look at ~/.aws/config and at AWS_PROFILE"
                }
                _ => {
                    "AWS credentials could not be had: log in again (`aws sso login`), or look at the box's instance profile"
                }
            });
        }
        next = one.source();
    }
    None
}

/// The cause as people read it: AWS's own words where it answered, else the chain.
fn cause<E>(error: SdkError<E, HttpResponse>) -> Box<dyn Error + Send + Sync>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let spoken = error.as_service_error().and_then(|error| {
        let code = error.code()?;
        Some(format!("{code}: {}", error.message().unwrap_or("AWS says no more")))
    });
    match spoken {
        Some(text) => text.into(),
        None => Box::new(error),
    }
}
