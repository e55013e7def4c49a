//! What is particular to DynamoDB: rows, long results, the mean of a job's time, the table itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use gpuctl_aws::DynamoLedger;
use gpuctl_control::clock::{CLOCKS_APART_MAX, SystemClock};
use gpuctl_control::job::{JobResult, JobState};
use gpuctl_control::ports::{
    Clock, Committed, Fence, LEASE_LASTS, Ledger, PortErrorClass, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::Run;
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::{BoxId, Timestamp};

use crate::jobs::{self, moto, now};
use crate::support::{a_ledger, fresh};

fn result(text: &str) -> JobResult {
    jobs::result(&jobs::a_job(), text)
}

/// A clock that is set by hand, and off the true time by `off`.
struct Set {
    true_seconds: Arc<AtomicI64>,
    off: TimeDelta,
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        let seconds = self.true_seconds.load(Ordering::Relaxed);
        Timestamp::from_timestamp(seconds, 0).unwrap() + self.off
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_a_lease_is_over_for_its_holder_before_another_takes_it_however_their_clocks_are_off() {
    let aws = moto().await;
    let table = fresh("ledger");
    let true_seconds = Arc::new(AtomicI64::new(1_795_000_000));
    let clock = |off| Arc::new(Set { true_seconds: Arc::clone(&true_seconds), off });
    let half = CLOCKS_APART_MAX / 2;
    let (slow, fast) = (clock(-half), clock(half));
    let holder = DynamoLedger::new(&aws, &table, slow.clone(), None);
    let other = DynamoLedger::new(&aws, &table, fast, None);
    holder.create_table().await.unwrap();
    let fence = holder.lease("holder", LEASE_LASTS).await.unwrap().unwrap();
    assert_eq!(fence.until - slow.now(), LEASE_LASTS);
    let waits = (0..60).map(|_| true_seconds.fetch_add(1, Ordering::Relaxed));
    for _ in waits {
        if other.lease("other", LEASE_LASTS).await.unwrap().is_some() {
            assert!(slow.now() >= fence.until, "{} left", fence.until - slow.now());
            return;
        }
    }
    unreachable!("the lease never ran out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_hung_adds_no_record_and_releases_no_one_else_s_lease() {
    let aws = moto().await;
    let table = fresh("ledger");
    let true_seconds = Arc::new(AtomicI64::new(1_795_000_000));
    let clock =
        || Arc::new(Set { true_seconds: Arc::clone(&true_seconds), off: TimeDelta::zero() });
    let hung = DynamoLedger::new(&aws, &table, clock(), None);
    let other = DynamoLedger::new(&aws, &table, clock(), None);
    hung.create_table().await.unwrap();
    let old = hung.lease("hung", LEASE_LASTS).await.unwrap().unwrap();
    true_seconds.fetch_add(60, Ordering::Relaxed);
    let new = other.lease("other", LEASE_LASTS).await.unwrap().unwrap();
    let late = hung.finish(&record(1), &old).await.unwrap_err();
    assert_eq!(late.class, PortErrorClass::Conflict);
    assert_eq!(other.last_reconcile().await.unwrap(), None);
    assert_eq!(hung.lease("third", LEASE_LASTS).await.unwrap(), None, "the other still has it");
    other.finish(&record(2), &new).await.unwrap();
    assert_eq!(hung.finish(&record(3), &old).await.unwrap_err().class, PortErrorClass::Conflict);
    assert_eq!(other.last_reconcile().await.unwrap(), Some(record(2).at.parse().unwrap()));
    let next = hung.lease("next", LEASE_LASTS).await.unwrap().unwrap();
    hung.finish(&record(4), &next).await.unwrap();
    assert_eq!(other.last_reconcile().await.unwrap(), Some(record(4).at.parse().unwrap()));
}

fn record(minute: u32) -> Record {
    Record {
        at: format!("2026-11-21T12:0{minute}:00.000Z"),
        trigger: "tick".to_owned(),
        by: "test".to_owned(),
        pools: Vec::new(),
        errors: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_item_was_lost_is_newer_than_all_before() {
    let aws = moto().await;
    let table = fresh("ledger");
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let fence = ledger.lease("one", LEASE_LASTS).await.unwrap().unwrap();
        assert!(fence.number > last, "{} after {last}", fence.number);
        ledger.release(&fence).await.unwrap();
        last = fence.number;
    }
    let [pk, sk] = ["loop", "lease"].map(|text| AttributeValue::S(text.to_owned()));
    aws.dynamodb()
        .delete_item()
        .table_name(&table)
        .key("pk", pk)
        .key("sk", sk)
        .send()
        .await
        .unwrap();
    let run = Run::begin(
        "gpu".parse().unwrap(),
        "gpu-1".parse().unwrap(),
        now(),
        Reason::new(Rule::Demand, "1 job waits"),
    );
    ledger.save_run(&run, Some(&Fence { number: last, ..fence() })).await.unwrap();
    let next = ledger.lease("two", LEASE_LASTS).await.unwrap().unwrap();
    assert!(next.number > last, "{} after {last}", next.number);
    let ready = Run { ready_at: Some(now()), ..run };
    ledger.save_run(&ready, Some(&next)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_records_are_one_row_and_a_change_begins_the_next() {
    let aws = moto().await;
    let table = fresh("ledger");
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    let record = |at: &str, errors: &[&str]| Record {
        at: at.to_owned(),
        trigger: "tick".to_owned(),
        by: "test".to_owned(),
        pools: Vec::new(),
        errors: errors.iter().map(ToString::to_string).collect(),
    };
    for second in 10..20 {
        let at = format!("2026-11-21T12:00:{second}.000Z");
        ledger.record(&record(&at, &[]), &fence()).await.unwrap();
    }
    ledger.record(&record("2026-11-21T12:01:00.000Z", &["unreadable"]), &fence()).await.unwrap();
    ledger.record(&record("2026-11-21T12:02:00.000Z", &[]), &fence()).await.unwrap();
    let rows = aws.dynamodb().scan().table_name(&table).send().await.unwrap();
    let mut rows: Vec<(String, String)> = rows
        .items()
        .iter()
        .map(|row| (row["last_at"].as_s().unwrap().clone(), row["repeats"].as_n().unwrap().clone()))
        .collect();
    rows.sort();
    let wanted = [("12:00:19", "9"), ("12:01:00", "0"), ("12:02:00", "0")]
        .map(|(at, count)| (format!("2026-11-21T{at}.000Z"), count.to_owned()));
    assert_eq!(rows, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_result_is_stored_in_the_bucket_and_read_like_any_other() {
    let aws = moto().await;
    let ledger = a_ledger(&aws).await;
    let long = result(&"é".repeat(400_000));
    assert_eq!(ledger.commit_one(&long).await.unwrap(), Committed::Written);
    let entry = ledger.job(&long.job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.result.as_ref()), (JobState::Succeeded, Some(&long)));
    let later = long.received_at + TimeDelta::minutes(1);
    let second = JobResult { attempt: 2, received_at: later, ..long.clone() };
    assert_eq!(ledger.commit_one(&second).await.unwrap(), Committed::AlreadyThere);
    let entry = ledger.job(&long.job.id).await.unwrap().unwrap();
    assert_eq!(entry.result, Some(long));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bucket_only_a_short_result_is_stored() {
    let aws = moto().await;
    let ledger = DynamoLedger::new(&aws, &fresh("ledger"), Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    let long = result(&"x".repeat(400_000));
    let error = ledger.commit_one(&long).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::TooLarge);
    assert!(error.hint.unwrap().contains("bucket"));
    let short = JobResult { outcome: Ok(serde_json::json!({})), ..long };
    assert_eq!(ledger.commit_one(&short).await.unwrap(), Committed::Written);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_job_is_a_moving_mean_of_the_pool_s_boxes() {
    let aws = moto().await;
    let ledger = a_ledger(&aws).await.of_worker("gpu".parse().unwrap());
    let reason = Reason::new(Rule::Demand, "1 job waits");
    let run = Run::begin("gpu".parse().unwrap(), "gpu-1".parse().unwrap(), now(), reason);
    ledger.save_run(&run, None).await.unwrap();
    let service = async || ledger.memory(&run.pool).await.unwrap().service;
    assert_eq!(service().await, None);
    ledger.commit_one(&result("a")).await.unwrap();
    assert_eq!(service().await, Some(TimeDelta::milliseconds(160)));
    let slow = JobResult { inference: TimeDelta::milliseconds(320), ..result("b") };
    ledger.commit_one(&slow).await.unwrap();
    assert_eq!(service().await, Some(TimeDelta::milliseconds(170)));
    // Jobs of another box count only once it has run in this pool.
    let other = JobResult { box_id: "gpu-2".parse().unwrap(), ..result("c") };
    ledger.commit_one(&other).await.unwrap();
    assert_eq!(service().await, Some(TimeDelta::milliseconds(170)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_created_once_and_one_with_other_keys_is_rejected() {
    let aws = moto().await;
    let name = fresh("ledger");
    let ledger = DynamoLedger::new(&aws, &name, Arc::new(SystemClock), None);
    let missing = ledger.check_table().await.unwrap_err();
    assert_eq!(missing.class, PortErrorClass::NotFound);
    ledger.create_table().await.unwrap();
    ledger.create_table().await.unwrap();
    ledger.check_table().await.unwrap();
    let db = aws.dynamodb();
    let ttl = db.describe_time_to_live().table_name(&name).send().await.unwrap();
    let ttl = ttl.time_to_live_description().unwrap().attribute_name().unwrap().to_owned();
    assert_eq!(ttl, "expires");
    let table = db.describe_table().table_name(&name).send().await.unwrap();
    let billing = table.table().unwrap().billing_mode_summary().unwrap().billing_mode().unwrap();
    assert_eq!(billing.as_str(), "PAY_PER_REQUEST");
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    let other = fresh("other");
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let text = AttributeDefinition::builder().attribute_name("id");
    db.create_table()
        .table_name(&other)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key.build().unwrap())
        .attribute_definitions(text.attribute_type(ScalarAttributeType::S).build().unwrap())
        .send()
        .await
        .unwrap();
    let ledger = DynamoLedger::new(&aws, &other, Arc::new(SystemClock), None);
    assert_eq!(ledger.create_table().await.unwrap_err().class, PortErrorClass::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_all_jobs_and_reports_of_several_pages_are_read() {
    let aws = moto().await;
    let ledger = a_ledger(&aws).await;
    // Ten results of 290 KiB take three pages of 1 MiB.
    for _ in 0..10 {
        ledger.commit_one(&result(&"x".repeat(290 * 1_024))).await.unwrap();
    }
    let filter = gpuctl_control::ports::JobFilter { state: None, limit: 100, since: None };
    assert_eq!(ledger.jobs(filter).await.unwrap().len(), 10);
    let boxes: Vec<BoxId> = (0..120).map(|n| format!("gpu-{n}").parse().unwrap()).collect();
    for box_id in &boxes[..110] {
        let begun = WorkerReport::begin(box_id.clone(), now(), now(), 1);
        ledger.report(&begun).await.unwrap();
    }
    assert_eq!(ledger.reports(&boxes).await.unwrap().len(), 110);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_that_write_one_run_lose_nothing_of_either() {
    let aws = moto().await;
    let ledger = Arc::new(a_ledger(&aws).await);
    let reason = Reason::new(Rule::Demand, "1 job waits");
    let run = Run::begin("gpu".parse().unwrap(), "gpu-1".parse().unwrap(), now(), reason.clone());
    ledger.save_run(&run, None).await.unwrap();
    let at = Some(run.started_at + TimeDelta::minutes(1));
    let parts = [
        Run { ready_at: at, ..run.clone() },
        Run { stopping_at: at, stop: Some(reason), ..run.clone() },
        Run { error: Some("e".to_owned()), jobs: Some(2), ..run.clone() },
        Run { stopped_at: at, ..run.clone() },
    ];
    let mut writers = tokio::task::JoinSet::new();
    for part in parts {
        let ledger = Arc::clone(&ledger);
        writers.spawn(async move { ledger.save_run(&part, None).await });
    }
    writers.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
    let runs = ledger.memory(&run.pool).await.unwrap().runs;
    let [one] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((one.ready_at, one.stopping_at, one.stopped_at), (at, at, at));
    assert_eq!((one.jobs, one.error.as_deref()), (Some(2), Some("e")));
    assert!(one.stop.is_some());
    let since = ledger.runs_since(run.started_at).await.unwrap();
    assert_eq!(since, runs);
}

fn fence() -> Fence {
    Fence { owner: "test".to_owned(), number: 1, until: Timestamp::MAX_UTC }
}
