//! `backup`, `restore` and `jobs export`, from a state that was used.

use std::path::Path;

use serde_json::Value;

use crate::support::{Sandbox, wait_until};
use crate::used::{self, Texts};

const TEXTS: Texts<'_> = Texts { reason: "for lunch", result: "a page", error: "cut off" };

/// A used state; the first job's result names a file in the state folder.
fn used() -> (Sandbox, String) {
    let sandbox = used::sandbox(&TEXTS);
    let job = used::commit_with_kept_file(&sandbox);
    (sandbox, job)
}

/// Another folder with the same configuration.
fn beside(used: &Sandbox) -> Sandbox {
    let config = std::fs::read_to_string(used.path("gpuctl.toml")).unwrap();
    Sandbox::new(&config)
}

/// What a user sees of the state, with the folder's name left out.
fn seen(sandbox: &Sandbox) -> String {
    let jobs = sandbox.jobs();
    let explain = sandbox.run(&["explain", "app", "--json"]).expect(0).json();
    let folder = sandbox.config().parent().unwrap().display().to_string();
    let run = &explain["last_run"];
    format!("{jobs:?} {run}").replace(&folder, "FOLDER")
}

fn file_of(sandbox: &Sandbox, job: &str) -> String {
    let shown = sandbox.run(&["job", job, "--json"]).expect(0).json();
    let uri = shown["output"]["files"][0]["uri"].as_str().unwrap().to_owned();
    std::fs::read_to_string(uri.strip_prefix("file://").unwrap()).unwrap()
}

#[test]
fn a_backup_restores_jobs_results_files_and_runs_in_another_folder() {
    let (sandbox, job) = used();
    let file = sandbox.path("state.zip");
    let path = file.to_str().unwrap();
    let before = seen(&sandbox);
    let made = sandbox.run(&["backup", path, "--json"]).expect(0).json();
    assert_eq!((made["jobs"].as_u64(), made["files"].as_u64()), (Some(5), Some(1)), "{made}");
    let twice = sandbox.run(&["backup", path]).expect(1).stderr;
    assert!(twice.contains("state.zip is there already"), "{twice}");

    let other = beside(&sandbox);
    other.run(&["restore", path]).expect(0);
    // The old folder is not needed for it.
    std::fs::remove_dir_all(sandbox.path(".gpuctl")).unwrap();
    assert_eq!(file_of(&other, &job), "page");
    let inputs = sandbox.config().parent().unwrap().display().to_string();
    assert_eq!(seen(&other).replace(&inputs, "FOLDER"), before);
}

#[test]
fn a_restore_changes_nothing_that_is_used_or_there_unless_it_may() {
    let (sandbox, _) = used();
    let file = sandbox.path("state.zip");
    let path = file.to_str().unwrap();
    sandbox.run(&["backup", path]).expect(0);
    let there = sandbox.run(&["restore", path]).expect(1).stderr;
    assert!(there.contains("has a queue file or results already"), "{there}");

    let daemon = sandbox.daemon();
    wait_until("the daemon is up", || sandbox.path(".gpuctl/run.lock").exists());
    wait_until("it keeps a restore away", || {
        let said = sandbox.run(&["restore", path, "--replace"]).stderr;
        said.contains("is in use: `gpuctl run` runs")
    });
    drop(daemon);
    sandbox.run(&["start-app", "--wait", "--for", "1h"]).expect(0);
    let busy = sandbox.run(&["restore", path, "--replace"]).expect(1).stderr;
    assert!(busy.contains("is in use: box app-1 runs"), "{busy}");
    sandbox.run(&["stop-app", "--wait"]).expect(0);
    let open = used::store(&sandbox);
    let busy = sandbox.run(&["restore", path, "--replace"]).expect(1).stderr;
    assert!(busy.contains("another program has its queue file open"), "{busy}");
    drop(open);

    sandbox.write("late.png", "x");
    sandbox.run(&["submit", "vision.ocr", "late.png"]).expect(0);
    let done = sandbox.run(&["restore", path, "--replace", "--json"]).expect(0).json();
    assert_eq!(sandbox.jobs().len(), 5);
    let aside = done["replaced"].as_str().unwrap();
    assert!(Path::new(aside).join("gpuctl.db").is_file(), "{done}");
}

#[test]
fn what_is_no_backup_is_refused_and_leaves_the_folder_empty() {
    let (sandbox, _) = used();
    sandbox.run(&["backup", "state.zip"]).expect(0);
    let whole = std::fs::read(sandbox.path("state.zip")).unwrap();
    let other = beside(&sandbox);
    let middle = whole.len() / 2;
    let mut damaged = whole.clone();
    damaged[middle] ^= 0xff;
    for (name, bytes) in [("cut", &whole[..middle]), ("damaged", &damaged), ("text", b"no zip")] {
        other.write(name, bytes);
        let said = other.run(&["restore", name]).expect(1).stderr;
        assert!(said.contains("is not a backup of gpuctl, or is damaged"), "{name}: {said}");
        assert!(!other.path(".gpuctl/gpuctl.db").exists(), "{name}");
    }
}

#[test]
fn an_export_has_a_line_for_each_job_and_the_files_of_results() {
    let (sandbox, job) = used();
    // Another result names a file that is not there: the export says so, and has the rest.
    let done = sandbox.run(&["jobs", "export", "out", "--json"]).expect(1).json();
    assert_eq!((done["jobs"].as_u64(), done["files"].as_u64()), (Some(5), Some(1)), "{done}");
    assert!(done["missing"][0].as_str().unwrap().contains("page.txt"), "{done}");
    let lines = std::fs::read_to_string(sandbox.path("out/jobs.jsonl")).unwrap();
    let jobs: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(jobs.len(), 5);
    let kept = sandbox.path("out/files").join(&job).join("0-gpu-1-1/page.txt");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "page");
    sandbox.run(&["jobs", "export", "out"]).expect(1);
}
