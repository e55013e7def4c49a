//! Starting the process of a box: its command, its lock and its log. What ends it is in `signals`.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gpuctl_control::ports::{PortError, PortErrorClass, StartOrder};
use gpuctl_core::policy::Work;
use gpuctl_core::units::{BoxId, PoolId};
use rusqlite::params;

use super::lock::{open_lock, take_lock};
use super::signals::started_at;
use super::{Launcher, box_error, row_of};
use crate::store::{PRIVATE_MODE, Store};
use crate::time::micros;

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
    let began_at = store.now().file(order.at);
    let work = launcher.policy.pool(&order.pool).map(|pool| &pool.work);
    let is_command = matches!(work, Some(Work::Command(_)));
    store.write(|tx| {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO boxes (box, pool, token, started_at, began_at, alive_at, is_command) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)",
        )?
        .execute(params![
            id.as_str(),
            order.pool.as_str(),
            order.token,
            micros(order.at),
            began_at,
            is_command
        ])
        .map(drop)
    })?;
    let mut child = command(store, launcher, order, lock)?.spawn().map_err(|error| {
        let hint =
            format!("is `{}` there and executable?", program(launcher, &order.pool).display());
        box_error("start", id, error).hint(hint)
    })?;
    let noted = store.write(|tx| {
        tx.prepare_cached("UPDATE boxes SET pid = ?2, pid_started = ?3 WHERE box = ?1")?
            .execute(params![id.as_str(), child.id(), started_at(child.id())])
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
    // Appended to, so that it can be cut while the box writes.
    OpenOptions::new().append(true).create(true).mode(PRIVATE_MODE).open(path)
}
