//! The lock file of a box: its process holds it, as standard input, for as long as it lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use gpuctl_control::ports::PortError;
use gpuctl_core::units::BoxId;

use super::box_error;
use crate::store::{PRIVATE_MODE, Store};

/// How often, and how long apart, a start tries for the lock: `is_alive` in another process holds it for microseconds.
const LOCK_TRIES_MAX: u32 = 20;
const LOCK_TRY_EVERY: Duration = Duration::from_millis(5);

pub(super) fn lock_path(store: &Store, id: &BoxId) -> PathBuf {
    store.folder().join("boxes").join(format!("{id}.lock"))
}

pub(super) fn open_lock(store: &Store, id: &BoxId) -> Result<File, PortError> {
    let path = lock_path(store, id);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_MODE)
        .open(path)
        .map_err(|error| box_error("open the lock of", id, error))
}

/// Whether the box's process, or a child of it, holds the lock. Shared locks, as here, do not hinder each other.
pub(crate) fn is_alive(store: &Store, id: &BoxId) -> bool {
    open_lock(store, id)
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Takes the lock, and tries again where `is_alive` in another process holds it just then.
#[expect(
    clippy::disallowed_methods,
    reason = "no event tells when another process is done, and it is done in microseconds"
)]
pub(super) fn take_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES_MAX {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_TRY_EVERY),
            taken_or_failed => return taken_or_failed,
        }
    }
    lock.try_lock()
}
