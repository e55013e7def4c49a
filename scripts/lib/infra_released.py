"""What a newer infra/stack.yaml must still have, so that `gpuctl deploy` changes a stack of an older release and loses nothing.

A release puts its template into infra/released/; each one there is compared.
"""

from infra_template import INFRA, Template

# What holds data, and the properties that CloudFormation changes only by making it anew.
DATA = {
    "AWS::DynamoDB::Table": ["TableName", "KeySchema"],
    "AWS::EFS::FileSystem": ["Encrypted", "PerformanceMode"],
    "AWS::S3::Bucket": ["BucketName"],
    "AWS::SQS::Queue": ["QueueName", "FifoQueue"],
}


def released(template):
    for path in sorted((INFRA / "released").glob("*.yaml")):
        older = Template(path.read_text(encoding="utf-8"))
        yield from (f"{problem}, which {path.name} has" for problem in breaks(older, template))


def breaks(older, newer):
    """What a stack of the older template, its users and its tools would miss."""
    for section in ("Parameters", "Outputs"):
        yield from (f"{section} lacks {name}" for name in sorted(older.root[section].keys() - newer.root[section].keys()))
    added = newer.root["Parameters"].keys() - older.root["Parameters"].keys()
    yield from (f"the new parameter {name} has no default" for name in sorted(added) if "Default" not in newer.root["Parameters"][name])
    for name, old in older.root["Resources"].items():
        if old["Type"] in DATA:
            new = newer.root["Resources"].get(name, {})
            same = [new.get("Type") == old["Type"], *(of(new, key) == of(old, key) for key in DATA[old["Type"]])]
            if not all(same):
                yield f"{name} is not the {old['Type']}"


def of(resource, key):
    return resource.get("Properties", {}).get(key)
