//! Rejects a truncated response: the SDK parses half a document as if the rest were empty, and a box in the missing half would
//! look terminated.

use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;

/// The end of every response of EC2, errors included: `</DescribeInstancesResponse>`, `</Response>`.
const END: &[u8] = b"Response>";

#[derive(Debug)]
pub(super) struct RejectTruncatedResponse;

impl Intercept for RejectTruncatedResponse {
    fn name(&self) -> &'static str {
        "RejectTruncatedResponse"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default().trim_ascii_end();
        if body.is_empty() || body.ends_with(END) {
            return Ok(());
        }
        Err("the response is truncated".into())
    }
}
