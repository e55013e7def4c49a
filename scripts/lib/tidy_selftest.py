"""Shows that each check accepts a right tree and reports a wrong one."""

import tidy_checks
from tidy_tree import Tree

ENTRY = "- **R1** A sentence.\n  Source: a/b#1.\n  Tests: golden; `core/src/a.rs`; fault `hands`.\n"
GOOD_TRAPS = {
    "crates/TRAPS.md": ENTRY,
    tidy_checks.GOLDEN: "R1 a hold starts a box\n",
    tidy_checks.FAULTS[0]: 'Hands "hands",\n',
    "crates/core/src/a.rs": "/// A hold (R1).\nfn r1_a_hold_wins() {}\n",
}
HOST = "packages.test"

# check -> a tree that it accepts, and the trees that it must report, each with a part of the report
CASES = {
    tidy_checks.trap_ids: (
        GOOD_TRAPS | {"crates/x/src/s3.rs": "// Objects in S3 (or P50) and `S1`; P4 is a family of instances.\n"},
        [
            ({"crates/core/src/b.rs": "fn q7_poison() {}\n"}, "Q7 is not defined"),
            ({"crates/core/src/b.rs": "fn r1_this_and_p6_that() {}\n"}, "P6 is not defined"),
            ({"crates/core/src/b.rs": "// P18: a notice\n"}, "P18 is not defined"),
            ({"crates/core/src/b.rs": "// as before (R1, T9)\n"}, "T9 is not defined"),
            ({"crates/core/tests/golden/main.rs": 'case("W5 a worker", "");\n'}, "W5 is not defined"),
            ({"crates/TRAPS.md": ENTRY + ENTRY.replace("R1", "R2")}, "mentions R2"),
        ],
    ),
    tidy_checks.trap_tests: (
        GOOD_TRAPS,
        [
            ({"crates/TRAPS.md": ENTRY.replace("  Source: a/b#1.\n", "")}, "no line `Source:`"),
            ({"crates/TRAPS.md": ENTRY.replace("a.rs", "z.rs")}, "there is no `core/src/z.rs`"),
            ({"crates/core/src/a.rs": "fn a_hold_wins() {}\n"}, "does not mention it"),
            ({tidy_checks.GOLDEN: ""}, "no golden plan"),
            ({tidy_checks.FAULTS[0]: ""}, "there is no fault `hands`"),
        ],
    ),
    tidy_checks.outside_references: (
        {"a.rs": "// artifacts/x, and the seed of the random numbers\n", "b.rs": '// GPUCTL_SHARED, else ../shared\n'},
        [
            ({"c.rs": "// see facts/aws.md 9.5\n"}, "points at"),
            ({"c.rs": "// the seed's rule\n"}, "points at"),
            ({"c.rs": "// ../shared/x.json\n"}, "folder beside"),
        ],
    ),
    tidy_checks.markdown_links: (
        {"README.md": "[a](crates/A.md#one-two) [b](#here)\n# Here\n`[no](link)`\n", "crates/A.md": "## One, *two*\n[up](../README.md)\n"},
        [
            ({"README.md": "[a](crates/B.md)\n"}, "leads nowhere"),
            ({"README.md": "[a](crates/A.md#three)\n"}, "no heading"),
        ],
    ),
    tidy_checks.code_paths: (
        {"a.md": "`scripts/a.sh` and `gpuctl-core/src/a.rs`, not `gpuctl init`\n", "scripts/a.sh": "", "crates/gpuctl-core/src/a.rs": ""},
        [({"a.md": "`gpuctl-core/src/b.rs`\n"}, "there is no gpuctl-core/src/b.rs")],
    ),
    tidy_checks.named_tests: (
        {
            "a.md": "| fault | test |\n|---|---|\n| `no_test` | `a_job_…`, `a_box`, `--without hands` |\n\n| what | seed |\n|---|---|\n| a | `b` |\n",
            "a.rs": "async fn a_job_ends() {}\nfn a_box() {}\n",
            tidy_checks.FIXES: 'Hands "hands" "…",\n',
        },
        [
            ({"a.rs": "fn a_job_ends() {}\n"}, "a_box names 0 tests"),
            ({"a.rs": "fn a_job_ends() {}\nfn a_job_begins() {}\nfn a_box() {}\n"}, "a_job_… names 2 tests"),
            ({tidy_checks.FIXES: ""}, "there is no fix hands"),
        ],
    ),
    tidy_checks.json_blocks: (
        {"a.md": "```json\n{}\n```\n"},
        [({"a.md": "```json\n{,}\n```\n"}, "not valid JSON")],
    ),
    tidy_checks.markdown_columns: (
        {"a.md": "x " * 80 + "\n" + "https://" + "x" * 200 + "\n"},
        [({"a.md": "x " * 81 + "\n"}, "columns")],
    ),
    tidy_checks.module_style: (
        {"crates/a/src/b.rs": "", "crates/a/tests/common/mod.rs": ""},
        [({"crates/a/src/b/mod.rs": ""}, "mod.rs under src/")],
    ),
    tidy_checks.rust_lines: (
        {"a.rs": "\n" * 700},
        [({"a.rs": "\n" * 701}, "701 lines")],
    ),
    tidy_checks.hosts: (
        {"Cargo.lock": f"https://{HOST}/\n", "a.rs": f"{HOST} http://127.0.0.1:1/ https://sqs.eu-west-1.amazonaws.com\n"},
        [({"a.py": f"https://{HOST}/simple\n"}, HOST), ({"b.md": f"https://name:secret@files.{HOST}\n"}, HOST)],
    ),
    tidy_checks.words: (
        {"a.md": "There is no queue, and it is no longer here; `is no code`.\n", "crates/a/src/a.rs": '// `is no` code\nlet a = "is not a valid time";\n'},
        [
            ({"crates/a/src/a.rs": 'let a = "`x` is no time";\n'}, "says `is no `"),
            ({"crates/a/src/a.rs": 'let a = r#"a "box" is taken \\\n back"#;\n'.replace("\\\n ", "")}, "taken back"),
            ({"crates/a/src/a.rs": 'let a = "its worker \\\n        broke off";\n'}, "broke off"),
            ({"crates/a/tests/a.rs": "/// Whoever asks.\n"}, "says `Whoever`"),
            ({"a.md": "ada started it past gpuctl\n"}, "past gpuctl"),
            ({"crates/gpuctl/tests/it/snapshots/help.snap": "--for <SPAN>\n"}, "<SPAN>"),
        ],
    ),
    tidy_checks.renamed: (
        {"CHANGELOG.md": "`fruitless_starts_max` is now `starts_without_result_max`\n"},
        [({"a.toml": "fruitless_starts_max = 3\n"}, "old name")],
    ),
}


def failures():
    """A sentence for each check that has no case here, rejects a right tree or accepts a wrong one."""
    found = [f"{check.__name__} has no case" for check in tidy_checks.ALL if check not in CASES]
    for check, (right, wrongs) in CASES.items():
        found += [f"{check.__name__} reports a right tree: {problem}" for problem in check(Tree(right))]
        for change, expected in wrongs:
            problems = [str(problem) for problem in check(Tree(right | change))]
            if not any(expected in problem for problem in problems):
                found.append(f"{check.__name__} does not report `{expected}` but {problems}")
    return found
