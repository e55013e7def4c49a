//! A window: from `begin` to `end` on the days on which it begins.
//!
//! Its edges are turned into instants, and the state is read off the interval between them (T2).

use chrono::NaiveDate;
use chrono_tz::Tz;

use super::clocks::{Occurrence, instant};
use super::days::Days;
use crate::units::Timestamp;

/// A two-sided window, or a whole day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) zone: Tz,
    pub(super) days: Days,
    /// Minutes of the day; an end up to the begin is the next day's.
    pub(super) begin: u16,
    pub(super) end: u16,
}

impl Window {
    /// The window that begins on local day `day`; `None` if clocks skip it whole.
    pub(super) fn interval(&self, day: NaiveDate) -> Option<(Timestamp, Timestamp)> {
        let end_day = if self.end <= self.begin { day.succ_opt()? } else { day };
        let begin = instant(self.zone, day, self.begin, Occurrence::First)?;
        let end = instant(self.zone, end_day, self.end, Occurrence::Second)?;
        (begin < end).then_some((begin, end))
    }
}
