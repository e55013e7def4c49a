//! Events to come, ordered by time, then kind, then insertion, so that a run repeats exactly.

use std::collections::BTreeMap;

use gpuctl_core::units::Timestamp;

/// Events to come.
#[derive(Clone, Debug)]
pub(crate) struct EventQueue<E> {
    events: BTreeMap<(Timestamp, u8, u64), E>,
    sequence: u64,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), sequence: 0 }
    }
}

impl<E> EventQueue<E> {
    /// Adds an event; at one instant the lower kind comes first.
    pub(crate) fn add(&mut self, at: Timestamp, kind: u8, event: E) {
        self.sequence += 1;
        self.events.insert((at, kind, self.sequence), event);
    }

    /// Removes the next event if it is due, and returns it with its time.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, E)> {
        let first = self.events.first_entry().filter(|entry| entry.key().0 <= now)?;
        let at = first.key().0;
        Some((at, first.remove()))
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.events.first_key_value().map(|(key, _)| key.0)
    }
}
