//! What queue and ledger together guarantee of jobs that the policy submits: each time has one job, however many controllers there are.

use chrono::TimeDelta;
use gpuctl_core::policy::Policy;

use super::{LONG, Subject, TRIES_MAX, receive};
use crate::ports::JobFilter;
use crate::scheduled::{LATE_MAX, all, submit_due};
use crate::wire::job::job_from_json;

/// Controllers that look at once, and again later, submit one job; the next time has one of its own, and what is too late has none.
pub async fn each_time_has_one_job(subject: &dyn Subject) {
    let policy = format!(
        "[pool.gpu]\nqueue = \"{}\"\n[[pool.gpu.submit]]\nname = \"batch\"\nstart = \"rate(1 day)\"\ntask = \"vision.ocr\"\n\
         input = \"/a.png\"\n",
        subject.queue()
    );
    let policy = Policy::parse(&policy).unwrap();
    let (_, _, scheduled) = all(&policy).next().unwrap();
    let slot = scheduled.when.last_start(subject.ports().clock.now()).unwrap();
    let late = slot + LATE_MAX + TimeDelta::seconds(1);
    assert!(submit_due(subject.ports(), &policy, late).await.is_empty());
    assert_eq!(jobs(subject).await, 0);
    let looks = [0, 0, 30, 59].map(|minutes| slot + TimeDelta::minutes(minutes));
    let at_once = [looks[0], looks[1]].map(|at| submit_due(subject.ports(), &policy, at));
    let [one, other] = at_once;
    let (one, other) = tokio::join!(one, other);
    assert!(one.is_empty() && other.is_empty(), "{one:?} {other:?}");
    for at in &looks[2..] {
        assert!(submit_due(subject.ports(), &policy, *at).await.is_empty());
    }
    assert_eq!(jobs(subject).await, 1);
    // Two that looked at once may both have sent it: it is the same job, which has one result.
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..TRIES_MAX {
        for held in receive(subject, 10, LONG).await {
            ids.insert(job_from_json(&held.body).unwrap().id);
            subject.ports().queue.ack_one(&held.receipt).await.unwrap();
        }
        if !ids.is_empty() {
            break;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    assert_eq!(ids.len(), 1);
}

async fn jobs(subject: &dyn Subject) -> usize {
    let filter = JobFilter { state: None, limit: 1_000, since: None };
    let listed = subject.ports().ledger.jobs(filter).await.unwrap();
    listed.iter().filter(|entry| entry.job.input.as_str() == "file:///a.png").count()
}
