//! The ledger in the same file: the right to reconcile, holds, runs, records, reports, jobs and their results.

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::hold::outdated;
use gpuctl_control::job::{Job, JobId, JobResult, JobState};
use gpuctl_control::ports::{
    Committed, Fence, JobEntry, JobFilter, JobProblem, Ledger, PoolMemory, PortError, QueueMemory,
    SERVICE_WEIGHT, WorkerReport,
};
use gpuctl_control::wire::job::{job_from_json, job_to_json, result_from_json, result_to_json};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, HoldWants, RUNS_REMEMBERED_MAX, Run, SeenQueue};
use gpuctl_core::offering::{Offering, Refusal, RefusalClass};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{MicroUsd, PoolId, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::store::{Store, micros, now_micros, timestamp};

/// Records kept; a record of a quiet time stands for many reconciles.
const RECORDS_MAX: u32 = 10_000;
/// Runs kept, over all boxes.
const RUNS_MAX: u32 = 100_000;
/// Jobs with a result kept.
const JOBS_MAX: u32 = 1_000_000;
/// What is beyond these limits is deleted each time that this many records have been added.
const CLEAR_EVERY: i64 = 1_000;

#[async_trait]
impl Ledger for Store {
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError> {
        let owner = owner.to_owned();
        self.off_thread(move |store| store.write(|tx| lease(tx, &owner, lasts))).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), PortError> {
        let number = fence.number;
        self.off_thread(move |store| {
            store.write(|tx| {
                tx.prepare_cached("UPDATE lease SET owner = NULL, until = 0 WHERE number = ?1")?
                    .execute([number])
                    .map(drop)
            })
        })
        .await
    }

    async fn memory(&self, pool: &PoolId) -> Result<PoolMemory, PortError> {
        let pool = pool.clone();
        self.off_thread(move |store| store.read(|c| memory(c, &pool))).await
    }

    async fn remember_queue(
        &self,
        pool: &PoolId,
        queue: &QueueMemory,
        _: Option<&Fence>,
    ) -> Result<(), PortError> {
        let (pool, queue) = (pool.clone(), queue.clone());
        self.off_thread(move |store| store.write(|tx| remember_queue(tx, &pool, &queue))).await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        let hold = hold.clone();
        self.off_thread(move |store| match store.write_durably(|tx| set_hold(tx, &hold))? {
            0 => Err(outdated(&hold)),
            _ => Ok(()),
        })
        .await
    }

    async fn claim_notice(&self, key: &str, again_after: TimeDelta) -> Result<bool, PortError> {
        let key = key.to_owned();
        self.off_thread(move |store| store.write(|tx| claim_notice(tx, &key, again_after))).await
    }

    async fn save_run(&self, run: &Run, _: Option<&Fence>) -> Result<(), PortError> {
        let run = run.clone();
        self.off_thread(move |store| store.write(|tx| save_run(tx, &run))).await
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.off_thread(move |store| {
            store.read(|c| {
                c.prepare_cached(&format!(
                    "{RUNS} WHERE coalesce(stopped_at, ?1) >= ?1 ORDER BY started_at"
                ))?
                .query_map([micros(since)], run)?
                .collect()
            })
        })
        .await
    }

    async fn record(&self, record: &Record, _: &Fence) -> Result<(), PortError> {
        let record = record.clone();
        self.off_thread(move |store| store.write(|tx| add_record(tx, &record))).await
    }

    async fn last_reconcile(&self) -> Result<Option<Timestamp>, PortError> {
        let last = |c: &Connection| {
            c.prepare_cached("SELECT last_at FROM records ORDER BY id DESC LIMIT 1")?
                .query_row([], |row| row.get::<_, Option<String>>(0))
                .optional()
        };
        let at = self.off_thread(move |store| store.read(last)).await?;
        Ok(at.flatten().and_then(|at| at.parse().ok()))
    }

    async fn report(&self, report: &WorkerReport) -> Result<(), PortError> {
        let report = report.clone();
        self.off_thread(move |store| store.write(|tx| save_report(tx, &report))).await
    }

    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        let jobs = jobs.to_vec();
        self.off_thread(move |store| {
            store.write_durably(|tx| {
                let mut insert = tx.prepare_cached(
                    "INSERT OR IGNORE INTO jobs (job_id, submitted_at, job) VALUES (?1, ?2, ?3)",
                )?;
                for job in &jobs {
                    insert.execute(params![
                        job.id.as_str(),
                        micros(job.submitted_at),
                        job_to_json(job)
                    ])?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        let mut committed = Vec::with_capacity(results.len());
        for result in results.to_vec() {
            committed.push(self.off_thread(move |store| store.commit_now(&result)).await);
        }
        committed
    }

    async fn note_problem(&self, _: &JobProblem) -> Result<(), PortError> {
        Ok(())
    }

    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        Ok(self.job(id).await?.and_then(|entry| entry.result).into_iter().collect())
    }

    async fn delete_jobs(&self, _: Timestamp) -> Result<Vec<JobId>, PortError> {
        Ok(Vec::new())
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        let id = id.clone();
        self.off_thread(move |store| {
            store.read(|c| {
                c.prepare_cached(&format!("{JOBS} WHERE jobs.job_id = ?1"))?
                    .query_row(params![id.as_str(), now_micros()], job_entry)
                    .optional()
            })
        })
        .await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        self.off_thread(move |store| store.read(|c| jobs(c, filter))).await
    }
}

impl Store {
    /// `Ledger::commit`, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn commit_now(&self, result: &JobResult) -> Result<Committed, PortError> {
        let job = &result.job;
        let written = self.write_durably(|tx| {
            tx.prepare_cached(
                "INSERT INTO jobs (job_id, submitted_at, job, result, succeeded) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET result = ?4, succeeded = ?5 WHERE result IS NULL",
            )?
            .execute(params![
                job.id.as_str(),
                micros(job.submitted_at),
                job_to_json(job),
                result_to_json(result),
                result.outcome.is_ok()
            ])
            .and_then(|written| note_service(tx, result).map(|()| written))
        })?;
        Ok(if written == 0 { Committed::AlreadyThere } else { Committed::Written })
    }
}

fn lease(tx: &Transaction<'_>, owner: &str, lasts: TimeDelta) -> rusqlite::Result<Option<Fence>> {
    let now = now_micros();
    let until = now.saturating_add(lasts.num_microseconds().unwrap_or(i64::MAX));
    let number = tx
        .prepare_cached("UPDATE lease SET owner = ?1, number = number + 1, until = ?3 WHERE until <= ?2 RETURNING number")?
        .query_row(params![owner, now, until], |row| row.get(0))
        .optional()?;
    Ok(number.map(|number| Fence { owner: owner.to_owned(), number, until: timestamp(until) }))
}

fn memory(c: &Connection, pool: &PoolId) -> rusqlite::Result<PoolMemory> {
    let hold = c
        .prepare_cached(
            "SELECT wants_running, since, until, by, why, over_budget FROM holds WHERE pool = ?1",
        )?
        .query_row([pool.as_str()], |row| {
            Ok(Hold {
                pool: pool.clone(),
                wants: if row.get(0)? { HoldWants::Running } else { HoldWants::Stopped },
                since: timestamp(row.get(1)?),
                until: timestamp(row.get(2)?),
                by: row.get(3)?,
                why: row.get(4)?,
                over_budget: row.get::<_, Option<i64>>(5)?.map(MicroUsd),
            })
        })
        .optional()?;
    let runs = c
        .prepare_cached(&format!("{RUNS} WHERE pool = ?1 AND (stopped_at IS NULL OR started_at >= coalesce(
               (SELECT started_at FROM runs WHERE pool = ?1 ORDER BY started_at DESC LIMIT 1 OFFSET ?2), 0)) ORDER BY started_at DESC"))?
        .query_map(params![pool.as_str(), RUNS_REMEMBERED_MAX - 1], run)?
        .collect::<Result<_, _>>()?;
    let queue = c
        .prepare_cached(
            "SELECT at, visible, in_flight, delayed, dead, oldest_sent_at, empty_since FROM queue_memory WHERE pool = ?1",
        )?
        .query_row([pool.as_str()], |row| {
            let seen = SeenQueue {
                visible: row.get(1)?,
                in_flight: row.get(2)?,
                delayed: row.get(3)?,
                dead: row.get(4)?,
                oldest_sent_at: row.get::<_, Option<i64>>(5)?.map(timestamp),
                empty_since: row.get::<_, Option<i64>>(6)?.map(timestamp),
            };
            Ok(QueueMemory { seen, at: timestamp(row.get(0)?) })
        })
        .optional()?;
    Ok(PoolMemory { hold, runs, queue, service: service(c, pool)? })
}

/// How long a job keeps the model of a pool's box busy: the mean over its boxes' own moving means.
fn service(c: &Connection, pool: &PoolId) -> rusqlite::Result<Option<TimeDelta>> {
    c.prepare_cached(
        "SELECT CAST(avg(mean) AS INTEGER) FROM service JOIN boxes USING (box) WHERE pool = ?1",
    )?
    .query_row([pool.as_str()], |row| row.get::<_, Option<i64>>(0))
    .map(|mean| mean.map(TimeDelta::microseconds))
}

/// Moves the mean of the box towards what this job took: constant cost, however many results there are.
fn note_service(tx: &Transaction<'_>, result: &JobResult) -> rusqlite::Result<()> {
    if result.outcome.is_err() {
        return Ok(());
    }
    tx.prepare_cached("INSERT INTO service VALUES (?1, ?2) ON CONFLICT DO UPDATE SET mean = mean + (?2 - mean) / ?3")?
        .execute(params![result.box_id.as_str(), result.inference.num_microseconds(), SERVICE_WEIGHT])
        .map(drop)
}

fn remember_queue(
    tx: &Transaction<'_>,
    pool: &PoolId,
    queue: &QueueMemory,
) -> rusqlite::Result<()> {
    let seen = &queue.seen;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO queue_memory VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        pool.as_str(),
        micros(queue.at),
        seen.visible,
        seen.in_flight,
        seen.delayed,
        seen.dead,
        seen.oldest_sent_at.map(micros),
        seen.empty_since.map(micros)
    ])
    .map(drop)
}

/// Returns how many holds were set: none where a newer one stays.
fn set_hold(tx: &Transaction<'_>, hold: &Hold) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO holds (pool, wants_running, since, until, by, why, over_budget) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET wants_running = ?2, since = ?3, until = ?4, by = ?5, why = ?6, over_budget = ?7
           WHERE since <= ?3",
    )?
    .execute(params![
        hold.pool.as_str(),
        hold.wants == HoldWants::Running,
        micros(hold.since),
        micros(hold.until),
        hold.by,
        hold.why,
        hold.over_budget.map(|most| most.0)
    ])
}

const RUNS: &str = "SELECT box, started_at, pool, ready_at, stopping_at, stopped_at, start_rule, start_text, stop_rule, stop_text, error,
    jobs, instance_type, zone, capacity, refusal_class, refusal_text, interrupted_at FROM runs";

fn claim_notice(tx: &Transaction<'_>, key: &str, again_after: TimeDelta) -> rusqlite::Result<bool> {
    let now = now_micros();
    let told = now - again_after.num_microseconds().unwrap_or(i64::MAX);
    tx.prepare_cached("DELETE FROM notices WHERE at <= ?1")?.execute([told])?;
    let added = tx
        .prepare_cached("INSERT INTO notices VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![key, now])?;
    Ok(added == 1)
}

fn save_run(tx: &Transaction<'_>, run: &Run) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) ON CONFLICT DO UPDATE SET
           ready_at = coalesce(ready_at, ?4), stopping_at = coalesce(stopping_at, ?5), stopped_at = coalesce(stopped_at, ?6),
           stop_rule = coalesce(stop_rule, ?9), stop_text = coalesce(stop_text, ?10), error = coalesce(error, ?11),
           jobs = coalesce(jobs, ?12), refusal_class = coalesce(refusal_class, ?16), refusal_text = coalesce(refusal_text, ?17),
           interrupted_at = coalesce(interrupted_at, ?18)",
    )?
    .execute(params![
        run.box_id.as_str(),
        micros(run.started_at),
        run.pool.as_str(),
        run.ready_at.map(micros),
        run.stopping_at.map(micros),
        run.stopped_at.map(micros),
        run.start.rule.as_str(),
        run.start.text,
        run.stop.as_ref().map(|reason| reason.rule.as_str()),
        run.stop.as_ref().map(|reason| &reason.text),
        run.error,
        run.jobs,
        run.offering.as_ref().map(|offering| &offering.instance_type),
        run.offering.as_ref().map(|offering| &offering.zone),
        run.offering.as_ref().map(|offering| offering.capacity.as_str()),
        run.refusal.as_ref().map(|refusal| refusal.class.as_str()),
        run.refusal.as_ref().map(|refusal| &refusal.text),
        run.interrupted_at.map(micros)
    ])
    .map(drop)
}

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let time = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(timestamp));
    let stop_rule: Option<String> = row.get(8)?;
    let stop = match stop_rule {
        Some(rule) => Some(Reason::new(rule_named(8, &rule)?, row.get::<_, String>(9)?)),
        None => None,
    };
    Ok(Run {
        box_id: row.get::<_, String>(0)?.parse().map_err(|error| unreadable(0, error))?,
        started_at: timestamp(row.get(1)?),
        pool: row.get::<_, String>(2)?.parse().map_err(|error| unreadable(2, error))?,
        ready_at: time(3)?,
        stopping_at: time(4)?,
        stopped_at: time(5)?,
        start: Reason::new(rule_named(6, &row.get::<_, String>(6)?)?, row.get::<_, String>(7)?),
        stop,
        error: row.get(10)?,
        jobs: row.get(11)?,
        offering: offering(row)?,
        refusal: refusal(row)?,
        interrupted_at: time(17)?,
    })
}

fn offering(row: &Row<'_>) -> rusqlite::Result<Option<Offering>> {
    let (Some(instance_type), Some(zone)) = (row.get(12)?, row.get(13)?) else { return Ok(None) };
    let capacity = row.get::<_, String>(14)?.parse().map_err(|error| unreadable(14, error))?;
    Ok(Some(Offering { instance_type, zone, capacity }))
}

fn refusal(row: &Row<'_>) -> rusqlite::Result<Option<Refusal>> {
    let Some(name) = row.get::<_, Option<String>>(15)? else { return Ok(None) };
    let class = RefusalClass::from_name(&name);
    let class =
        class.ok_or_else(|| unreadable(15, format!("`{name}` is not a class of refusals")))?;
    Ok(Some(Refusal { class, text: row.get(16)? }))
}

fn rule_named(column: usize, name: &str) -> rusqlite::Result<Rule> {
    Rule::from_name(name).ok_or_else(|| unreadable(column, format!("`{name}` is not a rule")))
}

fn unreadable(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

fn add_record(tx: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    let last = tx
        .prepare_cached("SELECT id, record FROM records ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let same = last.and_then(|(id, text)| {
        let last: Record = serde_json::from_str(&text).ok()?;
        last.says_the_same(record).then_some(id)
    });
    if let Some(id) = same {
        return tx
            .prepare_cached("UPDATE records SET repeats = repeats + 1, last_at = ?2 WHERE id = ?1")?
            .execute(params![id, record.at])
            .map(drop);
    }
    let text = serde_json::to_string(record).expect("a record of texts and numbers is always JSON");
    tx.prepare_cached("INSERT INTO records (last_at, record) VALUES (?1, ?2)")?
        .execute(params![record.at, text])?;
    if tx.last_insert_rowid() % CLEAR_EVERY == 0 { clear_old(tx) } else { Ok(()) }
}

fn clear_old(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM records WHERE id <= (SELECT max(id) FROM records) - ?1",
        [RECORDS_MAX],
    )?;
    tx.execute(
        "DELETE FROM runs WHERE started_at < (SELECT started_at FROM runs ORDER BY started_at DESC LIMIT 1 OFFSET ?1)",
        [RUNS_MAX],
    )?;
    tx.execute(
        "DELETE FROM jobs WHERE result IS NOT NULL
         AND submitted_at < (SELECT submitted_at FROM jobs ORDER BY submitted_at DESC LIMIT 1 OFFSET ?1)",
        [JOBS_MAX],
    )
    .map(drop)
}

fn save_report(tx: &Transaction<'_>, report: &WorkerReport) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO reports VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            report.box_id.as_str(),
            micros(report.run_started_at),
            micros(report.at),
            report.pid,
            report.ready_at.map(micros),
            report.leases,
            report.idle_since.map(micros),
            report.last_error,
            report.jobs_done
        ])
        .map(drop)
}

/// A job's state follows from its result and its message. It is not stored itself, so it cannot disagree with them.
const JOBS: &str = "SELECT jobs.job, jobs.result,
    CASE WHEN jobs.succeeded = 1 THEN 'succeeded' WHEN jobs.succeeded = 0 THEN 'failed' WHEN messages.id IS NULL THEN 'purged'
         WHEN messages.dead THEN 'dead' WHEN messages.receipt IS NOT NULL AND messages.visible_at > ?2 THEN 'running'
         ELSE 'queued' END AS state
    FROM jobs LEFT JOIN messages ON messages.job_id = jobs.job_id";

fn jobs(c: &Connection, filter: JobFilter) -> rusqlite::Result<Vec<JobEntry>> {
    let state = filter.state.map(JobState::as_str);
    c.prepare_cached(&format!("{JOBS} WHERE (?1 IS NULL OR state = ?1) AND jobs.submitted_at >= ?4 ORDER BY jobs.submitted_at DESC, jobs.job_id DESC LIMIT ?3"))?
        .query_map(params![state, now_micros(), filter.limit, filter.since.map_or(0, micros)], job_entry)?
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
    Ok(JobEntry {
        job,
        state: state.ok_or_else(|| unreadable(2, format!("`{name}` is not a job's state")))?,
        result,
        problem: None,
    })
}
