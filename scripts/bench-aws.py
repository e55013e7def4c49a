#!/usr/bin/env python3
"""Measure the Lambda function against a Python handler, and `gpuctl status` against the AWS CLI, in one run on one machine.

Why it exists: to see what a Rust function saves at a cold start, and to list the calls of one tick. Both functions run under
the same runtime API (served here) and make the same calls: those of gpuctl's own tick are recorded on an emulator (moto), with
their responses, and the Python handler repeats them with boto3. A stub gives the responses, each after 10 ms, as AWS would
take; moto takes longer. It is no measurement of Lambda itself: no sandbox start, no TLS.

usage: bench-aws.py [--bootstrap PATH] [--gpuctl PATH] [--rounds 12]
Needs release builds, and scripts/install-emulators.sh; installs boto3, awslambdaric and the AWS CLI into the cache.
"""

import argparse
import http.server
import itertools
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder, target_folder

CACHE = cache_folder()
TARGET = target_folder() / "release"
PACKAGES = ["awscli==1.46.3", "boto3==1.44.5", "awslambdaric==4.2.2"]
REGION = "eu-west-1"
WARM = 30
# Of a response of the stub, in seconds.
DELAY = 0.010
HANDLER = """
import boto3, itertools, json, os
from botocore.exceptions import ClientError
with open(os.environ["CALLS"]) as file:
    FIRST, LATER = json.load(file)
CLIENTS = {service: boto3.client(service) for service, _, _ in FIRST + LATER}
TICKS = itertools.chain([FIRST], itertools.repeat(LATER))
def handler(event, context):
    for service, operation, parameters in next(TICKS):
        try:
            CLIENTS[service]._make_api_call(operation, parameters)
        except ClientError:
            pass  # a condition that held for the one who recorded it
    return {"statusCode": 200}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bootstrap", type=Path, default=TARGET / "bootstrap", help="default: %(default)s")
    parser.add_argument("--gpuctl", type=Path, default=TARGET / "gpuctl", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=12, help="cold starts of each; default: %(default)s")
    arguments = parser.parse_args()
    tools = environment()
    with tempfile.TemporaryDirectory() as folder, Moto() as moto:
        account = set_up_account(tools, Path(folder), moto.url)
        if arguments.bootstrap.is_file():
            functions(arguments, tools, Path(folder), account)
        if arguments.gpuctl.is_file():
            status(arguments, tools, Path(folder), account)


def environment():
    folder = CACHE / "bench-aws"
    if not (folder / "bin" / "aws").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
    return folder / "bin"


class Moto:
    """The emulator, on a free port."""

    def __enter__(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [CACHE / "emulators/moto/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not answers(self.url + "/moto-api/data.json"):
            if time.monotonic() > until:
                sys.exit("error: moto does not answer")
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def credentials(url):
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def set_up_account(tools, folder, url):
    """Five boxes, a queue with dead letters, and the policy on two of the boxes."""
    code = """
import boto3, json
ec2, sqs = boto3.client("ec2"), boto3.client("sqs")
made = ec2.run_instances(ImageId=ec2.describe_images()["Images"][0]["ImageId"], MinCount=5, MaxCount=5, InstanceType="g4dn.xlarge")
ids = [one["InstanceId"] for one in made["Instances"]]
ec2.stop_instances(InstanceIds=ids)
dead = sqs.create_queue(QueueName="jobs-dead")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
sqs.create_queue(QueueName="jobs", Attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "7"})})
print(json.dumps(ids))
"""
    answer = subprocess.run([tools / "python", "-c", code], check=True, capture_output=True, text=True, env=credentials(url))
    app, gpu = json.loads(answer.stdout)[:2]
    policy = f"""[cloud]
kind = "aws"
region = "{REGION}"
table = "gpuctl"
[pool.app]
instances = ["{app}"]
[pool.gpu]
queue = "jobs"
instances = ["{gpu}"]
"""
    (folder / "gpuctl.toml").write_text(policy)
    return url


def functions(arguments, tools, folder, url):
    make_table(arguments, folder, url)
    recorder = Recorder(url)
    rust = [arguments.bootstrap]
    python = [tools / "python", "-m", "awslambdaric", "handler.handler"]
    variables = {"GPUCTL_POLICY": str(folder / "gpuctl.toml"), "GPUCTL_LOG": "warn"}
    with Function(rust, credentials(recorder.url) | variables, folder) as function:
        function.call()  # it makes notes that later ones find
    recorded = []
    with Function(rust, credentials(recorder.url) | variables, folder) as function:
        for _ in range(2):
            recorder.calls.clear()
            function.call()
            recorded.append(list(recorder.calls))
    stub = Stub(recorded[0] + recorded[1])
    first, later = ([call for call, _ in tick] for tick in recorded)
    print(f"a tick of two pools, one with a queue: {len(later)} calls, a process's first one {len(first)}")
    for service, operation, _ in first:
        print(f"  {service}:{operation}")
    (folder / "calls.json").write_text(json.dumps([first, later]))
    (folder / "handler.py").write_text(HANDLER)
    variables |= {"CALLS": str(folder / "calls.json"), "LAMBDA_TASK_ROOT": str(folder), "_HANDLER": "handler.handler"}
    figures = {"Rust": [], "Python": []}
    for _ in range(arguments.rounds):
        for name, command in (("Rust", rust), ("Python", python)):
            with Function(command, credentials(stub.url) | variables, folder) as function:
                figures[name].append(function.measure())
    print(f"{'':8} {'ready':>9} {'answered':>9} {'warm':>9} {'memory':>9}   medians of {arguments.rounds} starts, from the process's start")
    columns = {name: [median(column) for column in zip(*rows)] for name, rows in figures.items()}
    for name, (ready, cold, warm, memory) in columns.items():
        print(f"{name:8} {ready * 1e3:6.1f} ms {cold * 1e3:6.1f} ms {warm * 1e3:6.1f} ms {memory / 1024:5.1f} MB")
    ratios = [python / rust for rust, python in zip(columns["Rust"], columns["Python"])]
    print(f"{'ratio':8} {ratios[0]:8.1f}x {ratios[1]:8.1f}x {ratios[2]:8.1f}x {ratios[3]:8.1f}x")


def make_table(arguments, folder, url):
    command = [arguments.gpuctl, "doctor", "--fix", "--json"]
    subprocess.run(command, cwd=folder, env=credentials(url), stdout=subprocess.DEVNULL, check=False)


class Recorder:
    """Hands requests on, and remembers which they were."""

    def __init__(self, upstream):
        recorder = self
        self.calls = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
                request = urllib.request.Request(upstream + self.path, body, headers)
                try:
                    answer = urllib.request.urlopen(request)
                except urllib.error.HTTPError as error:
                    answer = error
                response = answer.status, answer.headers.get("Content-Type", "application/json"), answer.read()
                recorder.calls.append((call_of(self.headers, body), response))
                respond(self, response)

            def log_message(self, *_):
                pass

        self.url = serve(Handler)


class Stub:
    """Gives the recorded responses of each operation in turns, after `DELAY`."""

    def __init__(self, recorded):
        responses = {}
        for (service, operation, _), response in recorded:
            responses.setdefault((service, operation), []).append(response)
        turns = {key: itertools.cycle(values) for key, values in responses.items()}
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else the kernel holds a body back until the head is acknowledged.
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service, operation, _ = call_of(self.headers, body)
                time.sleep(DELAY)
                with lock:
                    response = next(turns[service, operation])
                respond(self, response)

            def log_message(self, *_):
                pass

        self.url = serve(Handler)


def respond(handler, response):
    status, kind, content = response
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def call_of(headers, body):
    target = headers.get("X-Amz-Target")
    if target:
        service = "sqs" if target.startswith("AmazonSQS") else "dynamodb"
        return service, target.split(".")[-1], json.loads(body)
    fields = urllib.parse.parse_qs(body.decode())
    parameters = {}
    ids = [value[0] for name, value in fields.items() if name.startswith("InstanceId.")]
    if ids:
        parameters["InstanceIds"] = ids
    filters = sorted({name.split(".")[1] for name in fields if name.startswith("Filter.")})
    if filters:

        def values(index):
            return [value[0] for name, value in fields.items() if name.startswith(f"Filter.{index}.Value.")]

        parameters["Filters"] = [{"Name": fields[f"Filter.{at}.Name"][0], "Values": values(at)} for at in filters]
    return "ec2", fields["Action"][0], parameters


class Function:
    """A process that asks this runtime API for events."""

    def __init__(self, command, variables, folder):
        function = self
        self.events, self.answers, self.ready = queue.Queue(), queue.Queue(), threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                function.ready.set()
                event = function.events.get()
                if event is None:
                    return
                body = json.dumps(event).encode()
                self.send_response(200)
                deadline = str(int((time.time() + 30) * 1000))
                arn = f"arn:aws:lambda:{REGION}:123456789012:function:gpuctl"
                headers = {
                    "Aws-Request-Id": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
                    "Deadline-Ms": deadline,
                    "Invoked-Function-Arn": arn,
                    "Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
                }
                for name, value in headers.items():
                    self.send_header(f"Lambda-Runtime-{name}", value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                function.answers.put((self.path, body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A function that was killed breaks its connection off.
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        name = "gpuctl"
        own = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_address[1]}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_LOG_GROUP_NAME": name,
            "AWS_LAMBDA_LOG_STREAM_NAME": name,
        }
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, env=variables | own, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.events.put(None)
        self.server.shutdown()

    def call(self):
        self.events.put({"source": "aws.scheduler", "detail-type": "Scheduled Event"})
        try:
            path, body = self.answers.get(timeout=60)
        except queue.Empty:
            self.process.kill()
            sys.exit(f"error: no answer: {self.process.stderr.read().decode()[-2000:]}")
        if not path.endswith("/response"):
            sys.exit(f"error: {path}: {body.decode()}")

    def measure(self):
        if not self.ready.wait(60):
            sys.exit("error: the function never asked for an event")
        ready = time.perf_counter() - self.began
        self.call()
        cold = time.perf_counter() - self.began
        warm = []
        for _ in range(WARM):
            began = time.perf_counter()
            self.call()
            warm.append(time.perf_counter() - began)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        return ready, cold, median(warm), memory


def status(arguments, tools, folder, url):
    ours = [arguments.gpuctl, "status"]
    theirs = [tools / "aws", "ec2", "describe-instances"]

    def once(command):
        began = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, env=credentials(url), stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    pairs = [(once(ours), once(theirs)) for _ in range(arguments.rounds)]
    rust, python = (median(column) for column in zip(*pairs))
    print(f"gpuctl status {rust * 1e3:.0f} ms, aws ec2 describe-instances {python * 1e3:.0f} ms: {python / rust:.0f}x; medians of {arguments.rounds}, in turns")


if __name__ == "__main__":
    main()
