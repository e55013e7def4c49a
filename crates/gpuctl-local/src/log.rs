//! The log of a file in WAL mode, and how a durable write waits until it is on the disk.

use std::fs::File;
use std::path::Path;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuctl_control::ports::{PortError, PortErrorClass};
use rusqlite::Connection;

use crate::store::store_error;

/// The log. It is there as long as a connection is, and a checkpoint that empties it has waited for the disk.
pub(crate) struct Log {
    file: File,
    #[cfg(test)]
    pub(crate) waits: AtomicUsize,
}

impl Log {
    /// Opens the log of this file; none where the file system allows none, and SQLite waits for the disk by itself.
    pub(crate) fn open(connection: &Connection, file: &Path) -> Result<Option<Self>, PortError> {
        let failed = |error| store_error(file, error);
        let mode: String =
            connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(failed)?;
        let is_wal = mode == "wal";
        let synchronous = if is_wal { "NORMAL" } else { "FULL" };
        connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        if !is_wal {
            return Ok(None);
        }
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let opened = File::open(log).map_err(|error| unwritten(file, error))?;
        Ok(Some(Self {
            file: opened,
            #[cfg(test)]
            waits: AtomicUsize::new(0),
        }))
    }

    /// Waits until what was written is on the disk.
    pub(crate) fn wait(&self, of: &Path) -> Result<(), PortError> {
        #[cfg(test)]
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data().map_err(|error| unwritten(of, error))
    }
}

fn unwritten(file: &Path, error: std::io::Error) -> PortError {
    let what = format!("cannot wait until {} is on the disk", file.display());
    PortError::new(PortErrorClass::Other, what)
        .because(error)
        .hint("look for errors of the disk in the kernel's log, `dmesg`")
}
