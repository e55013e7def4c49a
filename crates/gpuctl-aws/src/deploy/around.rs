//! The account around a stack: who asks, what region and account allow, the stack's boxes and jobs.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceStateName, LaunchTemplateSpecification, Reservation, ResourceType,
    SpotInstanceRequest, Subnet, Tag, TagSpecification,
};
use chrono::TimeDelta;
use gpuctl_control::ports::{Clock, JobQueue, PortError, PortErrorClass};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::{QueueName, Timestamp};
use gpuctl_deploy::ports::{
    Account, BoxOrder, Caller, FILE_SYSTEM, Jobs, Left, QuotaFound, STACK_TAG, StackBox,
    TEMPLATE_TAG,
};
use gpuctl_deploy::{Content, Values};

use super::{buckets, left};
use crate::calls::show;
use crate::ec2::{failed, vcpus};
use crate::error::code;
use crate::files::Existing;
use crate::limits::quota_of;
use crate::{Aws, SqsQueue};

/// The parameter of an image, e.g. `resolve:ssm:/aws/…/ami-id`.
const BY_PARAMETER: &str = "resolve:ssm:";

/// The account of the credentials, in one region.
pub struct AwsAccount {
    pub(super) aws: Aws,
    pub(super) client: aws_sdk_ec2::Client,
}

pub(super) fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

pub(super) fn of_stack(stack: &str) -> Filter {
    filter(&format!("tag:{STACK_TAG}"), stack)
}

impl AwsAccount {
    #[must_use]
    pub fn new(aws: &Aws) -> Self {
        Self { aws: aws.clone(), client: aws.ec2() }
    }

    async fn instances(&self, stack: &str) -> Result<Vec<Instance>, PortError> {
        let call = self.client.describe_instances().filters(of_stack(stack));
        let found = call.into_paginator().items().send().try_collect().await;
        let found: Vec<Reservation> = found.map_err(|error| {
            let what = format!("the boxes of stack {stack} cannot be read");
            failed("ec2:DescribeInstances", what, error)
        })?;
        Ok(found.into_iter().flat_map(|one| one.instances.unwrap_or_default()).collect())
    }

    /// Open spot requests: those with the stack's tag, and those of its boxes.
    pub(super) async fn requests(&self, stack: &str) -> Result<BTreeSet<String>, PortError> {
        let instances = self.instances(stack).await?.into_iter();
        let of_boxes: Vec<String> =
            instances.filter_map(|one| one.spot_instance_request_id).collect();
        let mut choices = vec![of_stack(stack)];
        if !of_boxes.is_empty() {
            let ids = Filter::builder().name("spot-instance-request-id").set_values(Some(of_boxes));
            choices.push(ids.build());
        }
        let open = ["open", "active", "disabled"].map(str::to_owned).to_vec();
        let open = Filter::builder().name("state").set_values(Some(open)).build();
        let mut all = BTreeSet::new();
        for choice in choices {
            let call = self.client.describe_spot_instance_requests();
            let call = call.filters(choice).filters(open.clone());
            let found = call.into_paginator().items().send().try_collect().await;
            let found: Vec<SpotInstanceRequest> = found.map_err(|error| {
                let what = format!("the spot requests of stack {stack} cannot be read");
                failed("ec2:DescribeSpotInstanceRequests", what, error)
            })?;
            all.extend(found.into_iter().filter_map(|one| one.spot_instance_request_id));
        }
        Ok(all)
    }

    /// The subnets that a filter chooses.
    async fn subnets(&self, filter: Filter) -> Result<Vec<Subnet>, PortError> {
        let call = self.client.describe_subnets().filters(filter);
        let found = call.into_paginator().items().send().try_collect().await;
        found.map_err(|error| {
            failed("ec2:DescribeSubnets", "the subnets cannot be read".to_owned(), error)
        })
    }
}

#[async_trait]
impl Account for AwsAccount {
    fn region(&self) -> &str {
        self.aws.region()
    }

    fn now(&self) -> Timestamp {
        self.aws.clock().now()
    }

    async fn caller(&self) -> (Result<Caller, PortError>, Option<TimeDelta>) {
        let (identity, ahead) = self.aws.identity_and_clock().await;
        (identity.map(|who| Caller { account: who.account, arn: who.arn }), ahead)
    }

    async fn offers(&self, instance_type: &str) -> Result<bool, PortError> {
        let call = self.client.describe_instance_type_offerings();
        let sent = call.filters(filter("instance-type", instance_type)).send().await;
        let found = sent.map_err(|error| {
            let what = format!("whether {instance_type} is offered cannot be read");
            failed("ec2:DescribeInstanceTypeOfferings", what, error)
        })?;
        Ok(!found.instance_type_offerings().is_empty())
    }

    async fn quota(
        &self,
        instance_type: &str,
        capacity: CapacityType,
    ) -> Result<Option<QuotaFound>, PortError> {
        let vcpus = vcpus(&self.client, &BTreeSet::from([instance_type.to_owned()])).await?;
        let Some(needed) = vcpus.get(instance_type).copied() else { return Ok(None) };
        let found = quota_of(&self.aws, instance_type, capacity).await?;
        Ok(found.map(|(code, name, vcpus)| QuotaFound {
            code: code.to_owned(),
            name: name.to_owned(),
            vcpus,
            needed,
        }))
    }

    async fn image(&self, named: &str) -> Result<Option<String>, PortError> {
        if let Some(parameter) = named.strip_prefix(BY_PARAMETER) {
            return match self.aws.parameter(parameter).await {
                Ok(found) => Ok(Some(found.text)),
                Err(error) if error.class == PortErrorClass::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
        let found = self.client.describe_images().filters(filter("image-id", named)).send().await;
        let found = found.map_err(|error| {
            failed("ec2:DescribeImages", format!("image {named} cannot be read"), error)
        })?;
        Ok(found.images().first().and_then(|image| image.image_id()).map(str::to_owned))
    }

    async fn is_taken(&self, kind: &str, name: &str) -> Result<bool, PortError> {
        left::is_taken(&self.aws, kind, name).await
    }

    async fn zones(&self, subnets: &[String]) -> Result<Values, PortError> {
        let ids = Filter::builder().name("subnet-id").set_values(Some(subnets.to_vec())).build();
        let found = self.subnets(ids).await?.into_iter();
        Ok(found.filter_map(|one| Some((one.subnet_id?, one.availability_zone?))).collect())
    }

    async fn default_zones(&self) -> Result<Vec<String>, PortError> {
        let found = self.subnets(filter("default-for-az", "true")).await?.into_iter();
        let zones: BTreeSet<String> = found.filter_map(|one| one.availability_zone).collect();
        Ok(zones.into_iter().collect())
    }

    async fn make_bucket(&self, name: &str) -> Result<bool, PortError> {
        let owner = self.aws.identity().await?.account;
        buckets::make(&self.aws, name, &owner).await
    }

    async fn upload(&self, bucket: &str, key: &str, content: &Content) -> Result<(), PortError> {
        buckets::add(&self.aws, bucket, key, content).await
    }

    async fn has(&self, bucket: &str, key: &str) -> Result<bool, PortError> {
        buckets::has(&self.aws, bucket, key).await
    }

    async fn replace(&self, bucket: &str, key: &str, content: &Content) -> Result<(), PortError> {
        buckets::put(&self.aws, (bucket, key), content, Existing::Replace).await
    }

    async fn boxes(&self, stack: &str) -> Result<Vec<StackBox>, PortError> {
        let tag = |one: &Instance, key: &str| {
            let found = one.tags().iter().find(|tag| tag.key() == Some(key))?;
            found.value().map(str::to_owned)
        };
        let known = |one: Instance| {
            let state = one.state().and_then(|state| state.name()).map(InstanceStateName::as_str);
            Some(StackBox {
                id: one.instance_id()?.to_owned(),
                state: state.unwrap_or_default().to_owned(),
                template: tag(&one, TEMPLATE_TAG),
            })
        };
        Ok(self.instances(stack).await?.into_iter().filter_map(known).collect())
    }

    async fn make_box(&self, order: &BoxOrder) -> Result<String, PortError> {
        let BoxOrder { template, subnet, tags, token } = order;
        show(format_args!(
            "ec2 run-instances --count 1 --launch-template 'LaunchTemplateName={template},Version=$Latest' --subnet-id {subnet}"
        ));
        let from = LaunchTemplateSpecification::builder();
        let from = from.launch_template_name(template).version("$Latest").build();
        let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Instance)
            .set_tags(Some(tags.iter().map(tag).collect()));
        let call = self.client.run_instances().launch_template(from).min_count(1).max_count(1);
        let call = call.subnet_id(subnet).tag_specifications(tags.build());
        let call = call.client_token(crate::ec2::order_hash(token));
        let made = call.send().await.map_err(|error| {
            let what = format!("no box was made from launch template {template}");
            failed("ec2:RunInstances", what, error)
        })?;
        let id = made.instances().first().and_then(|one| one.instance_id()).map(str::to_owned);
        id.ok_or_else(|| PortError::new(PortErrorClass::Corrupt, "EC2 made no box"))
    }

    async fn give_address(&self, id: &str, allocation: &str) -> Result<(), PortError> {
        let call = self.client.associate_address().instance_id(id).allocation_id(allocation);
        match call.allow_reassociation(false).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("AlreadyAssociated") => Ok(()),
            Err(error) => {
                let what = format!("box {id} did not get its address");
                Err(failed("ec2:AssociateAddress", what, error))
            }
        }
    }

    async fn stop_box(&self, id: &str) -> Result<(), PortError> {
        show(format_args!("ec2 stop-instances --instance-ids {id}"));
        let sent = self.client.stop_instances().instance_ids(id).send().await;
        sent.map(drop).map_err(|error| {
            failed("ec2:StopInstances", format!("box {id} was not stopped"), error)
        })
    }

    async fn cancel_requests(&self, stack: &str) -> Result<Vec<String>, PortError> {
        let requests: Vec<String> = self.requests(stack).await?.into_iter().collect();
        if requests.is_empty() {
            return Ok(requests);
        }
        show(format_args!(
            "ec2 cancel-spot-instance-requests --spot-instance-request-ids {}",
            requests.join(" ")
        ));
        let call = self.client.cancel_spot_instance_requests();
        let call = call.set_spot_instance_request_ids(Some(requests.clone()));
        call.send().await.map_err(|error| {
            let what = "the spot requests were not cancelled".to_owned();
            failed("ec2:CancelSpotInstanceRequests", what, error)
        })?;
        Ok(requests)
    }

    async fn terminate(&self, ids: &[String]) -> Result<(), PortError> {
        show(format_args!("ec2 terminate-instances --instance-ids {}", ids.join(" ")));
        let call = self.client.terminate_instances().set_instance_ids(Some(ids.to_vec()));
        call.send().await.map(drop).map_err(|error| {
            failed("ec2:TerminateInstances", "the boxes were not terminated".to_owned(), error)
        })
    }

    async fn jobs(&self, queue: &str) -> Result<Option<Jobs>, PortError> {
        let Ok(queue) = queue.parse::<QueueName>() else { return Ok(None) };
        match SqsQueue::new(&self.aws).counts(&queue).await {
            Ok(seen) => {
                Ok(Some(Jobs { waiting: seen.visible + seen.delayed, running: seen.in_flight }))
            }
            Err(error) if error.class == PortErrorClass::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn left(&self, stack: &str) -> Result<Vec<Left>, PortError> {
        left::everything(self, stack).await
    }

    async fn remove(&self, one: &Left) -> Result<(), PortError> {
        match one.kind {
            FILE_SYSTEM => left::remove_file_system(&self.aws, &one.id).await,
            _ => buckets::remove(&self.aws, &one.id).await,
        }
    }
}
