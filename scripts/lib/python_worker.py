"""A worker as task queues for Python are set up by default: one message at a time, acked once its job is done. Prints its jobs a second.

The queue is a SQLite file with a durable commit a job; decoding and onnxruntime run in turns on one thread. For scripts/bench-gpu.py.
usage: python_worker.py TASK MODEL DEVICE JOBS FILE…
"""

import itertools
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def main():
    task, model, device, jobs, *files = sys.argv[1:]
    onnxruntime.set_default_logger_severity(3)
    work = TASKS[task](Path(os.environ["GPUCTL_MODELS"]) / model, PROVIDERS[device])
    files = list(itertools.islice(itertools.cycle(files), int(jobs)))
    work(files[0])
    with tempfile.TemporaryDirectory() as folder:
        times = drained(queue(Path(folder) / "queue.db", files), work)
    first, last = len(times) // 10, int(len(times) * 0.95) - 1
    print((last - first) / (times[last] - times[first]))


def session(path, provider):
    opened = onnxruntime.InferenceSession(path, providers=[provider])
    if provider not in opened.get_providers():
        sys.exit(f"{provider} does not work here")
    return opened


def pictures(folder, provider):
    from PIL import Image

    tower = session(folder / "model.onnx", provider)
    half = tower.get_inputs()[0].type == "tensor(float16)"

    def work(file):
        picture = Image.open(file).convert("RGB").resize((224, 224), Image.BILINEAR)
        pixels = (np.asarray(picture, np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
        return unit(tower.run(None, {"pixel_values": pixels.astype(np.float16) if half else pixels})[0][0])

    return work


def sentences(folder, provider):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    encoder = session(folder / "model.onnx", provider)

    def work(file):
        ids = np.array([tokenizer.encode(Path(file).read_text(encoding="utf-8")).ids], np.int64)
        ones = np.ones_like(ids)
        states = encoder.run(None, {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0})[0]
        return unit(states[0].mean(0))

    return work


def tensors(folder, provider):
    graph = session(folder / "model.onnx", provider)
    handle, scratch = tempfile.mkstemp(suffix=".npy")
    os.close(handle)

    def work(file):
        answer = graph.run(None, {"x": np.load(file)})[0]
        np.save(scratch, answer)
        return list(answer.shape)

    return work


def unit(vector):
    vector = vector.astype(np.float32)
    return (vector / np.linalg.norm(vector)).tolist()


def queue(path, files):
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA synchronous = FULL")
    file.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, visible_at REAL, body TEXT)")
    file.execute("CREATE TABLE results (id INTEGER PRIMARY KEY, result TEXT)")
    file.execute("BEGIN")
    file.executemany("INSERT INTO messages (visible_at, body) VALUES (0, ?)", [(name,) for name in files])
    file.execute("COMMIT")
    return file


def drained(file, work):
    """When each job was acked."""
    times = []
    take = """UPDATE messages SET visible_at = ?1 + 60
        WHERE id = (SELECT id FROM messages WHERE visible_at <= ?1 ORDER BY id LIMIT 1) RETURNING id, body"""
    while message := file.execute(take, (time.time(),)).fetchone():
        number, name = message
        file.execute("INSERT INTO results VALUES (?, ?)", (number, json.dumps(work(name))))
        file.execute("DELETE FROM messages WHERE id = ?", (number,))
        times.append(time.monotonic())
    return times


TASKS = {"vision.embed": pictures, "text.embed": sentences, "onnx.run": tensors}

if __name__ == "__main__":
    main()
