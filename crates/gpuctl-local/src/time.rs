//! The time in the file: what ages there ages by the kernel's monotonic clock, so that no step of the wall clock hides a message, ends a
//! lease or makes a worker look silent.
//!
//! A time is kept in microseconds of the file's own time, which began as the wall clock's and goes on with the monotonic clock; readers
//! get it converted to their wall clock. A boot begins a new monotonic clock: the file's time goes on from there by the wall clock, but
//! never backwards, and by `OFF_MAX` at most. A machine's suspension counts for nothing, as workers and controllers are suspended with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_core::units::Timestamp;
use rusqlite::{Connection, Transaction, params};
use rustix::time::{ClockId, clock_gettime};

/// The machine's clocks, which tests replace.
pub trait MachineClocks: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// A clock that no user sets, which begins with each boot.
    fn monotonic(&self) -> TimeDelta;

    /// A text that is another one after each boot.
    fn boot_id(&self) -> String;
}

/// The clocks of this machine's kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelClocks;

impl MachineClocks for KernelClocks {
    fn wall(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> TimeDelta {
        let since_boot = clock_gettime(ClockId::Monotonic);
        TimeDelta::seconds(since_boot.tv_sec) + TimeDelta::nanoseconds(since_boot.tv_nsec)
    }

    fn boot_id(&self) -> String {
        // Where it cannot be read a boot is told by the monotonic clock, which begins again.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
    }
}

/// How far the wall clock may be from where it was expected before that counts as a step: less is the time between two readings.
const STEP_MICROS_MIN: i64 = 250_000;

/// How much older a boot makes what is in the file: a clock may begin far ahead, and what is kept for days must not go for that. All that
/// waits for minutes is due by then.
const OFF_MAX: TimeDelta = TimeDelta::days(1);

/// The file's time of an open file; cloning shares it.
#[derive(Clone)]
pub(crate) struct FileTime {
    clocks: Arc<dyn MachineClocks>,
    /// The file's time at the boot.
    base: i64,
    /// The wall clock less the file's time, in microseconds.
    skew: Arc<AtomicI64>,
}

/// One instant, in both times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// In the file's time.
    pub(crate) at: i64,
    skew: i64,
}

impl FileTime {
    /// The file's time as its `clock` row has it. The first to open the file after a boot goes on from the last time in it, and ends the
    /// leases of the boot before.
    pub(crate) fn of_boot(
        tx: &Transaction<'_>,
        clocks: Arc<dyn MachineClocks>,
    ) -> rusqlite::Result<Self> {
        let boot = clocks.boot_id();
        let row = ClockRow::read(tx)?;
        if row.is_of_this_boot(&*clocks) {
            return Ok(Self::new(clocks, &row));
        }
        let seen_at = row.seen_at.max(newest(tx)?);
        let wall = micros(clocks.wall());
        let at = (wall - row.skew).max(seen_at);
        // A file that was never used before begins with the wall clock's time.
        let at = if row.boot.is_empty() { at } else { at.min(seen_at + span_micros(OFF_MAX)) };
        let base = at - span_micros(clocks.monotonic());
        tx.execute(
            "UPDATE clock SET boot = ?1, base = ?2, skew = ?3, seen_at = ?4",
            params![boot, base, wall - at, at],
        )?;
        tx.execute(
            "UPDATE messages SET receipt = NULL, visible_at = min(visible_at, ?1) WHERE receipt IS NOT NULL",
            [at],
        )?;
        tx.execute("UPDATE lease SET owner = NULL, until = 0", [])?;
        Ok(Self::new(clocks, &ClockRow { boot, base, skew: wall - at, seen_at: at }))
    }

    /// The file's time, where the row is of this boot: this writes nothing.
    pub(crate) fn of_row(
        c: &Connection,
        clocks: &Arc<dyn MachineClocks>,
    ) -> rusqlite::Result<Option<Self>> {
        let row = ClockRow::read(c)?;
        Ok(row.is_of_this_boot(&**clocks).then(|| Self::new(clocks.clone(), &row)))
    }

    fn new(clocks: Arc<dyn MachineClocks>, row: &ClockRow) -> Self {
        Self { clocks, base: row.base, skew: Arc::new(AtomicI64::new(row.skew)) }
    }

    /// This instant.
    pub(crate) fn now(&self) -> Now {
        let at = self.base.saturating_add(span_micros(self.clocks.monotonic()));
        let found = micros(self.clocks.wall()) - at;
        let known = self.skew.load(Ordering::Relaxed);
        // Kept as it is where it can be: a time that was read twice is then the same twice.
        let skew = if (found - known).abs() < STEP_MICROS_MIN { known } else { found };
        self.skew.store(skew, Ordering::Relaxed);
        Now { at, skew }
    }
}

impl Now {
    /// A time of the file, by the wall clock of now.
    pub(crate) fn wall(self, at: i64) -> Timestamp {
        timestamp(at.saturating_add(self.skew))
    }

    /// The wall clock, in microseconds.
    pub(crate) fn wall_micros(self) -> i64 {
        self.at.saturating_add(self.skew)
    }

    /// A time of the file, by a wall clock that was never set.
    pub(crate) fn unstepped(self, at: i64) -> Timestamp {
        timestamp(at)
    }

    /// A time by the wall clock of now, in the file's time.
    pub(crate) fn file(self, at: Timestamp) -> i64 {
        micros(at).saturating_sub(self.skew)
    }

    /// In the file's time, this long from now.
    pub(crate) fn after(self, span: TimeDelta) -> i64 {
        self.at.saturating_add(span_micros(span))
    }

    /// In the file's time, this long ago.
    pub(crate) fn before(self, span: TimeDelta) -> i64 {
        self.at.saturating_sub(span_micros(span))
    }

    /// Notes in the file how its time and the wall clock are to each other, for the first who opens it after a boot.
    pub(crate) fn note(self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.prepare_cached("UPDATE clock SET skew = ?1, seen_at = ?2")?
            .execute([self.skew, self.at])
            .map(drop)
    }
}

/// The newest of the times that are written all the time: where only a worker runs, its reports.
fn newest(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.query_row(
        "SELECT max(coalesce((SELECT sent_at FROM messages ORDER BY id DESC LIMIT 1), ?1), coalesce((SELECT max(at) FROM reports), ?1))",
        [i64::MIN],
        |row| row.get(0),
    )
}

struct ClockRow {
    boot: String,
    base: i64,
    skew: i64,
    seen_at: i64,
}

impl ClockRow {
    fn is_of_this_boot(&self, clocks: &dyn MachineClocks) -> bool {
        let now = self.base.saturating_add(span_micros(clocks.monotonic()));
        self.boot == clocks.boot_id() && now >= self.seen_at
    }

    fn read(c: &Connection) -> rusqlite::Result<Self> {
        c.query_row("SELECT boot, base, skew, seen_at FROM clock", [], |row| {
            Ok(Self {
                boot: row.get(0)?,
                base: row.get(1)?,
                skew: row.get(2)?,
                seen_at: row.get(3)?,
            })
        })
    }
}

/// A time by the wall clock as the file keeps it: microseconds since 1970.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.timestamp_micros()
}

/// A time by the wall clock read from the file.
pub(crate) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(micros).unwrap_or_default()
}

/// A span in microseconds; a negative one is zero.
pub(crate) fn span_micros(span: TimeDelta) -> i64 {
    span.num_microseconds().unwrap_or(i64::MAX).max(0)
}
