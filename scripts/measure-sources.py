#!/usr/bin/env python3
"""Prints the figures about the Rust sources that crates/FIGURES.md shows, as a Markdown table.

  usage: scripts/measure-sources.py [FOLDER...]      default: this repository; each folder is one column

Counted are the programs: no tests/, benches/, examples/ and fuzz/, no tests.rs, nothing under `#[cfg(test)]`. Tests are counted
apart. The parser is tree-sitter-rust (PyPI), installed into a virtual environment in the cache.
"""

import os
import re
import statistics
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))
from gpuctl_cache import cache_folder  # noqa: E402

PACKAGES = ["tree-sitter==0.26.1", "tree-sitter-rust==0.24.2"]
NESTING = {"if_expression", "match_expression", "for_expression", "while_expression", "loop_expression", "closure_expression"}
PUBLIC_ITEMS = {"function_item", "struct_item", "enum_item", "trait_item", "const_item", "static_item", "type_item"}


def main():
    folders = [Path(name) for name in sys.argv[1:]] or [ROOT]
    columns = [measured(folder) for folder in folders]
    print("| figure | " + " | ".join(folder.resolve().name for folder in folders) + " |")
    print("|---" * (len(folders) + 1) + "|")
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


def measured(folder):
    total = Figures()
    for path in sorted(folder.rglob("*.rs")):
        parts = path.relative_to(folder).parts
        if "target" in parts:
            continue
        apart = {"tests", "benches", "examples", "fuzz"} & set(parts) or path.name in ("tests.rs", "build.rs")
        total.file(path.read_bytes(), bool(apart))
    return total.rows()


class Figures:
    """What is added up over files."""

    def __init__(self):
        self.files, self.lines, self.code, self.comments, self.headed = [], 0, 0, 0, 0
        self.functions, self.tests, self.docs = [], [], []
        self.items, self.items_documented, self.examples = 0, 0, 0
        self.fallible, self.fallible_documented = 0, 0

    def file(self, source, is_test):
        tree = parser().parse(source)
        skipped = [] if is_test else test_spans(tree.root_node)
        if not is_test:
            text = without(source, skipped).decode()
            lines = text.splitlines()
            self.files.append(len(lines))
            self.lines += len(lines)
            self.headed += text.lstrip().startswith("//!")
            self.comments += sum(line.lstrip().startswith("//") for line in lines)
            self.code += sum(bool(line.strip()) and not line.lstrip().startswith("//") for line in lines)
        self.visit(tree.root_node, is_test, skipped)

    def visit(self, node, is_test, skipped):
        in_test = is_test or any(begin <= node.start_byte < end for begin, end in skipped)
        if node.type == "function_item":
            figures = function_figures(node)
            if "test" in attributes(node):
                self.tests.append(figures)
            elif not in_test:
                self.functions.append(figures)
        if not in_test:
            self.documentation(node)
        for child in node.named_children:
            self.visit(child, is_test, skipped)

    def documentation(self, node):
        doc = doc_comment(node)
        if doc:
            self.docs.append(len(re.findall(r"[\w'`-]+", doc)))
            self.examples += doc.count("```") // 2
        if node.type in PUBLIC_ITEMS and is_public(node):
            self.items += 1
            self.items_documented += bool(doc)
            returned = node.child_by_field_name("return_type")
            if node.type == "function_item" and returned is not None and b"Result<" in returned.text:
                self.fallible += 1
                self.fallible_documented += "# Errors" in (doc or "")

    def rows(self):
        lines, depths, params = ([f[key] for f in self.functions] for key in ("lines", "depth", "params"))
        one_word = sum("_" not in f["name"] for f in self.functions)
        return {
            "files / lines / functions": f"{len(self.files)} / {self.lines / 1000:.1f}k / {len(lines):,}",
            "function lines: median / p90 / p99 / max": " / ".join(map(str, spread(lines))),
            "functions > 40 / > 70 lines": f"{share(sum(n > 40 for n in lines), lines)} / {share(sum(n > 70 for n in lines), lines)}",
            "nesting: mean / p99 / max": f"{statistics.mean(depths):.2f} / {spread(depths)[2]} / {max(depths)}",
            "parameters: mean / p99 / max; > 4": f"{statistics.mean(params):.2f} / {spread(params)[2]} / {max(params)}; {sum(n > 4 for n in params)}",
            "parameters that are tuple patterns": str(sum(f["tuples"] for f in self.functions)),
            "bool parameters": str(sum(f["bools"] for f in self.functions)),
            "files with `//!`": share(self.headed, self.files),
            "public items documented": f"{100 * self.items_documented / max(self.items, 1):.0f} %",
            "`pub fn` returning a Result with `# Errors`": f"{self.fallible_documented} of {self.fallible}",
            "doc comments of at most two words": f"{share(sum(n <= 2 for n in self.docs), self.docs)} ({sum(n <= 2 for n in self.docs)} of {len(self.docs):,})",
            "median words of a doc comment": str(int(statistics.median(self.docs))),
            "code blocks in doc comments": str(self.examples),
            "comment lines per 100 code lines": f"{100 * self.comments / self.code:.0f}",
            "file lines: median / p90 / max": " / ".join(str(spread(self.files)[i]) for i in (0, 1, 3)),
            "function names of one word": share(one_word, self.functions),
            "tests: count / median lines / max; name length": self.tests_row(),
        }

    def tests_row(self):
        lines = [f["lines"] for f in self.tests]
        names = statistics.median(len(f["name"]) for f in self.tests) if self.tests else 0
        return f"{len(lines)} / {spread(lines)[0]} / {max(lines, default=0)}; {names:.0f} characters"


def function_figures(node):
    parameters = [p for p in node.child_by_field_name("parameters").named_children if p.type == "parameter"]
    patterns = [p.child_by_field_name("pattern") for p in parameters]
    types = [p.child_by_field_name("type") for p in parameters]
    return {
        "name": node.child_by_field_name("name").text.decode(),
        "lines": node.end_point[0] - node.start_point[0] + 1,
        "depth": depth(node.child_by_field_name("body")),
        "params": len(parameters),
        "tuples": sum(p.type == "tuple_pattern" for p in patterns),
        "bools": sum(t is not None and t.text == b"bool" for t in types),
    }


def depth(node):
    below = max((depth(child) for child in node.named_children), default=0)
    return below + (node.type in NESTING)


def attributes(node):
    """The names of the attributes right above an item, e.g. `test` and `tokio::test`'s last part."""
    found, before = [], node.prev_named_sibling
    while before is not None and before.type in ("attribute_item", "line_comment"):
        if before.type == "attribute_item":
            found.append(re.sub(rb"[\s#\[\]]|\(.*", b"", before.text).decode().rsplit("::", 1)[-1])
        before = before.prev_named_sibling
    return found


def test_spans(root):
    spans = []
    for node in root.named_children:
        if node.type == "attribute_item" and re.sub(rb"\s", b"", node.text) == b"#[cfg(test)]":
            item = node.next_named_sibling
            while item is not None and item.type == "attribute_item":
                item = item.next_named_sibling
            spans.append((node.start_byte, item.end_byte))
    return spans


def without(source, spans):
    for begin, end in reversed(spans):
        source = source[:begin] + source[end:]
    return source


def doc_comment(node):
    lines, before = [], node.prev_named_sibling
    while before is not None and before.type in ("attribute_item", "line_comment"):
        if before.type == "line_comment" and before.text.startswith(b"///"):
            lines.append(before.text[3:].decode().strip())
        before = before.prev_named_sibling
    documented = PUBLIC_ITEMS | {"field_declaration", "enum_variant", "function_signature_item"}
    return "\n".join(reversed(lines)) if node.type in documented else None


def is_public(node):
    return any(child.type == "visibility_modifier" and child.text == b"pub" for child in node.children)


def spread(values):
    if not values:
        return [0, 0, 0, 0]
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.9, 0.99)]
    return [*at, ordered[-1]]


def share(count, of):
    return f"{100 * count / max(len(of), 1):.1f} %"


_PARSER = []


def parser():
    if not _PARSER:
        import tree_sitter
        import tree_sitter_rust

        _PARSER.append(tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language())))
    return _PARSER[0]


def run_in_environment():
    """Starts this script again in the virtual environment that has the parser, made on the first call."""
    folder = cache_folder() / "measure-sources"
    python = folder / "bin" / "python"
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


if __name__ == "__main__":
    run_in_environment()
    main()
