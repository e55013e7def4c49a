"""Where models, ONNX Runtime, emulators and tools are kept: one folder outside the checkout, shared by all clones."""

import os
from pathlib import Path


def cache_folder():
    """The same rule as `gpu_inference::cache_folder` and scripts/environment.sh."""
    if os.environ.get("GPUCTL_CACHE"):
        return Path(os.environ["GPUCTL_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "gpuctl"
    return Path.home() / ".cache" / "gpuctl"


def target_folder():
    """Where cargo builds, as scripts/environment.sh says."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or cache_folder() / "target")
