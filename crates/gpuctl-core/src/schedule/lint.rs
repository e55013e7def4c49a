//! Warnings about entries that are probably not what was meant: they never match, overlap, contradict each other, or fall into
//! the skipped hour.
//!
//! A year ahead is checked. A warning has no effect on decisions.

use chrono::TimeDelta;

use super::calendar::Turn;
use super::clocks;
use super::entry::{Effect, Kind};
use super::fires::Fires;
use super::stretches::Stretch;
use super::{EDGES_MAX, Entry, Schedule};
use crate::units::Timestamp;
use crate::zone::Zone;

/// How far ahead entries are checked.
const AHEAD: TimeDelta = TimeDelta::days(366);

/// Something in a schedule that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The number of the entry, counted from 1.
    pub entry: usize,
    pub message: String,
    /// How to change the entry.
    pub hint: String,
}

impl Schedule {
    /// The warnings that apply from `from` on.
    #[must_use]
    pub fn lint(&self, from: Timestamp) -> Vec<Warning> {
        if !clocks::is_known(from) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let messages = [
                self.never_matches(entry, from),
                self.same_minute(entry, from),
                self.skipped_by_clocks(entry, from),
            ];
            let others = self.entries.iter().enumerate().filter(|(other, _)| *other != index);
            let against = others.filter_map(|(other, _)| {
                self.stop_inside(index, other, from).or_else(|| self.overlap(index, other, from))
            });
            let all = messages.into_iter().flatten().chain(against);
            found.extend(all.map(|(message, hint)| Warning {
                entry: index + 1,
                message,
                hint: hint.to_owned(),
            }));
        }
        found
    }

    fn never_matches(&self, entry: &Entry, from: Timestamp) -> Option<Finding> {
        let from_here = self.stretches(entry, from, clocks::last()).next();
        from_here.is_none().then(|| {
            let message = format!("{entry} never matches from now on");
            (message, "fix its days or years, or remove it")
        })
    }

    fn same_minute(&self, entry: &Entry, from: Timestamp) -> Option<Finding> {
        let Kind::Pair(start, stop) = &entry.kind else { return None };
        let fires = |at: &Timestamp| start.last(&self.calendar, *at) == Some(*at);
        let at = self.fires(stop, from).find(fires)?;
        let message = format!(
            "{entry} starts and stops at the same minute, first at {}: the start wins",
            show(entry.zone(), at)
        );
        Some((message, "move the start or the stop"))
    }

    fn skipped_by_clocks(&self, entry: &Entry, from: Timestamp) -> Option<Finding> {
        let Kind::Window(window) = &entry.kind else { return None };
        let mut day = clocks::date(window.zone, from);
        let limit = clocks::date(window.zone, from + AHEAD);
        while let Some(found) = self.calendar.next_from(&window.days, Turn::Begin, day, limit) {
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

    /// A stop of entry `index` while a stretch of entry `other_index` runs.
    fn stop_inside(&self, index: usize, other_index: usize, from: Timestamp) -> Option<Finding> {
        let (entry, other) = (&self.entries[index], &self.entries[other_index]);
        let Kind::Lone(stop) = &entry.kind else { return None };
        if (entry.effect(), other.effect()) != (Effect::Stop, Effect::Run) {
            return None;
        }
        let mut running = self.year(other, from).peekable();
        let at = self.fires(stop, from).find(|at| {
            while running.next_if(|one| one.end <= *at).is_some() {}
            running.peek().is_some_and(|one| one.begin <= *at)
        })?;
        let message = format!(
            "{entry} contradicts entry {}, {other}, first at {}: running wins, so it stops nothing then",
            other_index + 1,
            show(entry.zone(), at)
        );
        Some((message, "give the other entry an end, or move this stop to after it"))
    }

    /// Where entry `index` runs at the same time as entry `other_index`. Of such a pair only one is reported: the one that the
    /// other covers, else the later one.
    fn overlap(&self, index: usize, other_index: usize, from: Timestamp) -> Option<Finding> {
        let (entry, other) = (&self.entries[index], &self.entries[other_index]);
        if (entry.effect(), other.effect()) != (Effect::Run, Effect::Run) {
            return None;
        }
        let meeting = self.meeting(entry, other, from)?;
        let (covered, covers) = (self.covers(other, entry, from), self.covers(entry, other, from));
        let number = other_index + 1;
        if covered && (!covers || index > other_index) {
            let message = format!("{entry} is redundant: entry {number}, {other}, covers it");
            return Some((message, "remove it"));
        }
        (!covered && !covers && index > other_index).then(|| {
            let from = show(entry.zone(), meeting.begin);
            let until = show(entry.zone(), meeting.end);
            let message =
                format!("{entry} overlaps entry {number}, {other}, first from {from} to {until}");
            (
                message,
                "harmless, since windows add up; write a single window if that is what you mean",
            )
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

/// A message and its hint.
type Finding = (String, &'static str);

fn show(zone: Zone, at: Timestamp) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string()
}
