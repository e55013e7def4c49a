//! Writes of the ledger that others, or errors, come between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gpuctl_aws::DynamoLedger;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::job::{InputUri, Job, JobState};
use gpuctl_control::ports::{JobFilter, Ledger, PortErrorClass};
use gpuctl_core::observation::Run;
use gpuctl_core::plan::{Reason, Rule};
use serde_json::{Value, json};

use crate::jobs::{a_job, moto, now, result};
use crate::recorder::Recorder;
use crate::support::{self, fresh};

/// A table, and the ledger on it.
async fn a_table() -> (String, DynamoLedger) {
    let table = fresh("ledger");
    let ledger = DynamoLedger::new(&moto().await, &table, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    (table, ledger)
}

/// The ledger on this table, each of whose calls passes by `look`.
async fn watched(
    table: &str,
    look: impl Fn(&str, &Value) -> Option<String> + Send + Sync + 'static,
) -> (Recorder, DynamoLedger) {
    let recorder = Recorder::with(support::moto().await.port, look);
    let aws = support::aws(&recorder.url());
    let ledger = DynamoLedger::new(&aws, table, Arc::new(SystemClock), None);
    (recorder, ledger)
}

/// An error of DynamoDB as it sends them.
fn error(code: &str, more: &Value) -> String {
    let mut body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}") });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn partition(body: &Value) -> &str {
    let value = if body["Key"].is_object() {
        &body["Key"]["pk"]["S"]
    } else {
        &body["ExpressionAttributeValues"][":pk"]["S"]
    };
    value.as_str().unwrap_or_default()
}

const ALL: JobFilter = JobFilter { state: None, limit: 1_000, since: None };

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_retried_while_it_is_deleted_keeps_its_new_generation() {
    let (table, ledger) = a_table().await;
    let ledger = Arc::new(ledger);
    let input = InputUri::of_text(&"x".repeat(20_000)).unwrap();
    let first = Job { input, ..a_job() };
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    ledger.commit_one(&result(&first, "done")).await.unwrap();
    let second = Job { generation: 1, ..first.clone() };
    let (retry, retried) = (Arc::clone(&ledger), second.clone());
    let (runtime, is_retried) = (tokio::runtime::Handle::current(), AtomicBool::new(false));
    // The retry comes right before the parts of the job are listed.
    let look = move |action: &str, body: &Value| {
        if action == "Query"
            && partition(body).starts_with("job#")
            && !is_retried.swap(true, Ordering::Relaxed)
        {
            runtime.block_on(retry.submitted(std::slice::from_ref(&retried))).unwrap();
        }
        None
    };
    let (_recorder, slow) = watched(&table, look).await;
    assert_eq!(slow.delete_jobs(now()).await.unwrap(), []);
    let entry = ledger.job(&first.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.state), (second, JobState::Queued));
}

/// The result is written first: a worker may end before it has written the job's state.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_broke_off_after_the_result_is_completed_by_the_next_one() {
    let (table, ledger) = a_table().await;
    let job = a_job();
    ledger.submitted(std::slice::from_ref(&job)).await.unwrap();
    let look = |action: &str, _: &Value| {
        (action == "UpdateItem").then(|| error("ValidationException", &json!({})))
    };
    let (_recorder, broken) = watched(&table, look).await;
    let done = result(&job, "done");
    broken.commit_one(&done).await.unwrap_err();
    let succeeded = JobFilter { state: Some(JobState::Succeeded), ..ALL };
    assert_eq!(ledger.results(&job.id).await.unwrap().len(), 1);
    assert!(ledger.jobs(succeeded).await.unwrap().is_empty());
    ledger.commit_one(&done).await.unwrap();
    assert_eq!(ledger.jobs(succeeded).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_deleted_hides_none_that_was() {
    let (table, ledger) = a_table().await;
    let jobs: Vec<Job> = (0..5).map(|_| a_job()).collect();
    for job in &jobs {
        ledger.commit_one(&result(job, "done")).await.unwrap();
    }
    let kept = format!("job#{}", jobs[2].id);
    let look = move |action: &str, body: &Value| {
        let is_hindered = action == "DeleteItem" && partition(body) == kept;
        is_hindered.then(|| error("AccessDeniedException", &json!({ "Message": "no" })))
    };
    let (_recorder, hindered) = watched(&table, look).await;
    let mut deleted = hindered.delete_jobs(now()).await.unwrap();
    deleted.sort();
    let others = jobs.iter().map(|job| job.id.clone()).filter(|id| *id != jobs[2].id);
    assert_eq!(deleted, others.collect::<Vec<_>>());
    // It is found again, with its result, and the error is told once there is nothing else to tell.
    assert_eq!(ledger.jobs(ALL).await.unwrap()[0].state, JobState::Succeeded);
    let denied = hindered.delete_jobs(now()).await.unwrap_err();
    assert_eq!(denied.class, PortErrorClass::Denied);
    assert_eq!(ledger.delete_jobs(now()).await.unwrap(), [jobs[2].id.clone()]);
    assert_eq!(ledger.delete_jobs(now()).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_whose_job_lies_apart_replaces_the_one_that_lay_in_the_item() {
    let (_, ledger) = a_table().await;
    let short = a_job();
    let long = InputUri::of_text(&"x".repeat(20_000)).unwrap();
    let long = Job { generation: 1, input: long, ..short.clone() };
    for job in [&short, &long] {
        ledger.submitted(std::slice::from_ref(job)).await.unwrap();
        assert_eq!(ledger.job(&short.id).await.unwrap().unwrap().job, *job);
        assert_eq!(ledger.jobs(ALL).await.unwrap()[0].job, *job);
    }
}

/// Answers the first `times` transactions with these reasons.
fn cancels(
    times: usize,
    reasons: &'static [&'static str],
) -> impl Fn(&str, &Value) -> Option<String> {
    let seen = AtomicUsize::new(0);
    move |action, _| {
        let is_cancelled =
            action == "TransactWriteItems" && seen.fetch_add(1, Ordering::Relaxed) < times;
        let codes: Vec<Value> = reasons.iter().map(|code| json!({ "Code": code })).collect();
        let more = json!({ "Message": "cancelled", "CancellationReasons": codes });
        is_cancelled.then(|| error("TransactionCanceledException", &more))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_of_a_cancelled_transaction_has_its_own_meaning() {
    let reason = Reason::new(Rule::Demand, "1 job waits");
    let run = Run::begin("gpu".parse().unwrap(), "gpu-1".parse().unwrap(), now(), reason);
    let (conflict, throttled) = (&["None", "TransactionConflict"], &["ThrottlingError", "None"]);
    let condition = &["ConditionalCheckFailed", "TransactionConflict"];
    let cases: [(usize, &'static [&'static str], Option<PortErrorClass>, usize); 6] = [
        (2, conflict, None, 3),
        (9, conflict, Some(PortErrorClass::Unavailable), 4),
        (2, throttled, None, 3),
        (9, throttled, Some(PortErrorClass::Throttled), 4),
        // Another writer came first: the run is read again, and its condition is another one.
        (1, condition, None, 2),
        (9, &["ValidationError", "None"], Some(PortErrorClass::Other), 1),
    ];
    for (times, reasons, expected, calls) in cases {
        let (table, _) = a_table().await;
        let (recorder, ledger) = watched(&table, cancels(times, reasons)).await;
        let saved = ledger.save_run(&run, None).await;
        assert_eq!(saved.err().map(|error| error.class), expected, "{times} {reasons:?}");
        let made =
            recorder.calls().iter().filter(|(action, _)| action == "TransactWriteItems").count();
        assert_eq!(made, calls, "{times} {reasons:?}");
    }
}
