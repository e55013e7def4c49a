//! What the queue costs: messages sent, received and acked a second, and jobs received, committed and acked in batches as a worker does it,
//! each against a bare SQLite loop that does the same writes.
//!
//! Both sides run in turns in one process on one disk; the ratio is what counts, the rates are this machine's.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

use std::path::Path;
use std::time::Instant;

use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobResult};
use gpuctl_control::ports::{JobQueue, Ledger, NewMessage, ReceiveRequest};
use gpuctl_control::wire::job::{job_from_json, result_to_json};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;
use gpuctl_local::{Store, StoreOptions};
use rusqlite::Connection;

const MESSAGES: usize = 2_000;
const ROUNDS: usize = 5;
const BODY_BYTES: usize = 400;
/// What a worker with a fast model has done at once.
const BATCH: u32 = 64;
const JOB: &str = r#"{"version":1,"job_id":"01a200ab-52ac-72da-a503-1913f00238c3","queue":"jobs","task":"vision.ocr","input":"file:///a.png","submitted_at":"2026-11-22T00:00:00+00:00"}"#;

fn main() {
    println!(
        "messages a second, {MESSAGES} messages of {BODY_BYTES} bytes, median of {ROUNDS} rounds"
    );
    for consumers in [1, 4] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(round(consumers, Side::Store));
            bare.push(round(consumers, Side::Bare));
        }
        let (ours, bare) = (median(ours), median(bare));
        println!(
            "send + receive + ack, {consumers} consumers: {ours:.0}/s, bare SQLite {bare:.0}/s, ratio {:.2}",
            ours / bare
        );
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(jobs(Side::Store));
        bare.push(jobs(Side::Bare));
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "receive + commit + ack in batches of {BATCH}: {ours:.0}/s, bare SQLite {bare:.0}/s, ratio {:.2}",
        ours / bare
    );
}

#[derive(Clone, Copy)]
enum Side {
    Store,
    Bare,
}

/// One producer sends everything, then the consumers drain it; the rate is over both.
fn round(consumers: usize, side: Side) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    open(&path);
    let began = Instant::now();
    match side {
        Side::Store => send(&path),
        Side::Bare => bare_send(&path),
    }
    let threads: Vec<_> = (0..consumers)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || match side {
                Side::Store => drain(&path),
                Side::Bare => bare_drain(&path),
            })
        })
        .collect();
    let drained: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(drained, MESSAGES);
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

fn open(folder: &Path) -> Store {
    let store =
        Store::open(&StoreOptions { folder: folder.to_owned(), file_mib_max: 1_024 }).unwrap();
    store.configure(&Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap()).unwrap();
    store
}

fn name() -> QueueName {
    "jobs".parse().unwrap()
}

fn send(folder: &Path) {
    let store = open(folder);
    let message =
        NewMessage { body: "x".repeat(BODY_BYTES), attributes: vec![], delay: TimeDelta::zero() };
    for _ in 0..MESSAGES {
        store.send_now(&name(), std::slice::from_ref(&message)).unwrap();
    }
}

fn drain(folder: &Path) -> usize {
    let store = open(folder);
    let request =
        ReceiveRequest { max: 1, visibility: TimeDelta::seconds(60), wait: TimeDelta::zero() };
    let mut drained = 0;
    loop {
        let received = store.receive_now(&name(), request).unwrap();
        let Some(message) = received.first() else { return drained };
        store.ack_now(&message.receipt).unwrap();
        drained += 1;
    }
}

/// One worker's jobs a second, all of which were sent before.
fn jobs(side: Side) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let messages: Vec<NewMessage> = (0..MESSAGES)
        .map(|number| NewMessage {
            body: JOB.replace("1913f00238c3", &format!("{number:012}")),
            attributes: vec![],
            delay: TimeDelta::zero(),
        })
        .collect();
    store.send_now(&name(), &messages).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let began = Instant::now();
    match side {
        Side::Store => runtime.block_on(do_jobs(&store)),
        Side::Bare => bare_jobs(folder.path()),
    }
    let took = began.elapsed();
    assert_eq!(runtime.block_on(store.counts(&name())).unwrap().visible, 0);
    MESSAGES as f64 / took.as_secs_f64()
}

/// As a worker does it: each job is committed and acked by itself, all of a batch at once.
async fn do_jobs(store: &Store) {
    let request =
        ReceiveRequest { max: BATCH, visibility: TimeDelta::seconds(60), wait: TimeDelta::zero() };
    loop {
        let received = store.receive(&name(), request).await.unwrap();
        if received.is_empty() {
            return;
        }
        let mut jobs = tokio::task::JoinSet::new();
        for message in received {
            let store = store.clone();
            jobs.spawn(async move {
                let result = result_of(job_from_json(&message.body).unwrap());
                let ended = store.commit_and_ack_one(&result, &message.receipt).await.unwrap();
                assert!(ended.is_acked);
            });
        }
        while let Some(ended) = jobs.join_next().await {
            ended.unwrap();
        }
    }
}

fn result_of(job: Job) -> JobResult {
    JobResult {
        outcome: Ok(serde_json::json!({ "text": "x" })),
        model: None,
        device: None,
        box_id: "gpu-1".parse().unwrap(),
        attempt: 1,
        received_at: job.submitted_at,
        finished_at: job.submitted_at,
        inference: TimeDelta::zero(),
        worked: None,
        job,
    }
}

/// A transaction that takes a batch, and a durable one that keeps its results and deletes its messages.
fn bare_jobs(folder: &Path) {
    let connection = bare_connect(folder);
    loop {
        connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
        let sql = "UPDATE messages SET receipt = lower(hex(randomblob(16))), visible_at = 1 << 60, receive_count = receive_count + 1
                   WHERE id IN (SELECT id FROM messages WHERE queue = 'jobs' AND dead = 0 AND priority = 1 AND visible_at < 1 << 59
                                ORDER BY visible_at LIMIT ?1) RETURNING receipt, body";
        let mut take = connection.prepare_cached(sql).unwrap();
        let taken: Vec<(String, String)> = take
            .query_map([BATCH], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        if taken.is_empty() {
            return;
        }
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        let all = connection.unchecked_transaction().unwrap();
        for (receipt, body) in taken {
            let result = result_of(job_from_json(&body).unwrap());
            let sql =
                "UPDATE jobs SET touched_at = 1, problem = NULL, waited = 1 WHERE job_id = ?1";
            all.prepare_cached(sql).unwrap().execute([result.job.id.as_str()]).unwrap();
            let sql = "INSERT INTO results VALUES (?1, 0, 1, ?2)";
            let row = (result.job.id.as_str(), result_to_json(&result));
            all.prepare_cached(sql).unwrap().execute(row).unwrap();
            let sql = "DELETE FROM messages WHERE receipt = ?1";
            all.prepare_cached(sql).unwrap().execute([receipt]).unwrap();
        }
        all.commit().unwrap();
    }
}

/// The same file, the same rows and indexes, the same three transactions, and nothing else.
fn bare_connect(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join(gpuctl_local::FILE_NAME)).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    connection
}

fn bare_send(folder: &Path) {
    let connection = bare_connect(folder);
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    let body = "x".repeat(BODY_BYTES);
    for n in 0..MESSAGES {
        let sql = "INSERT INTO messages (queue, sent_at, visible_at, attributes, body) VALUES ('jobs', ?1, ?1, '[]', ?2)";
        connection
            .prepare_cached(sql)
            .unwrap()
            .execute((i64::try_from(n).unwrap(), &body))
            .unwrap();
    }
}

fn bare_drain(folder: &Path) -> usize {
    let connection = bare_connect(folder);
    connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
    let mut drained = 0;
    loop {
        let sql = "UPDATE messages SET receipt = lower(hex(randomblob(16))), visible_at = 1 << 60, receive_count = receive_count + 1
                   WHERE id = (SELECT id FROM messages WHERE queue = 'jobs' AND dead = 0 AND priority = 1 AND visible_at < 1 << 59
                               ORDER BY visible_at LIMIT 1) RETURNING receipt, body";
        let taken = connection
            .prepare_cached(sql)
            .unwrap()
            .query_row([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        let Ok((receipt, _body)) = taken else { return drained };
        let mut delete =
            connection.prepare_cached("DELETE FROM messages WHERE receipt = ?1").unwrap();
        drained += delete.execute([receipt]).unwrap();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
