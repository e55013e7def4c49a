//! Writes of jobs: their submission, attempts and problems, their results, and deleting them.
//!
//! The result of a generation is one item that is written once: that decides which result is the first. The job's own item says afterwards
//! that there is one; a second delivery repairs it if the first worker died in between.

use std::collections::HashSet;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobId, JobResult, JobState};
use gpuctl_control::ports::{
    Attempt, AttemptName, Began, Committed, JOBS_DELETED_MAX, JobProblem, PortError,
    PortErrorClass, QueueChange, ResultFile,
};
use gpuctl_control::wire::job::result_to_json;
use gpuctl_core::units::{QueueName, Timestamp};
use tokio::task::JoinSet;

use super::DynamoLedger;
use super::items::{self, Item, Key, Reader, Writer};
use super::job_items::{self, Noted};
use super::listing::{Context, Found, Merged};
use super::table::{Page, Table};
use super::urgent;
use crate::error::code;
use crate::files::S3Files;

/// The longest result that lies in the table although there is a bucket, in bytes.
const RESULT_BYTES_MAX: usize = 8 * 1_024;

/// The longest result that lies in the table where there is no bucket: DynamoDB's limit on an item is 400 KiB, names included.
const RESULT_BYTES_WITHOUT_BUCKET_MAX: usize = 300 * 1_024;

/// Writes that are made side by side.
const SIDE_BY_SIDE_MAX: usize = 16;

/// How long a queue keeps a message at most, where it is not known: SQS's limit.
const QUEUE_KEEPS_MAX: TimeDelta = TimeDelta::days(14);

/// The name of a long result's file.
const RESULT_FILE: &str = "gpuctl-result.json";

type Attributes = Vec<(&'static str, AttributeValue)>;

/// What writes jobs; cloning shares the connection, so that writes can be made side by side.
#[derive(Clone)]
struct JobWriter {
    table: Table,
    results: Option<S3Files>,
    now: Timestamp,
}

/// Which generation of a job an update is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The one that is known: the job itself is not written.
    Known,
    /// One that is not known yet.
    New,
}

impl DynamoLedger {
    fn writer(&self) -> JobWriter {
        JobWriter { table: self.table.clone(), results: self.results.clone(), now: self.now() }
    }

    pub(super) async fn note_submitted(&self, jobs: &[Job]) -> Result<(), PortError> {
        // At once: one after the other, a batch of ten would take ten round trips.
        for some in jobs.chunks(SIDE_BY_SIDE_MAX) {
            let mut writes = JoinSet::new();
            for job in some {
                let (writer, job) = (self.writer(), job.clone());
                writes.spawn(async move {
                    match writer.write(&job, Which::New, Vec::new()).await? {
                        Some(_) => urgent::note(&writer.table, &job, writer.now).await,
                        None => Ok(()),
                    }
                });
            }
            writes.join_all().await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    pub(super) async fn note_began(
        &self,
        job: &Job,
        attempt: &Attempt,
    ) -> Result<Began, PortError> {
        let noted = self.writer().note(job, job_items::attempt(job, attempt)).await?;
        urgent::forget(&self.table, job).await;
        Ok(match noted {
            Some(item) if job_items::has_ended(&item, job.generation) => Began::Ended,
            Some(_) => Began::Newest,
            None => Began::Superseded,
        })
    }

    /// Which of these generations have a result.
    pub(super) async fn which_have_ended(
        &self,
        held: &[(JobId, u32)],
    ) -> Result<Vec<bool>, PortError> {
        let keys: Vec<Key> =
            held.iter().map(|(id, generation)| Key::result(id, *generation)).collect();
        // A worker may hold two deliveries of one job, and DynamoDB refuses a key that is given twice.
        let each: HashSet<Key> = keys.iter().cloned().collect();
        let found = self.table.which_exist(each.into_iter().collect()).await?;
        Ok(keys.iter().map(|key| found.contains(key)).collect())
    }

    pub(super) async fn note_job_problem(&self, problem: &JobProblem) -> Result<(), PortError> {
        self.writer().note(&problem.job, job_items::problem(problem)).await.map(drop)
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

    pub(super) async fn commit_all(
        &self,
        results: &[JobResult],
    ) -> Vec<Result<Committed, PortError>> {
        let mut outcomes = Vec::with_capacity(results.len());
        let mut written = Vec::with_capacity(results.len());
        for some in results.chunks(SIDE_BY_SIDE_MAX) {
            let mut writes: Vec<_> = Vec::with_capacity(some.len());
            for result in some {
                let (writer, result) = (self.writer(), result.clone());
                writes.push(tokio::spawn(async move { writer.commit(&result).await }));
            }
            for (write, result) in writes.into_iter().zip(some) {
                let outcome = write.await.unwrap_or_else(|error| {
                    let what = "the result of a job was not stored";
                    Err(PortError::new(PortErrorClass::Unavailable, what).because(error))
                });
                if matches!(outcome, Ok(Committed::Written)) {
                    written.push(result);
                }
                outcomes.push(outcome);
            }
        }
        self.note_service(&written).await;
        outcomes
    }

    /// Deletes finished jobs, month by month from the oldest on.
    pub(super) async fn delete_finished(&self, before: Timestamp) -> Result<Vec<JobId>, PortError> {
        let mut deleted = Vec::new();
        match self.delete_into(&mut deleted, before).await {
            Err(error) if deleted.is_empty() => return Err(error),
            // The caller must learn of those that are gone, whose files are still there; its next call meets the error again.
            Err(error) => tracing::warn!(%error, "not every job could be deleted"),
            Ok(()) => {}
        }
        Ok(deleted)
    }

    async fn delete_into(
        &self,
        deleted: &mut Vec<JobId>,
        before: Timestamp,
    ) -> Result<(), PortError> {
        let mut context = Context::default();
        let mut finished = Vec::new();
        for sources in self.sources_before(before) {
            let mut jobs = Merged::new(&self.table, sources);
            while let Some(found) = jobs.next().await? {
                let state = self.state_of(&found.noted, &mut context).await?;
                // A dead job's message is still in the dead letters.
                let is_over = state.is_final()
                    && state != JobState::Dead
                    && !self.may_come_again(&found.noted, &mut context).await;
                if found.noted.submitted_at < before && is_over {
                    finished.push(found);
                }
                let enough = deleted.len() + finished.len() >= JOBS_DELETED_MAX;
                if finished.len() >= SIDE_BY_SIDE_MAX || enough {
                    self.delete_all(std::mem::take(&mut finished), deleted).await?;
                }
                if deleted.len() >= JOBS_DELETED_MAX {
                    return Ok(());
                }
            }
        }
        self.delete_all(finished, deleted).await
    }

    /// Whether a message of the job may still be in its queue or the dead letters although a user has cancelled it: without the cancellation
    /// its next worker would run it.
    async fn may_come_again(&self, noted: &Noted, context: &mut Context) -> bool {
        let Some(cancelled_at) = noted.cancelled_at else { return false };
        let kept = self.retention_of(&noted.queue, context).await;
        let kept =
            kept.map_or(QUEUE_KEEPS_MAX, |kept| kept.dead.unwrap_or(kept.live).max(kept.live));
        self.now() - cancelled_at <= kept
    }

    /// Deletes these jobs, and adds those that are gone; one that fails does not keep the others.
    async fn delete_all(
        &self,
        found: Vec<Found>,
        deleted: &mut Vec<JobId>,
    ) -> Result<(), PortError> {
        let mut deletes = JoinSet::new();
        for one in found {
            let writer = self.writer();
            deletes.spawn(async move { writer.delete(one).await });
        }
        let mut first_error = Ok(());
        for outcome in deletes.join_all().await {
            match outcome {
                Ok(gone) => deleted.extend(gone),
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error
    }
}

impl JobWriter {
    /// Writes attributes of a generation of a job; also the job itself, if this generation is not known yet. Returns the job's item, or
    /// `None` if the generation is not the one that `which` says, and nothing was written.
    async fn write(
        &self,
        job: &Job,
        which: Which,
        mut attributes: Attributes,
    ) -> Result<Option<Item>, PortError> {
        let condition = match which {
            Which::Known => "job_generation = :generation",
            Which::New => "attribute_not_exists(job_generation) OR job_generation < :generation",
        };
        if which == Which::New {
            let (own, apart) = job_items::job(job, self.now);
            attributes.extend(own);
            if let Some(apart) = apart {
                self.table.put(apart, "note a job").await?;
            }
        }
        let mut call = self.table.update(&Key::job(&job.id)).condition_expression(condition);
        let set: Vec<String> =
            attributes.iter().map(|(name, _)| format!("{name} = :{name}")).collect();
        let mut update = format!("SET {}", set.join(", "));
        if which == Which::New {
            // An earlier generation may have been short enough to lie here. And a worker of a version that knows no cancelled jobs would leave
            // it so.
            let is_left = |name: &&&str| attributes.iter().all(|(set, _)| set != *name);
            let stale: Vec<&str> = ["job", "cancelled"].iter().filter(is_left).copied().collect();
            if !stale.is_empty() {
                update.push_str(&format!(" REMOVE {}", stale.join(", ")));
            }
        }
        for (name, value) in attributes {
            call = call.expression_attribute_values(format!(":{name}"), value);
        }
        let generation = items::number(i64::from(job.generation));
        call = call.expression_attribute_values(":generation", generation);
        let call = call.update_expression(update).return_values(ReturnValue::AllNew);
        match call.send().await {
            Ok(answer) => Ok(Some(answer.attributes.unwrap_or_default())),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => Ok(None),
            Err(error) => Err(self.table.failed("UpdateItem", "note a job", error)),
        }
    }

    /// Writes attributes of a generation, whether it is known or not. `None` if a newer one is known, and nothing was written.
    async fn note(&self, job: &Job, attributes: Attributes) -> Result<Option<Item>, PortError> {
        // Known again: another writer may have noted it between the two.
        for which in [Which::Known, Which::New, Which::Known] {
            if let Some(item) = self.write(job, which, attributes.clone()).await? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    async fn commit(&self, result: &JobResult) -> Result<Committed, PortError> {
        let (id, generation) = (&result.job.id, result.job.generation);
        let (name, value) = self.place(result).await?;
        let key = Key::result(id, generation);
        let item = Writer::new(&key)
            .text(name, &value)
            .value("expires", job_items::job_expires(&result.job, self.now));
        let item = job_items::outcome(result.state())
            .into_iter()
            .fold(item, |item, (name, value)| item.value(name, value));
        let there = self.table.put_first(item.done(), "store a result").await?;
        // The response to our own write may have been lost, and the SDK wrote it again.
        let other = there.filter(|there| Reader(there).text_if(name) != Some(&value));
        let first = other.as_ref().map_or(result.state(), |other| {
            job_items::outcome_of(Reader(other)).unwrap_or(JobState::Failed)
        });
        let done = job_items::done(generation, first, self.now);
        if self.write(&result.job, Which::Known, done.clone()).await?.is_none() {
            if generation == 0 && other.is_none() && self.is_done_in_old_layout(id).await? {
                self.table.delete_if(&key, None).await?;
                return Ok(Committed::AlreadyThere);
            }
            self.note(&result.job, done).await?;
        }
        urgent::forget(&self.table, &result.job).await;
        Ok(if other.is_none() { Committed::Written } else { Committed::AlreadyThere })
    }

    /// Whether a version before shards stored a result of the job.
    async fn is_done_in_old_layout(&self, id: &JobId) -> Result<bool, PortError> {
        let old = self.table.get(&Key::old_job(id)).await?;
        Ok(old.is_some_and(|old| Reader(&old).bool_if("succeeded").is_some()))
    }

    /// The attribute that holds the result: itself, or where it lies.
    async fn place(&self, result: &JobResult) -> Result<(&'static str, String), PortError> {
        let text = result_to_json(result);
        let Some(files) = &self.results else {
            return if text.len() <= RESULT_BYTES_WITHOUT_BUCKET_MAX {
                Ok(("result_json", text))
            } else {
                Err(too_long(text.len()))
            };
        };
        if text.len() <= RESULT_BYTES_MAX {
            return Ok(("result_json", text));
        }
        let attempt = AttemptName::new(result.job.generation, &result.box_id, result.received_at);
        let file = ResultFile {
            job: &result.job.id,
            attempt: &attempt,
            name: RESULT_FILE,
            bytes: text.as_bytes(),
        };
        Ok(("result_uri", files.keep(&file).await?))
    }

    /// Deletes what the table has of a job up to the generation that was found; `None` if it was retried meanwhile, and is kept. The item
    /// that lists it goes last, so that the next call finds it again after an error.
    async fn delete(&self, found: Found) -> Result<Option<JobId>, PortError> {
        let Found { id, noted, is_in_old_layout } = found;
        let parts = Page { only: Some("pk, sk"), ..Page::of(Key::parts_of(&id)) };
        for part in self.table.query(&parts).await? {
            let key = Key::of(&part)?;
            if key.generation().is_none_or(|of| of <= noted.generation) {
                self.table.delete_if(&key, None).await?;
            }
        }
        if is_in_old_layout {
            self.table.delete_if(&Key::old_job(&id), None).await?;
        }
        let generation = items::number(i64::from(noted.generation));
        let same = Some(("job_generation", generation));
        let is_gone = self.table.delete_if(&Key::job(&id), same).await? || noted.is_old;
        Ok(is_gone.then_some(id))
    }
}

fn too_long(bytes: usize) -> PortError {
    let what = format!(
        "the result has {} KiB, and without a bucket for results at most {} KiB can be stored",
        bytes / 1_024,
        RESULT_BYTES_WITHOUT_BUCKET_MAX / 1_024
    );
    PortError::new(PortErrorClass::TooLarge, what)
        .hint("set `results = \"s3://bucket/prefix\"` in [cloud]")
}
