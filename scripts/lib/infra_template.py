"""infra/stack.yaml as data: which resources a stack has with some parameters, and how they are set. Needs PyYAML, which cfn-lint brings."""

import re
from pathlib import Path

import yaml

INFRA = Path(__file__).resolve().parent.parent.parent / "infra"
TEMPLATE = INFRA / "stack.yaml"
# What `gpuctl deploy` fills in.
FILLED_IN = {"CodeBucket": "code", "FunctionKey": "function/1.zip", "BootKey": "boot/1", "WorkerKey": "worker/1"}
PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::StackName": "gpuctl",
}
NOTHING = object()


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with CloudFormation's short forms: `!Ref X` is `{"Ref": "X"}`, `!Sub …` is `{"Fn::Sub": …}`."""


def short_form(loader, name, node):
    kinds = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence, yaml.MappingNode: loader.construct_mapping}
    construct = kinds[type(node)]
    value = construct(node) if isinstance(node, yaml.ScalarNode) else construct(node, deep=True)
    if name == "GetAtt":
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", short_form)


class Template:
    def __init__(self, text):
        self.text = text
        self.root = yaml.load(text, Loader)
        self.stacks = {}

    @classmethod
    def ours(cls):
        return cls(TEMPLATE.read_text(encoding="utf-8"))

    def stack(self, **parameters):
        """The resources of a stack with these parameters: by name, with every function evaluated that does not need an account."""
        values = {name: str(one.get("Default", "")) for name, one in self.root["Parameters"].items()}
        key = tuple(sorted(parameters.items()))
        if key not in self.stacks:
            self.stacks[key] = Evaluation(self.root, PSEUDO | values | FILLED_IN | parameters).resources()
        return self.stacks[key]


class Evaluation:
    """One stack. References to its own resources stay readable: `<Name>`, `<Name.Attribute>`."""

    def __init__(self, root, values):
        self.root = root
        self.values = values

    def resources(self):
        there = {name: one for name, one in self.root["Resources"].items() if self.holds(one.get("Condition"))}
        return {name: {"Type": one["Type"], **self.value(one.get("Properties", {}))} for name, one in there.items()}

    def holds(self, condition):
        return condition is None or self.truth(self.root["Conditions"][condition])

    def truth(self, rule):
        ((function, of),) = rule.items()
        if function == "Condition":
            return self.holds(of)
        if function == "Fn::Equals":
            return str(self.value(of[0])) == str(self.value(of[1]))
        parts = [self.truth(part) for part in of]
        return {"Fn::Not": lambda: not parts[0], "Fn::And": lambda: all(parts), "Fn::Or": lambda: any(parts)}[function]()

    def value(self, node):
        if isinstance(node, list):
            return [one for one in map(self.value, node) if one is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1 and (function := next(iter(node))) in self.FUNCTIONS:
            return self.FUNCTIONS[function](self, node[function])
        values = {name: self.value(one) for name, one in node.items()}
        return {name: one for name, one in values.items() if one is not NOTHING}

    def ref_(self, name):
        return NOTHING if name == "AWS::NoValue" else self.values.get(name, f"<{name}>")

    def getatt_(self, parts):
        return f"<{'.'.join(parts)}>"

    def if_(self, parts):
        return self.value(parts[1] if self.holds(parts[0]) else parts[2])

    def sub_(self, parts):
        text, own = parts if isinstance(parts, list) else (parts, {})
        own = {name: self.value(one) for name, one in own.items()}
        return re.sub(r"\$\{([^}!]+)\}", lambda found: str(own.get(found[1]) if found[1] in own else self.ref_(found[1])), text)

    def join_(self, parts):
        return parts[0].join(str(one) for one in self.value(parts[1]))

    def select_(self, parts):
        return self.value(parts[1])[int(parts[0])]

    def split_(self, parts):
        return str(self.value(parts[1])).split(parts[0])

    def findinmap_(self, parts):
        return self.root["Mappings"][parts[0]][parts[1]][parts[2]]

    def base64_(self, text):
        """Not encoded: a check reads it."""
        return self.value(text)

    def getazs_(self, _region):
        return ["<zone 1>", "<zone 2>"]

    FUNCTIONS = {
        "Ref": ref_,
        "Fn::Base64": base64_,
        "Fn::FindInMap": findinmap_,
        "Fn::GetAZs": getazs_,
        "Fn::GetAtt": getatt_,
        "Fn::If": if_,
        "Fn::Join": join_,
        "Fn::Select": select_,
        "Fn::Split": split_,
        "Fn::Sub": sub_,
    }
