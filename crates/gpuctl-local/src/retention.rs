//! What the file keeps, for how long and how much of it, so that it never fills up by itself: what has ended goes by its age, and oldest
//! first where there is no room. What waits or runs is never deleted, nor is a new result: where only those are left, no new job is taken.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use chrono::TimeDelta;
use gpuctl_control::log::shown;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::policy::{DEFAULT_TEXT, Policy};
use gpuctl_core::units::show_duration;
use rusqlite::{Connection, Transaction, params};

use crate::schema::ENDED;
use crate::store::{PAGE_BYTES, Store};
use crate::time::Now;

mod files;

pub(crate) use files::cut_log;

/// Records of reconciles are kept for this long.
const RECORDS_KEPT: TimeDelta = TimeDelta::days(30);
/// Runs that have ended, and reports of boxes, are kept for this long: a year's costs can be compared.
const RUNS_KEPT: TimeDelta = TimeDelta::days(400);
/// A result or a dead job is not deleted for room until it is this old: a user who waits for it has had the time to read it.
const KEPT_MIN: TimeDelta = TimeDelta::hours(1);
/// How often what is too old is looked for.
const SWEEP_EVERY: TimeDelta = TimeDelta::minutes(10);
/// The most rows of one kind that one sweep deletes: others may have to wait for it.
const SWEEP_ROWS_MAX: u32 = 1_000;
/// The most jobs that are deleted at once for room.
const ROOM_ROWS: u32 = 64;
/// How often in one write.
const ROOM_ROUNDS_MAX: u32 = 16;
/// A result that is larger than this part of the file's largest size, and does not fit, is not waited for.
const RESULT_PART: i64 = 4;
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
        let written = self.write_where_room(writer, write)?;
        self.wait_for_disk()?;
        Ok(written)
    }

    /// The same without the wait for the disk.
    pub(crate) fn write_where_room<T>(
        &self,
        writer: Writer,
        write: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let now = self.now();
        // What was deleted for room stays deleted where that is not enough: the next write needs it, too.
        let write_once = || {
            self.write(|tx| match make_room(tx, now, writer)? {
                Room::Enough => write(tx).map(Ok),
                Room::TooLittle(used) => Ok(Err(used)),
            })?
            .map_err(|used| used.error())
        };
        match write_once() {
            Err(error) if error.class == PortErrorClass::Full => {
                // More than was free at once. A full disk is another matter: what is deleted here makes no room there.
                let freed = self.write(|tx| {
                    let is_ours = Pages::of(tx)?.are_above(Share::Pressing);
                    if is_ours { delete_ended(tx, now, ROOM_ROWS * ROOM_ROUNDS_MAX) } else { Ok(0) }
                });
                if freed.is_ok_and(|deleted| deleted > 0) { write_once() } else { Err(error) }
            }
            written => written,
        }
    }

    /// Whether a result for which there was no room would hardly fit into an empty file: then no wait for room helps.
    pub(crate) fn is_too_large(&self, bytes: usize) -> bool {
        let pages = i64::try_from(bytes / PAGE_BYTES as usize).unwrap_or(i64::MAX);
        self.read(Pages::of).is_ok_and(|file| pages > file.max / RESULT_PART)
    }

    /// Has what is too old deleted, if that was not done of late: by a thread of its own, since there may be many files and no caller
    /// waits for them. A process that ends meanwhile leaves the rest to the next one.
    pub(crate) fn sweep_if_due(&self) {
        let (now, due_at) = (self.now(), self.sweep_at.load(Relaxed));
        let next_at = now.after(SWEEP_EVERY);
        let is_taken = now.at < due_at
            || self.sweep_at.compare_exchange(due_at, next_at, Relaxed, Relaxed).is_err();
        if is_taken {
            return;
        }
        let store = self.clone();
        let sweep = move || {
            if let Err(error) = store.sweep() {
                tracing::warn!(error = %shown(gpuctl_control::text::with_causes(&error)), "what is too old could not be deleted");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("sweep".to_owned()).spawn(sweep) {
            tracing::warn!(error = %shown(error), "no thread could be started to delete what is too old");
        }
    }

    /// Deletes what is too old, unless a process has done so in the last minutes. `record`, `submitted` and `commit` have this done.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn sweep(&self) -> Result<(), PortError> {
        let _alone = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let swept_at: i64 =
            self.read(|c| c.query_row("SELECT swept_at FROM clock", [], |row| row.get(0)))?;
        if (now.before(SWEEP_EVERY)..=now.at).contains(&swept_at) {
            return Ok(());
        }
        let retention = *self.retention.lock().unwrap_or_else(PoisonError::into_inner);
        let more = self.write(|tx| delete_old(tx, now, retention))?;
        files::sweep(self, now, retention)?;
        if more {
            self.sweep_at.store(0, Relaxed);
            return Ok(());
        }
        self.write(|tx| tx.execute("UPDATE clock SET swept_at = ?1", [now.at]).map(drop))
    }
}

/// That a job has no result and no message any more, as of now (`?3`): from then on it is kept as long as others that have ended.
const EXPIRE: &str = "UPDATE jobs SET expired = 1, noted_dead = 0, touched_at = ?3";
/// The jobs of the oldest `?2` dead letters from before `?1`.
const OF_OLD_LETTERS: &str = " WHERE (job_id, generation) IN
    (SELECT job_id, generation FROM messages WHERE dead = 1 AND dead_at < ?1 ORDER BY dead_at LIMIT ?2)";
const DELETE_OLD_LETTERS: &str = "DELETE FROM messages WHERE id IN
    (SELECT id FROM messages WHERE dead = 1 AND dead_at < ?1 ORDER BY dead_at LIMIT ?2)";
/// Those that were noted as dead before `?1`, and have no message.
const NOTED_DEAD_LONG_AGO: &str = " WHERE job_id IN (SELECT job_id FROM jobs WHERE noted_dead AND touched_at < ?1 LIMIT ?2) AND state = 'dead'
    AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.job_id = jobs.job_id AND messages.generation = jobs.generation)";

/// Whether a kind had more rows than one sweep deletes.
fn delete_old(tx: &Transaction<'_>, now: Now, retention: Retention) -> rusqlite::Result<bool> {
    // A clock that was set ahead is not a year that has passed.
    let wall = now.wall_micros().min(now.at);
    let runs_before = wall - RUNS_KEPT.num_microseconds().unwrap_or_default();
    let delete =
        |sql: &str, before: i64| tx.prepare_cached(sql)?.execute(params![before, SWEEP_ROWS_MAX]);
    let dead = params![now.before(retention.dead_letters), SWEEP_ROWS_MAX, now.at];
    tx.prepare_cached(&[EXPIRE, OF_OLD_LETTERS].concat())?.execute(dead)?;
    let noted = tx.prepare_cached(&[EXPIRE, NOTED_DEAD_LONG_AGO].concat())?.execute(dead)?;
    let deleted = [
        noted,
        delete(DELETE_OLD_LETTERS, now.before(retention.dead_letters))?,
        delete(
            &delete_ended_sql(),
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
    /// From here on the oldest of what has ended goes, and no new job is taken where none of it may.
    Ample,
    /// From here on no new job is taken: the rest is for results.
    Pressing,
    /// From here on no result is taken either: the rest is for runs, records and reports, so that boxes can still be stopped.
    Reserved,
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
            Share::Reserved => (63, 64),
        };
        self.used > self.max / of * part
    }

    fn percent(&self) -> i64 {
        self.used * 100 / self.max.max(1)
    }
}

/// Whether there is room to write.
enum Room {
    Enough,
    TooLittle(Used),
}

/// Deletes what has ended, oldest first, down to three quarters of the largest size; dead jobs only where a new job would else be
/// refused.
fn make_room(tx: &Transaction<'_>, now: Now, writer: Writer) -> rusqlite::Result<Room> {
    let mut is_done = false;
    for round in 0..ROOM_ROUNDS_MAX {
        if is_done || !Pages::of(tx)?.are_above(Share::Ample) {
            break;
        }
        let mut deleted = delete_ended(tx, now, ROOM_ROWS)?;
        if deleted == 0 && writer == Writer::Submit {
            deleted = delete_oldest_dead(tx, now, ROOM_ROWS)?;
        }
        is_done = deleted == 0;
        if round == 0 && deleted > 0 {
            tracing::warn!(
                "the queue file is nearly full, so the oldest finished jobs are deleted with their results: raise `file_mib_max` under [cloud]"
            );
        }
    }
    let share = match writer {
        // More may be deleted at the next write.
        Writer::Submit if !is_done => Share::Pressing,
        Writer::Submit => Share::Ample,
        Writer::Commit => Share::Reserved,
    };
    let pages = Pages::of(tx)?;
    Ok(if pages.are_above(share) { Room::TooLittle(Used::of(tx, &pages)?) } else { Room::Enough })
}

/// What fills the file.
struct Used {
    percent: i64,
    open: u64,
    dead: u64,
    results: u64,
}

impl Used {
    fn of(c: &Connection, pages: &Pages) -> rusqlite::Result<Self> {
        let count = |sql: &str| c.prepare_cached(sql)?.query_row([], |row| row.get(0));
        Ok(Self {
            percent: pages.percent(),
            open: count("SELECT coalesce(sum(live), 0) FROM message_counts")?,
            dead: count("SELECT coalesce(sum(dead), 0) FROM message_counts")?,
            results: count("SELECT count(*) FROM results")?,
        })
    }

    fn error(&self) -> PortError {
        let Self { percent, open, dead, results } = self;
        let kept = show_duration(KEPT_MIN);
        let what = format!(
            "the queue file is {percent} % full: {open} jobs wait or run, {dead} dead jobs and {results} results are kept, each for {kept} at least"
        );
        PortError::new(PortErrorClass::Full, what).hint(
            "wait until workers have done some jobs and their results are older, raise `file_mib_max` under [cloud], or delete jobs: `gpuctl purge POOL`, or `gpuctl jobs delete --before` for finished ones",
        )
    }
}

/// Deletes the first `?2` jobs that ended before `?1`.
fn delete_ended_sql() -> String {
    format!(
        "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs INDEXED BY jobs_over
           WHERE state IN {ENDED} AND touched_at < ?1 ORDER BY touched_at LIMIT ?2)"
    )
}

/// Deletes jobs that have ended and are not new, oldest first; where there are none those that have no result.
fn delete_ended(tx: &Transaction<'_>, now: Now, jobs: u32) -> rusqlite::Result<usize> {
    let deleted =
        tx.prepare_cached(&delete_ended_sql())?.execute(params![now.before(KEPT_MIN), jobs])?;
    if deleted > 0 {
        return Ok(deleted);
    }
    tx.prepare_cached(
        "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs INDEXED BY jobs_by_state WHERE state IN ('purged', 'expired')
           AND NOT EXISTS (SELECT 1 FROM results WHERE results.job_id = jobs.job_id) LIMIT ?1)",
    )?
    .execute([jobs])
}

/// Their jobs are `expired` then, and go with those that have ended.
fn delete_oldest_dead(tx: &Transaction<'_>, now: Now, jobs: u32) -> rusqlite::Result<usize> {
    let old = params![now.before(KEPT_MIN), jobs, now.at];
    tx.prepare_cached(&[EXPIRE, OF_OLD_LETTERS].concat())?.execute(old)?;
    let letters = tx.prepare_cached(DELETE_OLD_LETTERS)?.execute(&old[..2])?;
    let noted = tx.prepare_cached(&[EXPIRE, NOTED_DEAD_LONG_AGO].concat())?.execute(old)?;
    Ok(letters + noted)
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
