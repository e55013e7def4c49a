//! What is to happen when: ordered by time, then kind, then the order of asking, so that a run is the same every time.

use std::collections::BTreeMap;

use gpuctl_core::units::Timestamp;

/// Events to come.
#[derive(Clone, Debug)]
pub(crate) struct Agenda<E> {
    events: BTreeMap<(Timestamp, u8, u64), E>,
    asked: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), asked: 0 }
    }
}

impl<E> Agenda<E> {
    /// Adds an event; of those at one instant the lower kind comes first.
    pub(crate) fn add(&mut self, at: Timestamp, kind: u8, event: E) {
        self.asked += 1;
        self.events.insert((at, kind, self.asked), event);
    }

    /// The next one that is due.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<(Timestamp, E)> {
        let first = self.events.first_entry().filter(|entry| entry.key().0 <= now)?;
        let at = first.key().0;
        Some((at, first.remove()))
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.events.first_key_value().map(|(key, _)| key.0)
    }
}
