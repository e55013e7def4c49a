//! A schedule day by day, in the zone of its first entry: what `gpuctl schedule show` draws.

use chrono::NaiveDate;

use super::clocks::{self, DAY_MINUTES, Occurrence};
use super::{Desired, EDGES_MAX, Schedule};
use crate::units::Timestamp;

/// A local day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// Its date.
    pub date: NaiveDate,
    /// The instant at which it begins; on days on which clocks are changed it does not last 24 hours.
    pub begin: Timestamp,
    /// … and ends.
    pub end: Timestamp,
    /// What is wanted, from when to when, without a hole.
    pub parts: Vec<(Desired, Timestamp, Timestamp)>,
}

impl Schedule {
    /// So many days, from the one in which `from` lies. Days that clocks skip whole are left out (T5).
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
        let (mut at, mut desired) = (begin, self.look(begin).0);
        // A day has fewer minutes than that.
        for _ in 0..2 * EDGES_MAX {
            let next = self.next_change(at).filter(|edge| edge.at < end);
            parts.push((desired, at, next.as_ref().map_or(end, |edge| edge.at)));
            let Some(next) = next else { break };
            (at, desired) = (next.at, next.desired);
        }
        parts
    }
}
