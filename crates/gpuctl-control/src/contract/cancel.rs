//! What queue and ledger guarantee of a job that a user cancels: it has either a worker's result or the cancellation, and is not run again.

use super::jobs::{attempt, begin, job, result, state_becomes};
use super::{LONG, RECEIVES_MAX, Subject, TRIES_MAX, message, receive, whole};
use crate::cancel::{Cancelled, cancel};
use crate::job::{CANCELLED, Job, JobFailure, JobId, JobResult, JobState};
use crate::ports::{
    Began, Committed, JobEntry, JobFilter, NewMessage, PortErrorClass, Purge, QueueChange, Received,
};
use crate::submit::{next_generation, resubmit, submit};
use crate::wire::job::{job_from_json, job_to_json};

/// Jobs that are cancelled and committed at the same time.
const RACES: usize = 12;

/// A waiting job ends at once, says who has cancelled it, and leaves nothing in the queue once its message was received.
pub async fn a_waiting_job_is_cancelled_and_never_run(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let (job, other) = (job(subject), job(subject));
    submit(subject.ports(), &[job.clone(), other.clone()]).await.unwrap();
    let entry = done(cancel_now(subject, &job).await);
    let failure = entry.result.as_ref().unwrap().outcome.as_ref().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.message.as_str()), (CANCELLED, "ada cancelled it"));
    assert_eq!(ledger.job(&job.id).await.unwrap(), Some(entry.clone()));
    assert_eq!(ledger.results(&job.id).await.unwrap(), entry.result.as_slice());
    let filter = JobFilter { state: Some(JobState::Cancelled), limit: 1_000, since: None };
    let listed = ledger.jobs(filter).await.unwrap();
    assert!(listed.iter().any(|one| one.job.id == job.id), "{listed:?}");
    assert!(listed.iter().all(|one| one.job.id != other.id), "{listed:?}");
    assert_eq!(done(cancel_now(subject, &job).await), entry, "once more changes nothing");
    let late = ledger.commit_one(&result(subject, &job, "late")).await.unwrap();
    assert_eq!(late, Committed::AlreadyThere);
    assert_eq!(run_all(subject).await, [other.id]);
    state_becomes(subject, &job, JobState::Cancelled).await;
}

/// Who cancels a job that has ended is told how it ended, and nothing changes.
pub async fn a_result_that_came_before_the_cancellation_stays(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    let waiting = ledger.job(&job.id).await.unwrap().unwrap();
    let first = result(subject, &job, "first");
    assert_eq!(ledger.commit_one(&first).await.unwrap(), Committed::Written);
    let at = whole(subject.ports().clock.now());
    for seen in [waiting, ledger.job(&job.id).await.unwrap().unwrap()] {
        let outcome = cancel(subject.ports(), &seen, "ada", at).await.unwrap();
        let Cancelled::AlreadyEnded(entry) = outcome else { unreachable!("{outcome:?}") };
        assert_eq!((entry.state, entry.result.as_ref()), (JobState::Succeeded, Some(&first)));
    }
    assert_eq!(ledger.results(&job.id).await.unwrap(), [first]);
    run_all(subject).await;
}

/// The worker of a running job learns of it by its lease or from the ledger, and its result does not count.
pub async fn a_running_job_is_cancelled_and_its_worker_told(subject: &dyn Subject) {
    let (queue, ledger) = (&subject.ports().queue, &subject.ports().ledger);
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    let (held, _) = begin(subject, LONG).await;
    let name = [(job.id.clone(), job.generation)];
    assert_eq!(ledger.have_ended(&name).await.unwrap(), [false]);
    done(cancel_now(subject, &job).await);
    let is_lost = match queue.change_one(&held.receipt, LONG).await {
        Ok(()) => false,
        Err(error) => error.class == PortErrorClass::LeaseLost,
    };
    assert!(is_lost || ledger.have_ended(&name).await.unwrap() == [true]);
    let late = ledger.commit_one(&result(subject, &job, "late")).await.unwrap();
    assert_eq!(late, Committed::AlreadyThere);
    if !is_lost {
        queue.ack_one(&held.receipt).await.unwrap();
    }
    assert!(run_all(subject).await.is_empty());
    state_becomes(subject, &job, JobState::Cancelled).await;
}

/// However many cancel and commit at once, each job has one of both, and its state says which.
pub async fn a_job_has_its_result_or_is_cancelled(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let jobs: Vec<Job> = (0..RACES).map(|_| job(subject)).collect();
    ledger.submitted(&jobs).await.unwrap();
    let at = whole(subject.ports().clock.now());
    for (n, job) in jobs.iter().enumerate() {
        let word = JobResult::cancelled(job.clone(), "ada", at);
        let work = result(subject, job, "done");
        let (first, second) = if n % 2 == 0 {
            tokio::join!(ledger.cancel(&word), ledger.commit_one(&work))
        } else {
            let (work, word) = tokio::join!(ledger.commit_one(&work), ledger.cancel(&word));
            (word, work)
        };
        let kept = match (first.unwrap(), second.unwrap()) {
            (Committed::Written, Committed::AlreadyThere) => word,
            (Committed::AlreadyThere, Committed::Written) => work,
            both => unreachable!("{both:?}"),
        };
        let entry = ledger.job(&job.id).await.unwrap().unwrap();
        assert_eq!((entry.state, entry.result), (kept.state(), Some(kept)));
    }
}

/// `gpuctl retry` of a cancelled job is a new generation with a result of its own.
pub async fn a_cancelled_job_may_be_sent_again(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    let cancelled = done(cancel_now(subject, &job).await);
    let next = next_generation(std::slice::from_ref(&cancelled));
    resubmit(subject.ports(), &next).await.unwrap();
    state_becomes(subject, &next[0], JobState::Queued).await;
    assert_eq!(run_all(subject).await, std::slice::from_ref(&job.id));
    state_becomes(subject, &next[0], JobState::Succeeded).await;
    let results = ledger.results(&job.id).await.unwrap();
    let states: Vec<JobState> = results.iter().map(JobResult::state).collect();
    assert_eq!(states, [JobState::Succeeded, JobState::Cancelled]);
}

/// Who cancels a job that fails and is sent again meanwhile wants it not to run.
pub async fn what_was_sent_again_meanwhile_is_cancelled_too(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    ledger.submitted(std::slice::from_ref(&job)).await.unwrap();
    let seen = JobEntry { state: JobState::Queued, ..ledger.job(&job.id).await.unwrap().unwrap() };
    let error = JobFailure { code: "x".into(), message: "y".into(), hint: None };
    let failed = JobResult { outcome: Err(error), ..result(subject, &job, "") };
    ledger.commit_one(&failed).await.unwrap();
    let next = next_generation(std::slice::from_ref(&seen));
    resubmit(subject.ports(), &next).await.unwrap();
    let at = whole(subject.ports().clock.now());
    let entry = done(cancel(subject.ports(), &seen, "ada", at).await.unwrap());
    assert_eq!(entry.job, next[0]);
    let results = ledger.results(&job.id).await.unwrap();
    let states: Vec<JobState> = results.iter().map(JobResult::state).collect();
    assert_eq!(states, [JobState::Cancelled, JobState::Failed]);
    assert!(run_all(subject).await.is_empty());
}

/// What becomes of its message, also in the dead letters, changes nothing: one that comes back from there is not run.
pub async fn a_cancelled_job_stays_so_whatever_becomes_of_its_message(subject: &dyn Subject) {
    let (queue, ledger) = (&subject.ports().queue, &subject.ports().ledger);
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    for _ in 1..RECEIVES_MAX {
        begin(subject, subject.lease_min()).await;
    }
    done(cancel_now(subject, &job).await);
    for _ in 0..TRIES_MAX {
        // Workers that die before they are told.
        receive(subject, 1, subject.lease_min()).await;
        let seen = queue.counts(subject.queue()).await.unwrap();
        if seen.visible + seen.in_flight == 0 {
            break;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    // Where the cancellation has not deleted the message, it is dead.
    let seen = queue.counts(subject.queue()).await.unwrap();
    assert!(seen.visible + seen.in_flight == 0 && seen.dead <= 1, "{seen:?}");
    state_becomes(subject, &job, JobState::Cancelled).await;
    // As a redrive sends it.
    let again = NewMessage { body: job_to_json(&job), ..message("again") };
    queue.send(subject.queue(), &[again]).await.unwrap();
    ledger.queue_changed(subject.queue(), QueueChange::Redriven).await.unwrap();
    assert!(run_all(subject).await.is_empty());
    ledger.queue_changed(subject.queue(), QueueChange::Purged(Purge::Live)).await.unwrap();
    state_becomes(subject, &job, JobState::Cancelled).await;
}

async fn cancel_now(subject: &dyn Subject, job: &Job) -> Cancelled {
    let entry = subject.ports().ledger.job(&job.id).await.unwrap().unwrap();
    let at = whole(subject.ports().clock.now());
    cancel(subject.ports(), &entry, "ada", at).await.unwrap()
}

#[track_caller]
fn done(outcome: Cancelled) -> JobEntry {
    match outcome {
        Cancelled::Done(entry) => {
            assert_eq!(entry.state, JobState::Cancelled);
            entry
        }
        Cancelled::AlreadyEnded(entry) => unreachable!("it ended before: {entry:?}"),
    }
}

/// Does what a worker does with all messages, until the queue is empty; returns the jobs that were run.
async fn run_all(subject: &dyn Subject) -> Vec<JobId> {
    let mut run = Vec::new();
    for _ in 0..TRIES_MAX {
        for held in receive(subject, 10, LONG).await {
            run.extend(run_one(subject, &held).await);
        }
        let seen = subject.ports().queue.counts(subject.queue()).await.unwrap();
        if seen.visible + seen.in_flight + seen.delayed == 0 {
            return run;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    unreachable!("the queue does not become empty");
}

async fn run_one(subject: &dyn Subject, held: &Received) -> Option<JobId> {
    let (queue, ledger) = (&subject.ports().queue, &subject.ports().ledger);
    let job = job_from_json(&held.body).unwrap();
    let began = ledger.began(&job, &attempt(subject, held, LONG)).await.unwrap();
    if began == Began::Newest {
        ledger.commit_one(&result(subject, &job, "done")).await.unwrap();
    }
    queue.ack_one(&held.receipt).await.unwrap();
    (began == Began::Newest).then_some(job.id)
}
