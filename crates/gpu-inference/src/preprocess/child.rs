//! A program that is run once, on a text: in a process group of its own, for a limited time, until the job is cancelled.
//!
//! In the worker's group it would get the signals that are meant for the worker. What the program says is read up to a limit.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, prlimit, waitid,
};

use crate::cancel::{Cancel, Cancelled};

/// How often a cancelled job is noticed while a program runs.
const CANCEL_CHECK: Duration = Duration::from_millis(50);
/// Most that is kept of what a program says.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Whether it exited with 0.
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Why a program said nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    #[error("its input or output broke")]
    Pipe(#[source] io::Error),
    #[error("it was killed by the signal {signal}")]
    Killed { signal: i32 },
    #[error("it took longer than {} s", limit.as_secs())]
    TimedOut { limit: Duration },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What a program may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resources {
    /// Of its address space.
    pub(crate) memory_bytes_max: u64,
    /// Of a file that it writes.
    pub(crate) file_bytes_max: u64,
}

/// Runs a program on `input` for at most `limit`.
pub(crate) fn run(
    command: &mut Command,
    input: &str,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Said, ChildError> {
    run_within(command, input, limit, None, cancel)
}

/// As [`run`], with no more than these resources.
pub(crate) fn run_within(
    command: &mut Command,
    input: &str,
    limit: Duration,
    resources: Option<Resources>,
    cancel: &Cancel,
) -> Result<Said, ChildError> {
    cancel.check()?;
    let began = Instant::now();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).spawn().map_err(ChildError::Start)?;
    let mut group = Group { child, ended: false };
    if let Some(resources) = resources {
        group.limit(resources);
    }
    let (stdin, said) = group.pipes(input);
    let (stdout, stderr) = loop {
        match said.recv_timeout(CANCEL_CHECK) {
            Ok(said) => break said.map_err(ChildError::Pipe)?,
            Err(RecvTimeoutError::Timeout) => group.check(began, limit, cancel)?,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the reader sends before it ends"),
        }
    };
    group.ended = true;
    let status = group.child.wait().map_err(ChildError::Pipe)?;
    if let Some(signal) = status.signal() {
        return Err(ChildError::Killed { signal });
    }
    let success = status.success();
    // A program that fails may do so before it has read everything.
    let written = stdin.recv().unwrap_or(Ok(()));
    if success {
        written.map_err(ChildError::Pipe)?;
    }
    Ok(Said { success, stdout, stderr })
}

type Outputs = io::Result<(Vec<u8>, Vec<u8>)>;

/// A running program with what it started: dropping it kills them all.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Writes the input, and reads both outputs until the program has ended; each on a thread of its own, since a full pipe must not wait
    /// for another.
    fn pipes(&mut self, input: &str) -> (Receiver<io::Result<()>>, Receiver<Outputs>) {
        const ASKED: &str = "it was asked for";
        let stdin = self.child.stdin.take().expect(ASKED);
        let stdout = self.child.stdout.take().expect(ASKED);
        let stderr = self.child.stderr.take().expect(ASKED);
        let (written, stdin_done) = channel();
        let input = input.to_owned();
        std::thread::spawn(move || written.send(write(stdin, &input)));
        let (outputs, said) = channel();
        let pid = Pid::from_child(&self.child);
        std::thread::spawn(move || {
            let said = read_both(stdout, stderr);
            // Until it is waited for elsewhere its id is its own, and so is its group's.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            outputs.send(said)
        });
        (stdin_done, said)
    }

    /// Sets its limits once it runs: between its start and its `exec` only safe calls could. What it has by then is little.
    fn limit(&self, resources: Resources) {
        let pid = Some(Pid::from_child(&self.child));
        let most = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // It fails only where the program has ended.
        let _ = prlimit(pid, Resource::As, most(resources.memory_bytes_max));
        let _ = prlimit(pid, Resource::Fsize, most(resources.file_bytes_max));
    }

    fn check(&self, began: Instant, limit: Duration, cancel: &Cancel) -> Result<(), ChildError> {
        cancel.check()?;
        if began.elapsed() < limit { Ok(()) } else { Err(ChildError::TimedOut { limit }) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            // It leads its group, whose id cannot be another's before the child is waited for.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn write(mut stdin: ChildStdin, input: &str) -> io::Result<()> {
    stdin.write_all(input.as_bytes())
}

fn read_both(stdout: ChildStdout, stderr: ChildStderr) -> Outputs {
    let errors = std::thread::spawn(move || read(stderr));
    let said = read(stdout)?;
    Ok((said, errors.join().unwrap_or_else(|_| Ok(Vec::new()))?))
}

/// All that comes, of which the beginning is kept: a pipe that is full would stop the program.
fn read(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    pipe.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut kept)?;
    io::copy(&mut pipe, &mut io::sink())?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str, limit: Duration, cancel: &Cancel) -> Result<Said, ChildError> {
        run(Command::new("sh").args(["-c", script]), "words\n", limit, cancel)
    }

    #[test]
    fn what_a_program_says_is_kept_whichever_way_it_exits_by_itself() {
        let said = sh("cat; echo oh >&2; exit 3", LONG, &Cancel::new()).unwrap();
        assert_eq!(
            (said.success, &*said.stdout, &*said.stderr),
            (false, &b"words\n"[..], &b"oh\n"[..])
        );
        let said = sh("cat >/dev/null; head -c 3000000 /dev/zero", LONG, &Cancel::new()).unwrap();
        assert_eq!((said.success, said.stdout.len() as u64), (true, OUTPUT_BYTES_MAX));
    }

    #[test]
    fn a_program_has_no_more_than_its_resources() {
        let resources = Resources { memory_bytes_max: 64 << 20, file_bytes_max: 1 << 10 };
        let script = "read word; ulimit -v; head -c 4096 /dev/zero > \"$0\"";
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(file.path());
        let said = run_within(&mut command, "word\n", LONG, Some(resources), &Cancel::new());
        let said = said.unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), (64 << 10).to_string());
        assert!(!said.success && file.path().metadata().unwrap().len() <= 1 << 10);
    }

    #[test]
    fn a_program_leads_a_process_group_of_its_own() {
        let said = sh("ps -o pgid= -p $$; echo $$", LONG, &Cancel::new()).unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let numbers: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(numbers[0], numbers[1], "the group is its own");
    }

    #[test]
    fn a_program_that_is_killed_is_told_apart_from_one_that_fails() {
        for (signal, number) in [("TERM", 15), ("KILL", 9)] {
            let error = sh(&format!("kill -{signal} $$"), LONG, &Cancel::new()).unwrap_err();
            assert!(matches!(error, ChildError::Killed { signal } if signal == number), "{error}");
        }
        let missing = run(&mut Command::new("/nowhere/program"), "", LONG, &Cancel::new());
        assert!(matches!(missing.unwrap_err(), ChildError::Start(_)));
    }

    #[test]
    fn time_and_cancel_end_a_program_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let script = |name| {
            let pids = folder.path().join(name);
            (format!("sleep 60 & echo $$ $! > {0}.tmp; mv {0}.tmp {0}; wait", pids.display()), pids)
        };
        let (to_time_out, timed_out) = script("timed-out");
        let began = Instant::now();
        let error = sh(&to_time_out, Duration::from_secs(1), &Cancel::new()).unwrap_err();
        assert!(matches!(error, ChildError::TimedOut { .. }), "{error}");
        let cancel = Cancel::new();
        let later = cancel.clone();
        let (to_cancel, cancelled) = script("cancelled");
        let started = cancelled.clone();
        let canceller = std::thread::spawn(move || {
            assert!(becomes_true(|| started.exists()));
            later.cancel();
        });
        let error = sh(&to_cancel, LONG, &cancel).unwrap_err();
        canceller.join().unwrap();
        assert!(matches!(error, ChildError::Cancelled(_)), "{error}");
        assert!(began.elapsed() < LONG, "neither was waited for");
        for pids in [timed_out, cancelled] {
            for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
                assert!(becomes_true(|| !runs(pid)), "{pid} still runs");
            }
        }
    }

    fn becomes_true(condition: impl Fn() -> bool) -> bool {
        let until = Instant::now() + LONG;
        while !condition() {
            if Instant::now() > until {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Whether a process runs: one that was not waited for yet does not.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    }
}
