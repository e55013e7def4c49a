//! Sets `GPUCTL_COMMIT` for `gpuctl --version`: the variable of this name, else the commit of the Git checkout. A debug build has no
//! commit: it would be rebuilt after every commit.
//!
//! Also lists the models whose manifests come with gpu-worker, each with its task, so that `submit` knows them where no worker is.

use std::path::Path;
use std::process::Command;

/// Characters of a commit's hash.
const HASH_CHARS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed=GPUCTL_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("GPUCTL_COMMIT").ok();
    let commit = match std::env::var("PROFILE").as_deref() {
        _ if given.is_some() => given,
        Ok("release") => of_checkout(),
        _ => Some("unknown: debug build".to_owned()),
    };
    println!("cargo::rustc-env=GPUCTL_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=GPUCTL_MANIFESTS={}", models().join(" "));
}

/// `NAME=TASK` of each folder with a manifest.
fn models() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("gpu-inference/models");
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let model = |entry: std::fs::DirEntry| {
        let manifest = std::fs::read_to_string(entry.path().join("model.toml")).ok()?;
        let task = manifest.lines().find_map(|line| line.strip_prefix("task = "));
        let task = task.expect("a manifest has a task").trim().trim_matches('"').to_owned();
        Some(format!("{}={task}", entry.file_name().into_string().ok()?))
    };
    let mut models: Vec<String> = entries.filter_map(model).collect();
    models.sort();
    assert!(!models.is_empty(), "no manifest in {}", folder.display());
    models
}

/// The checkout's commit, with `+` if tracked files differ from it. The build script runs again when HEAD moves.
fn of_checkout() -> Option<String> {
    let head = git(&["rev-parse", "HEAD"])?;
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
    for watched in ["HEAD", "packed-refs", &branch] {
        let file = git(&["rev-parse", "--path-format=absolute", "--git-path", watched])?;
        if std::path::Path::new(&file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(format!("{}{}", head.get(..HASH_CHARS)?, if is_changed { "+" } else { "" }))
}

/// The output of a Git command; `None` if it fails or prints nothing.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
