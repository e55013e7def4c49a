//! What a replay counts: box time, dollars, waits, and a timeline for pictures.

use chrono::TimeDelta;
use gpuctl_core::cost::billed_seconds;
use gpuctl_core::observation::BoxState;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::MicroUsd;

use super::Replay;
use super::events::AFTERWARDS_MS;

/// The outcome of one replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Time that boxes were up, boots included.
    pub box_ms: i64,
    /// The part of it on spot.
    pub spot_ms: i64,
    /// The price of the box time: billed by the second, with EC2's minimum of a minute per start.
    pub usd: MicroUsd,
    pub starts: u32,
    /// How long each job waited until a box took it, in the trace's order; `None` for one that was never finished.
    pub waits_ms: Vec<Option<i64>>,
    /// How often a spot box was interrupted.
    pub interruptions: u32,
    /// Starts that were refused for lack of spot capacity.
    pub refusals: u32,
    /// Milliseconds since the start of the trace, boxes up, jobs waiting: an entry whenever either number may have changed.
    pub timeline: Vec<(i64, u32, u32)>,
}

impl Replay<'_> {
    /// Bills what is still up until the end of the time afterwards.
    pub(super) fn finish(mut self) -> Outcome {
        self.now_ms = self.done_ms.map_or(self.now_ms, |done_ms| done_ms + AFTERWARDS_MS);
        for index in 0..self.work.len() {
            if self.boxes()[index].state != BoxState::Stopped {
                self.bill(index);
            }
        }
        self.outcome
    }

    /// Something changed that a reconcile could see: the next tick evaluates, and the timeline gets an entry.
    pub(super) fn mark_changed(&mut self) {
        self.changed = true;
        let up = self.boxes().iter().filter(|one| one.state != BoxState::Stopped).count();
        let entry = (
            self.now_ms,
            u32::try_from(up).unwrap_or(u32::MAX),
            u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
        );
        match self.outcome.timeline.last_mut() {
            Some(last) if last.0 == entry.0 => *last = entry,
            _ => self.outcome.timeline.push(entry),
        }
    }

    /// Adds the box's time since its start.
    pub(super) fn bill(&mut self, index: usize) {
        let ran_ms = self.now_ms - self.work[index].started_ms;
        let spot = self.boxes()[index]
            .offering
            .as_ref()
            .is_some_and(|offering| offering.capacity == CapacityType::Spot);
        let prices = self.setup.prices;
        self.outcome.box_ms += ran_ms;
        self.outcome.spot_ms += if spot { ran_ms } else { 0 };
        let billed = billed_seconds(TimeDelta::milliseconds(ran_ms));
        let usd = if spot {
            self.usd_by_history(index, billed).unwrap_or_else(|| prices.spot.per_hour_for(billed))
        } else {
            prices.on_demand.per_hour_for(billed)
        };
        self.outcome.usd = self.outcome.usd + usd;
    }

    /// The price of `billed` seconds from the box's start, each at the spot price in force; `None` if the history does not know
    /// the zone.
    fn usd_by_history(&self, index: usize, billed: i64) -> Option<MicroUsd> {
        let (history, spot) = (self.setup.spot_prices?, self.setup.spot?);
        let zone = &self.boxes()[index].offering.as_ref()?.zone;
        let (mut from_ms, mut usd) = (self.work[index].started_ms, MicroUsd(0));
        let end_ms = from_ms + billed * 1_000;
        while from_ms < end_ms {
            let at_ms = self.spot_ms_at(spot, from_ms);
            let change_ms = history.next_change(zone, at_ms).unwrap_or(i64::MAX);
            // Where the availability starts over, so do the prices.
            let piece_ms = change_ms.min(spot.span_ms()) - at_ms;
            let to_ms = end_ms.min(from_ms + piece_ms.max(1));
            usd = usd + history.at(zone, at_ms)?.per(3_600_000, to_ms - from_ms);
            from_ms = to_ms;
        }
        Some(usd)
    }
}
