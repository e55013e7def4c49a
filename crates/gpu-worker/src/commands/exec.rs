//! `gpu-worker exec`: the launcher of a job's command. It stays beside the program as a subreaper, so that whatever the program has started is its
//! descendant, also in groups and sessions of their own, and ends with the program and with the worker, however those end.
//!
//! Its standard input is a pipe from the worker: a byte has the program told to end, and its end has all killed.

use std::error::Error;
use std::io::{Read, stdin};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, pidfd_open,
    pidfd_send_signal, set_child_subreaper, set_parent_process_death_signal, wait,
};

use crate::arguments::ExecArguments;

/// As shells have it for a program that cannot be started.
pub(crate) const NOT_STARTED: u8 = 127;
/// Added to a signal's number, as shells do.
const SIGNALLED: i32 = 128;
/// How long processes may take to be gone once they are killed. After that the launcher kills itself, by which the worker knows of them.
const GONE_TIME_MAX: Duration = Duration::from_secs(30);

pub(crate) fn exec(wanted: &ExecArguments) -> Result<ExitCode, Box<dyn Error>> {
    match wanted.parent {
        None => launch(wanted),
        Some(parent) => Err(become_program(wanted, parent)),
    }
}

/// Runs the program, and returns once nothing that it has started is left.
fn launch(wanted: &ExecArguments) -> Result<ExitCode, Box<dyn Error>> {
    set_child_subreaper(Some(getpid()))?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Handled rather than ignored, which the program would inherit: what it is told comes by the pipe.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let own = getpid().as_raw_pid().to_string();
    // On this thread, which lives as long as the launcher: the kernel tells a child of the end of the thread that started it.
    let program = Command::new(std::env::current_exe()?)
        .args(["exec", "--parent", &own, "--"])
        .args(&wanted.words)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pid = Pid::from_child(&program);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let orders = Arc::new(Orders::default());
    let given = Arc::clone(&orders);
    thread::spawn(move || given.obey(&handle));
    let ended = end_of(pid)?;
    if ended.terminating_signal() == Some(Signal::TERM.as_raw()) && orders.told() {
        pass_on(&orders);
    }
    thread::spawn(give_up_later);
    end_all()?;
    let signalled = || ended.terminating_signal().map(|signal| SIGNALLED + signal);
    let code = ended.exit_status().or_else(signalled).and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What the worker has said.
#[derive(Default)]
struct Orders {
    is_told: AtomicBool,
    is_over: AtomicBool,
}

impl Orders {
    fn told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }

    fn over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Tells the program alone to end: what it has started, such as a training's ranks and the processes that load its data, it ends by itself
    /// once it has saved. Kills all when the pipe ends.
    fn obey(&self, program: &OwnedFd) {
        for _ in stdin().lock().bytes().map_while(Result::ok) {
            self.is_told.store(true, Ordering::Release);
            let _ = pidfd_send_signal(program, Signal::TERM);
        }
        self.is_over.store(true, Ordering::Release);
        signal_children(Signal::KILL);
        give_up_later();
    }
}

/// The program's end, and that of others that have lost the process that started them.
fn end_of(program: Pid) -> Result<WaitStatus, Errno> {
    loop {
        if let Some((pid, status)) = wait_for_any()?
            && pid == program
        {
            return Ok(status);
        }
    }
}

/// A program that died of being told to end does not handle it, as a shell that waits for a training: what it has started is told in its place.
fn pass_on(orders: &Orders) {
    signal_children(Signal::TERM);
    while !orders.over() && wait_for_any().is_ok() {}
}

/// Kills what is left until nothing is. A child that ends leaves its own children to this process.
fn end_all() -> Result<(), Errno> {
    loop {
        signal_children(Signal::KILL);
        match wait_for_any() {
            Ok(_) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn wait_for_any() -> Result<Option<(Pid, WaitStatus)>, Errno> {
    retry_on_intr(|| wait(WaitOptions::empty()))
}

/// Ends this process by a signal where the kernel keeps what was killed.
fn give_up_later() {
    thread::park_timeout(GONE_TIME_MAX);
    let _ = kill_process(getpid(), Signal::KILL);
}

/// Signals each child of this process. It is looked at again once it is held: its id may be of another process by then.
fn signal_children(signal: Signal) {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter_map(Pid::from_raw).filter(|pid| is_child(*pid)) {
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            && is_child(pid)
        {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

fn is_child(pid: Pid) -> bool {
    let text = std::fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // The program's name before it may contain anything, also spaces, brackets and half a character.
    let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
    parent.and_then(|parent| parent.parse().ok()) == Some(getpid().as_raw_pid())
}

/// Becomes the program, which does not outlive its launcher; returns only if that fails.
fn become_program(wanted: &ExecArguments, parent: i32) -> Box<dyn Error> {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have ended before the kernel was told.
    if getppid().is_none_or(|pid| pid.as_raw_pid() != parent) {
        return "the launcher of this command has ended".into();
    }
    let Some((program, words)) = wanted.words.split_first() else {
        return "there is no program to start".into();
    };
    Command::new(program).args(words).exec().into()
}
