//! What a failed AWS call means: one function from any SDK error to a `PortError` with a class and a hint.
//!
//! The class follows from the error's code: several codes (`InsufficientInstanceCapacity` among them) have no type in the SDK. Its message is
//! read only for the hint of a denied call, since it alone says who was denied, and whether by an explicit deny.
//! What EC2's codes mean for a start is in `ec2/refusal`.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use gpuctl_control::ports::{PortError, PortErrorClass};

/// Classifies the error of a call. `action` is the permission that it needs, e.g. `sqs:ReceiveMessage`; `what` is the message.
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

/// The code of an error response, if AWS sent one.
pub fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    let code = error.as_service_error()?.code()?;
    // SQS's older protocol prefixes some: `AWS.SimpleQueueService.NonExistentQueue`. What S3 says of a key, e.g. `KMS.NotFoundException`,
    // keeps its prefix: it is not the object that was not found.
    Some(if code.starts_with(OF_A_KEY) { code } else { code.rsplit('.').next().unwrap_or(code) })
}

/// What S3's codes begin with that are about the KMS key of an object.
const OF_A_KEY: &str = "KMS.";

/// The class of an error code, for errors that have only a code, e.g. one entry of a batch.
pub fn class_of(code: &str) -> PortErrorClass {
    by_code("", code, None).0
}

/// The same failure again, for the next of several that one call failed for.
pub(crate) fn said_again(error: &PortError) -> PortError {
    let mut again = PortError::new(error.class, error.what.clone());
    again.hint.clone_from(&error.hint);
    match &error.cause {
        Some(cause) => again.because(cause.to_string()),
        None => again,
    }
}

fn meaning<E>(action: &str, error: &SdkError<E, HttpResponse>) -> (PortErrorClass, Option<String>)
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let Some(code) = code(error) {
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message);
        return by_code(action, code, message);
    }
    if let Some(hint) = credentials(error) {
        return (PortErrorClass::Denied, Some(hint.to_owned()));
    }
    let hint = match error {
        SdkError::TimeoutError(_) => "AWS did not respond in time; the next try may work",
        SdkError::DispatchFailure(_) => {
            "AWS cannot be reached: check the network, the region's name, and AWS_ENDPOINT_URL if it is set"
        }
        SdkError::ConstructionFailure(_) => {
            return (PortErrorClass::Unavailable, None);
        }
        _ => "AWS sent a response that cannot be read; the next try may work",
    };
    (PortErrorClass::Unavailable, Some(hint.to_owned()))
}

/// Whether AWS refused the request and so has not carried it out, by an error of which nothing more is known: the status says that the
/// request is at fault. Or it was never sent.
#[cfg(feature = "control")]
pub(crate) fn is_refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let status = error.raw_response().map(|response| response.status().as_u16());
    match (error, code(error)) {
        (SdkError::ConstructionFailure(_), _) => true,
        (SdkError::ServiceError(_), Some(code)) => {
            status.is_some_and(|status| (400..500).contains(&status))
                && known("", code, None).is_none()
        }
        _ => false,
    }
}

fn by_code(action: &str, code: &str, message: Option<&str>) -> (PortErrorClass, Option<String>) {
    // An unknown code does not prove that another try would fail, too: a job's input must not be blamed for it.
    known(action, code, message).unwrap_or((PortErrorClass::Unavailable, None))
}

fn known(
    action: &str,
    code: &str,
    message: Option<&str>,
) -> Option<(PortErrorClass, Option<String>)> {
    let (class, hint) = match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "AuthorizationError"
        | "AuthorizationErrorException" | "KmsAccessDenied" | "KMSAccessDeniedException"
        | "Forbidden" => (PortErrorClass::Denied, denied_hint(action, message.unwrap_or_default())),
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => (
            PortErrorClass::Denied,
            "the credentials have expired: log in again (`aws sso login`), or renew them".to_owned(),
        ),
        "InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch" | "InvalidSignatureException" | "AuthFailure"
        | "MissingAuthenticationToken" | "MissingAuthenticationTokenException"
        | "IncompleteSignature" | "InvalidToken" | "RequestTimeTooSkewed" | "OptInRequired" => (
            PortErrorClass::Denied,
            "AWS does not accept these credentials: check the profile, the clock, and whether the region is enabled".to_owned(),
        ),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
        | "InvalidRegion" => (
            PortErrorClass::Denied,
            "it is in another region: set `region` under [cloud] in gpuctl.toml, or use a bucket of this region".to_owned(),
        ),
        "KMS.ThrottlingException" => (
            PortErrorClass::Throttled,
            "AWS is throttling requests; try again later".to_owned(),
        ),
        "KmsDisabled" | "KmsNotFound" | "KmsInvalidState" | "KmsInvalidKeyUsage" | "KmsOptInRequired"
        | "KMSDisabledException" | "KMSNotFoundException" | "KMSInvalidStateException"
        | "KMSOptInRequired" => (PortErrorClass::Denied, key_hint()),
        of_a_key if of_a_key.starts_with(OF_A_KEY) => (PortErrorClass::Denied, key_hint()),
        "Throttling" | "ThrottlingException" | "ThrottledException" | "RequestLimitExceeded"
        | "RequestThrottled" | "RequestThrottledException" | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException" | "LimitExceededException" | "SlowDown"
        | "KmsThrottled" | "OverLimit" => (
            PortErrorClass::Throttled,
            "AWS is throttling requests; try again later".to_owned(),
        ),
        "QueueDoesNotExist" | "NonExistentQueue" | "ResourceNotFoundException" | "NotFound"
        | "NotFoundException" | "NoSuchBucket" | "NoSuchKey" | "ParameterNotFound" => (
            PortErrorClass::NotFound,
            "check its name, and whether account and region are the right ones".to_owned(),
        ),
        "ConditionalCheckFailedException" | "TransactionConflictException"
        | "ResourceInUseException"
        | "PurgeQueueInProgress" | "ConditionalRequestConflict" | "PreconditionFailed" => {
            return Some((PortErrorClass::Conflict, None));
        }
        "ServiceUnavailable" | "Unavailable" | "InternalError" | "InternalFailure"
        | "InternalServerError" | "InternalServerErrorException" | "RequestTimeout"
        | "RequestTimeoutException" => (
            PortErrorClass::Unavailable,
            "AWS had an internal error; try again".to_owned(),
        ),
        "InvalidRange" | "IncompleteBody" | "BadDigest" 
        | "OperationAborted" => (
            PortErrorClass::Unavailable,
            "the transfer was interrupted; the next try may work".to_owned(),
        ),
        _ => return None,
    };
    Some((class, Some(hint)))
}

/// What to do about a denied call. IAM's message says who was denied: "User: ARN is not authorized to perform: ACTION …", and at its end
/// "because no … policy allows …" or "with an explicit deny in a … policy" (IAM User Guide, "Troubleshoot access denied error messages").
fn denied_hint(action: &str, message: &str) -> String {
    let after = |words: &str| Some(message.split_once(words)?.1);
    let who = after("User: ").and_then(|rest| principal(rest.split_whitespace().next()?));
    let who = who.unwrap_or_else(|| "this user or role".to_owned());
    let denied_in = after("explicit deny in ").map(|rest| {
        let end = rest.find(['.', ',', ':', '\n']).unwrap_or(rest.len());
        rest[..end].trim_start_matches("a ").trim_start_matches("an ").to_owned()
    });
    match denied_in {
        Some(policy) => format!(
            "an explicit deny of `{action}` for {who}, in the {policy}, outweighs every allow: change it there"
        ),
        None => format!("allow `{action}` in the IAM policy of {who}"),
    }
}

/// A role or user of an ARN, e.g. `arn:aws:sts::123456789012:assumed-role/gpuctl-box/i-0123456789abcdef0`.
fn principal(arn: &str) -> Option<String> {
    let mut parts = arn.strip_prefix("arn:")?.rsplit(':').next()?.split('/');
    let kind = match parts.next()? {
        "assumed-role" | "role" => "role",
        "user" => "user",
        _ => return None,
    };
    Some(format!("the {kind} {}", parts.next()?))
}

fn key_hint() -> String {
    "the KMS key cannot be used: check that it exists and is enabled, and that its policy and this user's or role's allow its use".to_owned()
}

/// What to do if the call failed because there are no usable credentials.
fn credentials(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(credentials) = one.downcast_ref::<CredentialsError>() {
            return Some(match credentials {
                CredentialsError::CredentialsNotLoaded(_) => {
                    "there are no AWS credentials: run `aws configure` or `aws sso login`, or give the box an instance profile"
                }
                CredentialsError::InvalidConfiguration(_) => {
                    "the AWS profile is not valid: check ~/.aws/config and AWS_PROFILE"
                }
                _ => {
                    "AWS credentials could not be loaded: log in again (`aws sso login`), or check the box's instance profile"
                }
            });
        }
        next = one.source();
    }
    None
}

/// The cause to show: AWS's code and message if it sent them, else the SDK's error with its own causes.
fn cause<E>(error: SdkError<E, HttpResponse>) -> Box<dyn Error + Send + Sync>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let sent = error.as_service_error().and_then(|error| {
        let code = error.code()?;
        Some(format!("{code}: {}", error.message().unwrap_or("AWS gave no message")))
    });
    match sent {
        Some(text) => text.into(),
        None => Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_call_names_is_not_found_and_never_a_key_or_a_region() {
        use PortErrorClass::{Denied, NotFound, Throttled};
        for (code, expected) in [
            ("NoSuchKey", NotFound),
            ("NonExistentQueue", NotFound),
            ("PermanentRedirect", Denied),
            ("AuthorizationHeaderMalformed", Denied),
            ("KMS.NotFoundException", Denied),
            ("KMS.DisabledException", Denied),
            ("KMS.ThrottlingException", Throttled),
            ("KmsNotFound", Denied),
        ] {
            let (class, hint) = by_code("s3:GetObject", code, None);
            assert_eq!(class, expected, "{code}");
            assert!(hint.is_some(), "{code}");
        }
    }

    #[test]
    fn a_denied_call_names_the_action_who_lacks_it_and_an_explicit_deny() {
        let of = |message: &str| denied_hint("ec2:StartInstances", message);
        let role = "User: arn:aws:sts::123456789012:assumed-role/gpuctl-box/i-0123456789abcdef0 is not authorized to perform: ec2:StartInstances";
        let user = "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: ec2:StartInstances";
        let allow = "allow `ec2:StartInstances` in the IAM policy of";
        assert_eq!(of("Access Denied"), format!("{allow} this user or role"));
        let none = format!("{role} because no identity-based policy allows the action");
        assert_eq!(of(&none), format!("{allow} the role gpuctl-box"));
        assert_eq!(of(user), format!("{allow} the user ada"));
        let denied = of(&format!("{role} with an explicit deny in a service control policy."));
        assert!(
            denied.starts_with("an explicit deny of `ec2:StartInstances` for the role gpuctl-box"),
            "{denied}"
        );
        assert!(denied.contains("in the service control policy, outweighs"), "{denied}");
        let denied = of(&format!(
            "{user} with an explicit deny in an identity-based policy: arn:aws:iam::1:policy/p"
        ));
        assert!(denied.contains("for the user ada, in the identity-based policy, "), "{denied}");
    }
}
