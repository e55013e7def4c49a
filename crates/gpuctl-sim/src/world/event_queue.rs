//! What is to happen when: ordered by time, then kind, then the order of asking, so that a run is the same every time.

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
    /// Adds an event; of those at one instant the lower kind comes first.
    pub(crate) fn add(&mut self, at: Timestamp, kind: u8, event: E) {
        self.sequence += 1;
        self.events.insert((at, kind, self.sequence), event);
    }

    /// The next one that is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, E)> {
        let first = self.events.first_entry().filter(|entry| entry.key().0 <= now)?;
        let at = first.key().0;
        Some((at, first.remove()))
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.events.first_key_value().map(|(key, _)| key.0)
    }
}
