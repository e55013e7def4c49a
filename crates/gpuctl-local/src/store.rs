//! The one file: opening it, its schema, its errors, and transactions on it.
//!
//! SQLite in WAL mode, so that readers never wait for a writer. What a user relies on (a submitted job, a result, a hold) is on the
//! disk before the call returns. The rest may be lost when the power fails, and is then observed or done again.
//!
//! SQLite itself waits for the disk only where it moves the log into the file, every 1,000 pages, and where it begins the log anew
//! (`synchronous = NORMAL`); other writers wait meanwhile. A durable write waits for the log after its transaction, when others may write.
//! What comes later in a group (`group`), an ack as well, waits for it.
//!
//! So a reader may see a write before it is on the disk, for as long as that wait takes, and a power failure then takes it back: a job that
//! was seen to be done is queued again. What a reader writes itself comes later in the log, of which a power failure keeps a
//! beginning: an ack never outlives the result that it follows. What it does elsewhere, such as deleting an input, may outlive it.
//! Where the wait fails the write stands: no one may take it for undone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::state_folder;
use gpuctl_core::policy::Policy;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use crate::group::Group;
use crate::log::Log;
use crate::retention::Retention;
use crate::schema::{SCHEMA_VERSION, migrate};
use crate::time::{FileTime, KernelClocks, MachineClocks, Now};

/// The file's name in the state folder.
pub const FILE_NAME: &str = "gpuctl.db";

/// How long a call waits between two looks whether another process's write is over: first briefly, as most writes are short. SQLite's own
/// waits grow to a tenth of a second, in which a file that two workers share lies idle.
const BUSY_WAITS: [(Duration, u32); 2] =
    [(Duration::from_micros(100), 100), (Duration::from_millis(1), BUSY_WAITS_MAX)];
/// How often it looks before it gives up: for 5 s.
const BUSY_WAITS_MAX: u32 = 5_000;

pub(crate) const PAGE_BYTES: u32 = 4_096;

/// For the user alone, whatever the folder that it is in.
pub(crate) const PRIVATE_MODE: u32 = 0o600;

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
    connection: Arc<Mutex<Connection>>,
    /// The log, which durable writes wait for; none where the file system allows none, and SQLite waits by itself.
    log: Option<Arc<Log>>,
    folder: PathBuf,
    time: FileTime,
    /// What is kept, by the policy; its defaults until `configure`.
    pub(crate) retention: Arc<Mutex<Retention>>,
    /// When this process looks next for what is too old, in the file's time.
    pub(crate) sweep_at: Arc<AtomicI64>,
    /// Held by the one thread of this process that deletes what is too old.
    pub(crate) sweeping: Arc<Mutex<()>>,
    /// Results and acks that are written together.
    pub(crate) group: Arc<Group>,
}

impl Store {
    /// Opens the file, and makes it if absent, in a folder that only this user may enter.
    ///
    /// # Errors
    /// When it cannot be opened, is not a queue file, or was written by a newer gpuctl.
    pub fn open(options: &StoreOptions) -> Result<Self, PortError> {
        Self::open_with(options, Arc::new(KernelClocks))
    }

    /// `open`, with other clocks than the kernel's.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        options: &StoreOptions,
        clocks: Arc<dyn MachineClocks>,
    ) -> Result<Self, PortError> {
        let folder = &options.folder;
        make_folders(folder)?;
        // SQLite does not wait where two processes make one file: the second would find it locked.
        let one_at_a_time = lock(folder)?;
        let file = folder.join(FILE_NAME);
        make_private(&file)?;
        let failed = |error| store_error(&file, error);
        let mut connection = connect(&file).map_err(failed)?;
        bring_up_to_date(&mut connection, &file)?;
        limit_size(&connection, options.file_mib_max).map_err(failed)?;
        let time = file_time(&mut connection, clocks).map_err(failed)?;
        drop(one_at_a_time);
        let log = Log::open(&connection, &file)?.map(Arc::new);
        let retention = Arc::new(Mutex::new(Retention::default()));
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            log,
            folder: folder.clone(),
            time,
            retention,
            sweep_at: Arc::default(),
            sweeping: Arc::default(),
            group: Arc::default(),
        })
    }

    /// This instant, in the file's time and by the wall clock.
    pub(crate) fn now(&self) -> Now {
        self.time.now()
    }

    /// The folder of the file.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the policy's queues, sets on each how often a message may be received, and what is kept for how long.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, policy: &Policy) -> Result<(), PortError> {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = Retention::of(policy);
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
                tx.prepare_cached("INSERT INTO queues (name, receives_max) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET receives_max = ?2")?
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
        self.read(|c| c.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0)))
    }

    /// Reads. Another process's write never makes it wait, only this process's other calls do.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        read(&connection).map_err(|error| store_error(&self.folder.join(FILE_NAME), error))
    }

    /// The connection itself, for a test that watches it.
    #[cfg(test)]
    pub(crate) fn with_connection<T>(&self, call: impl FnOnce(&mut Connection) -> T) -> T {
        call(&mut self.connection.lock().unwrap())
    }

    /// How often this process waited for the disk.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> usize {
        self.log.as_ref().unwrap().waits.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Has the next wait for the disk fail.
    #[cfg(test)]
    pub(crate) fn fail_next_wait(&self) {
        self.log.as_ref().unwrap().failures.store(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Keeps the file from this process's other calls, for a test that has them wait.
    #[cfg(test)]
    pub(crate) fn hold_back(&self) -> impl Drop {
        self.connection.lock().unwrap()
    }

    /// Writes in one transaction, whole or not at all.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transact = || {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = write(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        transact().map_err(|error| store_error(&self.folder.join(FILE_NAME), error))
    }

    /// Writes in one transaction that is on the disk when this returns.
    pub(crate) fn write_durably<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let result = self.write(write)?;
        self.wait_for_disk()?;
        Ok(result)
    }

    /// Waits until all that was written is on the disk. What was written stands, also where this fails: it must not be written again.
    pub(crate) fn wait_for_disk(&self) -> Result<(), PortError> {
        let wait = |log: &Arc<Log>| log.wait(&self.connection, &self.folder.join(FILE_NAME));
        self.log.as_ref().map_or(Ok(()), wait)
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

/// Makes the file with mode 0600, and takes it and what SQLite keeps beside it from other users where an older gpuctl let them in.
fn make_private(file: &Path) -> Result<(), PortError> {
    let failed = |error| {
        PortError::new(PortErrorClass::Other, format!("cannot make {} private", file.display()))
            .because(error)
            .hint("check its owner and permissions")
    };
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_MODE)
        .open(file)
        .map_err(failed)?;
    for end in ["", "-wal", "-shm"] {
        let mut beside = file.as_os_str().to_owned();
        beside.push(end);
        if let Ok(facts) = std::fs::metadata(&beside)
            && facts.permissions().mode() & 0o077 != 0
        {
            std::fs::set_permissions(&beside, Permissions::from_mode(PRIVATE_MODE))
                .map_err(failed)?;
        }
    }
    Ok(())
}

/// Waits for another process's write, after a number of such waits; whether to look again.
#[expect(clippy::disallowed_methods, reason = "SQLite calls it on a thread that may wait")]
fn wait_for_other(before: i32) -> bool {
    let before = before.unsigned_abs();
    let wait = BUSY_WAITS.into_iter().find(|(_, until)| before < *until);
    wait.inspect(|(wait, _)| std::thread::sleep(*wait)).is_some()
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.busy_handler(Some(wait_for_other))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    // Of effect in a new file only.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        let _: Option<String> =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).optional()?;
    }
    Ok(connection)
}

/// Migrates a file of an older gpuctl. Its size is not limited meanwhile: a full file must be able to become one that empties itself.
fn bring_up_to_date(connection: &mut Connection, file: &Path) -> Result<(), PortError> {
    let failed = |error| store_error(file, error);
    let version =
        |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let found = version(connection).map_err(failed)?;
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
    let migrate = |connection: &mut Connection| {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have migrated it first, so the version is read again.
        migrate(&tx, version(&tx)?)?;
        tx.commit()
    };
    migrate(connection).map_err(failed)?;
    if found > 0
        && let Err(error) = connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
    {
        // It only stays as large as it is.
        tracing::warn!(error = %shown(error), "the queue file could not be made smaller after it was brought up to date");
    }
    Ok(())
}

fn limit_size(connection: &Connection, file_mib_max: u32) -> rusqlite::Result<()> {
    let pages_max = i64::from(file_mib_max) * (1_048_576 / i64::from(PAGE_BYTES));
    connection
        .query_row(&format!("PRAGMA max_page_count = {pages_max}"), [], |row| row.get::<_, i64>(0))
        .map(drop)
}

fn file_time(
    connection: &mut Connection,
    clocks: Arc<dyn MachineClocks>,
) -> rusqlite::Result<FileTime> {
    if let Some(time) = FileTime::of_row(connection, &clocks)? {
        return Ok(time);
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let time = FileTime::of_boot(&tx, clocks)?;
    tx.commit()?;
    Ok(time)
}

pub(crate) fn store_error(file: &Path, error: rusqlite::Error) -> PortError {
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
            "where the disk is full, free some space; else raise `file_mib_max` under [cloud], or delete finished jobs with `gpuctl jobs delete --before`",
        ),
        Some(ErrorCode::TooBig) => (
            PortErrorClass::TooLarge,
            format!("{name} cannot hold what has more than a gigabyte"),
            "have the job give a shorter result",
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

#[cfg(test)]
pub(crate) mod tests {
    use gpuctl_control::job::{Job, JobFailure, JobResult, JobState};
    use gpuctl_control::ports::{
        Cloud, Committed, JobQueue, Ledger, Purge, ReceiveRequest, WorkerReport,
    };
    use gpuctl_control::wire::job::{job_from_json, job_to_json, result_to_json};
    use gpuctl_core::units::Timestamp;
    use rusqlite::params;

    use super::*;
    use crate::schema::{MIGRATIONS, sql};

    pub(crate) const JOB: &str = r#"{"version":1,"job_id":"01a200ab-52ac-72da-a503-1913f00238c3","queue":"jobs","task":"vision.ocr","input":"file:///a.png","submitted_at":"2026-11-22T00:00:00+00:00"}"#;

    fn file_of(folder: &Path, version: usize, rows: impl FnOnce(&Connection)) -> StoreOptions {
        let old = Connection::open(folder.join(FILE_NAME)).unwrap();
        MIGRATIONS[..version].iter().for_each(|step| old.execute_batch(&sql(step)).unwrap());
        rows(&old);
        old.pragma_update(None, "user_version", version).unwrap();
        StoreOptions { folder: folder.to_owned(), file_mib_max: 64 }
    }

    #[tokio::test]
    async fn a_file_of_an_older_gpuctl_is_brought_up_to_date_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let options = file_of(folder.path(), 1, |old| {
            old.execute_batch(
                "INSERT INTO runs VALUES ('gpu-1', 5, 'gpu', 6, 7, 8, 'demand', '1 job waits', 'idle', 'idle for 30s', NULL);
                 INSERT INTO holds VALUES ('gpu', 1, 5, 6, 'ada', NULL);",
            )
            .unwrap();
        });
        for _ in 0..2 {
            let store = Store::open(&options).unwrap();
            let memory = store.memory(&"gpu".parse().unwrap()).await.unwrap();
            assert_eq!(memory.runs.len(), 1);
            assert_eq!((memory.runs[0].jobs, &memory.runs[0].offering), (None, &None));
            assert_eq!(memory.hold.unwrap().over_budget, None);
        }
    }

    #[tokio::test]
    async fn the_report_of_an_older_gpuctl_stays_and_each_worker_of_a_box_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let began = KernelClocks.wall().timestamp_micros() - 60_000_000;
        let options = file_of(folder.path(), 4, |old| {
            let rows = "INSERT INTO boxes (box, pool, token, started_at, began_at, alive_at) VALUES ('gpu-1', 'gpu', 't', ?1, ?1, ?1)";
            old.execute(rows, [began]).unwrap();
            let rows = "INSERT INTO reports (box, run_started_at, at, leases, jobs_done) VALUES ('gpu-1', ?1, ?1, 1, 7)";
            old.execute(rows, [began]).unwrap();
        });
        let store = Store::open(&options).unwrap();
        let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap();
        let cloud = crate::LocalCloud::new(store.clone(), None);
        let worker = async || {
            let mut listing = cloud.boxes(&policy).await.unwrap();
            listing.pools.pop_first().unwrap().1.remove(0).worker.unwrap()
        };
        let seen = worker().await;
        assert_eq!((seen.leases, seen.idle_since, seen.jobs_done), (1, None, 7));
        let at = store.now().wall(store.now().at);
        let started = Timestamp::from_timestamp_micros(began).unwrap();
        let report = |device: Option<&str>, leases: u32| WorkerReport {
            device: device.map(str::to_owned),
            ready_at: Some(at),
            leases,
            idle_since: (leases == 0).then_some(at),
            jobs_done: 7,
            ..WorkerReport::begin("gpu-1".parse().unwrap(), started, at, 1)
        };
        store.report(&report(None, 0)).await.unwrap();
        assert!(worker().await.idle_since.is_some());
        store.report(&report(Some("1"), 2)).await.unwrap();
        store.report(&report(Some("0"), 0)).await.unwrap();
        let seen = worker().await;
        assert_eq!((seen.leases, seen.idle_since, seen.jobs_done), (2, None, 21));
        store.report(&report(Some("1"), 0)).await.unwrap();
        let seen = worker().await;
        assert!(seen.leases == 0 && seen.idle_since.is_some());
    }

    #[tokio::test]
    async fn jobs_messages_and_results_of_an_older_gpuctl_keep_their_states() {
        let mut jobs = Vec::new();
        for id in '3'..='7' {
            jobs.push(job_from_json(&JOB.replace("c3", &format!("c{id}"))).unwrap());
        }
        let done = result_of(jobs[0].clone());
        let folder = tempfile::tempdir().unwrap();
        let now = KernelClocks.wall().timestamp_micros();
        let options = file_of(folder.path(), 3, |old| {
            let message = |job: usize, dead: bool, receipt: Option<&str>, visible_at: i64| {
                let sql = "INSERT INTO messages (queue, dead, sent_at, visible_at, receipt, job_id, attributes, body)
                           VALUES ('jobs', ?1, ?2, ?3, ?4, ?5, '[]', ?6)";
                let id = jobs[job].id.as_str();
                old.execute(
                    sql,
                    params![dead, now - 9, visible_at, receipt, id, job_to_json(&jobs[job])],
                )
                .unwrap();
            };
            for (n, job) in jobs.iter().enumerate() {
                let result = (n == 0).then(|| result_to_json(&done));
                old.execute(
                    "INSERT INTO jobs VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        job.id.as_str(),
                        now,
                        job_to_json(job),
                        result,
                        result.is_some().then_some(1)
                    ],
                )
                .unwrap();
            }
            message(1, false, None, now - 9);
            message(2, false, Some("held"), now + 60_000_000);
            message(3, true, None, now - 9);
        });
        let store = Store::open(&options).unwrap();
        let states = async || {
            let mut states = Vec::new();
            for job in &jobs {
                states.push(store.job(&job.id).await.unwrap().unwrap().state);
            }
            states
        };
        use JobState::{Dead, Purged, Queued, Succeeded};
        // The worker of the older gpuctl has ended, so its lease has, too.
        assert_eq!(states().await, [Succeeded, Queued, Queued, Dead, Purged]);
        assert_eq!(store.results(&jobs[0].id).await.unwrap(), [done]);
        let counts = store.counts(&"jobs".parse().unwrap()).await.unwrap();
        assert_eq!((counts.visible, counts.in_flight, counts.dead), (2, 0, 1));
        assert!(counts.oldest_sent_at.unwrap() <= Timestamp::from_timestamp_micros(now).unwrap());
        let request = ReceiveRequest {
            max: 10,
            visibility: chrono::TimeDelta::minutes(1),
            wait: chrono::TimeDelta::zero(),
        };
        assert_eq!(store.receive_now(&"jobs".parse().unwrap(), request).unwrap().len(), 2);
        store.purge(&"jobs".parse().unwrap(), Purge::Dead).await.unwrap();
        assert_eq!(states().await[3], Purged);
    }

    #[tokio::test]
    async fn jobs_of_an_older_gpuctl_can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let (waiting, failed) = (job_numbered(1), job_numbered(2));
        let error = JobFailure { code: "x".into(), message: "y".into(), hint: None };
        let result = JobResult { outcome: Err(error), ..result_of(failed.clone()) };
        let options = file_of(folder.path(), 6, |old| {
            for job in [&waiting, &failed] {
                let values = params![job.id.as_str(), 5, job_to_json(job)];
                let sql = "INSERT INTO jobs (job_id, submitted_at, generation, touched_at, job) VALUES (?1, ?2, 0, 5, ?3)";
                old.execute(sql, values).unwrap();
            }
            let sql = "INSERT INTO messages (queue, sent_at, visible_at, job_id, attributes, body) VALUES ('jobs', 5, 5, ?1, '[]', ?2)";
            old.execute(sql, params![waiting.id.as_str(), job_to_json(&waiting)]).unwrap();
            let values = params![failed.id.as_str(), result_to_json(&result)];
            old.execute("INSERT INTO results VALUES (?1, 0, 0, ?2)", values).unwrap();
        });
        let store = Store::open(&options).unwrap();
        let state = async |job: &Job| store.job(&job.id).await.unwrap().unwrap().state;
        assert_eq!(
            (state(&waiting).await, state(&failed).await),
            (JobState::Queued, JobState::Failed)
        );
        let at = KernelClocks.wall();
        for (job, wanted) in [(&waiting, Committed::Written), (&failed, Committed::AlreadyThere)] {
            let word = JobResult::cancelled(job.clone(), "ada", at);
            assert_eq!(store.cancel(&word).await.unwrap(), wanted);
        }
        let states = (state(&waiting).await, state(&failed).await);
        assert_eq!(states, (JobState::Cancelled, JobState::Failed));
        assert!(store.counts(&"jobs".parse().unwrap()).await.unwrap().is_empty());
        // A process of that gpuctl may be up, and goes on.
        let sweep = "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs INDEXED BY jobs_ended
            WHERE state IN ('succeeded', 'failed', 'purged', 'expired') AND touched_at < ?1 ORDER BY touched_at LIMIT ?2)";
        store.with_connection(|connection| connection.prepare(sweep).map(drop)).unwrap();
    }

    fn job_numbered(number: u32) -> Job {
        job_from_json(&JOB.replace("c3", &format!("{number:02}"))).unwrap()
    }

    #[tokio::test]
    async fn results_of_an_older_gpuctl_are_as_old_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let done = |days: i64| {
            let job = job_from_json(&JOB.replace("c3", &format!("{days:02}"))).unwrap();
            let finished_at = KernelClocks.wall() - chrono::TimeDelta::days(days);
            JobResult { finished_at, ..result_of(job) }
        };
        let (young, old) = (done(1), done(99));
        let options = file_of(folder.path(), 3, |file| {
            for result in [&young, &old] {
                let (job, text) = (&result.job, result_to_json(result));
                file.execute(
                    "INSERT INTO jobs VALUES (?1, ?2, ?3, ?4, 1)",
                    // Both were submitted long ago.
                    params![job.id.as_str(), 5, job_to_json(job), text],
                )
                .unwrap();
            }
        });
        let store = Store::open(&options).unwrap();
        store.sweep().unwrap();
        let is_kept = async |result: &JobResult| store.job(&result.job.id).await.unwrap().is_some();
        assert!(is_kept(&young).await);
        assert!(!is_kept(&old).await);
    }

    pub(crate) fn result_of(job: Job) -> JobResult {
        JobResult {
            outcome: Ok(serde_json::json!({ "text": "x" })),
            model: None,
            device: None,
            box_id: "gpu-1".parse().unwrap(),
            attempt: 1,
            received_at: job.submitted_at,
            finished_at: job.submitted_at,
            inference: chrono::TimeDelta::zero(),
            worked: None,
            job,
        }
    }
}
