//! What the file keeps, for how long and how much of it, so that it never fills up by itself: what has ended goes by its age, and oldest
//! first where there is no room. What waits or runs is never deleted.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::policy::{DEFAULT_TEXT, Policy};
use rusqlite::{Connection, ErrorCode, Transaction, params};

use crate::store::Store;
use crate::time::Now;

mod files;

pub(crate) use files::cut_log;

/// Records of reconciles are kept for this long.
const RECORDS_KEPT: TimeDelta = TimeDelta::days(30);
/// Runs that have ended, and reports of boxes, are kept for this long: a year's costs can be compared.
const RUNS_KEPT: TimeDelta = TimeDelta::days(400);
/// How often what is too old is looked for.
const SWEEP_EVERY: TimeDelta = TimeDelta::minutes(10);
/// The most rows of one kind that one sweep deletes: others may have to wait for it.
const SWEEP_ROWS_MAX: u32 = 1_000;
/// The most jobs that are deleted at once for room.
const ROOM_ROWS: u32 = 64;
/// How often in one write.
const ROOM_ROUNDS_MAX: u32 = 16;
/// The most free pages that the file shrinks by at once: 4 MiB.
const VACUUM_PAGES_MAX: u32 = 1_024;

/// How long and how much is kept, by the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    jobs: TimeDelta,
    dead_letters: TimeDelta,
    results_bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        let policy = Policy::parse(DEFAULT_TEXT).expect("the default policy is valid");
        Self::of(&policy)
    }
}

impl Retention {
    pub(crate) fn of(policy: &Policy) -> Self {
        let cloud = &policy.cloud;
        Self {
            jobs: cloud.jobs_kept,
            dead_letters: cloud.dead_letters_kept,
            results_bytes_max: u64::from(cloud.results_mib_max) << 20,
        }
    }
}

/// Who writes, from which follows how much of the file it may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A new job must leave room in which the results of others can be kept.
    Submit,
    /// A result, with which its message goes.
    Commit,
}

impl Store {
    /// Writes durably what makes the file grow. Where there is little room, the oldest jobs that have ended are deleted first.
    pub(crate) fn write_with_room<T>(
        &self,
        writer: Writer,
        write: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let write_once = || {
            self.write_durably(|tx| {
                make_room(tx, writer)?;
                write(tx)
            })
        };
        match write_once() {
            Err(error) if error.class == PortErrorClass::Full => {
                // More than was free at once. A full disk is another matter: what is deleted here makes no room there.
                let freed = self.write_durably(|tx| {
                    let is_ours = Pages::of(tx)?.are_above(Share::Pressing);
                    if is_ours { delete_oldest(tx, ROOM_ROWS * ROOM_ROUNDS_MAX) } else { Ok(0) }
                });
                if freed.is_ok_and(|deleted| deleted > 0) { write_once() } else { Err(error) }
            }
            written => written,
        }
    }

    /// Deletes what is too old, if that was not done of late. A failure is only logged: the caller has done what it was asked for.
    pub(crate) fn sweep_if_due(&self) {
        let now = self.now();
        if now.at < self.sweep_at.load(Ordering::Relaxed) {
            return;
        }
        self.sweep_at.store(now.after(SWEEP_EVERY), Ordering::Relaxed);
        if let Err(error) = self.sweep(now) {
            tracing::warn!(error = %shown(gpuctl_control::text::with_causes(&error)), "what is too old could not be deleted");
        }
    }

    fn sweep(&self, now: Now) -> Result<(), PortError> {
        let swept_at: i64 =
            self.read(|c| c.query_row("SELECT swept_at FROM clock", [], |row| row.get(0)))?;
        if (now.before(SWEEP_EVERY)..=now.at).contains(&swept_at) {
            return Ok(());
        }
        let retention = *self.retention.lock().unwrap_or_else(PoisonError::into_inner);
        let more = self.write(|tx| {
            tx.execute("UPDATE clock SET swept_at = ?1", [now.at])?;
            delete_old(tx, now, retention)
        })?;
        if more {
            self.write(|tx| tx.execute("UPDATE clock SET swept_at = 0", []))?;
            self.sweep_at.store(0, Ordering::Relaxed);
        }
        files::sweep(self, now, retention)
    }
}

/// Whether a kind had more rows than one sweep deletes.
fn delete_old(tx: &Transaction<'_>, now: Now, retention: Retention) -> rusqlite::Result<bool> {
    let dead_before = now.before(retention.dead_letters);
    // A clock that was set ahead is not a year that has passed.
    let wall = now.wall_micros().min(now.at);
    let runs_before = wall - RUNS_KEPT.num_microseconds().unwrap_or_default();
    let delete =
        |sql: &str, before: i64| tx.prepare_cached(sql)?.execute(params![before, SWEEP_ROWS_MAX]);
    delete(
        "UPDATE jobs SET expired = 1, noted_dead = 0 WHERE (job_id, generation) IN
           (SELECT job_id, generation FROM messages WHERE dead = 1 AND dead_at < ?1 ORDER BY dead_at LIMIT ?2)",
        dead_before,
    )?;
    delete(
        "UPDATE jobs SET expired = 1, noted_dead = 0 WHERE job_id IN (SELECT job_id FROM jobs WHERE noted_dead AND touched_at < ?1 LIMIT ?2)
         AND state = 'dead'",
        dead_before,
    )?;
    let deleted = [
        delete(
            "DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE dead = 1 AND dead_at < ?1 ORDER BY dead_at LIMIT ?2)",
            dead_before,
        )?,
        delete(
            "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs INDEXED BY jobs_ended
               WHERE state IN ('succeeded', 'failed', 'purged', 'expired') AND touched_at < ?1 ORDER BY touched_at LIMIT ?2)",
            now.before(retention.jobs),
        )?,
        delete(
            "DELETE FROM records WHERE id IN (SELECT id FROM records ORDER BY id LIMIT ?2) AND at < ?1
               AND id < (SELECT max(id) FROM records)",
            now.before(RECORDS_KEPT),
        )?,
        delete(
            "DELETE FROM runs WHERE (box, started_at) IN (SELECT box, started_at FROM runs WHERE stopped_at < ?1 LIMIT ?2)",
            runs_before,
        )?,
    ];
    tx.execute("DELETE FROM reports WHERE at < ?1", [now.before(RUNS_KEPT)])?;
    shrink(tx)?;
    Ok(deleted.iter().any(|deleted| *deleted >= SWEEP_ROWS_MAX as usize))
}

/// Shares of the file's largest size.
#[derive(Clone, Copy)]
enum Share {
    /// From here on the oldest of what has ended goes.
    Ample,
    /// From here on no new job is taken: the rest is for results.
    Pressing,
}

struct Pages {
    used: i64,
    free: i64,
    max: i64,
}

impl Pages {
    fn of(c: &Connection) -> rusqlite::Result<Self> {
        let pragma = |name: &str| {
            c.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get::<_, i64>(0))
        };
        let free = pragma("freelist_count")?;
        Ok(Self { used: pragma("page_count")? - free, free, max: pragma("max_page_count")? })
    }

    fn are_above(&self, share: Share) -> bool {
        let (part, of) = match share {
            Share::Ample => (3, 4),
            Share::Pressing => (15, 16),
        };
        self.used > self.max / of * part
    }
}

/// Deletes what has ended, oldest first, down to three quarters of the largest size; dead jobs only
/// where a new job would else be refused.
fn make_room(tx: &Transaction<'_>, writer: Writer) -> rusqlite::Result<()> {
    for round in 0..ROOM_ROUNDS_MAX {
        let pages = Pages::of(tx)?;
        if !pages.are_above(Share::Ample) {
            return Ok(());
        }
        let mut deleted = delete_oldest(tx, ROOM_ROWS)?;
        if deleted == 0 && writer == Writer::Submit && pages.are_above(Share::Pressing) {
            deleted = delete_oldest_dead(tx, ROOM_ROWS)?;
        }
        if deleted == 0 {
            break;
        }
        if round == 0 {
            tracing::warn!(
                "the queue file is nearly full, so the oldest finished jobs are deleted with their results: raise `file_mib_max` under [cloud]"
            );
        }
    }
    if writer == Writer::Submit && Pages::of(tx)?.are_above(Share::Pressing) {
        return Err(full());
    }
    Ok(())
}

fn full() -> rusqlite::Error {
    let code = rusqlite::ffi::Error {
        code: ErrorCode::DiskFull,
        extended_code: rusqlite::ffi::SQLITE_FULL,
    };
    rusqlite::Error::SqliteFailure(code, Some("the file is full of jobs that wait".to_owned()))
}

fn delete_oldest(tx: &Transaction<'_>, jobs: u32) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs INDEXED BY jobs_ended
           WHERE state IN ('succeeded', 'failed', 'purged', 'expired') ORDER BY touched_at LIMIT ?1)",
    )?
    .execute([jobs])
}

/// Their jobs are `expired` then, and go with those that have ended.
fn delete_oldest_dead(tx: &Transaction<'_>, jobs: u32) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "UPDATE jobs SET expired = 1, noted_dead = 0 WHERE (job_id, generation) IN
           (SELECT job_id, generation FROM messages WHERE dead = 1 ORDER BY dead_at LIMIT ?1)",
    )?
    .execute([jobs])?;
    let deleted = tx
        .prepare_cached(
            "DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE dead = 1 ORDER BY dead_at LIMIT ?1)",
        )?
        .execute([jobs])?;
    // Those that were noted as dead, and have no message.
    let noted = tx
        .prepare_cached(
            "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs WHERE noted_dead LIMIT ?1) AND state = 'dead'
               AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.job_id = jobs.job_id)",
        )?
        .execute([jobs])?;
    Ok(deleted + noted)
}

/// Shrinks the file where a quarter of it is free.
fn shrink(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let pages = Pages::of(tx)?;
    if pages.free <= pages.used / 3 {
        return Ok(());
    }
    // It frees one page for each row that is read.
    let mut vacuum = tx.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
