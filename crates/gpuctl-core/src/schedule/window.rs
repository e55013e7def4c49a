//! A window: from `begin` to `end` on the days on which it begins.
//!
//! Each window becomes an interval between two instants, so that no effect depends on a reconcile at its edges (T2).

use chrono::NaiveDate;

use super::clocks::{Occurrence, instant};
use super::days::Days;
use crate::units::Timestamp;
use crate::zone::Zone;

/// A two-sided window, or a whole day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) zone: Zone,
    pub(super) days: Days,
    /// Minutes of the day. An end at or before the begin is on the next day.
    pub(super) begin: u16,
    pub(super) end: u16,
}

impl Window {
    /// The window that begins on the local day `day`; `None` if it lies inside the hour that clocks skip.
    pub(super) fn interval(&self, day: NaiveDate) -> Option<(Timestamp, Timestamp)> {
        let end_day = if self.end <= self.begin { day.succ_opt()? } else { day };
        let begin = instant(self.zone, day, self.begin, Occurrence::First)?;
        let end = instant(self.zone, end_day, self.end, Occurrence::Second)?;
        (begin < end).then_some((begin, end))
    }
}
