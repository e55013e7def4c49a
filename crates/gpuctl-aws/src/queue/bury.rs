//! Moves a held message to the dead-letter queue: sent there with the reason, then deleted here.
//!
//! SQS has no call for that. Between the two calls the message is in both queues; if the second one fails, the next `bury` of the same
//! message, also of a later delivery, only deletes it. If this process ends in between, the dead letters have it twice.

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::operation::send_message::SendMessageError;
use aws_sdk_sqs::types::MessageAttributeValue;
use gpuctl_control::ports::{PortError, Received};
use gpuctl_core::units::QueueName;

use super::{SqsQueue, locked};
use crate::error::code;

/// The attribute of a buried message that says why it was buried.
pub(crate) const REASON_ATTRIBUTE: &str = "gpuctl_reason";

/// Attributes of one message: SQS's limit.
const ATTRIBUTES_MAX: usize = 10;

/// Characters of the reason: it counts towards the message's length.
const REASON_CHARS_MAX: usize = 500;

/// Messages that are remembered as sent and not deleted.
const BURIED_MAX: usize = 1_000;

impl SqsQueue {
    pub(super) async fn send_to_dead_letters(
        &self,
        queue: &QueueName,
        message: &Received,
        reason: &str,
    ) -> Result<(), PortError> {
        let id = self.lease(&message.receipt)?.message_id;
        if !locked(&self.buried).contains(&id) {
            let dead = self.dead_letter_queue(queue).await?;
            let url = self.url_of(queue, &dead).await?;
            let all = attributes(message, reason);
            let sent = match self.send_dead(&url, message, &all).await {
                // With the reason it may be too long. Without it, it is as long as the queue has taken before.
                Err(error) if is_too_long(&error) => {
                    self.send_dead(&url, message, &all[..all.len() - 1]).await
                }
                sent => sent,
            };
            sent.map_err(|error| {
                self.failed("SendMessage", "send to the dead-letter queue of", queue, error)
            })?;
            let mut buried = locked(&self.buried);
            buried.push_back(id.clone());
            if buried.len() > BURIED_MAX {
                buried.pop_front();
            }
        }
        let receipts = std::slice::from_ref(&message.receipt);
        self.delete_all(receipts).await.remove(0)?;
        locked(&self.buried).retain(|one| *one != id);
        Ok(())
    }

    async fn send_dead(
        &self,
        url: &str,
        message: &Received,
        attributes: &[(String, String)],
    ) -> Result<(), SdkError<SendMessageError, HttpResponse>> {
        let mut call = self.client.send_message().queue_url(url).message_body(&message.body);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value);
            call = call.message_attributes(name, value.build().expect("it has a type"));
        }
        call.send().await.map(drop)
    }
}

/// SQS has no code of its own for a message that is too long.
fn is_too_long(error: &SdkError<SendMessageError, HttpResponse>) -> bool {
    matches!(code(error), Some("InvalidParameterValue" | "InvalidParameterValueException"))
}

/// The message's own attributes, as many as fit, and last the reason.
fn attributes(message: &Received, reason: &str) -> Vec<(String, String)> {
    let own = message.attributes.iter().filter(|(name, _)| name != REASON_ATTRIBUTE);
    let mut all: Vec<(String, String)> = own.take(ATTRIBUTES_MAX - 1).cloned().collect();
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let reason: String = reason.chars().map(plain).take(REASON_CHARS_MAX).collect();
    let reason = if reason.trim().is_empty() { "unknown".to_owned() } else { reason };
    all.push((REASON_ATTRIBUTE.to_owned(), reason));
    all
}

#[cfg(test)]
mod tests {
    use gpuctl_control::ports::Receipt;

    use super::*;

    #[test]
    fn a_buried_message_has_its_reason_and_no_more_attributes_than_sqs_takes() {
        let attribute = |n: usize| (format!("a{n:02}"), "x".to_owned());
        let message = Received {
            receipt: Receipt(String::new()),
            body: "b".to_owned(),
            attributes: (0..ATTRIBUTES_MAX).map(attribute).collect(),
            receive_count: 1,
            sent_at: gpuctl_core::units::Timestamp::UNIX_EPOCH,
        };
        let found = attributes(&message, &format!("not\u{1b}JSON{}", "y".repeat(1_000)));
        assert_eq!(found.len(), ATTRIBUTES_MAX);
        let (name, reason) = found.last().unwrap();
        assert_eq!(name, REASON_ATTRIBUTE);
        assert!(reason.starts_with("not JSON") && reason.chars().count() == REASON_CHARS_MAX);
        assert_eq!(attributes(&message, "").last().unwrap().1, "unknown");
    }
}
