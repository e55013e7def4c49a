//! The log of a file in WAL mode, and how a durable write waits until it is on the disk.

use std::fs::File;
use std::io;
use std::path::Path;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, PortErrorClass};
use rusqlite::Connection;

use crate::store::store_error;

/// The log. It is there as long as a connection is, and a checkpoint that empties it has waited for the disk.
pub(crate) struct Log {
    file: File,
    /// How a wait has failed, if no checkpoint has brought all into the file since.
    failed: Mutex<Option<io::ErrorKind>>,
    /// How often it has waited.
    #[cfg(test)]
    pub(crate) waits: AtomicUsize,
    /// How many of the next waits fail.
    #[cfg(test)]
    pub(crate) failures: AtomicUsize,
}

impl Log {
    /// Opens the log of this file; none where the file system allows none, and SQLite waits for the disk by itself.
    pub(crate) fn open(connection: &Connection, file: &Path) -> Result<Option<Self>, PortError> {
        let failed = |error| store_error(file, error);
        let mode: String =
            connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(failed)?;
        let is_wal = mode == "wal";
        // Without a log it must wait for the folder, too: a journal that comes back after a power failure undoes the last transaction.
        let synchronous = if is_wal { "NORMAL" } else { "EXTRA" };
        connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        if !is_wal {
            return Ok(None);
        }
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let opened = File::open(&log).map_err(|error| {
            let what = format!("cannot open {}", log.display());
            PortError::new(PortErrorClass::Other, what)
                .because(error)
                .hint("check its owner and permissions")
        })?;
        Ok(Some(Self {
            file: opened,
            failed: Mutex::default(),
            #[cfg(test)]
            waits: AtomicUsize::new(0),
            #[cfg(test)]
            failures: AtomicUsize::new(0),
        }))
    }

    /// Waits until what was written to the file `of` is on the disk.
    ///
    /// The kernel reports pages that it could not write once, and takes them for written from then on: no later wait for the log says
    /// anything about them. So after a failure a checkpoint must have written them once more, into the file, and have waited for it.
    pub(crate) fn wait(&self, connection: &Mutex<Connection>, of: &Path) -> Result<(), PortError> {
        // One at a time: of two that wait for the same pages only one is told.
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = match *failed {
            Some(kind) => kind,
            None => match self.sync() {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(file = %shown(of.display()), error = %shown(&error), "the disk did not take what was written; it is written again");
                    *failed.insert(error.kind())
                }
            },
        };
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        write_again(&connection, of).map_err(|error| unwritten(of, kind, error))?;
        *failed = None;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let synced = self.file.sync_data();
        #[cfg(test)]
        self.waits.fetch_add(usize::from(synced.is_ok()), Ordering::Relaxed);
        synced
    }
}

/// Has SQLite move the whole log into the file, and wait for the disk.
fn write_again(connection: &Connection, file: &Path) -> Result<(), PortError> {
    let is_kept_by_reader =
        || connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    // The first is told of the same failure: SQLite has the log open itself.
    match is_kept_by_reader().or_else(|_| is_kept_by_reader()) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let what = "it could not be written again while another process reads or writes it";
            Err(PortError::new(PortErrorClass::Unavailable, what))
        }
        Err(error) => Err(store_error(file, error)),
    }
}

/// The transaction stands all the same: who is told so must not take it for undone.
fn unwritten(file: &Path, kind: io::ErrorKind, error: PortError) -> PortError {
    // SQLite does not tell why it could not wait for the disk.
    let is_full = matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let class = match error.class {
        PortErrorClass::Other if is_full => PortErrorClass::Full,
        class => class,
    };
    let what = format!(
        "{} was written, but the disk has not confirmed it ({kind}): a power failure may undo it",
        file.display()
    );
    PortError::new(class, what).because(error).hint(
        "look at what is there before you repeat a command; check the disk's free space, and the kernel's log for errors of the disk, `dmesg`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_log_sqlite_waits_for_the_folder_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gpuctl.db");
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
        assert!(Log::open(&connection, &file).unwrap().is_none());
        let synchronous: i64 =
            connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(synchronous, 3, "EXTRA");
    }

    #[test]
    fn a_full_disk_is_told_as_one_where_sqlite_names_no_cause() {
        let of = |kind, class| {
            unwritten(Path::new("gpuctl.db"), kind, PortError::new(class, "a wait failed")).class
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert_eq!(of(kind, PortErrorClass::Other), PortErrorClass::Full);
            assert_eq!(of(kind, PortErrorClass::Unavailable), PortErrorClass::Unavailable);
        }
        assert_eq!(of(io::ErrorKind::Other, PortErrorClass::Other), PortErrorClass::Other);
    }
}
