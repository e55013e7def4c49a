//! What is particular to SQS: parts of batches, settings, URLs, and no ages.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use gpuctl_aws::SqsQueue;
use gpuctl_control::ports::{
    JobQueue, NewMessage, PortErrorClass, Receipt, ReceiveRequest, Received,
};
use gpuctl_core::units::QueueName;

use crate::support;

fn message(id: &str, body: &str) -> NewMessage {
    let attributes = vec![("job_id".to_owned(), id.to_owned())];
    NewMessage { body: body.to_owned(), attributes, delay: TimeDelta::zero() }
}

async fn setup() -> (SqsQueue, QueueName) {
    let aws = support::aws(&support::ministack().await.url());
    (SqsQueue::new(&aws), support::a_queue(&aws).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_in_part_names_the_messages_that_are_missing() {
    let (queue, name) = setup().await;
    // SQS accepts no control characters.
    let batch = [message("good", "a"), message("bad", "\u{1}"), message("fine", "c")];
    let error = queue.send(&name, &batch).await.unwrap_err();
    assert!(error.what.contains("1 of 3 messages"), "{error}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("the other 2 are in the queue: send only bad again"), "{hint}");
    assert!(error.cause.unwrap().to_string().contains("InvalidMessageContents"));
    assert_eq!(queue.counts(&name).await.unwrap().visible, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn q14_messages_that_are_too_long_together_are_sent_one_by_one() {
    let (queue, name) = setup().await;
    let long = "x".repeat(600_000);
    queue.send(&name, &[message("a", &long), message("b", &long)]).await.unwrap();
    assert_eq!(queue.counts(&name).await.unwrap().visible, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn q14_a_message_that_is_too_long_is_named_and_the_others_are_sent() {
    let (queue, name) = setup().await;
    let batch = [message("a", &"x".repeat(600_000)), message("too-long", &"x".repeat(1_100_000))];
    let error = queue.send(&name, &batch).await.unwrap_err();
    assert!(error.hint.unwrap().contains("send only too-long again"));
    assert_eq!(queue.counts(&name).await.unwrap().visible, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_beyond_sqs_s_limits_is_rejected_without_a_call() {
    let (queue, name) = setup().await;
    let late = NewMessage { delay: TimeDelta::minutes(16), ..message("a", "a") };
    assert!(queue.send(&name, &[late]).await.is_err());
    assert!(queue.send(&name, &vec![message("a", "a"); 11]).await.is_err());
    assert_eq!(queue.counts(&name).await.unwrap().visible, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_found_by_its_url_as_by_its_name() {
    let (queue, name) = setup().await;
    queue.send(&name, &[message("a", "a")]).await.unwrap();
    let url: QueueName = queue.describe(&name).await.unwrap().url.parse().unwrap();
    assert_eq!(queue.counts(&url).await.unwrap().visible, 1);
}

/// Q12, Q17
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_s_settings_are_read_for_doctor() {
    let (queue, name) = setup().await;
    let facts = queue.describe(&name).await.unwrap();
    assert!(!facts.fifo);
    assert_eq!(facts.visibility, TimeDelta::seconds(120));
    assert_eq!(facts.retention, TimeDelta::days(4));
    assert_eq!(facts.message_bytes_max, 1_048_576);
    let dead = facts.dead_letters.unwrap();
    assert_eq!((dead.receives_max, dead.retention), (2, TimeDelta::days(4)));
    assert_eq!(dead.name, format!("{name}-dead"));
    let aws = support::aws(&support::ministack().await.url());
    let bare = support::fresh("bare");
    aws.sqs().create_queue().queue_name(&bare).send().await.unwrap();
    let bare = bare.parse().unwrap();
    assert_eq!(queue.describe(&bare).await.unwrap().dead_letters, None);
    assert_eq!(queue.counts(&bare).await.unwrap().dead, 0);
    let error = queue.redrive(&bare).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn q16_reading_the_counts_never_receives() {
    let (queue, name) = setup().await;
    queue.send(&name, &[message("a", "a")]).await.unwrap();
    for _ in 0..3 {
        let seen = queue.counts(&name).await.unwrap();
        assert_eq!((seen.visible, seen.in_flight, seen.oldest_sent_at), (1, 0, None));
    }
    let request =
        ReceiveRequest { max: 1, visibility: TimeDelta::minutes(1), wait: TimeDelta::zero() };
    assert_eq!(queue.receive(&name, request).await.unwrap()[0].receive_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_with_the_first_message() {
    let (queue, name) = setup().await;
    let queue = std::sync::Arc::new(queue);
    let request =
        ReceiveRequest { max: 1, visibility: TimeDelta::minutes(1), wait: TimeDelta::seconds(15) };
    let asked = std::time::Instant::now();
    let waiting = tokio::spawn({
        let (queue, name) = (queue.clone(), name.clone());
        async move { queue.receive(&name, request).await }
    });
    queue.send(&name, &[message("a", "a")]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
    assert!(asked.elapsed().as_secs() < 12, "it waited for the whole poll");
}

#[tokio::test(flavor = "multi_thread")]
async fn q10_a_lease_ends_twelve_hours_after_its_receive_however_often_it_is_extended() {
    let (queue, name) = setup().await;
    queue.send(&name, &[message("a", "a")]).await.unwrap();
    let request =
        ReceiveRequest { max: 1, visibility: TimeDelta::hours(12), wait: TimeDelta::zero() };
    let held = queue.receive(&name, request).await.unwrap().remove(0);
    // SQS rejects more than is left of twelve hours: a request of 13 hours gets what is left.
    queue.change_one(&held.receipt, TimeDelta::hours(13)).await.unwrap();
    queue.ack_one(&held.receipt).await.unwrap();
}

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// Sends this many messages and receives them all.
async fn held(queue: &SqsQueue, name: &QueueName, count: usize) -> Vec<Received> {
    let messages: Vec<NewMessage> = (0..count).map(|n| message(&n.to_string(), "a")).collect();
    for some in messages.chunks(10) {
        queue.send(name, some).await.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < count {
        let request = ReceiveRequest { max: 10, visibility: MINUTE, wait: MINUTE };
        held.extend(queue.receive(name, request).await.unwrap());
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn many_leases_change_in_batches_and_a_lost_one_does_not_keep_the_others() {
    let (queue, name) = setup().await;
    let mut receipts: Vec<Receipt> =
        held(&queue, &name, 25).await.into_iter().map(|one| one.receipt).collect();
    // One that is not ours any more, one that was acked, in the middle of a batch each.
    queue.ack_one(&receipts[13]).await.unwrap();
    receipts.insert(4, Receipt("unknown".to_owned()));
    let lost = |results: &[Result<(), gpuctl_control::ports::PortError>]| -> Vec<usize> {
        let lost = |(index, result): (usize, &Result<(), _>)| match result {
            Ok(()) => None,
            Err(error) => {
                let error: &gpuctl_control::ports::PortError = error;
                assert_eq!(error.class, PortErrorClass::LeaseLost, "{error:?}");
                Some(index)
            }
        };
        results.iter().enumerate().filter_map(lost).collect()
    };
    let extended = queue.change_visibility(&receipts, MINUTE * 2).await;
    assert_eq!((extended.len(), lost(&extended)), (26, vec![4, 14]));
    let acked = queue.ack(&receipts[..20]).await;
    assert_eq!((acked.len(), lost(&acked)), (20, vec![4, 14]));
    let released = queue.change_visibility(&receipts[20..], TimeDelta::zero()).await;
    assert_eq!((released.len(), lost(&released)), (6, vec![]));
    let seen = queue.counts(&name).await.unwrap();
    assert_eq!((seen.visible, seen.in_flight), (6, 0));
    let again = queue.change_visibility(&receipts[20..], MINUTE).await;
    assert_eq!(lost(&again).len(), 6, "a released message is not held any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_ten_are_received_by_several_calls_and_each_once() {
    let (queue, name) = setup().await;
    let messages: Vec<NewMessage> = (0..35).map(|n| message("a", &n.to_string())).collect();
    for some in messages.chunks(10) {
        queue.send(&name, some).await.unwrap();
    }
    let receive = async |max| {
        let request = ReceiveRequest { max, visibility: MINUTE, wait: TimeDelta::zero() };
        queue.receive(&name, request).await.unwrap()
    };
    let some = receive(23).await;
    assert_eq!(some.len(), 23);
    let rest = receive(128).await;
    let bodies: BTreeSet<String> = some.iter().chain(&rest).map(|one| one.body.clone()).collect();
    assert_eq!((rest.len(), bodies.len()), (12, 35));
    let receipts: Vec<Receipt> = some.into_iter().chain(rest).map(|one| one.receipt).collect();
    assert!(queue.ack(&receipts).await.iter().all(Result::is_ok), "each lease is held");
}

/// The message goes with all it had, and is in one place afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_buried_message_is_in_the_dead_letters_with_its_reason_and_nowhere_else() {
    let (queue, name) = setup().await;
    let one = held(&queue, &name, 1).await.remove(0);
    queue.bury(&name, &one, "the message is not a job\n").await.unwrap();
    let seen = queue.counts(&name).await.unwrap();
    assert_eq!((seen.visible, seen.in_flight, seen.dead), (0, 0, 1));
    let dead: QueueName = format!("{name}-dead").parse().unwrap();
    let request = ReceiveRequest { max: 1, visibility: MINUTE, wait: MINUTE };
    let buried = queue.receive(&dead, request).await.unwrap().remove(0);
    assert_eq!(buried.body, one.body);
    let reason = ("gpuctl_reason".to_owned(), "the message is not a job ".to_owned());
    assert_eq!(buried.attributes, [reason, one.attributes[0].clone()]);
    let again = queue.bury(&name, &one, "again").await.unwrap_err();
    assert_eq!(again.class, PortErrorClass::LeaseLost);
    assert_eq!(queue.counts(&name).await.unwrap().dead, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dead_letter_queue_a_message_cannot_be_buried_and_stays() {
    let (queue, _) = setup().await;
    let aws = support::aws(&support::ministack().await.url());
    let bare: QueueName = support::fresh("bare").parse().unwrap();
    aws.sqs().create_queue().queue_name(bare.as_str()).send().await.unwrap();
    let one = held(&queue, &bare, 1).await.remove(0);
    let error = queue.bury(&bare, &one, "why").await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound);
    assert!(error.hint.unwrap().contains("redrive policy"));
    assert_eq!(queue.counts(&bare).await.unwrap().in_flight, 1);
    queue.ack_one(&one.receipt).await.unwrap();
}
