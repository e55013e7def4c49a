//! What of a stack is there: by its tag, and by its name where a service has no tags to ask for.

use gpuctl_control::ports::PortError;
use gpuctl_core::cost::MONTH_SECONDS;
use gpuctl_deploy::code_bucket;
use gpuctl_deploy::ports::{Account, BUCKET, Left};

use super::around::{self, AwsAccount, filter};
use super::buckets;
use crate::Aws;
use crate::ec2::failed;
use crate::error::{code, port_error};

fn one(
    kind: &'static str,
    id: Option<String>,
    item: Option<&'static str>,
    units: i64,
) -> Option<Left> {
    Some(Left { kind, id: id?, units, item, per_gb: false })
}

/// Everything of a stack that costs, or keeps a stack of this name from being made again.
pub(super) async fn of_stack(account: &AwsAccount, stack: &str) -> Result<Vec<Left>, PortError> {
    let mut all = Vec::new();
    for found in account.boxes(stack).await? {
        if found.state != "terminated" {
            all.extend(one("box", Some(found.id), None, 1));
        }
    }
    for request in account.requests(stack).await? {
        all.extend(one("spot request", Some(request), None, 1));
    }
    all.extend(disks(account, stack).await?);
    all.extend(addresses(account, stack).await?);
    all.extend(network(account, stack).await?);
    all.extend(own_buckets(account, stack).await?);
    Ok(all)
}

async fn disks(account: &AwsAccount, stack: &str) -> Result<Vec<Left>, PortError> {
    let mut all = Vec::new();
    let call = account.client.describe_volumes().filters(around::of_stack(stack));
    let mut volumes = call.into_paginator().items().send();
    while let Some(volume) = volumes.next().await {
        let volume = volume.map_err(|error| unread("ec2:DescribeVolumes", "volumes", error))?;
        all.extend(one("volume", volume.volume_id, Some("disk"), volume.size.unwrap_or(0).into()));
    }
    let call = account.client.describe_snapshots().owner_ids("self");
    let call = call.filters(around::of_stack(stack));
    let mut snapshots = call.into_paginator().items().send();
    while let Some(snapshot) = snapshots.next().await {
        let snapshot =
            snapshot.map_err(|error| unread("ec2:DescribeSnapshots", "snapshots", error))?;
        let size = snapshot.volume_size.unwrap_or(0).into();
        all.extend(one("snapshot", snapshot.snapshot_id, Some("snapshot"), size));
    }
    Ok(all)
}

async fn addresses(account: &AwsAccount, stack: &str) -> Result<Vec<Left>, PortError> {
    let call = account.client.describe_addresses().filters(around::of_stack(stack));
    let found =
        call.send().await.map_err(|error| unread("ec2:DescribeAddresses", "addresses", error))?;
    let hours = MONTH_SECONDS / 3_600;
    let addresses = found.addresses.unwrap_or_default().into_iter();
    Ok(addresses
        .filter_map(|address| one("address", address.allocation_id, Some("address"), hours))
        .collect())
}

/// What costs nothing, and is in the way of another stack of this name.
async fn network(account: &AwsAccount, stack: &str) -> Result<Vec<Left>, PortError> {
    let mut all = Vec::new();
    let call = account.client.describe_security_groups().filters(around::of_stack(stack));
    let mut groups = call.into_paginator().items().send();
    while let Some(group) = groups.next().await {
        let group = group
            .map_err(|error| unread("ec2:DescribeSecurityGroups", "security groups", error))?;
        all.extend(one("security group", group.group_id, None, 1));
    }
    let named = filter("launch-template-name", &format!("{stack}-*"));
    let call = account.client.describe_launch_templates().filters(named);
    let mut templates = call.into_paginator().items().send();
    while let Some(template) = templates.next().await {
        let template = template
            .map_err(|error| unread("ec2:DescribeLaunchTemplates", "launch templates", error))?;
        // Another stack's name may begin alike, e.g. `gpuctl-test`.
        let ours = ["gpu-spot", "gpu", "app"];
        let is_ours = |name: &str| ours.iter().any(|end| name == format!("{stack}-{end}"));
        if template.launch_template_name().is_some_and(is_ours) {
            all.extend(one("launch template", template.launch_template_name, None, 1));
        }
    }
    Ok(all)
}

/// CloudFormation names the stack's bucket after the stack and its logical name.
async fn own_buckets(account: &AwsAccount, stack: &str) -> Result<Vec<Left>, PortError> {
    let owner = account.aws.identity().await?.account;
    let code = code_bucket(&owner, account.aws.region());
    let own = format!("{}-bucket-", stack.to_lowercase());
    let mut all = Vec::new();
    for name in buckets::named(&account.aws, &[own, code]).await? {
        let gigabytes = buckets::gigabytes(&account.aws, &name).await;
        all.extend(one(BUCKET, Some(name), Some("bucket"), gigabytes));
    }
    Ok(all)
}

/// Whether a resource of this name is there that a new stack would want to make.
pub(super) async fn is_taken(aws: &Aws, kind: &str, name: &str) -> Result<bool, PortError> {
    match kind {
        "AWS::SQS::Queue" => {
            let client = aws.sqs();
            match client.get_queue_url().queue_name(name).send().await {
                Ok(_) => Ok(true),
                Err(error)
                    if matches!(code(&error), Some("NonExistentQueue" | "QueueDoesNotExist")) =>
                {
                    Ok(false)
                }
                Err(error) => Err(unread("sqs:GetQueueUrl", "queues", error)),
            }
        }
        "AWS::DynamoDB::Table" => {
            let client = aws.dynamodb();
            match client.describe_table().table_name(name).send().await {
                Ok(_) => Ok(true),
                Err(error) if code(&error) == Some("ResourceNotFoundException") => Ok(false),
                Err(error) => Err(unread("dynamodb:DescribeTable", "tables", error)),
            }
        }
        "AWS::Logs::LogGroup" => {
            let client = aws.logs();
            let found = client.describe_log_groups().log_group_name_prefix(name).send().await;
            let found =
                found.map_err(|error| unread("logs:DescribeLogGroups", "log groups", error))?;
            Ok(found.log_groups().iter().any(|group| group.log_group_name() == Some(name)))
        }
        _ => Ok(false),
    }
}

fn unread<E>(
    action: &str,
    what: &str,
    error: aws_sdk_ec2::error::SdkError<E, aws_sdk_ec2::config::http::HttpResponse>,
) -> PortError
where
    E: aws_sdk_ec2::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let what = format!("the {what} of the account cannot be read");
    if action.starts_with("ec2:") {
        failed(action, what, error)
    } else {
        port_error(action, what, error)
    }
}
