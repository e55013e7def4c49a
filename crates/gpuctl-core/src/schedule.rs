//! When a pool should be up: windows of local time, and starts and stops in EventBridge's grammar.
//!
//! The desired state is a pure function of the instant, to the minute, in each entry's IANA zone; no effect depends on a
//! reconcile at an exact minute (T2). Where clocks are changed: an edge in the skipped hour takes effect at the first instant after it;
//! a begin in the repeated hour the first time, an end the second time. So a window never closes early and never opens
//! twice, and one that lies wholly inside the skipped hour does not happen that day (T3, T4, T5). `SCHEDULES.md` in this
//! crate is the reference. Nothing here reads a clock, a file or the zones of the machine.

mod calendar;
mod clocks;
mod cron;
mod days;
mod entry;
mod field;
mod fires;
mod lint;
mod stretches;
mod week;
mod window;
mod work;

use chrono::TimeDelta;

pub use self::calendar::{CALENDAR_DATES_MAX, Calendar, Source};
pub use self::entry::{Entry, EntryError, EntryProblem, EntrySpec};
pub use self::field::Field;
pub use self::fires::LONE_EDGE_MIN;
pub use self::lint::Warning;
pub use self::week::Day;

use self::calendar::Turn;
use self::entry::{Effect, Kind};
use self::fires::Fires;
use self::stretches::{Stretch, Stretches};
use crate::units::Timestamp;
use crate::zone::Zone;

/// The most stretches that a search for the next change looks at: two windows a day for more than a year. A schedule that runs
/// without a break for longer counts as one that does not change.
pub const EDGES_MAX: usize = 1_000;

/// A gap of at most this length between two running stretches does not stop a pool: an end at `23:59` and a begin at `00:00` are
/// meant as the same instant.
pub const BRIDGED_MAX: TimeDelta = TimeDelta::minutes(1);

/// A pool's schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// If any entry wants the pool running, it runs.
    pub entries: Vec<Entry>,
    pub calendar: Calendar,
}

/// What a schedule wants of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    /// At least one box is to be up.
    Running,
    /// No box is to be up for the schedule's sake; a queue may still need one.
    Stopped,
    /// Boxes stay as they are (R14).
    Any,
}

impl Desired {
    /// The name in JSON.
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
    pub desired: Desired,
    /// For people, e.g. ``inside `mon-fri 09:00-19:00 Asia/Tokyo` ``.
    pub reason: String,
}

/// An instant from which on a schedule wants something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub at: Timestamp,
    /// What it wants from then on.
    pub desired: Desired,
    /// For people, as in `State`.
    pub reason: String,
}

impl Schedule {
    /// Whether it has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The zone of the first entry, in which the schedule is shown; UTC without entries.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.entries.first().map_or(Zone::UTC, Entry::zone)
    }

    /// The last instant up to this one at which an entry that is only a start fires.
    #[must_use]
    pub fn last_start(&self, upto: Timestamp) -> Option<Timestamp> {
        let last = |fires: &Fires| fires.last(&self.calendar, upto);
        self.starts(upto).filter_map(last).max()
    }

    /// The first instant after this one at which such an entry fires.
    #[must_use]
    pub fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        let next = |fires: &Fires| fires.next(&self.calendar, after, clocks::last());
        self.starts(after).filter_map(next).min()
    }

    /// The entries that are only starts; none at an instant of years that schedules do not know.
    fn starts(&self, at: Timestamp) -> impl Iterator<Item = &Fires> {
        self.entries.iter().filter(move |_| clocks::is_known(at)).filter_map(Entry::starts)
    }

    /// What the schedule wants at `now`, and why.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> State {
        let (desired, cause) = self.evaluate(now);
        State { desired, reason: self.explain(cause, now) }
    }

    /// The first instant after `now` from which on the schedule wants something else.
    ///
    /// `None` if that never happens, not within `EDGES_MAX` stretches, or not within the years that schedules know.
    ///
    /// # Examples
    ///
    /// ```
    /// use gpuctl_core::schedule::{Desired, Entry, EntrySpec, Schedule};
    ///
    /// let office_hours = EntrySpec {
    ///     zone: Some("Asia/Tokyo".to_owned()),
    ///     weekdays: Some("mon-fri".to_owned()),
    ///     begin: Some("09:00".to_owned()),
    ///     end: Some("19:00".to_owned()),
    ///     ..EntrySpec::default()
    /// };
    /// let entries = vec![Entry::new(&office_hours).expect("a valid entry")];
    /// let schedule = Schedule { entries, ..Schedule::default() };
    ///
    /// // A Friday evening in Tokyo: the next window begins on Monday.
    /// let edge = schedule.next_change("2026-11-20T10:00:00Z".parse()?).expect("a change");
    /// assert_eq!(edge.desired, Desired::Running);
    /// assert_eq!(edge.at.to_rfc3339(), "2026-11-23T00:00:00+00:00");
    /// # Ok::<(), chrono::ParseError>(())
    /// ```
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Edge> {
        self.next_change_before(now, clocks::last())
    }

    /// The same, if it is not after `limit`: no stretch that begins later is looked for.
    fn next_change_before(&self, now: Timestamp, limit: Timestamp) -> Option<Edge> {
        if self.is_empty() || !clocks::is_known(now) {
            return None;
        }
        // The walk along a thousand stretches below would find the same.
        if self.calendar.skip.is_empty() && self.entries.iter().any(Entry::is_always) {
            return None;
        }
        let (desired, _) = self.evaluate(now);
        let next_run = || self.next_begin(Effect::Run, now, limit);
        let at = match desired {
            Desired::Running => self.cover_end(Effect::Run, now, limit, BRIDGED_MAX),
            Desired::Stopped if self.has_two_sides() => next_run(),
            Desired::Stopped => {
                let end = self.cover_end(Effect::Stop, now, limit, TimeDelta::zero());
                next_run().into_iter().chain(end).min()
            }
            Desired::Any => {
                next_run().into_iter().chain(self.next_begin(Effect::Stop, now, limit)).min()
            }
        };
        let at = at.filter(|at| clocks::is_known(*at) && *at <= limit)?;
        let State { desired, reason } = self.at(at);
        Some(Edge { at, desired, reason })
    }

    fn evaluate(&self, now: Timestamp) -> (Desired, Cause) {
        if self.is_empty() {
            return (Desired::Any, Cause::Empty);
        }
        if !clocks::is_known(now) {
            return (Desired::Any, Cause::BeyondYears);
        }
        let mut stopped = None;
        // The latest end of a running stretch just past, and the earliest begin of one close ahead.
        let (mut ended, mut begins) = (None, None);
        for (index, entry) in self.entries.iter().enumerate() {
            let near = self.stretches(entry, now - BRIDGED_MAX, now + BRIDGED_MAX);
            for Stretch { begin, end } in near.take_while(|one| one.begin <= now + BRIDGED_MAX) {
                let holds = begin <= now && now < end;
                if entry.effect() == Effect::Run {
                    if holds {
                        return (Desired::Running, Cause::Inside(index));
                    }
                    ended = ended.max(Some(end).filter(|end| *end <= now));
                    begins =
                        begins.into_iter().chain(Some(begin).filter(|begin| *begin > now)).min();
                } else if holds {
                    stopped = Some(index);
                }
            }
        }
        match (ended, begins, stopped) {
            (Some(ended), Some(begins), _) if begins - ended <= BRIDGED_MAX => {
                (Desired::Running, Cause::Bridged)
            }
            (.., Some(index)) => (Desired::Stopped, Cause::Inside(index)),
            _ if self.has_two_sides() => (Desired::Stopped, Cause::Outside),
            _ => (Desired::Any, Cause::NothingApplies),
        }
    }

    /// Until when the stretches of the entries with that effect follow one another, at most `gap` apart.
    fn cover_end(
        &self,
        effect: Effect,
        now: Timestamp,
        limit: Timestamp,
        gap: TimeDelta,
    ) -> Option<Timestamp> {
        let entries = self.entries.iter().filter(|entry| entry.effect() == effect);
        let mut streams: Vec<_> =
            entries.map(|entry| self.stretches(entry, now, limit).peekable()).collect();
        let mut left = EDGES_MAX;
        let mut until = now;
        loop {
            let before = until;
            for stream in &mut streams {
                // Checked: the end may be `Timestamp::MAX_UTC`.
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

    /// When the next stretch of the entries with that effect begins.
    fn next_begin(&self, effect: Effect, now: Timestamp, limit: Timestamp) -> Option<Timestamp> {
        let entries = self.entries.iter().filter(|entry| entry.effect() == effect);
        entries
            .filter_map(|entry| {
                let stretches = self.stretches(entry, now, limit).take(EDGES_MAX);
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
                format!("schedules only know the years {first} to {last}")
            }
            Cause::Inside(index) => match &self.entries[index] {
                entry if matches!(entry.kind, Kind::Lone(_)) => {
                    format!("{entry}: in effect until the end of that day")
                }
                entry => format!("inside {entry}"),
            },
            Cause::Bridged => "in a gap of at most a minute between two windows".to_owned(),
            Cause::Outside => match self.skipped(now) {
                Some(date) => format!("outside its schedule; {date} is a date to skip"),
                None => "outside its schedule".to_owned(),
            },
            Cause::NothingApplies => "no start or stop of its schedule applies now".to_owned(),
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
    NothingApplies,
}

#[cfg(test)]
mod tests;
