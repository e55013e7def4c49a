//! What of a stack is there: by its tag, and by its name where a service has no tags to ask for.

use aws_sdk_ec2::types::{LaunchTemplate, SecurityGroup, Snapshot, Volume, VolumeState};
use aws_sdk_efs::types::{FileSystemDescription, LifeCycleState};
use gpuctl_control::ports::PortError;
use gpuctl_core::cost::MONTH_SECONDS;
use gpuctl_deploy::code_bucket;
use gpuctl_deploy::ports::{Account, BUCKET, FILE_SYSTEM, Left, STACK_TAG};

use super::around::{AwsAccount, filter, of_stack};
use super::buckets::{self, in_gb};
use crate::Aws;
use crate::ec2::failed;
use crate::error::{code, port_error};

type Found = Result<Vec<Left>, PortError>;

fn one(kind: &'static str, id: Option<String>) -> Option<Left> {
    Some(Left { kind, id: id?, units: 0, item: None })
}

fn priced(kind: &'static str, id: Option<String>, item: &'static str, units: i64) -> Option<Left> {
    Some(Left { units, item: Some(item), ..one(kind, id)? })
}

/// Everything of a stack that costs, or keeps a stack of this name from being made again.
pub(super) async fn everything(account: &AwsAccount, stack: &str) -> Found {
    let mut all = Vec::new();
    let boxes = account.boxes(stack).await?.into_iter().filter(|one| one.state != "terminated");
    all.extend(boxes.filter_map(|found| one("box", Some(found.id))));
    let requests = account.requests(stack).await?.into_iter();
    all.extend(requests.filter_map(|id| one("spot request", Some(id))));
    all.extend(disks(account, stack).await?);
    all.extend(addresses(account, stack).await?);
    all.extend(network(account, stack).await?);
    all.extend(own_buckets(account, stack).await?);
    all.extend(file_systems(account, stack).await?);
    Ok(all)
}

async fn disks(account: &AwsAccount, stack: &str) -> Found {
    let call = account.client.describe_volumes().filters(of_stack(stack));
    let volumes = call.into_paginator().items().send().try_collect().await;
    let volumes: Vec<Volume> =
        volumes.map_err(|error| unread("ec2:DescribeVolumes", "volumes", error))?;
    let call = account.client.describe_snapshots().owner_ids("self").filters(of_stack(stack));
    let snapshots = call.into_paginator().items().send().try_collect().await;
    let snapshots: Vec<Snapshot> =
        snapshots.map_err(|error| unread("ec2:DescribeSnapshots", "snapshots", error))?;
    // The disk of a box that has just ended is listed for some seconds more, and costs nothing.
    let volumes = volumes.into_iter().filter(|one| one.state != Some(VolumeState::Deleting));
    let volumes = volumes
        .filter_map(|one| priced("volume", one.volume_id, "disk", one.size.unwrap_or(0).into()));
    let snapshots = snapshots.into_iter().filter_map(|one| {
        priced("snapshot", one.snapshot_id, "snapshot", one.volume_size.unwrap_or(0).into())
    });
    Ok(volumes.chain(snapshots).collect())
}

async fn addresses(account: &AwsAccount, stack: &str) -> Found {
    let found = account.client.describe_addresses().filters(of_stack(stack)).send().await;
    let found = found.map_err(|error| unread("ec2:DescribeAddresses", "addresses", error))?;
    let hours = MONTH_SECONDS / 3_600;
    let addresses = found.addresses.unwrap_or_default().into_iter();
    Ok(addresses.filter_map(|one| priced("address", one.allocation_id, "address", hours)).collect())
}

/// What costs nothing, and is in the way of another stack of this name.
async fn network(account: &AwsAccount, stack: &str) -> Found {
    let call = account.client.describe_security_groups().filters(of_stack(stack));
    let groups = call.into_paginator().items().send().try_collect().await;
    let groups: Vec<SecurityGroup> =
        groups.map_err(|error| unread("ec2:DescribeSecurityGroups", "security groups", error))?;
    let named = filter("launch-template-name", &format!("{stack}-*"));
    let call = account.client.describe_launch_templates().filters(named);
    let templates = call.into_paginator().items().send().try_collect().await;
    let templates: Vec<LaunchTemplate> = templates
        .map_err(|error| unread("ec2:DescribeLaunchTemplates", "launch templates", error))?;
    // Another stack's name may begin alike, e.g. `gpuctl-test`.
    let ours = ["gpu-spot", "gpu", "app"].map(|end| format!("{stack}-{end}"));
    let names = templates.into_iter().filter_map(|one| one.launch_template_name);
    let names = names.filter(|name| ours.contains(name));
    let groups = groups.into_iter().filter_map(|group| one("security group", group.group_id));
    Ok(groups.chain(names.filter_map(|name| one("launch template", Some(name)))).collect())
}

/// CloudFormation names the stack's bucket after the stack and its logical name. So may anyone: the stack's has its tag, too.
async fn own_buckets(account: &AwsAccount, stack: &str) -> Found {
    let owner = account.aws.identity().await?.account;
    let code = code_bucket(&owner, account.aws.region());
    let own = format!("{}-bucket-", stack.to_lowercase());
    let mut all = Vec::new();
    for prefix in [&own, &code] {
        for name in buckets::named(&account.aws, prefix).await? {
            let is_tag = |(key, value): &(String, String)| key == STACK_TAG && value == stack;
            if name == code || buckets::tags(&account.aws, &name).await?.iter().any(is_tag) {
                let gigabytes = buckets::gigabytes(&account.aws, &name).await;
                all.extend(priced(BUCKET, Some(name), "bucket", gigabytes));
            }
        }
    }
    Ok(all)
}

async fn file_systems(account: &AwsAccount, stack: &str) -> Found {
    let client = account.aws.efs();
    let found = client.describe_file_systems().into_paginator().items().send().try_collect().await;
    let found: Vec<FileSystemDescription> = found
        .map_err(|error| unread("elasticfilesystem:DescribeFileSystems", "file systems", error))?;
    let is_ours = |one: &FileSystemDescription| {
        let is_going =
            matches!(one.life_cycle_state, LifeCycleState::Deleting | LifeCycleState::Deleted);
        !is_going && one.tags().iter().any(|tag| tag.key() == STACK_TAG && tag.value() == stack)
    };
    let left = |one: FileSystemDescription| {
        let bytes = one.size_in_bytes.map_or(0, |size| size.value);
        priced(FILE_SYSTEM, Some(one.file_system_id), "files", in_gb(bytes))
    };
    Ok(found.into_iter().filter(is_ours).filter_map(left).collect())
}

/// Deletes a file system with everything in it. One that is not there is a success.
pub(super) async fn remove_file_system(aws: &Aws, id: &str) -> Result<(), PortError> {
    let client = aws.efs();
    let sent = client.delete_file_system().file_system_id(id).send().await;
    match sent {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == Some("FileSystemNotFound") => Ok(()),
        Err(error) => {
            let what = format!("file system {id} was not deleted");
            Err(port_error("elasticfilesystem:DeleteFileSystem", what, error))
        }
    }
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
