//! Jobs and their results in the file: one result for each generation of a job, and a state that follows from message and result.

use gpuctl_control::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState};
use gpuctl_control::ports::{
    Committed, JOBS_DELETED_MAX, JobEntry, JobFilter, JobPage, JobProblem, JobRan, JobSpan,
    SERVICE_WEIGHT,
};
use gpuctl_control::wire::job::{
    failure_from_json, failure_to_json, job_from_json, job_to_json, result_from_json,
    result_to_json,
};
use gpuctl_core::observation::UrgentJob;
use gpuctl_core::units::{BoxId, QueueName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::ledger::unreadable;
use crate::schema::ENDED;
use crate::time::{Now, micros, timestamp};

/// Notes a job. One that is known stays as it is, unless this is a newer generation of it: that one has no result yet.
pub(crate) fn note_job(tx: &Transaction<'_>, now: Now, job: &Job) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO jobs (job_id, submitted_at, generation, touched_at, job) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (job_id) DO UPDATE SET submitted_at = ?2, generation = ?3, touched_at = ?4, job = ?5, noted_dead = 0, expired = 0,
           problem = NULL, waited = NULL WHERE generation < ?3",
    )?
    .execute(params![
        job.id.as_str(),
        micros(job.submitted_at),
        job.generation,
        now.at,
        job_to_json(job)
    ])
    .map(drop)
}

/// Those of the jobs that are not known in this generation, or a newer one.
pub(crate) fn unknown(c: &Connection, jobs: &[Job]) -> rusqlite::Result<Vec<Job>> {
    let mut known = c.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE job_id = ?1 AND generation >= ?2)",
    )?;
    let mut unknown = Vec::new();
    for job in jobs {
        if !known.query_row(params![job.id.as_str(), job.generation], |row| row.get(0))? {
            unknown.push(job.clone());
        }
    }
    Ok(unknown)
}

/// A result as the file keeps it. Made before the file is locked: a long one takes longer to write as JSON than to insert.
pub(crate) struct Document {
    job: Job,
    box_id: BoxId,
    /// None of a cancellation, which no worker received.
    received_at: Option<i64>,
    inference: Option<i64>,
    succeeded: bool,
    text: String,
}

impl Document {
    pub(crate) fn of(result: &JobResult) -> Self {
        Self {
            job: result.job.clone(),
            box_id: result.box_id.clone(),
            received_at: result.is_of_worker().then(|| micros(result.received_at)),
            inference: result.inference.num_microseconds(),
            succeeded: result.outcome.is_ok(),
            text: result_to_json(result),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// Keeps the result, unless its generation has one.
pub(crate) fn commit(
    tx: &Transaction<'_>,
    now: Now,
    result: &Document,
) -> rusqlite::Result<Committed> {
    let Document { job, succeeded, text, .. } = result;
    // Before the result, with which the job's state changes: then each index of the row is changed once.
    if !note_end(tx, now, result)? {
        note_job(tx, now, job)?;
        note_end(tx, now, result)?;
    }
    let written = tx
        .prepare_cached("INSERT INTO results VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")?
        .execute(params![job.id.as_str(), job.generation, succeeded, text])?;
    if written == 0 {
        return Ok(Committed::AlreadyThere);
    }
    note_service(tx, result)?;
    Ok(Committed::Written)
}

/// Keeps a cancellation as the result, and deletes the message: no worker receives it any more, and one that has it loses its lease.
pub(crate) fn cancel(
    tx: &Transaction<'_>,
    now: Now,
    cancelled: &Document,
) -> rusqlite::Result<Committed> {
    let committed = commit(tx, now, cancelled)?;
    if committed == Committed::Written {
        let job = &cancelled.job;
        tx.prepare_cached("DELETE FROM messages WHERE job_id = ?1 AND generation = ?2")?
            .execute(params![job.id.as_str(), job.generation])?;
    }
    Ok(committed)
}

/// Notes when the job ended and how long it had waited, if this is its newest generation and has no result; returns whether it is.
fn note_end(tx: &Transaction<'_>, now: Now, result: &Document) -> rusqlite::Result<bool> {
    let (id, generation) = (result.job.id.as_str(), result.job.generation);
    tx.prepare_cached(
        "UPDATE jobs SET touched_at = ?3, problem = NULL, waited = ?4 - submitted_at
         WHERE job_id = ?1 AND generation = ?2 AND state NOT IN ('succeeded', 'failed', 'cancelled')",
    )?
    .execute(params![id, generation, now.at, result.received_at])
    .map(|changed| changed > 0)
}

/// Moves the mean of the box towards what this job took: constant cost, however many results there are.
fn note_service(tx: &Transaction<'_>, result: &Document) -> rusqlite::Result<()> {
    if !result.succeeded {
        return Ok(());
    }
    tx.prepare_cached("INSERT INTO service VALUES (?1, ?2) ON CONFLICT DO UPDATE SET mean = mean + (?2 - mean) / ?3")?
        .execute(params![result.box_id.as_str(), result.inference, SERVICE_WEIGHT])
        .map(drop)
}

/// The job with the least patience of those that no worker has received.
pub(crate) fn most_urgent(
    c: &Connection,
    queue: &QueueName,
) -> rusqlite::Result<Option<UrgentJob>> {
    c.prepare_cached(
        "SELECT job_id, begin_by FROM messages INDEXED BY messages_urgent
         WHERE queue = ?1 AND dead = 0 AND begin_by IS NOT NULL AND receive_count = 0 ORDER BY begin_by LIMIT 1",
    )?
    .query_row([queue.as_str()], |row| {
        Ok(UrgentJob { id: row.get(0)?, begin_by: timestamp(row.get(1)?) })
    })
    .optional()
}

/// Notes why a generation of a job has no result. An older generation, or one with a result, keeps none.
pub(crate) fn note_problem(
    tx: &Transaction<'_>,
    now: Now,
    problem: &JobProblem,
) -> rusqlite::Result<()> {
    note_job(tx, now, &problem.job)?;
    tx.prepare_cached(
        "UPDATE jobs SET problem = ?3, noted_dead = max(noted_dead, ?4), touched_at = CASE WHEN ?4 THEN ?5 ELSE touched_at END
         WHERE job_id = ?1 AND generation = ?2 AND state NOT IN ('succeeded', 'failed', 'cancelled')",
    )?
    .execute(params![
        problem.job.id.as_str(),
        problem.job.generation,
        failure_to_json(&problem.failure),
        problem.dead,
        now.at
    ])
    .map(drop)
}

pub(crate) fn results(c: &Connection, id: &JobId) -> rusqlite::Result<Vec<JobResult>> {
    c.prepare_cached("SELECT result FROM results WHERE job_id = ?1 ORDER BY generation DESC")?
        .query_map([id.as_str()], |row| {
            result_from_json(&row.get::<_, String>(0)?).map_err(|error| unreadable(0, error))
        })?
        .collect()
}

/// Deletes ended jobs, at most `JOBS_DELETED_MAX`. Dead ones stay as long as their messages do.
pub(crate) fn delete_jobs(tx: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<Vec<JobId>> {
    let deleted: Vec<String> = tx
        .prepare_cached(&format!(
            "DELETE FROM jobs WHERE job_id IN (SELECT job_id FROM jobs
               WHERE state IN {ENDED} AND submitted_at < ?1 LIMIT ?2) RETURNING job_id"
        ))?
        .query_map(params![micros(before), JOBS_DELETED_MAX], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(deleted.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Whether a worker holds the message of the job's newest generation now.
const IS_HELD: &str = "EXISTS (SELECT 1 FROM messages WHERE messages.job_id = jobs.job_id AND messages.generation = jobs.generation
    AND dead = 0 AND receipt IS NOT NULL AND visible_at > ?1)";

/// The dead letter of the job's newest generation.
const DEAD: &str = "FROM messages WHERE messages.job_id = jobs.job_id AND messages.generation = jobs.generation AND dead = 1";

/// A job's parts, and where they are.
fn select(from: &str) -> String {
    format!(
        "SELECT jobs.job, results.result, CASE WHEN state <> 'live' THEN state WHEN {IS_HELD} THEN 'running' ELSE 'queued' END, problem,
           (SELECT reason {DEAD}), (SELECT receive_count {DEAD})
         FROM {from} LEFT JOIN results ON results.job_id = jobs.job_id AND results.generation = jobs.generation"
    )
}

pub(crate) fn job(c: &Connection, now: Now, id: &JobId) -> rusqlite::Result<Option<JobEntry>> {
    c.prepare_cached(&format!("{} WHERE jobs.job_id = ?2", select("jobs")))?
        .query_row(params![now.at, id.as_str()], job_entry)
        .optional()
}

/// Jobs in a state are found by that state's own index, and running ones by the few messages that are held.
pub(crate) fn jobs(c: &Connection, now: Now, filter: JobFilter) -> rusqlite::Result<Vec<JobEntry>> {
    jobs_page(c, now, &JobPage { filter, task: None, text: None, after: None })
}

/// A page begins behind the last job of the one before, which the index finds.
pub(crate) fn jobs_page(
    c: &Connection,
    now: Now,
    page: &JobPage,
) -> rusqlite::Result<Vec<JobEntry>> {
    let filter = page.filter;
    // Of one task the index of that is read, in the same order; few messages are held.
    let index = |other| if page.task.is_some() { "jobs INDEXED BY jobs_by_task" } else { other };
    let (from, is_wanted) = match filter.state {
        None => (index("jobs INDEXED BY jobs_by_time"), "?4 IS NULL".to_owned()),
        Some(JobState::Running) => (
            "(SELECT DISTINCT job_id AS held_id FROM messages WHERE receipt IS NOT NULL AND visible_at > ?1 AND dead = 0)
             CROSS JOIN jobs ON jobs.job_id = held_id",
            format!("?4 = 'running' AND +state = 'live' AND {IS_HELD}"),
        ),
        Some(JobState::Queued) => (
            index("jobs INDEXED BY jobs_by_state"),
            format!("?4 = 'queued' AND state = 'live' AND NOT {IS_HELD}"),
        ),
        Some(_) => (index("jobs INDEXED BY jobs_by_state"), "state = ?4".to_owned()),
    };
    let is_of_task = match page.task {
        Some(_) => "CASE WHEN json_valid(jobs.job) THEN json_extract(jobs.job, '$.task') END = ?7",
        None => "?7 IS NULL",
    };
    let has_text = match page.text {
        Some(_) => HAS_TEXT,
        None => "?8 IS NULL AND ?9 IS NULL",
    };
    let text = page.text.as_deref().map(patterns).unzip();
    let sql = format!(
        "{} WHERE {is_wanted} AND jobs.submitted_at >= ?2 AND jobs.submitted_at <= ?5 AND (jobs.submitted_at < ?5 OR jobs.job_id < ?6)
           AND {is_of_task} AND {has_text} ORDER BY jobs.submitted_at DESC, jobs.job_id DESC LIMIT ?3",
        select(from)
    );
    let (state, since) =
        (filter.state.map(JobState::as_str), filter.since.map_or(i64::MIN, micros));
    let (before, id) = match &page.after {
        Some(after) => (micros(after.submitted_at), after.id.as_str()),
        None => (i64::MAX, ""),
    };
    c.prepare_cached(&sql)?
        .query_map(
            params![now.at, since, filter.limit, state, before, id, page.task, text.0, text.1],
            job_entry,
        )?
        .collect()
}

/// What is searched of a job: all of it but its output. In its message URIs are escaped.
const HAS_TEXT: &str =
    "(jobs.job LIKE ?8 ESCAPE '!' OR jobs.job LIKE ?9 ESCAPE '!' OR problem LIKE ?8 ESCAPE '!'
    OR (results.succeeded = 0 AND results.result LIKE ?8 ESCAPE '!'))";

/// Patterns that match the text as it is in JSON, and in a URI.
fn patterns(text: &str) -> (String, String) {
    let pattern = |text: &str| {
        let mut pattern = String::from("%");
        for character in text.chars() {
            if matches!(character, '%' | '_' | '!') {
                pattern.push('!');
            }
            pattern.push(character);
        }
        pattern + "%"
    };
    let json = serde_json::Value::from(text).to_string();
    (pattern(&json[1..json.len() - 1]), pattern(&InputUri::escaped(text)))
}

/// When the newest jobs waited and ran.
pub(crate) fn job_spans(
    c: &Connection,
    since: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<JobSpan>> {
    c.prepare_cached(
        "SELECT submitted_at, state = 'live', json_extract(result, '$.box'), json_extract(result, '$.received_at'),
           json_extract(result, '$.finished_at')
         FROM jobs INDEXED BY jobs_by_time LEFT JOIN results
           ON results.job_id = jobs.job_id AND results.generation = jobs.generation AND waited IS NOT NULL AND json_valid(result)
         WHERE submitted_at >= ?1 ORDER BY submitted_at DESC, jobs.job_id DESC LIMIT ?2",
    )?
    .query_map(params![micros(since), limit], |row| {
        let text = |column| row.get::<_, Option<String>>(column);
        let (name, received, finished) = (text(2)?, text(3)?, text(4)?);
        let ran = || {
            Some(JobRan {
                box_id: name?.parse().ok()?,
                received_at: received?.parse().ok()?,
                finished_at: finished?.parse().ok()?,
            })
        };
        Ok(JobSpan { submitted_at: timestamp(row.get(0)?), is_open: row.get(1)?, ran: ran() })
    })?
    .collect()
}

fn job_entry(row: &Row<'_>) -> rusqlite::Result<JobEntry> {
    let job = job_from_json(&row.get::<_, String>(0)?).map_err(|error| unreadable(0, error))?;
    let result = match row.get::<_, Option<String>>(1)? {
        Some(text) => Some(result_from_json(&text).map_err(|error| unreadable(1, error))?),
        None => None,
    };
    let name: String = row.get(2)?;
    let state = JobState::ALL.into_iter().find(|state| state.as_str() == name);
    let state = state.ok_or_else(|| unreadable(2, format!("`{name}` is not a job's state")))?;
    let problem = match row.get::<_, Option<String>>(3)? {
        Some(text) => Some(failure_from_json(&text).map_err(|error| unreadable(3, error))?),
        None => match (row.get::<_, Option<String>>(4)?, row.get(5)?) {
            (Some(reason), _) => Some(buried(reason)),
            (None, Some(receives)) => Some(JobFailure::unfinished(receives)),
            (None, None) => None,
        },
    };
    let problem = problem.filter(|_| result.is_none());
    Ok(JobEntry { job, state, result, problem })
}

/// What is known of a job that was moved to the dead letters, and of which nothing else was noted.
fn buried(reason: String) -> JobFailure {
    JobFailure { code: "job.buried".to_owned(), message: reason, hint: None }
}
