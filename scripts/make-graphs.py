#!/usr/bin/env python3
"""Make what the tests need beside the real models: small graphs, and reference values.

Why it exists: the weights of some models cannot be fetched without an account, so their code is tested on small graphs
with the same inputs and outputs; and pre-processing is compared with what Python makes of a photograph. Both are
made here, into gpuctl's cache, with the packages of crates/gpu-inference/tests/graphs/requirements.txt. They go into a
folder of their own in the cache: nothing is installed. What is there and made by the same scripts is left alone.

Needs Python 3.11 or newer with pip or venv, and the models and samples of scripts/fetch-models.py.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "crates" / "gpu-inference" / "tests" / "graphs"
REQUIREMENTS = SOURCES / "requirements.txt"
SCRIPTS = ["vision.py", "voice.py"]
REFERENCES = "references.py"


def main():
    if sys.version_info < (3, 11):
        sys.exit("error: Python 3.11 or newer is needed for the packages that make the small graphs")
    cache = cache_folder()
    out = cache / "graphs"
    stamp = out / ".made-by"
    wanted = digest(REQUIREMENTS, *sorted(SOURCES.glob("*.py")))
    if stamp.is_file() and stamp.read_text() == wanted:
        print(f"present {out}")
        return
    environment = dict(os.environ, PYTHONPATH=str(packages(cache)), PYTHONDONTWRITEBYTECODE="1")
    shutil.rmtree(out, ignore_errors=True)
    for name in SCRIPTS:
        run(environment, SOURCES / name, out)
    run(environment, SOURCES / REFERENCES, cache, out / "references")
    stamp.write_text(wanted)
    print(f"made {out}")


def packages(cache):
    """The folder with the pinned packages, for this Python."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / version / f"graphs-{digest(REQUIREMENTS)[:16]}"
    if folder.is_dir():
        return folder
    parts = folder.with_name(f".{folder.name}-{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="gpuctl-pip-") as scratch:
        command = [*pip(Path(scratch)), "install", "--quiet", "--disable-pip-version-check", "--root-user-action", "ignore"]
        subprocess.run([*command, "--target", parts, "--requirement", REQUIREMENTS], check=True)
    os.replace(parts, folder)
    return folder


def pip(scratch):
    """This Python's pip, or one in an environment for this once."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    venv.create(scratch, with_pip=True)
    return [scratch / "bin" / "python", "-m", "pip"]


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
