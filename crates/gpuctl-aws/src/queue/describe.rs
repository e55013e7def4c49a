//! The attributes of a queue: counts, its dead-letter queue, and the settings that `gpuctl doctor` checks.

use std::collections::HashMap;

use aws_sdk_sqs::types::QueueAttributeName;
use chrono::TimeDelta;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::units::QueueName;
use serde::Deserialize;

use super::{Located, SqsQueue};

/// A queue's settings; which of them are wrong is decided by `gpuctl doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    pub url: String,
    /// Whether it keeps order by group: then one message in flight blocks those behind it (Q17).
    pub fifo: bool,
    /// The lease of a receive that asks for none.
    pub visibility: TimeDelta,
    /// How long it keeps a message.
    pub retention: TimeDelta,
    /// The longest message, in bytes (Q14).
    pub message_bytes_max: u64,
    /// `None` if messages are never moved to a dead-letter queue.
    pub dead_letters: Option<DeadLetters>,
}

/// A dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    pub name: String,
    /// After this number of receives a message is moved there.
    pub receives_max: u32,
    /// How long it keeps a message, counted from when it was sent to the source queue: should be at least the source's (Q12).
    pub retention: TimeDelta,
}

/// How long a queue and its dead-letter queue keep a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub live: TimeDelta,
    /// `None` without a dead-letter queue.
    pub dead: Option<TimeDelta>,
}

/// The messages of a dead-letter queue.
pub(super) struct Dead {
    pub(super) count: u64,
    /// How long it keeps them; `None` where SQS does not say.
    pub(super) retention: Option<TimeDelta>,
}

/// A dead-letter queue, as a redrive policy names it.
pub(super) struct DeadQueue {
    pub(super) arn: String,
    account: String,
    name: String,
}

/// The attributes that a call returned.
pub(super) struct Attributes {
    found: HashMap<QueueAttributeName, String>,
    queue: QueueName,
}

#[derive(Deserialize)]
struct RedrivePolicy {
    #[serde(rename = "deadLetterTargetArn")]
    target: String,
    #[serde(rename = "maxReceiveCount")]
    receives_max: Number,
}

/// SQS returns a JSON number or, for queues set up by some tools, a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u32),
    Text(String),
}

impl SqsQueue {
    /// The settings of a queue and of its dead-letter queue.
    ///
    /// # Errors
    /// When either cannot be read.
    pub async fn describe(&self, queue: &QueueName) -> Result<QueueFacts, PortError> {
        let url = self.url(queue).await?;
        let found =
            self.attributes(&Located { queue, url: &url }, &[QueueAttributeName::All]).await?;
        let dead_letters = match found.dead_letters()? {
            Some((dead, receives_max)) => {
                let url = self.url_of(queue, &dead).await?;
                let name = [QueueAttributeName::MessageRetentionPeriod];
                let found = self.attributes(&Located { queue, url: &url }, &name).await?;
                let retention = found.span(&name[0])?;
                Some(DeadLetters { name: dead.name, receives_max, retention })
            }
            None => None,
        };
        Ok(QueueFacts {
            fifo: found.is_true(&QueueAttributeName::FifoQueue) || url.ends_with(".fifo"),
            visibility: found.span(&QueueAttributeName::VisibilityTimeout)?,
            retention: found.span(&QueueAttributeName::MessageRetentionPeriod)?,
            message_bytes_max: found.count(&QueueAttributeName::MaximumMessageSize)?,
            dead_letters,
            url,
        })
    }

    pub(super) async fn attributes(
        &self,
        located: &Located<'_>,
        names: &[QueueAttributeName],
    ) -> Result<Attributes, PortError> {
        let call = self.client.get_queue_attributes().queue_url(located.url);
        let sent = call.set_attribute_names(Some(names.to_vec())).send().await;
        let queue = located.queue;
        let output =
            sent.map_err(|error| self.failed("GetQueueAttributes", "look at", queue, error))?;
        Ok(Attributes { found: output.attributes.unwrap_or_default(), queue: queue.clone() })
    }

    /// How long the queue and its dead-letter queue keep messages: as read with its last counts, else asked.
    ///
    /// # Errors
    /// When it was not read before, and cannot be.
    pub async fn retention(&self, queue: &QueueName) -> Result<Retention, PortError> {
        if let Some(known) = super::locked(&self.retentions).get(queue) {
            return Ok(*known);
        }
        let facts = self.describe(queue).await?;
        let dead = facts.dead_letters.map(|dead| dead.retention);
        let retention = Retention { live: facts.retention, dead };
        super::locked(&self.retentions).insert(queue.clone(), retention);
        Ok(retention)
    }

    /// How many messages are in the dead-letter queue, and how long it keeps them.
    pub(super) async fn dead(
        &self,
        queue: &QueueName,
        dead: &DeadQueue,
    ) -> Result<Dead, PortError> {
        let url = self.url_of(queue, dead).await?;
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::MessageRetentionPeriod,
        ];
        let found = self.attributes(&Located { queue, url: &url }, &names).await?;
        let count = found.count(&names[0])? + found.count(&names[1])?;
        Ok(Dead { count, retention: found.span(&names[2]).ok() })
    }

    /// The ARN of the queue, if it is the only one with this dead-letter queue: dead messages of others are not its own. `None`
    /// where SQS does not say.
    pub(super) async fn only_source(
        &self,
        queue: &QueueName,
        dead: &DeadQueue,
    ) -> Result<Option<String>, PortError> {
        let dead_url = self.url_of(queue, dead).await?;
        let call = self.client.list_dead_letter_source_queues().queue_url(dead_url);
        let Ok(sources) = call.send().await else { return Ok(None) };
        if sources.queue_urls().len() > 1 {
            return Ok(None);
        }
        let url = self.url(queue).await?;
        let name = [QueueAttributeName::QueueArn];
        let found = self.attributes(&Located { queue, url: &url }, &name).await?;
        Ok(found.found.get(&name[0]).cloned())
    }

    pub(super) async fn dead_letter_queue(
        &self,
        queue: &QueueName,
    ) -> Result<DeadQueue, PortError> {
        let url = self.url(queue).await?;
        let found = self
            .attributes(&Located { queue, url: &url }, &[QueueAttributeName::RedrivePolicy])
            .await?;
        let missing = || {
            PortError::new(PortErrorClass::NotFound, format!("the queue `{queue}` has no dead-letter queue"))
                .hint("give it a redrive policy: without one, a message that no worker can finish is delivered for ever")
        };
        found.dead_letters()?.map(|(dead, _)| dead).ok_or_else(missing)
    }

    /// The URL of a dead-letter queue, looked up once; the queue may belong to another account.
    pub(super) async fn url_of(
        &self,
        queue: &QueueName,
        dead: &DeadQueue,
    ) -> Result<String, PortError> {
        if let Some(url) = super::locked(&self.dead_urls).get(&dead.arn) {
            return Ok(url.clone());
        }
        let call = self.client.get_queue_url().queue_name(&dead.name);
        let answer = call.queue_owner_aws_account_id(&dead.account).send().await;
        let answer = answer.map_err(|error| {
            self.failed("GetQueueUrl", "find the dead-letter queue of", queue, error)
        })?;
        let url = answer.queue_url().unwrap_or_default().to_owned();
        super::locked(&self.dead_urls).insert(dead.arn.clone(), url.clone());
        Ok(url)
    }
}

impl Attributes {
    pub(super) fn count(&self, name: &QueueAttributeName) -> Result<u64, PortError> {
        // A missing count is unknown, not zero (Q5).
        self.found.get(name).and_then(|text| text.parse().ok()).ok_or_else(|| {
            let what =
                format!("SQS did not return {} of the queue `{}`", name.as_str(), self.queue);
            PortError::new(PortErrorClass::Unavailable, what)
        })
    }

    pub(super) fn span(&self, name: &QueueAttributeName) -> Result<TimeDelta, PortError> {
        self.count(name).map(span)
    }

    fn is_true(&self, name: &QueueAttributeName) -> bool {
        self.found.get(name).is_some_and(|text| text == "true")
    }

    /// The dead-letter queue, and after how many receives messages are moved there.
    pub(super) fn dead_letters(&self) -> Result<Option<(DeadQueue, u32)>, PortError> {
        let text = self.found.get(&QueueAttributeName::RedrivePolicy);
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        read_redrive(text).map(Some).ok_or_else(|| {
            let what =
                format!("the queue `{}`'s redrive policy cannot be read: {text}", self.queue);
            PortError::new(PortErrorClass::Corrupt, what)
        })
    }
}

/// `arn:aws:sqs:region:account:name`
fn read_redrive(text: &str) -> Option<(DeadQueue, u32)> {
    let policy: RedrivePolicy = serde_json::from_str(text).ok()?;
    let receives_max = match policy.receives_max {
        Number::Plain(number) => number,
        Number::Text(text) => text.parse().ok()?,
    };
    let mut parts = policy.target.rsplit(':');
    let (name, account) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    Some((DeadQueue { arn: policy.target, account, name }, receives_max))
}

fn span(seconds: u64) -> TimeDelta {
    TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::MAX / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_names_queue_account_and_receives() {
        for number in ["5", "\"5\""] {
            let text = format!(
                "{{\"deadLetterTargetArn\": \"arn:aws:sqs:eu-west-1:123456789012:jobs-dead\", \"maxReceiveCount\": {number}}}"
            );
            let (dead, receives_max) = read_redrive(&text).unwrap();
            assert_eq!((dead.name.as_str(), dead.account.as_str()), ("jobs-dead", "123456789012"));
            assert_eq!(receives_max, 5);
        }
        assert!(read_redrive("{}").is_none());
    }
}
