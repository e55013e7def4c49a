//! The clock of a box: minutes off in the windows of `ClockOff`, and jumping. Its worker follows the time in responses, as on AWS.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::clock::RawClock;
use gpuctl_core::units::Timestamp;

use super::{Shared, World};
use crate::chance::Chance;
use crate::faults::Fault;

/// The most that a clock is off.
const OFF_MINUTES_MAX: i64 = 10;
/// How long it stays so, until it jumps.
const JUMPS_EVERY: TimeDelta = TimeDelta::minutes(20);

/// What a box knows of the time by itself.
pub(crate) struct BoxClock {
    shared: Arc<Shared>,
    instance: String,
}

impl BoxClock {
    pub(super) fn new(shared: Arc<Shared>, instance: String) -> Self {
        Self { shared, instance }
    }
}

impl RawClock for BoxClock {
    fn wall(&self) -> Timestamp {
        let (now, mut world) = self.shared.time_and_world();
        now + world.clock_off(now, &self.instance)
    }

    fn monotonic(&self) -> Duration {
        self.shared.begin.0.elapsed()
    }
}

impl World {
    /// How far the clock of an instance is off.
    fn clock_off(&mut self, now: Timestamp, instance: &str) -> TimeDelta {
        if self.faults.strength(Fault::ClockOff, now) == 0 {
            return TimeDelta::zero();
        }
        self.faults.count(Fault::ClockOff, 1);
        let turn = (now - self.scenario.begin).num_seconds() / JUMPS_EVERY.num_seconds();
        let mut chance = Chance::stream(self.scenario.seed, &format!("clock {instance} {turn}"));
        TimeDelta::seconds(chance.between(-OFF_MINUTES_MAX * 60, OFF_MINUTES_MAX * 60))
    }
}
