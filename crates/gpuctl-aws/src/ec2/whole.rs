//! Refuses an answer that breaks off: the SDK reads half a document as if the rest were empty, and a box that is cut off would
//! seem to be gone.

use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;

/// How every answer of EC2 ends, errors included.
const END: &[u8] = b"Response>";

#[derive(Debug)]
pub(super) struct Whole;

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
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
        Err("the answer breaks off in the middle".into())
    }
}
