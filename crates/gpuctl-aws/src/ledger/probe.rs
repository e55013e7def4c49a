//! Whether the table can be used: each kind of read and write is tried on an item of its own, which is deleted again.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use chrono::TimeDelta;
use gpuctl_control::ports::PortError;
use uuid::Uuid;

use super::DynamoLedger;
use super::items::{self, Item, Key, Writer};
use super::table::Page;

/// After this DynamoDB deletes an item that could not be deleted.
const PROBE_KEPT: TimeDelta = TimeDelta::days(1);

impl DynamoLedger {
    /// Writes, reads, changes and deletes an item, also in a transaction.
    ///
    /// # Errors
    /// The first that fails; a missing permission names itself.
    pub async fn probe(&self) -> Result<(), PortError> {
        let key = Key::new("probe", Uuid::new_v4().to_string());
        let item = || -> Item {
            let expires = items::expires(self.now() + PROBE_KEPT);
            Writer::new(&key).value("expires", expires).done()
        };
        self.table.put(item(), "write an item").await?;
        let put = Put::builder().table_name(self.table.name()).set_item(Some(item()));
        let put = put.build().expect("it has a table and an item");
        let write = TransactWriteItem::builder().put(put).build();
        self.table.transact(vec![write], "write items together").await?;
        self.table.set(item(), &["probed"], None, "change an item").await?;
        self.table.get(&key).await?;
        self.table.get_many(vec![key.clone()]).await?;
        self.table.query(&Page { limit: Some(1), ..Page::of(&key.pk) }).await?;
        self.table.delete_if(&key, None).await.map(drop)
    }
}
