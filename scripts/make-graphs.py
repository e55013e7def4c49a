#!/usr/bin/env python3
"""Make the small graphs that stand in for models whose weights cannot be fetched; only the tests need them.

Why it exists: no binary is committed, and only the `onnx` package writes ONNX. It gets an environment of its own in
gpuctl's cache, with pinned versions. What was made by the same script before is left alone.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "crates" / "gpu-inference" / "tests" / "graphs"
PACKAGES = ["onnx==1.23.2", "numpy==2.2.6"]


def main():
    cache = cache_folder()
    for script in sorted(SCRIPTS.glob("*.py")):
        folder = cache / "graphs" / script.stem
        stamp, made_by = folder / ".made-by", hashlib.sha256(script.read_bytes()).hexdigest()
        if stamp.is_file() and stamp.read_text() == made_by:
            print(f"present {folder}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([python(cache), script, folder], check=True)
        stamp.write_text(made_by)
        print(f"made {folder}")


def python(cache):
    """The Python of the environment, which is made when it is not there or has other versions."""
    folder = cache / "graphs" / ".environment"
    wanted, noted = "\n".join(PACKAGES), folder / ".packages"
    program = folder / "bin" / "python"
    if not noted.is_file() or noted.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        install = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(install, check=True)
        noted.write_text(wanted)
    return program


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
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
