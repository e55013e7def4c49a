#!/usr/bin/env python3
"""Make what the tests need beside the real models: small graphs, and reference values.

Why it exists: the weights of some models cannot be fetched without an account, so their code is tested on small graphs
with the same inputs and outputs; and pre-processing is compared with what Python makes of a photograph. Both are
made here, into gpuctl's cache, with the packages of crates/gpu-inference/tests/graphs/requirements.txt. They go into a
folder of their own in the cache: nothing is installed. What is there and made by the same scripts is left alone.

Needs Python 3.11 or newer with pip, and the models and samples of scripts/fetch-models.py.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "crates" / "gpu-inference" / "tests" / "graphs"
REQUIREMENTS = SOURCES / "requirements.txt"
SCRIPTS = ["graphs.py", "references.py"]


def main():
    if sys.version_info < (3, 11):
        sys.exit("error: Python 3.11 or newer is needed for the packages that make the small graphs")
    cache = cache_folder()
    out = cache / "graphs"
    stamp = out / ".made-by"
    wanted = digest(REQUIREMENTS, *(SOURCES / name for name in SCRIPTS))
    if stamp.is_file() and stamp.read_text() == wanted:
        print(f"present {out}")
        return
    environment = dict(os.environ, PYTHONPATH=str(packages(cache)))
    shutil.rmtree(out, ignore_errors=True)
    run(environment, SOURCES / "graphs.py", out)
    run(environment, SOURCES / "references.py", cache, out / "references")
    stamp.write_text(wanted)
    print(f"made {out}")


def packages(cache):
    """The folder with the pinned packages, for this Python."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / version / f"graphs-{digest(REQUIREMENTS)[:16]}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("pip") is None:
        sys.exit("error: pip is needed to make the small graphs; install python3-pip")
    parts = folder.with_name(f".{folder.name}-{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", parts, "--requirement", REQUIREMENTS], check=True)
    os.replace(parts, folder)
    return folder


def run(environment, script, *arguments):
    subprocess.run([sys.executable, script, *arguments], check=True, env=environment)


def digest(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def cache_folder():
    """The same rule as `gpu_inference::cache_folder`."""
    if os.environ.get("GPUCTL_CACHE"):
        return Path(os.environ["GPUCTL_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "gpuctl"
    return Path.home() / ".cache" / "gpuctl"


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: {error}")
