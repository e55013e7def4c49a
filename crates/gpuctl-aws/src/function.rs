//! `gpuctl invoke`: one invocation of the deployed function, and its response or why there is none.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::Builder;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::wire::function::{EventDocument, InvokedDocument};
use serde::Deserialize;

use crate::Aws;
use crate::calls::show;
use crate::config::attempt_time;
use crate::error::{code, port_error};

/// How long to wait for a response: twice the function's recommended timeout of 30 s.
const INVOKE_TIME_MAX: Duration = Duration::from_secs(60);

/// A function of the account.
pub struct Function {
    client: Client,
    name: String,
    region: String,
}

/// The payload of an invocation whose function crashed or timed out.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FunctionError {
    error_type: String,
    error_message: String,
}

impl Function {
    /// The function of this name or ARN; nothing is called yet.
    #[must_use]
    pub fn new(aws: &Aws, name: &str) -> Self {
        // No retries: after a timeout the function may still be running, and the user can repeat the command.
        let config = Builder::from(aws.sdk())
            .interceptor(aws.follow())
            .retry_config(RetryConfig::disabled())
            .timeout_config(attempt_time(INVOKE_TIME_MAX))
            .build();
        Self {
            client: Client::from_conf(config),
            name: name.to_owned(),
            region: aws.region().to_owned(),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When it does not exist, may not be invoked or crashes, or when its response is not one of gpuctl's function.
    pub async fn ask(&self, event: &EventDocument) -> Result<InvokedDocument, PortError> {
        let payload = serde_json::to_string(event).expect("a document of texts is always JSON");
        show(format_args!(
            "lambda invoke --function-name {} --cli-binary-format raw-in-base64-out --payload '{payload}' /dev/stdout",
            self.name
        ));
        let call = self.client.invoke().function_name(&self.name).payload(Blob::new(payload));
        let answer = call.send().await.map_err(|error| {
            if code(&error) == Some("ResourceNotFoundException") {
                return self.missing();
            }
            let what = format!("the function {} could not be invoked", self.name);
            port_error("lambda:InvokeFunction", what, error)
        })?;
        self.read(&answer)
    }

    fn read(&self, output: &InvokeOutput) -> Result<InvokedDocument, PortError> {
        let bytes = output.payload().map(AsRef::as_ref).unwrap_or_default();
        if output.function_error().is_some() {
            let failed: FunctionError = serde_json::from_slice(bytes).unwrap_or_default();
            let cause = [failed.error_type, failed.error_message].join(": ");
            let what = format!("the function {} crashed or timed out", self.name);
            return Err(PortError::new(PortErrorClass::Other, what)
                .because(cause.trim_matches([':', ' ']).to_owned())
                .hint("`gpuctl logs` shows what it wrote before that"));
        }
        serde_json::from_slice(bytes).and_then(InvokedDocument::read).map_err(|error| {
            let what = format!("the function {} returned something other than gpuctl's response", self.name);
            PortError::new(PortErrorClass::Corrupt, what)
                .because(error)
                .hint("it may be another function or another version: check `function` under [cloud], or --function")
        })
    }

    fn missing(&self) -> PortError {
        let what = format!("there is no function {} in {}", self.name, self.region);
        PortError::new(PortErrorClass::NotFound, what).hint(
            "check `function` under [cloud] or --function, and whether account and region are the right ones",
        )
    }
}
