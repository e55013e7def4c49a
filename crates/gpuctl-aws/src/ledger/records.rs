//! Records of reconciles: one that says the same as the last is counted there.
//!
//! Only the holder of the reconcile lease reads the last one, so no one writes between that read and the write; one whose lease is over
//! is told so by the fence of the last record.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use gpuctl_control::ports::{Fence, PortError, PortErrorClass};
use gpuctl_control::wire::record::Record;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::DynamoLedger;
use super::items::{self, Item, Key, Reader, Writer};
use super::table::{Order, Page, Table, taken_over};
use crate::error::code;

/// How long a record is kept: as long as the month whose bill it explains.
const RECORDS_KEPT: TimeDelta = TimeDelta::days(30);

/// The newest record under a lease.
pub(super) struct NewestRecord {
    /// The lease's number.
    fence: i64,
    read: JoinHandle<Result<Option<Item>, PortError>>,
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
        let begun = self.newest_record().take().filter(|newest| newest.fence == fence.number);
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

    pub(super) async fn add_record(&self, record: &Record, fence: &Fence) -> Result<(), PortError> {
        let key = Key::record(&record.at, &Uuid::new_v4().to_string());
        let text = serde_json::to_string(record).expect("a record of texts is always JSON");
        let item = Writer::new(&key)
            .text("record", text)
            .text("last_at", &record.at)
            .number("repeats", 0)
            .number("fence", fence.number)
            .value("expires", self.records_expire());
        self.table.put(item.done(), "add a record").await
    }

    pub(super) async fn count_again(
        &self,
        last: &Item,
        record: &Record,
        fence: &Fence,
    ) -> Result<(), PortError> {
        let answer = self
            .table
            .update(&Key::of(last)?)
            .update_expression(
                "SET last_at = :at, expires = :expires, fence = :fence ADD repeats :one",
            )
            .condition_expression("attribute_not_exists(fence) OR fence <= :fence")
            .expression_attribute_values(":fence", items::number(fence.number))
            .expression_attribute_values(":at", AttributeValue::S(record.at.clone()))
            .expression_attribute_values(":expires", self.records_expire())
            .expression_attribute_values(":one", items::number(1))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => {
                Err(taken_over("count a record"))
            }
            Err(error) => Err(self.table.failed("UpdateItem", "count a record", error)),
        }
    }

    fn records_expire(&self) -> AttributeValue {
        items::expires(self.now() + RECORDS_KEPT)
    }

    fn newest_record(&self) -> std::sync::MutexGuard<'_, Option<NewestRecord>> {
        self.newest_record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
