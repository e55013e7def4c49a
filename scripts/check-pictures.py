#!/usr/bin/env python3
"""Compare how gpu-inference decodes Pillow's own test pictures with how Pillow does.

Why it exists: these are the odd files that people have reported over twenty years. None may crash a decoder, and none may be read as something
else than what Pillow reads. The archive is fetched by pip from the index that pip is configured to use, and its pictures are kept in
gpuctl's cache; nothing of it is installed. Pillow itself comes with the packages that make the small graphs.

usage: check-pictures.py [--write] [--details]
Prints what differs and a table by format; with --write the table is put into TASKS.md, with the date. Ends with 1 if a decoder crashed.
Needs Python 3.11 or newer with pip, and cargo.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder
from python_packages import ROOT, pip, use_graph_packages

PACKAGE = "pillow==12.0.0"
ARCHIVE = "pillow-12.0.0.tar.gz"
ARCHIVE_SHA256 = "87d4f8125c9988bfbed67af47dd7a953e2fc7b0cc1e7800ec6d2080d490bb353"
FOLDER = "pillow-12.0.0/Tests/images/"
# What the decoders read, by what a file's name ends with.
FORMATS = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".avif": "AVIF",
    ".pdf": "PDF",
}
TASKS = ROOT / "crates" / "gpu-tasks" / "TASKS.md"
# Two small copies of 16 x 16 pixels that differ by more than this on average show different pictures.
DIFFERENCE_MAX = 12
SIDE = 16
# Files a call: a crash names the call's files.
FILES_MAX = 100


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into TASKS.md")
    parser.add_argument("--details", action="store_true", help="print every file with what was found")
    arguments = parser.parse_args()
    folder = fetched(cache_folder() / "pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS)
    found = decoded(files)
    use_graph_packages("PIL")
    table, problems = defaultdict(Counter), []
    for path in files:
        verdict, detail = judged(found[str(path)], reference(path))
        table[FORMATS[path.suffix.lower()]][verdict] += 1
        if arguments.details:
            print(f"{path.relative_to(folder)}: {verdict}: {detail}")
        if verdict in ("crash", "differs", "refused though Pillow reads it"):
            problems.append(f"{path.relative_to(folder)}: {verdict}: {detail}")
    shown = shown_table(table)
    print(shown)
    if arguments.write:
        write(shown)
    for problem in problems:
        print(problem)
    return 1 if any(": crash: " in problem for problem in problems) else 0


def fetched(folder):
    """The folder with the pictures, fetched on the first call."""
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(prefix="gpuctl-pictures-") as scratch:
        command = [*pip(Path(scratch) / "pip"), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--no-binary", "pillow", "--dest", scratch, PACKAGE], check=True)
        archive = Path(scratch) / ARCHIVE
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != ARCHIVE_SHA256:
            sys.exit(f"error: the SHA-256 of {ARCHIVE} is {digest}, not {ARCHIVE_SHA256}")
        parts = folder.with_name(f".{folder.name}-{os.getpid()}")
        with tarfile.open(archive) as members:
            for member in members:
                if member.isfile() and member.name.startswith(FOLDER):
                    target = parts / member.name.removeprefix(FOLDER)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with members.extractfile(member) as source, target.open("wb") as out:
                        shutil.copyfileobj(source, out)
    os.replace(parts, folder)
    return folder


def decoded(files):
    """What the decoders make of each file."""
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--package", "gpu-inference", "--example", "decode_pictures"], check=True, cwd=ROOT)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "debug" / "examples" / "decode_pictures"
    found = {}
    for start in range(0, len(files), FILES_MAX):
        names = [str(path) for path in files[start : start + FILES_MAX]]
        done = subprocess.run([program, *names], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if done.returncode != 0:
            sys.exit(f"error: the decoder ended with {done.returncode} on one of {', '.join(names)}")
        for line in done.stdout.splitlines():
            entry = json.loads(line)
            found[entry["file"]] = entry["found"]
    return found


def reference(path):
    """Pillow's size and small copy of the first page, upright and on white; None if it cannot read the file."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
                return picture.size, None
            if picture.has_transparency_data:
                return picture.size, None
            small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return picture.size, small.tobytes()
    except Exception:  # noqa: BLE001 - Pillow has many words for a damaged file
        return None


def judged(found, expected):
    if "code" in found:
        if found["code"] == "input.crash":
            return "crash", found["message"]
        if expected is None:
            return "refused, as by Pillow", found["code"]
        return "refused though Pillow reads it", f"{found['code']}: {found['message'].split(' ', 1)[1]}"
    if expected is None:
        return "read though Pillow refuses it", f"{found['size']}"
    size, small = expected
    if list(size) != found["size"]:
        return "differs", f"{found['size']} instead of {list(size)}"
    if small is None:
        return "read", "its size is compared"
    difference = sum(abs(a - b) for a, b in zip(small, found["small"], strict=True)) / len(small)
    if difference > DIFFERENCE_MAX:
        return "differs", f"by {difference:.0f} of 255"
    return "read", f"{difference:.1f} of 255"


def shown_table(table):
    columns = ["read", "read though Pillow refuses it", "refused, as by Pillow", "refused though Pillow reads it", "differs", "crash"]
    rows = ["| format | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows += [f"| {name} | " + " | ".join(str(table[name][column]) for column in columns) + " |" for name in sorted(table)]
    return "\n".join(rows)


def write(shown):
    """In place of the table behind the sentence that says what it is."""
    said = f"Compared with Pillow's own test files by `scripts/check-pictures.py` (version {PACKAGE.split('==')[1]}; image-rs' crates ship none)"
    text = TASKS.read_text(encoding="utf-8")
    before, rest = text.split("Compared with Pillow's own test files", 1)
    behind = re.sub(r"^.*?\n\n(\|.*\n)+", "", rest)
    TASKS.write_text(f"{before}{said}, {datetime.date.today()}:\n\n{shown}\n{behind}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
