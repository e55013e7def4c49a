//! The stretches of time during which one entry applies, in order, from an instant on.
//!
//! They are computed one at a time, so that a caller pays only for those it uses.

use chrono::{Days as Count, NaiveDate, TimeDelta};

use super::calendar::{Calendar, Turn};
use super::clocks;
use super::entry::Kind;
use super::fires::{Fires, LONE_EDGE_MIN};
use super::window::Window;
use super::work;
use crate::units::Timestamp;

/// The most consecutive stops of a pair that are looked at for one without a start at the same minute: there the start wins.
const STOPS_WITH_START_MAX: usize = 1_000;

const SECOND: TimeDelta = TimeDelta::seconds(1);

/// From `begin` up to `end`, which is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) begin: Timestamp,
    /// `Timestamp::MAX_UTC` if it does not end within the limit of the search.
    pub(super) end: Timestamp,
}

/// An entry's stretches that end after `from` and begin up to `limit`, sorted by begin and by end.
pub(super) struct Stretches<'s> {
    kind: &'s Kind,
    calendar: &'s Calendar,
    from: Timestamp,
    limit: Timestamp,
    /// Where the last stretch was found: for windows the day, for the others the instant.
    last_day: Option<NaiveDate>,
    last_at: Option<Timestamp>,
}

impl<'s> Stretches<'s> {
    pub(super) fn new(
        kind: &'s Kind,
        calendar: &'s Calendar,
        from: Timestamp,
        limit: Timestamp,
    ) -> Self {
        Self { kind, calendar, from, limit, last_day: None, last_at: None }
    }

    fn of_window(&mut self, window: &Window) -> Option<Stretch> {
        let limit = clocks::date(window.zone, self.limit).succ_opt()?;
        loop {
            let day = match self.last_day {
                Some(day) => day.succ_opt()?,
                // Yesterday's window may last overnight, and that of the day before where clocks are set back over midnight.
                None => clocks::date(window.zone, self.from).checked_sub_days(Count::new(2))?,
            };
            let day = self.calendar.next_from(&window.days, Turn::Begin, day, limit)?;
            self.last_day = Some(day);
            if let Some((begin, end)) = window.interval(day)
                && end > self.from
            {
                return Some(Stretch { begin, end });
            }
        }
    }

    /// All times of one day make one stretch, since each applies until the end of the day.
    fn of_lone(&mut self, fires: &Fires) -> Option<Stretch> {
        loop {
            let begin = match self.last_at {
                Some(at) => fires.next(self.calendar, at, self.limit)?,
                None => match fires.last(self.calendar, self.from) {
                    Some(at) => at,
                    None => fires.next(self.calendar, self.from, self.limit)?,
                },
            };
            let day_end = clocks::end_of_day(fires.zone, begin)?;
            let last = fires.last(self.calendar, day_end - SECOND).unwrap_or(begin).max(begin);
            self.last_at = Some(last);
            // Where clocks are set back over midnight, the last one may lie in the repeated day, and apply for longer.
            let end = day_end.max(clocks::end_of_day(fires.zone, last)?);
            let end = end.max(last + LONE_EDGE_MIN);
            if end > self.from {
                return Some(Stretch { begin, end });
            }
        }
    }

    fn of_pair(&mut self, start: &Fires, stop: &Fires) -> Option<Stretch> {
        let begin = match self.last_at {
            Some(at) => start.next(self.calendar, at, self.limit)?,
            None => {
                let started = start.last(self.calendar, self.from);
                let runs = started.is_some() && started >= stop.last(self.calendar, self.from);
                match started.filter(|_| runs) {
                    Some(at) => at,
                    None => start.next(self.calendar, self.from, self.limit)?,
                }
            }
        };
        let end = self.stop_of_pair(start, stop, begin.max(self.from));
        self.last_at = Some(end);
        Some(Stretch { begin, end })
    }

    /// The first stop after `at` without a start at the same minute.
    fn stop_of_pair(&self, start: &Fires, stop: &Fires, mut at: Timestamp) -> Timestamp {
        for _ in 0..STOPS_WITH_START_MAX {
            let Some(stopped) = stop.next(self.calendar, at, self.limit) else { break };
            if start.last(self.calendar, stopped) != Some(stopped) {
                return stopped;
            }
            at = stopped;
        }
        Timestamp::MAX_UTC
    }
}

impl Iterator for Stretches<'_> {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        work::step();
        if self.last_at == Some(Timestamp::MAX_UTC) {
            return None;
        }
        match self.kind {
            Kind::Window(window) => self.of_window(window),
            Kind::Lone(fires) => self.of_lone(fires),
            Kind::Pair(start, stop) => self.of_pair(start, stop),
        }
    }
}
