//! What the embedded queue guarantees beyond the contract: order, and several connections without loss or doubles.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, Urgency};
use gpuctl_control::ports::{JobFilter, JobQueue, Ledger, NewMessage, ReceiveRequest, Received};
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;
use gpuctl_local::{Store, StoreOptions};
use tempfile::TempDir;

const LONG: TimeDelta = TimeDelta::seconds(60);
const SHORT: TimeDelta = TimeDelta::milliseconds(30);

fn name() -> QueueName {
    "jobs".parse().unwrap()
}

fn open(folder: &TempDir) -> Store {
    let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 };
    let store = Store::open(&options).unwrap();
    store
        .configure(&Policy::parse("[pool.gpu]\nqueue = \"jobs\"\nreceives_max = 2").unwrap())
        .unwrap();
    store
}

fn message(body: &str) -> NewMessage {
    NewMessage {
        body: body.to_owned(),
        attributes: vec![("task".into(), "t".into())],
        delay: TimeDelta::zero(),
    }
}

fn send(store: &Store, bodies: &[&str]) {
    let batch: Vec<NewMessage> = bodies.iter().map(|body| message(body)).collect();
    store.send_now(&name(), &batch).unwrap();
}

fn receive(store: &Store, max: u32, visibility: TimeDelta) -> Vec<Received> {
    store.receive_now(&name(), ReceiveRequest { max, visibility, wait: TimeDelta::zero() }).unwrap()
}

/// Waits, by a real receive, until a message is there.
async fn receive_waiting(store: &Store, visibility: TimeDelta) -> Vec<Received> {
    let request = ReceiveRequest { max: 1, visibility, wait: TimeDelta::seconds(5) };
    store.receive(&name(), request).await.unwrap()
}

async fn counts(store: &Store) -> (u64, u64, u64, u64) {
    let seen = store.counts(&name()).await.unwrap();
    (seen.visible, seen.in_flight, seen.delayed, seen.dead)
}

#[tokio::test]
async fn messages_are_received_in_order_and_counted_exactly() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    send(&store, &["a", "b"]);
    assert_eq!(counts(&store).await, (2, 0, 0, 0));
    assert!(store.counts(&name()).await.unwrap().oldest_sent_at.is_some());
    let got = receive(&store, 10, LONG);
    assert_eq!(got.iter().map(|m| m.body.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(got[0].attributes, [("task".to_owned(), "t".to_owned())]);
    assert_eq!(counts(&store).await, (0, 2, 0, 0));
    store.ack_now(&got[0].receipt).unwrap();
    store.change_visibility_now(&got[1].receipt, TimeDelta::zero()).unwrap();
    assert_eq!(counts(&store).await, (1, 0, 0, 0));
    assert_eq!(receive(&store, 10, LONG)[0].receive_count, 2);
}

#[tokio::test]
async fn a_message_given_back_keeps_its_place_and_all_its_receives() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    send(&store, &["a", "b"]);
    for _ in 0..3 {
        let held = receive(&store, 1, LONG).remove(0);
        assert_eq!((held.body.as_str(), held.receive_count), ("a", 1));
        assert!(store.give_back(std::slice::from_ref(&held.receipt)).await[0].is_ok());
        assert!(store.ack_now(&held.receipt).is_err(), "its lease has ended");
    }
    assert_eq!(counts(&store).await, (2, 0, 0, 0));
}

#[tokio::test]
async fn a_message_that_is_given_back_again_and_again_gets_to_the_dead_letters() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    send(&store, &["a"]);
    let mut received = 0;
    while let [held] = receive(&store, 1, LONG).as_slice() {
        received += 1;
        assert!(received <= 1_000, "it comes for ever");
        assert!(store.give_back(std::slice::from_ref(&held.receipt)).await[0].is_ok());
    }
    assert_eq!(counts(&store).await, (0, 0, 0, 1));
    assert!(received > 100, "{received}");
    assert_eq!(store.redrive(&name()).await.unwrap(), 1);
    let held = receive(&store, 1, LONG).remove(0);
    assert!(store.give_back(&[held.receipt]).await[0].is_ok());
    assert_eq!(receive(&store, 1, LONG)[0].receive_count, 1);
}

#[tokio::test]
async fn a_waiting_receive_sees_that_a_delay_or_a_lease_is_over() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.send_now(&name(), &[NewMessage { delay: SHORT * 3, ..message("later") }]).unwrap();
    assert!(receive(&store, 1, LONG).is_empty());
    let first = receive_waiting(&store, SHORT).await.remove(0);
    let second = receive_waiting(&store, LONG).await.remove(0);
    assert_eq!((first.receive_count, second.receive_count), (1, 2));
}

#[tokio::test]
async fn a_waiting_receive_sees_what_another_process_sends() {
    let folder = TempDir::new().unwrap();
    let (store, other) = (open(&folder), open(&folder));
    let waiting = tokio::spawn(async move { receive_waiting(&store, LONG).await });
    tokio::task::yield_now().await;
    send(&other, &["a"]);
    let got = tokio::time::timeout(Duration::from_secs(4), waiting).await.unwrap().unwrap();
    assert_eq!(got[0].body, "a");
}

#[test]
fn several_connections_share_the_work_without_loss_or_doubles() {
    let folder = TempDir::new().unwrap();
    let sent: BTreeSet<String> = (0..400).map(|n| format!("m{n}")).collect();
    let bodies: Vec<&str> = sent.iter().map(String::as_str).collect();
    let producer = open(&folder);
    bodies.chunks(10).for_each(|chunk| send(&producer, chunk));
    let consumers: Vec<_> = (0..4)
        .map(|_| {
            let store = open(&folder);
            std::thread::spawn(move || {
                let mut got = Vec::new();
                loop {
                    let batch = receive(&store, 7, LONG);
                    if batch.is_empty() {
                        return got;
                    }
                    for message in batch {
                        store.ack_now(&message.receipt).unwrap();
                        got.push(message.body);
                    }
                }
            })
        })
        .collect();
    let got: Vec<String> =
        consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect();
    assert_eq!(got.len(), sent.len());
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), sent);
}

#[test]
fn many_processes_may_be_the_first_to_open_the_file() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 };
        let opened = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Store::open(&options).map(drop))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    }
}

#[tokio::test]
async fn a_job_from_the_future_does_not_head_the_listing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let body = |id: u32, submitted_at: &str| {
        format!(
            r#"{{"version":1,"job_id":"01a200ab-52ac-72da-a503-1913f00238c{id}","queue":"jobs","task":"t","input":"data:,x","submitted_at":"{submitted_at}"}}"#
        )
    };
    let believed = "2026-11-22T00:00:00Z";
    send(&store, &[&body(1, "+262142-12-31T00:00:00Z"), &body(2, believed)]);
    let filter = JobFilter { state: None, limit: 10, since: None };
    let listed = store.jobs(filter).await.unwrap();
    let submitted = |id: &str| {
        let entry = listed.iter().find(|entry| entry.job.id.as_str().ends_with(id)).unwrap();
        entry.job.submitted_at
    };
    assert!(submitted("c1") <= chrono::DateTime::from_timestamp(32_503_680_000, 0).unwrap());
    assert_eq!(submitted("c2"), believed.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
}

#[tokio::test]
async fn a_job_that_was_sent_again_leaves_no_dead_letter_that_could_run_its_older_generation() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let generation = |generation| Job { generation, ..job() };
    let send = |job: &Job| send(&store, &[&job_to_json(job)]);
    send(&generation(0));
    store.bury(&name(), &receive(&store, 1, LONG)[0], "it crashes its worker").await.unwrap();
    assert_eq!(counts(&store).await, (0, 0, 0, 1));
    send(&generation(1));
    assert_eq!(counts(&store).await, (1, 0, 0, 0), "of the older one nothing is left");
    // A message may die only once the next generation is known.
    let held = receive(&store, 1, LONG).remove(0);
    store.submitted(&[generation(2)]).await.unwrap();
    store.bury(&name(), &held, "it crashes its worker").await.unwrap();
    assert_eq!(store.redrive(&name()).await.unwrap(), 0);
    assert_eq!(counts(&store).await, (0, 0, 0, 0));
    send(&generation(2));
    store.bury(&name(), &receive(&store, 1, LONG)[0], "again").await.unwrap();
    assert_eq!(store.redrive(&name()).await.unwrap(), 1);
    let redriven = receive(&store, 1, LONG);
    assert_eq!(job_from_json(&redriven[0].body).unwrap().generation, 2);
}

fn job() -> Job {
    Job {
        id: "01a200ab-52ac-72da-a503-1913f00238c3".parse().unwrap(),
        queue: name(),
        task: "vision.ocr".to_owned(),
        model: None,
        input: InputUri::of_text("x").unwrap(),
        params: serde_json::Map::new(),
        submitted_at: "2026-11-22T00:00:00Z".parse().unwrap(),
        generation: 0,
        urgency: Urgency::default(),
    }
}
