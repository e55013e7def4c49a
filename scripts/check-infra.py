#!/usr/bin/env python3
"""Checks infra/: the template against cfn-lint and against what it must say, permissions against the code's table and AWS's lists.

usage: check-infra.py [--checkov]      by scripts/check-infra.sh, which installs what it needs
Prints each problem, and exits with 1 if there is one. First it makes mistakes in a copy of the template, and so shows that each is found.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

import infra_facts
import infra_iam
import infra_released
import infra_selftest
from gpuctl_cache import cache_folder
from infra_template import TEMPLATE, Template

TOOLS = Path(sys.executable).parent
# What checkov says of the template, and why it stays.
CHECKOV_SAYS = {
    "CKV_AWS_18": "an access log of a private bucket costs, and no one reads it",
    "CKV_AWS_23": "each rule has a description; checkov does not see through Fn::If",
    "CKV_AWS_26": "alarms cannot publish to a topic with AWS's own key; one of the user's costs $1 a month; notices hold no inputs and no results",
    "CKV_AWS_27": "SqsManagedSseEnabled encrypts; checkov looks for a KMS key",
    "CKV_AWS_111": "Session Manager's actions know no resources",
    "CKV_AWS_115": "a new account has no concurrency to reserve; the ledger's lease keeps reconciles apart",
    "CKV_AWS_116": "a lost tick is repeated a minute later",
    "CKV_AWS_117": "in a VPC the function would need interface endpoints, $7 a month each",
    "CKV_AWS_119": "DynamoDB encrypts with its own key; one of the user's costs $1 a month",
    "CKV_AWS_158": "CloudWatch encrypts logs with its own key",
    "CKV_AWS_173": "the function's variables are no secrets",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkov", action="store_true", help="also ask checkov")
    arguments = parser.parse_args()
    template = Template.ours()
    problems = [f"self-test: {problem}" for problem in infra_selftest.failures(template)]
    checks = [cfn_lint, infra_facts.size, infra_facts.facts, infra_facts.layouts, scripts]
    checks += [infra_iam.as_the_code, infra_iam.as_aws, infra_iam.for_cloudformation, infra_released.released]
    if arguments.checkov:
        checks.append(checkov)
    problems += [problem for check in checks for problem in check(template)]
    for problem in problems:
        print(f"infra: {problem}", file=sys.stderr)
    if problems:
        print(f"error: {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


def cfn_lint(_template):
    found = subprocess.run([TOOLS / "cfn-lint", "--format", "parseable", TEMPLATE], capture_output=True, text=True, check=False)
    if found.returncode:
        yield from (found.stdout + found.stderr).strip().splitlines()


def scripts(template):
    """shellcheck, of the user data as a box gets it."""
    with tempfile.TemporaryDirectory(prefix="gpuctl-infra-") as folder:
        files = []
        for name, text in infra_facts.user_data(template).items():
            files.append(Path(folder) / name)
            files[-1].write_text(text, encoding="utf-8")
        found = subprocess.run([TOOLS / "shellcheck", "--exclude=SC1091", *files], capture_output=True, text=True, check=False)
    if found.returncode:
        yield f"user data: {found.stdout}{found.stderr}"


def checkov(_template):
    """Each finding has its reason above, and each reason its finding."""
    command = [cache_folder() / "checkov" / "bin" / "checkov", "--framework", "cloudformation", "--skip-download", "--compact", "--quiet"]
    found = subprocess.run([*command, "--output", "json", "--file", TEMPLATE], capture_output=True, text=True, check=False)
    results = json.loads(found.stdout)
    failed = {one["check_id"]: one for one in results["results"]["failed_checks"]}
    for name in sorted(failed.keys() - CHECKOV_SAYS.keys()):
        yield f"checkov: {name}, {failed[name]['check_name']}: {failed[name]['resource']}"
    yield from (f"checkov has no more to say of {name}; drop it from CHECKOV_SAYS" for name in sorted(CHECKOV_SAYS.keys() - failed.keys()))
    if not results["summary"]["passed"]:
        yield "checkov looked at nothing"


if __name__ == "__main__":
    sys.exit(main())
