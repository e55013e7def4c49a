//! `TASKS.md` describes exactly the tasks, params and codes that exist.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::BTreeSet;
use std::path::Path;

use gpu_tasks::{Need, ParamSpec, Task, WarningCode};

const PAGE: &str = include_str!("../TASKS.md");

fn row(spec: &ParamSpec) -> String {
    let default = match spec.need {
        Need::Optional { default } => default,
        Need::Required => "required",
    };
    format!("| `{}` | {} | {default} | {} |", spec.name, spec.kind, spec.meaning)
}

#[test]
fn every_task_has_its_section_with_its_params_and_there_are_no_others() {
    let mut sections: Vec<(&str, Vec<&str>)> = PAGE
        .split("\n## ")
        .skip(1)
        .map(|section| {
            let (name, body) = section.split_once('\n').unwrap();
            (name, body.lines().filter(|line| line.starts_with("| `")).collect())
        })
        .collect();
    for task in Task::ALL {
        let index = sections.iter().position(|(name, _)| *name == task.name());
        let (_, rows) = sections.remove(index.unwrap_or_else(|| panic!("{task} has no section")));
        let expected: Vec<String> = task.params().iter().map(row).collect();
        assert_eq!(rows, expected, "{task}");
        let link = format!("[{task}](#{})", task.name().replace('.', ""));
        assert!(PAGE.contains(&link), "{link} is missing");
    }
    assert!(sections.is_empty(), "these are not tasks: {sections:?}");
}

/// What can be the code of a result, of a problem or of a box's fault is written here.
const SOURCES: [&str; 7] = [
    "gpu-tasks",
    "gpu-inference",
    "gpu-worker",
    "gpuctl-worker",
    "gpuctl-control",
    "gpuctl-local",
    "gpuctl-aws",
];
/// Names of other things that look like codes.
const NO_CODES: [&str; 8] = [
    "voice.activity",
    "voice.speaker",
    "gpuctl.",
    "pip.conf",
    "log.old",
    "amazonaws.com",
    "run.lock",
    "open.lock",
];
#[test]
fn the_table_of_warnings_has_every_code_and_no_others() {
    let table = PAGE.split("| warning | |\n|---|---|\n").nth(1).unwrap();
    let rows: Vec<&str> = table.split("\n\n").next().unwrap().lines().collect();
    let row = |code: WarningCode| format!("| `{}` | {} |", code.as_str(), code.meaning());
    let expected: Vec<String> = WarningCode::ALL.into_iter().map(row).collect();
    assert_eq!(rows, expected);
}

/// A job that was cancelled has no result, and one for no queue is refused before it is a job.
const NEVER_SHOWN: [&str; 4] =
    ["input.cancelled", "pool.ambiguous", "pool.no_queue", "pool.unknown"];
/// What a job waits for: the README of the HTTP API lists them.
const WAITED_FOR: [&str; 7] = [
    "budget.exhausted",
    "capacity.none",
    "pool.held",
    "pool.quiet",
    "quota.exhausted",
    "service.fault",
    "starts.delayed",
];

#[test]
fn the_table_has_every_code_that_a_job_or_a_box_can_show_and_no_others() {
    let table = PAGE.split("| code | blamed on | |").nth(1).unwrap().split("\n\n").next().unwrap();
    let rows = table.lines().filter_map(|row| row.split('|').nth(1));
    let listed: Vec<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let mut found = BTreeSet::new();
    for name in SOURCES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        read_codes(&folder, &mut found);
    }
    NEVER_SHOWN
        .iter()
        .chain(&WAITED_FOR)
        .for_each(|code| assert!(found.remove(*code), "{code} is gone"));
    let missing: Vec<&String> =
        found.iter().filter(|code| !listed.contains(&code.as_str())).collect();
    assert!(missing.is_empty(), "the table lacks {missing:?}");
    let gone: Vec<&&str> = listed.iter().filter(|code| !found.contains(**code)).collect();
    assert!(gone.is_empty(), "no source has {gone:?}");
    let mut once = listed.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), listed.len(), "a code is listed twice");
}

/// The codes in the sources of a folder: texts of two words with a dot between, outside tests.
fn read_codes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("contract") {
            read_codes(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let texts = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
            found.extend(texts.filter(|text| is_code(text)).map(str::to_owned));
        }
    }
}

fn is_code(text: &str) -> bool {
    let Some((subject, what)) = text.split_once('.') else { return false };
    let is_word = |word: &str| {
        word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let is_file = || {
        ["csv", "ics", "onnx", "toml", "json", "wav", "png", "bmp", "txt", "zip"].contains(&what)
    };
    is_word(subject)
        && is_word(what)
        && !is_file()
        && !NO_CODES.iter().any(|other| text.starts_with(other))
        && Task::ALL.iter().all(|task| task.name() != text)
        && WarningCode::ALL.iter().all(|code| code.as_str() != text)
}
