//! The queue.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::ports::{
    JobQueue, NewMessage, PortError, Purge, Receipt, ReceiveRequest, Received,
};
use gpuctl_core::observation::SeenQueue;
use gpuctl_core::units::QueueName;
use tokio::time::Instant;

use super::{Call, State, World};

#[async_trait]
impl JobQueue for World {
    async fn send(&self, _: &QueueName, batch: &[NewMessage]) -> Result<(), PortError> {
        batch.iter().for_each(|message| self.send(&message.body));
        Ok(())
    }

    async fn receive(
        &self,
        _: &QueueName,
        request: ReceiveRequest,
    ) -> Result<Vec<Received>, PortError> {
        let end = Instant::now() + request.wait.to_std().unwrap();
        loop {
            self.check(Call::Receive)?;
            let received = self.take(request);
            if !received.is_empty() || Instant::now() >= end {
                return Ok(received);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: TimeDelta,
    ) -> Vec<Result<(), PortError>> {
        if visibility.is_zero() {
            self.state().releases.extend_from_slice(receipts);
        }
        let changes = receipts.iter().map(|receipt| {
            self.check(Call::Change)?;
            self.state().held(receipt).map(|_| receipt.clone())
        });
        let changes: Vec<Result<Receipt, PortError>> = changes.collect();
        let (world, changed) = (self.clone(), changes.iter().flatten().cloned().collect());
        // It goes on although its caller no longer waits for it, as a request that was sent does.
        tokio::spawn(async move { world.change(changed, visibility).await }).await.unwrap();
        changes.into_iter().map(|change| change.map(drop)).collect()
    }

    async fn give_back(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        for receipt in receipts {
            if let Ok(message) = self.state().held(receipt) {
                message.receives -= 1;
            }
        }
        self.change_visibility(receipts, TimeDelta::zero()).await
    }

    async fn ack(&self, receipts: &[Receipt]) -> Vec<Result<(), PortError>> {
        let ack = |receipt: &Receipt| {
            self.check(Call::Ack)?;
            let mut state = self.state();
            state.acks.push(receipt.clone());
            state.held(receipt)?;
            state.messages.retain(|one| one.receipt.as_ref() != Some(receipt));
            Ok(())
        };
        receipts.iter().map(ack).collect()
    }

    async fn bury(&self, _: &QueueName, message: &Received, why: &str) -> Result<(), PortError> {
        self.state().held(&message.receipt)?.dead = Some(why.to_owned());
        Ok(())
    }

    async fn counts(&self, _: &QueueName) -> Result<SeenQueue, PortError> {
        self.check(Call::Receive)?;
        Ok(SeenQueue { visible: self.visible() as u64, ..SeenQueue::default() })
    }

    async fn redrive(&self, _: &QueueName) -> Result<u64, PortError> {
        unreachable!("a worker brings nothing back")
    }

    async fn purge(&self, _: &QueueName, _: Purge) -> Result<u64, PortError> {
        unreachable!("a worker purges nothing")
    }
}

impl World {
    /// Carries out a change whose receipts were valid when it arrived, perhaps after one that arrived later.
    async fn change(&self, receipts: Vec<Receipt>, visibility: TimeDelta) {
        let is_extension = visibility > TimeDelta::zero();
        let takes = {
            let mut state = self.state();
            state.is_extending |= is_extension;
            state.change_takes + if is_extension { state.extension_takes } else { Duration::ZERO }
        };
        tokio::time::sleep(takes).await;
        let mut state = self.state();
        state.is_extending &= !is_extension;
        for message in &mut state.messages {
            if message.receipt.as_ref().is_some_and(|receipt| receipts.contains(receipt)) {
                message.visible_at = Instant::now() + visibility.to_std().unwrap();
            }
        }
    }

    fn take(&self, request: ReceiveRequest) -> Vec<Received> {
        let (mut state, now) = (self.state(), Instant::now());
        let State { messages, receipts, .. } = &mut *state;
        let mut received = Vec::new();
        for message in messages.iter_mut() {
            if message.dead.is_some() || message.visible_at > now {
                continue;
            }
            if message.receives >= self.receives_max {
                message.dead = Some("received too often".to_owned());
                continue;
            }
            if received.len() == request.max as usize {
                break;
            }
            *receipts += 1;
            let receipt = Receipt(receipts.to_string());
            message.receives += 1;
            message.receipt = Some(receipt.clone());
            message.visible_at = now + request.visibility.to_std().unwrap();
            received.push(Received {
                receipt,
                body: message.body.clone(),
                attributes: Vec::new(),
                receive_count: message.receives,
                sent_at: message.sent_at,
            });
        }
        let held = messages.iter().filter(|one| one.visible_at > now && one.dead.is_none()).count();
        state.held_max = state.held_max.max(held);
        received
    }
}
