//! Jobs that wait and have a patience of their own, in the order in which they need a box: the first one is found by one query.
//!
//! An item is written when its job is submitted, and deleted when a worker begins with it or it ends. One that is left over, as after a purge,
//! is deleted when it is found.

use gpuctl_control::job::{Job, JobId, JobState};
use gpuctl_control::ports::PortError;
use gpuctl_core::observation::UrgentJob;
use gpuctl_core::units::{QueueName, Timestamp};

use super::DynamoLedger;
use super::items::{Item, Key, Reader, Writer, digits};
use super::job_items::{Noted, job_expires};
use super::listing::Context;
use super::table::{Page, Table};

/// The most items left over that one reconcile deletes: the next one goes on.
const LEFT_OVER_MAX: usize = 10;

impl Key {
    fn urgent_of(queue: &QueueName) -> String {
        format!("urgent#{queue}")
    }

    /// Sorts by when the job is to begin.
    fn urgent(job: &Job, begin_by: Timestamp) -> Self {
        let sk = format!("{}#{}#{}", digits(begin_by), job.id, job.generation);
        Self::new(Self::urgent_of(&job.queue), sk)
    }
}

/// Notes that the job waits, if it has a patience of its own.
pub(super) async fn note(table: &Table, job: &Job, now: Timestamp) -> Result<(), PortError> {
    let Some(begin_by) = job.begin_by() else { return Ok(()) };
    let item = Writer::new(&Key::urgent(job, begin_by))
        .time("begin_by", begin_by)
        .text("job_id", job.id.as_str())
        .number("generation", i64::from(job.generation))
        .value("expires", job_expires(job, now));
    table.put(item.done(), "note a job's own max_wait").await
}

/// Notes that it no longer waits. If that fails, who finds the item next deletes it.
pub(super) async fn forget(table: &Table, job: &Job) {
    let Some(begin_by) = job.begin_by() else { return };
    if let Err(error) = table.delete_if(&Key::urgent(job, begin_by), None).await {
        tracing::warn!(job = %job.id, %error, "the note that a job waits could not be deleted");
    }
}

impl DynamoLedger {
    pub(super) async fn first_urgent(
        &self,
        queue: &QueueName,
    ) -> Result<Option<UrgentJob>, PortError> {
        let first = Page { limit: Some(LEFT_OVER_MAX), ..Page::of(Key::urgent_of(queue)) };
        for item in self.table.query(&first).await? {
            if self.still_waits(&item).await? {
                let item = Reader(&item);
                let id = item.text("job_id")?.clone();
                return Ok(Some(UrgentJob { id, begin_by: item.time("begin_by")? }));
            }
            self.table.delete_if(&Key::of(&item)?, None).await?;
        }
        Ok(None)
    }

    /// Whether no worker has begun with the job, and it has not ended.
    async fn still_waits(&self, item: &Item) -> Result<bool, PortError> {
        let item = Reader(item).known()?;
        let id: JobId = item.parsed("job_id")?;
        let Some(noted) = self.table.get(&Key::job(&id)).await? else { return Ok(false) };
        let noted = Noted::of(&noted)?;
        let is_newest = i64::from(noted.generation) == item.number("generation")?;
        let state = self.state_of(&noted, &mut Context::default()).await?;
        Ok(is_newest && noted.attempt.is_none() && state == JobState::Queued)
    }
}
