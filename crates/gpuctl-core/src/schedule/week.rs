//! A schedule day by day, in the zone of its first entry, as `gpuctl schedule show` draws it.

use chrono::NaiveDate;

use super::clocks::{self, DAY_MINUTES, Occurrence};
use super::{Desired, EDGES_MAX, Schedule};
use crate::units::Timestamp;

/// A local day. A day on which clocks are changed does not have 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    pub date: NaiveDate,
    pub begin: Timestamp,
    pub end: Timestamp,
    /// What is wanted from when to when; together they cover the whole day.
    pub parts: Vec<(Desired, Timestamp, Timestamp)>,
}

impl Schedule {
    /// `count` days from that of `from` on. Days that clocks skip as a whole are left out (T5).
    pub fn days(&self, from: Timestamp, count: usize) -> impl Iterator<Item = Day> {
        let zone = self.zone();
        let dates = clocks::is_known(from).then(|| clocks::date(zone, from).iter_days());
        dates.into_iter().flatten().take(count).filter_map(move |date| {
            let begin = clocks::instant(zone, date, 0, Occurrence::First)?;
            let end = clocks::instant(zone, date, DAY_MINUTES, Occurrence::First)?;
            let known = clocks::is_known(begin) && begin < end;
            known.then(|| Day { date, begin, end, parts: self.parts(begin, end) })
        })
    }

    fn parts(&self, begin: Timestamp, end: Timestamp) -> Vec<(Desired, Timestamp, Timestamp)> {
        let mut parts = Vec::new();
        let (mut at, mut desired) = (begin, self.evaluate(begin).0);
        // More than the minutes of a day.
        for _ in 0..2 * EDGES_MAX {
            let next = self.next_change_before(at, end).filter(|edge| edge.at < end);
            parts.push((desired, at, next.as_ref().map_or(end, |edge| edge.at)));
            let Some(next) = next else { break };
            (at, desired) = (next.at, next.desired);
        }
        parts
    }
}
