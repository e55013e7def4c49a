//! SQS behind `JobQueue`.
//!
//! What SQS does not guarantee: a send of several messages may succeed in part, counts are approximate, no count tells the oldest
//! message's age, and a standard queue does not report a lost lease. So the end of each lease is kept here, by this process's
//! monotonic clock: after it, a receipt is `LeaseLost` without a call.

mod batch;
mod bury;
mod describe;
mod send;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::receive_message::{ReceiveMessageError, ReceiveMessageOutput};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use chrono::TimeDelta;
use gpuctl_control::ports::{
    JobQueue, NewMessage, PortError, PortErrorClass, Purge, Receipt, ReceiveRequest, Received,
};
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::units::{QueueName, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::{Aws, attempt_time};
use crate::error::port_error;

pub use describe::{DeadLetters, QueueFacts, Retention};

/// Messages in one receive.
const RECEIVE_MAX: u32 = 10;
/// The most receives side by side, after one that returned as many messages as it may.
const RECEIVES_MAX: u32 = 12;
/// How long these may take: who waits for the first one's messages must not give up.
const MORE_TIME_MAX: Duration = Duration::from_secs(5);
/// And no longer than this part of the leases.
const MORE_TIME_PART: u32 = 6;

/// What a receive returned.
type Answer = Result<ReceiveMessageOutput, SdkError<ReceiveMessageError, HttpResponse>>;

/// SQS's longest long poll; a longer wait is several polls.
const POLL_SECONDS_MAX: i64 = 20;

/// How long the call of one long poll may take.
const POLL_TIME_MAX: Duration = Duration::from_secs(25);

/// How long a lease may last in all since its receive: 12 h, less 5 s, since SQS measures them from its own receive time and
/// rejects 43,200 s right after it (SQS API Reference, `ChangeMessageVisibility`).
const LEASE_SECONDS_MAX: i64 = 43_195;

/// The queues of one account and region. Cloning is not needed: share it by `Arc`, since it holds the leases.
pub struct SqsQueue {
    client: Client,
    region: String,
    urls: Mutex<HashMap<QueueName, String>>,
    /// Dead-letter queues' URLs, by ARN.
    dead_urls: Mutex<HashMap<String, String>>,
    leases: Mutex<HashMap<Receipt, Lease>>,
    /// Ids of messages that were sent to the dead letters and not deleted yet, the oldest first: they only have to be deleted, whatever
    /// the receipt of a later delivery.
    buried: Mutex<VecDeque<String>>,
    /// How long each queue keeps messages, as read with its counts.
    retentions: Mutex<HashMap<QueueName, Retention>>,
}

/// A queue's name, for messages, with its URL, for calls.
struct Located<'a> {
    queue: &'a QueueName,
    url: &'a str,
}

/// The lease of a message that this process has received.
#[derive(Clone)]
struct Lease {
    url: String,
    received: Instant,
    until: Instant,
    /// Equal for each delivery of the message.
    message_id: String,
}

impl SqsQueue {
    /// Nothing is called yet.
    #[must_use]
    pub fn new(aws: &Aws) -> Self {
        Self {
            client: aws.sqs(),
            region: aws.region().to_owned(),
            urls: Mutex::default(),
            dead_urls: Mutex::default(),
            leases: Mutex::default(),
            buried: Mutex::default(),
            retentions: Mutex::default(),
        }
    }

    /// The queue's URL, looked up once; a queue may also be named by its URL.
    async fn url(&self, queue: &QueueName) -> Result<String, PortError> {
        if queue.as_str().contains("://") {
            return Ok(queue.to_string());
        }
        if let Some(url) = locked(&self.urls).get(queue) {
            return Ok(url.clone());
        }
        let answer = self.client.get_queue_url().queue_name(queue.as_str()).send().await;
        let answer = answer.map_err(|error| self.failed("GetQueueUrl", "find", queue, error))?;
        let url = answer.queue_url().unwrap_or_default().to_owned();
        locked(&self.urls).insert(queue.clone(), url.clone());
        Ok(url)
    }

    /// Classifies the error of a call on a queue; `verb` completes "cannot … the queue". If the queue does not exist, its URL is
    /// looked up anew by the next call.
    fn failed<E>(
        &self,
        call: &str,
        verb: &str,
        queue: &QueueName,
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
            "there is no such queue in {}: check `queue` in gpuctl.toml, region and account",
            self.region
        ))
    }

    async fn receive_once(
        &self,
        located: &Located<'_>,
        request: ReceiveRequest,
        wait: TimeDelta,
    ) -> Result<Vec<Received>, PortError> {
        let answer = self.receive_call(located, request, wait).await;
        let answer = answer
            .map_err(|error| self.failed("ReceiveMessage", "receive from", located.queue, error))?;
        Ok(self.hold(located, request, answer))
    }

    fn receive_call(
        &self,
        located: &Located<'_>,
        request: ReceiveRequest,
        wait: TimeDelta,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let most = i32::try_from(request.max.clamp(1, RECEIVE_MAX)).unwrap_or(1);
        let visibility = seconds_up(request.visibility).min(LEASE_SECONDS_MAX);
        self.client
            .receive_message()
            .queue_url(located.url)
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
    }

    /// Notes the leases of what was received.
    fn hold(
        &self,
        located: &Located<'_>,
        request: ReceiveRequest,
        answer: ReceiveMessageOutput,
    ) -> Vec<Received> {
        let visibility = seconds_up(request.visibility).min(LEASE_SECONDS_MAX);
        let now = Instant::now();
        let mut leases = locked(&self.leases);
        // Leases that ran out: who still asks about one gets `LeaseLost`.
        leases.retain(|_, lease| lease.until > now);
        let mut all = Vec::new();
        for message in answer.messages.unwrap_or_default() {
            let message_id = message.message_id.clone().unwrap_or_default();
            let Some(one) = received(message) else { continue };
            let (url, until) = (located.url.to_owned(), now + seconds(visibility));
            leases.insert(one.receipt.clone(), Lease { url, received: now, until, message_id });
            all.push(one);
        }
        all
    }

    /// What one call returned, with what others return at once if it returned as many as it may: then there are more, as a rule. What fails
    /// here costs none of the messages that have come.
    async fn and_more(
        &self,
        located: &Located<'_>,
        request: ReceiveRequest,
        mut received: Vec<Received>,
    ) -> Vec<Received> {
        let count = u32::try_from(received.len()).unwrap_or(u32::MAX);
        if count < RECEIVE_MAX {
            return received;
        }
        let left = request.max.saturating_sub(count);
        let part = |call: u32| left.saturating_sub(call * RECEIVE_MAX).min(RECEIVE_MAX);
        let mut calls = JoinSet::new();
        for max in (0..RECEIVES_MAX).map(part).take_while(|&max| max > 0) {
            let request = ReceiveRequest { max, ..request };
            calls.spawn(self.receive_call(located, request, TimeDelta::zero()));
        }
        // The first one's leases are not extended yet.
        let lease = request.visibility.to_std().unwrap_or_default();
        let until = Instant::now() + MORE_TIME_MAX.min(lease / MORE_TIME_PART);
        loop {
            match timeout_at(until, calls.join_next()).await {
                Ok(Some(Ok(Ok(answer)))) => received.extend(self.hold(located, request, answer)),
                Ok(Some(Ok(Err(error)))) => {
                    let error = self.failed("ReceiveMessage", "receive from", located.queue, error);
                    tracing::warn!(%error, "one of several receives failed");
                }
                Ok(Some(Err(_))) => {}
                Ok(None) => return received,
                Err(_) => {
                    tracing::warn!("one of several receives took too long");
                    tokio::spawn(give_back(self.client.clone(), located.url.to_owned(), calls));
                    return received;
                }
            }
        }
    }

    /// The lease of a receipt; `LeaseLost` after its end.
    fn lease(&self, receipt: &Receipt) -> Result<Lease, PortError> {
        let lease = locked(&self.leases).get(receipt).cloned();
        lease.filter(|lease| lease.until > Instant::now()).ok_or_else(lease_lost)
    }
}

/// Makes visible again what receives return that no one waits for any more.
async fn give_back(client: Client, url: String, mut calls: JoinSet<Answer>) {
    while let Some(answered) = calls.join_next().await {
        let Ok(Ok(answer)) = answered else { continue };
        for message in answer.messages.unwrap_or_default() {
            let call = client.change_message_visibility().queue_url(&url).visibility_timeout(0);
            let given_back = call.set_receipt_handle(message.receipt_handle).send().await;
            if let Err(error) = given_back {
                tracing::debug!(?error, "a message stays hidden until its lease ends");
            }
        }
    }
}

#[async_trait]
impl JobQueue for SqsQueue {
    async fn send(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        self.send_all(queue, batch).await
    }

    /// If the future is dropped, messages may be left under a lease that no one holds: they become visible when it ends.
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
            let received = self.receive_once(&Located { queue, url: &url }, request, left).await?;
            if received.is_empty() && Instant::now() < until {
                continue;
            }
            return Ok(self.and_more(&Located { queue, url: &url }, request, received).await);
        }
    }

    async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>> {
        self.change_all(receipts, visibility).await
    }

    /// A standard queue also accepts an ack that comes too late; the lease's end, kept here, rejects it.
    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        self.delete_all(receipts).await
    }

    async fn bury(
        &self,
        queue: &QueueName,
        message: &Received,
        reason: &str,
    ) -> Result<(), PortError> {
        self.send_to_dead_letters(queue, message, reason).await
    }

    /// By `GetQueueAttributes`, never by receiving (Q16). SQS tells no ages, so `oldest_sent_at` is `None`.
    async fn counts(&self, queue: &QueueName) -> Result<SeenQueue, PortError> {
        let url = self.url(queue).await?;
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            QueueAttributeName::RedrivePolicy,
            QueueAttributeName::MessageRetentionPeriod,
        ];
        let found = self.attributes(&Located { queue, url: &url }, &names).await?;
        let dead = match found.dead_letters()? {
            Some((dead, _)) => Some(self.dead(queue, &dead).await?),
            None => None,
        };
        // Also if SQS does not say how long it keeps messages, their number counts.
        if let Ok(live) = found.span(&names[4]) {
            let dead = dead.as_ref().and_then(|dead| dead.retention);
            locked(&self.retentions).insert(queue.clone(), Retention { live, dead });
        }
        Ok(SeenQueue {
            visible: found.count(&names[0])?,
            in_flight: found.count(&names[1])?,
            delayed: found.count(&names[2])?,
            dead: dead.map_or(0, |dead| dead.count),
            oldest_sent_at: None,
            empty_since: None,
        })
    }

    /// SQS moves the messages after this returns; the number is that of dead messages before.
    async fn redrive(&self, queue: &QueueName) -> Result<u64, PortError> {
        let dead = self.dead_letter_queue(queue).await?;
        let count = self.dead(queue, &dead).await?.count;
        if count == 0 {
            return Ok(0);
        }
        // Q19: a buried message was sent to the dead letters, and SQS knows no queue that it came from: so the queue is named.
        let destination = self.only_source(queue, &dead).await?;
        let call = self.client.start_message_move_task().source_arn(&dead.arn);
        let moved = call.set_destination_arn(destination).send().await;
        moved.map_err(|error| {
            let failed = self.failed("StartMessageMoveTask", "redrive", queue, error);
            match failed.class {
                PortErrorClass::Denied | PortErrorClass::Throttled => failed,
                _ => failed.hint("a redrive may be running already; otherwise use \"Start DLQ redrive\" in the SQS console"),
            }
        })?;
        Ok(count)
    }

    /// SQS takes up to a minute, and rejects a second purge within that time.
    async fn purge(&self, queue: &QueueName, which: Purge) -> Result<u64, PortError> {
        let (url, count) = match which {
            Purge::Live => {
                let seen = self.counts(queue).await?;
                (self.url(queue).await?, seen.visible + seen.in_flight + seen.delayed)
            }
            Purge::Dead => {
                let dead = self.dead_letter_queue(queue).await?;
                let count = self.dead(queue, &dead).await?.count;
                (self.url_of(queue, &dead).await?, count)
            }
        };
        self.client.purge_queue().queue_url(url).send().await.map_err(|error| {
            let failed = self.failed("PurgeQueue", "purge", queue, error);
            match failed.class {
                PortErrorClass::Conflict => failed.hint("SQS purges once a minute: wait for it"),
                _ => failed,
            }
        })?;
        Ok(count)
    }
}

/// A message of SQS as one of the port's; `None` without a handle or a body.
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

/// In whole seconds, which SQS requires, rounded up.
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
    fn durations_are_rounded_up_to_whole_seconds() {
        for (millis, wanted) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (-5, 0)] {
            assert_eq!(seconds_up(TimeDelta::milliseconds(millis)), wanted, "{millis} ms");
        }
    }
}
