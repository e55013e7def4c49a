"""pip, and the packages that make what the tests compare with. The index is the one that pip is configured to use."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from gpuctl_cache import cache_folder

ROOT = Path(__file__).resolve().parent.parent.parent
GRAPHS = ROOT / "crates" / "gpu-inference" / "tests" / "graphs"
REQUIREMENTS = GRAPHS / "requirements.txt"
INSTALL_PIP = "install it with `python3 -m ensurepip --user`, or the packages python3-pip and python3-venv of your system"


def pip(scratch):
    """The command of this Python's pip, or of one in a virtual environment made in `scratch` for this once."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"error: Python at {sys.executable} has no pip\nhint: {INSTALL_PIP}")
    try:
        venv.create(scratch, with_pip=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: Python at {sys.executable} has no pip, and cannot install one: {error}\nhint: {INSTALL_PIP}")
    return [str(Path(scratch) / "bin" / "python"), "-m", "pip"]


def use_graph_packages(module):
    """Makes `module` importable, from the pinned packages if this Python does not have it."""
    if importlib.util.find_spec(module) is None:
        sys.path.insert(0, str(graph_packages()))


def graph_packages():
    """The folder with the packages that make the graphs."""
    return packages_of(REQUIREMENTS, "graphs")


def packages_of(requirements, name):
    """The folder with the packages of `requirements` for this Python; installed on the first call."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_folder() / version / f"{name}-{digest(requirements)[:16]}"
    if folder.is_dir():
        return folder
    parts = folder.with_name(f".{folder.name}-{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="gpuctl-pip-") as scratch:
        command = [*pip(scratch), "install", "--quiet", "--disable-pip-version-check", "--root-user-action", "ignore"]
        subprocess.run([*command, "--target", parts, "--requirement", requirements], check=True)
    os.replace(parts, folder)
    return folder


def digest(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
