//! SQS in simulated time: at-least-once delivery, visibility timeouts, dead letters.
//!
//! The state here is exact, for the checks. Wrong counts, duplicates and errors are added by `ports`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::TimeDelta;
use gpuctl_control::ports::{
    NewMessage, PortError, PortErrorClass, Purge, Receipt, ReceiveRequest, Received,
};
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::units::Timestamp;

use crate::chance::Chance;

/// The longest lease after a receive, extensions included (Q10).
const LEASE_MAX: TimeDelta = TimeDelta::hours(12);
/// How long past counts are kept, for counts that lag.
const COUNTS_KEPT: TimeDelta = TimeDelta::minutes(5);

/// One queue and its dead letters.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    messages: BTreeMap<u64, Message>,
    /// The message of each receipt; a later receive of the message makes the receipt invalid.
    receipts: BTreeMap<String, u64>,
    receives_max: u32,
    sent: u64,
    /// Messages that were deleted because of their age, by their job and generation.
    expired: BTreeSet<(String, u32)>,
    /// Past counts, oldest first.
    past: VecDeque<(Timestamp, SeenQueue)>,
    names: Chance,
}

#[derive(Clone, Debug)]
struct Message {
    body: String,
    attributes: Vec<(String, String)>,
    sent_at: Timestamp,
    visible_at: Timestamp,
    lease: Option<Lease>,
    receive_count: u32,
    dead: bool,
}

#[derive(Clone, Debug)]
struct Lease {
    receipt: String,
    since: Timestamp,
    /// The process that received it.
    holder: u64,
}

impl Message {
    /// Its job and generation; the attributes are those that a sender gives.
    fn names(&self, job: &str, generation: u32) -> bool {
        let is = |name: &str| self.attributes.iter().find(|(known, _)| known == name);
        is("job_id").is_some_and(|(_, value)| value == job)
            && is("generation").map_or(0, |(_, value)| value.parse().unwrap_or(0)) == generation
    }

    fn name(&self) -> (String, u32) {
        let of = |name: &str| {
            let found = self.attributes.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        (of("job_id"), of("generation").parse().unwrap_or(0))
    }
}

/// The state of a job's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageState {
    Waiting,
    InFlight,
    /// With the number of its receives.
    Dead(u32),
    /// Deleted because of its age.
    Expired,
    Deleted,
}

impl Queue {
    pub(crate) fn new(receives_max: u32, seed: u64) -> Self {
        Self {
            messages: BTreeMap::new(),
            receipts: BTreeMap::new(),
            receives_max,
            sent: 0,
            expired: BTreeSet::new(),
            past: VecDeque::new(),
            names: Chance::stream(seed, "receipts"),
        }
    }

    pub(crate) fn send(&mut self, now: Timestamp, batch: &[NewMessage]) {
        for message in batch {
            self.sent += 1;
            let message = Message {
                body: message.body.clone(),
                attributes: message.attributes.clone(),
                sent_at: now,
                visible_at: now + message.delay,
                lease: None,
                receive_count: 0,
                dead: false,
            };
            self.messages.insert(self.sent, message);
        }
        self.remember_counts(now);
    }

    /// Receives visible messages for a process, oldest first, and moves those over the limit of receives to the dead letters.
    pub(crate) fn receive(
        &mut self,
        now: Timestamp,
        request: ReceiveRequest,
        holder: u64,
    ) -> Vec<Received> {
        let most = self.receives_max;
        let ready = |message: &Message| !message.dead && message.visible_at <= now;
        for message in self.messages.values_mut() {
            if ready(message) && message.receive_count >= most {
                message.dead = true;
                message.lease = None;
            }
        }
        let ready: Vec<u64> = self
            .messages
            .iter()
            .filter(|(_, message)| ready(message))
            .map(|(id, _)| *id)
            .take(request.max as usize)
            .collect();
        let mut taken = Vec::new();
        for id in ready {
            let receipt = format!("{:016x}", self.names.bits());
            let Some(message) = self.messages.get_mut(&id) else { continue };
            message.receive_count += 1;
            message.visible_at = now + request.visibility;
            let lease = Lease { receipt: receipt.clone(), since: now, holder };
            if let Some(old) = message.lease.replace(lease) {
                self.receipts.remove(&old.receipt);
            }
            taken.push(Received {
                receipt: Receipt(receipt.clone()),
                body: message.body.clone(),
                attributes: message.attributes.clone(),
                receive_count: message.receive_count,
                sent_at: message.sent_at,
            });
            self.receipts.insert(receipt, id);
        }
        if !taken.is_empty() {
            self.remember_counts(now);
        }
        taken
    }

    /// Makes a held message visible although its lease is not over (Q9).
    pub(crate) fn duplicate(&mut self, now: Timestamp, receipt: &Receipt) {
        if let Some(message) = self.held(receipt) {
            message.visible_at = now;
        }
    }

    pub(crate) fn change_visibility(
        &mut self,
        now: Timestamp,
        receipt: &Receipt,
        visibility: TimeDelta,
    ) -> Result<(), PortError> {
        let message = self.held(receipt).ok_or_else(lease_lost)?;
        if visibility <= TimeDelta::zero() {
            message.lease = None;
            message.visible_at = now;
            self.receipts.remove(&receipt.0);
            self.remember_counts(now);
            return Ok(());
        }
        let received_at = message.lease.as_ref().map_or(now, |lease| lease.since);
        if now + visibility > received_at + LEASE_MAX {
            let text =
                "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]";
            return Err(PortError::new(PortErrorClass::Other, text));
        }
        message.visible_at = now + visibility;
        Ok(())
    }

    pub(crate) fn ack(&mut self, now: Timestamp, receipt: &Receipt) -> Result<(), PortError> {
        let id = self.receipts.remove(&receipt.0).ok_or_else(lease_lost)?;
        self.messages.remove(&id);
        self.remember_counts(now);
        Ok(())
    }

    pub(crate) fn bury(&mut self, now: Timestamp, receipt: &Receipt) -> Result<(), PortError> {
        let message = self.held(receipt).ok_or_else(lease_lost)?;
        (message.dead, message.lease) = (true, None);
        self.receipts.remove(&receipt.0);
        self.remember_counts(now);
        Ok(())
    }

    /// Deletes messages that were sent before this, also held ones, as SQS does. Returns whether there were any.
    pub(crate) fn expire(&mut self, now: Timestamp, before: Timestamp) -> bool {
        let old = |message: &Message| message.sent_at < before && !message.dead;
        let names: Vec<_> =
            self.messages.values().filter(|one| old(one)).map(Message::name).collect();
        if names.is_empty() {
            return false;
        }
        self.messages.retain(|_, message| !old(message));
        let messages = &self.messages;
        self.receipts.retain(|_, id| messages.contains_key(id));
        self.expired.extend(names);
        self.remember_counts(now);
        true
    }

    pub(crate) fn redrive(&mut self, now: Timestamp) -> u64 {
        let mut moved = 0;
        for message in self.messages.values_mut().filter(|message| message.dead) {
            (message.dead, message.receive_count) = (false, 0);
            (message.sent_at, message.visible_at) = (now, now);
            moved += 1;
        }
        self.remember_counts(now);
        moved
    }

    pub(crate) fn purge(&mut self, now: Timestamp, which: Purge) -> u64 {
        let before = self.messages.len();
        self.messages.retain(|_, message| message.dead != (which == Purge::Dead));
        let messages = &self.messages;
        self.receipts.retain(|_, id| messages.contains_key(id));
        self.remember_counts(now);
        u64::try_from(before - self.messages.len()).unwrap_or(u64::MAX)
    }

    /// The exact counts.
    pub(crate) fn counts(&self, now: Timestamp) -> SeenQueue {
        let mut seen = SeenQueue::default();
        for message in self.messages.values() {
            if message.dead {
                seen.dead += 1;
            } else if message.visible_at <= now {
                seen.visible += 1;
                let oldest =
                    seen.oldest_sent_at.map_or(message.sent_at, |at| at.min(message.sent_at));
                seen.oldest_sent_at = Some(oldest);
            } else if message.lease.is_some() {
                seen.in_flight += 1;
            } else {
                seen.delayed += 1;
            }
        }
        seen
    }

    /// The counts of `lag` ago.
    pub(crate) fn counts_before(&self, now: Timestamp, lag: TimeDelta) -> SeenQueue {
        let then = self.past.iter().rev().find(|(at, _)| *at <= now - lag);
        then.map_or_else(SeenQueue::default, |(_, seen)| seen.clone())
    }

    /// When the next message becomes visible without a call.
    pub(crate) fn next_visible(&self, now: Timestamp) -> Option<Timestamp> {
        let ahead = self.messages.values().filter(|one| !one.dead && one.visible_at > now);
        ahead.map(|one| one.visible_at).min()
    }

    /// The body of the message under this receipt.
    pub(crate) fn body(&self, receipt: &Receipt) -> Option<&str> {
        let id = self.receipts.get(&receipt.0)?;
        self.messages.get(id).map(|message| message.body.as_str())
    }

    /// The state of the message of a generation of a job.
    pub(crate) fn message_state(&self, now: Timestamp, job: &str, generation: u32) -> MessageState {
        match self.message(job, generation) {
            Some(message) if message.dead => MessageState::Dead(message.receive_count),
            Some(message) if message.lease.is_some() && message.visible_at > now => {
                MessageState::InFlight
            }
            Some(_) => MessageState::Waiting,
            None if self.expired.contains(&(job.to_owned(), generation)) => MessageState::Expired,
            None => MessageState::Deleted,
        }
    }

    /// The messages that these processes hold, by job and generation.
    pub(crate) fn held_by(
        &self,
        now: Timestamp,
        holders: &[u64],
    ) -> impl Iterator<Item = (String, u32)> {
        let held = move |message: &&Message| {
            message.visible_at > now
                && message.lease.as_ref().is_some_and(|lease| holders.contains(&lease.holder))
        };
        self.messages.values().filter(held).map(Message::name)
    }

    fn message(&self, job: &str, generation: u32) -> Option<&Message> {
        self.messages.values().find(|message| message.names(job, generation))
    }

    fn held(&mut self, receipt: &Receipt) -> Option<&mut Message> {
        let id = self.receipts.get(&receipt.0)?;
        let message = self.messages.get_mut(id)?;
        let mine = message.lease.as_ref().is_some_and(|lease| lease.receipt == receipt.0);
        mine.then_some(message)
    }

    fn remember_counts(&mut self, now: Timestamp) {
        while self.past.get(1).is_some_and(|(at, _)| *at < now - COUNTS_KEPT) {
            self.past.pop_front();
        }
        let seen = self.counts(now);
        self.past.push_back((now, seen));
    }
}

fn lease_lost() -> PortError {
    PortError::new(
        PortErrorClass::LeaseLost,
        "the lease on the message has run out, and another worker may have it",
    )
}
