//! Changes and deletes messages ten at a time, with a result for each: one that SQS rejects does not keep the others.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
};
use chrono::TimeDelta;
use gpuctl_control::ports::{PortError, PortErrorClass, Receipt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{LEASE_SECONDS_MAX, Lease, SqsQueue, lease_lost, locked, seconds, seconds_up, to_i32};
use crate::error::{class_of, port_error, said_again};

/// Messages in one call: SQS's limit.
const BATCH_MAX: usize = 10;

/// What is done to messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Extend,
    Delete,
}

/// One message of a batch.
#[derive(Clone)]
struct Entry {
    /// Its place among the caller's receipts.
    index: usize,
    receipt: Receipt,
    /// How long its lease is to last, in whole seconds.
    seconds: i64,
}

/// What SQS said of the messages of one call.
struct Answered {
    entries: Vec<Entry>,
    /// By the entry's place in the call; or why the call failed.
    outcome: Result<HashMap<usize, Result<(), BatchResultErrorEntry>>, PortError>,
}

impl SqsQueue {
    pub(super) async fn change_all(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>> {
        let asked_at = Instant::now();
        let wanted = |lease: &Lease| {
            // Q10: SQS rejects more than 12 h in all. The lease gets what is left of them, and then it is lost.
            let held = i64::try_from((asked_at - lease.received).as_secs()).unwrap_or(i64::MAX);
            let wanted = seconds_up(visibility).min(LEASE_SECONDS_MAX - held);
            (wanted > 0 || (wanted == 0 && visibility <= TimeDelta::zero())).then_some(wanted)
        };
        let changed = self.in_batches(receipts, Change::Extend, wanted).await;
        let mut leases = locked(&self.leases);
        for (receipt, changed) in receipts.iter().zip(&changed) {
            let Some(lease) = leases.get_mut(receipt).filter(|_| changed.is_ok()) else { continue };
            match wanted(lease) {
                // From the time of the request: SQS counts from later, never from earlier.
                Some(wanted) if wanted > 0 => lease.until = asked_at + seconds(wanted),
                _ => {
                    leases.remove(receipt);
                }
            }
        }
        changed
    }

    pub(super) async fn delete_all(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        let deleted = self.in_batches(receipts, Change::Delete, |_| Some(0)).await;
        let mut leases = locked(&self.leases);
        for (receipt, _) in receipts.iter().zip(&deleted).filter(|(_, deleted)| deleted.is_ok()) {
            leases.remove(receipt);
        }
        deleted
    }

    /// Makes the change to all messages whose leases are held, in as few calls as SQS allows, side by side. `wanted` says for how long,
    /// and `None` if the lease is over.
    async fn in_batches(
        &self,
        receipts: &[Receipt],
        change: Change,
        wanted: impl Fn(&Lease) -> Option<i64>,
    ) -> Vec<Result<(), PortError>> {
        let mut results: Vec<Result<(), PortError>> =
            receipts.iter().map(|_| Err(lease_lost())).collect();
        let mut by_url: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (index, receipt) in receipts.iter().enumerate() {
            let Ok(lease) = self.lease(receipt) else { continue };
            let Some(seconds) = wanted(&lease) else { continue };
            let entry = Entry { index, receipt: receipt.clone(), seconds };
            by_url.entry(lease.url).or_default().push(entry);
        }
        let mut calls = JoinSet::new();
        for (url, entries) in by_url {
            for entries in entries.chunks(BATCH_MAX) {
                let (client, url, entries) = (self.client.clone(), url.clone(), entries.to_vec());
                calls.spawn(async move { call(&client, &url, change, entries).await });
            }
        }
        while let Some(answered) = calls.join_next().await {
            let Ok(answered) = answered else { continue };
            for (index, result) in self.read(change, answered) {
                results[index] = result;
            }
        }
        results
    }

    /// The results of one call, each with its place among the caller's receipts.
    fn read(&self, change: Change, answered: Answered) -> Vec<(usize, Result<(), PortError>)> {
        let what = match change {
            Change::Extend => "cannot change a message's lease in SQS",
            Change::Delete => "cannot delete a message from SQS",
        };
        let mut outcome = answered.outcome;
        let entries = answered.entries.into_iter().enumerate();
        let result = |(place, entry): (usize, Entry)| {
            let result = match &mut outcome {
                Err(error) => Err(said_again(error)),
                Ok(outcomes) => match outcomes.remove(&place) {
                    Some(Ok(())) => Ok(()),
                    Some(Err(rejected)) => Err(self.rejected(what, &entry.receipt, &rejected)),
                    None => {
                        let what = format!("{what}: SQS did not say what came of it");
                        Err(PortError::new(PortErrorClass::Unavailable, what))
                    }
                },
            };
            (entry.index, result)
        };
        entries.map(result).collect()
    }

    /// Why SQS rejected one message: `LeaseLost` for its several codes of a receipt that is no longer valid.
    fn rejected(&self, what: &str, receipt: &Receipt, entry: &BatchResultErrorEntry) -> PortError {
        let code = entry.code.rsplit('.').next().unwrap_or(&entry.code);
        let text = entry.message.as_deref().unwrap_or("SQS gave no message");
        let failed =
            PortError::new(class_of(code), what).because(format!("{}: {text}", entry.code));
        // `InvalidParameterValue` is the code of "Message does not exist or is not available for visibility timeout change".
        if matches!(code, "MessageNotInflight" | "ReceiptHandleIsInvalid" | "InvalidParameterValue")
        {
            locked(&self.leases).remove(receipt);
            return lease_lost().because(failed);
        }
        failed
    }
}

async fn call(client: &Client, url: &str, change: Change, entries: Vec<Entry>) -> Answered {
    let outcome = match change {
        Change::Extend => extend(client, url, &entries).await,
        Change::Delete => delete(client, url, &entries).await,
    };
    let outcome = outcome.map(|(done, failed)| {
        let place = |id: &str| id.parse::<usize>().ok();
        let done = done.iter().filter_map(|id| Some((place(id)?, Ok(()))));
        let failed = failed.into_iter().filter_map(|one| Some((place(&one.id)?, Err(one))));
        done.chain(failed).collect()
    });
    Answered { entries, outcome }
}

/// The ids of the messages that were changed, and why others were not.
type Outcome = Result<(Vec<String>, Vec<BatchResultErrorEntry>), PortError>;

async fn extend(client: &Client, url: &str, entries: &[Entry]) -> Outcome {
    let entry = |(place, one): (usize, &Entry)| {
        ChangeMessageVisibilityBatchRequestEntry::builder()
            .id(place.to_string())
            .receipt_handle(&one.receipt.0)
            .visibility_timeout(to_i32(one.seconds))
            .build()
            .expect("it has an id and a receipt")
    };
    let entries = entries.iter().enumerate().map(entry).collect();
    let call = client.change_message_visibility_batch().queue_url(url).set_entries(Some(entries));
    let answer = call.send().await.map_err(|error| {
        port_error("sqs:ChangeMessageVisibility", "cannot change leases of messages in SQS", error)
    })?;
    Ok((answer.successful.into_iter().map(|one| one.id).collect(), answer.failed))
}

async fn delete(client: &Client, url: &str, entries: &[Entry]) -> Outcome {
    let entry = |(place, one): (usize, &Entry)| {
        DeleteMessageBatchRequestEntry::builder()
            .id(place.to_string())
            .receipt_handle(&one.receipt.0)
            .build()
            .expect("it has an id and a receipt")
    };
    let entries = entries.iter().enumerate().map(entry).collect();
    let call = client.delete_message_batch().queue_url(url).set_entries(Some(entries));
    let answer = call.send().await.map_err(|error| {
        port_error("sqs:DeleteMessage", "cannot delete messages from SQS", error)
    })?;
    Ok((answer.successful.into_iter().map(|one| one.id).collect(), answer.failed))
}
