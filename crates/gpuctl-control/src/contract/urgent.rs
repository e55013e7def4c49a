//! What a ledger guarantees of jobs with a patience of their own: the one that needs a box first is found, as long as it waits.

use chrono::TimeDelta;
use gpuctl_core::observation::UrgentJob;

use super::jobs::{begin, job};
use super::{LONG, Subject, receive, whole};
use crate::cancel::cancel;
use crate::job::{Job, Urgency};
use crate::ports::{Purge, QueueChange};
use crate::submit::submit;

/// Whatever the order in which they were submitted; jobs without a patience of their own are none of them.
pub async fn the_job_with_the_least_patience_is_found(subject: &dyn Subject) {
    assert_eq!(most_urgent(subject).await, None);
    let (patient, urgent, plain) =
        (waiting(subject, Some(600)), waiting(subject, Some(30)), waiting(subject, None));
    submit(subject.ports(), &[patient.clone(), urgent.clone(), plain]).await.unwrap();
    assert_eq!(most_urgent(subject).await, Some(named(&urgent)));
    let entry = subject.ports().ledger.job(&urgent.id).await.unwrap().unwrap();
    assert_eq!(entry.job, urgent);
    let at = whole(subject.ports().clock.now());
    cancel(subject.ports(), &entry, "ada", at).await.unwrap();
    assert_eq!(most_urgent(subject).await, Some(named(&patient)));
    empty(subject).await;
    assert_eq!(most_urgent(subject).await, None);
}

/// A worker that has it needs no other box.
pub async fn a_job_that_a_worker_has_begun_is_urgent_no_more(subject: &dyn Subject) {
    let urgent = waiting(subject, Some(30));
    submit(subject.ports(), std::slice::from_ref(&urgent)).await.unwrap();
    let (held, _) = begin(subject, LONG).await;
    assert_eq!(most_urgent(subject).await, None);
    subject.ports().queue.ack_one(&held.receipt).await.unwrap();
}

/// What a purge leaves in the ledger starts no box.
pub async fn a_purged_job_is_urgent_no_more(subject: &dyn Subject) {
    let purged = waiting(subject, Some(30));
    submit(subject.ports(), std::slice::from_ref(&purged)).await.unwrap();
    subject.let_time_pass(subject.lease_min()).await;
    empty(subject).await;
    let later = waiting(subject, Some(600));
    submit(subject.ports(), std::slice::from_ref(&later)).await.unwrap();
    assert_eq!(most_urgent(subject).await, Some(named(&later)));
    let held = receive(subject, 10, LONG).await;
    assert!(held.len() <= 1, "{held:?}");
}

fn waiting(subject: &dyn Subject, seconds: Option<i64>) -> Job {
    let max_wait = seconds.map(TimeDelta::seconds);
    Job { urgency: Urgency { max_wait, ..Urgency::default() }, ..job(subject) }
}

fn named(job: &Job) -> UrgentJob {
    UrgentJob { id: job.id.to_string(), begin_by: job.begin_by().unwrap() }
}

async fn most_urgent(subject: &dyn Subject) -> Option<UrgentJob> {
    subject.ports().ledger.most_urgent(subject.queue()).await.unwrap()
}

async fn empty(subject: &dyn Subject) {
    subject.let_time_pass(subject.lease_min()).await;
    subject.ports().queue.purge(subject.queue(), Purge::Live).await.unwrap();
    let change = QueueChange::Purged(Purge::Live);
    subject.ports().ledger.queue_changed(subject.queue(), change).await.unwrap();
    subject.let_time_pass(subject.lease_min()).await;
}
