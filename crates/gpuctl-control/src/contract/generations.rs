//! What a ledger guarantees of a job that is tried again by a user, of one that has no result, and of those that are deleted.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::units::QueueName;

use super::jobs::{begin, job, job_at, result, state_becomes};
use super::{LONG, Subject, counts_become, receive_soon, whole};
use crate::job::{Job, JobFailure, JobResult, JobState};
use crate::ports::{
    Committed, Ended, JobFilter, JobProblem, JobQueue, NewMessage, PortError, PortErrorClass,
    Ports, Purge, QueueChange, Receipt, ReceiveRequest, Received,
};
use crate::submit::{next_generation, resubmit, submit};
use crate::wire::job::job_from_json;

/// `gpuctl retry`: the job's state is its newest generation's, and what came of the others can still be read.
pub async fn a_new_generation_is_a_new_try_and_older_results_stay(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let first = job(subject);
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    let failed = JobResult { outcome: Err(failure("x")), ..result(subject, &first, "") };
    ledger.commit_one(&failed).await.unwrap();
    let again = Job { generation: 1, ..first.clone() };
    submit(subject.ports(), std::slice::from_ref(&again)).await.unwrap();
    state_becomes(subject, &again, JobState::Queued).await;
    let entry = ledger.job(&first.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.result), (again.clone(), None));
    assert_eq!(ledger.results(&first.id).await.unwrap(), std::slice::from_ref(&failed));
    // Its older message may still come.
    assert_eq!(ledger.commit_one(&failed).await.unwrap(), Committed::AlreadyThere);
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    state_becomes(subject, &again, JobState::Queued).await;
    let done = result(subject, &again, "done");
    assert_eq!(ledger.commit_one(&done).await.unwrap(), Committed::Written);
    assert_eq!(ledger.commit_one(&done).await.unwrap(), Committed::AlreadyThere);
    let entry = ledger.job(&first.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.result), (JobState::Succeeded, Some(done.clone())));
    assert_eq!(ledger.results(&first.id).await.unwrap(), [done, failed]);
}

/// A message that was delivered late commits its own generation, and changes nothing of the newer one.
pub async fn a_late_result_is_kept_with_its_own_generation(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let first = job(subject);
    let newest = Job { generation: 2, ..first.clone() };
    ledger.submitted(&[first.clone(), newest.clone()]).await.unwrap();
    let late = result(subject, &first, "late");
    assert_eq!(ledger.commit_one(&late).await.unwrap(), Committed::Written);
    let entry = ledger.job(&first.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.result), (newest.clone(), None));
    assert_ne!(entry.state, JobState::Succeeded);
    // The note of generation 1 was lost, and this is its first sign: it is not the newest.
    let between = result(subject, &Job { generation: 1, ..first.clone() }, "between");
    assert_eq!(ledger.commit_one(&between).await.unwrap(), Committed::Written);
    assert_eq!(ledger.results(&first.id).await.unwrap(), [between.clone(), late.clone()]);
    let done = result(subject, &newest, "done");
    assert_eq!(ledger.commit_one(&done).await.unwrap(), Committed::Written);
    assert_eq!(ledger.results(&first.id).await.unwrap(), [done, between, late]);
}

/// One outcome for each, in their order, also where one of them had its result before.
pub async fn results_are_committed_as_a_list(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let jobs: Vec<Job> = (0..3).map(|_| job(subject)).collect();
    ledger.submitted(&jobs).await.unwrap();
    let results: Vec<JobResult> = jobs.iter().map(|job| result(subject, job, "done")).collect();
    ledger.commit_one(&results[1]).await.unwrap();
    let outcomes = ledger.commit(&results).await.into_iter().map(Result::unwrap);
    let (new, old) = (Committed::Written, Committed::AlreadyThere);
    assert_eq!(outcomes.collect::<Vec<_>>(), [new, old, new]);
    for (job, result) in jobs.iter().zip(results) {
        assert_eq!(ledger.job(&job.id).await.unwrap().unwrap().result, Some(result));
    }
    assert!(ledger.commit(&[]).await.is_empty());
}

/// Only a result that is written acks, and only under a live lease: an ack without a result would lose the job.
pub async fn a_result_may_ack_its_message(subject: &dyn Subject) {
    let Ports { queue, ledger, .. } = subject.ports();
    let (a, b) = (job(subject), job(subject));
    submit(subject.ports(), &[a, b]).await.unwrap();
    let (a_held, a) = begin(subject, LONG).await;
    let (b_held, b) = begin(subject, LONG).await;
    let (a, b) = (result(subject, &a, "a"), result(subject, &b, "b"));
    let lost = Receipt("unknown".to_owned());
    let ended = ledger.commit_and_ack(&[(a, a_held.receipt.clone()), (b.clone(), lost)]).await;
    let ended: Vec<Ended> = ended.into_iter().map(Result::unwrap).collect();
    assert!(ended.iter().all(|one| one.committed == Committed::Written), "{ended:?}");
    assert!(!ended[1].is_acked);
    if !ended[0].is_acked {
        queue.ack_one(&a_held.receipt).await.unwrap();
    }
    counts_become(subject, (0, 1, 0, 0)).await;
    let again = ledger.commit_and_ack_one(&b, &b_held.receipt).await.unwrap();
    assert_eq!(again, Ended { committed: Committed::AlreadyThere, is_acked: false });
    queue.ack_one(&b_held.receipt).await.unwrap();
    counts_become(subject, (0, 0, 0, 0)).await;
    assert!(ledger.commit_and_ack(&[]).await.is_empty());
}

/// What crashed its worker says so while it waits for its next try, and until it has a result.
pub async fn a_problem_is_shown_until_there_is_a_result(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    for code in ["first", "worker.crashed"] {
        ledger.note_problem(&problem(subject, &job, code)).await.unwrap();
    }
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.problem), (JobState::Queued, Some(failure("worker.crashed"))));
    ledger.commit_one(&result(subject, &job, "done")).await.unwrap();
    ledger.note_problem(&problem(subject, &job, "late")).await.unwrap();
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.problem), (JobState::Succeeded, None));
    // A new try begins without it.
    let again = Job { generation: 1, ..job.clone() };
    submit(subject.ports(), std::slice::from_ref(&again)).await.unwrap();
    ledger.note_problem(&problem(subject, &job, "older")).await.unwrap();
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.problem), (again, None));
}

/// A message that no worker can read is dead at its first receive, with its reason, until its queue's dead letters are purged.
pub async fn a_buried_job_is_dead_with_its_reason(subject: &dyn Subject) {
    let (ledger, queue) = (&subject.ports().ledger, &subject.ports().queue);
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    let held = receive_soon(subject, LONG).await;
    assert_eq!(job_from_json(&held.body).unwrap(), job);
    let dead = JobProblem { dead: true, ..problem(subject, &job, "message.unreadable") };
    ledger.note_problem(&dead).await.unwrap();
    queue.bury(subject.queue(), &held, "it cannot be read").await.unwrap();
    state_becomes(subject, &job, JobState::Dead).await;
    let filter = JobFilter { state: Some(JobState::Dead), limit: 1_000, since: None };
    let listed = ledger.jobs(filter).await.unwrap();
    let entry = listed.into_iter().find(|entry| entry.job.id == job.id).unwrap();
    assert_eq!(entry.problem, Some(failure("message.unreadable")));
    subject.let_time_pass(subject.lease_min()).await;
    queue.purge(subject.queue(), Purge::Dead).await.unwrap();
    ledger.queue_changed(subject.queue(), QueueChange::Purged(Purge::Dead)).await.unwrap();
    state_becomes(subject, &job, JobState::Purged).await;
}

/// What can be read of a message is a job that was never submitted: it is dead, and listed.
pub async fn a_job_that_is_only_known_by_its_problem_is_dead(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    let dead = JobProblem { dead: true, ..problem(subject, &job, "message.unreadable") };
    ledger.note_problem(&dead).await.unwrap();
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.state), (job, JobState::Dead));
    assert_eq!(entry.problem, Some(failure("message.unreadable")));
}

/// A new generation that was noted and could not be sent is dead, and says why; the next try sends one more.
pub async fn a_retry_that_could_not_be_sent_is_dead_and_can_be_tried_again(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let first = job(subject);
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    let failed = JobResult { outcome: Err(failure("x")), ..result(subject, &first, "") };
    ledger.commit_one(&failed).await.unwrap();
    let entry = || async { ledger.job(&first.id).await.unwrap().unwrap() };
    let next = next_generation(&[entry().await]);
    let closed = Ports { queue: Arc::new(ClosedQueue), ..subject.ports().clone() };
    let error = resubmit(&closed, &next).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Unavailable);
    state_becomes(subject, &next[0], JobState::Dead).await;
    let dead = entry().await;
    let problem = dead.problem.clone().unwrap();
    assert_eq!((dead.job.generation, problem.code.as_str()), (1, "queue.not_sent"));
    assert!(problem.message.ends_with("the queue takes no messages"), "{}", problem.message);
    assert_eq!(ledger.results(&first.id).await.unwrap(), [failed]);
    let again = next_generation(&[dead]);
    resubmit(subject.ports(), &again).await.unwrap();
    let held = receive_soon(subject, LONG).await;
    assert_eq!(job_from_json(&held.body).unwrap(), Job { generation: 2, ..first.clone() });
    assert_eq!(entry().await.problem, None);
    subject.ports().queue.ack_one(&held.receipt).await.unwrap();
}

/// Only what has ended is deleted, with its results; the rest of the old jobs stays.
pub async fn old_jobs_that_have_ended_are_deleted(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let now = whole(subject.ports().clock.now());
    let before = now - TimeDelta::days(40);
    let at = |days: i64| job_at(subject, before + TimeDelta::days(days));
    let (old, failed, waiting, young) = (at(-2), at(-1), at(-1), at(1));
    ledger.submitted(&[old.clone(), failed.clone(), young.clone()]).await.unwrap();
    submit(subject.ports(), std::slice::from_ref(&waiting)).await.unwrap();
    for done in [&old, &young] {
        ledger.commit_one(&result(subject, done, "done")).await.unwrap();
    }
    let error = JobResult { outcome: Err(failure("x")), ..result(subject, &failed, "") };
    ledger.commit_one(&error).await.unwrap();
    let mut deleted = ledger.delete_jobs(before).await.unwrap();
    deleted.retain(|id| [&old.id, &failed.id, &waiting.id, &young.id].contains(&id));
    deleted.sort();
    let mut wanted = vec![old.id.clone(), failed.id.clone()];
    wanted.sort();
    assert_eq!(deleted, wanted);
    assert_eq!(ledger.job(&old.id).await.unwrap(), None);
    assert!(ledger.results(&old.id).await.unwrap().is_empty());
    state_becomes(subject, &waiting, JobState::Queued).await;
    state_becomes(subject, &young, JobState::Succeeded).await;
}

fn failure(code: &str) -> JobFailure {
    let message = "the worker ended while it had this job".to_owned();
    JobFailure { code: code.to_owned(), message, hint: Some("try it alone".to_owned()) }
}

fn problem(subject: &dyn Subject, job: &Job, code: &str) -> JobProblem {
    JobProblem {
        job: job.clone(),
        failure: failure(code),
        box_id: "gpu-1".parse().unwrap(),
        at: whole(subject.ports().clock.now()),
        dead: false,
    }
}

/// A queue that takes no messages, and is asked for nothing else.
struct ClosedQueue;

#[async_trait]
impl JobQueue for ClosedQueue {
    async fn send(&self, _: &QueueName, _: &[NewMessage]) -> Result<(), PortError> {
        Err(PortError::new(PortErrorClass::Unavailable, "the queue takes no messages"))
    }

    async fn receive(&self, _: &QueueName, _: ReceiveRequest) -> Result<Vec<Received>, PortError> {
        unreachable!()
    }

    async fn change_visibility(&self, _: &[Receipt], _: TimeDelta) -> Vec<Result<(), PortError>> {
        unreachable!()
    }

    async fn ack(&self, _: &[Receipt]) -> Vec<Result<(), PortError>> {
        unreachable!()
    }

    async fn bury(&self, _: &QueueName, _: &Received, _: &str) -> Result<(), PortError> {
        unreachable!()
    }

    async fn counts(&self, _: &QueueName) -> Result<SeenQueue, PortError> {
        unreachable!()
    }

    async fn redrive(&self, _: &QueueName) -> Result<u64, PortError> {
        unreachable!()
    }

    async fn purge(&self, _: &QueueName, _: Purge) -> Result<u64, PortError> {
        unreachable!()
    }
}
