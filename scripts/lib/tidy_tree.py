"""The files that the tidy checks look at, and the problems that they report."""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

# Comments, and the texts of Rust's string literals; characters are matched so that '"' opens no string.
RUST_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\bb?r(?P<fence>\#*)"(?P<raw>.*?)"(?P=fence)|"(?P<plain>(?:[^"\\]|\\.)*)"|'(?:[^'\\\n]|\\[^u]|\\u\{\w+\})'""",
    re.DOTALL,
)
# A backslash at the end of a line: the literal goes on with the first word of the next line.
CONTINUATION = re.compile(r"\\\n\s*")
NOT_OURS = {".git", "target", ".gpuctl", "__pycache__"}


class Problem(NamedTuple):
    path: str
    line: int
    text: str
    hint: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text}\n    hint: {self.hint}"


class Tree:
    """Paths, relative to the repository, and the text of each file that is text."""

    def __init__(self, files):
        self.files = files

    @classmethod
    def of_folder(cls, root):
        files = {}
        for path in paths(root):
            try:
                files[path] = (root / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                files[path] = ""
            except FileNotFoundError:
                continue  # deleted and not committed yet
        return cls(files)

    def texts(self, *suffixes):
        """The files with one of these suffixes, as pairs of path and text."""
        return [(path, text) for path, text in sorted(self.files.items()) if path.endswith(suffixes)]

    def lines(self, *suffixes):
        """Their lines, as triples of path, number and text."""
        for path, text in self.texts(*suffixes):
            for number, line in enumerate(text.splitlines(), 1):
                yield path, number, line

    def has(self, path):
        """Whether there is such a file or folder."""
        return path in self.files or any(known.startswith(path.rstrip("/") + "/") for known in self.files)


def paths(root):
    """What git tracks or would track; where there is no git, every file outside build folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
        return sorted(set(filter(None, listed.split("\0"))))
    except (OSError, subprocess.CalledProcessError):
        return sorted(walk(root))


def walk(root):
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def rust_strings(text):
    """The string literals of a Rust file, as pairs of line number and text."""
    for token in RUST_TOKEN.finditer(text):
        content = token["raw"] if token["raw"] is not None else token["plain"]
        if content is not None:
            yield text.count("\n", 0, token.start()) + 1, CONTINUATION.sub("", content)


def rust_comments(text):
    """The comments of a Rust file, as pairs of line number and text without its slashes."""
    for token in RUST_TOKEN.finditer(text):
        if token[0].startswith(("//", "/*")):
            first = text.count("\n", 0, token.start()) + 1
            for number, line in enumerate(token[0].splitlines(), first):
                yield number, line.lstrip("/!* ")
