//! What gpuctl needs in IAM: one table, from which the policies in `lambda/README.md` are written, and with which a test compares each
//! call in the sources, both ways.
//!
//! IAM has no action for transactions, nor for batches of SQS: the single calls in them count (DynamoDB Developer Guide, "Using IAM with
//! DynamoDB transactions"; SQS Developer Guide, "Amazon SQS API permissions").

use std::fmt::Write;

/// Who needs a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The function, and a CLI that starts and stops boxes.
    Controller,
    /// Added to the controller for boxes that are launched, and for `gpuctl retire`.
    Launcher,
    /// The role of a box.
    Worker,
    /// What else the CLI may need, added to the controller's.
    User,
    /// What gpuctl itself calls for `deploy`, `diff` and `destroy`. What CloudFormation does in the caller's name comes on top.
    Deployer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Controller, Self::Launcher, Self::Worker, Self::User, Self::Deployer];
}

/// A statement of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub role: Role,
    pub sid: &'static str,
    pub actions: &'static [&'static str],
    /// With the region, account and names of the examples.
    pub resources: &'static [&'static str],
    /// A condition, in JSON.
    pub condition: Option<&'static str>,
}

const QUEUES: &[&str] = &[
    "arn:aws:sqs:eu-west-1:123456789012:voice-vision",
    "arn:aws:sqs:eu-west-1:123456789012:voice-vision-dead",
];
const INSTANCES: &[&str] = &["arn:aws:ec2:eu-west-1:123456789012:instance/*"];
const TABLE: &[&str] = &["arn:aws:dynamodb:eu-west-1:123456789012:table/gpuctl"];
const EVERY: &[&str] = &["*"];

const fn on(
    role: Role,
    sid: &'static str,
    actions: &'static [&'static str],
    resources: &'static [&'static str],
) -> Statement {
    Statement { role, sid, actions, resources, condition: None }
}

/// The statements of all roles, in the order of the documents.
pub const STATEMENTS: &[Statement] = &[
    on(
        Role::Controller,
        "SeeBoxes",
        &["ec2:DescribeInstances", "ec2:DescribeSpotInstanceRequests"],
        EVERY,
    ),
    on(
        Role::Controller,
        "StartAndStopBoxes",
        &["ec2:StartInstances", "ec2:StopInstances", "ec2:CreateTags"],
        INSTANCES,
    ),
    on(
        Role::Controller,
        "CancelOrphanedSpotRequests",
        &["ec2:CancelSpotInstanceRequests"],
        &["arn:aws:ec2:eu-west-1:123456789012:spot-instances-request/*"],
    ),
    on(
        Role::Controller,
        "Queue",
        &["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"],
        QUEUES,
    ),
    on(Role::Controller, "Ledger", LEDGER, TABLE),
    on(
        Role::Controller,
        "Notices",
        &["sns:Publish"],
        &["arn:aws:sns:eu-west-1:123456789012:gpuctl"],
    ),
    on(
        Role::Controller,
        "Policy",
        &["ssm:GetParameter", "ssm:GetParameterHistory"],
        &["arn:aws:ssm:eu-west-1:123456789012:parameter/gpuctl/policy"],
    ),
    on(
        Role::Controller,
        "PolicyInS3",
        &["s3:GetObject", "s3:GetObjectVersion"],
        &["arn:aws:s3:::my-bucket/gpuctl.toml"],
    ),
    on(
        Role::Controller,
        "EarlierPolicies",
        &["s3:ListBucketVersions"],
        &["arn:aws:s3:::my-bucket"],
    ),
    on(
        Role::Controller,
        "Log",
        &["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
        &["arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/gpuctl:*"],
    ),
    on(
        Role::Launcher,
        "Launch",
        &["ec2:CreateFleet", "ec2:RunInstances"],
        &["arn:aws:ec2:eu-west-1::image/*", "arn:aws:ec2:eu-west-1:123456789012:*/*"],
    ),
    Statement {
        condition: Some(
            r#"{"StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}}"#,
        ),
        ..on(
            Role::Launcher,
            "TagAtLaunch",
            &["ec2:CreateTags"],
            &["arn:aws:ec2:eu-west-1:123456789012:*/*"],
        )
    },
    Statement {
        condition: Some(r#"{"StringLike": {"aws:ResourceTag/gpuctl:pool": "*"}}"#),
        ..on(Role::Launcher, "Retire", &["ec2:TerminateInstances"], INSTANCES)
    },
    Statement {
        condition: Some(r#"{"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}"#),
        ..on(
            Role::Launcher,
            "PassTheBoxesRole",
            &["iam:PassRole"],
            &["arn:aws:iam::123456789012:role/gpuctl-box"],
        )
    },
    on(
        Role::Worker,
        "Jobs",
        &[
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:ChangeMessageVisibility",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
        ],
        QUEUES,
    ),
    on(
        Role::Worker,
        "Bury",
        &["sqs:SendMessage"],
        &["arn:aws:sqs:eu-west-1:123456789012:voice-vision-dead"],
    ),
    on(Role::Worker, "Ledger", LEDGER, TABLE),
    on(
        Role::Worker,
        "InputsAndResults",
        &["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        &["arn:aws:s3:::my-bucket/gpuctl/*"],
    ),
    on(Role::Worker, "FindFiles", &["s3:ListBucket"], &["arn:aws:s3:::my-bucket"]),
    Statement {
        condition: Some(r#"{"StringLike": {"aws:userid": "*:${ec2:InstanceID}"}}"#),
        ..on(Role::Worker, "StopItself", &["ec2:StopInstances", "ec2:CreateTags"], INSTANCES)
    },
    on(
        Role::User,
        "SubmitAndResults",
        &["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        &["arn:aws:s3:::my-bucket/gpuctl/*"],
    ),
    on(
        Role::User,
        "FindFiles",
        &["s3:ListBucket", "s3:GetLifecycleConfiguration"],
        &["arn:aws:s3:::my-bucket"],
    ),
    on(
        Role::User,
        "RedriveAndPurge",
        &[
            "sqs:PurgeQueue",
            "sqs:StartMessageMoveTask",
            "sqs:ListDeadLetterSourceQueues",
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:SendMessage",
        ],
        QUEUES,
    ),
    on(
        Role::User,
        "Invoke",
        &["lambda:InvokeFunction"],
        &["arn:aws:lambda:eu-west-1:123456789012:function:gpuctl"],
    ),
    on(
        Role::User,
        "FunctionLog",
        &["logs:FilterLogEvents"],
        &["arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/gpuctl:*"],
    ),
    on(Role::User, "BoxConsole", &["ec2:GetConsoleOutput"], INSTANCES),
    on(
        Role::User,
        "MakeTheTable",
        &[
            "dynamodb:CreateTable",
            "dynamodb:DescribeTable",
            "dynamodb:DescribeTimeToLive",
            "dynamodb:UpdateTimeToLive",
        ],
        TABLE,
    ),
    on(
        Role::User,
        "Doctor",
        &[
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:DescribeVolumes",
            "servicequotas:GetServiceQuota",
            "servicequotas:GetAWSDefaultServiceQuota",
        ],
        EVERY,
    ),
    on(
        Role::User,
        "DoctorDiskKeys",
        &["kms:DescribeKey"],
        &["arn:aws:kms:eu-west-1:123456789012:key/*"],
    ),
    on(Role::User, "Prices", &["pricing:GetProducts", "ec2:DescribeSpotPriceHistory"], EVERY),
    on(
        Role::Deployer,
        "Stack",
        &[
            "cloudformation:CreateChangeSet",
            "cloudformation:DeleteChangeSet",
            "cloudformation:DeleteStack",
            "cloudformation:DescribeChangeSet",
            "cloudformation:DescribeStackEvents",
            "cloudformation:ExecuteChangeSet",
            "cloudformation:ListChangeSets",
        ],
        &["arn:aws:cloudformation:eu-west-1:123456789012:stack/gpuctl*/*"],
    ),
    on(
        Role::Deployer,
        "Buckets",
        &[
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:GetBucketTagging",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutObject",
        ],
        &["arn:aws:s3:::gpuctl*"],
    ),
    on(
        Role::Deployer,
        "SharedFiles",
        &["elasticfilesystem:DeleteFileSystem", "elasticfilesystem:DescribeFileSystems"],
        &["arn:aws:elasticfilesystem:eu-west-1:123456789012:file-system/*"],
    ),
    on(
        Role::Deployer,
        "See",
        &[
            "cloudformation:DescribeStacks",
            "ec2:DescribeAddresses",
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSnapshots",
            "ec2:DescribeSpotInstanceRequests",
            "ec2:DescribeSubnets",
            "ec2:DescribeVolumes",
            "logs:DescribeLogGroups",
            "s3:ListAllMyBuckets",
            "servicequotas:GetAWSDefaultServiceQuota",
            "servicequotas:GetServiceQuota",
            "ssm:GetParameter",
        ],
        EVERY,
    ),
    on(
        Role::Deployer,
        "NamesAndJobs",
        &["dynamodb:DescribeTable", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"],
        &[
            "arn:aws:dynamodb:eu-west-1:123456789012:table/gpuctl*",
            "arn:aws:sqs:eu-west-1:123456789012:gpuctl*",
        ],
    ),
    on(
        Role::Deployer,
        "MakeBoxes",
        &["ec2:RunInstances", "ec2:CreateTags", "ec2:AssociateAddress"],
        &["arn:aws:ec2:eu-west-1::image/*", "arn:aws:ec2:eu-west-1:123456789012:*/*"],
    ),
    Statement {
        condition: Some(r#"{"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}"#),
        ..on(
            Role::Deployer,
            "PassTheBoxesRole",
            &["iam:PassRole"],
            &["arn:aws:iam::123456789012:role/gpuctl*"],
        )
    },
    Statement {
        condition: Some(r#"{"StringLike": {"aws:ResourceTag/gpuctl:stack": "gpuctl*"}}"#),
        ..on(
            Role::Deployer,
            "EndBoxes",
            &["ec2:StopInstances", "ec2:TerminateInstances", "ec2:CancelSpotInstanceRequests"],
            &[
                "arn:aws:ec2:eu-west-1:123456789012:instance/*",
                "arn:aws:ec2:eu-west-1:123456789012:spot-instances-request/*",
            ],
        )
    },
];

const LEDGER: &[&str] = &[
    "dynamodb:GetItem",
    "dynamodb:BatchGetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
    "dynamodb:Query",
];

/// The policy of a role, as JSON.
#[must_use]
pub fn policy(role: Role) -> String {
    let statements: Vec<String> =
        STATEMENTS.iter().filter(|one| one.role == role).map(statement).collect();
    format!(
        "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{}\n  ]\n}}\n",
        statements.join(",\n")
    )
}

fn statement(one: &Statement) -> String {
    let mut text = format!(
        "    {{\n      \"Sid\": \"{}\", \"Effect\": \"Allow\",\n      \"Action\": {},\n      \"Resource\": {}",
        one.sid,
        list(one.actions),
        list(one.resources)
    );
    if let Some(condition) = one.condition {
        let _ = write!(text, ",\n      \"Condition\": {condition}");
    }
    text + "\n    }"
}

/// One text, or a list of several, in lines that fit.
fn list(texts: &[&str]) -> String {
    if let [one] = texts {
        return format!("\"{one}\"");
    }
    let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    let line = texts.join(", ");
    if line.len() < 130 {
        return format!("[{line}]");
    }
    let lines: Vec<String> =
        texts.chunks(4).map(|some| format!("        {}", some.join(", "))).collect();
    format!("[\n{}\n      ]", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use super::*;

    /// The SDK's methods that gpuctl calls, and what IAM wants for each.
    const CALLS: &[(&str, &[&str])] = &[
        ("associate_address", &["ec2:AssociateAddress"]),
        ("batch_get_item", &["dynamodb:BatchGetItem"]),
        ("cancel_spot_instance_requests", &["ec2:CancelSpotInstanceRequests"]),
        ("change_message_visibility", &["sqs:ChangeMessageVisibility"]),
        ("change_message_visibility_batch", &["sqs:ChangeMessageVisibility"]),
        ("create_bucket", &["s3:CreateBucket"]),
        ("create_change_set", &["cloudformation:CreateChangeSet"]),
        ("create_fleet", &["ec2:CreateFleet", "ec2:RunInstances", "iam:PassRole"]),
        ("create_table", &["dynamodb:CreateTable"]),
        ("create_tags", &["ec2:CreateTags"]),
        ("delete_bucket", &["s3:DeleteBucket"]),
        ("delete_change_set", &["cloudformation:DeleteChangeSet"]),
        ("delete_file_system", &["elasticfilesystem:DeleteFileSystem"]),
        ("delete_item", &["dynamodb:DeleteItem"]),
        ("delete_message_batch", &["sqs:DeleteMessage"]),
        ("delete_objects", &["s3:DeleteObject", "s3:DeleteObjectVersion"]),
        ("delete_stack", &["cloudformation:DeleteStack"]),
        ("describe_addresses", &["ec2:DescribeAddresses"]),
        ("describe_change_set", &["cloudformation:DescribeChangeSet"]),
        ("describe_file_systems", &["elasticfilesystem:DescribeFileSystems"]),
        ("describe_images", &["ec2:DescribeImages"]),
        ("describe_instance_type_offerings", &["ec2:DescribeInstanceTypeOfferings"]),
        ("describe_instance_types", &["ec2:DescribeInstanceTypes"]),
        ("describe_instances", &["ec2:DescribeInstances"]),
        ("describe_key", &["kms:DescribeKey"]),
        ("describe_launch_template_versions", &["ec2:DescribeLaunchTemplateVersions"]),
        ("describe_launch_templates", &["ec2:DescribeLaunchTemplates"]),
        ("describe_log_groups", &["logs:DescribeLogGroups"]),
        ("describe_security_groups", &["ec2:DescribeSecurityGroups"]),
        ("describe_snapshots", &["ec2:DescribeSnapshots"]),
        ("describe_spot_instance_requests", &["ec2:DescribeSpotInstanceRequests"]),
        ("describe_spot_price_history", &["ec2:DescribeSpotPriceHistory"]),
        ("describe_stack_events", &["cloudformation:DescribeStackEvents"]),
        ("describe_stacks", &["cloudformation:DescribeStacks"]),
        ("describe_subnets", &["ec2:DescribeSubnets"]),
        ("describe_table", &["dynamodb:DescribeTable"]),
        ("describe_time_to_live", &["dynamodb:DescribeTimeToLive"]),
        ("describe_volumes", &["ec2:DescribeVolumes"]),
        ("execute_change_set", &["cloudformation:ExecuteChangeSet"]),
        ("filter_log_events", &["logs:FilterLogEvents"]),
        ("get_aws_default_service_quota", &["servicequotas:GetAWSDefaultServiceQuota"]),
        ("get_bucket_lifecycle_configuration", &["s3:GetLifecycleConfiguration"]),
        ("get_bucket_tagging", &["s3:GetBucketTagging"]),
        ("get_caller_identity", &[]),
        ("get_console_output", &["ec2:GetConsoleOutput"]),
        ("get_item", &["dynamodb:GetItem"]),
        ("get_object", &["s3:GetObject", "s3:GetObjectVersion"]),
        ("get_parameter", &["ssm:GetParameter"]),
        ("get_parameter_history", &["ssm:GetParameterHistory"]),
        ("get_products", &["pricing:GetProducts"]),
        ("get_queue_attributes", &["sqs:GetQueueAttributes"]),
        ("get_queue_url", &["sqs:GetQueueUrl"]),
        ("get_service_quota", &["servicequotas:GetServiceQuota"]),
        ("head_bucket", &["s3:ListBucket"]),
        ("head_object", &["s3:GetObject"]),
        ("invoke", &["lambda:InvokeFunction"]),
        ("list_buckets", &["s3:ListAllMyBuckets"]),
        ("list_change_sets", &["cloudformation:ListChangeSets"]),
        ("list_dead_letter_source_queues", &["sqs:ListDeadLetterSourceQueues"]),
        ("list_object_versions", &["s3:ListBucketVersions"]),
        ("list_objects_v2", &["s3:ListBucket"]),
        ("publish", &["sns:Publish"]),
        ("purge_queue", &["sqs:PurgeQueue"]),
        ("put_item", &["dynamodb:PutItem"]),
        ("put_object", &["s3:PutObject"]),
        ("put_public_access_block", &["s3:PutBucketPublicAccessBlock"]),
        ("query", &["dynamodb:Query"]),
        ("receive_message", &["sqs:ReceiveMessage"]),
        ("run_instances", &["ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"]),
        ("send_message", &["sqs:SendMessage"]),
        ("send_message_batch", &["sqs:SendMessage"]),
        ("start_instances", &["ec2:StartInstances"]),
        (
            "start_message_move_task",
            &[
                "sqs:StartMessageMoveTask",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:SendMessage",
            ],
        ),
        ("stop_instances", &["ec2:StopInstances"]),
        ("terminate_instances", &["ec2:TerminateInstances"]),
        ("transact_write_items", &["dynamodb:PutItem", "dynamodb:DeleteItem"]),
        ("update_item", &["dynamodb:UpdateItem"]),
        ("update_time_to_live", &["dynamodb:UpdateTimeToLive"]),
    ];

    /// What a statement allows although no call of gpuctl needs it: Lambda itself writes the function's log.
    const BY_OTHERS: [&str; 3] =
        ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"];

    /// Named in an error although no statement allows it: EC2 makes this call with the caller's permissions, and that one needs none.
    const NAMED_ONLY: [&str; 2] = ["kms:CreateGrant", "sts:GetCallerIdentity"];

    /// What clients are called in the sources.
    const CLIENTS: [&str; 9] =
        ["client", "once", "sqs()", "dynamodb()", "s3()", "sts()", "sns()", "ssm()", "kms()"];

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// The sources without white space, by path.
    fn sources() -> BTreeMap<PathBuf, String> {
        let mut folders: Vec<PathBuf> =
            ["crates/gpuctl-aws/src", "crates/gpuctl/src", "crates/gpu-worker/src", "lambda/src"]
                .iter()
                .map(|folder| root().join(folder))
                .collect();
        let mut found = BTreeMap::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                    found.insert(path, code.split_whitespace().collect());
                }
            }
        }
        found.retain(|path, _| !path.ends_with("gpuctl-aws/src/permissions.rs"));
        found
    }

    fn calls_in(code: &str) -> BTreeSet<String> {
        let mut calls = BTreeSet::new();
        for client in CLIENTS {
            for (at, _) in code.match_indices(&format!("{client}.")) {
                let before = code[..at].chars().next_back();
                if client.chars().all(char::is_alphabetic)
                    && before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                {
                    continue;
                }
                let rest = &code[at + client.len() + 1..];
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit())
                    .collect();
                if rest[name.len()..].starts_with("()") {
                    calls.insert(name);
                }
            }
        }
        calls.remove("clone");
        calls
    }

    #[test]
    fn each_call_in_the_sources_is_in_the_table_and_each_in_the_table_is_made() {
        let known: BTreeSet<String> = CALLS.iter().map(|(call, _)| (*call).to_owned()).collect();
        let made: BTreeSet<String> = sources().values().flat_map(|code| calls_in(code)).collect();
        let missing: Vec<_> = made.difference(&known).collect();
        assert!(missing.is_empty(), "not in the table of permissions: {missing:?}");
        let unused: Vec<_> = known.difference(&made).collect();
        assert!(unused.is_empty(), "in the table of permissions, and never called: {unused:?}");
    }

    /// Otherwise its calls would not be found.
    #[test]
    fn a_client_has_one_of_the_known_names() {
        for (path, code) in sources() {
            for client in [
                "sqs()",
                "dynamodb()",
                "s3()",
                "sts()",
                "sns()",
                "ssm()",
                "kms()",
                "quotas()",
                "logs()",
                "cloudformation()",
                "ec2()",
                "efs()",
            ] {
                for (at, _) in code.match_indices(&format!(".{client};")) {
                    let line = &code[code[..at].rfind(';').map_or(0, |end| end + 1)..at];
                    let named = line.contains("letclient=") || line.contains("letonce=");
                    assert!(named, "{}: {line}", path.display());
                }
            }
        }
    }

    #[test]
    fn each_action_that_a_call_needs_is_allowed_and_no_other() {
        let allowed: BTreeSet<&str> =
            STATEMENTS.iter().flat_map(|one| one.actions).copied().collect();
        let needed: BTreeSet<&str> =
            CALLS.iter().flat_map(|(_, actions)| *actions).copied().collect();
        let missing: Vec<_> = needed.difference(&allowed).collect();
        assert!(missing.is_empty(), "no role has {missing:?}");
        let unneeded: Vec<_> =
            allowed.difference(&needed).filter(|action| !BY_OTHERS.contains(action)).collect();
        assert!(unneeded.is_empty(), "no call needs {unneeded:?}");
    }

    /// An error names the permission that was missing: one that IAM has, and that the table has.
    #[test]
    fn each_permission_that_an_error_names_is_in_the_table() {
        let needed: BTreeSet<&str> =
            CALLS.iter().flat_map(|(_, actions)| *actions).copied().collect();
        let services: BTreeSet<&str> =
            needed.iter().filter_map(|action| Some(action.split_once(':')?.0)).collect();
        let mut named = BTreeSet::new();
        for code in sources().values() {
            for service in &services {
                for (at, _) in code.match_indices(&format!("{service}:")) {
                    let before = code[..at].chars().next_back();
                    let rest = &code[at + service.len() + 1..];
                    let name: String =
                        rest.chars().take_while(char::is_ascii_alphanumeric).collect();
                    // In a text, and not the type of a field.
                    let is_action = name.chars().next().is_some_and(char::is_uppercase)
                        && rest[name.len()..].starts_with(['"', '`']);
                    if is_action && before.is_none_or(|c| !c.is_alphanumeric()) {
                        named.insert(format!("{service}:{name}"));
                    }
                }
            }
        }
        let known = |action: &&String| {
            needed.contains(action.as_str()) || NAMED_ONLY.contains(&action.as_str())
        };
        let unknown: Vec<_> = named.iter().filter(|action| !known(action)).collect();
        assert!(named.len() > 10 && unknown.is_empty(), "{unknown:?}");
    }

    /// The file has more: what CloudFormation does in the caller's name.
    #[test]
    fn the_deployers_file_allows_what_deploy_calls() {
        let text = std::fs::read_to_string(root().join("infra/deployer.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let listed = |value: &serde_json::Value| match value.as_array() {
            Some(all) => all.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
            None => vec![value.as_str().unwrap().to_owned()],
        };
        let given: Vec<(Vec<String>, Vec<String>)> = file["Statement"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (listed(&one["Action"]), listed(&one["Resource"])))
            .collect();
        let fits = |pattern: &str, action: &str| match pattern.split_once('*') {
            Some((begin, _)) => action.starts_with(begin),
            None => pattern == action,
        };
        for one in STATEMENTS.iter().filter(|one| one.role == Role::Deployer) {
            for action in one.actions {
                let allowed = given.iter().any(|(actions, resources)| {
                    actions.iter().any(|pattern| fits(pattern, action))
                        && (one.resources != EVERY || resources.iter().any(|one| one == "*"))
                });
                assert!(allowed, "infra/deployer.json lacks {action} on {:?}", one.resources);
            }
        }
    }

    #[test]
    fn the_policies_in_the_documents_are_those_of_the_table() {
        let path = root().join("lambda/README.md");
        let mut text = std::fs::read_to_string(&path).unwrap();
        let headings = [
            "### Controller",
            "### Launched boxes",
            "### Worker",
            "### What else the CLI may need",
        ];
        // The deployer's is a file of its own.
        for (role, heading) in Role::ALL.into_iter().zip(headings) {
            let wanted = policy(role);
            let parsed: serde_json::Value = serde_json::from_str(&wanted).unwrap();
            assert!(parsed["Statement"].as_array().unwrap().len() > 3);
            let at = text.find(heading).unwrap_or_else(|| panic!("{heading} is missing"));
            let begin = at + text[at..].find("```json\n").unwrap() + "```json\n".len();
            let end = begin + text[begin..].find("```").unwrap();
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                text.replace_range(begin..end, &wanted);
                std::fs::write(&path, &text).unwrap();
            } else {
                assert_eq!(
                    &text[begin..end],
                    wanted,
                    "{heading}: set UPDATE_GOLDEN=1 to write it anew"
                );
            }
        }
    }
}
