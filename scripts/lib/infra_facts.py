"""What infra/stack.yaml must say, and what it must never have. Most of it no emulator keeps, so it is read off the text."""

import re

BYTES_MAX = 51_200  # CloudFormation: a template in the request, not in S3
DEFAULT = {}
APP = {"Layout": "gpu-and-app", "GpuMarket": "both", "AppPorts": "55433-55434", "AppPorts2": "50021", "AppCidr": "203.0.113.7/32"}
APP |= {"SshCidr": "203.0.113.8/32", "ElasticIp": "on"}
ONE_BOX = {"Layout": "one-box", "GpuBoxes": "launched", "Efs": "on", "ZoneC": "eu-west-1c", "VolumeInitMiBps": "300", "MetadataHops": "2"}
CLOSED = {"Addresses": "endpoints", "Layout": "gpu-and-app", "BudgetUsd": "50", "AlarmEmail": "ada@example.invalid", "Efs": "on"}
EXISTING = {"ExistingVpc": "vpc-1", "ExistingSubnetA": "subnet-1", "ExistingSubnetB": "subnet-2", "Addresses": "none", "Tick": "off", "Alarms": "off"}
KEYED = {"GpuMarket": "on-demand", "VolumeKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1", "PermissionsBoundary": "arn:aws:iam::123456789012:policy/b"}
LAYOUTS = [DEFAULT, APP, ONE_BOX, CLOSED, EXISTING, KEYED]

# parameters, path of a value, what it is
FACTS = [
    # Money: a request that ends on its seventh day would take a stopped box with it.
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.InstanceMarketOptions.MarketType", "spot"),
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.InstanceMarketOptions.SpotOptions.SpotInstanceType", "persistent"),
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior", "stop"),
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.InstanceMarketOptions.SpotOptions.ValidUntil", "2099-01-01T00:00:00Z"),
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.InstanceMarketOptions.SpotOptions.MaxPrice", None),
    (DEFAULT | {"SpotMaxUsdHour": "0.30"}, "GpuKeptSpot.LaunchTemplateData.InstanceMarketOptions.SpotOptions.MaxPrice", "0.30"),
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.TagSpecifications.2.ResourceType", "spot-instances-request"),
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.InstanceInitiatedShutdownBehavior", "stop"),
    (APP, "GpuPlain.LaunchTemplateData.InstanceInitiatedShutdownBehavior", "stop"),
    (APP, "GpuPlain.LaunchTemplateData.InstanceMarketOptions", None),
    (APP, "AppKept.LaunchTemplateData.InstanceInitiatedShutdownBehavior", "stop"),
    (ONE_BOX, "GpuPlain.LaunchTemplateData.InstanceInitiatedShutdownBehavior", "terminate"),
    (ONE_BOX, "GpuPlain.LaunchTemplateData.InstanceMarketOptions", None),
    (ONE_BOX, "GpuPlain.LaunchTemplateData.BlockDeviceMappings.0.Ebs.VolumeInitializationRate", "300"),
    (ONE_BOX, "GpuPlain.LaunchTemplateData.SecurityGroupIds", ["<GpuGroup.GroupId>", "<AppGroup.GroupId>"]),
    (DEFAULT, "Function.Environment.Variables.GPUCTL_METRICS", "off"),
    (DEFAULT, "Budget", None),
    (CLOSED, "Budget.Budget.BudgetLimit", {"Amount": "50", "Unit": "USD"}),
    # Data.
    (DEFAULT, "Table.TimeToLiveSpecification", {"AttributeName": "expires", "Enabled": True}),
    (DEFAULT, "Table.PointInTimeRecoverySpecification", {"PointInTimeRecoveryEnabled": True}),
    (DEFAULT, "Bucket.VersioningConfiguration.Status", "Enabled"),
    # By which `gpuctl destroy` knows it; ministack drops it.
    (DEFAULT, "Bucket.Tags.0.Key", "gpuctl:stack"),
    (DEFAULT, "Bucket.Tags.0.Value", "gpuctl"),
    (DEFAULT, "Bucket.BucketEncryption.ServerSideEncryptionConfiguration.0.ServerSideEncryptionByDefault.SSEAlgorithm", "AES256"),
    (DEFAULT, "Bucket.LifecycleConfiguration.Rules.0.Prefix", "gpuctl/"),
    (DEFAULT, "Bucket.LifecycleConfiguration.Rules.0.ExpirationInDays", "90"),
    (DEFAULT, "Bucket.LifecycleConfiguration.Rules.1.AbortIncompleteMultipartUpload.DaysAfterInitiation", 1),
    (DEFAULT, "Bucket.LifecycleConfiguration.Rules.1.NoncurrentVersionExpiration.NoncurrentDays", 30),
    (DEFAULT, "Jobs.MessageRetentionPeriod", 1209600),
    (DEFAULT, "DeadLetters.MessageRetentionPeriod", 1209600),
    (DEFAULT, "Jobs.RedrivePolicy", {"deadLetterTargetArn": "<DeadLetters.Arn>", "maxReceiveCount": "7"}),
    (DEFAULT, "FunctionLog.RetentionInDays", "30"),
    (ONE_BOX, "Files.Encrypted", True),
    # What a box is told about itself: stack, region, role, pool, …
    (DEFAULT, "GpuKeptSpot.LaunchTemplateData.UserData", re.compile(r"set -- gpuctl eu-west-1 gpu gpu <Bucket> s3://code/worker/1 s3://code/boot/1 \"\"\n")),
    (APP, "AppKept.LaunchTemplateData.UserData", re.compile(r"set -- gpuctl eu-west-1 app app ")),
    (ONE_BOX, "GpuPlain.LaunchTemplateData.UserData", re.compile(r'set -- gpuctl eu-west-1 both gpu .* "<Files>"\n')),
    # What wakes the function, and what destroy switches off.
    (DEFAULT, "Schedule.ScheduleExpression", "rate(1 minute)"),
    (DEFAULT, "Schedule.Target.Input", '{"tick": true}'),
    (DEFAULT, "Schedule.State", "ENABLED"),
    (DEFAULT, "NoTick.ActionsEnabled", True),
    (EXISTING, "Schedule.State", "DISABLED"),
    (EXISTING, "BoxEvents.State", "DISABLED"),
    # The network: nothing comes in but what a parameter names.
    (DEFAULT, "GpuGroup.SecurityGroupIngress", []),
    (DEFAULT, "AppGroup", None),
    (DEFAULT, "SubnetA.MapPublicIpOnLaunch", True),
    (CLOSED, "SubnetA.MapPublicIpOnLaunch", False),
    (CLOSED, "InternetGateway", None),
    (CLOSED, "RouteOut", None),
    (CLOSED, "AppGroup.SecurityGroupIngress", []),
    (EXISTING, "Vpc", None),
    (EXISTING, "GpuGroup.VpcId", "vpc-1"),
    (ONE_BOX, "FilesC.SubnetId", "<SubnetC>"),
]


def size(template):
    length = len(template.text.encode())
    if length > BYTES_MAX:
        yield f"has {length} bytes, CloudFormation takes {BYTES_MAX}"


def facts(template):
    for parameters, path, wanted in FACTS:
        found = at(template.stack(**parameters), path)
        is_so = wanted.search(found or "") if isinstance(wanted, re.Pattern) else found == wanted
        if not is_so:
            yield f"{path} is {found!r} and must be {wanted!r} with {parameters or 'the defaults'}"


def at(value, path):
    for part in path.split("."):
        if value is None:
            return None
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value


def layouts(template):
    """What is so with any parameters."""
    for parameters in LAYOUTS:
        resources = template.stack(**parameters)
        for rule in (no_box, boxes, doors, encrypted, bounded):
            for problem in rule(resources, parameters):
                yield f"{problem} with {parameters or 'the defaults'}"


NEVER = ["AWS::EC2::Instance", "AWS::EC2::NatGateway", "AWS::CloudFormation::CustomResource", "AWS::CloudFormation::Macro", "AWS::KMS::Key"]


def no_box(resources, _parameters):
    """A box in a stack would come back when the stack is deleted; a NAT gateway costs $33 a month; a custom resource can get stuck."""
    for name, one in resources.items():
        if one["Type"] in NEVER or one["Type"].startswith("Custom::"):
            yield f"{name} is a {one['Type']}"


def boxes(resources, parameters):
    templates = of_type(resources, "AWS::EC2::LaunchTemplate")
    if not templates:
        yield "there is no launch template"
    for name, one in templates.items():
        data = one["LaunchTemplateData"]
        disk = data["BlockDeviceMappings"][0]["Ebs"]
        tagged = {of["ResourceType"]: {tag["Key"]: tag["Value"] for tag in of["Tags"]} for of in data["TagSpecifications"]}
        wanted = {
            "IMDSv2": data["MetadataOptions"]["HttpTokens"] == "required",
            "tags in the metadata": data["MetadataOptions"]["InstanceMetadataTags"] == "enabled",
            "the hops asked for": str(data["MetadataOptions"]["HttpPutResponseHopLimit"]) == parameters.get("MetadataHops", "1"),
            "an encrypted gp3 disk that ends with its box": (disk["Encrypted"], disk["VolumeType"], disk["DeleteOnTermination"]) == (True, "gp3", True),
            # A launch names the subnet, which EC2 refuses beside interfaces.
            "no network interface": "NetworkInterfaces" not in data,
            "the stack's tag on all that it makes": all(tags.get("gpuctl:stack") == "gpuctl" for tags in tagged.values()),
            "its name as a tag": tagged["instance"].get("Name", "").startswith("gpuctl-"),
            "its pool as a tag": tagged["instance"].get("gpuctl:pool") in ("gpu", "app"),
            "an image that EC2 resolves": data["ImageId"].startswith("resolve:ssm:/aws/service/"),
        }
        yield from (f"{name} lacks {what}" for what, is_so in wanted.items() if not is_so)


def doors(resources, parameters):
    """What may come in: to the app by AppPorts, to the GPU from the app, by SSH if asked for, to files and endpoints from the boxes."""
    for name, group in of_type(resources, "AWS::EC2::SecurityGroup").items():
        for rule in group.get("SecurityGroupIngress", []):
            source = rule.get("CidrIp") or rule.get("SourceSecurityGroupId")
            ports = f"{rule['FromPort']}-{rule['ToPort']}"
            if (name, ports, source) not in allowed(parameters):
                yield f"{name} lets {source} in on {ports}"


def allowed(parameters):
    app, ssh = parameters.get("AppCidr"), parameters.get("SshCidr")
    return {
        ("AppGroup", "55433-55434", app),
        ("AppGroup", "50021-50021", app),
        ("AppGroup", "22-22", ssh),
        ("GpuGroup", "22-22", ssh),
        ("GpuGroup", "8001-8001", "<AppGroup.GroupId>"),
        ("FilesGroup", "2049-2049", "<GpuGroup.GroupId>"),
        ("FilesGroup", "2049-2049", "<AppGroup.GroupId>"),
        ("EndpointGroup", "443-443", "10.0.0.0/16"),
    }


def encrypted(resources, _parameters):
    """Queues are encrypted; what is sent to queues, bucket and topic without TLS is denied; the bucket is private."""
    for name, queue in of_type(resources, "AWS::SQS::Queue").items():
        if queue.get("SqsManagedSseEnabled") is not True:
            yield f"{name} is not encrypted"
    for kind in ("AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy"):
        for name, policy in of_type(resources, kind).items():
            denied = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
            if not any(one["Condition"] == {"Bool": {"aws:SecureTransport": "false"}} for one in denied):
                yield f"{name} does not deny what is sent without TLS"
    if set(resources["Bucket"]["PublicAccessBlockConfiguration"].values()) != {True}:
        yield "Bucket may be made public"


def bounded(resources, parameters):
    for name, role in of_type(resources, "AWS::IAM::Role").items():
        if role.get("PermissionsBoundary") != parameters.get("PermissionsBoundary"):
            yield f"{name} has another permissions boundary than the parameter's"


def of_type(resources, kind):
    return {name: one for name, one in resources.items() if one["Type"] == kind}


def user_data(template):
    """The user data of each launch template in each layout, by name, as a script that can be checked."""
    scripts = {}
    for number, parameters in enumerate(LAYOUTS):
        for name, one in of_type(template.stack(**parameters), "AWS::EC2::LaunchTemplate").items():
            scripts[f"{name}-{number}"] = re.sub(r"<(\w+)>", r"\1", one["LaunchTemplateData"]["UserData"])
    return scripts
