//! What queue and ledger together guarantee of a job: its state, and one result.

use std::path::Path;

use chrono::TimeDelta;
use gpuctl_core::units::Timestamp;

use super::{LONG, RECEIVES_MAX, Subject, TRIES_MAX, receive, receive_soon, whole};
use crate::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState, Urgency};
use crate::ports::{
    Attempt, Began, Committed, JobEntry, JobFilter, JobPage, JobPlace, JobRan, JobSpan, Purge,
    QueueChange, Received,
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
        let page = ledger.jobs_page(&JobPage { filter, task, text: None, after }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(JobPlace::of(&last.job));
        let known = |entry: &JobEntry| jobs.iter().position(|job| job.id == entry.job.id);
        pages.push(page.iter().filter_map(known).collect::<Vec<_>>());
    }
    let listed: Vec<usize> = pages.concat();
    assert_eq!(listed.iter().filter(|at| **at < 5).copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(pages.iter().all(|page| page.len() <= 2), "{pages:?}");
    let filter = JobFilter { state: None, limit: 2, since: None };
    let other = JobPage { filter, task: Some("no.such".to_owned()), text: None, after: None };
    assert!(ledger.jobs_page(&other).await.unwrap().is_empty());
}

/// An unknown job is not an error.
pub async fn a_job_that_was_never_submitted_is_unknown(subject: &dyn Subject) {
    let id = JobId::new(subject.ports().clock.now());
    assert_eq!(subject.ports().ledger.job(&id).await.unwrap(), None);
}

/// A search looks at what a job says of itself and of its failure, and at no pattern.
pub async fn jobs_are_found_by_what_they_say(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let odd = Path::new("/in/A cat, \"100%\" of_it.wav");
    let odd = Job { input: InputUri::of_path(odd), ..job(subject) };
    let other = job(subject);
    ledger.submitted(&[odd.clone(), other.clone()]).await.unwrap();
    let failure = JobFailure { code: "x.odd".into(), message: "Y \"is\" z".into(), hint: None };
    let failed = JobResult { outcome: Err(failure), ..result(subject, &odd, "") };
    ledger.commit_one(&failed).await.unwrap();
    ledger.commit_one(&result(subject, &other, "y is z")).await.unwrap();
    let found = async |text: &str| {
        let filter = JobFilter { state: None, limit: 100, since: None };
        let page = JobPage { filter, task: None, text: Some(text.to_owned()), after: None };
        let found = ledger.jobs_page(&page).await.unwrap();
        let ours = found.iter().filter(|entry| [&odd.id, &other.id].contains(&&entry.job.id));
        ours.map(|entry| entry.job.id == odd.id).collect::<Vec<_>>()
    };
    for text in [odd.id.as_str(), "a CAT", "\"100%\"", "of_it", "x.odd", "y \"is\""] {
        assert_eq!(found(text).await, [true], "{text}");
    }
    assert_eq!(found(&odd.task).await, [false, true]);
    for text in ["a dog", "1%0", "of-it", "y is z"] {
        assert!(found(text).await.is_empty(), "{text}");
    }
}

/// Of a job without a worker's result it is only told when it was submitted.
pub async fn when_jobs_waited_and_ran_is_told_newest_first(subject: &dyn Subject) {
    let (ledger, now) = (&subject.ports().ledger, whole(subject.ports().clock.now()));
    let jobs: Vec<Job> = [2, 1, 0].map(|n| job_at(subject, now - TimeDelta::minutes(n))).into();
    for one in &jobs {
        submit(subject.ports(), std::slice::from_ref(one)).await.unwrap();
    }
    let done = result(subject, &jobs[1], "done");
    ledger.commit_one(&done).await.unwrap();
    ledger.cancel(&JobResult::cancelled(jobs[0].clone(), "a test", now)).await.unwrap();
    let told = async |since, limit| {
        let mut spans = ledger.job_spans(since, limit).await.unwrap();
        assert!(spans.len() <= limit as usize);
        spans.retain(|span| jobs.iter().any(|job| job.submitted_at == span.submitted_at));
        spans
    };
    let spans = told(now - TimeDelta::hours(1), 100).await;
    let of_result = JobRan {
        box_id: done.box_id.clone(),
        received_at: done.received_at,
        finished_at: done.finished_at,
    };
    let span =
        |job: usize, ran, is_open| JobSpan { submitted_at: jobs[job].submitted_at, ran, is_open };
    assert_eq!(spans, [span(2, None, true), span(1, Some(of_result), false), span(0, None, false)]);
    assert_eq!(told(jobs[1].submitted_at, 100).await, spans[..2]);
    told(now - TimeDelta::hours(1), 2).await;
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
