//! The queue, with SQS's semantics: a received message is invisible for a while, comes back unless it is acked, and goes
//! to the dead-letter queue when it was received too often.
//!
//! What SQS only approximates is exact here: counts, order of age, and that a lease has one holder.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::Job;
use gpuctl_control::lanes::priority_of;
use gpuctl_control::ports::{
    DeadLetter, JobQueue, NewMessage, PortError, PortErrorClass, Purge, Receipt, ReceiveRequest,
    Received,
};
use gpuctl_control::wire::job::{SUBMITTER_AHEAD_MAX, job_from_json};
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::priority::Priority;
use gpuctl_core::units::QueueName;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::group::Write;
use crate::jobs::note_job;
use crate::retention::Writer;
use crate::store::Store;
use crate::time::{Now, micros};

/// How often a waiting receive checks whether another process has sent something; a check costs a few microseconds.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// How often it checks for messages whose delay or lease has run out, which writes nothing.
const CHECK_FOR_EXPIRED_EVERY: Duration = Duration::from_millis(100);

/// How often a message may be released as if it had not been received. Each takes a worker a whole lease or its end, so that few come near;
/// without a limit one that comes again and again would never get to the dead letters.
const GIVE_BACKS_MAX: u32 = 100;

#[async_trait]
impl JobQueue for Store {
    async fn send(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        let (queue, batch) = (queue.clone(), batch.to_vec());
        self.off_thread(move |store| store.send_now(&queue, &batch)).await
    }

    async fn receive(
        &self,
        queue: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let until = tokio::time::Instant::now() + request.wait.to_std().unwrap_or_default();
        loop {
            let version = self.version()?;
            let wanted = queue.clone();
            let received =
                self.off_thread(move |store| store.receive_now(&wanted, request)).await?;
            if !received.is_empty() || tokio::time::Instant::now() >= until {
                return Ok(received);
            }
            let check_again = until.min(tokio::time::Instant::now() + CHECK_FOR_EXPIRED_EVERY);
            while tokio::time::Instant::now() < check_again && self.version()? == version {
                tokio::time::sleep(CHECK_EVERY).await;
            }
        }
    }

    async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>> {
        let wanted = receipts.to_vec();
        let changed = self.off_thread(move |store| store.change_leases(&wanted, visibility)).await;
        of_each(receipts.len(), changed)
    }

    async fn give_back(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        let wanted = receipts.to_vec();
        let given_back = self.off_thread(move |store| store.give_back_now(&wanted)).await;
        of_each(receipts.len(), given_back)
    }

    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        let acks = receipts.iter().map(|receipt| Write::Ack(receipt.clone())).collect();
        let acked = self.write_together(acks).await.into_iter();
        acked.map(|held| if held?.is_acked { Ok(()) } else { Err(lease_lost()) }).collect()
    }

    async fn bury(&self, _: &QueueName, message: &Received, reason: &str) -> Result<(), PortError> {
        let (receipt, reason) = (message.receipt.clone(), reason.to_owned());
        let buried = self.off_thread(move |store| {
            let now = store.now();
            store.write_durably(|tx| {
                tx.prepare_cached(
                    "UPDATE messages SET dead = 1, receipt = NULL, dead_at = ?2, reason = ?3 WHERE receipt = ?1",
                )?
                .execute(params![receipt.0, now.at, reason])
            })
        });
        if buried.await? == 0 { Err(lease_lost()) } else { Ok(()) }
    }

    async fn counts(&self, queue: &QueueName) -> Result<SeenQueue, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.read(|c| counts(c, now, &queue))
        })
        .await
    }

    async fn redrive(&self, queue: &QueueName) -> Result<u64, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.write_durably(|tx| redrive(tx, now, &queue))
        })
        .await
    }

    async fn dead_letters(
        &self,
        queue: &QueueName,
        limit: u32,
    ) -> Result<Option<Vec<DeadLetter>>, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.read(|c| dead_letters(c, now, &queue, limit).map(Some))
        })
        .await
    }

    async fn purge(&self, queue: &QueueName, which: Purge) -> Result<u64, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| {
            let now = store.now();
            store.write_durably(|tx| purge(tx, now, &queue, which))
        })
        .await
    }
}

impl Store {
    /// `JobQueue::send`, blocking. A message that is a job notes the job, too: no job is queued and unknown.
    ///
    /// # Errors
    /// As there.
    pub fn send_now(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        let now = self.now();
        self.write_with_room(Writer::Submit, |tx| {
            batch.iter().try_for_each(|message| send(tx, now, queue, message))
        })
    }

    /// `JobQueue::receive`, blocking and without the wait.
    ///
    /// # Errors
    /// As there.
    pub fn receive_now(
        &self,
        queue: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let now = self.now();
        // An idle worker receives all day long: that must not write.
        let any = self.read(|c| {
            c.prepare_cached("SELECT EXISTS (SELECT 1 FROM messages WHERE queue = ?1 AND dead = 0 AND priority IN (0, 1, 2) AND visible_at <= ?2)")?
                .query_row(params![queue.as_str(), now.at], |row| row.get::<_, bool>(0))
        })?;
        if any { self.write(|tx| receive(tx, now, queue, request)) } else { Ok(Vec::new()) }
    }

    /// `JobQueue::change_visibility` of one lease, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn change_visibility_now(
        &self,
        receipt: &Receipt,
        visibility: TimeDelta,
    ) -> Result<(), PortError> {
        only(self.change_leases(std::slice::from_ref(receipt), visibility))
    }

    /// `JobQueue::ack` of one message, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn ack_now(&self, receipt: &Receipt) -> Result<(), PortError> {
        if self.write(|tx| ack(tx, receipt))? { Ok(()) } else { Err(lease_lost()) }
    }

    /// For each receipt whether it was of a lease, in one transaction.
    fn change_leases(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Result<Vec<bool>, PortError> {
        let (now, is_released) = (self.now(), visibility <= TimeDelta::zero());
        self.write(|tx| {
            let mut change = tx.prepare_cached(
                "UPDATE messages SET visible_at = ?2, receipt = CASE WHEN ?3 THEN NULL ELSE receipt END WHERE receipt = ?1",
            )?;
            let mut change = |receipt: &Receipt| {
                change.execute(params![receipt.0, now.after(visibility), is_released])
            };
            receipts.iter().map(|receipt| Ok(change(receipt)? > 0)).collect()
        })
    }

    /// As if they had not been received, [`GIVE_BACKS_MAX`] times each; for each whether its receipt was of a lease.
    fn give_back_now(&self, receipts: &[Receipt]) -> Result<Vec<bool>, PortError> {
        self.write(|tx| {
            let mut give_back = tx.prepare_cached(
                "UPDATE messages SET visible_at = sent_at, receipt = NULL, receive_count = receive_count - (give_backs < ?2),
                   give_backs = give_backs + 1
                 WHERE receipt = ?1",
            )?;
            let mut give_back =
                |receipt: &Receipt| give_back.execute(params![receipt.0, GIVE_BACKS_MAX]);
            receipts.iter().map(|receipt| Ok(give_back(receipt)? > 0)).collect()
        })
    }
}

fn only(held: Result<Vec<bool>, PortError>) -> Result<(), PortError> {
    if held?.contains(&true) { Ok(()) } else { Err(lease_lost()) }
}

/// The result of each of `count` entries, of which each was held or not; or each the error of the whole transaction.
fn of_each(count: usize, held: Result<Vec<bool>, PortError>) -> Vec<Result<(), PortError>> {
    match held {
        Ok(held) => {
            held.into_iter().map(|held| if held { Ok(()) } else { Err(lease_lost()) }).collect()
        }
        Err(error) => (0..count).map(|_| Err(again(&error))).collect(),
    }
}

/// The same error once more, with its cause as a text.
pub(crate) fn again(error: &PortError) -> PortError {
    let cause = error.cause.as_ref().map(|cause| cause.to_string().into());
    PortError { class: error.class, what: error.what.clone(), hint: error.hint.clone(), cause }
}

fn send(
    tx: &Transaction<'_>,
    now: Now,
    queue: &QueueName,
    message: &NewMessage,
) -> rusqlite::Result<()> {
    let mut job = job_from_json(&message.body).ok();
    if let Some(job) = &mut job {
        // A job from the future would head every listing. One from long ago may be a retry.
        let wall = now.wall(now.at);
        if job.submitted_at > wall + SUBMITTER_AHEAD_MAX {
            job.submitted_at = wall;
        }
    }
    if let Some(job) = &job {
        note_job(tx, now, job)?;
        if job.generation > 0 {
            delete_outdated(tx, "job_id = ?1", job.id.as_str())?;
        }
        if has_ended(tx, job)? {
            return Ok(());
        }
    }
    let attribute = message.attributes.iter().find(|(name, _)| name == "job_id");
    let job_id = job.as_ref().map(|job| job.id.as_str());
    let attributes =
        serde_json::to_string(&message.attributes).expect("pairs of texts are always JSON");
    tx.prepare_cached(
        "INSERT INTO messages (queue, sent_at, visible_at, job_id, generation, attributes, body, priority, begin_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        queue.as_str(),
        now.at,
        now.after(message.delay),
        job_id.or_else(|| attribute.map(|(_, value)| value.as_str())),
        job.as_ref().map_or(0, |job| job.generation),
        attributes,
        message.body,
        priority_of(&message.attributes) as u8,
        job.as_ref().and_then(Job::begin_by).map(micros)
    ])
    .map(drop)
}

/// Whether this generation has its result, or was cancelled: then its message would only be dropped.
fn has_ended(tx: &Transaction<'_>, job: &Job) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM results WHERE job_id = ?1 AND generation = ?2)",
    )?
    .query_row(params![job.id.as_str(), job.generation], |row| row.get(0))
}

fn receive(
    tx: &Transaction<'_>,
    now: Now,
    queue: &QueueName,
    request: ReceiveRequest,
) -> rusqlite::Result<Vec<Received>> {
    let mut waiting = [0; 3];
    for priority in Priority::ALL {
        waiting[priority as usize] = waiting_next(tx, now, (queue, priority), request.max)?;
    }
    let shares = shares(tx, queue, request.max, waiting)?;
    let mut taken = Vec::new();
    for priority in Priority::ALL {
        let share = shares[priority as usize];
        taken.extend(take(tx, now, (queue, priority), ReceiveRequest { max: share, ..request })?);
    }
    Ok(taken)
}

/// How many messages of this priority can be received, `max` at most. What was received too often is moved to the dead letters, but only
/// of those that are next: a check of the whole backlog at each receive would make the cost quadratic. Mostly there is none, and then
/// nothing is written.
fn waiting_next(
    tx: &Transaction<'_>,
    now: Now,
    (queue, priority): (&QueueName, Priority),
    max: u32,
) -> rusqlite::Result<u32> {
    let which = params![queue.as_str(), now.at, max, priority as u8];
    let mut next = tx.prepare_cached(
        "SELECT count(*), coalesce(max(receive_count) >= (SELECT receives_max FROM queues WHERE name = ?1), 0)
         FROM (SELECT receive_count FROM messages WHERE queue = ?1 AND dead = 0 AND priority = ?4 AND visible_at <= ?2
               ORDER BY visible_at, sent_at, id LIMIT ?3)",
    )?;
    loop {
        let (count, is_any_over): (u32, bool) =
            next.query_row(which, |row| Ok((row.get(0)?, row.get(1)?)))?;
        if !is_any_over {
            return Ok(count);
        }
        tx.prepare_cached(
            "UPDATE messages SET dead = 1, receipt = NULL, dead_at = ?2
             WHERE receive_count >= (SELECT receives_max FROM queues WHERE name = ?1)
             AND id IN (SELECT id FROM messages WHERE queue = ?1 AND dead = 0 AND priority = ?4 AND visible_at <= ?2
                        ORDER BY visible_at, sent_at, id LIMIT ?3)",
        )?
        .execute(which)?;
    }
}

/// How many messages of each priority are next. The queue counts what it gives out, but only while it has a choice: else a receive would
/// write twice.
fn shares(
    tx: &Transaction<'_>,
    queue: &QueueName,
    max: u32,
    waiting: [u32; 3],
) -> rusqlite::Result<[u32; 3]> {
    if waiting.iter().filter(|count| **count > 0).count() < 2 {
        return Ok(waiting);
    }
    let given_out: u64 = tx
        .prepare_cached("SELECT given_out FROM queues WHERE name = ?1")?
        .query_row([queue.as_str()], |row| row.get(0))
        .optional()?
        .unwrap_or_default();
    let shares = Priority::shares(given_out, max, waiting);
    tx.prepare_cached("UPDATE queues SET given_out = given_out + ?2 WHERE name = ?1")?
        .execute(params![queue.as_str(), shares.iter().sum::<u32>()])?;
    Ok(shares)
}

/// Takes the next messages of this priority, oldest first.
fn take(
    tx: &Transaction<'_>,
    now: Now,
    (queue, priority): (&QueueName, Priority),
    request: ReceiveRequest,
) -> rusqlite::Result<Vec<Received>> {
    if request.max == 0 {
        return Ok(Vec::new());
    }
    let mut take = tx.prepare_cached(
        "UPDATE messages SET receipt = lower(hex(randomblob(16))), visible_at = ?3, receive_count = receive_count + 1
         WHERE id IN (SELECT id FROM messages WHERE queue = ?1 AND dead = 0 AND priority = ?5 AND visible_at <= ?2
                      ORDER BY visible_at, sent_at, id LIMIT ?4)
         RETURNING id, receipt, body, attributes, receive_count, sent_at",
    )?;
    let leased_until = now.after(request.visibility);
    let which = params![queue.as_str(), now.at, leased_until, request.max, priority as u8];
    let rows = take.query_map(which, |row| Ok((row.get::<_, i64>(0)?, received(row, now)?)))?;
    let mut taken: Vec<(i64, Received)> = rows.collect::<Result<_, _>>()?;
    // RETURNING guarantees no order.
    taken.sort_by_key(|(id, received)| (received.sent_at, *id));
    Ok(taken.into_iter().map(|(_, received)| received).collect())
}

fn received(row: &Row<'_>, now: Now) -> rusqlite::Result<Received> {
    Ok(Received {
        receipt: Receipt(row.get(1)?),
        body: row.get(2)?,
        attributes: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        receive_count: row.get(4)?,
        sent_at: now.wall(row.get(5)?),
    })
}

/// The invisible ones are few, and the oldest visible one is soon found: the cost does not grow with the queue.
fn counts(c: &Connection, now: Now, queue: &QueueName) -> rusqlite::Result<SeenQueue> {
    c.prepare_cached(
        "SELECT coalesce((SELECT live FROM message_counts WHERE queue = ?1), 0), coalesce((SELECT dead FROM message_counts WHERE queue = ?1), 0),
                (SELECT count(*) FROM messages WHERE queue = ?1 AND dead = 0 AND priority IN (0, 1, 2) AND visible_at > ?2 AND receipt IS NOT NULL),
                (SELECT count(*) FROM messages WHERE queue = ?1 AND dead = 0 AND priority IN (0, 1, 2) AND visible_at > ?2 AND receipt IS NULL),
                (SELECT sent_at FROM messages INDEXED BY messages_by_age WHERE queue = ?1 AND dead = 0 AND visible_at <= ?2
                 ORDER BY sent_at LIMIT 1)",
    )?
    .query_row(params![queue.as_str(), now.at], |row| {
        let (live, in_flight, delayed): (u64, u64, u64) = (row.get(0)?, row.get(2)?, row.get(3)?);
        Ok(SeenQueue {
            visible: live.saturating_sub(in_flight + delayed),
            in_flight,
            delayed,
            dead: row.get(1)?,
            oldest_sent_at: row.get::<_, Option<i64>>(4)?.map(|at| now.wall(at)),
            empty_since: None,
        })
    })
}

/// The newest dead letters, by when they were given up.
fn dead_letters(
    c: &Connection,
    now: Now,
    queue: &QueueName,
    limit: u32,
) -> rusqlite::Result<Vec<DeadLetter>> {
    c.prepare_cached(
        "SELECT job_id, body, sent_at, receive_count, reason FROM messages INDEXED BY messages_dead
         WHERE queue = ?1 AND dead = 1 AND dead_at IS NOT NULL ORDER BY dead_at DESC LIMIT ?2",
    )?
    .query_map(params![queue.as_str(), limit], |row| {
        Ok(DeadLetter {
            job_id: row.get::<_, Option<String>>(0)?.and_then(|id| id.parse().ok()),
            body: row.get(1)?,
            sent_at: now.wall(row.get(2)?),
            receive_count: row.get(3)?,
            reason: row.get(4)?,
        })
    })?
    .collect()
}

fn redrive(tx: &Transaction<'_>, now: Now, queue: &QueueName) -> rusqlite::Result<u64> {
    delete_outdated(tx, "queue = ?1", queue.as_str())?;
    // As with SQS's message move task, the age starts again: the job has had its wait.
    let moved = tx
        .prepare_cached(
            "UPDATE messages SET dead = 0, receive_count = 0, give_backs = 0, receipt = NULL, sent_at = ?2, visible_at = ?2, dead_at = NULL, reason = NULL
             WHERE queue = ?1 AND dead = 1",
        )?
        .execute(params![queue.as_str(), now.at])?;
    forget_noted_dead(tx, now, queue)?;
    Ok(moved as u64)
}

/// Deletes dead letters of generations that are not their job's newest, or have ended: a user has had the job sent again since, or has
/// cancelled it, so they are no longer sent.
fn delete_outdated(tx: &Transaction<'_>, which: &str, name: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(&format!(
        "DELETE FROM messages WHERE {which} AND dead = 1
         AND (generation < (SELECT generation FROM jobs WHERE jobs.job_id = messages.job_id)
           OR EXISTS (SELECT 1 FROM results WHERE results.job_id = messages.job_id AND results.generation = messages.generation))"
    ))?
    .execute([name])
    .map(drop)
}

/// The jobs have ended now, however long ago they were submitted.
fn purge(tx: &Transaction<'_>, now: Now, queue: &QueueName, which: Purge) -> rusqlite::Result<u64> {
    let (queue_name, dead) = (queue.as_str(), which == Purge::Dead);
    tx.prepare_cached(
        "UPDATE jobs SET touched_at = ?3 WHERE (job_id, generation) IN
           (SELECT job_id, generation FROM messages WHERE queue = ?1 AND dead = ?2)",
    )?
    .execute(params![queue_name, dead, now.at])?;
    let deleted = tx
        .prepare_cached("DELETE FROM messages WHERE queue = ?1 AND dead = ?2")?
        .execute(params![queue_name, dead])?;
    if dead {
        forget_noted_dead(tx, now, queue)?;
    }
    Ok(deleted as u64)
}

/// Jobs of the queue that were noted as dead are no longer so, whether or not their messages could be told.
fn forget_noted_dead(tx: &Transaction<'_>, now: Now, queue: &QueueName) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE jobs SET noted_dead = 0, touched_at = ?2 WHERE noted_dead AND json_extract(job, '$.queue') = ?1",
    )?
    .execute(params![queue.as_str(), now.at])
    .map(drop)
}

/// Whether the receipt was that of a lease.
pub(crate) fn ack(tx: &Transaction<'_>, receipt: &Receipt) -> rusqlite::Result<bool> {
    let mut delete = tx.prepare_cached("DELETE FROM messages WHERE receipt = ?1")?;
    Ok(delete.execute([&receipt.0])? > 0)
}

fn lease_lost() -> PortError {
    PortError::new(
        PortErrorClass::LeaseLost,
        "the lease on the message has run out, and another worker may have it",
    )
}
