//! The one file: opening it, its schema, its errors, and transactions on it.
//!
//! SQLite in WAL mode, so that readers never wait for a writer. What a user relies on (a submitted job, a result, a hold) is on the
//! disk before the call returns. The rest may be lost when the power fails, and is then observed or done again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuctl_control::log::shown;
use gpuctl_control::ports::{Clock, PortError, PortErrorClass};
use gpuctl_control::state_folder;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use crate::SystemClock;

/// The file's name in the state folder.
pub const FILE_NAME: &str = "gpuctl.db";

/// The version of the schema below; a file with a higher one was written by a newer gpuctl.
const SCHEMA_VERSION: i64 = 3;

/// How long a call waits for another process's write.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);

const PAGE_BYTES: u32 = 4_096;

const SCHEMA: &str = "
CREATE TABLE queues (name TEXT PRIMARY KEY, receives_max INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, dead INTEGER NOT NULL DEFAULT 0,
  sent_at INTEGER NOT NULL, visible_at INTEGER NOT NULL, receipt TEXT, receive_count INTEGER NOT NULL DEFAULT 0,
  job_id TEXT, attributes TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX messages_by_turn ON messages (queue, dead, visible_at, sent_at);
CREATE INDEX messages_by_receipt ON messages (receipt) WHERE receipt IS NOT NULL;
CREATE INDEX messages_by_job ON messages (job_id) WHERE job_id IS NOT NULL;
CREATE TABLE jobs (
  job_id TEXT PRIMARY KEY, submitted_at INTEGER NOT NULL, job TEXT NOT NULL, result TEXT, succeeded INTEGER) WITHOUT ROWID;
CREATE INDEX jobs_by_time ON jobs (submitted_at);
CREATE TABLE holds (
  pool TEXT PRIMARY KEY, wants_running INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
  by TEXT NOT NULL, why TEXT) WITHOUT ROWID;
CREATE TABLE queue_memory (
  pool TEXT PRIMARY KEY, at INTEGER NOT NULL, visible INTEGER NOT NULL, in_flight INTEGER NOT NULL, delayed INTEGER NOT NULL,
  dead INTEGER NOT NULL, oldest_sent_at INTEGER, empty_since INTEGER) WITHOUT ROWID;
CREATE TABLE runs (
  box TEXT NOT NULL, started_at INTEGER NOT NULL, pool TEXT NOT NULL, ready_at INTEGER, stopping_at INTEGER, stopped_at INTEGER,
  start_rule TEXT NOT NULL, start_text TEXT NOT NULL, stop_rule TEXT, stop_text TEXT, error TEXT,
  PRIMARY KEY (box, started_at)) WITHOUT ROWID;
CREATE INDEX runs_by_pool ON runs (pool, started_at);
CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, repeats INTEGER NOT NULL DEFAULT 0, last_at TEXT, record TEXT NOT NULL);
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), owner TEXT, number INTEGER NOT NULL, until INTEGER NOT NULL);
INSERT INTO lease VALUES (1, NULL, 0, 0);
CREATE TABLE boxes (
  box TEXT PRIMARY KEY, pool TEXT NOT NULL, token TEXT NOT NULL, started_at INTEGER NOT NULL, stopping_at INTEGER,
  alive_at INTEGER NOT NULL, pid INTEGER) WITHOUT ROWID;
CREATE TABLE reports (
  box TEXT PRIMARY KEY, run_started_at INTEGER NOT NULL, at INTEGER NOT NULL, pid INTEGER, ready_at INTEGER,
  leases INTEGER NOT NULL, idle_since INTEGER, last_error TEXT) WITHOUT ROWID;
";

/// From each version to the next; a file of an older gpuctl is brought up to date when it is opened.
const MIGRATIONS: [&str; 3] = [SCHEMA, CAPACITY_AND_COST, NOTICES];

/// What runs were bought as and were refused, how long jobs take, and how far a hold may go beyond its budget.
const CAPACITY_AND_COST: &str = "
ALTER TABLE runs ADD COLUMN jobs INTEGER;
ALTER TABLE runs ADD COLUMN instance_type TEXT;
ALTER TABLE runs ADD COLUMN zone TEXT;
ALTER TABLE runs ADD COLUMN capacity TEXT;
ALTER TABLE runs ADD COLUMN refusal_class TEXT;
ALTER TABLE runs ADD COLUMN refusal_text TEXT;
ALTER TABLE runs ADD COLUMN interrupted_at INTEGER;
ALTER TABLE reports ADD COLUMN jobs_done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE holds ADD COLUMN over_budget INTEGER;
CREATE TABLE service (box TEXT PRIMARY KEY, mean INTEGER NOT NULL) WITHOUT ROWID;
";

/// Which notices were sent, and when.
const NOTICES: &str = "
CREATE TABLE notices (key TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
";

/// Where the store is, and how large it may get.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder of the file, the boxes' locks and their logs; made if absent.
    pub folder: PathBuf,
    /// The size that the file may grow to, in MiB.
    pub file_mib_max: u32,
}

/// Queue and ledger; cloning shares the connection.
#[derive(Clone)]
pub struct Store {
    opened: Arc<Mutex<Opened>>,
    folder: PathBuf,
}

struct Opened {
    connection: Connection,
    /// The setting in force: it is changed only between writes that differ in it.
    synchronous: &'static str,
}

impl Store {
    /// Opens the file, and makes it if absent, in a folder that only this user may enter.
    ///
    /// # Errors
    /// When it cannot be opened, is not a queue file, or was written by a newer gpuctl.
    pub fn open(options: &StoreOptions) -> Result<Self, PortError> {
        let folder = &options.folder;
        make_folders(folder)?;
        // SQLite does not wait where two processes make one file: the second would find it locked.
        let one_at_a_time = lock(folder)?;
        let file = folder.join(FILE_NAME);
        let connection =
            connect(&file, options.file_mib_max).map_err(|error| store_error(&file, error))?;
        let opened = Opened { connection, synchronous: "" };
        let store = Self { opened: Arc::new(Mutex::new(opened)), folder: folder.clone() };
        store.migrate(&file)?;
        drop(one_at_a_time);
        Ok(store)
    }

    /// The folder of the file.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the policy's queues, and sets on each how often a message may be received.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, policy: &Policy) -> Result<(), PortError> {
        let wanted: BTreeMap<String, u32> = policy
            .queue_pools()
            .map(|(_, queue)| (queue.name.to_string(), queue.receives_max.get()))
            .collect();
        let known: BTreeMap<String, u32> = self.read(|c| {
            let mut rows = c.prepare_cached("SELECT name, receives_max FROM queues")?;
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        // Without this check every `gpuctl status` would be a write.
        if wanted.iter().all(|(name, receives_max)| known.get(name) == Some(receives_max)) {
            return Ok(());
        }
        self.write(|tx| {
            for (name, receives_max) in &wanted {
                tx.prepare_cached("INSERT INTO queues VALUES (?1, ?2) ON CONFLICT DO UPDATE SET receives_max = ?2")?
                    .execute((name, receives_max))?;
            }
            Ok(())
        })
    }

    /// A number that changes whenever another process or connection has written to the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn version(&self) -> Result<i64, PortError> {
        self.read(|c| c.query_row("PRAGMA data_version", [], |row| row.get(0)))
    }

    fn migrate(&self, file: &Path) -> Result<(), PortError> {
        let version =
            |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        let found = self.read(version)?;
        if found > SCHEMA_VERSION {
            let what = format!(
                "{} has version {found}, this gpuctl knows up to {SCHEMA_VERSION}",
                file.display()
            );
            return Err(PortError::new(PortErrorClass::TooNew, what)
                .hint("update gpuctl, or use another state folder"));
        }
        if found == SCHEMA_VERSION {
            return Ok(());
        }
        self.write(|tx| {
            // Another process may have migrated it first, so the version is read again.
            let done = usize::try_from(version(tx)?).unwrap_or(usize::MAX);
            for step in MIGRATIONS.iter().skip(done) {
                tx.execute_batch(step)?;
            }
            tx.pragma_update(None, "user_version", SCHEMA_VERSION)
        })
    }

    /// Reads. Another process's write never makes it wait, only this process's other calls do.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        read(&opened.connection).map_err(|error| store_error(&self.folder.join(FILE_NAME), error))
    }

    /// Writes in one transaction, whole or not at all.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        self.transact(write, "NORMAL")
    }

    /// Writes in one transaction that is on the disk when this returns.
    pub(crate) fn write_durably<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        self.transact(write, "FULL")
    }

    fn transact<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
        synchronous: &'static str,
    ) -> Result<T, PortError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let Opened { connection, synchronous: in_force } = &mut *opened;
        let transact = || {
            if *in_force != synchronous {
                connection.pragma_update(None, "synchronous", synchronous)?;
                *in_force = synchronous;
            }
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = write(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        transact().map_err(|error| store_error(&self.folder.join(FILE_NAME), error))
    }

    /// Runs a blocking call off the async threads: SQLite may wait for another process.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || call(&store)).await {
            Ok(result) => result,
            Err(error) => {
                Err(PortError::new(PortErrorClass::Other, "a call to the queue file panicked")
                    .because(error))
            }
        }
    }
}

/// Makes the state folder and the boxes' folder in it, private to the user. One that existed and is open to others is logged.
fn make_folders(folder: &Path) -> Result<(), PortError> {
    let boxes = folder.join("boxes");
    state_folder::make(&boxes).map_err(|error| {
        let what = format!("cannot make the folder {}", boxes.display());
        PortError::new(PortErrorClass::Other, what).because(error)
    })?;
    if let Ok(Some(mode)) = state_folder::mode_open_to_others(folder) {
        tracing::warn!(
            folder = %shown(folder.display()),
            "other users can look into the state folder, whose mode is {mode:03o}: make it private with `chmod 700`"
        );
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, PortError> {
    let locked = File::create(folder.join("open.lock")).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| {
        let what = format!("cannot lock the folder {}", folder.display());
        PortError::new(PortErrorClass::Other, what)
            .because(error)
            .hint("check its owner and permissions")
    })
}

fn connect(file: &Path, file_mib_max: u32) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_WAIT_MAX)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        let _: Option<String> =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).optional()?;
    }
    let pages_max = i64::from(file_mib_max) * (1_048_576 / i64::from(PAGE_BYTES));
    let _: i64 =
        connection
            .query_row(&format!("PRAGMA max_page_count = {pages_max}"), [], |row| row.get(0))?;
    Ok(connection)
}

fn store_error(file: &Path, error: rusqlite::Error) -> PortError {
    let name = file.display();
    let (class, what, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            PortErrorClass::Unavailable,
            format!("{name} is locked by another process"),
            "wait for that process, or find it with `fuser` on this file",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            PortErrorClass::Corrupt,
            format!("{name} is damaged, or not a queue file"),
            "move it away to start with a new one; `sqlite3 FILE .recover` may save what is in it",
        ),
        Some(ErrorCode::DiskFull) => (
            PortErrorClass::Full,
            format!("no room to write to {name}"),
            "free some disk space, raise `file_mib_max` under [cloud], or `gpuctl purge`",
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            PortErrorClass::Other,
            format!("{name} cannot be opened for writing"),
            "check its folder's owner and permissions",
        ),
        _ => (
            PortErrorClass::Other,
            format!("reading or writing {name} failed"),
            "`gpuctl doctor` checks the state folder",
        ),
    };
    PortError::new(class, what).hint(hint).because(error)
}

/// A time as the file keeps it: microseconds since 1970.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.timestamp_micros()
}

/// A time read from the file.
pub(crate) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(micros).unwrap_or_default()
}

/// Now, as the file keeps it.
pub(crate) fn now_micros() -> i64 {
    micros(SystemClock.now())
}

#[cfg(test)]
mod tests {
    use gpuctl_control::ports::Ledger;

    use super::*;

    #[tokio::test]
    async fn a_file_of_an_older_gpuctl_is_brought_up_to_date_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join(FILE_NAME)).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO runs VALUES ('gpu-1', 5, 'gpu', 6, 7, 8, 'demand', '1 job waits', 'idle', 'idle for 30s', NULL);
             INSERT INTO holds VALUES ('gpu', 1, 5, 6, 'ada', NULL);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 };
        for _ in 0..2 {
            let store = Store::open(&options).unwrap();
            let memory = store.memory(&"gpu".parse().unwrap()).await.unwrap();
            assert_eq!(memory.runs.len(), 1);
            assert_eq!((memory.runs[0].jobs, &memory.runs[0].offering), (None, &None));
            assert_eq!(memory.hold.unwrap().over_budget, None);
        }
    }
}
