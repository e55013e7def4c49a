#!/usr/bin/env python3
"""Measure a worker on a queue file of this machine: its memory over many small jobs, and how soon its messages are free after SIGTERM.

usage: bench-worker.py GPUCTL GPU_WORKER [--jobs 100000] [--stops 100]
Needs release builds, scripts/fetch-models.py and scripts/make-graphs.py.
"""

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder

CACHE = cache_folder()
# Everything that waits ends with the first of these.
WAIT_SECONDS_MAX = 3_600
JOB = (
    '{"version":1,"job_id":"%s","queue":"jobs","task":"%s","input":"%s","submitted_at":"2026-11-22T00:00:00+00:00"}'
)


class Desk:
    """A state folder, its queue, and the worker on it."""

    def __init__(self, programs, folder, models):
        self.programs, self.folder = programs, Path(folder)
        self.environment = {**os.environ, "GPUCTL_CACHE": str(CACHE), "GPUCTL_MODELS": str(models), "GPUCTL_LOG": "error"}
        (self.folder / "gpuctl.toml").write_text('[pool.gpu]\nqueue = "jobs"\nidle_stop = "1d"\nlifetime_max = "30d"\n')
        subprocess.run([programs.gpuctl, "status"], cwd=folder, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        self.file = sqlite3.connect(self.folder / ".gpuctl" / "gpuctl.db", timeout=30, isolation_level=None)

    def send(self, task, uri, count):
        """Queues jobs by hand: submitting many takes long."""
        now = int(time.time() * 1e6)
        self.file.execute("BEGIN IMMEDIATE")
        for n in range(count):
            name = str(uuid.UUID(int=(now // 1000 << 80) | (7 << 76) | (2 << 62) | random.getrandbits(62)))
            job = JOB % (name, task, uri)
            self.file.execute(
                "INSERT INTO messages (queue, sent_at, visible_at, job_id, attributes, body) VALUES ('jobs', ?, ?, ?, '[]', ?)",
                (now, now - count + n, name, job),
            )
            self.file.execute("INSERT INTO jobs (job_id, submitted_at, generation, touched_at, job) VALUES (?, ?, 0, ?, ?)", (name, now, now, job))
        self.file.execute("COMMIT")

    def start(self):
        command = [self.programs.gpu_worker, "serve", "--pool", "gpu", "--box", "gpu-1"]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL)

    def results(self):
        return self.file.execute("SELECT count(*) FROM results").fetchone()[0]

    def left(self):
        return self.file.execute("SELECT coalesce(sum(live), 0) FROM message_counts").fetchone()[0]

    def held(self):
        """The held messages, and until when each is hidden."""
        now = int(time.time() * 1e6)
        return dict(self.file.execute("SELECT id, visible_at FROM messages WHERE receipt IS NOT NULL AND visible_at > ?", (now,)))


def wait(what, worker, so):
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not so():
        if worker.poll() is not None or time.monotonic() > end:
            sys.exit(f"bench-worker: {what} never came")
        time.sleep(0.02)


def resident_mib(worker):
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0


def measure_memory(desk, jobs):
    desk.send("text.classify", "data:,hello", jobs)
    began, worker, marks = time.monotonic(), desk.start(), []
    for mark in range(1, 11):
        wait(f"{mark * 10} % of the jobs", worker, lambda mark=mark: desk.left() <= jobs - jobs * mark // 10)
        marks.append(resident_mib(worker))
    took = time.monotonic() - began
    worker.terminate()
    worker.wait()
    shown = ", ".join(f"{mark:.0f}" for mark in marks)
    print(f"memory of a worker after each tenth of {jobs:,} small jobs, MiB: {shown} ({jobs / took:.0f} jobs a second)")


def measure_stops(desk, stops):
    """The time from SIGTERM until each message that the worker held, and did not finish, can be received again."""
    uri, times, finished = (CACHE / "samples" / "beckett.wav").as_uri(), [], 0
    for _ in range(stops):
        desk.send("voice.transcribe", uri, max(0, 20 - desk.left()))
        before, worker = desk.results(), desk.start()
        wait("a result", worker, lambda before=before: desk.results() > before + 1)
        time.sleep(random.random())
        held = desk.held()
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        while worker.poll() is None:
            # A message that is finished is gone, one that was released has no receipt any more.
            now = dict(desk.file.execute("SELECT id, visible_at FROM messages WHERE NOT dead"))
            for name in [name for name, hidden_until in held.items() if now.get(name, hidden_until) < hidden_until]:
                times.append((time.monotonic() - began) * 1e3)
                del held[name]
            time.sleep(0.002)
        finished += len(held)
    times.sort()
    if not times:
        sys.exit("bench-worker: no stop released anything")
    rank = times[-(-len(times) * 99 // 100) - 1]
    print(
        f"from SIGTERM until a held message is visible again, {len(times)} messages of {stops} stops ({finished} more were finished): "
        f"p50 {times[len(times) // 2]:.0f} ms, p99 {rank:.0f} ms, slowest {times[-1]:.0f} ms"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gpuctl", type=Path)
    parser.add_argument("gpu_worker", type=Path)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--stops", type=int, default=100)
    programs = parser.parse_args()
    random.seed(7)
    with tempfile.TemporaryDirectory() as folder:
        measure_stops(Desk(programs, folder, CACHE / "models"), programs.stops)
    with tempfile.TemporaryDirectory() as folder:
        measure_memory(Desk(programs, folder, CACHE / "graphs"), programs.jobs)


if __name__ == "__main__":
    main()
