#!/usr/bin/env python3
"""Make what the tests of schedules compare with: the answers of other programs, as JSON in gpuctl's cache.

Why it exists: data and grammars that are tested only against themselves age in silence. The programs are those of
crates/gpuctl-core/tests/references/requirements.txt, each of a pinned version and SHA-256. They go into a folder of their
own in the cache: nothing is installed. What the same scripts made before is left alone.

Needs Python 3.11 or newer with pip or venv.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder
from python_packages import ROOT, digest, packages_of

REFERENCES = ROOT / "crates" / "gpuctl-core" / "tests" / "references"
REQUIREMENTS = REFERENCES / "requirements.txt"


def main():
    out = cache_folder() / "schedules"
    stamp = out / ".made-by"
    scripts = sorted(REFERENCES.glob("*.py"))
    wanted = digest(REQUIREMENTS, *scripts)
    if stamp.is_file() and stamp.read_text() == wanted:
        print(f"present {out}")
        return
    out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, PYTHONPATH=str(packages_of(REQUIREMENTS, "schedules")), PYTHONDONTWRITEBYTECODE="1")
    for script in scripts:
        subprocess.run([sys.executable, script, out / f"{script.stem}.json"], check=True, env=environment)
    stamp.write_text(wanted)
    print(f"made {out}")


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: {error}")
