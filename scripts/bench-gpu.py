#!/usr/bin/env python3
"""Measure workers on a queue file against the same models in a bare loop, and against a Python worker that takes one job at a time.

For each task: `bare` decodes and prepares on all cores, runs the model at its best batch and keeps nothing; `python` is a worker as task
queues set it up by default (one message at a time, acked once the job is done), on Python's onnxruntime; the rest are workers of gpuctl,
each jobs a second between the 10th and the 95th percentile of the times in the results. Models have random weights.

usage: bench-gpu.py PROGRAMS [--device cuda] [--jobs 1.0] [--tasks …] [--ways …] [--pages FOLDER] [--gpus 1] [--before …] [--json FILE]
PROGRAMS is the folder of gpuctl, gpu-worker and examples/bare (release builds). Needs numpy, Pillow, onnx, and for the Python worker
onnxruntime and tokenizers. FOLDER has pages as the example `print_pages … full` makes them, which are read through the queue alone, all of
one size and of twelve: the example `read_pages` reads them without. With several GPUs a box serves with `--gpus all`, too. `taskset -c 0-3`
shows what four cores do.
"""

import argparse
import datetime
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
# Everything that waits ends with the first of these.
SECONDS_MAX = 90
WORDS = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "with"]


class Case:
    def __init__(self, task, model, pattern, jobs, name=None):
        self.task, self.model, self.pattern, self.jobs = task, model, pattern, jobs
        self.name = name or task


# fp16 on a GPU, fp32 on a processor, which computes in 16 bits only by detours.
CASES = {
    "cuda": [
        Case("vision.embed", "pictures-fp16", "*.jpg", 8000),
        Case("text.embed", "sentences-fp16", "*.txt", 16000),
        Case("onnx.run", "tiny-fp32", "*.npy", 16000),
    ],
    "cpu": [
        Case("vision.embed", "pictures-fp32", "*.jpg", 150),
        Case("text.embed", "sentences-fp32", "*.txt", 3000),
        Case("onnx.run", "tiny-fp32", "*.npy", 8000),
    ],
}


PAGES = [Case("vision.ocr", "pp-ocr-v6-small", f"{sizes}-*.png", 400, f"pages, {sizes}") for sizes in ("equal", "mixed")]


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        models = Path(os.environ.get("GPUCTL_MODELS", scratch / "models"))
        if not (models / "tiny-fp32").is_dir():
            made = ["pictures", "sentences", "tiny"]
            subprocess.run([sys.executable, SCRIPTS / "make-random-models.py", *made, "--folder", models], check=True, stdout=sys.stderr)
        os.environ["GPUCTL_MODELS"] = str(models)
        if "GPUCTL_ONNXRUNTIME" in os.environ:
            os.environ.setdefault("ORT_DYLIB_PATH", os.environ["GPUCTL_ONNXRUNTIME"])
        make_inputs(scratch)
        cases = [(case, scratch) for case in CASES[arguments.device] if case.task in arguments.tasks]
        cases += [(case, arguments.pages) for case in PAGES if arguments.pages]
        rows = [row for case, folder in cases for row in measured(arguments, case, folder)]
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": cores(), "device": arguments.device, "rows": rows}, indent=1), encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("programs", type=Path, metavar="PROGRAMS")
    parser.add_argument("--device", default="cuda", choices=CASES)
    parser.add_argument("--jobs", type=float, default=1.0, help="how many, as a multiple of the usual number")
    parser.add_argument("--tasks", default="vision.embed,text.embed,onnx.run", type=lambda text: text.split(","))
    parser.add_argument("--ways", default="bare,python,before,worker,two,gpus", type=lambda text: text.split(","))
    parser.add_argument("--pages", type=Path, help="the folder of `print_pages … full`")
    parser.add_argument("--gpus", type=int, default=1, help="also a box that serves on all of its GPUs, so many")
    parser.add_argument("--before", type=Path, help="the gpu-worker of another commit, to compare with")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def cores():
    return len(os.sched_getaffinity(0))


def make_inputs(folder):
    import numpy as np
    from PIL import Image

    pick = random.Random(7)
    numbers = np.random.default_rng(7)
    for n in range(200):
        blocks = Image.fromarray(numbers.integers(0, 255, (24, 32, 3), np.uint8))
        blocks.resize((640, 480), Image.BICUBIC).save(folder / f"{n:03}.jpg", quality=85)
        (folder / f"{n:03}.txt").write_text(" ".join(pick.choices(WORDS, k=24 + n % 8)), encoding="utf-8")
        np.save(folder / f"{n:03}.npy", numbers.standard_normal((8, 256), np.float32))


def measured(arguments, case, folder):
    """One row for each way to run the case's jobs, printed as it comes."""
    jobs = max(20, int(case.jobs * arguments.jobs))
    files = sorted(str(path) for path in folder.glob(case.pattern))
    ways = [(way, run) for key, way, run in ways_of(arguments, case, jobs, files) if key in arguments.ways]
    found = {}
    for way, run in ways:
        try:
            found[way] = run()
        except (subprocess.SubprocessError, RuntimeError, ValueError) as error:
            print(f"{case.name:13} {way:22} failed: {str(error)[-400:]}", flush=True)
            continue
        others = [other for other in ("bare", "python", "worker before", "worker") if found.get(other) and other != way]
        against = "".join(f", {found[way] / found[other]:.2f} of {other}" for other in others)
        print(f"{case.name:13} {way:22} {found[way]:9,.1f} a second{against} ({cores()} cores, {arguments.device})", flush=True)
        yield {"task": case.name, "model": case.model, "way": way, "jobs": jobs, "per_second": round(found[way], 1)}


def ways_of(arguments, case, jobs, files):
    programs = arguments.programs
    ways = []
    if case not in PAGES:
        ways.append(("bare", "bare", lambda: bare(programs, arguments.device, case, jobs, files)))
        ways.append(("python", "python", lambda: python_worker(arguments.device, case, max(20, jobs // 8), files)))
    if arguments.before:
        ways.append(("before", "worker before", lambda: through_queue(arguments, case, jobs // 4, files, worker=arguments.before)))
    ways.append(("worker", "worker", lambda: through_queue(arguments, case, jobs, files)))
    ways.append(("two", "two workers, one GPU", lambda: through_queue(arguments, case, jobs, files, workers=2)))
    if arguments.gpus > 1:
        gpus = arguments.gpus
        ways.append(("gpus", f"serve --gpus all, {gpus}", lambda: through_queue(arguments, case, jobs * gpus, files, gpus=gpus)))
    return ways


def bare(programs, device, case, jobs, files):
    command = [programs / "examples" / "bare", case.task, case.model, device, "64" if device == "cuda" else "16", str(jobs), *files]
    return json.loads(output_of(command))["items_per_second"]


def python_worker(device, case, jobs, files):
    command = [sys.executable, SCRIPTS / "lib" / "python_worker.py", case.task, case.model, device, str(jobs), *files]
    return float(output_of(command))


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"exit {done.returncode}")
    return done.stdout.strip().splitlines()[-1]


def through_queue(arguments, case, jobs, files, workers=1, gpus=1, worker=None):
    """Submits all jobs, then starts the workers: the rate of the results in the middle."""
    worker = worker or arguments.programs / "gpu-worker"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        # `max_wait`: no submit starts a worker of its own.
        config = Path(state) / "gpuctl.toml"
        config.write_text(
            f'[cloud]\nkind = "local"\nstate = "{state}/s"\nfile_mib_max = 4096\n[worker]\ndevice = "{arguments.device}"\n'
            f'[pool.gpu]\nqueue = "jobs"\nmax_wait = "6h"\nidle_stop = "1h"\nboxes_max = {workers}\n',
            encoding="utf-8",
        )
        all_files = list(itertools.islice(itertools.cycle(files), jobs))
        for first in range(0, jobs, 1000):
            command = [arguments.programs / "gpuctl", "--config", config, "submit", case.task, "--model", case.model, *all_files[first : first + 1000]]
            output_of(command)
        processes = [serve(worker, config, number, gpus, state) for number in range(workers)]
        try:
            finished = results(Path(state), jobs, processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    first, last = int(jobs * 0.1), int(jobs * 0.95) - 1
    return (last - first) / (finished[last] - finished[first])


def serve(worker, config, number, gpus, state):
    environment = {**os.environ, "GPUCTL_LOG": "warn"}
    command = [worker, "--config", config, "serve", "--pool", "gpu", "--box", f"gpu-{number + 1}"]
    # On one it has the first alone, as a box with one has.
    if gpus > 1:
        command += ["--gpus", "all"]
    else:
        environment["CUDA_VISIBLE_DEVICES"] = "0"
    with (Path(state) / f"log-{number}").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def results(state, jobs, processes):
    """When each job was done, in order, in seconds; all of them have to succeed."""
    file = sqlite3.connect(f"file:{state}/s/gpuctl.db?mode=ro", uri=True, timeout=10)
    end = time.monotonic() + SECONDS_MAX
    while file.execute("SELECT count(*) FROM results").fetchone()[0] < jobs:
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            raise RuntimeError((state / "log-0").read_text(encoding="utf-8", errors="replace")[-400:] or "not done in time")
        time.sleep(0.1)
    documents = [json.loads(document) for (document,) in file.execute("SELECT result FROM results")]
    file.close()
    failed = [document for document in documents if document.get("error")]
    if failed:
        raise RuntimeError(f"{len(failed)} jobs failed: {failed[0]['error']}")
    return sorted(datetime.datetime.fromisoformat(document["finished_at"]).timestamp() for document in documents)


if __name__ == "__main__":
    main()
