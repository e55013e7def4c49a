//! Boxes as child processes, with EC2's states: pending → running → stopping → stopped.
//!
//! A box's life is a file lock that its process inherits as standard input. While the lock is held the box is alive, whichever
//! process started it and whichever has ended since; the kernel releases it with the process. So a restarted daemon adopts the boxes
//! that run, and no pid can be mistaken for another's. Listing boxes only reads; starting and stopping are in `process`.

mod lock;
mod process;
mod signals;

use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use gpuctl_control::observe::workers::merge;
use gpuctl_control::ports::{Cloud, Listing, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, SeenBox, SeenWorker, WorkerFault};
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::{Policy, Pool, Work};
use gpuctl_core::units::{BoxId, Timestamp};
use rusqlite::{Row, params};

use crate::retention::cut_log;
use crate::store::Store;
use crate::time::{Now, timestamp};
pub(crate) use lock::is_alive;

/// How long a command must live to count as ready. One that fails at once is a start without result, which `starts_without_result_max`
/// limits.
const SETTLE_MICROS: i64 = 1_000_000;

/// How often the row of a box that is alive is updated. If no process sees a box end, its recorded stop time is off by this at most.
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
    /// Kept only so that ended children are reaped; their locks show whether they are alive.
    children: Mutex<Vec<Child>>,
}

impl LocalCloud {
    /// Boxes of the store's folder; without a launcher none can be started.
    #[must_use]
    pub fn new(store: Store, launcher: Option<Launcher>) -> Self {
        Self { store, launcher, children: Mutex::new(Vec::new()) }
    }

    fn reap_children(&self) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

#[async_trait]
impl Cloud for LocalCloud {
    async fn boxes(&self, policy: &Policy) -> Result<Listing, PortError> {
        self.reap_children();
        let policy = policy.clone();
        self.store.off_thread(move |store| list(store, &policy)).await
    }

    async fn note_alive(&self, boxes: &[BoxId]) -> Result<(), PortError> {
        let boxes = boxes.to_vec();
        self.store.off_thread(move |store| note_alive(store, &boxes)).await
    }

    async fn start(&self, order: &StartOrder) -> Result<(), PortError> {
        let Some(launcher) = self.launcher.clone() else {
            return Err(PortError::new(PortErrorClass::Conflict, "a worker starts no boxes"));
        };
        let order = order.clone();
        let start = move |store: &Store| process::start(store, &launcher, &order);
        let child = self.store.off_thread(start).await?;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).extend(child);
        Ok(())
    }

    async fn stop(&self, box_id: &BoxId, mode: StopMode) -> Result<(), PortError> {
        let box_id = box_id.clone();
        self.store.off_thread(move |store| signals::stop(store, &box_id, mode)).await
    }
}

/// A box that is alive and belongs to no pool of the policy: no rule would ever stop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxWithoutPool {
    /// Its name, as the database has it.
    pub name: String,
    /// Its process, unless the program that started it ended before noting it.
    pub pid: Option<i32>,
}

impl Store {
    /// The boxes that are alive and belong to no pool of the policy.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn boxes_without_pool(&self, policy: &Policy) -> Result<Vec<BoxWithoutPool>, PortError> {
        let has_pool = |row: &BoxRow| policy.pools.iter().any(|pool| pool.id.as_str() == row.pool);
        let alive = |id: &str| id.parse().is_ok_and(|id| is_alive(self, &id));
        let rows = rows(self)?.into_iter();
        let found = rows.filter(|(id, row)| !has_pool(row) && alive(id));
        Ok(found.map(|(name, row)| BoxWithoutPool { name, pid: row.pid }).collect())
    }
}

/// What the database says of a box.
struct BoxRow {
    pool: String,
    token: String,
    /// When its start was ordered, by the wall clock of then: with the box, the key of the run.
    started_at: i64,
    /// The same in the file's time, as the times below.
    began_at: i64,
    stopping_at: Option<i64>,
    alive_at: i64,
    pid: Option<i32>,
    /// When that process began, as `/proc` has it.
    pid_started: Option<i64>,
    is_command: bool,
    reports: Vec<ReportRow>,
}

/// What one of the box's workers reported in this run.
struct ReportRow {
    at: i64,
    ready_at: Option<i64>,
    leases: u32,
    idle_since: Option<i64>,
    last_error: Option<String>,
    jobs_done: u32,
    /// Code, message and since when.
    fault: Option<(String, String, i64)>,
    /// By the wall clock, as the user wrote it.
    keep_until: Option<i64>,
}

const BOXES: &str = "SELECT boxes.box, boxes.pool, token, started_at, stopping_at, alive_at, coalesce(boxes.pid, reports.pid),
    reports.at, ready_at, leases, idle_since, last_error, jobs_done, began_at, pid_started, is_command, fault_code, fault_message, fault_since,
    keep_until
    FROM boxes LEFT JOIN reports ON reports.box = boxes.box AND reports.run_started_at = boxes.started_at
    WHERE ?1 IS NULL OR boxes.box = ?1 ORDER BY boxes.box, device";

fn rows(store: &Store) -> Result<Vec<(String, BoxRow)>, PortError> {
    read_rows(store, None)
}

fn row_of(store: &Store, id: &BoxId) -> Result<Option<BoxRow>, PortError> {
    Ok(read_rows(store, Some(id))?.pop().map(|(_, row)| row))
}

/// The rows of one box or of all, each with the reports of its workers.
fn read_rows(store: &Store, id: Option<&BoxId>) -> Result<Vec<(String, BoxRow)>, PortError> {
    store.read(|c| {
        let mut query = c.prepare_cached(BOXES)?;
        let mut rows: Vec<(String, BoxRow)> = Vec::new();
        for found in query.query_map([id.map(BoxId::as_str)], box_row)? {
            let (name, row) = found?;
            match rows.last_mut() {
                Some((last, of_box)) if *last == name => of_box.reports.extend(row.reports),
                _ => rows.push((name, row)),
            }
        }
        Ok(rows)
    })
}

fn box_row(row: &Row<'_>) -> rusqlite::Result<(String, BoxRow)> {
    let report = match row.get::<_, Option<i64>>(7)? {
        Some(at) => Some(ReportRow {
            at,
            ready_at: row.get(8)?,
            leases: row.get(9)?,
            idle_since: row.get(10)?,
            last_error: row.get(11)?,
            jobs_done: row.get(12)?,
            fault: match row.get::<_, Option<String>>(16)? {
                Some(code) => Some((code, row.get(17)?, row.get(18)?)),
                None => None,
            },
            keep_until: row.get(19)?,
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
        began_at: row.get(13)?,
        pid_started: row.get(14)?,
        is_command: row.get(15)?,
        reports: report.into_iter().collect(),
    };
    Ok((row.get(0)?, found))
}

fn list(store: &Store, policy: &Policy) -> Result<Listing, PortError> {
    let mut rows = rows(store)?;
    let mut listing = Listing::default();
    for pool in &policy.pools {
        let mut seen = Vec::new();
        for id in names(store, pool, &rows) {
            let index = rows.iter().position(|(name, _)| name == id.as_str());
            let row = index.map(|index| rows.swap_remove(index).1);
            // Documents leave out when a box stopped that was never started.
            let never_started =
                || SeenBox::new(id.clone(), BoxState::Stopped, Timestamp::UNIX_EPOCH);
            seen.push(
                row.map_or_else(never_started, |row| seen_box(store, &id, &row, readiness(pool))),
            );
        }
        listing.pools.insert(pool.id.clone(), seen);
    }
    Ok(listing)
}

/// The boxes of a pool: those that it may have, and those above a lowered `boxes_max` until they have ended.
fn names(store: &Store, pool: &Pool, rows: &[(String, BoxRow)]) -> Vec<BoxId> {
    // A pool with a schedule alone has nothing that could run here.
    let boxes = if pool.work == Work::BoxOnly { 0 } else { pool.boxes_max.get() };
    let mut names: Vec<BoxId> = (1..=boxes).map(|index| BoxId::of_pool(&pool.id, index)).collect();
    let of_pool = rows.iter().filter(|(_, row)| row.pool == pool.id.as_str());
    let started: Vec<BoxId> = of_pool.filter_map(|(id, _)| id.parse().ok()).collect();
    let beyond = started.into_iter().filter(|id| !names.contains(id) && is_alive(store, id));
    let beyond: Vec<BoxId> = beyond.collect();
    names.extend(beyond);
    names
}

/// How a box that is alive becomes ready.
#[derive(Clone, Copy)]
enum Readiness {
    /// Its worker reports it.
    Reported,
    /// A command cannot report: one that is still there after `SETTLE_MICROS` counts as ready.
    Settled,
}

fn readiness(pool: &Pool) -> Readiness {
    if matches!(pool.work, Work::Queue(_)) { Readiness::Reported } else { Readiness::Settled }
}

fn seen_box(store: &Store, id: &BoxId, row: &BoxRow, readiness: Readiness) -> SeenBox {
    let now = store.now();
    let (state, since) = if is_alive(store, id) {
        state_alive(row, readiness, now)
    } else {
        (BoxState::Stopped, last_sign_of_life(row))
    };
    SeenBox {
        run_started_at: Some(timestamp(row.started_at)),
        began_at: Some(now.wall(row.began_at)),
        last_error: newest(row).and_then(|report| report.last_error.clone()),
        worker: merge(row.reports.iter().map(|report| seen_worker(report, now))),
        ..SeenBox::new(id.clone(), state, now.wall(since))
    }
}

fn seen_worker(report: &ReportRow, now: Now) -> SeenWorker {
    let fault = |(code, message, since): (String, String, i64)| WorkerFault {
        code,
        message,
        since: now.wall(since),
    };
    SeenWorker {
        heard_at: now.wall(report.at),
        leases: report.leases,
        idle_since: report.idle_since.map(|at| now.wall(at)),
        jobs_done: report.jobs_done,
        fault: report.fault.clone().map(fault),
        keep_until: report.keep_until.map(timestamp),
    }
}

fn newest(row: &BoxRow) -> Option<&ReportRow> {
    row.reports.iter().max_by_key(|report| report.at)
}

/// The state of a box that is alive, and since when it is in it.
fn state_alive(row: &BoxRow, readiness: Readiness, now: Now) -> (BoxState, i64) {
    let ready_at = match readiness {
        Readiness::Reported => row.reports.iter().filter_map(|report| report.ready_at).min(),
        Readiness::Settled => Some(row.began_at + SETTLE_MICROS).filter(|at| *at <= now.at),
    };
    match (row.stopping_at, ready_at) {
        (Some(at), _) => (BoxState::Stopping, at),
        (None, Some(at)) => (BoxState::Running, at),
        (None, None) => (BoxState::Pending, row.began_at),
    }
}

fn last_sign_of_life(row: &BoxRow) -> i64 {
    newest(row).map_or(row.alive_at, |report| report.at.max(row.alive_at))
}

fn note_alive(store: &Store, boxes: &[BoxId]) -> Result<(), PortError> {
    let now = store.now().at;
    let is_stale = |(id, row): &(String, BoxRow)| {
        row.alive_at <= now - ALIVE_EVERY_MICROS && boxes.iter().any(|one| one.as_str() == *id)
    };
    for id in boxes {
        // Of a box that was only just started there may be none.
        let _ = cut_log(&store.folder().join("boxes").join(format!("{id}.log")));
    }
    // Without this check each reconcile would be a write.
    let stale: Vec<String> = rows(store)?.into_iter().filter(is_stale).map(|(id, _)| id).collect();
    if stale.is_empty() {
        return Ok(());
    }
    store.write(|tx| {
        let mut update = tx.prepare_cached("UPDATE boxes SET alive_at = ?2 WHERE box = ?1")?;
        stale.iter().try_for_each(|id| update.execute(params![id, now]).map(drop))
    })
}

fn box_error(verb: &str, id: &BoxId, error: std::io::Error) -> PortError {
    PortError::new(PortErrorClass::Other, format!("cannot {verb} box `{id}`")).because(error)
}
