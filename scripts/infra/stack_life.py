#!/usr/bin/env python3
"""The life of a stack on ministack: made in each layout, changed, changed by nothing, restored, given wrong parameters, deleted, made again.

usage: stack_life.py MINISTACK      the program; boto3 and PyYAML are needed
What ministack drops of the template is asserted on the text instead, in scripts/lib/infra_facts.py.
"""

import contextlib
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

from infra_facts import LAYOUTS, of_type
from infra_template import FILLED_IN, INFRA, Template

# What ministack has no type for: these are left out, by name, with the outputs that show them. Nothing else of the template is changed.
LEFT_OUT = {"AWS::EC2::EIP": ["AppAddress", "AppAddressId"], "AWS::Budgets::Budget": ["Budget"]}
# What stays when a stack is deleted.
KEPT = {"AWS::S3::Bucket", "AWS::EFS::FileSystem"}
# What must never be replaced by a change of a parameter: it would lose data.
DATA = {"Jobs", "DeadLetters", "Table", "Bucket", "Files"}
DEADLINE_S = 60
NAME = "gpuctl"


class Emulator:
    def __init__(self, program):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "MINISTACK_HOST": "127.0.0.1"}
        self.process = subprocess.Popen([program], env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        within("ministack answers", self.answers)
        return self

    def __exit__(self, *_error):
        self.process.terminate()
        self.process.wait()

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def client(self, service):
        config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=f"http://127.0.0.1:{self.port}", config=config, **keys)


def within(what, true):
    """Waits until `true()` is, and returns it."""
    end = time.monotonic() + DEADLINE_S
    while not (found := true()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)
    return found


class Stack:
    """A stack called NAME, by change sets as `gpuctl deploy` makes them."""

    sets = 0  # of all, so that each has a name of its own

    def __init__(self, emulator, text):
        self.cloudformation = emulator.client("cloudformation")
        self.text = text

    def propose(self, kind, parameters):
        """A change set: its status, and what it would do."""
        Stack.sets += 1
        name = {"StackName": NAME, "ChangeSetName": f"set-{Stack.sets}"}
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in (FILLED_IN | parameters).items()]
        tags = [{"Key": "gpuctl:stack", "Value": NAME}]
        more = {"TemplateBody": self.text, "Parameters": given, "Capabilities": ["CAPABILITY_IAM"], "Tags": tags}
        self.cloudformation.create_change_set(ChangeSetType=kind, **name, **more)
        return within("a change set", lambda: self.proposed(name))

    def proposed(self, name):
        found = self.cloudformation.describe_change_set(**name)
        return found if found["Status"] in ("CREATE_COMPLETE", "FAILED") else None

    def apply(self, kind, parameters):
        """Makes and executes a change set; returns its changes by name."""
        proposed = self.propose(kind, parameters)
        assert proposed["Status"] == "CREATE_COMPLETE", proposed.get("StatusReason")
        self.cloudformation.execute_change_set(StackName=NAME, ChangeSetName=proposed["ChangeSetName"])
        ended = within("the stack", self.ended)
        assert ended["StackStatus"] == f"{kind}_COMPLETE", ended
        return {one["ResourceChange"]["LogicalResourceId"]: one["ResourceChange"] for one in proposed["Changes"]}

    def ended(self):
        found = self.cloudformation.describe_stacks(StackName=NAME)["Stacks"][0]
        return None if found["StackStatus"].endswith("IN_PROGRESS") else found

    def outputs(self):
        return {one["OutputKey"]: one["OutputValue"] for one in self.ended().get("Outputs", [])}

    def resources(self):
        pages = self.cloudformation.get_paginator("list_stack_resources").paginate(StackName=NAME)
        return {one["LogicalResourceId"]: one for page in pages for one in page["StackResourceSummaries"]}

    def delete(self):
        self.cloudformation.delete_stack(StackName=NAME)
        within("the stack's end", self.is_gone)

    def is_gone(self):
        try:
            return self.ended()["StackStatus"] == "DELETE_COMPLETE"
        except ClientError as error:
            return "does not exist" in str(error)


def without(text, names):
    """The template without these resources and outputs."""
    kept, leaving = [], False
    for line in text.splitlines(keepends=True):
        if entry := re.match(r"  (\w+):", line):
            leaving = entry[1] in names
        elif re.match(r"\S", line):
            leaving = False
        if not leaving:
            kept.append(line)
    return "".join(kept)


def pruned(text):
    return Template(without(text, {name for names in LEFT_OUT.values() for name in names}))


def main():
    template = Template.ours()
    possible = pruned(template.text)
    with Emulator(sys.argv[1]) as emulator:
        fill_code_bucket(emulator)
        refuses_the_types_that_are_left_out(emulator, template)
        stack = Stack(emulator, possible.text)
        each_layout_is_made(emulator, stack, possible)
        a_change_changes_what_it_names(emulator, stack, possible)
        the_documented_commands_restore(emulator, stack)
        each_release_is_upgraded(emulator, possible)
        wrong_parameters_are_refused(stack)
    print(f"left out, since ministack has no such type: {', '.join(sorted(LEFT_OUT))}")


def fill_code_bucket(emulator):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("bootstrap", "#!/bin/sh\n")
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=FILLED_IN["CodeBucket"])
    for key in (FILLED_IN["FunctionKey"], "function/2.zip"):
        s3.put_object(Bucket=FILLED_IN["CodeBucket"], Key=key, Body=archive.getvalue())


def refuses_the_types_that_are_left_out(emulator, template):
    """Otherwise the list is out of date."""
    parameters = {"Layout": "one-box", "ElasticIp": "on", "BudgetUsd": "10"}
    try:
        Stack(emulator, template.text).propose("CREATE", parameters)
    except ClientError as error:
        refused = set(re.findall(r"AWS::\w+::\w+", str(error)))
        assert refused == LEFT_OUT.keys(), refused
    else:
        raise AssertionError("ministack has the types of LEFT_OUT by now: test them")


def each_layout_is_made(emulator, stack, template):
    """Made with what its conditions say, no more and no less; deleted but for what is kept; and made again under the same name."""
    for parameters in LAYOUTS:
        parameters = on_this_network(emulator, parameters)
        stack.apply("CREATE", parameters)
        there = stack.resources()
        assert there.keys() == template.stack(**parameters).keys(), there.keys() ^ template.stack(**parameters).keys()
        reads_back(emulator, stack, parameters)
        stack.delete()
        only_what_is_kept_is_left(emulator, there)
        print(f"made and deleted: {len(there)} resources with {parameters or 'the defaults'}")


def on_this_network(emulator, parameters):
    """The layout with an existing VPC gets one that exists."""
    if "ExistingVpc" not in parameters:
        return parameters
    ec2 = emulator.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{n}.0/24")["Subnet"]["SubnetId"] for n in (1, 2)]
    return parameters | {"ExistingVpc": vpc, "ExistingSubnetA": subnets[0], "ExistingSubnetB": subnets[1]}


def reads_back(emulator, stack, parameters):
    """What gpuctl is told by the outputs works, and is what the template says."""
    outputs = stack.outputs()
    queue = emulator.client("sqs").get_queue_attributes(QueueUrl=outputs["QueueUrl"], AttributeNames=["All"])["Attributes"]
    assert queue["MessageRetentionPeriod"] == "1209600" and '"maxReceiveCount":"7"' in queue["RedrivePolicy"].replace(" ", ""), queue
    table = emulator.client("dynamodb").describe_table(TableName=outputs["Table"])["Table"]
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"], table
    function = emulator.client("lambda").get_function_configuration(FunctionName=outputs["Function"])
    assert function["Environment"]["Variables"]["GPUCTL_POLICY"] == outputs["Policy"], function
    tick = emulator.client("scheduler").get_schedule(Name=outputs["Schedule"])
    assert tick["State"] == ("DISABLED" if parameters.get("Tick") == "off" else "ENABLED"), tick
    versions = emulator.client("s3").get_bucket_versioning(Bucket=outputs["Bucket"])
    assert versions["Status"] == "Enabled", versions
    assert len(outputs["Subnets"].split(",")) == (3 if "ZoneC" in parameters else 2), outputs
    doors(emulator, outputs, parameters)
    for name, output in launch_templates(outputs).items():
        boxes(emulator, name, output)


def doors(emulator, outputs, parameters):
    groups = [outputs[name] for name in ("GpuGroup", "AppGroup") if name in outputs]
    found = emulator.client("ec2").describe_security_groups(GroupIds=groups)["SecurityGroups"]
    ports = sorted((one["FromPort"], one["ToPort"]) for group in found for one in group["IpPermissions"])
    wanted = []
    if parameters.get("AppPorts"):
        wanted += [(55433, 55434), (50021, 50021), (22, 22), (22, 22)]
    if parameters.get("Layout") == "gpu-and-app":
        wanted.append((8001, 8001))
    assert ports == sorted(wanted), ports


def launch_templates(outputs):
    return {name: value for name, value in outputs.items() if name.endswith("Template")}


def boxes(emulator, name, template):
    (version,) = emulator.client("ec2").describe_launch_template_versions(LaunchTemplateId=template)["LaunchTemplateVersions"]
    data = version["LaunchTemplateData"]
    pool = "app" if name == "AppTemplate" else "gpu"
    suffix = "gpu-spot" if name == "GpuKeptSpotTemplate" else pool
    tags = {tag["Key"]: tag["Value"] for tag in data["TagSpecifications"][0]["Tags"]}
    assert tags == {"Name": f"{NAME}-{suffix}", "gpuctl:stack": NAME, "gpuctl:pool": pool}, tags
    assert data["MetadataOptions"]["HttpTokens"] == "required", data
    assert data["InstanceInitiatedShutdownBehavior"] == ("terminate" if name == "GpuLaunchedTemplate" else "stop"), data
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True, data


def only_what_is_kept_is_left(emulator, resources):
    """Buckets and file systems stay; each other resource that a list shows is gone."""
    kept = {one["PhysicalResourceId"] for one in resources.values() if one["ResourceType"] in KEPT}
    left = {
        "AWS::SQS::Queue": emulator.client("sqs").list_queues().get("QueueUrls", []),
        "AWS::DynamoDB::Table": emulator.client("dynamodb").list_tables()["TableNames"],
        "AWS::Lambda::Function": [one["FunctionName"] for one in emulator.client("lambda").list_functions()["Functions"]],
        "AWS::Scheduler::Schedule": [one["Name"] for one in emulator.client("scheduler").list_schedules()["Schedules"]],
        "AWS::Events::Rule": [one["Name"] for one in emulator.client("events").list_rules()["Rules"]],
        "AWS::SNS::Topic": [one["TopicArn"] for one in emulator.client("sns").list_topics()["Topics"]],
        "AWS::CloudWatch::Alarm": [one["AlarmName"] for one in emulator.client("cloudwatch").describe_alarms()["MetricAlarms"]],
        "AWS::Logs::LogGroup": [one["logGroupName"] for one in emulator.client("logs").describe_log_groups()["logGroups"]],
        "AWS::IAM::Role": [one["RoleName"] for one in emulator.client("iam").list_roles()["Roles"]],
        "AWS::EC2::LaunchTemplate": [one["LaunchTemplateId"] for one in emulator.client("ec2").describe_launch_templates()["LaunchTemplates"]],
        "AWS::EC2::VPC": [one["VpcId"] for one in emulator.client("ec2").describe_vpcs()["Vpcs"] if one["CidrBlock"] == "10.0.0.0/16"],
    }
    assert not any(left.values()), left
    buckets = {one["Name"] for one in emulator.client("s3").list_buckets()["Buckets"]}
    assert {name for name in kept if not name.startswith("fs-")} <= buckets, buckets


def a_change_changes_what_it_names(emulator, stack, template):
    stack.apply("CREATE", {})
    changes = stack.apply("UPDATE", {"GpuVolumeGiB": "120", "FunctionKey": "function/2.zip"})
    assert {"GpuKeptSpot", "Function"} <= changes.keys(), changes.keys()
    assert not DATA & changes.keys(), changes.keys()
    versions = emulator.client("ec2").describe_launch_template_versions(LaunchTemplateId=stack.outputs()["GpuKeptSpotTemplate"])
    sizes = [one["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] for one in versions["LaunchTemplateVersions"]]
    assert sorted(map(int, sizes)) == [100, 120], sizes

    same = stack.propose("UPDATE", {"GpuVolumeGiB": "120", "FunctionKey": "function/2.zip"})
    assert same["Status"] == "FAILED" and "didn't contain changes" in same["StatusReason"], same

    stack.apply("UPDATE", {"Tick": "off"})
    assert emulator.client("scheduler").get_schedule(Name=NAME)["State"] == "DISABLED"
    grown = {"Layout": "gpu-and-app", "GpuMarket": "both", "Efs": "on", "Tick": "on"}
    changes = stack.apply("UPDATE", grown)
    assert not lost(changes), lost(changes)
    assert stack.resources().keys() == template.stack(**grown).keys()
    assert of_type(template.stack(**grown), "AWS::EC2::LaunchTemplate").keys() == {"GpuKeptSpot", "GpuPlain", "AppKept"}
    stack.delete()
    print("changed: disk, code, tick, layout; nothing that holds data was replaced")


def lost(changes):
    return {name for name, one in changes.items() if name in DATA and (one["Action"] == "Remove" or one.get("Replacement") == "True")}


def the_documented_commands_restore(emulator, stack):
    """The commands of infra/README.md, word by word. ministack restores a table as it is, whatever the time says."""
    stack.apply("CREATE", {})
    table, s3 = emulator.client("dynamodb"), emulator.client("s3")
    job = {"pk": {"S": "job"}, "sk": {"S": "1"}}
    table.put_item(TableName=NAME, Item=job)
    stack.apply("UPDATE", {"Tick": "off"})
    text = (INFRA / "README.md").read_text(encoding="utf-8").replace("\\\n", "")
    commands = re.findall(r"^aws dynamodb .*", text, flags=re.MULTILINE)
    assert len(commands) == 6, commands
    backup = ""
    for command in commands:
        answer = as_the_cli_would(emulator, command.replace("ARN", backup))
        backup = answer.get("BackupDetails", {}).get("BackupArn", backup)
    stack.apply("UPDATE", {"Tick": "on"})
    assert table.scan(TableName=NAME)["Items"] == [job]
    assert table.describe_time_to_live(TableName=NAME)["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    backups = table.describe_continuous_backups(TableName=NAME)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED", backups

    bucket = stack.outputs()["Bucket"]
    first = s3.put_object(Bucket=bucket, Key="gpuctl.toml", Body=b"first")["VersionId"]
    s3.put_object(Bucket=bucket, Key="gpuctl.toml", Body=b"second")
    for command in re.findall(r"^aws s3api .*", text, flags=re.MULTILINE):
        answer = as_the_cli_would(emulator, command.replace("BUCKET", bucket).replace("KEY", "gpuctl.toml").replace("VERSION", first))
        assert len(answer.get("Versions", ["copied"] * 2)) == 2, answer
    assert s3.get_object(Bucket=bucket, Key="gpuctl.toml")["Body"].read() == b"first"
    table.delete_table(TableName=f"{NAME}-restored")
    stack.delete()
    print("restored: the table from a backup, and a file's earlier version")


def as_the_cli_would(emulator, command):
    """One command of the AWS CLI, with an argument for each option."""
    _, service, operation, *options = shlex.split(command, comments=True)
    client = emulator.client({"s3api": "s3"}.get(service, service))
    method = operation.replace("-", "_")
    members = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape.members
    by_option = {f"--{xform_name(member, '-')}": member for member in members}
    given = {by_option[option]: value for option, value in zip(options[::2], options[1::2], strict=True)}
    return getattr(client, method)(**{name: structured(value) if members[name].type_name == "structure" else value for name, value in given.items()})


def structured(text):
    """The CLI's short form of a structure, e.g. `Enabled=true,AttributeName=expires`."""
    pairs = (pair.split("=") for pair in text.split(","))
    return {name: {"true": True, "false": False}.get(value, value) for name, value in pairs}


def each_release_is_upgraded(emulator, newest):
    for path in sorted((INFRA / "released").glob("*.yaml")):
        Stack(emulator, pruned(path.read_text(encoding="utf-8")).text).apply("CREATE", {})
        stack = Stack(emulator, newest.text)
        changes = stack.apply("UPDATE", {})
        assert not lost(changes), lost(changes)
        stack.delete()
        print(f"upgraded: a stack of {path.name}")


def wrong_parameters_are_refused(stack):
    for parameters, part in [
        ({"GpuMarket": "cheap"}, "GpuMarket"),
        ({"GpuVolumeGiB": "5"}, "GpuVolumeGiB"),
        ({"AppPorts": "http"}, "AppPorts"),
        ({"GpuAmi": "the newest"}, "GpuAmi"),
        ({"BootKey": "boot.sh"}, "BootKey"),
        ({"ExistingVpc": "vpc-1"}, "ExistingVpc needs"),
        ({"ExistingSubnetA": "subnet-1"}, "need ExistingVpc"),
        ({"AppPorts": "8080"}, "are for an app"),
        ({"Layout": "one-box", "GpuBoxes": "launched", "ElasticIp": "on"}, "would be lost"),
        ({"Layout": "one-box", "ElasticIp": "on", "Addresses": "endpoints"}, "to be public"),
    ]:
        try:
            stack.propose("CREATE", parameters)
        except ClientError as error:
            assert part in str(error), (parameters, error)
        else:
            raise AssertionError(f"not refused: {parameters}")
    print("refused: wrong values, subnets without their VPC, ports without an app")


if __name__ == "__main__":
    main()
