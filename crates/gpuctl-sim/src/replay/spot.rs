//! Spot capacity in a replay: where it is available, and the interruption of boxes when it ends.

use gpuctl_core::offering::CapacityType;

use super::events::Event;
use super::{Replay, instant};
use crate::trace::Availability;

/// The notice that EC2 gives before it interrupts a spot instance (EC2 User Guide, "Spot Instance interruption notices").
const NOTICE_MS: i64 = 120_000;

impl Replay<'_> {
    /// Schedules the zone's next change; at the end of the availability it starts over, which may be a change too.
    pub(super) fn schedule_zone_change(&mut self, zone: usize) {
        let Some(spot) = self.setup.spot else { return };
        let at_ms = self.spot_ms_at(spot, self.now_ms);
        let next_ms = spot.next_change(&self.zones[zone], at_ms).unwrap_or(spot.span_ms());
        self.events.push(self.now_ms + (next_ms - at_ms).max(1), Event::ZoneChanges(zone));
    }

    pub(super) fn zone_changes(&mut self, zone: usize) {
        if !self.has_spot(&self.zones[zone]) {
            self.interrupt_zone(zone);
            if self.changed {
                // EventBridge delivers the notice, so the controller reconciles at once.
                self.tick();
            }
        }
        self.schedule_zone_change(zone);
    }

    /// Gives the notice to every spot box that is up in the zone.
    fn interrupt_zone(&mut self, zone: usize) {
        let name = self.zones[zone].clone();
        let interrupted_at = instant(self.now_ms + NOTICE_MS);
        for index in 0..self.work.len() {
            let one = &mut self.boxes_mut()[index];
            let here = one.offering.as_ref().is_some_and(|offering| {
                offering.capacity == CapacityType::Spot && offering.zone == name
            });
            if here && one.is_up() && one.interruption.is_none() {
                one.interruption = Some(interrupted_at);
                let run = self.work[index].run;
                self.events.push(self.now_ms + NOTICE_MS, Event::Interrupted(index, run));
                self.changed = true;
            }
        }
    }

    fn has_spot(&self, zone: &str) -> bool {
        self.setup.spot.is_some_and(|spot| spot.at(zone, self.spot_ms_at(spot, self.now_ms)))
    }

    /// The instant on the availability's clock, which starts over after its end.
    pub(super) fn spot_ms_at(&self, spot: &Availability, at_ms: i64) -> i64 {
        (at_ms + self.setup.spot_offset_ms).rem_euclid(spot.span_ms().max(1))
    }

    /// Whether a start of the box would find capacity.
    pub(super) fn has_capacity(&self, index: usize) -> bool {
        match &self.boxes()[index].offering {
            Some(offering) if offering.capacity == CapacityType::Spot => {
                self.has_spot(&offering.zone)
            }
            _ => true,
        }
    }
}
