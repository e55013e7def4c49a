//! When a client that polls should ask again.

use gpuctl_control::waiting::Waiting;
use gpuctl_core::units::Timestamp;

use crate::limits::RETRY_SECONDS_MAX;

/// In how many seconds it is worth to ask again.
pub(crate) fn retry_after(waiting: Option<&Waiting>, at: Timestamp) -> u64 {
    /// Of a job that runs, or whose box is about to be ready.
    const MIN: i64 = 1;
    let max = i64::try_from(RETRY_SECONDS_MAX).unwrap_or(i64::MAX);
    let expected = waiting.and_then(|waiting| waiting.box_expected_at.as_ref());
    let until = expected.and_then(|text| text.parse::<Timestamp>().ok()).map(|until| until - at);
    let seconds = match (waiting, until) {
        (None, _) => MIN,
        (Some(_), Some(until)) => until.num_seconds() + 1,
        (Some(_), None) => max,
    };
    seconds.clamp(MIN, max).unsigned_abs()
}
