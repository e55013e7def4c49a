#!/usr/bin/env python3
"""Make what the tests need beside the real models: small graphs, and reference values.

Why it exists: the weights of some models cannot be fetched without an account, so their code is tested on small graphs
with the same inputs and outputs; and pre-processing is compared with what Python makes of a photograph. Both are
made here, into gpuctl's cache, with the packages of crates/gpu-inference/tests/graphs/requirements.txt. These go into a
folder of their own in the cache: nothing is installed. What the same scripts made before is left alone.

Needs Python 3.11 or newer with pip or venv, and the models and samples of scripts/fetch-models.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder
from python_packages import GRAPHS, REQUIREMENTS, digest, graph_packages

SCRIPTS = ["vision.py", "voice.py"]
REFERENCES = "references.py"


def main():
    if sys.version_info < (3, 11):
        sys.exit("error: Python 3.11 or newer is needed for the packages that make the small graphs")
    cache = cache_folder()
    out = cache / "graphs"
    stamp = out / ".made-by"
    wanted = digest(REQUIREMENTS, *sorted(GRAPHS.glob("*.py")))
    if stamp.is_file() and stamp.read_text() == wanted:
        print(f"present {out}")
        return
    environment = dict(os.environ, PYTHONPATH=str(graph_packages()), PYTHONDONTWRITEBYTECODE="1")
    shutil.rmtree(out, ignore_errors=True)
    for name in SCRIPTS:
        run(environment, GRAPHS / name, out)
    run(environment, GRAPHS / REFERENCES, cache, out / "references")
    stamp.write_text(wanted)
    print(f"made {out}")


def run(environment, script, *arguments):
    subprocess.run([sys.executable, script, *arguments], check=True, env=environment)


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: {error}")
