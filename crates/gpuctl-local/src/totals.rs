//! What the jobs and runs of a period add up to, from indexes that hold all of it: a report over hundreds of thousands reads no job and no run.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use gpuctl_control::job::JobState;
use gpuctl_control::ports::Totals;
use gpuctl_core::cost::{RunTotal, billed_seconds};
use gpuctl_core::offering::Offering;
use gpuctl_core::period::Period;
use rusqlite::{Connection, Row, params};

use crate::ledger::offering;
use crate::time::{micros, timestamp};

pub(crate) fn totals(c: &Connection, period: Period) -> rusqlite::Result<Totals> {
    let (begin, end) = (micros(period.begin), micros(period.end));
    let first: Option<i64> = c
        .prepare_cached(
            "SELECT min(submitted_at) FROM jobs WHERE submitted_at >= ?1 AND submitted_at < ?2",
        )?
        .query_row([begin, end], |row| row.get(0))?;
    let mut waits: Vec<TimeDelta> = c
        .prepare_cached(
            "SELECT waited FROM jobs INDEXED BY jobs_by_wait WHERE waited IS NOT NULL AND submitted_at >= ?1 AND submitted_at < ?2",
        )?
        .query_map([begin, end], |row| row.get(0).map(TimeDelta::microseconds))?
        .collect::<Result<_, _>>()?;
    waits.sort_unstable();
    Ok(Totals {
        first_job: first.map(timestamp),
        states: states(c, begin, end)?,
        waits,
        runs: runs(c, begin, end)?,
    })
}

fn states(c: &Connection, begin: i64, end: i64) -> rusqlite::Result<BTreeMap<JobState, u32>> {
    let mut count = c.prepare_cached(
        "SELECT count(*) FROM jobs INDEXED BY jobs_by_state WHERE state = ?1 AND submitted_at >= ?2 AND submitted_at < ?3",
    )?;
    let mut states = BTreeMap::new();
    for state in JobState::ALL.into_iter().filter(|state| *state != JobState::Running) {
        let name = if state == JobState::Queued { "live" } else { state.as_str() };
        let jobs: u32 = count.query_row(params![name, begin, end], |row| row.get(0))?;
        if jobs > 0 {
            states.insert(state, jobs);
        }
    }
    Ok(states)
}

/// As `gpuctl_core::cost::run_totals`, which a contract test compares it with. Added up here: SQLite would sort all of them to group them.
fn runs(c: &Connection, begin: i64, end: i64) -> rusqlite::Result<Vec<RunTotal>> {
    const SPAN: &str = "SELECT started_at, stopped_at, instance_type, zone, capacity FROM runs INDEXED BY runs_by_end WHERE";
    const RAN: &str = "started_at < ?2 AND refusal_class IS NULL
        AND (ready_at IS NOT NULL OR stopped_at IS NULL OR stopped_at <> started_at)";
    let sql =
        format!("{SPAN} stopped_at >= ?1 AND {RAN} UNION ALL {SPAN} stopped_at IS NULL AND {RAN}");
    let mut query = c.prepare_cached(&sql)?;
    let mut rows = query.query([begin, end])?;
    let mut totals: Vec<RunTotal> = Vec::new();
    while let Some(row) = rows.next()? {
        let (started, stopped): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
        let ran = stopped.unwrap_or(end).min(end) - started.max(begin);
        // As a clock that was set back leaves them.
        if ran < 0 {
            continue;
        }
        let index = match totals.iter().position(|total| is_of(total, row)) {
            Some(index) => index,
            None => {
                totals.push(nothing_yet(row, started)?);
                totals.len() - 1
            }
        };
        add(&mut totals[index], started, ran, started >= begin);
    }
    Ok(totals)
}

/// Whether the run in this row was bought as those of the total.
fn is_of(total: &RunTotal, row: &Row<'_>) -> bool {
    let text = |column: usize| row.get_ref(column).ok()?.as_str_or_null().ok()?;
    let bought = [text(2), text(3), text(4)];
    match &total.offering {
        Some(Offering { instance_type, zone, capacity }) => {
            bought == [instance_type.as_str(), zone.as_str(), capacity.as_str()].map(Some)
        }
        None => bought[0].is_none() || bought[1].is_none(),
    }
}

fn nothing_yet(row: &Row<'_>, started: i64) -> rusqlite::Result<RunTotal> {
    let (offering, first) = (offering(row, 2)?, timestamp(started));
    Ok(RunTotal { offering, first, starts: 0, box_seconds: 0, billed_seconds: 0 })
}

/// Adds a run that began then, in the period or before it, and was up for `ran` microseconds of it.
fn add(total: &mut RunTotal, started: i64, ran: i64, is_start: bool) {
    total.first = total.first.min(timestamp(started));
    total.starts += u32::from(is_start);
    total.box_seconds += (ran + 500_000) / 1_000_000;
    // The minimum is billed once a start.
    let whole = TimeDelta::microseconds(ran);
    total.billed_seconds += if is_start { billed_seconds(whole) } else { whole.num_seconds() };
}
