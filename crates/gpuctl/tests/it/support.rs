//! A folder with a gpuctl.toml, and the programs run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything in these tests may take before it counts as failed, on a slow and busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a configuration; whatever was started in it is ended with it.
pub(crate) struct Sandbox {
    folder: TempDir,
    environment: Vec<(&'static str, PathBuf)>,
}

/// What a program answered.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.stdout, self.stderr))
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl Sandbox {
    pub(crate) fn new(config: &str) -> Self {
        let worker = Path::new(env!("CARGO_BIN_EXE_gpuctl")).with_file_name("gpu-worker");
        assert!(
            worker.is_file(),
            "{} is missing: run `cargo build -p gpu-worker`",
            worker.display()
        );
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("gpuctl.toml"), config).unwrap();
        Self { folder, environment: Vec::new() }
    }

    /// Sets a variable for every program run here.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration, as processes of this folder name it.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("gpuctl.toml").canonicalize().unwrap()
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpuctl"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["GPUCTL_CONFIG", "GPUCTL_STATE", "GPUCTL_LOG", "DEVICE"] {
            command.env_remove(name);
        }
        command.env("TZ", "UTC").env("USER", "ada").envs(self.environment.iter().cloned());
        command
    }

    /// Another program, in this folder and with these variables.
    pub(crate) fn program<A: AsRef<OsStr>>(&self, path: &Path, arguments: &[A]) -> Command {
        let mut command = Command::new(path);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    pub(crate) fn daemon(&self) -> Daemon {
        Daemon(self.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The state of the pool, from `gpuctl status`.
    pub(crate) fn state(&self, pool: &str) -> String {
        let status = self.run(&["status", pool, "--json"]).expect(0).json();
        status["pools"][0]["state"].as_str().unwrap().to_owned()
    }

    /// Waits for the state of a pool.
    #[track_caller]
    pub(crate) fn wait_for(&self, pool: &str, state: &str) {
        wait_until(&format!("{pool} is {state}"), || self.state(pool) == state);
    }

    /// Every job with its answer, by the input's file name.
    pub(crate) fn jobs(&self) -> Vec<Value> {
        let listed = self.run(&["jobs", "--limit", "10000", "--json"]).expect(0).json();
        listed["jobs"].as_array().unwrap().clone()
    }
}

/// A running `gpuctl run`, killed at the end: it must not outlive its test.
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Asked nicely first, so that a box of a failed test does not outlive it.
        let _ = self.command(&["stop-all", "--wait", "--timeout", "20s"]).output();
    }
}

pub(crate) fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for a condition, with a deadline.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// Waits for a condition, with a deadline of its own.
#[track_caller]
pub(crate) fn wait_within(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + span;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        pause(Duration::from_millis(50));
    }
}

/// Between two looks at a condition.
#[expect(
    clippy::disallowed_methods,
    reason = "the condition is looked at in between, under a deadline"
)]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Every `gpu-worker` that was started with this place's configuration, however it came about.
pub(crate) fn workers(sandbox: &Sandbox) -> Vec<Pid> {
    let config = sandbox.config();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of_this_place = processes.filter_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let words: Vec<&str> = line.split('\0').collect();
        let is_worker = words[0].ends_with("gpu-worker") && words.contains(&config.to_str()?);
        Pid::from_raw(pid).filter(|_| is_worker)
    });
    of_this_place.collect()
}

/// The folder that scripts/fetch-models.py fills.
pub(crate) fn cache() -> PathBuf {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .unwrap_or_else(|| folder("HOME").unwrap().join(".cache/gpuctl"));
    assert!(
        cache.join("models").is_dir(),
        "no models in {}: run scripts/fetch-models.py",
        cache.display()
    );
    cache
}

/// A recording or picture of the samples.
pub(crate) fn sample(name: &str) -> PathBuf {
    let path = cache().join("samples").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/fetch-models.py", path.display());
    path
}
