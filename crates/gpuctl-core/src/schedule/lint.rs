//! What a schedule says and hardly means: entries that never match, overlap, fight, or fall into the skipped hour.
//!
//! It looks a year ahead. A warning never stops anything.

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::calendar::Turn;
use super::clocks;
use super::entry::Kind;
use super::fires::Fires;
use super::stretches::Stretch;
use super::{EDGES_MAX, Entry, Schedule};
use crate::units::Timestamp;

/// How far ahead entries are compared.
const AHEAD: TimeDelta = TimeDelta::days(366);

/// Something that is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which entry, counted from 1.
    pub entry: usize,
    /// What is odd about it.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Schedule {
    /// What is hardly meant, from `from` on.
    #[must_use]
    pub fn lint(&self, from: Timestamp) -> Vec<Warning> {
        if !clocks::is_known(from) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let messages = [
                self.never_matches(entry, from),
                self.same_minute(entry, from),
                self.skipped_by_clocks(entry, from),
            ];
            let others = self.entries.iter().enumerate().filter(|(other, _)| *other != place);
            let against = others.filter_map(|(other, entry)| {
                self.stop_inside(place, (other, entry), from)
                    .or_else(|| self.overlap((place, other), from))
            });
            let all = messages.into_iter().flatten().chain(against);
            found.extend(all.map(|(message, hint)| Warning {
                entry: place + 1,
                message,
                hint: hint.to_owned(),
            }));
        }
        found
    }

    fn never_matches(&self, entry: &Entry, from: Timestamp) -> Option<Said> {
        let from_here = self.stretches(entry, from, clocks::last()).next();
        from_here.is_none().then(|| {
            let message = format!("{entry} never matches from now on");
            (message, "mend its days or years, or take it out")
        })
    }

    fn same_minute(&self, entry: &Entry, from: Timestamp) -> Option<Said> {
        let Kind::Pair(start, stop) = &entry.kind else { return None };
        let fires = |at: &Timestamp| start.last(&self.calendar, *at) == Some(*at);
        let at = self.fires(stop, from).find(fires)?;
        let message = format!(
            "{entry} starts and stops at the same minute, first at {}: the start wins",
            show(entry.zone(), at)
        );
        Some((message, "move one of the two"))
    }

    fn skipped_by_clocks(&self, entry: &Entry, from: Timestamp) -> Option<Said> {
        let Kind::Window(window) = &entry.kind else { return None };
        let mut day = clocks::date(window.zone, from);
        let limit = clocks::date(window.zone, from + AHEAD);
        while let Some(found) = self.calendar.next_from((&window.days, Turn::Begin), day, limit) {
            if window.interval(found).is_none() {
                let message = format!(
                    "{entry} does not happen on {found}: clocks are set forward over the whole of it"
                );
                return Some((message, "move it out of the skipped hour if that day matters"));
            }
            day = found.succ_opt()?;
        }
        None
    }

    /// The stop of the lone entry `place` in the midst of a running stretch of another.
    fn stop_inside(
        &self,
        place: usize,
        (other_place, other): (usize, &Entry),
        from: Timestamp,
    ) -> Option<Said> {
        let entry = &self.entries[place];
        let Kind::Lone(stop) = &entry.kind else { return None };
        if entry.runs() || !other.runs() {
            return None;
        }
        let mut running = self.year(other, from).peekable();
        let at = self.fires(stop, from).find(|at| {
            while running.next_if(|one| one.end <= *at).is_some() {}
            running.peek().is_some_and(|one| one.begin <= *at)
        })?;
        let message = format!(
            "{entry} fights entry {}, {other}, first at {}: running wins, so it stops nothing then",
            other_place + 1,
            show(entry.zone(), at)
        );
        Some((message, "give the other entry an end, or move this stop to after it"))
    }

    /// Where two running entries say the same twice; told of the later one, unless that is the wider.
    fn overlap(&self, (place, other_place): (usize, usize), from: Timestamp) -> Option<Said> {
        let (entry, other) = (&self.entries[place], &self.entries[other_place]);
        if !entry.runs() || !other.runs() {
            return None;
        }
        let meeting = self.meeting(entry, other, from)?;
        let (covered, covers) = (self.covers(other, entry, from), self.covers(entry, other, from));
        let number = other_place + 1;
        if covered && (!covers || place > other_place) {
            let message = format!("{entry} is redundant: entry {number}, {other}, covers it");
            return Some((message, "take it out"));
        }
        (!covered && !covers && place > other_place).then(|| {
            let from = show(entry.zone(), meeting.begin);
            let until = show(entry.zone(), meeting.end);
            let message =
                format!("{entry} overlaps entry {number}, {other}, first from {from} to {until}");
            (message, "harmless: windows add up; write one if one is meant")
        })
    }

    /// The first stretch in which both run.
    fn meeting(&self, one: &Entry, other: &Entry, from: Timestamp) -> Option<Stretch> {
        let mut others = self.year(other, from).peekable();
        self.year(one, from).find_map(|mine| {
            while others.next_if(|theirs| theirs.end <= mine.begin).is_some() {}
            let theirs = others.peek().filter(|theirs| theirs.begin < mine.end)?;
            Some(Stretch { begin: mine.begin.max(theirs.begin), end: mine.end.min(theirs.end) })
        })
    }

    /// Whether every stretch of `inner` lies in stretches of `outer`.
    fn covers(&self, outer: &Entry, inner: &Entry, from: Timestamp) -> bool {
        let mut outer = self.year(outer, from).peekable();
        let mut cover: Option<Stretch> = None;
        self.year(inner, from).all(|mine| {
            while let Some(next) = outer.next_if(|next| next.begin <= mine.end) {
                cover = match cover {
                    Some(so_far) if next.begin <= so_far.end => {
                        Some(Stretch { begin: so_far.begin, end: so_far.end.max(next.end) })
                    }
                    _ => Some(next),
                };
                if next.end >= mine.end {
                    break;
                }
            }
            cover.is_some_and(|cover| cover.begin <= mine.begin && mine.end <= cover.end)
        })
    }

    fn year<'s>(
        &'s self,
        entry: &'s Entry,
        from: Timestamp,
    ) -> impl Iterator<Item = Stretch> + use<'s> {
        let stretches = self.stretches(entry, from, clocks::last());
        stretches.take(EDGES_MAX).take_while(move |one| one.begin < from + AHEAD)
    }

    fn fires<'s>(
        &'s self,
        fires: &'s Fires,
        from: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + use<'s> {
        let next = move |after: &Timestamp| fires.next(&self.calendar, *after, from + AHEAD);
        std::iter::successors(next(&from), next).take(EDGES_MAX)
    }
}

/// A sentence and its hint.
type Said = (String, &'static str);

fn show(zone: Tz, at: Timestamp) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string()
}
