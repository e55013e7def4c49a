"""Who may do what: the stack's roles, infra/operator.json and infra/deployer.json against the code's table of permissions, both ways, against
what CloudFormation's registry says that each resource needs, and against AWS's list of actions and condition keys. Needs policy_sentry."""

import fnmatch
import json
import re
from pathlib import Path

import cfnlint
from policy_sentry.querying.actions import get_action_data

from infra_facts import LAYOUTS, of_type
from infra_template import INFRA

# A test of gpuctl-aws holds this page to the table of the code, and the table to the calls in the sources.
TABLE = INFRA.parent / "lambda" / "README.md"
PERMISSIONS = INFRA.parent / "crates" / "gpuctl-aws" / "src" / "permissions.rs"
HEADINGS = {
    "controller": "### Controller",
    "launcher": "### Launched boxes",
    "worker": "### Worker",
    "user": "### What else the CLI may need",
}
# What the code's table has and the stack's roles lack: why.
NOT_GIVEN = {
    "controller": {
        "ssm:GetParameter": "the stack's policy lies in S3",
        "ssm:GetParameterHistory": "as ssm:GetParameter",
        "logs:CreateLogGroup": "the log group is part of the stack",
    },
    "launcher": {},
    "worker": {
        "ec2:StopInstances": "a worker ends with an exit code, and its unit powers the box off",
        "ec2:CreateTags": "as ec2:StopInstances",
    },
    "user": {
        "dynamodb:CreateTable": "the table is part of the stack",
        "dynamodb:UpdateTimeToLive": "the table is part of the stack",
    },
}
# What the stack's roles have beside the code's calls: why.
GIVEN_MORE = {
    "controller": {f"kms:{name}": "EC2 uses VolumeKeyArn as the caller" for name in ("CreateGrant", "Decrypt", "DescribeKey", "ReEncryptFrom", "ReEncryptTo")}
    | {"kms:GenerateDataKeyWithoutPlaintext": "EC2 uses VolumeKeyArn as the caller"},
    "launcher": {
        "iam:CreateServiceLinkedRole": "EC2 makes its role for spot at an account's first spot box, as the caller",
        "ssm:GetParameters": "EC2 resolves resolve:ssm:… as the caller",
    },
    "worker": {f"ssmmessages:{name}": "Session Manager" for name in ("CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel")}
    | {"ssm:UpdateInstanceInformation": "Session Manager"},
    "user": {},
}
# What changes something and names no resource.
ON_ALL = set(GIVEN_MORE["worker"])
# What the deployer has beside that: why.
DEPLOYER_MORE = {
    "cloudformation:DescribeStacks": "to see other stacks",
    "cloudformation:ValidateTemplate": "people who deploy by hand",
    "s3:ListAllMyBuckets": "to see what a deleted stack has left",
    "ssm:GetParameters": "EC2 resolves resolve:ssm:… as the caller",
}
POLICY_CHARACTERS_MAX = 6_144  # IAM: a managed policy, white space left out
# What the registry names for features that the template does not use.
NOT_USED = {
    "billing:*": "budgets of a billing view",
    "ec2:AcceptAddressTransfer": "addresses of other accounts",
    "ec2:*VpnGateway": "virtual private networks",
    "ec2:*SubnetCidrBlock": "IPv6",
    "ec2:CreateVpcEncryptionControl": "encryption controls",
    "ec2:ModifyVpcTenancy": "dedicated tenancy",
    "firehose:*": "log delivery",
    "iam:Attach*Policy": "policies of users and groups",
    "iam:Detach*Policy": "policies of users and groups",
    "kinesis:*": "streams of tables",
    "kms:*": "keys of one's own, but for disks",
    "s3files:*": "file systems over S3",
    "s3tables:*": "metadata tables",
    "vpc-lattice:*": "service networks",
    "vpce:*": "endpoints over regions",
}
# Condition keys that every action knows.
GLOBAL = {"aws:securetransport", "aws:sourceaccount"}


def table():
    """The actions of each role in the code's table."""
    page = TABLE.read_text(encoding="utf-8")
    found = {}
    for role, heading in HEADINGS.items():
        block = page[page.index(heading) :]
        policy = json.loads(re.search(r"```json\n(.*?)```", block, re.DOTALL)[1])
        found[role] = actions(policy["Statement"])
    return found


def actions(statements):
    return {action for one in statements for action in listed(one["Action"])}


def listed(value):
    return value if isinstance(value, list) else [value]


def roles(template):
    """The statements of each of the stack's roles, of all layouts together."""
    found = {}
    for parameters in LAYOUTS:
        resources = template.stack(**parameters)
        for name, role in of_type(resources, "AWS::IAM::Role").items():
            statements = [one for policy in role.get("Policies", []) for one in policy["PolicyDocument"]["Statement"]]
            for managed in role.get("ManagedPolicyArns", []):
                statements += resources[managed.strip("<>")]["PolicyDocument"]["Statement"]
            found.setdefault(name, []).extend(statements)
    return found


def as_the_code(template):
    """The roles have what the code's calls need, and nothing else."""
    wanted = table()
    given = roles(template)
    operator = json.loads((INFRA / "operator.json").read_text(encoding="utf-8"))["Statement"]
    pairs = [
        ("FunctionRole", ["controller", "launcher"], actions(given["FunctionRole"])),
        ("GpuRole", ["worker"], actions(given["GpuRole"])),
        ("operator.json", ["controller", "launcher", "user"], actions(operator) | {"logs:CreateLogStream", "logs:PutLogEvents"}),
    ]
    for name, of, has in pairs:
        needed = set().union(*(wanted[role] for role in of))
        absent = set().union(*(NOT_GIVEN[role] for role in of))
        more = set().union(*(GIVEN_MORE[role] for role in of))
        yield from (f"{name} lacks {action}, which the code calls" for action in sorted(needed - has - absent))
        yield from (f"{name} has {action}, which no code calls" for action in sorted(has - needed - more))
        yield from (f"{name} has {action}, which NOT_GIVEN says it lacks" for action in sorted(has & absent))
    yield from stale(wanted, given)


def stale(wanted, given):
    """Exceptions that are none any more."""
    for role, exceptions in NOT_GIVEN.items():
        yield from (f"NOT_GIVEN has {action} for the {role}, whose table lacks it" for action in sorted(exceptions.keys() - wanted[role]))
    everywhere = set().union(*(actions(statements) for statements in given.values()))
    for role, exceptions in GIVEN_MORE.items():
        yield from (f"GIVEN_MORE has {action} for the {role}, which no role has" for action in sorted(exceptions.keys() - everywhere))


def as_aws(template):
    """Each action exists, each condition can match, and nothing that changes something is given on all resources without a reason."""
    documents = dict(roles(template))
    for file in ("operator.json", "deployer.json"):
        documents[file] = json.loads((INFRA / file).read_text(encoding="utf-8"))["Statement"]
    problems = {problem for name, statements in documents.items() for one in statements for problem in statement_problems(name, one)}
    yield from sorted(problems)


def statement_problems(name, one):
    where = f"{name}/{one.get('Sid', '?')}"
    keys = {key.lower().split("/")[0] for of in one.get("Condition", {}).values() for key in of}
    for action in listed(one["Action"]):
        rows = known(action)
        if not rows:
            yield f"{where}: {action} is not an action of AWS"
            continue
        matching = {key.lower().split("/")[0] for row in rows for key in row["condition_keys"]} | GLOBAL
        yield from (f"{where}: {action} does not know the key {key}: the condition never holds" for key in sorted(keys - matching))
        if one["Resource"] == "*" and not keys and name != "deployer.json":
            yield from on_all(where, action, rows)


def on_all(where, action, rows):
    """What is given on all resources: only what changes nothing and can name none. People also get what may name one, to look for others."""
    if action not in ON_ALL and any(row["access_level"] in ("Write", "Tagging", "Permissions management") for row in rows):
        yield f"{where}: {action} changes something and is given on all resources"
    elif action not in ON_ALL and not where.startswith("operator.json") and any(row["resource_arn_format"] != "*" for row in rows):
        yield f"{where}: {action} may name a resource and is given on all"


def for_cloudformation(template):
    """infra/deployer.json allows what CloudFormation's registry names for each type of the template, as far as the template uses it."""
    policy = (INFRA / "deployer.json").read_text(encoding="utf-8")
    length = len(re.sub(r"\s", "", policy))
    if length > POLICY_CHARACTERS_MAX:
        yield f"deployer.json has {length} characters, a managed policy may have {POLICY_CHARACTERS_MAX}"
    given = actions(json.loads(policy)["Statement"])
    kinds = {one["Type"] for one in template.root["Resources"].values()}
    needed = registry(kinds)
    yield from (f"{kind} is not in cfn-lint's copy of the registry" for kind in sorted(kinds - needed.keys()))
    for kind, wanted in needed.items():
        for action in sorted(wanted):
            if not matches(action, given) and not matches(action, NOT_USED):
                yield f"deployer.json lacks {action}, which {kind} needs"
    every = set().union(*needed.values())
    for pattern in NOT_USED:
        if not any(matches(action, [pattern]) for action in every):
            yield f"NOT_USED has {pattern}, which no type needs"
    called = every | set(re.findall(r'"(\w+:\w+)"', PERMISSIONS.read_text(encoding="utf-8"))) | DEPLOYER_MORE.keys()
    for pattern in sorted(given):
        if not any(matches(action, [pattern]) for action in called):
            yield f"deployer.json has {pattern}, which neither CloudFormation nor the code needs"


def registry(kinds):
    """The permissions with which CloudFormation makes, reads, changes and deletes a resource, by type."""
    found = {}
    for path in (Path(cfnlint.__file__).parent / "data/schemas/resources").glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        if schema.get("typeName") in kinds:
            handlers = [of for name, of in schema.get("handlers", {}).items() if name != "list"]
            found.setdefault(schema["typeName"], set()).update(action for of in handlers for action in of["permissions"])
    return found


def matches(action, patterns):
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def known(action):
    """What AWS's service reference says of an action, one row for each kind of resource; of all that a pattern matches."""
    service, name = action.split(":")
    if "*" not in name:
        return rows_of(service, name)
    every = get_action_data(service, "*") or {}
    return [row for row in every.get(service, []) if fnmatch.fnmatchcase(row["action"].lower(), action.lower())]


def rows_of(service, name):
    found = get_action_data(service, name) or {}
    return [row for row in found.get(service, []) if row["action"].lower() == f"{service}:{name}".lower()]
