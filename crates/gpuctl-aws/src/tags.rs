//! The tags by which gpuctl knows its boxes and its orders again, as far as workers read and write them. The others are in
//! `ec2/seen`.

use gpuctl_core::units::Timestamp;

/// The slot of a launched box, e.g. `gpu-spot-1`.
pub(crate) const BOX_TAG: &str = "gpuctl:box";
/// When gpuctl last asked the box to stop.
pub(crate) const STOPPED_TAG: &str = "gpuctl:stopped";

/// A time as a tag's value: RFC 3339 with microseconds.
pub(crate) fn tag_time(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}
