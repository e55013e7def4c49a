//! What a queue guarantees of priorities: higher ones come first, and no message waits for ever.

use gpuctl_core::priority::{LOWER_EVERY, Priority};

use super::{LONG, Subject, counts_become, message, receive, receive_soon};
use crate::lanes::{PRIORITY_ATTRIBUTE, priority_of};
use crate::ports::{NewMessage, Purge, SEND_BATCH_MAX};

/// In whatever order they were sent.
pub async fn higher_priorities_come_first(subject: &dyn Subject) {
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        send(subject, priority, 2).await;
    }
    counts_become(subject, (6, 0, 0, 0)).await;
    let came = one_by_one(subject, 6).await;
    let [high, normal, low] = Priority::ALL;
    assert_eq!(came, [high, high, normal, normal, low, low]);
    counts_become(subject, (0, 0, 0, 0)).await;
}

/// While high ones keep coming, one of `LOWER_EVERY` is of the others, by turns.
pub async fn no_priority_waits_for_ever(subject: &dyn Subject) {
    let rounds = 2;
    let all = usize::try_from(rounds * LOWER_EVERY).unwrap();
    send(subject, Priority::High, 2 * all).await;
    send(subject, Priority::Normal, all).await;
    send(subject, Priority::Low, all).await;
    let came = one_by_one(subject, all).await;
    let count = |priority| came.iter().filter(|one| **one == priority).count();
    assert_eq!([count(Priority::High), count(Priority::Normal), count(Priority::Low)], [14, 1, 1]);
    // A batch has the same shares as one after the other.
    let batch = receive(subject, 2 * u32::try_from(LOWER_EVERY).unwrap(), LONG).await;
    let lower = batch.iter().filter(|one| priority_of(&one.attributes) != Priority::High).count();
    assert!(lower == 2 || batch.len() < all, "{lower} of {}", batch.len());
    subject.ports().queue.purge(subject.queue(), Purge::Live).await.unwrap();
}

/// A priority of its own keeps a message from none of the other guarantees.
pub async fn a_message_of_another_priority_is_released_and_buried_like_any_other(
    subject: &dyn Subject,
) {
    let queue = &subject.ports().queue;
    for priority in [Priority::High, Priority::Low] {
        send(subject, priority, 1).await;
        let held = receive_soon(subject, LONG).await;
        queue.change_one(&held.receipt, chrono::TimeDelta::zero()).await.unwrap();
        let again = receive_soon(subject, LONG).await;
        assert_eq!((again.receive_count, priority_of(&again.attributes)), (2, priority));
        queue.bury(subject.queue(), &again, "it cannot be read").await.unwrap();
    }
    counts_become(subject, (0, 0, 0, 2)).await;
}

async fn send(subject: &dyn Subject, priority: Priority, count: usize) {
    let one = |n: usize| {
        let mut one = message(&format!("{priority} {n}"));
        if priority != Priority::Normal {
            one.attributes.push((PRIORITY_ATTRIBUTE.to_owned(), priority.to_string()));
        }
        one
    };
    let messages: Vec<NewMessage> = (0..count).map(one).collect();
    for batch in messages.chunks(SEND_BATCH_MAX) {
        subject.ports().queue.send(subject.queue(), batch).await.unwrap();
    }
}

/// The priorities of the next messages, each received alone and acked.
async fn one_by_one(subject: &dyn Subject, count: usize) -> Vec<Priority> {
    let mut came = Vec::new();
    for _ in 0..count {
        let held = receive_soon(subject, LONG).await;
        subject.ports().queue.ack_one(&held.receipt).await.unwrap();
        came.push(priority_of(&held.attributes));
    }
    came
}
