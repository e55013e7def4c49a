//! The tags by which gpuctl knows its own boxes and its own doing again: also a worker writes and reads some.

use gpuctl_core::units::Timestamp;

/// The place in the pool that a launched box fills.
pub(crate) const BOX_TAG: &str = "gpuctl:box";
/// When gpuctl last asked the box to stop.
pub(crate) const STOPPED_TAG: &str = "gpuctl:stopped";

/// A time as such a tag has it.
pub(crate) fn stamp(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}
