#!/usr/bin/env python3
"""infra/terraform on ministack: applied, planned again without a difference, changed, destroyed.

usage: terraform_life.py MINISTACK      in a folder where `terraform init` has been run
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from infra_template import FILLED_IN
from stack_life import Emulator, fill_code_bucket, pruned, within

NO_DIFFERENCE, A_DIFFERENCE = 0, 2


def main():
    leave_out()
    with Emulator(sys.argv[1]) as emulator:
        fill_code_bucket(emulator)
        configure(emulator.port)
        terraform("apply", "-auto-approve")
        assert terraform("plan", "-detailed-exitcode") == NO_DIFFERENCE
        outputs = json.loads(subprocess.run(["terraform", "output", "-json"], check=True, capture_output=True).stdout)["stack"]["value"]
        assert outputs["QueueName"] == "gpuctl-jobs", outputs
        bigger = ["-var", 'parameters={"GpuVolumeGiB":"120"}']
        assert terraform("plan", "-detailed-exitcode", *bigger) == A_DIFFERENCE
        terraform("apply", "-auto-approve", *bigger)
        terraform("destroy", "-auto-approve")
        queues = emulator.client("sqs").list_queues
        within("no queue is left", lambda: not queues().get("QueueUrls"))


def leave_out():
    """What ministack has no type for, from this copy of the template."""
    template = Path("../stack.yaml")
    template.write_text(pruned(template.read_text(encoding="utf-8")).text, encoding="utf-8")


def configure(port):
    """A provider that asks the emulator, also what it asks of EC2 first, and does not ask which account this is: that takes minutes of retries."""
    skips = ["skip_credentials_validation", "skip_metadata_api_check", "skip_requesting_account_id", "skip_region_validation"]
    endpoints = dict.fromkeys(["cloudformation", "ec2"], f"http://127.0.0.1:{port}")
    provider = {"region": "us-east-1", "access_key": "test", "secret_key": "test", "endpoints": endpoints}
    Path("emulator_override.tf.json").write_text(json.dumps({"provider": {"aws": provider | dict.fromkeys(skips, True)}}), encoding="utf-8")
    Path("emulator.auto.tfvars.json").write_text(json.dumps({"code": FILLED_IN}), encoding="utf-8")


def terraform(*arguments):
    """Runs it; returns the exit code of a plan."""
    done = subprocess.run(["terraform", *arguments, "-input=false", "-no-color"], capture_output=True, text=True, check=False)
    if done.returncode not in (NO_DIFFERENCE, A_DIFFERENCE):
        sys.exit(f"terraform {arguments[0]}: {done.stdout}{done.stderr}")
    return done.returncode


if __name__ == "__main__":
    main()
