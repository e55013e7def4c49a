//! The deployed function, asked by hand: one invocation, its answer or what kept it from answering.

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

/// How long an answer is waited for: twice the 30 s that the README gives the function.
const INVOKE_TIME_MAX: Duration = Duration::from_secs(60);

/// A function of the account.
pub struct Function {
    client: Client,
    name: String,
    region: String,
}

/// What Lambda passes on of a function that broke off.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Broken {
    error_type: String,
    error_message: String,
}

impl Function {
    /// The function of this name or ARN; it is asked nothing yet.
    #[must_use]
    pub fn new(aws: &Aws, name: &str) -> Self {
        // No retries: a time-out would ask a function that is still at it, and whoever asks is there to ask again.
        let config = Builder::from(aws.sdk())
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
    /// When it is not there, may not be asked, breaks off, or answers what is no answer of gpuctl's.
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
            let what = format!("the function {} was not asked", self.name);
            port_error("lambda:InvokeFunction", what, error)
        })?;
        self.read(&answer)
    }

    fn read(&self, answer: &InvokeOutput) -> Result<InvokedDocument, PortError> {
        let bytes = answer.payload().map(AsRef::as_ref).unwrap_or_default();
        if answer.function_error().is_some() {
            let broken: Broken = serde_json::from_slice(bytes).unwrap_or_default();
            let cause = [broken.error_type, broken.error_message].join(": ");
            let what = format!("the function {} broke off", self.name);
            return Err(PortError::new(PortErrorClass::Other, what)
                .because(cause.trim_matches([':', ' ']).to_owned())
                .hint("`gpuctl logs` shows what it wrote before that"));
        }
        serde_json::from_slice(bytes).and_then(InvokedDocument::read).map_err(|error| {
            let what = format!("the function {} gave no answer of gpuctl's", self.name);
            PortError::new(PortErrorClass::Corrupt, what)
                .because(error)
                .hint("is it another one, or of another version? name it by `function` under [cloud], or by --function")
        })
    }

    fn missing(&self) -> PortError {
        let what = format!("there is no function {} in {}", self.name, self.region);
        PortError::new(PortErrorClass::NotFound, what).hint(
            "look at `function` under [cloud] or at --function, and whether account and region are the right ones",
        )
    }
}
