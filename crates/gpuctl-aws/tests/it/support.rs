//! Queues, tables and buckets on the emulators, and the ports on them.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName;
use chrono::TimeDelta;
use gpuctl_aws::{Aws, DynamoLedger, S3Files, SqsQueue};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::contract::RECEIVES_MAX;
use gpuctl_control::ports::{Cloud, Listing, NoFiles, PortError, Ports, StartOrder};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{BoxId, QueueName};

#[path = "../emulators/mod.rs"]
mod emulators;

pub(crate) use emulators::{Emulator, faults, free_port, ministack, moto, refusing_in_2020};

pub(crate) const REGION: &str = "eu-west-1";

/// The connection's settings, with this server for every service.
pub(crate) fn aws(endpoint: &str) -> Aws {
    Aws::at(endpoint, REGION)
}

/// A name that no other test has.
pub(crate) fn fresh(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4())
}

/// Makes a queue, with dead letters after `RECEIVES_MAX` receives.
pub(crate) async fn a_queue(aws: &Aws) -> QueueName {
    let sqs = aws.sqs();
    let name = fresh("jobs");
    let dead = sqs.create_queue().queue_name(format!("{name}-dead")).send().await.unwrap();
    let dead = sqs
        .get_queue_attributes()
        .queue_url(dead.queue_url().unwrap())
        .attribute_names(QueueAttributeName::QueueArn)
        .send()
        .await
        .unwrap();
    let arn = &dead.attributes().unwrap()[&QueueAttributeName::QueueArn];
    let policy = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": RECEIVES_MAX });
    let call = sqs.create_queue().queue_name(&name);
    let call = call.attributes(QueueAttributeName::RedrivePolicy, policy.to_string());
    call.attributes(QueueAttributeName::VisibilityTimeout, "120").send().await.unwrap();
    name.parse().unwrap()
}

/// Makes a bucket.
pub(crate) async fn a_bucket(aws: &Aws) -> String {
    let name = fresh("bucket");
    let place = aws_sdk_s3::types::CreateBucketConfiguration::builder()
        .location_constraint(aws_sdk_s3::types::BucketLocationConstraint::EuWest1)
        .build();
    let call = aws.s3().create_bucket().bucket(&name);
    call.create_bucket_configuration(place).send().await.unwrap();
    name
}

/// Makes a table, and a bucket for long results.
pub(crate) async fn a_ledger(aws: &Aws) -> DynamoLedger {
    let files = S3Files::new(aws, &a_bucket(aws).await, "results");
    let ledger = DynamoLedger::new(aws, &fresh("ledger"), Arc::new(SystemClock), Some(files));
    ledger.create_table().await.unwrap();
    ledger
}

/// Ports on these servers; without boxes.
pub(crate) async fn ports(for_queue: &Aws, for_ledger: &Aws) -> Ports {
    Ports {
        cloud: Arc::new(NoCloud),
        queue: Arc::new(SqsQueue::new(for_queue)),
        ledger: Arc::new(a_ledger(for_ledger).await),
        clock: Arc::new(SystemClock),
        files: Arc::new(NoFiles),
    }
}

struct NoCloud;

#[async_trait]
impl Cloud for NoCloud {
    async fn boxes(&self, _: &Policy) -> Result<Listing, PortError> {
        Ok(Listing::default())
    }

    async fn start(&self, _: &StartOrder) -> Result<(), PortError> {
        unreachable!("these tests start no boxes")
    }

    async fn stop(&self, _: &BoxId, _: StopMode) -> Result<(), PortError> {
        unreachable!("these tests stop no boxes")
    }
}

pub(crate) const SECOND: TimeDelta = TimeDelta::seconds(1);
