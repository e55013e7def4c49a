#!/usr/bin/env python3
"""Fails on a dependency between crates, or from a crate on the outside world, that the architecture does not have.

The table is that of crates/README.md: a new edge is a decision, and is made there first.
"""

import json
import subprocess
import sys

# crate -> the crates of this workspace that it may depend on
EDGES = {
    "gpu-tasks": set(),
    "gpuctl-core": set(),
    "gpuctl-control": {"gpuctl-core", "gpu-tasks"},
    "gpuctl-local": {"gpuctl-control", "gpuctl-core"},
    "gpuctl-deploy": {"gpuctl-control", "gpuctl-core"},
    "gpuctl-aws": {"gpuctl-deploy", "gpuctl-control", "gpuctl-core"},
    "gpuctl-worker": {"gpuctl-control", "gpuctl-core", "gpu-tasks"},
    "gpuctl-page": {"gpuctl-control", "gpuctl-core"},
    "gpuctl-http": {"gpuctl-page", "gpuctl-control", "gpuctl-core", "gpu-tasks"},
    "gpuctl-sim": {"gpuctl-worker", "gpuctl-control", "gpuctl-core"},
    "gpu-inference": {"gpu-tasks"},
    "gpu-worker": {"gpuctl-worker", "gpu-inference", "gpuctl-local", "gpuctl-aws", "gpuctl-control", "gpuctl-core"},
    "gpuctl": {"gpuctl-deploy", "gpuctl-http", "gpuctl-sim", "gpuctl-local", "gpuctl-aws", "gpuctl-control", "gpuctl-core", "gpu-tasks"},
    "gpuctl-lambda": {"gpuctl-aws", "gpuctl-control", "gpuctl-core"},
}

# crate -> what must not be reachable from it, however deep
NEVER = {
    "gpu-tasks": ["tokio", "serde_derive", "chrono", "rusqlite", "ort", "clap", "aws-config"],
    "gpuctl-core": ["tokio", "rusqlite", "ort", "reqwest", "rand", "aws-config"],
    "gpuctl-control": ["rusqlite", "ort", "clap", "aws-config"],
    "gpuctl-local": ["ort", "clap", "aws-config"],
    "gpuctl-deploy": ["rusqlite", "ort", "clap", "aws-config"],
    "gpuctl-aws": ["ort", "clap", "rusqlite"],
    "gpuctl-worker": ["ort", "clap", "rusqlite", "aws-config"],
    "gpuctl-page": ["axum", "hyper", "ort", "clap", "rusqlite", "aws-config"],
    "gpuctl-http": ["ort", "clap", "rusqlite", "aws-config"],
    "gpuctl-sim": ["ort", "clap", "rusqlite", "aws-config"],
    "gpu-inference": ["tokio", "rusqlite", "clap", "aws-config"],
    "gpuctl": ["ort"],
    "gpuctl-lambda": ["ort", "clap", "rusqlite"],
}


def main() -> int:
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    members = set(metadata["workspace_members"])
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    macros = {package["id"] for package in metadata["packages"] if is_macro(package)}
    problems = []
    for member in sorted(members, key=names.get):
        name = names[member]
        if name not in EDGES:
            problems.append(f"{name}: not in the table of scripts/check-edges.py")
            continue
        direct = normal(nodes[member])
        for other in sorted(names[d] for d in direct & members):
            if other not in EDGES[name]:
                problems.append(f"{name} -> {other}: not an edge of the architecture")
        reached = {names[d] for d in closure(member, nodes, macros)}
        problems += [f"{name} reaches {banned}" for banned in NEVER.get(name, []) if banned in reached]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        print("hint: crates/README.md says which crate may depend on what, and why", file=sys.stderr)
    return 1 if problems else 0


def normal(node):
    """The dependencies that end up in the program: neither tests' nor build scripts'."""
    return {d["pkg"] for d in node["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])}


def is_macro(package):
    """Whether it runs in the compiler: what it depends on is not in the program."""
    return any("proc-macro" in target["kind"] for target in package["targets"])


def closure(start, nodes, macros):
    seen, todo = set(), [start]
    while todo:
        for dependency in normal(nodes[todo.pop()]) - seen - macros:
            seen.add(dependency)
            todo.append(dependency)
    return seen


if __name__ == "__main__":
    sys.exit(main())
