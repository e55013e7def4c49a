//! What a command prints: a log, and the lines on stdout that are JSON objects, which are its metrics. Secrets are blotted out before anything
//! is written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// The longest line; a longer one is cut into several.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// The most bytes of metrics.
const METRICS_BYTES_MAX: u64 = 16 << 20;
/// What stands in place of a secret.
const BLOT: &str = "***";
/// The most characters of the last line that an error repeats.
const LAST_CHARS_MAX: usize = 300;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// Log and metrics of a job, over all of its attempts.
pub(super) struct Journal {
    secrets: Vec<String>,
    state: Mutex<State>,
}

struct State {
    log: Kept,
    metrics: Kept,
    last_line: String,
    last_metrics: Option<Value>,
}

/// A file that grows up to a limit.
struct Kept {
    file: File,
    path: PathBuf,
    left: u64,
    is_cut: bool,
}

impl Kept {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let left = bytes_max.saturating_sub(file.metadata()?.len());
        Ok(Self { file, path: path.to_owned(), left, is_cut: false })
    }

    /// Writes the line, if there is room: else only that there is none. What the disk does not take is left out.
    fn line(&mut self, text: &str, cut: &str) -> bool {
        let bytes = text.len() as u64 + 1;
        if self.is_cut || bytes > self.left {
            if !std::mem::replace(&mut self.is_cut, true) {
                let _ = writeln!(self.file, "{cut}");
            }
            return false;
        }
        self.left -= bytes;
        writeln!(self.file, "{text}").is_ok()
    }
}

impl Journal {
    /// Goes on with what is in the files.
    pub(super) fn open(
        [log, metrics]: [&Path; 2],
        log_bytes_max: u64,
        secrets: Vec<String>,
    ) -> io::Result<Self> {
        let state = State {
            log: Kept::open(log, log_bytes_max)?,
            metrics: Kept::open(metrics, METRICS_BYTES_MAX)?,
            last_line: String::new(),
            last_metrics: None,
        };
        Ok(Self { secrets, state: Mutex::new(state) })
    }

    /// Reads lines until there are no more.
    pub(super) fn read(&self, pipe: impl Read, source: Source) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match pipe.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.note(source, &String::from_utf8_lossy(&line)),
            }
        }
    }

    /// A line of the worker's own.
    pub(super) fn say(&self, text: &str) {
        self.note(Source::Stderr, &format!("gpuctl: {text}"));
    }

    fn note(&self, source: Source, line: &str) {
        let line = self.blotted(line.trim_end_matches(['\n', '\r']));
        let metrics = (source == Source::Stdout && line.starts_with('{'))
            .then(|| serde_json::from_str::<Value>(&line).ok())
            .flatten();
        let mut state = self.state();
        state.log.line(&line, "gpuctl: the log is full (log_mib_max); what comes is left out");
        if let Some(value) = metrics.filter(Value::is_object) {
            // A line of its own, so that the file stays one of JSON lines.
            state.metrics.line(&line, "{\"gpuctl\":\"what comes is left out\"}");
            state.last_metrics = Some(value);
        }
        if !line.trim().is_empty() {
            state.last_line = line;
        }
    }

    fn blotted(&self, line: &str) -> String {
        self.secrets.iter().fold(line.to_owned(), |line, secret| {
            if line.contains(secret) { line.replace(secret, BLOT) } else { line }
        })
    }

    /// The last line that was printed, cut.
    pub(super) fn last_line(&self) -> String {
        self.state().last_line.chars().take(LAST_CHARS_MAX).collect()
    }

    pub(super) fn last_metrics(&self) -> Option<Value> {
        self.state().last_metrics.clone()
    }

    /// Where log and metrics are, and how long they are now.
    pub(super) fn files(&self) -> [(PathBuf, u64); 2] {
        let state = self.state();
        [&state.log, &state.metrics].map(|kept| {
            (kept.path.clone(), kept.file.metadata().map(|facts| facts.len()).unwrap_or_default())
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &Path, bytes_max: u64, secrets: &[&str]) -> Journal {
        let [log, metrics] = ["log", "metrics"].map(|name| folder.join(name));
        let secrets = secrets.iter().map(|one| (*one).to_owned()).collect();
        Journal::open([&log, &metrics], bytes_max, secrets).unwrap()
    }

    fn text(folder: &Path, name: &str) -> String {
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn json_on_stdout_is_a_metric_and_a_secret_is_in_neither_file() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path(), 10_000, &["hunter2"]);
        let said = "start\n{\"loss\": 0.5, \"key\": \"hunter2\"}\n[1]\n{broken\n";
        journal.read(said.as_bytes(), Source::Stdout);
        journal.read(&b"{\"loss\": 0.4}\n\xff hunter2hunter2"[..], Source::Stderr);
        assert_eq!(text(folder.path(), "metrics"), "{\"loss\": 0.5, \"key\": \"***\"}\n");
        assert!(!text(folder.path(), "log").contains("hunter2"));
        assert_eq!(journal.last_line(), "\u{fffd} ******");
        assert_eq!(journal.last_metrics().unwrap()["loss"], 0.5);
    }

    #[test]
    fn a_log_ends_at_its_limit_also_over_attempts() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            journal(folder.path(), 20, &[]).read(&b"0123456789\n"[..], Source::Stdout);
        }
        let log = text(folder.path(), "log");
        assert!(log.starts_with("0123456789\ngpuctl: the log is full"), "{log}");
        assert_eq!(log.lines().count(), 2);
    }
}
