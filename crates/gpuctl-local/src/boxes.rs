//! Boxes as child processes, with EC2's states: pending → running → stopping → stopped.
//!
//! A box's life is a file lock that its process inherits as standard input: held, the box is alive, whoever started it and
//! whoever has died since; released by the kernel, it is gone. That is how a restarted daemon adopts running boxes, and why
//! no pid can be mistaken for another's.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use gpuctl_control::ports::{Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox, SeenWorker};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Policy, Work};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use rusqlite::{OptionalExtension, Row, params};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::store::{Store, micros, now_micros, timestamp};

/// How long a command must live to count as started: one that fails at once must not be started in a loop.
const SETTLE_MICROS: i64 = 1_000_000;

/// How often, and how long apart, a start tries for the lock: a look at the box holds it for microseconds.
const LOCK_TRIES: u32 = 20;
const LOCK_TRY_EVERY: std::time::Duration = std::time::Duration::from_millis(5);

/// How often a living box's row is touched: the error of a stop time that nobody saw.
const ALIVE_EVERY_MICROS: i64 = 10_000_000;

/// How to start boxes.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The `gpu-worker` program.
    pub worker: PathBuf,
    /// The policy's file, for the worker to read; `None` for the default policy.
    pub config: Option<PathBuf>,
    /// The folder that relative commands and paths start from.
    pub folder: PathBuf,
    /// The policy, for the commands of its pools.
    pub policy: Policy,
}

/// Boxes on this machine.
pub struct LocalCloud {
    store: Store,
    launcher: Option<Launcher>,
    /// Only so that ended children are collected; their life is the lock's.
    children: Mutex<Vec<Child>>,
}

impl LocalCloud {
    /// Boxes of the store's folder.
    #[must_use]
    pub fn new(store: Store, launcher: Option<Launcher>) -> Self {
        Self { store, launcher, children: Mutex::new(Vec::new()) }
    }
}

#[async_trait]
impl Cloud for LocalCloud {
    async fn boxes(&self, policy: &Policy) -> Result<Listing, PortError> {
        self.collect_children();
        let policy = policy.clone();
        self.store.off_thread(move |store| boxes(store, &policy)).await
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        let Some(launcher) = self.launcher.clone() else {
            return Err(PortError::new(PortErrorClass::Conflict, "a worker starts no boxes"));
        };
        let order = order.clone();
        let child = self.store.off_thread(move |store| start(store, &launcher, &order)).await?;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).extend(child);
        Ok(())
    }

    async fn stop(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError> {
        let box_id = box_id.clone();
        self.store.off_thread(move |store| stop(store, &box_id, mode)).await
    }
}

impl LocalCloud {
    fn collect_children(&self) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// What the file says of a box.
struct BoxRow {
    pool: String,
    token: String,
    started_at: i64,
    stopping_at: Option<i64>,
    alive_at: i64,
    pid: Option<i32>,
    report: Option<ReportRow>,
}

/// What the box's worker said of itself in this run.
struct ReportRow {
    at: i64,
    ready_at: Option<i64>,
    leases: u32,
    idle_since: Option<i64>,
    last_error: Option<String>,
    jobs_done: u32,
}

const BOXES: &str = "SELECT boxes.box, boxes.pool, token, started_at, stopping_at, alive_at, coalesce(boxes.pid, reports.pid),
    reports.at, ready_at, leases, idle_since, last_error, jobs_done
    FROM boxes LEFT JOIN reports ON reports.box = boxes.box AND reports.run_started_at = boxes.started_at";

fn box_row(row: &Row<'_>) -> rusqlite::Result<(String, BoxRow)> {
    let report = match row.get::<_, Option<i64>>(7)? {
        Some(at) => Some(ReportRow {
            at,
            ready_at: row.get(8)?,
            leases: row.get(9)?,
            idle_since: row.get(10)?,
            last_error: row.get(11)?,
            jobs_done: row.get(12)?,
        }),
        None => None,
    };
    let found = BoxRow {
        pool: row.get(1)?,
        token: row.get(2)?,
        started_at: row.get(3)?,
        stopping_at: row.get(4)?,
        alive_at: row.get(5)?,
        pid: row.get(6)?,
        report,
    };
    Ok((row.get(0)?, found))
}

fn boxes(store: &Store, policy: &Policy) -> Result<Listing, PortError> {
    let mut rows: Vec<(String, BoxRow)> =
        store.read(|c| c.prepare_cached(BOXES)?.query_map([], box_row)?.collect())?;
    let mut listing = Listing::default();
    for pool in &policy.pools {
        let needs_report = matches!(pool.work, Work::Queue(_));
        // A pool with a schedule alone has nothing that could run here.
        let boxes = if pool.work == Work::BoxOnly { 0 } else { pool.boxes_max.get() };
        let mut names: Vec<BoxId> =
            (1..=boxes).map(|index| BoxId::of_pool(&pool.id, index)).collect();
        // A box above a lowered `boxes_max` stays in sight until it is gone.
        let beyond = rows
            .iter()
            .filter(|(_, row)| row.pool == pool.id.as_str())
            .filter_map(|(id, _)| id.parse().ok());
        let beyond: Vec<BoxId> =
            beyond.filter(|id| !names.contains(id) && is_alive(store, id)).collect();
        names.extend(beyond);
        let mut of_pool = Vec::with_capacity(names.len());
        for id in names {
            let place = rows.iter().position(|(name, _)| name == id.as_str());
            let row = place.map(|place| rows.swap_remove(place).1);
            of_pool.push(seen(store, id, row, needs_report)?);
        }
        listing.pools.insert(pool.id.clone(), of_pool);
    }
    Ok(listing)
}

/// Living boxes of pools that the policy no longer has, with their pids: nobody would stop them.
pub(crate) fn strays(
    store: &Store,
    policy: &Policy,
) -> Result<Vec<(String, Option<i32>)>, PortError> {
    let rows: Vec<(String, BoxRow)> =
        store.read(|c| c.prepare_cached(BOXES)?.query_map([], box_row)?.collect())?;
    let gone = |row: &BoxRow| !policy.pools.iter().any(|pool| pool.id.as_str() == row.pool);
    let alive = |id: &str| id.parse().is_ok_and(|id| is_alive(store, &id));
    Ok(rows
        .into_iter()
        .filter(|(id, row)| gone(row) && alive(id))
        .map(|(id, row)| (id, row.pid))
        .collect())
}

fn seen(
    store: &Store,
    id: BoxId,
    row: Option<BoxRow>,
    needs_report: bool,
) -> Result<SeenBox, PortError> {
    let Some(row) = row else {
        return Ok(SeenBox::new(id, BoxState::Stopped, Timestamp::UNIX_EPOCH));
    };
    let alive = is_alive(store, &id);
    if alive && let Err(error) = touch(store, &id, row.alive_at) {
        // It only sharpens a stop time that nobody sees; the box is alive all the same.
        tracing::warn!(r#box = %id, %error, "a sign of life could not be noted");
    }
    let (state, since) = state(&row, alive, needs_report);
    Ok(SeenBox {
        run_started_at: Some(timestamp(row.started_at)),
        last_error: row.report.as_ref().and_then(|report| report.last_error.clone()),
        worker: row.report.map(|report| SeenWorker {
            heard_at: timestamp(report.at),
            leases: report.leases,
            idle_since: report.idle_since.map(timestamp),
            jobs_done: report.jobs_done,
        }),
        ..SeenBox::new(id, state, timestamp(since))
    })
}

fn state(row: &BoxRow, alive: bool, needs_report: bool) -> (BoxState, i64) {
    let last_sign = row.report.as_ref().map_or(row.alive_at, |report| report.at.max(row.alive_at));
    let ready_at = if needs_report {
        row.report.as_ref().and_then(|report| report.ready_at)
    } else {
        // A command has no word for "ready": one that is still there after a moment counts as such.
        Some(row.started_at + SETTLE_MICROS).filter(|at| *at <= now_micros())
    };
    match (alive, row.stopping_at, ready_at) {
        (false, ..) => (BoxState::Stopped, last_sign),
        (true, Some(at), _) => (BoxState::Stopping, at),
        (true, None, Some(at)) => (BoxState::Running, at),
        (true, None, None) => (BoxState::Pending, row.started_at),
    }
}

fn touch(store: &Store, id: &BoxId, alive_at: i64) -> Result<(), PortError> {
    let now = now_micros();
    if now - alive_at < ALIVE_EVERY_MICROS {
        return Ok(());
    }
    store.write(|tx| {
        tx.prepare_cached("UPDATE boxes SET alive_at = ?2 WHERE box = ?1")?
            .execute(params![id.as_str(), now])
            .map(drop)
    })
}

fn start(
    store: &Store,
    launcher: &Launcher,
    order: &StartOrder,
) -> Result<Option<Child>, PortError> {
    let id = &order.box_id;
    let row = one(store, id)?;
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
        // A box that nobody can name must not go on. If the child has ended by itself there is nothing to end.
        let _ = child.kill();
        let _ = child.wait();
    }
    noted.map(|()| Some(child))
}

/// Takes the lock, past the looks of others.
#[expect(
    clippy::disallowed_methods,
    reason = "no event tells when a look is over, and it is over in microseconds"
)]
fn take_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_TRY_EVERY),
            answer => return answer,
        }
    }
    lock.try_lock()
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

/// The box's log, begun anew with each run; the run before keeps its own as `.log.old`.
fn log_file(folder: &Path, id: &BoxId) -> std::io::Result<File> {
    let path = folder.join("boxes").join(format!("{id}.log"));
    if path.exists() {
        std::fs::rename(&path, path.with_extension("log.old"))?;
    }
    File::create(path)
}

fn stop(store: &Store, id: &BoxId, mode: StopMode) -> Result<(), PortError> {
    let Some(row) = one(store, id)?.filter(|_| is_alive(store, id)) else { return Ok(()) };
    let Some(pid) = row.pid.and_then(Pid::from_raw).or_else(|| holder(store, id)) else {
        return Err(PortError::new(
            PortErrorClass::Conflict,
            format!("box `{id}` is only just starting"),
        ));
    };
    let signal = if mode == StopMode::Force { Signal::KILL } else { Signal::TERM };
    // The signal first: a box that is noted as stopping and was never told would go on working.
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

/// The process that holds the box's lock as its standard input, where whoever started it died before noting its pid.
fn holder(store: &Store, id: &BoxId) -> Option<Pid> {
    let lock = lock_path(store, id).canonicalize().ok()?;
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let holds = std::fs::read_link(process.path().join("fd/0")).is_ok_and(|file| file == lock);
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(pid).filter(|_| holds)
    })
}

fn one(store: &Store, id: &BoxId) -> Result<Option<BoxRow>, PortError> {
    store.read(|c| {
        let found = c
            .prepare_cached(&format!("{BOXES} WHERE boxes.box = ?1"))?
            .query_row([id.as_str()], box_row)
            .optional()?;
        Ok(found.map(|(_, row)| row))
    })
}

fn open_lock(store: &Store, id: &BoxId) -> Result<File, PortError> {
    let path = lock_path(store, id);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| box_error("open the lock of", id, error))
}

fn lock_path(store: &Store, id: &BoxId) -> PathBuf {
    store.folder().join("boxes").join(format!("{id}.lock"))
}

/// Whether the box's process, or a child of it, holds the lock. Shared probes do not see each other.
fn is_alive(store: &Store, id: &BoxId) -> bool {
    open_lock(store, id)
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn box_error(verb: &str, id: &BoxId, error: std::io::Error) -> PortError {
    PortError::new(PortErrorClass::Other, format!("cannot {verb} box `{id}`")).because(error)
}
