//! The ledger in one DynamoDB table: leases and results by conditional writes, everything else by key, nothing by scans (L7).
//!
//! `items` and `job_items` say what the table holds. The time is the caller's clock. SQS shows a message to its receiver alone, so a job's
//! state follows from notes: attempts (`Ledger::began`), problems, purges and redrives (`Ledger::queue_changed`), and the worker's report.

mod items;
mod job_items;
mod jobs;
mod keys;
mod listing;
mod pools;
mod probe;
mod records;
mod service;
mod state;
mod table;
mod urgent;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use chrono::TimeDelta;
use gpuctl_control::clock::CLOCKS_APART_MAX;
use gpuctl_control::hold::outdated;
use gpuctl_control::job::{Job, JobId, JobResult};
use gpuctl_control::keys::{ApiKey, KeyChange, KeyName};
use gpuctl_control::ports::{
    Attempt, Began, Clock, Committed, Fence, JobEntry, JobFilter, JobProblem, Ledger, PoolMemory,
    PortError, PortErrorClass, QueueChange, QueueMemory, WorkerReport,
};
use gpuctl_control::wire::record::Record;
use gpuctl_core::observation::{Hold, Run, UrgentJob};
use gpuctl_core::units::{BoxId, PoolId, QueueName, Timestamp};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::Aws;
use crate::error::code;
use crate::files::S3Files;
use crate::queue::SqsQueue;

use self::items::{Key, Reader, from_micros};
use self::records::{Lease, NewestRecord};
use self::service::Mean;
use self::table::{Page, Table, condition_failed};

/// Boxes whose reports are read side by side.
const REPORTS_SIDE_BY_SIDE_MAX: usize = 50;

/// How long a request to the function is known: longer than SQS (14 days) or Lambda (6 hours) delivers it again.
const REQUESTS_KEPT: TimeDelta = TimeDelta::days(15);

/// The ledger in one table.
pub struct DynamoLedger {
    table: Table,
    clock: Arc<dyn Clock>,
    /// Where results are stored that are too long for an item.
    results: Option<S3Files>,
    /// The pool whose worker this is; `None` in a controller.
    pool: Option<PoolId>,
    /// The moving means of a job's time, by box; only the box's own worker writes its.
    means: Mutex<HashMap<BoxId, Mean>>,
    /// The newest record, which is being read since the lease was taken.
    newest_record: Mutex<Option<NewestRecord>>,
    /// Tells how long a queue keeps messages.
    queues: Option<Arc<SqsQueue>>,
}

impl DynamoLedger {
    /// The ledger in this table. Long results are stored in `results`; without it they are `Full`.
    #[must_use]
    pub fn new(aws: &Aws, table: &str, clock: Arc<dyn Clock>, results: Option<S3Files>) -> Self {
        Self {
            table: Table::new(aws, table),
            clock,
            results,
            pool: None,
            means: Mutex::default(),
            newest_record: Mutex::default(),
            queues: None,
        }
    }

    /// For a worker of this pool: what it commits moves the mean time of the pool's jobs.
    #[must_use]
    pub fn of_worker(self, pool: PoolId) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// Asks `queues` how long they keep messages: a job that waited for longer is `expired`. Without it such a job stays `queued`.
    #[must_use]
    pub fn with_queues(self, queues: Arc<SqsQueue>) -> Self {
        Self { queues: Some(queues), ..self }
    }

    /// Creates the table if it does not exist, and waits until it accepts writes. It is billed by request, has the keys `pk` and
    /// `sk` (texts), and DynamoDB deletes items after the time in `expires` (seconds since 1970).
    ///
    /// # Errors
    /// When it cannot be created, or a table of that name has other keys.
    pub async fn create_table(&self) -> Result<(), PortError> {
        self.table.create().await
    }

    /// Checks that the table exists, with the right keys.
    ///
    /// # Errors
    /// When it does not, or cannot be read.
    pub async fn check_table(&self) -> Result<(), PortError> {
        self.table.check().await
    }

    /// Reads one item: the cheapest call, for what its response tells.
    #[cfg(feature = "control")]
    pub(crate) async fn ask(&self) -> Result<(), PortError> {
        self.table.get(&Key::lease()).await.map(drop)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl DynamoLedger {
    /// Notes a request unless it is noted; returns when that was.
    async fn note_request(&self, request: &str, now: Timestamp) -> Result<Timestamp, PortError> {
        let answer = self
            .table
            .update(&Key::request(request))
            .update_expression("SET #at = if_not_exists(#at, :now), expires = :expires, v = :v")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":now", items::time(now))
            .expression_attribute_values(":expires", items::expires(now + REQUESTS_KEPT))
            .expression_attribute_values(":v", items::number(items::VERSION))
            .return_values(ReturnValue::AllNew)
            .send()
            .await;
        let answer =
            answer.map_err(|error| self.table.failed("UpdateItem", "note a request", error))?;
        Reader(&answer.attributes.unwrap_or_default()).time("at")
    }
}

#[async_trait]
impl Ledger for DynamoLedger {
    async fn lease(&self, owner: &str, lasts: TimeDelta) -> Result<Option<Fence>, PortError> {
        let now = self.now();
        let until = now + lasts;
        // Others see its end only when it is over for the holder as well, whose clock may be behind theirs.
        let until_for_others = until + CLOCKS_APART_MAX;
        // A lost item must not begin again at 1, below the fences of what was written before: it begins at the milliseconds since 1970, and
        // no lease is taken in less than one.
        let seed = items::number(now.timestamp_millis());
        // The SDK may repeat a call whose response was lost; then the condition meets our own write, which the nonce tells.
        let nonce = Uuid::new_v4().to_string();
        let answer = self
            .table
            .update(&Key::lease())
            .update_expression(
                "SET #owner = :owner, #until = :until, nonce = :nonce, v = :v, #number = if_not_exists(#number, :seed) + :one",
            )
            .condition_expression("attribute_not_exists(pk) OR #until <= :now")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#number", "number")
            .expression_attribute_values(":owner", AttributeValue::S(owner.to_owned()))
            .expression_attribute_values(":until", items::time(until_for_others))
            .expression_attribute_values(":now", items::time(now))
            .expression_attribute_values(":seed", seed)
            .expression_attribute_values(":nonce", AttributeValue::S(nonce.clone()))
            .expression_attribute_values(":v", items::number(items::VERSION))
            .expression_attribute_values(":one", items::number(1))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let item = match answer {
            Ok(answer) => answer.attributes.unwrap_or_default(),
            Err(error) => match condition_failed(&error) {
                Some(item) if Reader(item).text_if("nonce") == Some(&nonce) => item.clone(),
                Some(_) => return Ok(None),
                None => {
                    return Err(self.table.failed("UpdateItem", "take the reconcile lease", error));
                }
            },
        };
        let number = Reader(&item).number("number")?;
        let until = from_micros(until.timestamp_micros());
        self.read_newest_record(number);
        Ok(Some(Fence { owner: owner.to_owned(), number, until }))
    }

    async fn release(&self, fence: &Fence) -> Result<(), PortError> {
        let release = vec![self.release_of(fence)];
        match self.table.transact(release, "release the reconcile lease").await {
            // Another controller has the lease by now, and keeps it.
            Err(error) if error.class == PortErrorClass::Conflict => Ok(()),
            answer => answer,
        }
    }

    async fn memory(&self, pool: &PoolId) -> Result<PoolMemory, PortError> {
        // Boxed, since three calls at once are a large future.
        Box::pin(self.pool_memory(pool)).await
    }

    async fn remember_queue(
        &self,
        pool: &PoolId,
        queue: &QueueMemory,
        fence: Option<&Fence>,
    ) -> Result<(), PortError> {
        let item = items::queue_memory(pool, queue);
        let optional = ["oldest_sent_at", "empty_since"];
        let fence = fence.map(|fence| fence.number);
        self.table.set(item, &optional, fence, "remember the queue").await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<(), PortError> {
        let (item, most) = (items::hold(hold), items::time(self.now() + CLOCKS_APART_MAX));
        match self.table.put_unless_newer(item, "since", most, "set the hold").await {
            Err(error) if error.class == PortErrorClass::Conflict => Err(outdated(hold)),
            answer => answer,
        }
    }

    async fn first_seen(
        &self,
        request: &str,
        now: Timestamp,
        lasts: TimeDelta,
    ) -> Result<Timestamp, PortError> {
        let first = self.note_request(request, now).await?;
        if now - first < lasts {
            return Ok(first);
        }
        // One of several that come at once makes it a new request; the others find that.
        let renewed = self
            .table
            .update(&Key::request(request))
            .update_expression("SET #at = :now")
            .condition_expression("#at = :first")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":now", items::time(now))
            .expression_attribute_values(":first", items::time(first))
            .send()
            .await;
        match renewed.map_err(|error| self.table.failed("UpdateItem", "renew a request", error)) {
            Err(error) if error.class != PortErrorClass::Conflict => Err(error),
            _ => self.note_request(request, now).await,
        }
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, PortError> {
        self.all_keys().await
    }

    async fn add_key(&self, key: &ApiKey) -> Result<(), PortError> {
        self.add_one_key(key).await
    }

    async fn change_key(&self, name: &KeyName, change: KeyChange) -> Result<(), PortError> {
        self.change_one_key(name, change).await
    }

    async fn claim_notice(&self, key: &str, again_after: TimeDelta) -> Result<bool, PortError> {
        let now = self.now();
        let answer = self
            .table
            .update(&Key::notice(key))
            .update_expression("SET #at = :now, expires = :expires, v = :v")
            .condition_expression("attribute_not_exists(pk) OR #at <= :before")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":now", items::time(now))
            .expression_attribute_values(":before", items::time(now - again_after))
            .expression_attribute_values(":expires", items::expires(now + again_after))
            .expression_attribute_values(":v", items::number(items::VERSION))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(self.table.failed("UpdateItem", "claim a notice", error)),
        }
    }

    async fn save_run(&self, run: &Run, fence: Option<&Fence>) -> Result<(), PortError> {
        self.fill_in_run(run, fence.map(|fence| fence.number)).await
    }

    async fn runs_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        self.runs_up_since(since).await
    }

    async fn record(&self, record: &Record, fence: &Fence) -> Result<(), PortError> {
        self.note_record(record, fence, Lease::Kept).await
    }

    async fn finish(&self, record: &Record, fence: &Fence) -> Result<(), PortError> {
        let finished = self.note_record(record, fence, Lease::Released).await;
        if finished.is_err() {
            self.release(fence).await?;
        }
        finished
    }

    async fn last_reconcile(&self) -> Result<Option<Timestamp>, PortError> {
        let last = records::newest(&self.table).await?;
        let at = last.as_ref().and_then(|item| Reader(item).text_if("last_at"));
        Ok(at.and_then(|at| at.parse().ok()))
    }

    async fn report(&self, report: &WorkerReport) -> Result<(), PortError> {
        self.table.put(items::report(report), "note the worker's report").await
    }

    async fn reports(&self, boxes: &[BoxId]) -> Result<Vec<WorkerReport>, PortError> {
        let mut reports = Vec::new();
        for some in boxes.chunks(REPORTS_SIDE_BY_SIDE_MAX) {
            let mut reads = JoinSet::new();
            for box_id in some {
                let (table, pk) = (self.table.clone(), Key::of_box(box_id));
                let page = Page { prefix: Some(Key::REPORT.to_owned()), ..Page::of(pk) };
                reads.spawn(async move { table.query(&page).await });
            }
            for found in reads.join_all().await {
                for item in found? {
                    reports.push(items::report_of(&item)?);
                }
            }
        }
        Ok(reports)
    }

    async fn submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        self.note_submitted(jobs).await
    }

    async fn began(&self, job: &Job, attempt: &Attempt) -> Result<Began, PortError> {
        self.note_began(job, attempt).await
    }

    async fn queue_changed(&self, queue: &QueueName, change: QueueChange) -> Result<(), PortError> {
        self.note_queue_change(queue, change).await
    }

    async fn commit(&self, results: &[JobResult]) -> Vec<Result<Committed, PortError>> {
        self.commit_all(results).await
    }

    async fn most_urgent(&self, queue: &QueueName) -> Result<Option<UrgentJob>, PortError> {
        // Boxed, since it reads the job's state in turn.
        Box::pin(self.first_urgent(queue)).await
    }

    async fn have_ended(&self, held: &[(JobId, u32)]) -> Result<Vec<bool>, PortError> {
        self.which_have_ended(held).await
    }

    async fn note_problem(&self, problem: &JobProblem) -> Result<(), PortError> {
        self.note_job_problem(problem).await
    }

    async fn results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        self.all_results(id).await
    }

    async fn delete_jobs(&self, before: Timestamp) -> Result<Vec<JobId>, PortError> {
        self.delete_finished(before).await
    }

    async fn job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        self.one_job(id).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        self.newest_jobs(filter).await
    }
}
