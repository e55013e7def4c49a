"""The checks of scripts/tidy.py. Each takes a tree and yields problems; none knows of another."""

import json
import posixpath
import re
from urllib.parse import unquote

from tidy_tree import Problem, rust_comments, rust_strings
from tidy_words import FORBIDDEN, RENAMED, compiled

RUST_LINES_MAX = 700
MARKDOWN_COLUMNS_MAX = 160
TRAPS = "crates/TRAPS.md"
GOLDEN = "crates/gpuctl-core/tests/golden/plans.txt"
FAULTS = ("crates/gpuctl-sim/src/faults.rs", "crates/gpuctl-sim/src/faults/mod.rs")
# Help, messages and outputs of the programs, as tests hold them.
SNAPSHOTS = re.compile(r"/tests/(.*/)?snapshots/[^/]+$")
# The checks' own files name what they forbid.
OWN = ("scripts/tidy.py", "scripts/lib/tidy_")

TRAP_ID = r"[LPQRSTW]\d{1,2}"
TRAP_DEFINED = re.compile(rf"^- \*\*({TRAP_ID})\*\* ", re.MULTILINE)
# `fn p5_…`, `fn p4_p18_…`, `fn p5_terminating_…_and_p6_cancelling_…`.
TRAP_TEST = re.compile(r"\bfn ((?:\w+_and_)?(?:[lpqrstw]\d{1,2}_)+\w*)")
TRAP_IN_NAME = re.compile(r"(?:^|_)([lpqrstw]\d{1,2})(?=_)")
# `// P18: …`, `// T9, T12.`, and inside parentheses: `(R3, R4)`, `(L3: then …)`.
TRAP_FIRST = re.compile(rf"^({TRAP_ID}(?:, {TRAP_ID})*)(?=[:.,]|$)")
PARENTHESES = re.compile(r"\(([^()]*)\)")
TRAP_IN_LIST = re.compile(rf"(?:^|, )({TRAP_ID})(?=$|[,:])")
# A golden plan's name: `"R1 a hold …"` in its source, `R1 a hold …` in the file of plans.
TRAP_TITLE = re.compile(rf"^({TRAP_ID}) \w")


def trap_ids(tree):
    """Each id used is defined, and each id defined is used."""
    defined = trap_entries(tree)
    used = {}
    for path, number, name in trap_uses(tree):
        used.setdefault(name, (path, number))
    for name in sorted(set(used) - set(defined)):
        yield Problem(*used[name], f"the trap {name} is not defined", f"define it in {TRAPS}, or leave the id out")
    for name in sorted(set(defined) - set(used)):
        yield Problem(TRAPS, defined[name][0], f"no code and no test mentions {name}", "cite the id where it is handled, or drop the entry")


def trap_entries(tree):
    """The defined ids, each with its line and its text."""
    text = tree.files.get(TRAPS, "")
    starts = list(TRAP_DEFINED.finditer(text))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return {start[1]: (text.count("\n", 0, start.start()) + 1, text[start.start() : end]) for start, end in zip(starts, ends)}


def trap_uses(tree):
    """Where ids are cited, as triples of path, line and id."""
    for path, text in tree.texts(".rs"):
        for number, line in enumerate(text.splitlines(), 1):
            for function in TRAP_TEST.finditer(line):
                for name in TRAP_IN_NAME.findall(function[1]):
                    yield path, number, name.upper()
        for number, comment in rust_comments(text):
            yield from ((path, number, name) for name in ids_of(comment))
        for number, string in rust_strings(text):
            title = TRAP_TITLE.match(string) if "/tests/golden/" in path else None
            names = [title[1]] if title else listed_ids(string)
            yield from ((path, number, name) for name in names)
    for path, number, line in tree.lines(GOLDEN):
        title = TRAP_TITLE.match(line)
        if title:
            yield path, number, title[1]


def ids_of(text):
    first = TRAP_FIRST.match(text)
    return [*(first[1].split(", ") if first else []), *listed_ids(text)]


def listed_ids(text):
    """The ids in parentheses."""
    return [name for inside in PARENTHESES.findall(text) for name in TRAP_IN_LIST.findall(inside)]


def trap_tests(tree):
    """Each trap has a source and tests, and these exist."""
    mentioned = {(path, name) for path, _, name in trap_uses(tree)}
    golden = {line.split(" ")[0] for _, _, line in tree.lines(GOLDEN)}
    faults = "".join(tree.files.get(path, "") for path in FAULTS)
    for name, (number, entry) in trap_entries(tree).items():
        source, tests = (re.search(rf"^  {key}: (.*?)(?=^  \w+: |\Z)", entry, re.DOTALL | re.MULTILINE) for key in ("Source", "Tests"))
        for key, found in (("Source", source), ("Tests", tests)):
            if not found:
                yield Problem(TRAPS, number, f"{name} has no line `{key}:`", "say where the trap is known from, and which tests hold it")
        cited = tests[1] if tests else ""
        for problem in [*missing_files(tree, name, cited, mentioned), *missing_plans(name, cited, golden, faults)]:
            yield Problem(TRAPS, number, f"{name}: {problem}", "name the test as it is now")


def missing_files(tree, name, tests, mentioned):
    for path in re.findall(r"`([\w./-]+/[\w.-]+)`", tests):
        found = [known for known in (path, f"crates/{path}") if known in tree.files]
        if not found:
            yield f"there is no `{path}`"
        elif (found[0], name) not in mentioned:
            yield f"`{path}` does not mention it"


def missing_plans(name, tests, golden, faults):
    for other in re.findall(r"\bgolden(?: (\w+))?", tests):
        if (other or name) not in golden:
            yield f"no golden plan begins with {other or name}"
    for fault in re.findall(r"\bfault `([\w-]+)`", tests):
        if f'"{fault}"' not in faults:
            yield f"there is no fault `{fault}`"


OUTSIDE = [
    (re.compile(r"\bfacts/\w"), "a file that is not in the repository"),
    (re.compile(r"\btraps\.md\b"), "a file that is not in the repository"),
    (re.compile(r"\bthe seeds?(?:'s?)? (?:count|rule|claim|pool)|\bseed rule\b|\brule \d of the house\b"), "notes that are not in the repository"),
]
SHARED = re.compile(r"\.\./shared\b")
SHARED_VARIABLE = "GPUCTL_SHARED"


def outside_references(tree):
    """Nothing points at what a reader of the repository does not have."""
    for path, number, line in tree.lines(".rs", ".md", ".toml", ".py", ".sh", ".txt"):
        if path.startswith(OWN):
            continue
        for pattern, what in OUTSIDE:
            if pattern.search(line):
                yield Problem(path, number, f"points at {what}: {line.strip()[:80]}", "cite a guide and section, an RFC or project#number, or say the reason")
        if SHARED.search(line) and SHARED_VARIABLE not in tree.files[path]:
            yield Problem(path, number, "points at a folder beside the repository", f"take the folder from {SHARED_VARIABLE}, or use a fixture")


LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
CODE_SPAN = re.compile(r"`[^`]*`")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")


def markdown_links(tree):
    """Relative links and anchors of Markdown pages resolve."""
    for path, text in tree.texts(".md"):
        for number, line in prose(text):
            for target in LINK.findall(CODE_SPAN.sub("", line)):
                if not re.match(r"[a-z][a-z0-9+.-]*:", target):
                    yield from broken_link(tree, path, number, target)


def broken_link(tree, path, number, target):
    name, _, anchor = unquote(target).partition("#")
    page = posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) if name else path
    if not tree.has(page):
        yield Problem(path, number, f"the link {target} leads nowhere", f"there is no {page}")
    elif anchor and page.endswith(".md") and anchor not in anchors(tree.files[page]):
        yield Problem(path, number, f"the link {target} leads to no heading", f"{page} has {', '.join(sorted(anchors(tree.files[page])))}"[:300])


def prose(text):
    """The numbered lines outside code blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    found = {}
    for _, line in prose(text):
        heading = HEADING.match(line)
        if heading:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            count = found.get(slug, 0)
            found[slug] = count + 1
            if count:
                found[f"{slug}-{count}"] = 1
    return set(found)


CODE_PATH = re.compile(r"`((?:gpu[\w-]*|lambda|scripts|crates|\.github|\.cargo)/[\w./-]+)`")


def code_paths(tree):
    """A path that a page names in code style exists, from the top or from crates/."""
    for path, text in tree.texts(".md"):
        if path == "CHANGELOG.md":
            continue
        for number, line in prose(text):
            for name in CODE_PATH.findall(line):
                if not tree.has(name) and not tree.has(f"crates/{name}"):
                    yield Problem(path, number, f"there is no {name}", "name the file as it is now")


TABLE_OF_TESTS = re.compile(r"^\|.*\|\s*tests?\s*\|$")
NAMED_TEST = re.compile(r"`([a-z][a-z0-9_]+)(…?)`")
NAMED_FIX = re.compile(r"`--without ([\w-]+)`")
FIXES = "crates/gpuctl-core/src/without.rs"


def named_tests(tree):
    """What a table names in its column of tests exists; `…` ends a name that only one test begins with."""
    tests = sorted({name for _, text in tree.texts(".rs") for name in re.findall(r"\bfn (\w+)", text)})
    for path, text in tree.texts(".md"):
        is_inside = False
        for number, line in prose(text):
            is_inside = line.startswith("|") and (is_inside or bool(TABLE_OF_TESTS.match(line)))
            cell = line.rstrip("| ").rsplit("|", 1)[-1] if is_inside else ""
            for name, cut in NAMED_TEST.findall(cell):
                found = [test for test in tests if test.startswith(name)] if cut else [test for test in tests if test == name]
                if len(found) != 1:
                    yield Problem(path, number, f"{name}{cut} names {len(found)} tests", "name one that there is, by as much of its name as it takes")
            for name in NAMED_FIX.findall(cell):
                if f'"{name}"' not in tree.files.get(FIXES, ""):
                    yield Problem(path, number, f"there is no fix {name}", f"{FIXES} lists them")


def json_blocks(tree):
    """Blocks of JSON in pages can be pasted."""
    for path, text in tree.texts(".md"):
        for block in re.finditer(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            try:
                json.loads(block[1])
            except ValueError as error:
                yield Problem(path, text.count("\n", 0, block.start()) + 1, f"is not valid JSON: {error}", "pages show JSON that can be pasted")


def markdown_columns(tree):
    """Lines of Markdown fit a screen; one that is a single long word, such as an address, may be longer."""
    for path, number, line in tree.lines(".md"):
        if len(line) > MARKDOWN_COLUMNS_MAX and " " in line.strip():
            yield Problem(path, number, f"has {len(line)} columns", f"at most {MARKDOWN_COLUMNS_MAX}; make a list of a table whose cells are long")


def module_style(tree):
    """Modules are files of their own name."""
    for path in tree.files:
        if re.search(r"(^|/)src/(.*/)?mod\.rs$", path):
            yield Problem(path, 1, "is a mod.rs under src/", f"name it {posixpath.dirname(path)}.rs")


def rust_lines(tree):
    """Rust files can be read in one go."""
    for path, text in tree.texts(".rs"):
        count = len(text.splitlines())
        if count > RUST_LINES_MAX:
            yield Problem(path, count, f"has {count} lines", f"at most {RUST_LINES_MAX}: split it by what it does")


# The hosts that a file may name: this machine, the documentation's, the namespace of SVG, AWS's own, and names that lead nowhere.
HOSTS_ALLOWED = re.compile(
    r"(127\.0\.0\.1|169\.254\.169\.254|rustup\.rs|www\.apache\.org|www\.w3\.org"
    r"|([\w-]+\.)*(amazonaws|amazon)\.com|([\w-]+\.)*(invalid|example))$"
)
URL_HOST = re.compile(r"https?://(?:[^\s/@`\"']*@)?((?:[\w-]+\.)+\w+)")


def hosts(tree):
    """No address of a package index or hub stands in the tree; Cargo.lock is written by cargo."""
    for path, text in sorted(tree.files.items()):
        if posixpath.basename(path) == "Cargo.lock":
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for host in URL_HOST.findall(line):
                if not HOSTS_ALLOWED.match(host):
                    yield Problem(path, number, f"names the host {host}", "take addresses from the configuration of pip or the hub's client, or allow it here")


def words(tree):
    """Messages, pages and comments keep to the word list."""
    forbidden = compiled(FORBIDDEN)
    for path, number, text in messages(tree):
        for pattern, instead in forbidden:
            found = pattern.search(text)
            if found:
                yield Problem(path, number, f"says `{found[0]}`: {shown(text, found)}", f"say: {instead} (scripts/lib/tidy_words.py)")


def messages(tree):
    """What users and readers read, as triples of path, line and text."""
    for path, text in sorted(tree.files.items()):
        if SNAPSHOTS.search(path):
            yield from ((path, number, line) for number, line in enumerate(text.splitlines(), 1))
    for path, text in tree.texts(".md"):
        yield from ((path, number, CODE_SPAN.sub("", line)) for number, line in prose(text))
    for path, text in tree.texts(".rs"):
        yield from ((path, number, CODE_SPAN.sub("", comment)) for number, comment in rust_comments(text))
        if "/src/" in path and not path.endswith("/tests.rs"):
            yield from ((path, number, string) for number, string in rust_strings(without_tests(text)))


def without_tests(text):
    """The file without the module of tests at its end."""
    return text.split("\n#[cfg(test)]\nmod ", 1)[0]


def shown(text, found):
    return text[max(0, found.start() - 30) : found.end() + 30].replace("\n", " ").strip()


def renamed(tree):
    """What has a new name is not called by the old one, except where the change is told."""
    table = compiled(RENAMED)
    for path, number, line in tree.lines(".rs", ".md", ".toml", ".py", ".sh", ".txt"):
        if path == "CHANGELOG.md" or path.startswith(OWN):
            continue
        for pattern, instead in table:
            if pattern.search(line):
                yield Problem(path, number, f"uses an old name: {line.strip()[:80]}", f"it is {instead} now")


ALL = [
    trap_ids,
    trap_tests,
    outside_references,
    markdown_links,
    code_paths,
    named_tests,
    json_blocks,
    markdown_columns,
    module_style,
    rust_lines,
    hosts,
    words,
    renamed,
]
