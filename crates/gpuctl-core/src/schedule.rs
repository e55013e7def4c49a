//! When a pool should be up: windows of local time, and starts and stops in EventBridge's grammar.
//!
//! The desired state is a pure function of the instant, to the minute, in each entry's IANA zone; no effect depends on a look
//! at an exact minute (T2). Where clocks are changed: an edge in the skipped hour takes effect at the first instant after it;
//! a begin in the repeated hour at its first pass, an end at its second. So a window never closes early and never opens
//! twice, and one that lies wholly inside the skipped hour does not happen that day (T3, T4, T5). `SCHEDULES.md` in this
//! crate is the reference. Nothing here reads a clock, a file or the zones of the machine.

mod calendar;
mod clocks;
mod cron;
mod days;
mod entry;
mod fires;
mod lint;
mod stretches;
mod week;
mod window;

use chrono::TimeDelta;
use chrono_tz::Tz;

pub use self::calendar::{CALENDAR_DATES_MAX, Calendar};
pub use self::cron::Field;
pub use self::entry::{Entry, EntryError, EntryProblem, EntrySpec};
pub use self::fires::LONE_EDGE_MIN;
pub use self::lint::Warning;
pub use self::week::Day;

use self::calendar::Turn;
use self::entry::Kind;
use self::stretches::{Stretch, Stretches};
use crate::units::Timestamp;

/// Stretches looked at for the next change: two windows a day for more than a year. A schedule that goes on unbroken for
/// longer counts as one that does not change.
pub const EDGES_MAX: usize = 1_000;

/// A gap of at most this between two running stretches does not stop a pool: `23:59` and `00:00` are meant as one edge.
pub const BRIDGED_MAX: TimeDelta = TimeDelta::minutes(1);

/// A pool's schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// What the pool's boxes are wanted for; any that says "running" has the word.
    pub entries: Vec<Entry>,
    /// Dates that differ.
    pub calendar: Calendar,
}

/// What a schedule wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    /// At least one box up.
    Running,
    /// None.
    Stopped,
    /// It has no opinion: things stay as they are (R14).
    Any,
}

impl Desired {
    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Any => "any",
        }
    }
}

/// What a schedule wants at an instant, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What.
    pub desired: Desired,
    /// A sentence for people.
    pub reason: String,
}

/// When a schedule changes its mind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// When.
    pub at: Timestamp,
    /// What it wants from then on.
    pub desired: Desired,
    /// Why.
    pub reason: String,
}

impl Schedule {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The zone of its first entry, in which it is shown.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.entries.first().map_or(Tz::UTC, Entry::zone)
    }

    /// What is wanted at `now`, and why.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> State {
        let (desired, cause) = self.look(now);
        State { desired, reason: self.explain(cause, now) }
    }

    /// The first instant after `now` at which something else is wanted, if there is one within `EDGES_MAX` stretches.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Edge> {
        if self.is_empty() || !clocks::is_known(now) {
            return None;
        }
        // Found out at once what a walk along a thousand edges would say too.
        if self.calendar.skip.is_empty() && self.entries.iter().any(Entry::is_always) {
            return None;
        }
        let (desired, _) = self.look(now);
        let (runs, stops) = (Entry::runs as fn(&Entry) -> bool, Entry::is_lone_stop);
        let next_run = || self.next_begin(runs, now);
        let at = match desired {
            Desired::Running => self.cover_end(runs, now, BRIDGED_MAX),
            Desired::Stopped if self.has_two_sides() => next_run(),
            Desired::Stopped => {
                let end = self.cover_end(stops, now, TimeDelta::zero());
                next_run().into_iter().chain(end).min()
            }
            Desired::Any => next_run().into_iter().chain(self.next_begin(stops, now)).min(),
        };
        let at = at.filter(|at| clocks::is_known(*at))?;
        let State { desired, reason } = self.at(at);
        Some(Edge { at, desired, reason })
    }

    fn look(&self, now: Timestamp) -> (Desired, Cause) {
        if self.is_empty() {
            return (Desired::Any, Cause::Empty);
        }
        if !clocks::is_known(now) {
            return (Desired::Any, Cause::BeyondYears);
        }
        let mut stopped = None;
        // The latest end of a running stretch just past, and the earliest begin of one close ahead.
        let (mut ended, mut begins) = (None, None);
        for (place, entry) in self.entries.iter().enumerate() {
            let near = self.stretches(entry, now - BRIDGED_MAX, now + BRIDGED_MAX);
            for Stretch { begin, end } in near.take_while(|one| one.begin <= now + BRIDGED_MAX) {
                let holds = begin <= now && now < end;
                if entry.runs() {
                    if holds {
                        return (Desired::Running, Cause::Inside(place));
                    }
                    ended = ended.max(Some(end).filter(|end| *end <= now));
                    begins =
                        begins.into_iter().chain(Some(begin).filter(|begin| *begin > now)).min();
                } else if holds {
                    stopped = Some(place);
                }
            }
        }
        match (ended, begins, stopped) {
            (Some(ended), Some(begins), _) if begins - ended <= BRIDGED_MAX => {
                (Desired::Running, Cause::Bridged)
            }
            (.., Some(place)) => (Desired::Stopped, Cause::Inside(place)),
            _ if self.has_two_sides() => (Desired::Stopped, Cause::Outside),
            _ => (Desired::Any, Cause::NoOpinion),
        }
    }

    /// Until when the stretches of those entries follow one another, `gap` apart at most.
    fn cover_end(
        &self,
        which: fn(&Entry) -> bool,
        now: Timestamp,
        gap: TimeDelta,
    ) -> Option<Timestamp> {
        let entries = self.entries.iter().filter(|entry| which(entry));
        let mut streams: Vec<_> =
            entries.map(|entry| self.stretches(entry, now, clocks::last()).peekable()).collect();
        let mut left = EDGES_MAX;
        let mut until = now;
        loop {
            let before = until;
            for stream in &mut streams {
                // Checked, since a stretch may have no end.
                let reach = until.checked_add_signed(gap)?;
                while let Some(next) = stream.next_if(|next| next.begin <= reach) {
                    left = left.checked_sub(1)?;
                    until = until.max(next.end);
                }
            }
            if until == before {
                return Some(until);
            }
        }
    }

    /// When the next stretch of those entries begins.
    fn next_begin(&self, which: fn(&Entry) -> bool, now: Timestamp) -> Option<Timestamp> {
        let entries = self.entries.iter().filter(|entry| which(entry));
        entries
            .filter_map(|entry| {
                let stretches = self.stretches(entry, now, clocks::last()).take(EDGES_MAX);
                stretches.map(|next| next.begin).find(|begin| *begin > now)
            })
            .min()
    }

    fn stretches<'s>(
        &'s self,
        entry: &'s Entry,
        from: Timestamp,
        limit: Timestamp,
    ) -> Stretches<'s> {
        Stretches::new(&entry.kind, &self.calendar, from, limit)
    }

    fn has_two_sides(&self) -> bool {
        self.entries.iter().any(|entry| !matches!(entry.kind, Kind::Lone(_)))
    }

    fn explain(&self, cause: Cause, now: Timestamp) -> String {
        match cause {
            Cause::Empty => "there is no schedule".to_owned(),
            Cause::BeyondYears => {
                let (first, last) = (clocks::YEARS.start(), clocks::YEARS.end());
                format!("schedules know the years {first} to {last} alone")
            }
            Cause::Inside(place) => match &self.entries[place] {
                entry if matches!(entry.kind, Kind::Lone(_)) => {
                    format!("{entry}: holds to the end of that day")
                }
                entry => format!("inside {entry}"),
            },
            Cause::Bridged => "between two stretches that are at most a minute apart".to_owned(),
            Cause::Outside => match self.skipped(now) {
                Some(date) => format!("outside its schedule; {date} is a date to skip"),
                None => "outside its schedule".to_owned(),
            },
            Cause::NoOpinion => "no start or stop of its schedule holds now".to_owned(),
        }
    }

    /// The local date of `now`, if the calendar skips what would have begun on it.
    fn skipped(&self, now: Timestamp) -> Option<chrono::NaiveDate> {
        let mut dates = self.entries.iter().map(|entry| clocks::date(entry.zone(), now));
        dates.find(|date| self.calendar.skips(Turn::Begin, *date))
    }
}

/// Why a state holds.
#[derive(Clone, Copy)]
enum Cause {
    Empty,
    BeyondYears,
    Inside(usize),
    Bridged,
    Outside,
    NoOpinion,
}

#[cfg(test)]
mod tests;
