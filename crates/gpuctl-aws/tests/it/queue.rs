//! What is particular to SQS: parts of batches, settings, URLs, and no ages.

use chrono::TimeDelta;
use gpuctl_aws::SqsQueue;
use gpuctl_control::ports::{JobQueue, NewMessage, PortErrorClass, ReceiveRequest};
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
