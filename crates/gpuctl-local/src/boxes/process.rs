//! Starting and stopping the process of a box: its command, its log, and the signals that it gets.

use std::fs::{File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gpuctl_control::ports::{PortError, PortErrorClass, StartOrder};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Work;
use gpuctl_core::units::{BoxId, PoolId};
use rusqlite::params;
use rustix::process::{Pid, Signal, kill_process_group};

use super::lock::{is_alive, lock_path, open_lock, take_lock};
use super::{Launcher, box_error, row_of};
use crate::store::{Store, micros, now_micros};

/// Starts the box of the order; `None` where the same order has started it already.
pub(super) fn start(
    store: &Store,
    launcher: &Launcher,
    order: &StartOrder,
) -> Result<Option<Child>, PortError> {
    let id = &order.box_id;
    let row = row_of(store, id)?;
    let lock = open_lock(store, id)?;
    match take_lock(&lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) if row.is_some_and(|row| row.token == order.token) => {
            return Ok(None);
        }
        Err(TryLockError::WouldBlock) => {
            return Err(PortError::new(
                PortErrorClass::Conflict,
                format!("box `{id}` is running already"),
            ));
        }
        Err(TryLockError::Error(error)) => return Err(box_error("lock", id, error)),
    }
    store.write(|tx| {
        tx.prepare_cached("INSERT OR REPLACE INTO boxes VALUES (?1, ?2, ?3, ?4, NULL, ?4, NULL)")?
            .execute(params![id.as_str(), order.pool.as_str(), order.token, micros(order.at)])
            .map(drop)
    })?;
    let mut child = command(store, launcher, order, lock)?.spawn().map_err(|error| {
        let hint =
            format!("is `{}` there and executable?", program(launcher, &order.pool).display());
        box_error("start", id, error).hint(hint)
    })?;
    let noted = store.write(|tx| {
        tx.prepare_cached("UPDATE boxes SET pid = ?2 WHERE box = ?1")?
            .execute(params![id.as_str(), child.id()])
            .map(drop)
    });
    if noted.is_err() {
        // A box whose process is not known could not be stopped. If the child has ended by itself there is nothing to end.
        let _ = child.kill();
        let _ = child.wait();
    }
    noted.map(|()| Some(child))
}

fn program(launcher: &Launcher, pool: &PoolId) -> PathBuf {
    match launcher.policy.pool(pool).map(|pool| &pool.work) {
        Some(Work::Command(command)) => PathBuf::from(&command[0]),
        _ => launcher.worker.clone(),
    }
}

fn command(
    store: &Store,
    launcher: &Launcher,
    order: &StartOrder,
    lock: File,
) -> Result<Command, PortError> {
    let id = &order.box_id;
    let mut command = Command::new(program(launcher, &order.pool));
    match launcher.policy.pool(&order.pool).map(|pool| &pool.work) {
        Some(Work::Command(words)) => {
            command.args(&words[1..]);
        }
        _ => {
            command.args(["serve", "--pool", order.pool.as_str(), "--box", id.as_str()]);
            command.args(["--run", &micros(order.at).to_string()]);
            if let Some(config) = &launcher.config {
                command.arg("--config").arg(config);
            }
        }
    }
    let log =
        log_file(store.folder(), id).map_err(|error| box_error("open the log of", id, error))?;
    let log_too = log.try_clone().map_err(|error| box_error("open the log of", id, error))?;
    // A group of its own: Ctrl-C on the daemon's terminal must not end the boxes.
    command
        .current_dir(&launcher.folder)
        .stdin(Stdio::from(lock))
        .stdout(log)
        .stderr(log_too)
        .process_group(0);
    Ok(command)
}

/// A new log for this run of the box; that of the run before becomes `.log.old`.
fn log_file(folder: &Path, id: &BoxId) -> std::io::Result<File> {
    let path = folder.join("boxes").join(format!("{id}.log"));
    if path.exists() {
        std::fs::rename(&path, path.with_extension("log.old"))?;
    }
    File::create(path)
}

pub(super) fn stop(store: &Store, id: &BoxId, mode: StopMode) -> Result<(), PortError> {
    let Some(row) = row_of(store, id)?.filter(|_| is_alive(store, id)) else { return Ok(()) };
    let Some(pid) = row.pid.and_then(Pid::from_raw).or_else(|| holder(store, id)) else {
        return Err(PortError::new(
            PortErrorClass::Conflict,
            format!("box `{id}` is only just starting"),
        ));
    };
    let signal = if mode == StopMode::Force { Signal::KILL } else { Signal::TERM };
    // The signal first: a box that is noted as stopping but was not signalled would go on working.
    match kill_process_group(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(box_error("signal", id, error.into())),
    }
    store.write(|tx| {
        tx.prepare_cached(
            "UPDATE boxes SET stopping_at = coalesce(stopping_at, ?2) WHERE box = ?1",
        )?
        .execute(params![id.as_str(), now_micros()])
        .map(drop)
    })
}

/// The process that holds the box's lock as its standard input, where the one that started it ended before noting its pid.
fn holder(store: &Store, id: &BoxId) -> Option<Pid> {
    let lock = lock_path(store, id).canonicalize().ok()?;
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let holds = std::fs::read_link(process.path().join("fd/0")).is_ok_and(|file| file == lock);
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(pid).filter(|_| holds)
    })
}
