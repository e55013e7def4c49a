//! Jobs in DynamoDB: generations, problems, expiry, deleting them, the layout of earlier versions, and what all that costs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::QueueAttributeName;
use chrono::TimeDelta;
use gpuctl_aws::{Aws, DynamoLedger, S3Files, SqsQueue};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState, Urgency};
use gpuctl_control::ports::{
    Attempt, Began, Clock, Committed, Fence, JobFilter, JobProblem, Ledger, PortErrorClass,
    QueueMemory,
};
use gpuctl_control::wire::job::{job_to_json, result_to_json};
use gpuctl_core::observation::{Run, SeenQueue};
use gpuctl_core::plan::{Reason, Rule};
use gpuctl_core::units::Timestamp;
use serde_json::Value;

use crate::recorder::Recorder;
use crate::support::{self, a_bucket, a_ledger, fresh};

pub(crate) async fn moto() -> Aws {
    support::aws(&support::moto().await.url())
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_timestamp_micros(SystemClock.now().timestamp_micros()).unwrap()
}

pub(crate) fn a_job() -> Job {
    Job {
        params: serde_json::Map::new(),
        id: JobId::new(now()),
        queue: "jobs".parse().unwrap(),
        task: "vision.ocr".to_owned(),
        model: None,
        input: InputUri::of_path(Path::new("/a.png")),
        submitted_at: now(),
        generation: 0,
        urgency: Urgency::default(),
    }
}

pub(crate) fn result(job: &Job, text: &str) -> JobResult {
    JobResult {
        job: job.clone(),
        outcome: Ok(serde_json::json!({ "text": text })),
        model: None,
        device: None,
        box_id: "gpu-1".parse().unwrap(),
        attempt: 1,
        received_at: now(),
        finished_at: now(),
        inference: TimeDelta::milliseconds(160),
        worked: None,
    }
}

fn failed(job: &Job) -> JobResult {
    let failure = JobFailure { code: "x".into(), message: "y".into(), hint: None };
    JobResult { outcome: Err(failure), ..result(job, "") }
}

fn attempt() -> Attempt {
    let (at, box_id) = (now(), "gpu-1".parse().unwrap());
    Attempt { box_id, number: 1, of: 5, at, until: at + TimeDelta::minutes(1) }
}

const ALL: JobFilter = JobFilter { state: None, limit: 1_000, since: None };

#[tokio::test(flavor = "multi_thread")]
async fn each_generation_has_its_own_first_result_and_the_newest_is_the_job_s_state() {
    let ledger = a_ledger(&moto().await).await;
    let first = a_job();
    let second = Job { generation: 1, submitted_at: now(), ..first.clone() };
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(ledger.commit_one(&failed(&first)).await.unwrap(), Committed::Written);
    ledger.submitted(std::slice::from_ref(&second)).await.unwrap();
    let entry = ledger.job(&first.id).await.unwrap().unwrap();
    assert_eq!((entry.job, entry.state, entry.result), (second.clone(), JobState::Queued, None));
    // The first one is known already, and changes nothing.
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(ledger.began(&first, &attempt()).await.unwrap(), Began::Superseded);
    let late = result(&first, "late");
    assert_eq!(ledger.commit_one(&late).await.unwrap(), Committed::AlreadyThere);
    assert_eq!(ledger.job(&first.id).await.unwrap().unwrap().state, JobState::Queued);
    assert_eq!(ledger.began(&second, &attempt()).await.unwrap(), Began::Newest);
    assert_eq!(ledger.job(&first.id).await.unwrap().unwrap().state, JobState::Running);
    let done = result(&second, "done");
    assert_eq!(ledger.commit_one(&done).await.unwrap(), Committed::Written);
    let entry = ledger.job(&first.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.result.as_ref()), (JobState::Succeeded, Some(&done)));
    let results = ledger.results(&first.id).await.unwrap();
    let generations: Vec<u32> = results.iter().map(|result| result.job.generation).collect();
    assert_eq!((generations.as_slice(), &results[0]), ([1, 0].as_slice(), &done));
    assert_eq!(ledger.jobs(ALL).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_committed_together_each_with_an_outcome_of_its_own() {
    let ledger = a_ledger(&moto().await).await;
    let jobs: Vec<Job> = (0..40).map(|_| a_job()).collect();
    ledger.submitted(&jobs).await.unwrap();
    ledger.commit_one(&failed(&jobs[7])).await.unwrap();
    let results: Vec<JobResult> = jobs.iter().map(|job| result(job, "done")).collect();
    let outcomes = ledger.commit(&results).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        let wanted = if index == 7 { Committed::AlreadyThere } else { Committed::Written };
        assert_eq!(outcome.as_ref().unwrap(), &wanted, "{index}");
    }
    let listed = ledger.jobs(ALL).await.unwrap();
    let ids: Vec<&JobId> = listed.iter().map(|entry| &entry.job.id).collect();
    assert_eq!(ids, jobs.iter().rev().map(|job| &job.id).collect::<Vec<_>>());
    let one = JobFilter { state: Some(JobState::Failed), ..ALL };
    assert_eq!(ledger.jobs(one).await.unwrap().len(), 1);
    let few = ledger.jobs(JobFilter { limit: 3, ..ALL }).await.unwrap();
    assert_eq!(few, listed[..3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_is_kept_until_there_is_a_result_and_a_buried_job_is_dead() {
    let ledger = a_ledger(&moto().await).await;
    let job = a_job();
    let failure = |code: &str| JobFailure { code: code.into(), message: "y".into(), hint: None };
    let problem = |code: &str, dead| JobProblem {
        job: job.clone(),
        failure: failure(code),
        box_id: "gpu-1".parse().unwrap(),
        at: now(),
        dead,
    };
    // Of a job that was never noted before.
    ledger.note_problem(&problem("worker.crashed", false)).await.unwrap();
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.problem), (JobState::Queued, Some(failure("worker.crashed"))));
    ledger.note_problem(&problem("message.unreadable", true)).await.unwrap();
    let dead = ledger.jobs(JobFilter { state: Some(JobState::Dead), ..ALL }).await.unwrap();
    let [entry] = dead.as_slice() else { panic!("{dead:?}") };
    assert_eq!(entry.problem, Some(failure("message.unreadable")));
    ledger.commit_one(&result(&job, "done")).await.unwrap();
    let entry = ledger.job(&job.id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.problem), (JobState::Succeeded, None));
}

/// A queue that drops messages after an hour, and its name.
async fn queue_that_keeps_an_hour() -> (Aws, String) {
    let queues = support::aws(&support::ministack().await.url());
    let name = fresh("short");
    let call = queues.sqs().create_queue().queue_name(&name);
    let call = call.attributes(QueueAttributeName::MessageRetentionPeriod, "3600");
    call.send().await.unwrap();
    (queues, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn q18_a_job_that_waited_for_longer_than_its_queue_keeps_messages_is_expired() {
    let aws = moto().await;
    let (queues, name) = queue_that_keeps_an_hour().await;
    let later = Arc::new(Later(TimeDelta::minutes(61)));
    let table = fresh("ledger");
    let ledger = |clock: Arc<dyn Clock>| {
        let ledger = DynamoLedger::new(&aws, &table, clock, None);
        ledger.with_queues(Arc::new(SqsQueue::new(&queues)))
    };
    let today = ledger(Arc::new(SystemClock));
    today.create_table().await.unwrap();
    let job = Job { queue: name.parse().unwrap(), ..a_job() };
    today.submitted(std::slice::from_ref(&job)).await.unwrap();
    assert_eq!(today.job(&job.id).await.unwrap().unwrap().state, JobState::Queued);
    let tomorrow = ledger(later);
    assert_eq!(tomorrow.job(&job.id).await.unwrap().unwrap().state, JobState::Expired);
    // A result counts, whenever it comes.
    tomorrow.commit_one(&result(&job, "late")).await.unwrap();
    assert_eq!(tomorrow.job(&job.id).await.unwrap().unwrap().state, JobState::Succeeded);
}

/// Its message is still in the queue: without the cancellation the next worker would run it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_deleted_only_once_its_message_cannot_come_again() {
    let aws = moto().await;
    let (queues, name) = queue_that_keeps_an_hour().await;
    let table = fresh("ledger");
    let ledger = |clock: Arc<dyn Clock>| {
        let ledger = DynamoLedger::new(&aws, &table, clock, None);
        ledger.with_queues(Arc::new(SqsQueue::new(&queues)))
    };
    let today = ledger(Arc::new(SystemClock));
    today.create_table().await.unwrap();
    let of_queue = || Job { queue: name.parse().unwrap(), ..a_job() };
    let (cancelled, retried, done) = (of_queue(), of_queue(), of_queue());
    today.submitted(&[cancelled.clone(), retried.clone(), done.clone()]).await.unwrap();
    for job in [&cancelled, &retried] {
        today.cancel(&JobResult::cancelled(job.clone(), "ada", now())).await.unwrap();
    }
    let again = Job { generation: 1, ..retried.clone() };
    today.submitted(std::slice::from_ref(&again)).await.unwrap();
    today.commit_one(&result(&again, "done")).await.unwrap();
    today.commit_one(&result(&done, "done")).await.unwrap();
    let before = now() + TimeDelta::minutes(1);
    assert_eq!(today.delete_jobs(before).await.unwrap(), [done.id]);
    assert_eq!(today.began(&cancelled, &attempt()).await.unwrap(), Began::Ended);
    let later = ledger(Arc::new(Later(TimeDelta::minutes(61))));
    let mut deleted = later.delete_jobs(before).await.unwrap();
    deleted.sort();
    assert_eq!(deleted, [cancelled.id, retried.id]);
}

/// A worker of an older gpuctl, which writes nothing of cancelled jobs, does the next generation.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_fails_on_an_older_worker_is_not_shown_as_cancelled() {
    let (aws, table) = (moto().await, fresh("ledger"));
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    let first = a_job();
    ledger.submitted(std::slice::from_ref(&first)).await.unwrap();
    ledger.cancel(&JobResult::cancelled(first.clone(), "ada", now())).await.unwrap();
    let again = Job { generation: 1, ..first.clone() };
    ledger.submitted(std::slice::from_ref(&again)).await.unwrap();
    let rows = aws.dynamodb().scan().table_name(&table).send().await.unwrap();
    let id = AttributeValue::S(first.id.to_string());
    let row = rows.items().iter().find(|row| row["sk"] == id).unwrap();
    let call = aws.dynamodb().update_item().table_name(&table);
    call.key("pk", row["pk"].clone())
        .key("sk", id)
        .update_expression("SET succeeded = :no, done_generation = :one")
        .expression_attribute_values(":no", AttributeValue::Bool(false))
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
        .send()
        .await
        .unwrap();
    assert_eq!(ledger.job(&first.id).await.unwrap().unwrap().state, JobState::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_holds_a_job_twice_is_told_of_both() {
    let ledger = a_ledger(&moto().await).await;
    let (cancelled, other) = (a_job(), a_job());
    ledger.submitted(&[cancelled.clone(), other.clone()]).await.unwrap();
    ledger.cancel(&JobResult::cancelled(cancelled.clone(), "ada", now())).await.unwrap();
    let held = [&cancelled, &other, &cancelled].map(|job| (job.id.clone(), job.generation));
    assert_eq!(ledger.have_ended(&held).await.unwrap(), [true, false, true]);
}

/// The machine's clock, and this much more.
struct Later(TimeDelta);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_finished_jobs_from_before_are_deleted_with_all_that_the_table_has_of_them() {
    let aws = moto().await;
    let table = fresh("ledger");
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    let long = InputUri::of_text(&"x".repeat(20_000)).unwrap();
    let jobs: Vec<Job> = (0..40).map(|_| Job { input: long.clone(), ..a_job() }).collect();
    ledger.submitted(&jobs).await.unwrap();
    let done: Vec<JobResult> = jobs[..30].iter().map(|job| result(job, "done")).collect();
    ledger.commit(&done).await;
    let later = a_job();
    let before = later.submitted_at;
    ledger.commit_one(&result(&later, "done")).await.unwrap();
    let mut deleted = ledger.delete_jobs(before).await.unwrap();
    deleted.sort();
    assert_eq!(deleted, jobs[..30].iter().map(|job| job.id.clone()).collect::<Vec<_>>());
    assert_eq!(ledger.jobs(ALL).await.unwrap().len(), 11);
    assert_eq!(ledger.results(&jobs[0].id).await.unwrap(), []);
    let rows = aws.dynamodb().scan().table_name(&table).send().await.unwrap();
    let of_deleted = |pk: &str| jobs[..30].iter().any(|job| pk.contains(job.id.as_str()));
    let left = rows.items().iter().filter(|row| of_deleted(row["pk"].as_s().unwrap())).count();
    assert_eq!(left, 0, "parts of deleted jobs are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_table_before_shards_stay_readable_and_keep_their_results() {
    let aws = moto().await;
    let table = fresh("ledger");
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    ledger.create_table().await.unwrap();
    let (waiting, done) = (a_job(), a_job());
    let stored = result(&done, "old");
    for (job, result) in [(&waiting, None), (&done, Some(&stored))] {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let number = |number: i64| AttributeValue::N(number.to_string());
        let month = job.submitted_at.format("jobs#%Y-%m").to_string();
        let mut call = aws
            .dynamodb()
            .put_item()
            .table_name(&table)
            .item("pk", text(&month))
            .item("sk", text(job.id.as_str()))
            .item("v", number(1))
            .item("job", text(&job_to_json(job)))
            .item("submitted_at", number(job.submitted_at.timestamp_micros()));
        if let Some(result) = result {
            call = call.item("succeeded", AttributeValue::Bool(true));
            call = call.item("result_json", text(&result_to_json(result)));
        }
        call.send().await.unwrap();
    }
    let listed = ledger.jobs(ALL).await.unwrap();
    let states: Vec<JobState> = listed.iter().map(|entry| entry.state).collect();
    assert_eq!(states, [JobState::Succeeded, JobState::Queued]);
    assert_eq!(listed[0].result.as_ref(), Some(&stored));
    assert_eq!(ledger.job(&done.id).await.unwrap().as_ref(), Some(&listed[0]));
    assert_eq!(ledger.results(&done.id).await.unwrap(), std::slice::from_ref(&stored));
    // Its first result stays, and the other job gets its own.
    let again = ledger.commit_one(&result(&done, "new")).await.unwrap();
    assert_eq!(again, Committed::AlreadyThere);
    assert_eq!(ledger.job(&done.id).await.unwrap().unwrap().result, Some(stored));
    ledger.began(&waiting, &attempt()).await.unwrap();
    assert_eq!(ledger.commit_one(&result(&waiting, "new")).await.unwrap(), Committed::Written);
    assert_eq!(ledger.job(&waiting.id).await.unwrap().unwrap().state, JobState::Succeeded);
    assert_eq!(ledger.jobs(ALL).await.unwrap().len(), 2);
    let deleted = ledger.delete_jobs(now()).await.unwrap();
    assert_eq!((deleted.len(), ledger.jobs(ALL).await.unwrap().len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_replaced_writes_nothing_more() {
    let ledger = a_ledger(&moto().await).await;
    let fence = |number| Fence { owner: "a".to_owned(), number, until: Timestamp::MAX_UTC };
    let (old, new) = (fence(7), fence(8));
    let pool = "gpu".parse().unwrap();
    let memory = |visible| QueueMemory {
        seen: SeenQueue {
            visible,
            oldest_sent_at: (visible > 1).then(now),
            ..SeenQueue::default()
        },
        at: now(),
    };
    let run = Run::begin(
        "gpu".parse().unwrap(),
        "gpu-1".parse().unwrap(),
        now(),
        Reason::new(Rule::Demand, "1 job waits"),
    );
    ledger.remember_queue(&pool, &memory(2), Some(&new)).await.unwrap();
    ledger.save_run(&run, Some(&new)).await.unwrap();
    // A worker has no fence, and its write keeps the one that is there.
    let by_worker = memory(1);
    ledger.remember_queue(&pool, &by_worker, None).await.unwrap();
    let ready = Run { ready_at: Some(now()), ..run.clone() };
    ledger.save_run(&ready, None).await.unwrap();
    let late = ledger.remember_queue(&pool, &memory(3), Some(&old)).await.unwrap_err();
    assert_eq!(late.class, PortErrorClass::Conflict);
    let stopped = Run { stopped_at: Some(now()), ..run };
    let late = ledger.save_run(&stopped, Some(&old)).await.unwrap_err();
    assert_eq!(late.class, PortErrorClass::Conflict);
    let found = ledger.memory(&pool).await.unwrap();
    assert_eq!((found.queue, found.runs), (Some(by_worker), vec![ready]));
    ledger.save_run(&stopped, Some(&new)).await.unwrap();
}

/// A partition takes 1,000 write units a second: what no partition may have is most of them.
#[tokio::test(flavor = "multi_thread")]
async fn no_partition_gets_more_than_its_share_of_the_writes() {
    const JOBS: usize = 160;
    let upstream = moto().await;
    let table = fresh("ledger");
    let files = S3Files::new(&upstream, &a_bucket(&upstream).await, "");
    DynamoLedger::new(&upstream, &table, Arc::new(SystemClock), None).create_table().await.unwrap();
    let recorder = Recorder::before(support::moto().await.port);
    let aws = support::aws(&recorder.url());
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), Some(files));
    let jobs: Vec<Job> = (0..JOBS).map(|_| a_job()).collect();
    for some in jobs.chunks(10) {
        ledger.submitted(some).await.unwrap();
        for job in some {
            ledger.began(job, &attempt()).await.unwrap();
        }
        let long = |index: usize| if index == 0 { 60_000 } else { 6_000 };
        let results: Vec<JobResult> =
            (0..some.len()).map(|index| result(&some[index], &"x".repeat(long(index)))).collect();
        for outcome in ledger.commit(&results).await {
            outcome.unwrap();
        }
    }
    let units = units(&upstream, &table, &recorder).await;
    let of_jobs: BTreeMap<&String, &usize> =
        units.iter().filter(|(pk, _)| pk.starts_with("jobs#")).collect();
    assert!(of_jobs.len() >= 12, "{of_jobs:?}");
    let (most, all) = (**of_jobs.values().max().unwrap(), of_jobs.values().copied().sum::<usize>());
    // One unit each for submission, attempt and state.
    assert_eq!(all, JOBS * 3, "{of_jobs:?}");
    assert!(most * 5 < all, "one partition gets {most} of {all} units");
    for (pk, units) in units.iter().filter(|(pk, _)| pk.starts_with("job#")) {
        assert!(*units <= 8, "{pk} gets {units} units");
    }
    assert_eq!(ledger.jobs(JobFilter { limit: 160, ..ALL }).await.unwrap().len(), JOBS);
}

/// Write units by partition: of each write the size of its item in KiB, rounded up.
async fn units(aws: &Aws, table: &str, recorder: &Recorder) -> BTreeMap<String, usize> {
    let mut sizes: HashMap<(String, String), usize> = HashMap::new();
    let mut pages = aws.dynamodb().scan().table_name(table).into_paginator().items().send();
    while let Some(item) = pages.next().await {
        let item = item.unwrap();
        let size = item.iter().map(|(name, value)| name.len() + size_of(value)).sum();
        sizes
            .insert((item["pk"].as_s().unwrap().clone(), item["sk"].as_s().unwrap().clone()), size);
    }
    let mut units = BTreeMap::new();
    for (action, body) in recorder.calls() {
        let item = match action.as_str() {
            "PutItem" => &body["Item"],
            "UpdateItem" => &body["Key"],
            _ => continue,
        };
        let part = |name: &str| item[name]["S"].as_str().unwrap().to_owned();
        let size = sizes[&(part("pk"), part("sk"))];
        *units.entry(part("pk")).or_default() += size.div_ceil(1_024);
    }
    units
}

fn size_of(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len() / 2 + 1,
        _ => 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_by_state_reads_no_result_that_it_does_not_show() {
    let upstream = moto().await;
    let table = fresh("ledger");
    DynamoLedger::new(&upstream, &table, Arc::new(SystemClock), None).create_table().await.unwrap();
    let recorder = Recorder::before(support::moto().await.port);
    let aws = support::aws(&recorder.url());
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    let jobs: Vec<Job> = (0..20).map(|_| a_job()).collect();
    ledger.submitted(&jobs).await.unwrap();
    let results: Vec<JobResult> =
        jobs.iter().map(|job| result(job, &"x".repeat(100_000))).collect();
    ledger.commit(&results).await;
    ledger.commit_one(&failed(&a_job())).await.unwrap();
    let before = recorder.calls().len();
    let failed = JobFilter { state: Some(JobState::Failed), limit: 10, since: None };
    assert_eq!(ledger.jobs(failed).await.unwrap().len(), 1);
    let read = recorder.calls().split_off(before);
    let keys: Vec<&Value> = read
        .iter()
        .filter(|(action, _)| action == "BatchGetItem")
        .flat_map(|(_, body)| body["RequestItems"][&table]["Keys"].as_array().unwrap())
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(recorder.largest_answer_since(before) < 50_000, "results were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_s_probe_leaves_nothing_behind() {
    let aws = moto().await;
    let table = fresh("ledger");
    let ledger = DynamoLedger::new(&aws, &table, Arc::new(SystemClock), None);
    assert_eq!(ledger.probe().await.unwrap_err().class, PortErrorClass::NotFound);
    ledger.create_table().await.unwrap();
    ledger.probe().await.unwrap();
    assert_eq!(aws.dynamodb().scan().table_name(&table).send().await.unwrap().count(), 0);
}
