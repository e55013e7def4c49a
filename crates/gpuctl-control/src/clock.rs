//! The machine's clock: the one place where gpuctl, outside a simulation, reads the time.

use std::time::SystemTime;

use gpuctl_core::units::Timestamp;

use crate::ports::Clock;

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}
