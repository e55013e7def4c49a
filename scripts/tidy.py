#!/usr/bin/env python3
"""Check what neither the compiler nor the tests see: references, links, words, module style, lengths.

usage: tidy.py [--self-test]
Prints `FILE:LINE: what is wrong` and a hint for each problem, and exits with 1 if there is one. First it runs each check on
a small tree that is right and on some that are wrong, and so shows that no check has stopped working; `--self-test` does
only that.
Needs Python 3.9 or newer and git, and nothing else.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

import tidy_checks
import tidy_selftest
from tidy_tree import Tree

ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--self-test", action="store_true", help="show that each check can fail, and check nothing")
    self_test_only = parser.parse_args().self_test
    failures = tidy_selftest.failures()
    for failure in failures:
        print(f"error: self-test: {failure}", file=sys.stderr)
    if failures or self_test_only:
        return 1 if failures else 0
    tree = Tree.of_folder(ROOT)
    problems = [problem for check in tidy_checks.ALL for problem in check(tree)]
    for problem in sorted(problems):
        print(problem, file=sys.stderr)
    if problems:
        print(f"error: {len(problems)} problems in {len({problem.path for problem in problems})} files", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
