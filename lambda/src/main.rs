//! gpuctl's controller as a Lambda function: event → reconcile → response. It holds no rule.

mod command;
mod controller;
mod event;
mod response;
mod source;

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use tracing_subscriber::EnvFilter;

use controller::Controller;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter)
        // Lambda's own log lines have the time.
        .without_time()
        .init();
    let controller = Arc::new(Controller::from_environment()?);
    let handler = service_fn(move |event: LambdaEvent<Value>| {
        let controller = Arc::clone(&controller);
        Box::pin(async move { controller.handle(event).await })
    });
    Box::pin(lambda_runtime::run(handler)).await
}
