//! The queue, with SQS's semantics: a received message is invisible for a while, comes back unless it is acked, and goes
//! to the dead-letter queue when it was received too often.
//!
//! What SQS only approximates is exact here: counts, order of age, and that a lease has one holder.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::ports::{
    JobQueue, NewMessage, PortError, PortErrorClass, Purge, Receipt, ReceiveRequest, Received,
};
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::units::QueueName;
use rusqlite::{Connection, Row, Transaction, params};

use crate::store::{Store, now_micros, timestamp};

/// How often a waiting receive checks whether another process has sent something; a check costs a few microseconds.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// How often it checks for messages whose delay or lease has run out, which writes nothing.
const CHECK_FOR_EXPIRED_EVERY: Duration = Duration::from_millis(100);

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
        let mut changed = Vec::with_capacity(receipts.len());
        for receipt in receipts.to_vec() {
            let change =
                self.off_thread(move |store| store.change_visibility_now(&receipt, visibility));
            changed.push(change.await);
        }
        changed
    }

    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        let mut acked = Vec::with_capacity(receipts.len());
        for receipt in receipts.to_vec() {
            acked.push(self.off_thread(move |store| store.ack_now(&receipt)).await);
        }
        acked
    }

    async fn bury(
        &self,
        _: &QueueName,
        message: &Received,
        _reason: &str,
    ) -> Result<(), PortError> {
        let receipt = message.receipt.clone();
        let buried = self.off_thread(move |store| {
            store.write_durably(|tx| {
                tx.prepare_cached(
                    "UPDATE messages SET dead = 1, receipt = NULL WHERE receipt = ?1",
                )?
                .execute([&receipt.0])
            })
        });
        if buried.await? == 0 { Err(lease_lost()) } else { Ok(()) }
    }

    async fn counts(&self, queue: &QueueName) -> Result<SeenQueue, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| store.read(|c| counts(c, &queue))).await
    }

    async fn redrive(&self, queue: &QueueName) -> Result<u64, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| store.write_durably(|tx| redrive(tx, &queue))).await
    }

    async fn purge(&self, queue: &QueueName, which: Purge) -> Result<u64, PortError> {
        let queue = queue.clone();
        self.off_thread(move |store| {
            store.write_durably(|tx| {
                let deleted = tx
                    .prepare_cached("DELETE FROM messages WHERE queue = ?1 AND dead = ?2")?
                    .execute(params![queue.as_str(), which == Purge::Dead])?;
                Ok(deleted as u64)
            })
        })
        .await
    }
}

impl Store {
    /// `JobQueue::send`, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn send_now(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        self.write_durably(|tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO messages (queue, sent_at, visible_at, job_id, attributes, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            let now = now_micros();
            for message in batch {
                let visible_at = now.saturating_add(span_micros(message.delay));
                let job_id = message.attributes.iter().find(|(name, _)| name == "job_id").map(|(_, value)| value);
                let attributes = serde_json::to_string(&message.attributes).expect("pairs of texts are always JSON");
                insert.execute(params![queue.as_str(), now, visible_at, job_id, attributes, message.body])?;
            }
            Ok(())
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
        // An idle worker receives all day long: that must not write.
        let any = self.read(|c| {
            c.prepare_cached("SELECT EXISTS (SELECT 1 FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at <= ?2)")?
                .query_row(params![queue.as_str(), now_micros()], |row| row.get::<_, bool>(0))
        })?;
        if any { self.write(|tx| receive(tx, queue, request)) } else { Ok(Vec::new()) }
    }

    /// `JobQueue::change_visibility`, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn change_visibility_now(
        &self,
        receipt: &Receipt,
        visibility: TimeDelta,
    ) -> Result<(), PortError> {
        let is_released = visibility <= TimeDelta::zero();
        let changed = self.write(|tx| {
            tx.prepare_cached(
                "UPDATE messages SET visible_at = ?2, receipt = CASE WHEN ?3 THEN NULL ELSE receipt END WHERE receipt = ?1",
            )?
            .execute(params![receipt.0, now_micros().saturating_add(span_micros(visibility)), is_released])
        })?;
        if changed == 0 { Err(lease_lost()) } else { Ok(()) }
    }

    /// `JobQueue::ack`, blocking.
    ///
    /// # Errors
    /// As there.
    pub fn ack_now(&self, receipt: &Receipt) -> Result<(), PortError> {
        let deleted = self.write(|tx| {
            tx.prepare_cached("DELETE FROM messages WHERE receipt = ?1")?.execute([&receipt.0])
        })?;
        if deleted == 0 { Err(lease_lost()) } else { Ok(()) }
    }
}

fn receive(
    tx: &Transaction<'_>,
    queue: &QueueName,
    request: ReceiveRequest,
) -> rusqlite::Result<Vec<Received>> {
    let now = now_micros();
    // Only those that are next: a check of the whole backlog at each receive would make the cost quadratic.
    let mut mark_dead = tx.prepare_cached(
        "UPDATE messages SET dead = 1, receipt = NULL
         WHERE receive_count >= (SELECT receives_max FROM queues WHERE name = ?1)
         AND id IN (SELECT id FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at <= ?2
                    ORDER BY visible_at, sent_at, id LIMIT ?3)",
    )?;
    while mark_dead.execute(params![queue.as_str(), now, request.max])? > 0 {}
    let mut take = tx.prepare_cached(
        "UPDATE messages SET receipt = lower(hex(randomblob(16))), visible_at = ?3, receive_count = receive_count + 1
         WHERE id IN (SELECT id FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at <= ?2
                      ORDER BY visible_at, sent_at, id LIMIT ?4)
         RETURNING id, receipt, body, attributes, receive_count, sent_at",
    )?;
    let leased_until = now.saturating_add(span_micros(request.visibility));
    let rows = take.query_map(params![queue.as_str(), now, leased_until, request.max], |row| {
        Ok((row.get::<_, i64>(0)?, received(row)?))
    })?;
    let mut taken: Vec<(i64, Received)> = rows.collect::<Result<_, _>>()?;
    // RETURNING guarantees no order.
    taken.sort_by_key(|(id, received)| (received.sent_at, *id));
    Ok(taken.into_iter().map(|(_, received)| received).collect())
}

fn received(row: &Row<'_>) -> rusqlite::Result<Received> {
    Ok(Received {
        receipt: Receipt(row.get(1)?),
        body: row.get(2)?,
        attributes: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        receive_count: row.get(4)?,
        sent_at: timestamp(row.get(5)?),
    })
}

fn counts(c: &Connection, queue: &QueueName) -> rusqlite::Result<SeenQueue> {
    let now = now_micros();
    c.prepare_cached(
        "SELECT (SELECT count(*) FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at <= ?2),
                (SELECT count(*) FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at > ?2 AND receipt IS NOT NULL),
                (SELECT count(*) FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at > ?2 AND receipt IS NULL),
                (SELECT count(*) FROM messages WHERE queue = ?1 AND dead = 1),
                (SELECT min(sent_at) FROM messages WHERE queue = ?1 AND dead = 0 AND visible_at <= ?2)",
    )?
    .query_row(params![queue.as_str(), now], |row| {
        Ok(SeenQueue {
            visible: row.get(0)?,
            in_flight: row.get(1)?,
            delayed: row.get(2)?,
            dead: row.get(3)?,
            oldest_sent_at: row.get::<_, Option<i64>>(4)?.map(timestamp),
            empty_since: None,
        })
    })
}

fn redrive(tx: &Transaction<'_>, queue: &QueueName) -> rusqlite::Result<u64> {
    // As with SQS's message move task, the age starts again: the job has had its wait.
    let moved = tx
        .prepare_cached(
            "UPDATE messages SET dead = 0, receive_count = 0, receipt = NULL, sent_at = ?2, visible_at = ?2 WHERE queue = ?1 AND dead = 1",
        )?
        .execute(params![queue.as_str(), now_micros()])?;
    Ok(moved as u64)
}

fn span_micros(span: TimeDelta) -> i64 {
    span.num_microseconds().unwrap_or(i64::MAX).max(0)
}

fn lease_lost() -> PortError {
    PortError::new(
        PortErrorClass::LeaseLost,
        "the lease on the message has run out, and another worker may have it",
    )
}
