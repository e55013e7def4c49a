#!/usr/bin/env python3
"""Measure the same graphs with the same inputs, threads and options in gpu-worker and in Python's onnxruntime, in turns.

Why it exists: to see what the Rust side costs or saves, in one run on one machine. Both use the same ONNX Runtime only
if GPUCTL_ONNXRUNTIME names the library of the Python package; the versions are printed. The graph alone is measured.

usage: bench-models.py [GRAPH…] [--batch 1,8] [--device cpu] [--threads 2] [--seconds 2] [--rounds 2] [--json]
GRAPH is MODEL or MODEL/ROLE, as for `gpuctl models bench`. Needs `onnxruntime` (or the packages of make-graphs.py).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder, target_folder
from python_packages import use_graph_packages

WARM_UP, CALLS_MIN = 2, 3


def main():
    arguments = parse_arguments()
    use_graph_packages("onnxruntime")
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    rows = []
    for graph in arguments.graphs:
        for device in arguments.device.split(","):
            batches = [int(batch) for batch in arguments.batch.split(",")]
            rust = {batch: [] for batch in batches}
            python = {batch: [] for batch in batches}
            for _ in range(arguments.rounds):
                for row in in_rust(arguments, graph, device):
                    rust[row["batch"]].append(row["items_per_second"])
                for batch, speed in in_python(onnxruntime, arguments, graph, device, batches):
                    python[batch].append(speed)
            for batch in batches:
                if rust[batch] and python[batch]:
                    pair = median(rust[batch]), median(python[batch])
                    speeds = {"rust_items_per_second": pair[0], "python_items_per_second": pair[1], "rust_over_python": pair[0] / pair[1]}
                    rows.append({"graph": graph, "device": device, "batch": batch} | speeds)
    show(arguments, rows, onnxruntime.__version__)


def parse_arguments():
    beside = [target_folder() / kind / "gpu-worker" for kind in ("release", "debug")]
    worker = next((str(path) for path in beside if path.is_file()), shutil.which("gpu-worker"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("graphs", nargs="+", metavar="GRAPH")
    parser.add_argument("--batch", default="1,8", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cpu,cuda; default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="turns of both; default: %(default)s")
    parser.add_argument("--side", type=int, default=320, help="of pictures, where a graph leaves it open; default: %(default)s")
    parser.add_argument("--length", type=int, default=128, help="of texts, where a graph leaves it open; default: %(default)s")
    parser.add_argument("--models", type=Path, default=cache_folder() / "models", help="default: %(default)s")
    parser.add_argument("--worker", default=worker, help="default: %(default)s")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker is None:
        parser.error("no gpu-worker found: build it, or name it with --worker")
    return arguments


def in_rust(arguments, graph, device):
    command = [arguments.worker, "models", "bench", graph, "--device", device, "--batch", arguments.batch]
    command += ["--threads", str(arguments.threads), "--seconds", str(arguments.seconds)]
    command += ["--side", str(arguments.side), "--length", str(arguments.length)]
    environment = dict(os.environ, GPUCTL_MODELS=str(arguments.models), GPUCTL_LOG="error")
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    for skipped in answer["skipped"]:
        print(f"skipped in Rust: {skipped}", file=sys.stderr)
    return answer["rows"]


def in_python(onnxruntime, arguments, graph, device, batches):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    cuda = ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"})
    providers = [cuda] if device == "cuda" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path_of(arguments.models, graph), options, providers=providers)
    for batch in batches:
        if any(len(one.shape) > 1 and isinstance(one.shape[0], int) and one.shape[0] != batch for one in session.get_inputs()):
            continue
        feeds = {one.name: synthetic(one, batch, arguments) for one in session.get_inputs()}
        for _ in range(WARM_UP):
            session.run(None, feeds)
        calls, total = 0, 0.0
        while calls < CALLS_MIN or total < arguments.seconds:
            began = time.perf_counter()
            session.run(None, feeds)
            total += time.perf_counter() - began
            calls += 1
        yield batch, batch * calls / total


def path_of(models, graph):
    model, _, role = graph.partition("/")
    manifest = tomllib.loads((models / model / "model.toml").read_text(encoding="utf-8"))
    files = [file for file in manifest["file"] if Path(file["path"]).suffix in (".onnx", ".ort") and role in ("", file["role"])]
    if len(files) != 1:
        sys.exit(f"error: {graph} names no single graph: {[file['role'] for file in manifest['file']]}")
    return models / model / files[0]["path"]


def synthetic(described, batch, arguments):
    """The same values as crates/gpu-inference/src/bench.rs."""
    import numpy as np

    picture = len(described.shape) == 4

    def side(index, length):
        if isinstance(length, int):
            return length
        if "past" in (length or ""):
            return 0
        return batch if index == 0 else arguments.side if picture and index >= 2 else arguments.length

    shape = [side(index, length) for index, length in enumerate(described.shape)]
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    if described.type == "tensor(float)" and len(shape) == 1:
        return np.ones(shape, np.float32)
    if described.type == "tensor(int64)" and described.name.endswith("lengths"):
        return np.full(shape, arguments.length, np.int64)
    if described.type in kinds:
        numbers = np.arange(int(np.prod(shape))) * 37 % 1009 / 504.5 - 1
        return numbers.astype(kinds[described.type]).reshape(shape)
    whole = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}
    return np.ones(shape, whole[described.type])


def show(arguments, rows, version):
    if arguments.json:
        print(json.dumps({"threads": arguments.threads, "python_onnxruntime": version, "rows": rows}, indent=2))
        return
    print(f"{'graph':32} {'device':6} {'batch':>5} {'Rust items/s':>13} {'Python items/s':>15} {'Rust/Python':>12}")
    for row in rows:
        speeds = f"{row['rust_items_per_second']:13.1f} {row['python_items_per_second']:15.1f} {row['rust_over_python']:12.2f}"
        print(f"{row['graph']:32} {row['device']:6} {row['batch']:5} {speeds}")
    print(f"{arguments.threads} threads, {arguments.rounds} rounds in turns, {arguments.seconds} s a case; Python has onnxruntime {version}")


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: {error}")
