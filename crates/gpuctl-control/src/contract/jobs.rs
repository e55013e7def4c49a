//! What queue and ledger together guarantee of a job: its state, and one result.

use std::path::Path;

use chrono::TimeDelta;
use gpuctl_core::units::Timestamp;

use super::{LONG, RECEIVES_MAX, Subject, TRIES_MAX, receive, receive_soon, whole};
use crate::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState, Urgency};
use crate::ports::{
    Attempt, Began, Committed, JobEntry, JobFilter, JobPage, JobPlace, Purge, QueueChange, Received,
};
use crate::submit::submit;
use crate::wire::job::job_from_json;

/// Q9: two deliveries of one message end in one result.
pub async fn the_first_result_stays(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    ledger.submitted(std::slice::from_ref(&job)).await.unwrap();
    let first = result(subject, &job, "first");
    assert_eq!(ledger.commit_one(&first).await.unwrap(), Committed::Written);
    let failure = JobFailure { code: "x".into(), message: "y".into(), hint: Some("z".into()) };
    let second = JobResult { outcome: Err(failure), attempt: 2, ..first.clone() };
    assert_eq!(ledger.commit_one(&second).await.unwrap(), Committed::AlreadyThere);
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.state), (job, JobState::Succeeded));
    assert_eq!(entry.result, Some(first));
}

/// The submitter may have died between queue and ledger; and its note may come last.
pub async fn a_result_is_kept_also_of_a_job_that_was_never_noted(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let job = job(subject);
    let failure = JobFailure { code: "x".into(), message: "y".into(), hint: None };
    let failed = JobResult { outcome: Err(failure), ..result(subject, &job, "") };
    assert_eq!(ledger.commit_one(&failed).await.unwrap(), Committed::Written);
    ledger.submitted(std::slice::from_ref(&job)).await.unwrap();
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.result), (JobState::Failed, Some(failed)));
}

/// The usual course of a job.
pub async fn a_job_is_queued_then_running_then_succeeded(subject: &dyn Subject) {
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    state_becomes(subject, &job, JobState::Queued).await;
    let (held, taken) = begin(subject, LONG).await;
    assert_eq!(taken, job);
    state_becomes(subject, &job, JobState::Running).await;
    subject.ports().ledger.commit_one(&result(subject, &job, "done")).await.unwrap();
    subject.ports().queue.ack_one(&held.receipt).await.unwrap();
    state_becomes(subject, &job, JobState::Succeeded).await;
}

/// Q7: a job that was begun as often as it may be, and has no result, is dead, and says so.
pub async fn a_job_that_no_worker_finishes_is_dead(subject: &dyn Subject) {
    let job = job(subject);
    submit(subject.ports(), std::slice::from_ref(&job)).await.unwrap();
    for _ in 0..RECEIVES_MAX {
        begin(subject, subject.lease_min()).await;
    }
    for _ in 0..TRIES_MAX {
        // A receive finds that the message was received too often.
        assert!(receive(subject, 1, LONG).await.is_empty());
        if state(subject, &job).await == JobState::Dead {
            break;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    let entry = subject.ports().ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!(entry.state, JobState::Dead);
    assert_eq!(entry.problem, Some(JobFailure::unfinished(RECEIVES_MAX)));
}

/// A purge is noted in the ledger as well, since not every ledger sees the queue. It does not concern later jobs.
pub async fn a_purged_job_is_purged(subject: &dyn Subject) {
    let (ledger, queue) = (&subject.ports().ledger, &subject.ports().queue);
    let purged = job(subject);
    submit(subject.ports(), std::slice::from_ref(&purged)).await.unwrap();
    subject.let_time_pass(subject.lease_min()).await;
    queue.purge(subject.queue(), Purge::Live).await.unwrap();
    ledger.queue_changed(subject.queue(), QueueChange::Purged(Purge::Live)).await.unwrap();
    state_becomes(subject, &purged, JobState::Purged).await;
    subject.let_time_pass(subject.lease_min()).await;
    let later = job(subject);
    submit(subject.ports(), std::slice::from_ref(&later)).await.unwrap();
    state_becomes(subject, &later, JobState::Queued).await;
}

/// `gpuctl jobs`.
pub async fn jobs_are_listed_newest_first_by_state_and_time(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let now = whole(subject.ports().clock.now());
    // Across the end of a month, whatever today is. Ids only grow, so the oldest is made first.
    let old_first = (0..5).rev().map(|n| job_at(subject, now - TimeDelta::days(n * 20)));
    let mut jobs: Vec<Job> = old_first.collect();
    jobs.reverse();
    ledger.submitted(&jobs).await.unwrap();
    for done in &jobs[1..3] {
        ledger.commit_one(&result(subject, done, "done")).await.unwrap();
    }
    let list = async |state, limit, since| {
        let found = ledger.jobs(JobFilter { state, limit, since }).await.unwrap();
        let known = |id: &JobId| jobs.iter().position(|job| job.id == *id);
        found.iter().filter_map(|entry| known(&entry.job.id)).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 1_000, None).await, [0, 1, 2, 3, 4]);
    assert_eq!(list(None, 1_000, Some(jobs[3].submitted_at)).await, [0, 1, 2, 3]);
    assert_eq!(list(Some(JobState::Succeeded), 1_000, None).await, [1, 2]);
    assert!(list(None, 2, None).await.len() <= 2);
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let filter = JobFilter { state: None, limit: 2, since: Some(jobs[4].submitted_at) };
        let task = Some(jobs[0].task.clone());
        let page = ledger.jobs_page(&JobPage { filter, task, after }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(JobPlace::of(&last.job));
        let known = |entry: &JobEntry| jobs.iter().position(|job| job.id == entry.job.id);
        pages.push(page.iter().filter_map(known).collect::<Vec<_>>());
    }
    let listed: Vec<usize> = pages.concat();
    assert_eq!(listed.iter().filter(|at| **at < 5).copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(pages.iter().all(|page| page.len() <= 2), "{pages:?}");
    let filter = JobFilter { state: None, limit: 2, since: None };
    let other = JobPage { filter, task: Some("no.such".to_owned()), after: None };
    assert!(ledger.jobs_page(&other).await.unwrap().is_empty());
}

/// An unknown job is not an error.
pub async fn a_job_that_was_never_submitted_is_unknown(subject: &dyn Subject) {
    let id = JobId::new(subject.ports().clock.now());
    assert_eq!(subject.ports().ledger.job(&id).await.unwrap(), None);
}

/// Receives and begins a job as a worker does.
pub(super) async fn begin(subject: &dyn Subject, lease: TimeDelta) -> (Received, Job) {
    let held = receive_soon(subject, lease).await;
    let job = job_from_json(&held.body).unwrap();
    let attempt = attempt(subject, &held, lease);
    assert_eq!(subject.ports().ledger.began(&job, &attempt).await.unwrap(), Began::Newest);
    (held, job)
}

/// The attempt at the job of a message that was just received.
pub(super) fn attempt(subject: &dyn Subject, held: &Received, lease: TimeDelta) -> Attempt {
    let at = whole(subject.ports().clock.now());
    Attempt {
        box_id: "gpu-1".parse().unwrap(),
        number: held.receive_count,
        of: RECEIVES_MAX,
        at,
        until: at + lease,
    }
}

async fn state(subject: &dyn Subject, job: &Job) -> JobState {
    let entry = subject.ports().ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!(entry.job, *job);
    entry.state
}

pub(super) async fn state_becomes(subject: &dyn Subject, job: &Job, wanted: JobState) {
    for _ in 0..TRIES_MAX {
        if state(subject, job).await == wanted {
            return;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    assert_eq!(state(subject, job).await, wanted);
}

pub(super) fn job(subject: &dyn Subject) -> Job {
    job_at(subject, whole(subject.ports().clock.now()))
}

pub(super) fn job_at(subject: &dyn Subject, at: Timestamp) -> Job {
    Job {
        id: JobId::new(at),
        queue: subject.queue().clone(),
        task: "vision.ocr".to_owned(),
        model: Some("m".to_owned()),
        input: InputUri::of_path(Path::new("/ä b.png")),
        params: serde_json::Map::new(),
        submitted_at: at,
        generation: 0,
        urgency: Urgency::default(),
    }
}

pub(super) fn result(subject: &dyn Subject, job: &Job, text: &str) -> JobResult {
    let at = whole(subject.ports().clock.now());
    JobResult {
        job: job.clone(),
        outcome: Ok(serde_json::json!({ "text": text, "score": 0.25 })),
        model: Some("m".to_owned()),
        device: None,
        box_id: "gpu-1".parse().unwrap(),
        attempt: 1,
        received_at: at,
        finished_at: at + TimeDelta::seconds(1),
        inference: TimeDelta::milliseconds(20),
        worked: Some(TimeDelta::milliseconds(30)),
    }
}
