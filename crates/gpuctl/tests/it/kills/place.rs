//! Where the jobs run: on this machine, or on an emulated AWS.

#[cfg(feature = "aws")]
pub(super) mod aws;
pub(super) mod local;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Sandbox, cache};

/// No controller starts or stops a box here; a lease outlasts a busy moment of the machine.
const POOL: &str = "\
queue = \"jobs\"
max_wait = \"12h\"
idle_stop = \"12h\"
visibility = \"3s\"
receives_max = 12
";

/// As the pools say.
#[cfg(feature = "aws")]
const RECEIVES_MAX: u32 = 12;

pub(super) trait Place: Sync {
    fn sandbox(&self) -> &Sandbox;

    /// The command of a box's worker, and the box's name.
    fn worker(&self, number: usize) -> (Command, String);

    /// Sends a message as it is.
    fn send(&self, body: &str);

    /// Whether the queue moves a message to its dead letters in one step.
    fn moves_at_once(&self) -> bool;

    /// Every file that attempts have stored, as `JOB/ATTEMPT/NAME`.
    fn files(&self) -> Vec<String>;

    /// The content of a file that a result names.
    fn read(&self, uri: &str) -> Vec<u8>;
}

/// The command of a worker in this sandbox, which names its configuration: by that its processes are found.
fn worker(sandbox: &Sandbox, more: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_gpuctl")).with_file_name("gpu-worker");
    let config = sandbox.config();
    let words = ["--config", config.to_str().unwrap(), "serve", "--pool", "gpu"];
    sandbox.program(&program, &[&words, more].concat())
}

/// A folder of the models and the small graphs.
fn models(sandbox: &Sandbox) -> PathBuf {
    let folder = sandbox.path("models");
    std::fs::create_dir(&folder).unwrap();
    for kind in ["graphs", "models"] {
        for model in std::fs::read_dir(cache().join(kind)).unwrap().flatten() {
            if model.path().join("model.toml").is_file() {
                symlink(model.path(), folder.join(model.file_name())).unwrap();
            }
        }
    }
    folder
}
