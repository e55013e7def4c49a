//! Jobs: one item each, from submission to result, and the state that follows from it.
//!
//! SQS shows a message only to its receiver, so a state follows from notes, and is a little behind the queue. A job is `running`
//! while its worker reports and holds leases, `dead` once its last attempt is over (SQS moves its message at the next receive), and
//! `purged` or queued again after a purge or redrive through gpuctl. What is done in the SQS console is not seen.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobId, JobResult, JobState};
use gpuctl_control::ports::{
    Attempt, AttemptName, Committed, JobEntry, JobFilter, PortError, PortErrorClass, QueueChange,
    ResultFile, SERVICE_WEIGHT, WorkerReport,
};
use gpuctl_control::wire::job::{job_to_json, result_from_json, result_to_json};
use gpuctl_core::period::month_of;
use gpuctl_core::units::{BoxId, QueueName, Timestamp};
use tokio::task::JoinSet;

use super::DynamoLedger;
use super::items::{self, Item, JOBS_KEPT, Key, QueueChanges, Reader};
use super::table::{Order, Page, condition_failed};

/// The longest result stored in an item, in bytes: DynamoDB's limit on an item is 400 KiB, job and names included.
const RESULT_BYTES_MAX: usize = 300 * 1_024;

/// The longest result read from S3, in bytes: more than a worker writes.
const RESULT_FILE_BYTES_MAX: u64 = 256 * 1_024 * 1_024;

/// Jobs that one list reads, also if few of them have the wanted state.
const JOBS_READ_MAX: usize = 10_000;

/// How old a worker's report may be while its jobs count as running.
const REPORT_AGE_MAX: TimeDelta = TimeDelta::seconds(60);

/// What the states of several jobs depend on, read once.
#[derive(Default)]
struct Context {
    changes: HashMap<QueueName, QueueChanges>,
    reports: HashMap<BoxId, Option<WorkerReport>>,
}

impl DynamoLedger {
    pub(super) async fn note_submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        // At once: one after the other, a batch of ten would take ten round trips.
        let mut writes = JoinSet::new();
        for job in jobs {
            let (table, item) = (self.table.clone(), items::job(job));
            writes.spawn(async move { table.put_new(item, "note a job").await });
        }
        writes.join_all().await.into_iter().collect()
    }

    pub(super) async fn note_began(&self, job: &Job, attempt: &Attempt) -> Result<(), PortError> {
        let mut set = SET_JOB.to_owned();
        let mut call = self.table.update(&Key::job(&job.id));
        for (name, value) in items::attempt(attempt) {
            set.push_str(&format!(", {name} = :{name}"));
            call = call.expression_attribute_values(format!(":{name}"), value);
        }
        for (name, value) in job_values(job) {
            call = call.expression_attribute_values(name, value);
        }
        let answer = call.update_expression(set).send().await;
        answer.map(drop).map_err(|error| self.table.failed("UpdateItem", "note an attempt", error))
    }

    pub(super) async fn note_queue_change(
        &self,
        queue: &QueueName,
        change: QueueChange,
    ) -> Result<(), PortError> {
        let call = self
            .table
            .update(&Key::queue_changes(queue))
            .update_expression("SET #what = :now, v = :v")
            .expression_attribute_names("#what", items::change_name(change))
            .expression_attribute_values(":now", items::time(self.now()))
            .expression_attribute_values(":v", items::number(items::VERSION));
        let answer = call.send().await;
        answer
            .map(drop)
            .map_err(|error| self.table.failed("UpdateItem", "note a queue change", error))
    }

    pub(super) async fn commit_first(&self, result: &JobResult) -> Result<Committed, PortError> {
        let job = &result.job;
        let text = result_to_json(result);
        let (name, value) = if text.len() <= RESULT_BYTES_MAX {
            // `result` is a reserved word of DynamoDB.
            ("result_json", text)
        } else {
            ("result_uri", self.store_result(result, &text).await?)
        };
        let mut call = self
            .table
            .update(&Key::job(&job.id))
            .update_expression(format!("{SET_JOB}, succeeded = :succeeded, {name} = :result"))
            .condition_expression("attribute_not_exists(succeeded)")
            .expression_attribute_values(":succeeded", AttributeValue::Bool(result.outcome.is_ok()))
            .expression_attribute_values(":result", AttributeValue::S(value.clone()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        for (name, value) in job_values(job) {
            call = call.expression_attribute_values(name, value);
        }
        match call.send().await {
            Ok(_) => {}
            Err(error) => match condition_failed(&error) {
                // The response to our own write was lost, and the SDK wrote it again.
                Some(item) if Reader(item).text_if(name) == Some(&value) => {}
                Some(_) => return Ok(Committed::AlreadyThere),
                None => return Err(self.table.failed("UpdateItem", "store a result", error)),
            },
        }
        self.note_service(result).await;
        Ok(Committed::Written)
    }

    /// Stores a long result in S3, under a name of this attempt, so that no other attempt replaces it.
    async fn store_result(&self, result: &JobResult, text: &str) -> Result<String, PortError> {
        let Some(files) = &self.results else {
            let what = format!(
                "the result has {} KiB, and without a bucket for results at most {} KiB can be stored",
                text.len() / 1_024,
                RESULT_BYTES_MAX / 1_024
            );
            return Err(PortError::new(PortErrorClass::Full, what)
                .hint("set `results = \"s3://bucket/prefix\"` in [cloud]"));
        };
        let name = format!("result-{}-{}.json", result.attempt, result.box_id);
        let attempt = AttemptName::new(result.job.generation, &result.box_id, result.received_at);
        files
            .keep(&ResultFile {
                job: &result.job.id,
                attempt: &attempt,
                name: &name,
                bytes: text.as_bytes(),
            })
            .await
    }

    /// Moves the box's mean towards this job's time. It is an estimate, so a failed write is only logged.
    async fn note_service(&self, result: &JobResult) {
        if result.outcome.is_err() {
            return;
        }
        let took = result.inference.num_microseconds().unwrap_or(i64::MAX);
        let known = self.known_mean(&result.box_id).await;
        let mean = known.map_or(took, |mean| mean + (took - mean) / i64::from(SERVICE_WEIGHT));
        self.means().insert(result.box_id.clone(), mean);
        let item = items::Writer::new(&Key::service(&result.box_id)).number("mean", mean).done();
        if let Err(error) = self.table.put(item, "store a job's mean time").await {
            tracing::debug!(%error, "a job's mean time was not stored");
        }
    }

    /// Read from the table once; from then on only this process changes it.
    async fn known_mean(&self, box_id: &BoxId) -> Option<i64> {
        let here = self.means().get(box_id).copied();
        match here {
            Some(mean) => Some(mean),
            None => {
                let item = self.table.get(&Key::service(box_id)).await.ok()??;
                Reader(&item).number_if("mean")
            }
        }
    }

    fn means(&self) -> std::sync::MutexGuard<'_, HashMap<BoxId, i64>> {
        self.service.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) async fn one_job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        match self.table.get(&Key::job(id)).await? {
            Some(item) => self.entry(&item, &mut Context::default()).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn newest_jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        let limit = filter.limit as usize;
        let mut context = Context::default();
        let (mut found, mut read) = (Vec::new(), 0);
        for page in self.job_pages(filter.since) {
            let mut after = None;
            loop {
                let (items, next) = self.table.query_once(&page, after, Some(limit.max(1))).await?;
                for item in &items {
                    read += 1;
                    let entry = self.entry(item, &mut context).await?;
                    let old = filter.since.is_some_and(|since| entry.job.submitted_at < since);
                    if !old && filter.state.is_none_or(|state| state == entry.state) {
                        found.push(entry);
                    }
                    if found.len() >= limit || read >= JOBS_READ_MAX {
                        return Ok(found);
                    }
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The months of jobs, newest first, and last the jobs whose ids have no time.
    fn job_pages(&self, since: Option<Timestamp>) -> Vec<Page> {
        let now = self.now();
        let oldest = since.unwrap_or(now - JOBS_KEPT).max(now - JOBS_KEPT);
        let from = since.map(|_| items::first_id(oldest));
        let mut pages = Vec::new();
        // One day ahead, for clocks that differ.
        let mut month = month_of(now + TimeDelta::days(1)).begin;
        while month >= month_of(oldest).begin {
            let pk = Key::jobs_of(month);
            pages.push(Page { from: from.clone(), order: Order::Last, ..Page::of(pk) });
            month = month_of(month - TimeDelta::days(1)).begin;
        }
        pages.push(Page { order: Order::Last, ..Page::of(Key::JOBS_UNDATED) });
        pages
    }

    async fn entry(&self, item: &Item, context: &mut Context) -> Result<JobEntry, PortError> {
        let item = Reader(item).known()?;
        let job = items::job_of(item)?;
        if let Some(result) = self.result_of(item).await? {
            let state = if result.outcome.is_ok() { JobState::Succeeded } else { JobState::Failed };
            return Ok(JobEntry { job, state, result: Some(result), problem: None });
        }
        let attempt = items::attempt_of(item)?;
        let report = match &attempt {
            Some(attempt) => self.report_of(&attempt.box_id, context).await?,
            None => None,
        };
        let changes = self.changes(&job.queue, context).await?;
        let (attempt, report) = (attempt.as_ref(), report.as_ref());
        let state = state(&job, &Notes { attempt, changes, report }, self.now());
        Ok(JobEntry { job, state, result: None, problem: None })
    }

    async fn result_of(&self, item: Reader<'_>) -> Result<Option<JobResult>, PortError> {
        let kept;
        let text = match (item.text_if("result_json"), item.text_if("result_uri")) {
            (Some(text), _) => text,
            (None, Some(uri)) => {
                let Some(files) = &self.results else {
                    let what =
                        format!("the result is at {uri}, and there is no `results` under [cloud]");
                    return Err(PortError::new(PortErrorClass::NotFound, what)
                        .hint("set `results = \"s3://bucket/prefix\"` in [cloud]"));
                };
                kept = files.text(uri, RESULT_FILE_BYTES_MAX).await?;
                &kept
            }
            (None, None) => return Ok(None),
        };
        let result = result_from_json(text);
        result.map(Some).map_err(|error| item.unreadable("result_json").because(error))
    }

    async fn changes(
        &self,
        queue: &QueueName,
        context: &mut Context,
    ) -> Result<QueueChanges, PortError> {
        if let Some(changes) = context.changes.get(queue) {
            return Ok(*changes);
        }
        let item = self.table.get(&Key::queue_changes(queue)).await?;
        let changes = item.as_ref().map_or_else(QueueChanges::default, QueueChanges::of);
        context.changes.insert(queue.clone(), changes);
        Ok(changes)
    }

    async fn report_of(
        &self,
        box_id: &BoxId,
        context: &mut Context,
    ) -> Result<Option<WorkerReport>, PortError> {
        if let Some(report) = context.reports.get(box_id) {
            return Ok(report.clone());
        }
        let item = self.table.get(&Key::report(box_id)).await?;
        let report = item.as_ref().map(items::report_of).transpose()?;
        context.reports.insert(box_id.clone(), report.clone());
        Ok(report)
    }
}

/// What is known of a job without a result.
struct Notes<'a> {
    /// The latest attempt.
    attempt: Option<&'a Attempt>,
    /// Of the job's queue.
    changes: QueueChanges,
    /// The latest report of the attempt's worker.
    report: Option<&'a WorkerReport>,
}

/// The state of a job without a result.
fn state(job: &Job, notes: &Notes<'_>, now: Timestamp) -> JobState {
    let Notes { attempt, changes, report } = *notes;
    // A redrive gives a dead message all its attempts again, and counts as its new submission.
    let redriven = changes.redriven_at.filter(|redriven| {
        attempt.is_some_and(|attempt| attempt.number >= attempt.of && attempt.at < *redriven)
    });
    let attempt = attempt.filter(|_| redriven.is_none());
    let begun = redriven.unwrap_or(job.submitted_at);
    let after = |change: Option<Timestamp>, then: Timestamp| change.is_some_and(|at| at >= then);
    match attempt {
        Some(attempt) if is_held(attempt, report, now) => JobState::Running,
        Some(attempt) if attempt.number >= attempt.of => {
            // It was in the queue until its last attempt was over, and in the dead-letter queue from then on.
            let purged = after(changes.purged_dead_at, attempt.at);
            if purged { JobState::Purged } else { JobState::Dead }
        }
        _ if after(changes.purged_live_at, begun) => JobState::Purged,
        _ => JobState::Queued,
    }
}

/// Whether a worker still holds the job: by its reports, and never beyond the attempt's end.
fn is_held(attempt: &Attempt, report: Option<&WorkerReport>, now: Timestamp) -> bool {
    let released = report.is_some_and(|report| {
        let silent = now - report.at > REPORT_AGE_MAX && now - attempt.at > REPORT_AGE_MAX;
        silent || (report.at > attempt.at && report.leases == 0)
    });
    now < attempt.until && !released
}

/// Adds the job to its item, unless it is there already.
const SET_JOB: &str = "SET job = if_not_exists(job, :job), submitted_at = if_not_exists(submitted_at, :submitted_at), \
                       expires = if_not_exists(expires, :expires), v = :v";

fn job_values(job: &Job) -> [(&'static str, AttributeValue); 4] {
    [
        (":job", AttributeValue::S(job_to_json(job))),
        (":submitted_at", items::time(job.submitted_at)),
        (":expires", items::expires(job.submitted_at + JOBS_KEPT)),
        (":v", items::number(items::VERSION)),
    ]
}

#[cfg(test)]
mod tests {
    use gpuctl_control::job::InputUri;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_795_000_000 + seconds, 0).unwrap()
    }

    fn attempt(number: u32, began: i64) -> Attempt {
        let box_id = "gpu-1".parse().unwrap();
        Attempt { box_id, number, of: 2, at: at(began), until: at(began + 600) }
    }

    fn report(said: i64, leases: u32) -> WorkerReport {
        WorkerReport {
            box_id: "gpu-1".parse().unwrap(),
            device: None,
            run_started_at: at(0),
            at: at(said),
            pid: 1,
            ready_at: None,
            leases,
            idle_since: None,
            jobs_done: 0,
            last_error: None,
            fault: None,
            keep_until: None,
        }
    }

    #[test]
    fn a_state_follows_from_the_notes() {
        use JobState::{Dead, Purged, Queued, Running};
        let job = Job {
            params: serde_json::Map::new(),
            id: JobId::new(at(0)),
            queue: "jobs".parse().unwrap(),
            task: "vision.ocr".to_owned(),
            model: None,
            input: InputUri::of_path(std::path::Path::new("/a")),
            submitted_at: at(0),
            generation: 0,
        };
        let none = QueueChanges::default();
        let live = |seconds| QueueChanges { purged_live_at: Some(at(seconds)), ..none };
        let dead = |seconds| QueueChanges { purged_dead_at: Some(at(seconds)), ..none };
        let redriven = |seconds| QueueChanges { redriven_at: Some(at(seconds)), ..none };
        let (first, last) = (Some(attempt(1, 10)), Some(attempt(2, 10)));
        let table = [
            ("new", None, none, None, 20, Queued),
            ("begun", first.clone(), none, None, 20, Running),
            ("… and its worker reports it", first.clone(), none, Some(report(19, 1)), 20, Running),
            ("… or has not yet", first.clone(), none, Some(report(5, 0)), 20, Running),
            ("… or has released it", first.clone(), none, Some(report(19, 0)), 20, Queued),
            ("… or is silent", first.clone(), none, Some(report(30, 1)), 95, Queued),
            ("tried once, over", first.clone(), none, None, 700, Queued),
            ("in its last attempt", last.clone(), none, None, 20, Running),
            ("… and over", last.clone(), none, None, 700, Dead),
            ("… and purged", last.clone(), dead(800), None, 900, Purged),
            ("… and redriven", last.clone(), redriven(800), None, 900, Queued),
            ("a redrive before that does not count", last.clone(), redriven(5), None, 900, Dead),
            ("redriven and begun", Some(attempt(1, 810)), redriven(800), None, 820, Running),
            ("purged", None, live(5), None, 20, Purged),
            ("purged while tried", first.clone(), live(15), None, 700, Purged),
            ("a purge before it was submitted", None, live(-5), None, 20, Queued),
            ("a purge of the queue leaves the dead", last.clone(), live(800), None, 900, Dead),
            (
                "purged, then redriven",
                last,
                QueueChanges { redriven_at: Some(at(850)), ..live(800) },
                None,
                900,
                Queued,
            ),
        ];
        for (name, attempt, changes, report, now, wanted) in table {
            let (attempt, report) = (attempt.as_ref(), report.as_ref());
            let found = state(&job, &Notes { attempt, changes, report }, at(now));
            assert_eq!(found, wanted, "{name}");
        }
    }
}
