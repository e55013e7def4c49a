//! The ledger: one result a job, one loop at a time, and records that count a quiet night on one row.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState};
use gpuctl_control::ports::{Committed, JobFilter, Ledger, Ports};
use gpuctl_control::{Trigger, reconcile};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use gpuctl_local::{FILE_NAME, Store, StoreOptions, ports};
use tempfile::TempDir;

fn open(folder: &TempDir) -> Store {
    Store::open(&StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 }).unwrap()
}

fn at() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn job() -> Job {
    Job {
        id: JobId::new(at()),
        queue: "jobs".parse().unwrap(),
        task: "vision.ocr".to_owned(),
        model: None,
        input: InputUri::of_path(std::path::Path::new("/a.png")),
        params: serde_json::Map::new(),
        submitted_at: at(),
    }
}

fn result(job: &Job, text: &str) -> JobResult {
    JobResult {
        job: job.clone(),
        outcome: Ok(serde_json::json!({ "text": text })),
        model: Some("m".to_owned()),
        device: Some("cpu".to_owned()),
        box_id: "gpu-1".parse().unwrap(),
        attempt: 1,
        received_at: at(),
        finished_at: at() + TimeDelta::seconds(1),
        inference: TimeDelta::milliseconds(20),
    }
}

#[tokio::test]
async fn the_first_result_stays() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let job = job();
    store.submitted(std::slice::from_ref(&job)).await.unwrap();
    assert_eq!(store.commit(&result(&job, "first")).await.unwrap(), Committed::Written);
    let failure = JobFailure { code: "x".into(), message: "y".into(), hint: None };
    let second = JobResult { outcome: Err(failure), ..result(&job, "") };
    assert_eq!(store.commit(&second).await.unwrap(), Committed::AlreadyThere);
    let entry = store.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.result), (JobState::Succeeded, Some(result(&job, "first"))));
}

#[tokio::test]
async fn a_result_is_kept_also_of_a_job_that_was_never_noted() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let job = job();
    assert_eq!(store.commit(&result(&job, "a")).await.unwrap(), Committed::Written);
    store.submitted(std::slice::from_ref(&job)).await.unwrap();
    let all = store
        .jobs(JobFilter { state: Some(JobState::Succeeded), limit: 9, since: None })
        .await
        .unwrap();
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn the_loop_has_one_holder_until_its_lease_runs_out() {
    let folder = TempDir::new().unwrap();
    let (one, other) = (open(&folder), open(&folder));
    let fence = one.lease("one", TimeDelta::minutes(1)).await.unwrap().unwrap();
    assert!(other.lease("other", TimeDelta::minutes(1)).await.unwrap().is_none());
    one.release(&fence).await.unwrap();
    let next = other.lease("other", TimeDelta::zero()).await.unwrap().unwrap();
    assert!(next.number > fence.number);
    // The first holder comes back late: its release must not take the lease from the third.
    let third = one.lease("third", TimeDelta::minutes(1)).await.unwrap().unwrap();
    one.release(&fence).await.unwrap();
    assert!(other.lease("other", TimeDelta::minutes(1)).await.unwrap().is_none());
    one.release(&third).await.unwrap();
}

#[tokio::test]
async fn a_quiet_night_is_one_record() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let policy = Policy::parse("[pool.gpu]\nqueue = \"jobs\"").unwrap();
    store.configure(&policy).unwrap();
    let ports: Ports = ports(&store, None, Vec::new());
    for _ in 0..20 {
        assert!(reconcile(&ports, &policy, Trigger::Tick, "test").await.unwrap().is_some());
    }
    let file = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
    let (rows, repeats): (i64, i64) = file
        .query_row("SELECT count(*), sum(repeats) FROM records", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((rows, repeats), (1, 19));
}

#[tokio::test]
async fn the_same_trouble_is_news_once_until_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let day = TimeDelta::days(1);
    assert!(store.claim_notice("quota/gpu", day).await.unwrap());
    assert!(!store.claim_notice("quota/gpu", day).await.unwrap());
    assert!(store.claim_notice("dead/gpu/1", day).await.unwrap());
    assert!(store.claim_notice("quota/gpu", TimeDelta::zero()).await.unwrap());
}
