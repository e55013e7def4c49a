//! What ends a box: a polite signal to its worker, which ends its own children, or by force the end of every process of it.
//!
//! A process is only signalled where it is known to be the box's: it has the pid and the start time that were noted, or the box's lock.
//! So a pid that the kernel has given to another process since is left alone.

use std::os::fd::OwnedFd;
use std::path::Path;

use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::plan::StopMode;
use gpuctl_core::units::BoxId;
use rusqlite::params;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::lock::{is_alive, lock_path};
use super::{BoxRow, box_error, row_of};
use crate::store::Store;

/// Stops a box that is alive.
pub(super) fn stop(store: &Store, id: &BoxId, mode: StopMode) -> Result<(), PortError> {
    let Some(row) = row_of(store, id)?.filter(|_| is_alive(store, id)) else { return Ok(()) };
    // The signal first: a box that is noted as stopping but was not signalled would go on working.
    match mode {
        StopMode::Force => force(store, id, &row)?,
        _ => drain(store, id, &row)?,
    }
    let now = store.now();
    store.write(|tx| {
        tx.prepare_cached(
            "UPDATE boxes SET stopping_at = coalesce(stopping_at, ?2) WHERE box = ?1",
        )?
        .execute(params![id.as_str(), now.at])
        .map(drop)
    })
}

/// Tells the worker alone: its children would take a signal for their end, and their jobs for failed. A command gets it with its children,
/// as from a terminal.
fn drain(store: &Store, id: &BoxId, row: &BoxRow) -> Result<(), PortError> {
    let failed = |error: Errno| box_error("signal", id, error.into());
    if let Some(main) = main_process(store, id, row) {
        let told = if row.is_command {
            kill_process_group(main.pid, Signal::TERM)
        } else {
            main.signal(Signal::TERM)
        };
        return gone_is_told(told).map_err(failed);
    }
    // The one that started it ended before noting its pid, or only children are left.
    let holders = holders(store, id);
    if holders.is_empty() && row.pid.is_none() {
        let what = format!("box `{id}` is only just starting");
        return Err(PortError::new(PortErrorClass::Conflict, what));
    }
    let leaders = holders.iter().any(Process::leads_its_group);
    for holder in holders.iter().filter(|one| !leaders || one.leads_its_group()) {
        gone_is_told(holder.signal(Signal::TERM)).map_err(failed)?;
    }
    Ok(())
}

/// Kills the box's process group, and what left it but still holds the lock. If no process is left that could be killed, what holds the
/// lock is not of this machine's processes: the box is over, and its next start gets a new lock.
fn force(store: &Store, id: &BoxId, row: &BoxRow) -> Result<(), PortError> {
    let failed = |error: Errno| box_error("kill", id, error.into());
    let mut killed = 0;
    if let Some(main) = main_process(store, id, row) {
        gone_is_told(kill_process_group(main.pid, Signal::KILL)).map_err(failed)?;
        killed += 1;
    }
    let left = holders(store, id).into_iter().chain(group_without_leader(row));
    for process in left {
        match process.signal(Signal::KILL) {
            Ok(()) => killed += 1,
            Err(Errno::SRCH | Errno::PERM) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if killed == 0 && is_alive(store, id) {
        std::fs::remove_file(lock_path(store, id))
            .map_err(|error| box_error("release the lock of", id, error))?;
    }
    Ok(())
}

fn gone_is_told(told: Result<(), Errno>) -> Result<(), Errno> {
    if told == Err(Errno::SRCH) { Ok(()) } else { told }
}

/// A process that cannot become another one while this lives.
struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// The process of this pid, if it is wanted: asked after it is held, so that it is the one that is signalled.
    fn hold(pid: i32, is_wanted: impl Fn(&Stat) -> bool) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Stat::of(pid.as_raw_nonzero().get()).filter(is_wanted).map(|_| Self { pid, handle })
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(&self.handle, signal)
    }

    fn leads_its_group(&self) -> bool {
        let pid = self.pid.as_raw_nonzero().get();
        Stat::of(pid).is_some_and(|stat| stat.group == pid)
    }
}

/// The process that was started for the box, unless it has ended.
fn main_process(store: &Store, id: &BoxId, row: &BoxRow) -> Option<Process> {
    let pid = row.pid?;
    let lock = lock_path(store, id).canonicalize().ok()?;
    Process::hold(pid, |stat| {
        let is_ours = match row.pid_started {
            Some(started) => stat.started == started,
            None => has_open(pid, &lock),
        };
        is_ours && !stat.is_zombie
    })
}

/// The processes that hold the box's lock.
fn holders(store: &Store, id: &BoxId) -> Vec<Process> {
    let Ok(lock) = lock_path(store, id).canonicalize() else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let holds = |pid: i32| pid != own && has_open(pid, &lock);
    pids().filter(|pid| holds(*pid)).filter_map(|pid| Process::hold(pid, |_| holds(pid))).collect()
}

/// The processes of the box's group after its leader's end. Until they end the kernel gives its pid to no other: a process that has it
/// says that the group is not the box's.
fn group_without_leader(row: &BoxRow) -> Vec<Process> {
    let (Some(group), Some(started)) = (row.pid, row.pid_started) else { return Vec::new() };
    if Stat::of(group).is_some_and(|leader| leader.started != started) {
        return Vec::new();
    }
    let is_member = |stat: &Stat| stat.group == group && stat.started >= started;
    pids().filter_map(|pid| Process::hold(pid, is_member)).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn has_open(pid: i32, lock: &Path) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|file| file == lock))
}

/// When a process began, in the kernel's ticks since the boot: with its pid, which process it is.
pub(super) fn started_at(pid: u32) -> Option<i64> {
    Stat::of(i32::try_from(pid).ok()?).map(|stat| stat.started)
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    is_zombie: bool,
    group: i32,
    started: i64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name before it may contain anything, also spaces and brackets.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            is_zombie: *fields.first()? == "Z",
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}
