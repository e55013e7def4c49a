//! The one table: creating it, and the few ways in which it is read and written. What items hold is in `items`.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, CancellationReason, KeySchemaElement,
    KeyType, KeysAndAttributes, ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
    TableDescription, TableStatus, TimeToLiveSpecification, TransactWriteItem,
};
use gpuctl_control::ports::{PortError, PortErrorClass};
use tokio::time::Instant;

use super::items::{Item, Key};
use crate::config::Aws;
use crate::error::{code, port_error};

/// Keys in one batched read: DynamoDB's limit.
const GET_MANY_MAX: usize = 100;

/// Calls for one batched read, whose responses may leave keys unprocessed, before it counts as throttled.
const GET_MANY_TRIES_MAX: u32 = 5;

/// How long to wait for a new table, which takes some seconds.
const CREATE_TIME_MAX: Duration = Duration::from_secs(60);

/// The time between two checks whether it is ready.
const CREATE_POLL_EVERY: Duration = Duration::from_millis(250);

/// Calls for one transaction that others, or too many writes, are in the way of.
const TRANSACT_TRIES_MAX: u32 = 4;

/// The wait before the second of them; it doubles.
const TRANSACT_WAIT: Duration = Duration::from_millis(50);

/// The table; cloning shares the connection.
#[derive(Clone)]
pub(super) struct Table {
    client: Client,
    name: String,
    region: String,
}

/// A part of one partition, to query.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) pk: String,
    /// Only sort keys that begin so. At most one of `prefix`, `from` and `before` is set.
    pub(super) prefix: Option<String>,
    /// Only sort keys at or after this.
    pub(super) from: Option<String>,
    /// Only sort keys before this.
    pub(super) before: Option<String>,
    pub(super) order: Order,
    /// The largest number of items; `None`: all.
    pub(super) limit: Option<usize>,
    /// The attributes to return; `None`: all.
    pub(super) only: Option<&'static str>,
}

/// The order of the sort keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Lowest first.
    First,
    /// Highest first.
    Last,
}

impl Page {
    pub(super) fn of(pk: impl Into<String>) -> Self {
        Self {
            pk: pk.into(),
            prefix: None,
            from: None,
            before: None,
            order: Order::First,
            limit: None,
            only: None,
        }
    }
}

impl Table {
    pub(super) fn new(aws: &Aws, name: &str) -> Self {
        let region = aws.region().to_owned();
        Self { client: aws.dynamodb(), name: name.to_owned(), region }
    }

    /// Classifies the error of a call; `verb` completes "cannot … in the ledger".
    pub(super) fn failed<E>(
        &self,
        call: &str,
        verb: &str,
        error: SdkError<E, HttpResponse>,
    ) -> PortError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let what = format!("cannot {verb} in the ledger, table `{}`", self.name);
        let failed = port_error(&format!("dynamodb:{call}"), what, error);
        if failed.class != PortErrorClass::NotFound {
            return failed;
        }
        let region = &self.region;
        failed.hint(format!("there is no such table in {region}: `gpuctl doctor --fix` creates it"))
    }

    pub(super) async fn create(&self) -> Result<(), PortError> {
        let key = |name, kind| {
            let element = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            element.build().expect("it has a name and a kind")
        };
        let text = |name| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            let attribute = attribute.attribute_type(ScalarAttributeType::S);
            attribute.build().expect("it has a name and a type")
        };
        let call = self
            .client
            .create_table()
            .table_name(&self.name)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(text("pk"))
            .attribute_definitions(text("sk"))
            .key_schema(key("pk", KeyType::Hash))
            .key_schema(key("sk", KeyType::Range));
        match call.send().await {
            Err(error) if code(&error) != Some("ResourceInUseException") => {
                return Err(self.failed("CreateTable", "create the table", error));
            }
            _ => {}
        }
        self.until_active().await?;
        self.check().await?;
        self.enable_expiry().await
    }

    async fn until_active(&self) -> Result<(), PortError> {
        let until = Instant::now() + CREATE_TIME_MAX;
        loop {
            let table = self.describe().await;
            match table {
                Ok(table) if table.table_status() == Some(&TableStatus::Active) => return Ok(()),
                // A table that was just created may not be listed yet.
                Ok(_) => {}
                Err(error) if error.class == PortErrorClass::NotFound => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= until {
                let what = format!("the table `{}` is still not ready", self.name);
                return Err(PortError::new(PortErrorClass::Unavailable, what)
                    .hint("check it in the DynamoDB console, and try again"));
            }
            tokio::time::sleep(CREATE_POLL_EVERY).await;
        }
    }

    async fn enable_expiry(&self) -> Result<(), PortError> {
        let asked = self.client.describe_time_to_live().table_name(&self.name).send().await;
        let asked = asked
            .map_err(|error| self.failed("DescribeTimeToLive", "read the expiry setting", error))?;
        let set = asked.time_to_live_description().and_then(|ttl| ttl.attribute_name());
        if set == Some("expires") {
            return Ok(());
        }
        let wanted = TimeToLiveSpecification::builder().attribute_name("expires").enabled(true);
        let wanted = wanted.build().expect("it has a name and a switch");
        let call = self.client.update_time_to_live().table_name(&self.name);
        let answer = call.time_to_live_specification(wanted).send().await;
        answer.map(drop).map_err(|error| self.failed("UpdateTimeToLive", "set the expiry", error))
    }

    async fn describe(&self) -> Result<TableDescription, PortError> {
        let answer = self.client.describe_table().table_name(&self.name).send().await;
        let answer =
            answer.map_err(|error| self.failed("DescribeTable", "read the keys", error))?;
        Ok(answer.table.unwrap_or_else(|| TableDescription::builder().build()))
    }

    pub(super) async fn check(&self) -> Result<(), PortError> {
        let table = self.describe().await?;
        let keys: Vec<(&str, &KeyType)> =
            table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
        if keys == [("pk", &KeyType::Hash), ("sk", &KeyType::Range)] {
            return Ok(());
        }
        let what = format!(
            "the table `{}` belongs to something else: its keys are not `pk` and `sk`",
            self.name
        );
        Err(PortError::new(PortErrorClass::Conflict, what).hint("set another `table` in [cloud]"))
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>, PortError> {
        let call = self.client.get_item().table_name(&self.name).set_key(Some(attributes(key)));
        let answer = call.consistent_read(true).send().await;
        let answer = answer.map_err(|error| self.failed("GetItem", "read", error))?;
        Ok(answer.item)
    }

    /// The items of these keys that exist, in no particular order.
    pub(super) async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Item>, PortError> {
        self.get_parts(keys, None).await
    }

    /// Which of these keys have an item.
    pub(super) async fn which_exist(&self, keys: Vec<Key>) -> Result<HashSet<Key>, PortError> {
        self.get_parts(keys, Some("pk, sk")).await?.iter().map(Key::of).collect()
    }

    /// As `get_many`, with these attributes only.
    async fn get_parts(&self, keys: Vec<Key>, only: Option<&str>) -> Result<Vec<Item>, PortError> {
        let mut found = Vec::new();
        for chunk in keys.chunks(GET_MANY_MAX) {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(chunk.iter().map(attributes).collect()))
                .set_projection_expression(only.map(str::to_owned))
                .consistent_read(true);
            let mut wanted = Some(wanted.build().expect("it has keys"));
            let mut tries = 0;
            while let Some(keys) = wanted.take() {
                tries += 1;
                if tries > GET_MANY_TRIES_MAX {
                    let what =
                        format!("the table `{}` does not return all items of a read", self.name);
                    return Err(PortError::new(PortErrorClass::Throttled, what));
                }
                let call = self.client.batch_get_item().request_items(&self.name, keys);
                let answer = call.send().await;
                let answer = answer.map_err(|error| self.failed("BatchGetItem", "read", error))?;
                found.extend(answer.responses.unwrap_or_default().into_values().flatten());
                wanted = answer
                    .unprocessed_keys
                    .and_then(|mut left| left.remove(&self.name))
                    .filter(|left| !left.keys().is_empty());
            }
        }
        Ok(found)
    }

    /// All items of a part of one partition, page after page (L7).
    pub(super) async fn query(&self, page: &Page) -> Result<Vec<Item>, PortError> {
        let mut found: Vec<Item> = Vec::new();
        let mut after = None;
        loop {
            let left = page.limit.map(|limit| limit - found.len());
            let (items, next) = self.query_once(page, after, left).await?;
            found.extend(items);
            after = next;
            if after.is_none() || page.limit.is_some_and(|limit| found.len() >= limit) {
                return Ok(found);
            }
        }
    }

    /// The items of one response, at most `limit`, and the key after which the next one begins; `None` at the end.
    pub(super) async fn query_once(
        &self,
        page: &Page,
        after: Option<Item>,
        limit: Option<usize>,
    ) -> Result<(Vec<Item>, Option<Item>), PortError> {
        let mut condition = "pk = :pk".to_owned();
        let bound = [
            (&page.prefix, " AND begins_with(sk, :sk)"),
            (&page.from, " AND sk >= :sk"),
            (&page.before, " AND sk < :sk"),
        ];
        let mut call = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .scan_index_forward(page.order == Order::First)
            .set_projection_expression(page.only.map(str::to_owned))
            .set_limit(limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
            .set_exclusive_start_key(after)
            .expression_attribute_values(":pk", AttributeValue::S(page.pk.clone()));
        if let Some((value, text)) =
            bound.iter().find_map(|(value, text)| Some((value.as_ref()?, text)))
        {
            condition.push_str(text);
            call = call.expression_attribute_values(":sk", AttributeValue::S(value.clone()));
        }
        let answer = call.key_condition_expression(condition).send().await;
        let answer = answer.map_err(|error| self.failed("Query", "read", error))?;
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), next))
    }

    pub(super) async fn put(&self, item: Item, verb: &str) -> Result<(), PortError> {
        let call = self.client.put_item().table_name(&self.name).set_item(Some(item));
        call.send().await.map(drop).map_err(|error| self.failed("PutItem", verb, error))
    }

    /// Puts an item, unless the one with its key has a greater number in `field`: that is a `Conflict`. One beyond `most` cannot be true, and
    /// does not count.
    pub(super) async fn put_unless_newer(
        &self,
        item: Item,
        field: &str,
        most: AttributeValue,
        verb: &str,
    ) -> Result<(), PortError> {
        let mine = item.get(field).cloned().unwrap_or(AttributeValue::Null(true));
        let call = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let call = call
            .condition_expression("attribute_not_exists(pk) OR #field <= :mine OR #field > :most")
            .expression_attribute_names("#field", field)
            .expression_attribute_values(":mine", mine)
            .expression_attribute_values(":most", most);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => {
                let what = format!("cannot {verb}: the ledger has a newer one");
                Err(PortError::new(PortErrorClass::Conflict, what))
            }
            Err(error) => Err(self.failed("PutItem", verb, error)),
        }
    }

    /// Sets these attributes of an item, and removes those of `optional` that are not among them. With a fence it is a `Conflict` if
    /// the item was written under a newer one; the fence is kept by writes without one.
    pub(super) async fn set(
        &self,
        item: Item,
        optional: &[&str],
        fence: Option<i64>,
        verb: &str,
    ) -> Result<(), PortError> {
        let (key, attributes): (Item, Item) =
            item.into_iter().partition(|(name, _)| name == "pk" || name == "sk");
        let mut call = self.client.update_item().table_name(&self.name).set_key(Some(key));
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for name in optional.iter().filter(|name| !attributes.contains_key(**name)) {
            remove.push(format!("#{name}"));
            call = call.expression_attribute_names(format!("#{name}"), *name);
        }
        for (name, value) in attributes {
            set.push(format!("#{name} = :{name}"));
            call = call.expression_attribute_values(format!(":{name}"), value);
            call = call.expression_attribute_names(format!("#{name}"), name);
        }
        if let Some(fence) = fence {
            set.push("fence = :fence".to_owned());
            call = call.condition_expression("attribute_not_exists(fence) OR fence <= :fence");
            call = call.expression_attribute_values(":fence", super::items::number(fence));
        }
        let mut text = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            text.push_str(&format!(" REMOVE {}", remove.join(", ")));
        }
        match call.update_expression(text).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => {
                Err(taken_over(verb))
            }
            Err(error) => Err(self.failed("UpdateItem", verb, error)),
        }
    }

    /// Deletes an item, if this attribute of it still has this value; `false` if it has another one, or none.
    pub(super) async fn delete_if(
        &self,
        key: &Key,
        condition: Option<(&str, AttributeValue)>,
    ) -> Result<bool, PortError> {
        let mut call =
            self.client.delete_item().table_name(&self.name).set_key(Some(attributes(key)));
        if let Some((name, value)) = condition {
            call = call.condition_expression("#name = :value");
            call = call.expression_attribute_names("#name", name);
            call = call.expression_attribute_values(":value", value);
        }
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(self.failed("DeleteItem", "delete", error)),
        }
    }

    /// Adds an item unless there is one with its key; then returns that one.
    pub(super) async fn put_first(
        &self,
        item: Item,
        verb: &str,
    ) -> Result<Option<Item>, PortError> {
        let call = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let call = call.condition_expression("attribute_not_exists(pk)");
        let first = ReturnValuesOnConditionCheckFailure::AllOld;
        match call.return_values_on_condition_check_failure(first).send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Some(failed.item().cloned().unwrap_or_default()))
                }
                _ => Err(self.failed("PutItem", verb, error)),
            },
        }
    }

    /// The builder of an update, for the caller to complete and send.
    pub(super) fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.name).set_key(Some(attributes(key)))
    }

    /// Writes all items or none; `Conflict` where a condition fails. While other writes of the same items are under way, or there are too
    /// many, it is tried again.
    pub(super) async fn transact(
        &self,
        items: Vec<TransactWriteItem>,
        verb: &str,
    ) -> Result<(), PortError> {
        let mut wait = TRANSACT_WAIT;
        for left in (0..TRANSACT_TRIES_MAX).rev() {
            let call = self.client.transact_write_items();
            let Err(error) = call.set_transact_items(Some(items.clone())).send().await else {
                break;
            };
            let Some((class, reasons)) = cancelled(&error) else {
                // IAM has no action for transactions, only for the writes in them.
                return Err(self.failed("PutItem, dynamodb:DeleteItem", verb, error));
            };
            let passes = matches!(class, PortErrorClass::Unavailable | PortErrorClass::Throttled);
            if left == 0 || !passes {
                let what = format!("cannot {verb} in the ledger, table `{}`", self.name);
                return Err(PortError::new(class, what).because(reasons));
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A write of a controller that another one has replaced.
pub(super) fn taken_over(verb: &str) -> PortError {
    let what = format!("cannot {verb} in the ledger: another controller has taken over since");
    PortError::new(PortErrorClass::Conflict, what).hint("the next reconcile decides anew")
}

/// The item that the condition failed on; `None` for other errors.
pub(super) fn condition_failed(error: &SdkError<UpdateItemError, HttpResponse>) -> Option<&Item> {
    match error.as_service_error()? {
        UpdateItemError::ConditionalCheckFailedException(failed) => failed.item(),
        _ => None,
    }
}

/// The class of a cancelled transaction and its reasons as text; `None` for other errors. Each write has a reason, mostly `None`. A condition
/// that failed says more than the others: then nothing that is tried again could succeed.
fn cancelled(
    error: &SdkError<TransactWriteItemsError, HttpResponse>,
) -> Option<(PortErrorClass, String)> {
    let TransactWriteItemsError::TransactionCanceledException(error) = error.as_service_error()?
    else {
        return None;
    };
    let codes: Vec<&str> = error
        .cancellation_reasons()
        .iter()
        .filter_map(CancellationReason::code)
        .filter(|code| *code != "None")
        .collect();
    let has = |wanted: &[&str]| codes.iter().any(|code| wanted.contains(code));
    let class = if has(&["ConditionalCheckFailed"]) {
        PortErrorClass::Conflict
    } else if has(&["ValidationError", "ItemCollectionSizeLimitExceeded"]) {
        PortErrorClass::Other
    } else if has(&["ThrottlingError", "ProvisionedThroughputExceeded"]) {
        PortErrorClass::Throttled
    } else {
        // `TransactionConflict`, and what is not known.
        PortErrorClass::Unavailable
    };
    Some((class, format!("the transaction was cancelled: {}", codes.join(", "))))
}

/// The key as attributes of an item.
pub(super) fn attributes(key: &Key) -> Item {
    let text = |text: &String| AttributeValue::S(text.clone());
    [("pk".to_owned(), text(&key.pk)), ("sk".to_owned(), text(&key.sk))].into()
}
