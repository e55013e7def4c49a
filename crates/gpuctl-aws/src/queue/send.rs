//! Sends a batch, of which SQS may accept a part: the rest is sent again, and what is not accepted in the end is named.

use std::time::Duration;

use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};
use chrono::TimeDelta;
use gpuctl_control::ports::{NewMessage, PortError, PortErrorClass, SEND_BATCH_MAX};
use gpuctl_core::units::QueueName;

use super::{Located, SqsQueue, seconds_up, to_i32};
use crate::error::{class_of, code};

/// SQS's longest delay.
const DELAY_MAX: TimeDelta = TimeDelta::seconds(900);

/// Tries of each message, the first included.
const TRIES_MAX: u32 = 3;

/// The wait before the second try; it doubles.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// A message that SQS did not accept.
struct Rejected {
    /// In the batch.
    index: usize,
    code: String,
    text: String,
    /// Whether the message itself is at fault, so that another try would fail as well.
    is_permanent: bool,
}

impl SqsQueue {
    pub(super) async fn send_all(
        &self,
        queue: &QueueName,
        batch: &[NewMessage],
    ) -> Result<(), PortError> {
        check(queue, batch)?;
        let url = self.url(queue).await?;
        let mut left: Vec<usize> = (0..batch.len()).collect();
        let mut wait = RETRY_WAIT;
        for attempt in 1.. {
            let rejected = match self.send_some(&Located { queue, url: &url }, batch, &left).await {
                Ok(rejected) => rejected,
                // Earlier tries, or earlier parts of this one, may have succeeded.
                Err((error, unsent)) => return Err(in_part(error, batch, &unsent)),
            };
            if rejected.is_empty() {
                return Ok(());
            }
            if attempt == TRIES_MAX || rejected.iter().any(|one| one.is_permanent) {
                return Err(not_taken(queue, batch, &rejected));
            }
            left = rejected.iter().map(|one| one.index).collect();
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Ok(())
    }

    /// Sends these messages of the batch; returns those that SQS did not accept. If a call fails, returns its error with the
    /// indices of all messages that are not in the queue.
    async fn send_some(
        &self,
        located: &Located<'_>,
        batch: &[NewMessage],
        which: &[usize],
    ) -> Result<Vec<Rejected>, (PortError, Vec<usize>)> {
        let entries = which.iter().map(|index| entry(*index, &batch[*index])).collect();
        let call =
            self.client.send_message_batch().queue_url(located.url).set_entries(Some(entries));
        let answer = match call.send().await {
            Ok(answer) => answer,
            // Too long together: one at a time they may fit.
            Err(error) if code(&error) == Some("BatchRequestTooLong") && which.len() > 1 => {
                let mut rejected = Vec::new();
                for (done, index) in which.iter().enumerate() {
                    let one = Box::pin(self.send_some(located, batch, &[*index])).await;
                    rejected.extend(one.map_err(|(error, _)| {
                        let before = rejected.iter().map(|one: &Rejected| one.index);
                        (error, before.chain(which[done..].iter().copied()).collect())
                    })?);
                }
                return Ok(rejected);
            }
            Err(error) => {
                let failed = self.failed("SendMessage", "send to", located.queue, error);
                return Err((failed, which.to_vec()));
            }
        };
        let rejected = answer.failed.into_iter().filter_map(|one| {
            Some(Rejected {
                index: one.id.parse().ok()?,
                code: one.code,
                text: one.message.unwrap_or_default(),
                is_permanent: one.sender_fault,
            })
        });
        Ok(rejected.collect())
    }
}

fn check(queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
    let reject = |what: String| Err(PortError::new(PortErrorClass::Other, what));
    if batch.len() > SEND_BATCH_MAX {
        return reject(format!("{} messages are too many for one send to `{queue}`", batch.len()));
    }
    if batch.iter().any(|message| message.delay > DELAY_MAX) {
        return reject(format!("SQS delays a message by at most {} s", DELAY_MAX.num_seconds()));
    }
    Ok(())
}

fn entry(index: usize, message: &NewMessage) -> SendMessageBatchRequestEntry {
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id(index.to_string())
        .message_body(&message.body)
        .delay_seconds(to_i32(seconds_up(message.delay)));
    for (name, value) in &message.attributes {
        let value = MessageAttributeValue::builder().data_type("String").string_value(value);
        entry = entry.message_attributes(name, value.build().expect("it has a type"));
    }
    entry.build().expect("it has an id and a body")
}

fn not_taken(queue: &QueueName, batch: &[NewMessage], rejected: &[Rejected]) -> PortError {
    // A permanent failure says more than a temporary one.
    let worst = rejected.iter().find(|one| one.is_permanent).unwrap_or(&rejected[0]);
    let (left, all) = (rejected.len(), batch.len());
    let what = format!("{left} of {all} messages could not be sent to the queue `{queue}`");
    let error = PortError::new(class_of(&worst.code), what)
        .because(format!("{}: {}", worst.code, worst.text));
    in_part(error, batch, &rejected.iter().map(|one| one.index).collect::<Vec<_>>())
}

/// Names the messages that are not in the queue, if others are.
fn in_part(error: PortError, batch: &[NewMessage], unsent: &[usize]) -> PortError {
    if unsent.len() == batch.len() {
        return error;
    }
    let names: Vec<String> = unsent.iter().map(|index| name(*index, &batch[*index])).collect();
    let before = error.hint.as_ref().map_or(String::new(), |hint| format!("{hint}; "));
    let hint = format!(
        "{before}the other {} are in the queue: send only {} again",
        batch.len() - unsent.len(),
        names.join(", ")
    );
    error.hint(hint)
}

fn name(index: usize, message: &NewMessage) -> String {
    let id = message.attributes.iter().find(|(name, _)| name == "job_id");
    id.map_or_else(|| format!("number {}", index + 1), |(_, id)| id.clone())
}
