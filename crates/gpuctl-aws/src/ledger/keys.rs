//! Keys of the HTTP API.

use std::collections::BTreeSet;

use gpuctl_control::keys::{ApiKey, KEYS_MAX, KeyChange, KeyName, Scope, taken, unknown};
use gpuctl_control::ports::PortError;

use super::DynamoLedger;
use super::items::{Item, Key, Reader, Writer, time};
use super::table::Page;
use crate::error::code;

impl Key {
    /// The partition of keys.
    const KEYS: &str = "keys";

    fn api_key(name: &KeyName) -> Self {
        Self::new(Self::KEYS, name.as_str())
    }
}

fn item(key: &ApiKey) -> Item {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    Writer::new(&Key::api_key(&key.name))
        .text("digest", &key.digest)
        .text("scopes", scopes.join(" "))
        .time("created_at", key.created_at)
        .time_if("revoked_at", key.revoked_at)
        .time_if("used_at", key.used_at)
        .done()
}

fn read(item: &Item) -> Result<ApiKey, PortError> {
    let reader = Reader(item).known()?;
    let scopes: Result<BTreeSet<Scope>, String> =
        reader.text("scopes")?.split_whitespace().map(str::parse).collect();
    Ok(ApiKey {
        name: reader.parsed("sk")?,
        digest: reader.text("digest")?.clone(),
        scopes: scopes.map_err(|_| reader.unreadable("scopes"))?,
        created_at: reader.time("created_at")?,
        revoked_at: reader.time_if("revoked_at"),
        used_at: reader.time_if("used_at"),
    })
}

impl DynamoLedger {
    pub(super) async fn all_keys(&self) -> Result<Vec<ApiKey>, PortError> {
        self.table.query(&Page::of(Key::KEYS)).await?.iter().map(read).collect()
    }

    /// Two that are added at once may be one more than there may be.
    pub(super) async fn add_one_key(&self, key: &ApiKey) -> Result<(), PortError> {
        if self.all_keys().await?.len() >= KEYS_MAX {
            return Err(taken(&key.name));
        }
        match self.table.put_first(item(key), "add a key").await? {
            None => Ok(()),
            // The SDK repeats a call whose response was lost.
            Some(found) if read(&found)?.digest == key.digest => Ok(()),
            Some(_) => Err(taken(&key.name)),
        }
    }

    pub(super) async fn change_one_key(
        &self,
        name: &KeyName,
        change: KeyChange,
    ) -> Result<(), PortError> {
        let key = Key::api_key(name);
        let (expression, condition, at) = match change {
            KeyChange::Revoked(at) => {
                ("SET revoked_at = if_not_exists(revoked_at, :at)", "attribute_exists(pk)", at)
            }
            KeyChange::Used(at) => (
                "SET used_at = :at",
                "attribute_exists(pk) AND (attribute_not_exists(used_at) OR used_at < :at)",
                at,
            ),
        };
        let call = self.table.update(&key).update_expression(expression);
        let call =
            call.condition_expression(condition).expression_attribute_values(":at", time(at));
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => {
                match self.table.get(&key).await? {
                    Some(_) => Ok(()),
                    None => Err(unknown(name)),
                }
            }
            Err(error) => Err(self.table.failed("UpdateItem", "change a key", error)),
        }
    }
}
