//! Several queues behind one, a lane for each priority: for services whose queues know no priorities.
//!
//! Who names the queue of a pool reaches all its lanes. Where a lane is missing, a message of its priority is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::policy::Policy;
use gpuctl_core::priority::Priority;
use gpuctl_core::units::QueueName;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ports::{
    DeadLetter, JobQueue, NewMessage, PortError, PortErrorClass, Purge, Receipt, ReceiveRequest,
    Received,
};

/// How long one lane is waited for while all are empty: the others are looked at in between.
const LANE_WAIT_MAX: TimeDelta = TimeDelta::seconds(1);

/// Queues with their lanes.
pub struct Lanes {
    queue: Arc<dyn JobQueue>,
    /// By the name of a pool's queue, which is the lane of the normal priority.
    lanes: BTreeMap<QueueName, BTreeMap<Priority, QueueName>>,
    /// How many messages this process has received while several lanes were looked at.
    given_out: AtomicU64,
}

impl Lanes {
    /// The queues of the policy's pools.
    #[must_use]
    pub fn new(queue: Arc<dyn JobQueue>, policy: &Policy) -> Self {
        let lanes = policy.queue_pools().map(|(_, queue)| {
            let lanes = queue.lanes().map(|(priority, name)| (priority, name.clone()));
            (queue.name.clone(), lanes.collect())
        });
        Self { queue, lanes: lanes.collect(), given_out: AtomicU64::new(0) }
    }

    /// The lanes of a queue, the highest priority first.
    fn of<'a>(&'a self, queue: &'a QueueName) -> Vec<&'a QueueName> {
        self.lanes.get(queue).map_or_else(|| vec![queue], |lanes| lanes.values().collect())
    }

    fn lane<'a>(
        &'a self,
        queue: &'a QueueName,
        priority: Priority,
    ) -> Result<&'a QueueName, PortError> {
        let lane = match self.lanes.get(queue) {
            Some(lanes) => lanes.get(&priority),
            None => (priority == Priority::Normal).then_some(queue),
        };
        lane.ok_or_else(|| unserved(queue, priority))
    }

    /// What can be received at once: as each priority's turn comes, then whatever is there. What fails costs none of those that have come.
    async fn take(
        &self,
        lanes: &BTreeMap<Priority, QueueName>,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let given_out = self.given_out.load(Ordering::Relaxed);
        let waiting =
            Priority::ALL.map(|one| if lanes.contains_key(&one) { request.max } else { 0 });
        let shares = Priority::shares(given_out, request.max, waiting);
        let first = Priority::order(given_out);
        let turns = first.iter().map(|one| (*one, shares[*one as usize]));
        let rest = first.iter().map(|one| (*one, request.max));
        let mut taken: Vec<Received> = Vec::new();
        for (priority, share) in turns.chain(rest) {
            let left =
                request.max - u32::try_from(taken.len()).unwrap_or(request.max).min(request.max);
            let max = share.min(left);
            let Some(lane) = lanes.get(&priority).filter(|_| max > 0) else { continue };
            let one = ReceiveRequest { max, wait: TimeDelta::zero(), ..request };
            match self.queue.receive(lane, one).await {
                Ok(received) => taken.extend(received),
                Err(error) if taken.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "one of several receives failed");
                    break;
                }
            }
        }
        self.given_out.fetch_add(taken.len() as u64, Ordering::Relaxed);
        Ok(taken)
    }
}

/// The attribute of a message whose priority is not the normal one.
pub const PRIORITY_ATTRIBUTE: &str = "priority";

/// The priority that a message's attributes name; the normal one where they name none that is known.
#[must_use]
pub fn priority_of(attributes: &[(String, String)]) -> Priority {
    let named = attributes.iter().find(|(name, _)| name == PRIORITY_ATTRIBUTE);
    named.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}

/// The failure of a priority that has no queue.
#[must_use]
pub fn unserved(queue: &QueueName, priority: Priority) -> PortError {
    let what = format!("the pool of queue `{queue}` takes no jobs of priority {priority}");
    PortError::new(PortErrorClass::NotFound, what).hint(format!(
        "name a queue for them in the pool, e.g. `queue_{priority} = \"jobs-{priority}\"`, or submit with the priority normal"
    ))
}

#[async_trait]
impl JobQueue for Lanes {
    async fn send(&self, queue: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        let mut by_lane: BTreeMap<&QueueName, Vec<NewMessage>> = BTreeMap::new();
        for message in batch {
            let lane = self.lane(queue, priority_of(&message.attributes))?;
            by_lane.entry(lane).or_default().push(message.clone());
        }
        for (lane, messages) in by_lane {
            self.queue.send(lane, &messages).await?;
        }
        Ok(())
    }

    async fn receive(
        &self,
        queue: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let Some(lanes) = self.lanes.get(queue).filter(|lanes| lanes.len() > 1) else {
            return self.queue.receive(queue, request).await;
        };
        let until = Instant::now() + request.wait.to_std().unwrap_or_default();
        let mut received = self.take(lanes, request).await?;
        for lane in lanes.values().cycle() {
            let left = until.saturating_duration_since(Instant::now());
            let wait = TimeDelta::from_std(left).unwrap_or_default().min(LANE_WAIT_MAX);
            if !received.is_empty() || wait <= TimeDelta::zero() {
                break;
            }
            received = self.queue.receive(lane, ReceiveRequest { wait, ..request }).await?;
        }
        Ok(received)
    }

    async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>> {
        self.queue.change_visibility(receipts, visibility).await
    }

    async fn give_back(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        self.queue.give_back(receipts).await
    }

    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        self.queue.ack(receipts).await
    }

    async fn bury(
        &self,
        queue: &QueueName,
        message: &Received,
        reason: &str,
    ) -> Result<(), PortError> {
        let lane = self.lane(queue, priority_of(&message.attributes));
        self.queue.bury(lane.unwrap_or(queue), message, reason).await
    }

    async fn counts(&self, queue: &QueueName) -> Result<SeenQueue, PortError> {
        let mut counts = JoinSet::new();
        for lane in self.of(queue) {
            let (queue, lane) = (Arc::clone(&self.queue), lane.clone());
            counts.spawn(async move { queue.counts(&lane).await });
        }
        let mut all = SeenQueue::default();
        for seen in counts.join_all().await {
            let seen = seen?;
            all.visible += seen.visible;
            all.in_flight += seen.in_flight;
            all.delayed += seen.delayed;
            all.dead += seen.dead;
            all.oldest_sent_at = all.oldest_sent_at.into_iter().chain(seen.oldest_sent_at).min();
        }
        Ok(all)
    }

    async fn redrive(&self, queue: &QueueName) -> Result<u64, PortError> {
        let mut moved = 0;
        for lane in self.of(queue) {
            moved += self.queue.redrive(lane).await?;
        }
        Ok(moved)
    }

    async fn dead_letters(
        &self,
        queue: &QueueName,
        limit: u32,
    ) -> Result<Option<Vec<DeadLetter>>, PortError> {
        let mut all = Vec::new();
        for lane in self.of(queue) {
            let Some(letters) = self.queue.dead_letters(lane, limit).await? else {
                return Ok(None);
            };
            all.extend(letters);
        }
        all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Some(all))
    }

    async fn purge(&self, queue: &QueueName, which: Purge) -> Result<u64, PortError> {
        let mut deleted = 0;
        for lane in self.of(queue) {
            deleted += self.queue.purge(lane, which).await?;
        }
        Ok(deleted)
    }
}
