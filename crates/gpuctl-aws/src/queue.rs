//! SQS behind `JobQueue`.
//!
//! What SQS cannot promise is said here: a send of several messages may arrive in part, counts are approximate, no count tells
//! the oldest message's age, and a standard queue never says that a lease is lost. So each lease's end is kept here, by this
//! process's own monotonic clock: past it, a receipt is `LeaseLost` without SQS being asked.

mod describe;
mod send;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use chrono::TimeDelta;
use gpuctl_control::ports::{
    JobQueue, NewMessage, PortError, PortErrorClass, Purge, Receipt, ReceiveRequest, Received,
};
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::units::{QueueName, Timestamp};
use tokio::time::Instant;

use crate::config::{Aws, attempt_time};
use crate::error::{code, port_error};

pub use describe::{DeadLetters, QueueFacts};

/// Messages in one receive.
const RECEIVE_MAX: u32 = 10;

/// SQS's longest long poll; a longer wait is several.
const POLL_SECONDS_MAX: i64 = 20;

/// How long one long poll may take in all.
const POLL_TIME_MAX: Duration = Duration::from_secs(25);

/// A lease's longest total since its receive: 12 h, less what SQS's own guide leaves (43,200 right after a receive likely fails).
const LEASE_SECONDS_MAX: i64 = 43_195;

/// SQS.
pub struct SqsQueue {
    client: Client,
    region: String,
    urls: Mutex<HashMap<QueueName, String>>,
    /// Dead-letter queues' URLs, by ARN.
    dead_urls: Mutex<HashMap<String, String>>,
    leases: Mutex<HashMap<Receipt, Lease>>,
}

/// A message that this process holds, or held.
#[derive(Clone)]
struct Lease {
    url: String,
    received: Instant,
    until: Instant,
}

impl SqsQueue {
    /// The queues of this account and region.
    #[must_use]
    pub fn new(aws: &Aws) -> Self {
        Self {
            client: aws.sqs(),
            region: aws.region().to_owned(),
            urls: Mutex::default(),
            dead_urls: Mutex::default(),
            leases: Mutex::default(),
        }
    }

    /// A name's URL, asked once; a URL is its own.
    async fn url(&self, queue: &QueueName) -> Result<String, PortError> {
        if queue.as_str().contains("://") {
            return Ok(queue.to_string());
        }
        if let Some(url) = locked(&self.urls).get(queue) {
            return Ok(url.clone());
        }
        let answer = self.client.get_queue_url().queue_name(queue.as_str()).send().await;
        let answer = answer.map_err(|error| self.failed("GetQueueUrl", ("find", queue), error))?;
        let url = answer.queue_url().unwrap_or_default().to_owned();
        locked(&self.urls).insert(queue.clone(), url.clone());
        Ok(url)
    }

    /// What a failed call on a queue means; one that is not there is looked up anew the next time.
    fn failed<E>(
        &self,
        call: &str,
        (verb, queue): (&str, &QueueName),
        error: SdkError<E, HttpResponse>,
    ) -> PortError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let failed =
            port_error(&format!("sqs:{call}"), format!("cannot {verb} the queue `{queue}`"), error);
        if failed.class != PortErrorClass::NotFound {
            return failed;
        }
        locked(&self.urls).remove(queue);
        failed.hint(format!(
            "there is no such queue in {}: look at `queue` in gpuctl.toml, and at region and account",
            self.region
        ))
    }

    async fn receive_once(
        &self,
        (queue, url): (&QueueName, &str),
        request: ReceiveRequest,
        wait: TimeDelta,
    ) -> Result<Vec<Received>, PortError> {
        let most = i32::try_from(request.max.clamp(1, RECEIVE_MAX)).unwrap_or(1);
        let visibility = seconds_up(request.visibility).min(LEASE_SECONDS_MAX);
        let answer = self
            .client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(most)
            .visibility_timeout(to_i32(visibility))
            .wait_time_seconds(to_i32(seconds_up(wait).min(POLL_SECONDS_MAX)))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .customize()
            .config_override(
                aws_sdk_sqs::config::Builder::new().timeout_config(attempt_time(POLL_TIME_MAX)),
            )
            .send()
            .await
            .map_err(|error| self.failed("ReceiveMessage", ("receive from", queue), error))?;
        let now = Instant::now();
        let lease = Lease { url: url.to_owned(), received: now, until: now + seconds(visibility) };
        let received: Vec<Received> =
            answer.messages.unwrap_or_default().into_iter().filter_map(received).collect();
        let mut leases = locked(&self.leases);
        // What ran out and was never acked: its worker has let go of it, or is told so when it asks.
        leases.retain(|_, lease| lease.until > now);
        leases.extend(received.iter().map(|one| (one.receipt.clone(), lease.clone())));
        Ok(received)
    }

    /// The lease of a receipt, while it lasts.
    fn lease(&self, receipt: &Receipt) -> Result<Lease, PortError> {
        let lease = locked(&self.leases).get(receipt).cloned();
        lease.filter(|lease| lease.until > Instant::now()).ok_or_else(lease_lost)
    }

    /// What an error on a receipt means: SQS's several words for a handle that is no longer good, or a failed call.
    fn of_receipt<E>(
        &self,
        call: &str,
        receipt: &Receipt,
        error: SdkError<E, HttpResponse>,
    ) -> PortError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        // `InvalidParameterValue` is how SQS says "Message does not exist or is not available for visibility timeout change".
        let lost = matches!(
            code(&error),
            Some("MessageNotInflight" | "ReceiptHandleIsInvalid" | "InvalidParameterValue")
        );
        let failed =
            port_error(&format!("sqs:{call}"), "cannot change a message's lease in SQS", error);
        if lost {
            locked(&self.leases).remove(receipt);
            return lease_lost().because(failed);
        }
        failed
    }
}

#[async_trait]
impl JobQueue for SqsQueue {
    async fn send(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        self.send_all(queue, batch).await
    }

    /// A future that is dropped may leave messages under a lease that nobody holds: they come back when it runs out.
    async fn receive(
        &self,
        queue: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let url = self.url(queue).await?;
        let until = Instant::now() + request.wait.to_std().unwrap_or_default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = TimeDelta::from_std(left).unwrap_or_default();
            let received = self.receive_once((queue, &url), request, left).await?;
            if !received.is_empty() || Instant::now() >= until {
                return Ok(received);
            }
        }
    }

    async fn change_visibility(
        &self,
        receipt: &Receipt,
        visibility: TimeDelta,
    ) -> Result<(), PortError> {
        let lease = self.lease(receipt)?;
        let asked_at = Instant::now();
        // Q10: SQS refuses more than 12 h in all; what is left of them is given, and then the lease is over.
        let held = i64::try_from((asked_at - lease.received).as_secs()).unwrap_or(i64::MAX);
        let wanted = seconds_up(visibility).min(LEASE_SECONDS_MAX - held);
        if wanted < 0 || (wanted == 0 && visibility > TimeDelta::zero()) {
            return Err(lease_lost());
        }
        self.client
            .change_message_visibility()
            .queue_url(&lease.url)
            .receipt_handle(&receipt.0)
            .visibility_timeout(to_i32(wanted))
            .send()
            .await
            .map_err(|error| self.of_receipt("ChangeMessageVisibility", receipt, error))?;
        let mut leases = locked(&self.leases);
        if wanted == 0 {
            leases.remove(receipt);
        } else if let Some(known) = leases.get_mut(receipt) {
            // From when it was asked: SQS may have counted from later, never from earlier.
            known.until = asked_at + seconds(wanted);
        }
        Ok(())
    }

    /// In a standard queue SQS also takes an ack that comes too late; the lease's end, kept here, is what tells.
    async fn ack(&self, receipt: &Receipt) -> Result<(), PortError> {
        let lease = self.lease(receipt)?;
        self.client
            .delete_message()
            .queue_url(&lease.url)
            .receipt_handle(&receipt.0)
            .send()
            .await
            .map_err(|error| self.of_receipt("DeleteMessage", receipt, error))?;
        locked(&self.leases).remove(receipt);
        Ok(())
    }

    /// By `GetQueueAttributes` alone, never by receiving (Q16). SQS counts no ages, so `oldest_sent_at` stays open.
    async fn counts(&self, queue: &QueueName) -> Result<SeenQueue, PortError> {
        let url = self.url(queue).await?;
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            QueueAttributeName::RedrivePolicy,
        ];
        let found = self.attributes((queue, &url), &names).await?;
        let dead = match found.dead_letters()? {
            Some((dead, _)) => self.dead(queue, &dead).await?,
            None => 0,
        };
        Ok(SeenQueue {
            visible: found.count(&names[0])?,
            in_flight: found.count(&names[1])?,
            delayed: found.count(&names[2])?,
            dead,
            oldest_sent_at: None,
            empty_since: None,
        })
    }

    /// SQS moves them in its own time, after this has answered; the number is what it found dead at that moment.
    async fn redrive(&self, queue: &QueueName) -> Result<u64, PortError> {
        let dead = self.dead_letter_queue(queue).await?;
        let count = self.dead(queue, &dead).await?;
        if count == 0 {
            return Ok(0);
        }
        let moved = self.client.start_message_move_task().source_arn(&dead.arn).send().await;
        moved.map_err(|error| {
            let failed = self.failed("StartMessageMoveTask", ("redrive", queue), error);
            match failed.class {
                PortErrorClass::Denied | PortErrorClass::Throttled => failed,
                _ => failed.hint("a move may be under way already; else redrive them in the SQS console: \"Start DLQ redrive\""),
            }
        })?;
        Ok(count)
    }

    /// SQS takes up to a minute over it, and refuses a second one within that time.
    async fn purge(&self, queue: &QueueName, which: Purge) -> Result<u64, PortError> {
        let (url, count) = match which {
            Purge::Live => {
                let seen = self.counts(queue).await?;
                (self.url(queue).await?, seen.visible + seen.in_flight + seen.delayed)
            }
            Purge::Dead => {
                let dead = self.dead_letter_queue(queue).await?;
                let count = self.dead(queue, &dead).await?;
                (self.url_of(queue, &dead).await?, count)
            }
        };
        self.client.purge_queue().queue_url(url).send().await.map_err(|error| {
            let failed = self.failed("PurgeQueue", ("purge", queue), error);
            match failed.class {
                PortErrorClass::Conflict => failed.hint("SQS purges once a minute: wait for it"),
                _ => failed,
            }
        })?;
        Ok(count)
    }
}

/// A message as the port has it; one without handle or text is no message.
fn received(message: Message) -> Option<Received> {
    let system = |name| message.attributes.as_ref()?.get(&name)?.parse::<i64>().ok();
    let count = system(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
    let sent = system(MessageSystemAttributeName::SentTimestamp).unwrap_or_default();
    let named = message.message_attributes.unwrap_or_default();
    let mut attributes: Vec<(String, String)> =
        named.into_iter().filter_map(|(name, value)| Some((name, value.string_value?))).collect();
    attributes.sort();
    Some(Received {
        receipt: Receipt(message.receipt_handle?),
        body: message.body?,
        attributes,
        receive_count: u32::try_from(count).unwrap_or(1),
        sent_at: Timestamp::from_timestamp_millis(sent).unwrap_or_default(),
    })
}

fn lease_lost() -> PortError {
    PortError::new(
        PortErrorClass::LeaseLost,
        "the lease on the message has run out, and another worker may have it",
    )
}

/// Whole seconds, as SQS has them, and never fewer than asked for.
fn seconds_up(span: TimeDelta) -> i64 {
    let whole = span.num_seconds();
    (whole + i64::from(span > TimeDelta::seconds(whole))).max(0)
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs())
}

fn to_i32(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_whole_seconds_and_never_shorter() {
        for (millis, wanted) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (-5, 0)] {
            assert_eq!(seconds_up(TimeDelta::milliseconds(millis)), wanted, "{millis} ms");
        }
    }
}
