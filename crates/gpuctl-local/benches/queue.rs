//! What the queue costs: messages sent, received and acked a second, against a bare SQLite loop that does the same writes.
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
use gpuctl_control::ports::{NewMessage, ReceiveRequest};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;
use gpuctl_local::{Store, StoreOptions};
use rusqlite::Connection;

const MESSAGES: usize = 2_000;
const ROUNDS: usize = 5;
const BODY_BYTES: usize = 400;

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
