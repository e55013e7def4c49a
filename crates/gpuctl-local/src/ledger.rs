//! The ledger in the same file: the right to reconcile, holds, runs, records, reports, jobs and their results.

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::hold::outdated;
use gpuctl_control::job::{Job, JobId, JobResult};
use gpuctl_control::keys::{ApiKey, KeyChange, KeyName, taken, unknown as unknown_key};
use gpuctl_control::ports::{
    Committed, Ended, Fence, JobEntry, JobFilter, JobPage, JobProblem, JobSpan, Ledger, PoolMemory,
    PortError, PortErrorClass, QueueMemory, Receipt, Totals, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, HoldWants, RUNS_REMEMBERED_MAX, Run, SeenQueue, UrgentJob};
use gpuctl_core::offering::{Offering, Refusal, RefusalClass};
use gpuctl_core::period::Period;
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{MicroUsd, PoolId, QueueName, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::group::{Outcome, Write};
use crate::jobs::{
    Document, cancel, commit, delete_jobs, job, job_spans, jobs, jobs_page, most_urgent, note_job,
    note_problem, results, unknown,
};
use crate::keys;
use crate::retention::Writer;
use crate::store::Store;
use crate::time::{Now, micros, span_micros, timestamp};
use crate::totals::totals;

/// How long a request of a client is remembered: longer than any client may send it again as the same.
const REQUESTS_AGE_MAX: TimeDelta = TimeDelta::days(2);
/// The most requests of clients that are remembered.
const REQUESTS_MAX: u32 = 100_000;

#[async_trait]
impl Ledger for Store {
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError> {
        let owner = owner.to_owned();
        self.off_thread(move |store| {
            let now = store.now();
            store.write(|tx| lease(tx, now, &owner, lasts))
        })
        .await
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
        self.off_thread(move |store| {
            let now = store.now();
            store.read(|c| memory(c, now, &pool))
        })
        .await
    }

    async fn remember_queue(
        &self,
        pool: &PoolId,
        queue: &QueueMemory,
        fence: Option<&Fence>,
    ) -> Result<(), PortError> {
        let (pool, queue, fence) = (pool.clone(), queue.clone(), number(fence));
        let written = self.off_thread(move |store| {
            let now = store.now();
            store.write(|tx| remember_queue(tx, now, (&pool, &queue), fence))
        });
        if written.await? { Ok(()) } else { Err(fenced_off()) }
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        let hold = hold.clone();
        self.off_thread(move |store| {
            let now = store.now();
            match store.write_durably(|tx| set_hold(tx, now, &hold))? {
                0 => Err(outdated(&hold)),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn first_seen(
        &self,
        request: &str,
        now: Timestamp,
        lasts: TimeDelta,
    ) -> Result<Timestamp, PortError> {
        let request = request.to_owned();
        self.off_thread(move |store| {
            let at = store.now();
            store.write_with_room(Writer::Submit, |tx| first_seen(tx, at, &request, (now, lasts)))
        })
        .await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, PortError> {
        self.off_thread(|store| store.read(keys::all)).await
    }

    async fn add_key(&self, key: &ApiKey) -> Result<(), PortError> {
        let key = key.clone();
        self.off_thread(move |store| match store.write_durably(|tx| keys::add(tx, &key))? {
            true => Ok(()),
            false => Err(taken(&key.name)),
        })
        .await
    }

    async fn change_key(&self, name: &KeyName, change: KeyChange) -> Result<(), PortError> {
        let name = name.clone();
        self.off_thread(move |store| {
            match store.write_durably(|tx| keys::change(tx, &name, change))? {
                true => Ok(()),
                false => Err(unknown_key(&name)),
            }
        })
        .await
    }

    async fn claim_notice(&self, key: &str, again_after: TimeDelta) -> Result<bool, PortError> {
        let key = key.to_owned();
        self.off_thread(move |store| {
            let now = store.now();
            store.write(|tx| claim_notice(tx, now, &key, again_after))
        })
        .await
    }

    async fn save_run(&self, run: &Run, fence: Option<&Fence>) -> Result<(), PortError> {
        let (run, fence) = (run.clone(), number(fence));
        let saved = self.off_thread(move |store| store.write(|tx| save_run(tx, &run, fence)));
        if saved.await? { Ok(()) } else { Err(fenced_off()) }
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.off_thread(move |store| {
            store.read(|c| {
                c.prepare_cached(&format!(
                    "SELECT {RUN} FROM runs WHERE stopped_at >= ?1
                     UNION ALL SELECT {RUN} FROM runs WHERE stopped_at IS NULL ORDER BY started_at"
                ))?
                .query_map([micros(since)], run)?
                .collect()
            })
        })
        .await
    }

    async fn record(&self, record: &Record, fence: &Fence) -> Result<(), PortError> {
        let (record, fence) = (record.clone(), fence.number);
        let added = self.off_thread(move |store| {
            let now = store.now();
            let added = store.write(|tx| add_record(tx, now, &record, fence));
            store.sweep_if_due();
            added
        });
        if added.await? { Ok(()) } else { Err(fenced_off()) }
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
        self.off_thread(move |store| {
            let now = store.now();
            store.write(|tx| save_report(tx, now, &report))
        })
        .await
    }

    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        let jobs = jobs.to_vec();
        self.off_thread(move |store| {
            let now = store.now();
            // Those that were sent are noted already.
            let unknown = store.read(|c| unknown(c, &jobs))?;
            if !unknown.is_empty() {
                store.write_with_room(Writer::Commit, |tx| {
                    unknown.iter().try_for_each(|job| note_job(tx, now, job))
                })?;
            }
            store.sweep_if_due();
            Ok(())
        })
        .await
    }

    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        let write = |result| Write::Commit(Box::new(Document::of(result)), None);
        let ended = self.end_together(results.iter().map(write).collect()).await;
        ended.into_iter().map(|one| one.map(|ended| ended.committed)).collect()
    }

    async fn commit_and_ack(
        &self,
        ended: &[(JobResult, Receipt)],
    ) -> Vec<Result<Ended, PortError>> {
        let writes = ended.iter().map(|(result, receipt)| {
            Write::Commit(Box::new(Document::of(result)), Some(receipt.clone()))
        });
        self.end_together(writes.collect()).await
    }

    async fn most_urgent(&self, queue: &QueueName) -> Result<Option<UrgentJob>, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| store.read(|c| most_urgent(c, &queue))).await
    }

    async fn cancel(&self, cancelled: &JobResult) -> Result<Committed, PortError> {
        let cancelled = Document::of(cancelled);
        self.off_thread(move |store| {
            let now = store.now();
            store.write_with_room(Writer::Commit, |tx| cancel(tx, now, &cancelled))
        })
        .await
    }

    async fn note_problem(&self, problem: &JobProblem) -> Result<(), PortError> {
        let problem = problem.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.write_durably(|tx| note_problem(tx, now, &problem))
        })
        .await
    }

    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        let id = id.clone();
        self.off_thread(move |store| store.read(|c| results(c, &id))).await
    }

    async fn delete_jobs(&self, before: Timestamp) -> Result<Vec<JobId>, PortError> {
        self.off_thread(move |store| store.write_durably(|tx| delete_jobs(tx, before))).await
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        let id = id.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.read(|c| job(c, now, &id))
        })
        .await
    }

    async fn jobs_page(&self, page: &JobPage) -> Result<Vec<JobEntry>, PortError> {
        let page = page.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.read(|c| jobs_page(c, now, &page))
        })
        .await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        self.off_thread(move |store| {
            let now = store.now();
            store.read(|c| jobs(c, now, filter))
        })
        .await
    }

    async fn job_spans(&self, since: Timestamp, limit: u32) -> Result<Vec<JobSpan>, PortError> {
        self.off_thread(move |store| store.read(|c| job_spans(c, since, limit))).await
    }

    async fn totals(&self, period: Period) -> Result<Totals, PortError> {
        self.off_thread(move |store| store.read(|c| totals(c, period))).await
    }
}

impl Store {
    async fn end_together(&self, writes: Vec<Write>) -> Vec<Result<Ended, PortError>> {
        let ended = self.write_together(writes).await.into_iter();
        self.sweep_if_due();
        let told = |Outcome { is_written, is_acked }| Ended {
            committed: if is_written { Committed::Written } else { Committed::AlreadyThere },
            is_acked,
        };
        ended.map(|one| one.map(told)).collect()
    }

    /// `Ledger::commit` of one result, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn commit_now(&self, result: &JobResult) -> Result<Committed, PortError> {
        let (now, result) = (self.now(), Document::of(result));
        self.write_with_room(Writer::Commit, |tx| commit(tx, now, &result))
    }
}

/// The number of a fence; one that is none is below all.
fn number(fence: Option<&Fence>) -> Option<i64> {
    fence.map(|fence| fence.number)
}

fn fenced_off() -> PortError {
    let what = "another controller has reconciled since this one began";
    PortError::new(PortErrorClass::Conflict, what)
        .hint("nothing was changed; the next reconcile sees what the other one did")
}

fn lease(
    tx: &Transaction<'_>,
    now: Now,
    owner: &str,
    lasts: TimeDelta,
) -> rusqlite::Result<Option<Fence>> {
    let until = now.after(lasts);
    now.note(tx)?;
    let number = tx
        .prepare_cached("UPDATE lease SET owner = ?1, number = number + 1, until = ?3 WHERE until <= ?2 RETURNING number")?
        .query_row(params![owner, now.at, until], |row| row.get(0))
        .optional()?;
    Ok(number.map(|number| Fence { owner: owner.to_owned(), number, until: now.wall(until) }))
}

fn memory(c: &Connection, now: Now, pool: &PoolId) -> rusqlite::Result<PoolMemory> {
    let hold = c
        .prepare_cached(
            "SELECT wants_running, since, until, by, why, over_budget, until_empty FROM holds WHERE pool = ?1",
        )?
        .query_row([pool.as_str()], |row| {
            Ok(Hold {
                pool: pool.clone(),
                wants: if row.get(0)? { HoldWants::Running } else { HoldWants::Stopped },
                since: bounded(now, row.get(1)?),
                until: timestamp(row.get(2)?),
                by: row.get(3)?,
                why: row.get(4)?,
                over_budget: row.get::<_, Option<i64>>(5)?.map(MicroUsd),
                until_empty: row.get(6)?,
            })
        })
        .optional()?;
    let runs = c
        .prepare_cached(&format!(
            "SELECT {RUN} FROM (
               SELECT * FROM (SELECT box AS b, started_at AS s FROM runs WHERE pool = ?1 ORDER BY started_at DESC LIMIT ?2)
               UNION SELECT box, started_at FROM runs WHERE pool = ?1 AND stopped_at IS NULL)
             CROSS JOIN runs ON box = b AND started_at = s ORDER BY started_at DESC"
        ))?
        .query_map(params![pool.as_str(), RUNS_REMEMBERED_MAX], run)?
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
                oldest_sent_at: row.get::<_, Option<i64>>(5)?.map(|at| now.wall(at)),
                empty_since: row.get::<_, Option<i64>>(6)?.map(|at| now.wall(at)),
            };
            Ok(QueueMemory { seen, at: now.wall(row.get(0)?) })
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

/// Whether the fence is not older than that of the last write, in which case it was written.
fn remember_queue(
    tx: &Transaction<'_>,
    now: Now,
    (pool, queue): (&PoolId, &QueueMemory),
    fence: Option<i64>,
) -> rusqlite::Result<bool> {
    let seen = &queue.seen;
    tx.prepare_cached(
        "INSERT INTO queue_memory VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, coalesce(?9, 0)) ON CONFLICT (pool) DO UPDATE SET
           at = ?2, visible = ?3, in_flight = ?4, delayed = ?5, dead = ?6, oldest_sent_at = ?7, empty_since = ?8, fence = coalesce(?9, fence)
         WHERE coalesce(?9, fence) >= fence",
    )?
    .execute(params![
        pool.as_str(),
        now.file(queue.at),
        seen.visible,
        seen.in_flight,
        seen.delayed,
        seen.dead,
        seen.oldest_sent_at.map(|at| now.file(at)),
        seen.empty_since.map(|at| now.file(at)),
        fence
    ])
    .map(|written| written > 0)
}

/// Returns how many holds were set: none where a newer one stays. One from the future, written before the wall clock was set back, is no
/// newer than a user's word of now.
fn set_hold(tx: &Transaction<'_>, now: Now, hold: &Hold) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO holds (pool, wants_running, since, until, by, why, over_budget, until_empty) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?9)
         ON CONFLICT DO UPDATE SET wants_running = ?2, since = ?3, until = ?4, by = ?5, why = ?6, over_budget = ?7, until_empty = ?9
           WHERE since <= ?3 OR since > ?8",
    )?
    .execute(params![
        hold.pool.as_str(),
        hold.wants == HoldWants::Running,
        micros(hold.since),
        micros(hold.until),
        hold.by,
        hold.why,
        hold.over_budget.map(|most| most.0),
        now.wall_micros().saturating_add(AHEAD_MICROS_MAX),
        hold.until_empty
    ])
}

/// How far ahead the time of a hold may be: more is a clock that was set back since.
const AHEAD_MICROS_MAX: i64 = 1_000_000;

/// When a hold was set, but not in the future: what a user does from now on is newer.
fn bounded(now: Now, since: i64) -> Timestamp {
    let wall = now.wall_micros();
    timestamp(if since > wall.saturating_add(AHEAD_MICROS_MAX) { wall } else { since })
}

const RUN: &str = "box, started_at, pool, ready_at, stopping_at, stopped_at, start_rule, start_text, stop_rule, stop_text, error,
    jobs, instance_type, zone, capacity, refusal_class, refusal_text, interrupted_at";

/// Notes a request, or finds it. It ages by the file's time, and those beyond the limit are forgotten, oldest first.
fn first_seen(
    tx: &Transaction<'_>,
    at: Now,
    request: &str,
    (now, lasts): (Timestamp, TimeDelta),
) -> rusqlite::Result<Timestamp> {
    tx.prepare_cached("DELETE FROM requests WHERE at <= ?1")?
        .execute([at.before(REQUESTS_AGE_MAX)])?;
    tx.prepare_cached(
        "INSERT INTO requests VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET first_at = excluded.first_at, at = excluded.at WHERE at <= ?4",
    )?
    .execute(params![request, micros(now), at.at, at.before(lasts)])?;
    tx.prepare_cached(
        "DELETE FROM requests WHERE request IN
           (SELECT request FROM requests ORDER BY at LIMIT max(0, (SELECT count(*) FROM requests) - ?1))",
    )?
    .execute([REQUESTS_MAX])?;
    tx.prepare_cached("SELECT first_at FROM requests WHERE request = ?1")?
        .query_row([request], |row| Ok(timestamp(row.get(0)?)))
}

fn claim_notice(
    tx: &Transaction<'_>,
    now: Now,
    key: &str,
    again_after: TimeDelta,
) -> rusqlite::Result<bool> {
    tx.prepare_cached("DELETE FROM notices WHERE at <= ?1")?.execute([now.before(again_after)])?;
    let added = tx
        .prepare_cached("INSERT INTO notices VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![key, now.at])?;
    Ok(added == 1)
}

/// Whether the fence is not older than that of the last write, in which case it was written.
fn save_run(tx: &Transaction<'_>, run: &Run, fence: Option<i64>) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, coalesce(?19, 0)) ON CONFLICT (box, started_at) DO UPDATE SET
           ready_at = coalesce(ready_at, ?4), stopping_at = coalesce(stopping_at, ?5), stopped_at = coalesce(stopped_at, ?6),
           stop_rule = coalesce(stop_rule, ?9), stop_text = coalesce(stop_text, ?10), error = coalesce(error, ?11),
           jobs = coalesce(jobs, ?12), refusal_class = coalesce(refusal_class, ?16), refusal_text = coalesce(refusal_text, ?17),
           instance_type = coalesce(instance_type, ?13), zone = iif(instance_type IS NULL, ?14, zone),
           capacity = iif(instance_type IS NULL, ?15, capacity),
           interrupted_at = coalesce(interrupted_at, ?18), fence = coalesce(?19, fence)
         WHERE coalesce(?19, fence) >= fence",
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
        run.interrupted_at.map(micros),
        fence
    ])
    .map(|written| written > 0)
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
        offering: offering(row, 12)?,
        refusal: refusal(row)?,
        interrupted_at: time(17)?,
    })
}

/// What a run was bought as: three columns from this one on.
pub(crate) fn offering(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Offering>> {
    let [zone, capacity] = [first + 1, first + 2];
    let (Some(instance_type), Some(zone)) = (row.get(first)?, row.get(zone)?) else {
        return Ok(None);
    };
    let parsed = row.get::<_, String>(capacity)?.parse();
    let capacity = parsed.map_err(|error| unreadable(capacity, error))?;
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

pub(crate) fn unreadable(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

/// Whether the fence is not older than that of the last record, in which case this one was added.
fn add_record(
    tx: &Transaction<'_>,
    now: Now,
    record: &Record,
    fence: i64,
) -> rusqlite::Result<bool> {
    let last = tx
        .prepare_cached("SELECT id, record, fence FROM records ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    if last.as_ref().is_some_and(|(_, _, newest)| *newest > fence) {
        return Ok(false);
    }
    let same = last.and_then(|(id, text, _)| {
        let last: Record = serde_json::from_str(&text).ok()?;
        last.says_the_same(record).then_some(id)
    });
    if let Some(id) = same {
        tx.prepare_cached("UPDATE records SET repeats = repeats + 1, last_at = ?2, fence = ?3, at = ?4 WHERE id = ?1")?
            .execute(params![id, record.at, fence, now.at])?;
        return Ok(true);
    }
    let text = serde_json::to_string(record).expect("a record of texts and numbers is always JSON");
    tx.prepare_cached("INSERT INTO records (last_at, record, fence, at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![record.at, text, fence, now.at])?;
    Ok(true)
}

/// When it was written is the ledger's to say; the report's other times are as far from its own.
fn save_report(tx: &Transaction<'_>, now: Now, report: &WorkerReport) -> rusqlite::Result<()> {
    let time = |at: Timestamp| now.at - span_micros(report.at - at);
    tx.prepare_cached(
        "INSERT OR REPLACE INTO reports VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        report.box_id.as_str(),
        report.device.as_deref().unwrap_or_default(),
        micros(report.run_started_at),
        now.at,
        report.pid,
        report.ready_at.map(time),
        report.leases,
        report.idle_since.map(time),
        report.last_error,
        report.jobs_done,
        report.fault.as_ref().map(|fault| &fault.code),
        report.fault.as_ref().map(|fault| &fault.message),
        report.fault.as_ref().map(|fault| time(fault.since)),
        report.keep_until.map(micros)
    ])
    .map(drop)
}
