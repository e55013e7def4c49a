//! What a queue guarantees: delivery at least once, one lease at a time, again after the lease, dead after too many receives.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::{
    LONG, Subject, TRIES_MAX, counts_become, exhaust_receives, message, receive, receive_soon, send,
};
use crate::ports::{NewMessage, PortError, PortErrorClass, Purge, Receipt, SEND_BATCH_MAX};

/// Text and attributes arrive as they were sent, whatever their order.
pub async fn a_message_keeps_its_text_and_its_attributes(subject: &dyn Subject) {
    let body = "{\"text\": \"日本 <&> \\\"quoted\\\"\\n\"}";
    send(subject, &[body]).await;
    let mut got = receive_soon(subject, LONG).await;
    got.attributes.sort();
    assert_eq!((got.body.as_str(), got.receive_count), (body, 1));
    assert_eq!(got.attributes, message(body).attributes);
    let age = subject.ports().clock.now() - got.sent_at;
    assert!(age.abs() < TimeDelta::minutes(1), "sent {age} ago");
    subject.ports().queue.ack_one(&got.receipt).await.unwrap();
}

/// A message is held by one receiver, and counted as in flight.
pub async fn a_message_has_one_holder_and_is_counted_accordingly(subject: &dyn Subject) {
    send(subject, &["a", "b"]).await;
    counts_become(subject, (2, 0, 0, 0)).await;
    let (one, other) = (receive_soon(subject, LONG).await, receive_soon(subject, LONG).await);
    let bodies: BTreeSet<&str> = [one.body.as_str(), other.body.as_str()].into();
    assert_eq!(bodies, BTreeSet::from(["a", "b"]));
    assert!(receive(subject, 10, LONG).await.is_empty());
    counts_become(subject, (0, 2, 0, 0)).await;
    let queue = &subject.ports().queue;
    queue.ack_one(&one.receipt).await.unwrap();
    queue.change_one(&other.receipt, TimeDelta::zero()).await.unwrap();
    counts_become(subject, (1, 0, 0, 0)).await;
}

/// A worker that does not extend its lease loses the message, and can do nothing to it any more.
pub async fn a_lease_that_runs_out_voids_the_receipt_and_the_message_comes_again(
    subject: &dyn Subject,
) {
    send(subject, &["a"]).await;
    let first = receive_soon(subject, subject.lease_min()).await;
    let second = receive_soon(subject, LONG).await;
    assert_eq!((second.body.as_str(), second.receive_count), ("a", 2));
    let queue = &subject.ports().queue;
    let lost = [
        queue.ack_one(&first.receipt).await,
        queue.change_one(&first.receipt, LONG).await,
        queue.change_one(&first.receipt, TimeDelta::zero()).await,
    ];
    for lost in lost {
        assert_eq!(lost.unwrap_err().class, PortErrorClass::LeaseLost);
    }
    assert!(receive(subject, 1, LONG).await.is_empty(), "the void receipt released it");
    queue.ack_one(&second.receipt).await.unwrap();
    counts_become(subject, (0, 0, 0, 0)).await;
}

/// Heartbeats keep a message from others for longer than one lease.
pub async fn a_lease_that_is_extended_stays(subject: &dyn Subject) {
    send(subject, &["a"]).await;
    let held = receive_soon(subject, subject.lease_min()).await;
    subject.ports().queue.change_one(&held.receipt, LONG).await.unwrap();
    subject.let_time_pass(subject.lease_min() * 2).await;
    assert!(receive(subject, 1, LONG).await.is_empty());
    subject.ports().queue.ack_one(&held.receipt).await.unwrap();
}

/// A visibility of zero releases it to the queue: it can be received at once, and the receipt is void.
pub async fn a_message_released_to_the_queue_comes_again_and_its_receipt_is_void(
    subject: &dyn Subject,
) {
    send(subject, &["a"]).await;
    let queue = &subject.ports().queue;
    let held = receive_soon(subject, LONG).await;
    queue.change_one(&held.receipt, TimeDelta::zero()).await.unwrap();
    assert_eq!(queue.ack_one(&held.receipt).await.unwrap_err().class, PortErrorClass::LeaseLost);
    let again = receive_soon(subject, LONG).await;
    assert_eq!(again.receive_count, 2);
    queue.ack_one(&again.receipt).await.unwrap();
}

/// An ack is for good.
pub async fn an_acked_message_never_comes_again(subject: &dyn Subject) {
    send(subject, &["a"]).await;
    let held = receive_soon(subject, subject.lease_min()).await;
    subject.ports().queue.ack_one(&held.receipt).await.unwrap();
    subject.let_time_pass(subject.lease_min() * 2).await;
    assert!(receive(subject, 1, LONG).await.is_empty());
    let again = subject.ports().queue.ack_one(&held.receipt).await;
    assert_eq!(again.unwrap_err().class, PortErrorClass::LeaseLost);
}

/// Q7: a message that no worker finishes ends in the dead letters, where users can see it.
pub async fn too_many_receives_end_in_the_dead_letters(subject: &dyn Subject) {
    send(subject, &["poison"]).await;
    exhaust_receives(subject).await;
    counts_become(subject, (0, 0, 0, 1)).await;
}

/// A redriven message has all its tries again.
pub async fn a_redrive_moves_dead_messages_back_with_a_count_of_zero(subject: &dyn Subject) {
    send(subject, &["poison"]).await;
    exhaust_receives(subject).await;
    counts_become(subject, (0, 0, 0, 1)).await;
    assert_eq!(subject.ports().queue.redrive(subject.queue()).await.unwrap(), 1);
    assert_eq!(receive_soon(subject, LONG).await.receive_count, 1);
    counts_become(subject, (0, 1, 0, 0)).await;
}

/// Q2: a delayed message is counted apart and not received before its time.
pub async fn a_delayed_message_waits_its_time(subject: &dyn Subject) {
    let later = NewMessage { delay: subject.lease_min() * 2, ..message("later") };
    subject.ports().queue.send(subject.queue(), &[later]).await.unwrap();
    assert!(receive(subject, 1, LONG).await.is_empty());
    counts_become(subject, (0, 0, 1, 0)).await;
    assert_eq!(receive_soon(subject, LONG).await.body, "later");
}

/// As many messages as one send may have all arrive.
pub async fn a_full_batch_arrives_whole(subject: &dyn Subject) {
    let bodies: Vec<String> = (0..SEND_BATCH_MAX).map(|n| format!("m{n}")).collect();
    send(subject, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut got = BTreeSet::new();
    for _ in 0..TRIES_MAX {
        for received in receive(subject, 10, LONG).await {
            subject.ports().queue.ack_one(&received.receipt).await.unwrap();
            got.insert(received.body);
        }
        if got.len() == bodies.len() {
            break;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    assert_eq!(got, bodies.into_iter().collect());
    counts_become(subject, (0, 0, 0, 0)).await;
}

/// A receipt that the queue never issued, as after a restart of the worker.
pub async fn an_unknown_receipt_is_a_lost_lease(subject: &dyn Subject) {
    let receipt = Receipt("unknown".to_owned());
    let queue = &subject.ports().queue;
    let lost = [queue.ack_one(&receipt).await, queue.change_one(&receipt, LONG).await];
    for lost in lost {
        assert_eq!(lost.unwrap_err().class, PortErrorClass::LeaseLost);
    }
}

/// A purge of live messages keeps the dead ones.
pub async fn a_purge_deletes_the_waiting_messages(subject: &dyn Subject) {
    send(subject, &["poison"]).await;
    exhaust_receives(subject).await;
    send(subject, &["a", "b"]).await;
    counts_become(subject, (2, 0, 0, 1)).await;
    assert_eq!(subject.ports().queue.purge(subject.queue(), Purge::Live).await.unwrap(), 2);
    counts_become(subject, (0, 0, 0, 1)).await;
}

/// A purge of dead messages keeps the live ones.
pub async fn a_purge_of_dead_messages_keeps_the_others(subject: &dyn Subject) {
    send(subject, &["poison"]).await;
    exhaust_receives(subject).await;
    send(subject, &["a"]).await;
    counts_become(subject, (1, 0, 0, 1)).await;
    assert_eq!(subject.ports().queue.purge(subject.queue(), Purge::Dead).await.unwrap(), 1);
    counts_become(subject, (1, 0, 0, 0)).await;
}

/// One result for each receipt, in their order: a lease that is lost does not keep the others.
pub async fn leases_are_changed_and_acked_as_a_list(subject: &dyn Subject) {
    let queue = &subject.ports().queue;
    send(subject, &["a", "b"]).await;
    let (a, b) = (receive_soon(subject, LONG).await, receive_soon(subject, LONG).await);
    let unknown = Receipt("unknown".to_owned());
    let receipts = [a.receipt.clone(), unknown, b.receipt.clone()];
    let lost = |results: Vec<Result<(), PortError>>| -> Vec<Option<PortErrorClass>> {
        results.into_iter().map(|result| result.err().map(|error| error.class)).collect()
    };
    let wanted = [None, Some(PortErrorClass::LeaseLost), None];
    assert_eq!(lost(queue.change_visibility(&receipts, LONG).await), wanted);
    assert!(receive(subject, 10, LONG).await.is_empty());
    assert_eq!(lost(queue.ack(&receipts).await), wanted);
    counts_become(subject, (0, 0, 0, 0)).await;
    assert!(queue.ack(&[]).await.is_empty());
    assert!(queue.change_visibility(&[], LONG).await.is_empty());
}

/// No worker receives it again, and its receipt is void.
pub async fn a_buried_message_is_dead_at_once(subject: &dyn Subject) {
    let queue = &subject.ports().queue;
    send(subject, &["poison", "b"]).await;
    let held = receive_soon(subject, LONG).await;
    queue.bury(subject.queue(), &held, "it cannot be read").await.unwrap();
    counts_become(subject, (1, 0, 0, 1)).await;
    assert_eq!(queue.ack_one(&held.receipt).await.unwrap_err().class, PortErrorClass::LeaseLost);
    let again = queue.bury(subject.queue(), &held, "again").await;
    assert_eq!(again.unwrap_err().class, PortErrorClass::LeaseLost);
    assert_ne!(receive_soon(subject, LONG).await.body, held.body);
    assert!(receive(subject, 10, LONG).await.is_empty());
}
