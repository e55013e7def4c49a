//! Reads of jobs: one with its results, and the newest ones of all shards in order.
//!
//! A list reads the items of the jobs, which have no results in them, and then the results of those that it shows.

use std::collections::{HashMap, VecDeque};

use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure, JobId, JobResult, JobState};
use gpuctl_control::ports::{JobEntry, JobFilter, Ledger, PortError, PortErrorClass, WorkerReport};
use gpuctl_control::wire::job::result_from_json;
use gpuctl_core::period::month_of;
use gpuctl_core::units::{BoxId, QueueName, Timestamp};
use tokio::task::JoinSet;

use super::DynamoLedger;
use super::items::{self, Item, Key, QueueChanges, Reader};
use super::job_items::{JOBS_KEPT, Noted, OLD_WITHOUT_RESULT, SHARDS, read_job};
use super::state::{Around, state};
use super::table::{Order, Page, Table};
use crate::queue::Retention;

/// The longest result read from S3, in bytes: more than a worker writes.
const RESULT_FILE_BYTES_MAX: u64 = 256 * 1_024 * 1_024;

/// Jobs that one list reads, also if few of them have the wanted state.
const JOBS_READ_MAX: usize = 10_000;

/// Items of one shard in one response.
const SHARD_ITEMS_MAX: usize = 200;

/// Items of one shard in the first response: most lists are short.
const SHARD_ITEMS_FIRST: usize = 10;

/// What the states of several jobs depend on, read once.
#[derive(Default)]
pub(super) struct Context {
    changes: HashMap<QueueName, QueueChanges>,
    retentions: HashMap<QueueName, Option<Retention>>,
    /// Of each box's workers.
    reports: HashMap<BoxId, Vec<WorkerReport>>,
}

/// A job that a list found.
pub(super) struct Found {
    pub(super) id: JobId,
    pub(super) noted: Noted,
    pub(super) is_in_old_layout: bool,
}

/// A partition while it is read, page after page.
pub(super) struct Source {
    page: Page,
    items: VecDeque<Item>,
    after: Option<Item>,
    asked: u32,
    is_over: bool,
}

/// Several partitions in one order.
pub(super) struct Merged<'a> {
    table: &'a Table,
    sources: Vec<Source>,
}

impl Source {
    fn new(page: Page) -> Self {
        Self { page, items: VecDeque::new(), after: None, asked: 0, is_over: false }
    }

    fn next_key(&self) -> Option<&str> {
        Reader(self.items.front()?).text_if("sk").map(String::as_str)
    }
}

impl<'a> Merged<'a> {
    pub(super) fn new(table: &'a Table, sources: Vec<Source>) -> Self {
        Self { table, sources }
    }

    /// The next job of all partitions, in their order.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, PortError> {
        loop {
            self.fill().await?;
            let keys = self.sources.iter().filter_map(Source::next_key);
            let next = match self.sources.first().map(|source| source.page.order) {
                Some(Order::First) => keys.min(),
                _ => keys.max(),
            };
            let Some(next) = next.map(str::to_owned) else { return Ok(None) };
            let (mut new, mut old) = (None, None);
            for source in &mut self.sources {
                if source.next_key() == Some(&next) {
                    let place = if source.page.only.is_some() { &mut old } else { &mut new };
                    *place = source.items.pop_front();
                }
            }
            let is_in_old_layout = old.is_some();
            let noted = Noted::of_both(new.as_ref(), old.as_ref())?;
            // An item under something else than an id is none of gpuctl's.
            if let (Ok(id), Some(noted)) = (next.parse(), noted) {
                return Ok(Some(Found { id, noted, is_in_old_layout }));
            }
        }
    }

    /// Asks all partitions of which nothing is left for more, side by side.
    async fn fill(&mut self) -> Result<(), PortError> {
        let mut calls = JoinSet::new();
        for (index, source) in self.sources.iter_mut().enumerate() {
            if !source.items.is_empty() || source.is_over {
                continue;
            }
            let limit = if source.asked == 0 { SHARD_ITEMS_FIRST } else { SHARD_ITEMS_MAX };
            source.asked += 1;
            let (table, page) = (self.table.clone(), source.page.clone());
            let after = source.after.take();
            calls.spawn(async move { (index, table.query_once(&page, after, Some(limit)).await) });
        }
        for (index, answer) in calls.join_all().await {
            let (items, after) = answer?;
            let source = &mut self.sources[index];
            source.is_over = after.is_none();
            source.items.extend(items);
            source.after = after;
        }
        Ok(())
    }
}

impl DynamoLedger {
    pub(super) async fn one_job(&self, id: &JobId) -> Result<Option<JobEntry>, PortError> {
        let (keys, parts) = (vec![Key::job(id), Key::old_job(id)], Page::of(Key::parts_of(id)));
        let (notes, parts) = tokio::try_join!(self.table.get_many(keys), self.table.query(&parts))?;
        let old_key = Key::old_job(id);
        let (old, new): (Vec<Item>, Vec<Item>) =
            notes.into_iter().partition(|item| Key::of(item).is_ok_and(|key| key == old_key));
        let (new, old) = (new.first(), old.first());
        let Some(noted) = Noted::of_both(new, old)? else { return Ok(None) };
        let state = self.state_of(&noted, &mut Context::default()).await?;
        let part = |key: Key| parts.iter().find(|item| Key::of(item).is_ok_and(|of| of == key));
        let result = if noted.is_old { old } else { part(Key::result(id, noted.generation)) };
        let result = match result {
            Some(item) => self.result_of(Reader(item).known()?).await?,
            None => None,
        };
        let input = part(Key::input(id, noted.generation));
        entry(Parts { noted, state, result, input }, id).map(Some)
    }

    pub(super) async fn all_results(&self, id: &JobId) -> Result<Vec<JobResult>, PortError> {
        let of_job = Page {
            prefix: Some("result#".to_owned()),
            order: Order::Last,
            ..Page::of(Key::parts_of(id))
        };
        let old = Key::old_job(id);
        let (items, old) = tokio::try_join!(self.table.query(&of_job), self.table.get(&old))?;
        let mut results = Vec::new();
        for item in items.iter().chain(&old) {
            results.extend(self.result_of(Reader(item).known()?).await?);
        }
        Ok(results)
    }

    pub(super) async fn newest_jobs(&self, filter: JobFilter) -> Result<Vec<JobEntry>, PortError> {
        let limit = filter.limit as usize;
        let mut context = Context::default();
        let (mut wanted, mut read) = (Vec::new(), 0);
        'months: for sources in self.sources_since(filter.since) {
            let mut jobs = Merged::new(&self.table, sources);
            while wanted.len() < limit && read < JOBS_READ_MAX {
                let Some(found) = jobs.next().await? else { continue 'months };
                read += 1;
                let state = self.state_of(&found.noted, &mut context).await?;
                let old = filter.since.is_some_and(|since| found.noted.submitted_at < since);
                if !old && filter.state.is_none_or(|wanted| wanted == state) {
                    wanted.push((found, state));
                }
            }
            break;
        }
        self.entries(wanted).await
    }

    /// Adds the results of the jobs, and the jobs that lie apart.
    async fn entries(&self, found: Vec<(Found, JobState)>) -> Result<Vec<JobEntry>, PortError> {
        let mut keys = Vec::new();
        for (Found { id, noted, .. }, _) in &found {
            if noted.outcome.is_some() {
                keys.push(result_key(id, noted));
            }
            if noted.job.is_none() {
                keys.push(Key::input(id, noted.generation));
            }
        }
        let items = self.table.get_many(keys).await?;
        let items: HashMap<Key, &Item> =
            items.iter().filter_map(|item| Some((Key::of(item).ok()?, item))).collect();
        let mut entries = Vec::with_capacity(found.len());
        for (Found { id, noted, .. }, state) in found {
            let result = match items.get(&result_key(&id, &noted)) {
                Some(item) => self.result_of(Reader(item).known()?).await?,
                None => None,
            };
            let input = items.get(&Key::input(&id, noted.generation)).copied();
            entries.push(entry(Parts { noted, state, result, input }, &id)?);
        }
        Ok(entries)
    }

    /// The partitions of each month since then, newest first, and last the jobs whose ids have no time.
    fn sources_since(&self, since: Option<Timestamp>) -> Vec<Vec<Source>> {
        let now = self.now();
        let oldest = since.unwrap_or(now - JOBS_KEPT).max(now - JOBS_KEPT);
        // One day ahead, for clocks that differ.
        let names = partitions(oldest, now + TimeDelta::days(1));
        let from = since.map(|_| items::first_id(oldest));
        let page = |pk: String| {
            let from = from.clone().filter(|_| !pk.starts_with(Key::JOBS_UNDATED));
            Page { from, order: Order::Last, ..Page::of(pk) }
        };
        let (months, undated) = names.split_at(names.len() - 1);
        let months = months.iter().rev().chain(undated);
        months.map(|name| sources(name, page)).collect()
    }

    /// The partitions of each month before then, oldest first.
    pub(super) fn sources_before(&self, before: Timestamp) -> Vec<Vec<Source>> {
        let now = self.now();
        let oldest = now - JOBS_KEPT - TimeDelta::days(31);
        let latest = before.clamp(oldest, now + TimeDelta::days(1));
        partitions(oldest, latest).iter().map(|name| sources(name, Page::of)).collect()
    }

    pub(super) async fn state_of(
        &self,
        noted: &Noted,
        context: &mut Context,
    ) -> Result<JobState, PortError> {
        if noted.outcome.is_some() {
            return Ok(state(noted, Around::default(), self.now()));
        }
        let changes = self.changes(&noted.queue, context).await?;
        let retention = self.retention_of(&noted.queue, context).await;
        let reports = match &noted.attempt {
            Some(attempt) => self.reports_of(&attempt.box_id, context).await?,
            None => &[],
        };
        Ok(state(noted, Around { changes, retention, reports }, self.now()))
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

    /// How long the queue keeps messages; `None` where that cannot be read.
    pub(super) async fn retention_of(
        &self,
        queue: &QueueName,
        context: &mut Context,
    ) -> Option<Retention> {
        if let Some(known) = context.retentions.get(queue) {
            return *known;
        }
        let retention = match &self.queues {
            Some(queues) => queues.retention(queue).await.ok(),
            None => None,
        };
        context.retentions.insert(queue.clone(), retention);
        retention
    }

    async fn reports_of<'a>(
        &self,
        box_id: &BoxId,
        context: &'a mut Context,
    ) -> Result<&'a [WorkerReport], PortError> {
        if !context.reports.contains_key(box_id) {
            let reports = self.reports(std::slice::from_ref(box_id)).await?;
            context.reports.insert(box_id.clone(), reports);
        }
        Ok(&context.reports[box_id])
    }
}

fn result_key(id: &JobId, noted: &Noted) -> Key {
    if noted.is_old { Key::old_job(id) } else { Key::result(id, noted.generation) }
}

/// What an entry is made of.
struct Parts<'a> {
    noted: Noted,
    state: JobState,
    result: Option<JobResult>,
    /// The item of a job that lies apart.
    input: Option<&'a Item>,
}

fn entry(parts: Parts<'_>, id: &JobId) -> Result<JobEntry, PortError> {
    let Parts { noted, state, result, input } = parts;
    let job: Job = match (noted.job, input, &result) {
        (Some(job), ..) => job,
        (None, Some(item), _) => read_job(Reader(item), Reader(item).text("job")?)?,
        (None, None, Some(result)) => result.job.clone(),
        (None, None, None) => {
            let what = format!("the job {id} cannot be read: the item of its input is missing");
            return Err(PortError::new(PortErrorClass::Corrupt, what));
        }
    };
    // The job's own item may not say yet that there is a result.
    let state = result.as_ref().map_or(state, JobResult::state);
    let unfinished = || {
        let last = noted.attempt.filter(|_| state == JobState::Dead)?;
        Some(JobFailure::unfinished(last.number))
    };
    let problem = noted.problem.map(|problem| problem.failure).or_else(unfinished);
    let problem = problem.filter(|_| result.is_none());
    Ok(JobEntry { job, state, result, problem })
}

/// The partitions of the months from the one of `oldest` to the one of `latest`, and last that of undated jobs: without shards.
fn partitions(oldest: Timestamp, latest: Timestamp) -> Vec<String> {
    let mut names = Vec::new();
    let mut month = month_of(oldest).begin;
    while month <= latest {
        names.push(Key::jobs_of(month));
        month = month_of(month + TimeDelta::days(32)).begin;
    }
    names.push(Key::JOBS_UNDATED.to_owned());
    names
}

/// The shards of a partition, and the partition itself, in which versions before shards wrote.
fn sources(name: &str, page: impl Fn(String) -> Page) -> Vec<Source> {
    let shards = (0..SHARDS).map(|shard| page(format!("{name}#{shard:x}")));
    let old = Page { only: Some(OLD_WITHOUT_RESULT), ..page(name.to_owned()) };
    shards.chain([old]).map(Source::new).collect()
}
