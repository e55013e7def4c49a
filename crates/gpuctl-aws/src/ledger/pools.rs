//! Runs, and what the ledger remembers of a pool.
//!
//! A run is stored twice: under its pool by its start, and either among the open runs or in the month of its end. So a reconcile
//! reads a pool's newest runs, an open run of any age is found, and a month's bill reads that month only. One transaction writes
//! both, and removes an ended run from the open ones.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem};
use chrono::TimeDelta;
use gpuctl_control::hold::not_ahead;
use gpuctl_control::ports::{PoolMemory, PortError, PortErrorClass};
use gpuctl_core::observation::{RUNS_REMEMBERED_MAX, Run};
use gpuctl_core::period::month_of;
use gpuctl_core::units::{PoolId, Timestamp};

use super::DynamoLedger;
use super::items::{self, Item, Key, RUNS_KEPT, Reader, Written};
use super::service;
use super::table::{Order, Page, attributes, taken_over};

/// Tries of one write, each after another writer has changed the run.
const SAVE_TRIES_MAX: u32 = 5;

impl DynamoLedger {
    pub(super) async fn pool_memory(&self, pool: &PoolId) -> Result<PoolMemory, PortError> {
        let pk = Key::pool(pool);
        // `hold`, `mean#…` and `queue` sort before `run#…`.
        let notes = Page { before: Some("run".to_owned()), ..Page::of(&pk) };
        let newest = Page {
            prefix: Some("run#".to_owned()),
            order: Order::Last,
            limit: Some(RUNS_REMEMBERED_MAX as usize),
            ..Page::of(&pk)
        };
        let open = Page { prefix: Some(format!("{pool}#")), ..Page::of(Key::OPEN) };
        let (notes, newest, open) = tokio::try_join!(
            self.table.query(&notes),
            self.table.query(&newest),
            self.table.query(&open)
        )?;
        let named = |name| {
            notes.iter().find(|item| Reader(item).text_if("sk").is_some_and(|sk| sk == name))
        };
        let hold = named("hold").map(items::hold_of).transpose()?;
        let runs = newest_first(newest.iter().chain(&open))?;
        let boxes = runs.iter().map(|run| &run.box_id).collect();
        Ok(PoolMemory {
            hold: hold.map(|hold| not_ahead(hold, self.now())),
            queue: named("queue").map(items::queue_memory_of).transpose()?,
            service: service::mean_of(notes.iter(), pool, &boxes),
            runs,
        })
    }

    pub(super) async fn runs_up_since(&self, since: Timestamp) -> Result<Vec<Run>, PortError> {
        let now = self.now();
        let since = since.max(now - RUNS_KEPT);
        let mut pages = vec![Page::of(Key::OPEN)];
        let mut month = month_of(since).begin;
        // One day ahead, for clocks that differ.
        while month <= now + TimeDelta::days(1) {
            let from = Some(items::digits(since.max(month)));
            pages.push(Page { from, ..Page::of(Key::ended_in(month)) });
            month = month_of(month + TimeDelta::days(32)).begin;
        }
        let mut found: Vec<Item> = Vec::new();
        for page in pages {
            found.extend(self.table.query(&page).await?);
        }
        let mut runs = newest_first(found.iter())?;
        runs.reverse();
        Ok(runs)
    }

    /// Merges the run with the stored one and writes it; again if another writer came between.
    pub(super) async fn fill_in_run(&self, run: &Run, fence: Option<i64>) -> Result<(), PortError> {
        // A run that begins is hardly ever there already: asking first would cost a start one round trip more.
        if run.ready_at.is_none() && run.stopping_at.is_none() && run.stopped_at.is_none() {
            let new = Written { fence, ..Written::default() };
            match self.write_run(run, new).await {
                Err(error) if error.class == PortErrorClass::Conflict => {}
                answer => return answer,
            }
        }
        for _ in 0..SAVE_TRIES_MAX {
            let old = self.table.get(&Key::run(run)).await?;
            let (before, written) = match &old {
                Some(item) => (Some(items::run_of(item)?), Written::of(item)?),
                None => (None, Written::default()),
            };
            // What is read is what the write is conditional on, so a newer fence cannot come between.
            if fence.is_some_and(|fence| written.fence.is_some_and(|newest| newest > fence)) {
                return Err(taken_over("note a run"));
            }
            let merged = before.as_ref().map_or_else(|| run.clone(), |old| filled_in(old, run));
            if before.as_ref() == Some(&merged) {
                return Ok(());
            }
            let written = Written { fence: fence.or(written.fence), ..written };
            match self.write_run(&merged, written).await {
                Err(error) if error.class == PortErrorClass::Conflict => {}
                answer => return answer,
            }
        }
        let what = format!("the run of `{}` changes faster than it can be written", run.box_id);
        Err(PortError::new(PortErrorClass::Conflict, what))
    }

    /// Writes the run in place of the one that was read.
    async fn write_run(&self, run: &Run, read: Written) -> Result<(), PortError> {
        let revision = read.revision;
        let put = |key: &Key| {
            let item = items::run(key, run, Written { revision: revision + 1, ..read });
            Put::builder().table_name(self.table.name()).set_item(Some(item))
        };
        let condition = if revision == 0 { "attribute_not_exists(pk)" } else { "revision = :old" };
        let mut first = put(&Key::run(run)).condition_expression(condition);
        if revision > 0 {
            first = first.expression_attribute_values(":old", items::number(revision));
        }
        let whole = |put: Put| TransactWriteItem::builder().put(put).build();
        let built = "it has a table and an item";
        let mut writes = vec![whole(first.build().expect(built))];
        match run.stopped_at {
            None => writes.push(whole(put(&Key::open(run)).build().expect(built))),
            Some(at) => {
                writes.push(whole(put(&Key::ended(run, at)).build().expect(built)));
                let delete = Delete::builder()
                    .table_name(self.table.name())
                    .set_key(Some(attributes(&Key::open(run))));
                let delete = delete.build().expect("it has a table and a key");
                writes.push(TransactWriteItem::builder().delete(delete).build());
            }
        }
        self.table.transact(writes, "note a run").await
    }
}

/// The stored run, with what it lacks taken from the later one.
fn filled_in(old: &Run, later: &Run) -> Run {
    Run {
        ready_at: old.ready_at.or(later.ready_at),
        stopping_at: old.stopping_at.or(later.stopping_at),
        stopped_at: old.stopped_at.or(later.stopped_at),
        stop: old.stop.clone().or_else(|| later.stop.clone()),
        error: old.error.clone().or_else(|| later.error.clone()),
        jobs: old.jobs.or(later.jobs),
        refusal: old.refusal.clone().or_else(|| later.refusal.clone()),
        offering: old.offering.clone().or_else(|| later.offering.clone()),
        interrupted_at: old.interrupted_at.or(later.interrupted_at),
        ..old.clone()
    }
}

/// The runs, the newest first, each once: a run that ended between two reads is in both, and the ended one counts.
fn newest_first<'a>(items: impl Iterator<Item = &'a Item>) -> Result<Vec<Run>, PortError> {
    let mut runs: Vec<Run> = items.map(items::run_of).collect::<Result<_, _>>()?;
    runs.sort_by(|a, b| {
        let key = |run: &Run| (run.started_at, run.stopped_at.is_some());
        key(b).cmp(&key(a)).then_with(|| a.box_id.cmp(&b.box_id))
    });
    let mut seen = BTreeSet::new();
    runs.retain(|run| seen.insert((run.started_at, run.box_id.clone())));
    Ok(runs)
}
