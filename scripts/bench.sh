#!/usr/bin/env bash
# The figures of crates/FIGURES.md, measured here and now. Leave the machine alone meanwhile.
#   usage: scripts/bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

"$python" scripts/fetch-models.py >/dev/null
"$python" scripts/make-graphs.py >/dev/null
cargo build --release --locked --quiet -p gpuctl -p gpu-worker
echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
cargo bench --locked --quiet -p gpuctl-core --bench decide
cargo bench --locked --quiet -p gpuctl-core --bench schedule
cargo bench --locked --quiet -p gpuctl-local --bench queue
cargo bench --locked --quiet -p gpuctl-local --bench fleet
cargo bench --locked --quiet -p gpu-worker --bench overhead
cargo bench --locked --quiet -p gpu-worker --bench throughput

"$python" scripts/bench-worker.py "$CARGO_TARGET_DIR/release/gpuctl" "$CARGO_TARGET_DIR/release/gpu-worker"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$CARGO_TARGET_DIR/release/gpuctl" init >/dev/null
"$python" - "$CARGO_TARGET_DIR/release/gpuctl" <<'PYTHON'
import sqlite3, subprocess, sys, time

def once(command):
    began = time.perf_counter()
    subprocess.run([sys.argv[1], *command], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3

def measure(command, runs, state):
    times = sorted(once(command) for _ in range(runs))
    print(f"gpuctl {' '.join(command)}, start to finish, {state}, {runs} runs: p50 {times[runs // 2]:.1f} ms, slowest {times[-1]:.1f} ms")

measure(["status"], 101, "an empty file")

# A job with a result (failed or not), a dead one and one that waits, in turns; written by hand, since submitting them takes hours.
job = '{"version":1,"job_id":"%s","queue":"jobs","task":"vision.ocr","input":"file:///a.png","submitted_at":"2026-11-22T00:00:00+00:00"}'
result = '{"job":%s,"output":{"text":"x"},"model":null,"device":null,"box":"gpu-1","attempt":1,"received_at":"2026-11-22T00:00:00+00:00","finished_at":"2026-11-22T00:00:01+00:00","inference_microseconds":1}'
file = sqlite3.connect(".gpuctl/gpuctl.db")
now = int(time.time() * 1e6)
with file:
    for n in range(300_000):
        name = f"01a200ab-52ac-72da-a503-{n:012d}"
        text = job % name
        if n % 3 < 2:
            file.execute("INSERT INTO messages (queue, dead, dead_at, sent_at, visible_at, job_id, attributes, body) VALUES ('jobs', ?, ?, ?, ?, ?, '[]', ?)",
                         (n % 3, now, now + n, now + n - 10**7, name, text))
        else:
            file.execute("INSERT INTO results VALUES (?, 0, ?, ?)", (name, n % 2, result % text))
        file.execute("INSERT INTO jobs (job_id, submitted_at, generation, touched_at, job, waited) VALUES (?, ?, 0, ?, ?, ?)",
                     (name, now + n, now, text, n * 1000 if n % 3 == 2 else None))
    for n in range(100_000):
        file.execute("INSERT INTO runs (box, started_at, pool, stopped_at, start_rule, start_text) VALUES ('gpu-1', ?, 'gpu', ?, 'demand', '1 job waits')",
                     (now - n * 10**7, now - n * 10**7 + 10**6))
file.close()
lists = [["jobs"], *(["jobs", "--state", state] for state in ["queued", "failed", "dead", "running"])]
job = ["job", "01a200ab-52ac-72da-a503-000000000002"]
for command in [["status"], ["queue"], *lists, job, ["plan"], ["explain", "gpu"], ["cost", "report"]]:
    measure(command, 21, "300,000 jobs and 100,000 runs")
PYTHON
