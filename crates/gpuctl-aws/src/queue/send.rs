//! Sending a batch, of which SQS may take a part: what it did not take is sent again, and what is left over is named.

use std::time::Duration;

use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};
use chrono::TimeDelta;
use gpuctl_control::ports::{NewMessage, PortError, PortErrorClass, SEND_BATCH_MAX};
use gpuctl_core::units::QueueName;

use super::{SqsQueue, seconds_up, to_i32};
use crate::error::{class_of, code};

/// SQS's longest delay.
const DELAY_MAX: TimeDelta = TimeDelta::seconds(900);

/// Tries of what SQS did not take, the first included.
const TRIES_MAX: u32 = 3;

/// The wait before the second try; it doubles.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// A message that SQS did not take.
struct Refused {
    index: usize,
    code: String,
    text: String,
    /// The message's own fault: another try would end alike.
    for_good: bool,
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
            let refused = match self.send_some((queue, &url), batch, &left).await {
                Ok(refused) => refused,
                // Earlier tries, or earlier parts of this one, may have sent some.
                Err((error, unsent)) => return Err(in_part(error, batch, &unsent)),
            };
            if refused.is_empty() {
                return Ok(());
            }
            if attempt == TRIES_MAX || refused.iter().any(|one| one.for_good) {
                return Err(not_taken(queue, batch, &refused));
            }
            left = refused.iter().map(|one| one.index).collect();
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Ok(())
    }

    /// Sends these messages of the batch; answers those that SQS did not take, or why it took none of the rest.
    async fn send_some(
        &self,
        (queue, url): (&QueueName, &str),
        batch: &[NewMessage],
        which: &[usize],
    ) -> Result<Vec<Refused>, (PortError, Vec<usize>)> {
        let entries = which.iter().map(|index| entry(*index, &batch[*index])).collect();
        let call = self.client.send_message_batch().queue_url(url).set_entries(Some(entries));
        let answer = match call.send().await {
            Ok(answer) => answer,
            // Together they are too long: one by one they may fit.
            Err(error) if code(&error) == Some("BatchRequestTooLong") && which.len() > 1 => {
                let mut refused = Vec::new();
                for (done, index) in which.iter().enumerate() {
                    let one = Box::pin(self.send_some((queue, url), batch, &[*index])).await;
                    refused.extend(one.map_err(|(error, _)| {
                        let before = refused.iter().map(|one: &Refused| one.index);
                        (error, before.chain(which[done..].iter().copied()).collect())
                    })?);
                }
                return Ok(refused);
            }
            Err(error) => {
                let failed = self.failed("SendMessage", ("send to", queue), error);
                return Err((failed, which.to_vec()));
            }
        };
        let refused = answer.failed.into_iter().filter_map(|one| {
            Some(Refused {
                index: one.id.parse().ok()?,
                code: one.code,
                text: one.message.unwrap_or_default(),
                for_good: one.sender_fault,
            })
        });
        Ok(refused.collect())
    }
}

fn check(queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
    let refuse = |what: String| Err(PortError::new(PortErrorClass::Other, what));
    if batch.len() > SEND_BATCH_MAX {
        return refuse(format!(
            "{} messages are more than one send to `{queue}` may have",
            batch.len()
        ));
    }
    if batch.iter().any(|message| message.delay > DELAY_MAX) {
        return refuse(format!("SQS delays a message by {} s at most", DELAY_MAX.num_seconds()));
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

fn not_taken(queue: &QueueName, batch: &[NewMessage], refused: &[Refused]) -> PortError {
    // The one that no retry mends says most.
    let worst = refused.iter().find(|one| one.for_good).unwrap_or(&refused[0]);
    let (left, all) = (refused.len(), batch.len());
    let what = format!("{left} of {all} messages could not be sent to the queue `{queue}`");
    let error = PortError::new(class_of(&worst.code), what)
        .because(format!("{}: {}", worst.code, worst.text));
    in_part(error, batch, &refused.iter().map(|one| one.index).collect::<Vec<_>>())
}

/// Says which messages are not in the queue, where the others are.
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
