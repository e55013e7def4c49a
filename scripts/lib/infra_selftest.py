"""Shows that the checks of infra/ find mistakes: each is made in a copy of the template, and must be reported."""

import infra_facts
import infra_iam
import infra_released
from infra_template import Template

# check, what is replaced, by what, part of the report
MISTAKES = [
    (infra_facts.size, "Outputs:", "# " + "x" * 1000 + "\nOutputs:", "CloudFormation takes"),
    (infra_facts.facts, 'ValidUntil: "2099-01-01T00:00:00Z"', 'ValidUntil: "2027-01-01T00:00:00Z"', "ValidUntil"),
    (infra_facts.facts, "!If [Kept, stop, terminate]", "stop", "InstanceInitiatedShutdownBehavior"),
    (infra_facts.facts, "AttributeName: expires", "AttributeName: ttl", "TimeToLive"),
    (infra_facts.facts, "VersioningConfiguration: {Status: Enabled}", "VersioningConfiguration: {Status: Suspended}", "Versioning"),
    (infra_facts.facts, "State: !If [Ticks, ENABLED, DISABLED]", "State: ENABLED", "State is"),
    (infra_facts.facts, "MapPublicIpOnLaunch: !If [Public, true, false]", "MapPublicIpOnLaunch: true", "MapPublicIpOnLaunch"),
    (infra_facts.layouts, "Type: AWS::SNS::Topic\n", "Type: AWS::EC2::NatGateway\n", "NatGateway"),
    (infra_facts.layouts, "HttpTokens: required", "HttpTokens: optional", "IMDSv2"),
    (infra_facts.layouts, "VolumeType: gp3, Encrypted: true", "VolumeType: gp3, Encrypted: false", "encrypted gp3"),
    (infra_facts.layouts, "SourceSecurityGroupId: !GetAtt AppGroup.GroupId", "CidrIp: 0.0.0.0/0", "lets 0.0.0.0/0 in"),
    (infra_facts.layouts, "SqsManagedSseEnabled: true", "SqsManagedSseEnabled: false", "is not encrypted"),
    (infra_facts.layouts, "{Sid: OnlyTls, Effect: Deny", "{Sid: OnlyTls, Effect: Allow", "without TLS"),
    (infra_facts.layouts, "PermissionsBoundary: !If [HasBoundary, !Ref PermissionsBoundary, !Ref AWS::NoValue]\n", "Path: /\n", "boundary"),
    (infra_iam.as_the_code, '"dynamodb:DeleteItem", ', "", "lacks dynamodb:DeleteItem"),
    (infra_iam.as_the_code, '"ec2:StopInstances"]', '"ec2:StopInstances", "ec2:RebootInstances"]', "has ec2:RebootInstances"),
    (infra_iam.as_aws, '"dynamodb:PutItem"', '"dynamodb:TransactWriteItems"', "is not an action of AWS"),
    (infra_iam.as_aws, "aws:ResourceTag/gpuctl:stack", "ec2:CreateAction", "does not know the key"),
    (infra_iam.as_aws, 'Action: "sns:Publish", Resource: !Ref Topic}\n', 'Action: "sns:Publish", Resource: "*"}\n', "changes something"),
    (infra_iam.for_cloudformation, "Type: AWS::SNS::Subscription", "Type: AWS::MSK::Cluster", "deployer.json lacks kafka:"),
]


# What is replaced, by what, and what a stack of the template as it was would miss.
BREAKS = [
    ("  GpuVolumeGiB: {", "  GpuDiskGiB: {", "Parameters lacks GpuVolumeGiB"),
    ("  Efs: {Type: String,", "  More: {Type: String}\n  Efs: {Type: String,", "the new parameter More has no default"),
    ("  Topic: {Value", "  Notices: {Value", "Outputs lacks Topic"),
    ('QueueName: !Sub "${AWS::StackName}-jobs"', "QueueName: jobs", "Jobs is not the AWS::SQS::Queue"),
    ("  Table:\n    Type", "  Ledger:\n    Type", "Table is not the AWS::DynamoDB::Table"),
]


def failures(template):
    for old, new, part in BREAKS:
        if old not in template.text:
            yield f"there is no {old!r} in the template any more"
        elif not any(part in problem for problem in infra_released.breaks(template, Template(template.text.replace(old, new)))):
            yield f"infra_released does not report {new!r}"
    for check, old, new, part in MISTAKES:
        if old not in template.text:
            yield f"there is no {old!r} in the template any more"
        elif not any(part in problem for problem in check(Template(template.text.replace(old, new)))):
            yield f"{check.__name__} does not report {new!r}"
