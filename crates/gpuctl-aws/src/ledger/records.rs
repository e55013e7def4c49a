//! Records of reconciles: one that says the same as the last is counted there.
//!
//! Only the holder of the reconcile lease reads the last one and writes, so no one writes in between; one whose lease is over is told so by
//! the fence of the last record. The last record of a reconcile and the release of its lease are one transaction.

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use chrono::TimeDelta;
use gpuctl_control::ports::{Fence, PortError, PortErrorClass};
use gpuctl_control::wire::record::Record;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::DynamoLedger;
use super::items::{self, Item, Key, Reader, Writer};
use super::table::{Order, Page, Table, attributes, taken_over};

/// How long a record is kept: as long as the month whose bill it explains.
const RECORDS_KEPT: TimeDelta = TimeDelta::days(30);

/// The newest record under a lease.
pub(super) struct NewestRecord {
    /// The lease's number.
    fence: i64,
    read: JoinHandle<Result<Option<Item>, PortError>>,
}

/// What becomes of the reconcile lease with a record.
#[derive(Clone, Copy)]
pub(super) enum Lease {
    Kept,
    Released,
}

fn whole(update: UpdateBuilder) -> TransactWriteItem {
    let update = update.build().expect("it has a table, a key and an expression");
    TransactWriteItem::builder().update(update).build()
}

/// The newest record.
pub(super) async fn newest(table: &Table) -> Result<Option<Item>, PortError> {
    let page = Page { order: Order::Last, limit: Some(1), ..Page::of(Key::RECORDS) };
    Ok(table.query(&page).await?.into_iter().next())
}

impl DynamoLedger {
    /// Begins to read the newest record, while its lease's holder observes: so the record at the end waits for one response only.
    pub(super) fn read_newest_record(&self, fence: i64) {
        let table = self.table.clone();
        let read = tokio::spawn(async move { newest(&table).await });
        *self.newest_record() = Some(NewestRecord { fence, read });
    }

    /// The last record, if this one says the same.
    pub(super) async fn last_record_to_repeat(
        &self,
        record: &Record,
        fence: &Fence,
    ) -> Result<Option<Item>, PortError> {
        // Once the lease is over another controller may have added one since.
        let is_valid =
            |newest: &NewestRecord| newest.fence == fence.number && self.now() < fence.until;
        let begun = self.newest_record().take().filter(is_valid);
        let last = match begun {
            Some(newest) => newest.read.await.unwrap_or_else(|error| {
                let what = "the last record could not be read";
                Err(PortError::new(PortErrorClass::Unavailable, what).because(error))
            })?,
            None => newest(&self.table).await?,
        };
        let newest_fence = last.as_ref().and_then(|item| Reader(item).number_if("fence"));
        if newest_fence.is_some_and(|newest| newest > fence.number) {
            return Err(taken_over("add a record"));
        }
        Ok(last.filter(|item| items::is_same_record(item, record)))
    }

    /// Adds the record, or counts the last one again.
    pub(super) async fn note_record(
        &self,
        record: &Record,
        fence: &Fence,
        lease: Lease,
    ) -> Result<(), PortError> {
        const VERB: &str = "add a record";
        let last = self.last_record_to_repeat(record, fence).await?;
        let mut writes = vec![match last {
            Some(last) => self.one_more(&last, record, fence)?,
            None => self.addition(record, fence),
        }];
        if let Lease::Released = lease {
            writes.push(self.release_of(fence));
        }
        match self.table.transact(writes, VERB).await {
            Err(error) if error.class == PortErrorClass::Conflict => Err(taken_over(VERB)),
            answer => answer,
        }
    }

    fn addition(&self, record: &Record, fence: &Fence) -> TransactWriteItem {
        let key = Key::record(&record.at, &Uuid::new_v4().to_string());
        let text = serde_json::to_string(record).expect("a record of texts is always JSON");
        let item = Writer::new(&key)
            .text("record", text)
            .text("last_at", &record.at)
            .number("repeats", 0)
            .number("fence", fence.number)
            .value("expires", self.records_expire());
        let put = Put::builder().table_name(self.table.name()).set_item(Some(item.done()));
        TransactWriteItem::builder().put(put.build().expect("it has a table and an item")).build()
    }

    fn one_more(
        &self,
        last: &Item,
        record: &Record,
        fence: &Fence,
    ) -> Result<TransactWriteItem, PortError> {
        let update = self
            .update(&Key::of(last)?)
            .update_expression(
                "SET last_at = :at, expires = :expires, fence = :fence ADD repeats :one",
            )
            .condition_expression("attribute_not_exists(fence) OR fence <= :fence")
            .expression_attribute_values(":fence", items::number(fence.number))
            .expression_attribute_values(":at", AttributeValue::S(record.at.clone()))
            .expression_attribute_values(":expires", self.records_expire())
            .expression_attribute_values(":one", items::number(1));
        Ok(whole(update))
    }

    /// Fails where another controller has the lease by now.
    pub(super) fn release_of(&self, fence: &Fence) -> TransactWriteItem {
        let update = self
            .update(&Key::lease())
            .update_expression("SET #until = :zero REMOVE #owner")
            .condition_expression("#number = :number")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#number", "number")
            .expression_attribute_values(":zero", items::number(0))
            .expression_attribute_values(":number", items::number(fence.number));
        whole(update)
    }

    fn update(&self, key: &Key) -> UpdateBuilder {
        Update::builder().table_name(self.table.name()).set_key(Some(attributes(key)))
    }

    fn records_expire(&self) -> AttributeValue {
        items::expires(self.now() + RECORDS_KEPT)
    }

    fn newest_record(&self) -> std::sync::MutexGuard<'_, Option<NewestRecord>> {
        self.newest_record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
