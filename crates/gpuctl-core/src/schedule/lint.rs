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
use super::{EDGES_MAX, Entry, Schedule, work};
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
        let ahead: Vec<Ahead> = self.entries.iter().map(|entry| self.ahead(entry, from)).collect();
        let mut found = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let alone = [
                entry.zone_lint(),
                never_matches(&ahead[index]),
                self.same_minute(&ahead[index]),
                self.skipped_by_clocks(entry, from),
            ];
            let others = ahead.iter().enumerate().filter(|(other, _)| *other != index);
            let against = others.filter_map(|(other, with)| {
                let (this, other) = (Numbered(index, &ahead[index]), Numbered(other, with));
                stop_inside(this, other).or_else(|| overlap(this, other))
            });
            let all = alone.into_iter().flatten().chain(against);
            found.extend(all.map(|(message, hint)| Warning { entry: index + 1, message, hint }));
        }
        found
    }

    fn ahead<'s>(&'s self, entry: &'s Entry, from: Timestamp) -> Ahead<'s> {
        let mut stretches = self.stretches(entry, from, clocks::last()).take(EDGES_MAX).peekable();
        let happens = stretches.peek().is_some();
        let stretches = stretches.take_while(|one| one.begin < from + AHEAD).collect();
        let stop = match &entry.kind {
            Kind::Pair(_, stop) | Kind::Lone(stop) => Some(stop),
            Kind::Window(_) => None,
        };
        let next = |stop: &Fires, after| stop.next(&self.calendar, after, from + AHEAD);
        let stops = stop.map(|stop| {
            std::iter::successors(next(stop, from), |after| next(stop, *after)).take(EDGES_MAX)
        });
        Ahead { entry, happens, stretches, stops: stops.into_iter().flatten().collect() }
    }

    fn same_minute(&self, ahead: &Ahead<'_>) -> Option<Finding> {
        let entry = ahead.entry;
        let Kind::Pair(start, _) = &entry.kind else { return None };
        let fires = |at: &&Timestamp| start.last(&self.calendar, **at) == Some(**at);
        let at = ahead.stops.iter().find(fires)?;
        let message = format!(
            "{entry} starts and stops at the same minute, first at {}: the start wins",
            show(entry.zone(), *at)
        );
        Some((message, "move the start or the stop".to_owned()))
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
                let hint = "move it out of the skipped hour if that day matters";
                return Some((message, hint.to_owned()));
            }
            day = found.succ_opt()?;
        }
        None
    }
}

/// An entry and what it does in the time that is checked. It is made once, and then compared with each of the others.
struct Ahead<'s> {
    entry: &'s Entry,
    /// Whether it applies at all from then on.
    happens: bool,
    stretches: Vec<Stretch>,
    /// The stops of a pair, or of a stop alone.
    stops: Vec<Timestamp>,
}

/// An entry with its index.
#[derive(Clone, Copy)]
struct Numbered<'a>(usize, &'a Ahead<'a>);

fn never_matches(ahead: &Ahead<'_>) -> Option<Finding> {
    (!ahead.happens).then(|| {
        let message = format!("{} never matches from now on", ahead.entry);
        (message, "fix its days or years, or remove it".to_owned())
    })
}

/// A stop of an entry while a stretch of another runs.
fn stop_inside(
    Numbered(_, this): Numbered<'_>,
    Numbered(index, other): Numbered<'_>,
) -> Option<Finding> {
    if (this.entry.effect(), other.entry.effect()) != (Effect::Stop, Effect::Run) {
        return None;
    }
    let mut running = other.stretches.iter().peekable();
    let at = this.stops.iter().find(|at| {
        work::step();
        while running.next_if(|one| one.end <= **at).is_some() {}
        running.peek().is_some_and(|one| one.begin <= **at)
    })?;
    let message = format!(
        "{} contradicts entry {}, {}, first at {}: running wins, so it stops nothing then",
        this.entry,
        index + 1,
        other.entry,
        show(this.entry.zone(), *at)
    );
    Some((message, "give the other entry an end, or move this stop to after it".to_owned()))
}

/// Where an entry runs at the same time as another. Of such a pair only one is reported: the one that the other covers, else the
/// later one.
fn overlap(
    Numbered(index, this): Numbered<'_>,
    Numbered(other_index, other): Numbered<'_>,
) -> Option<Finding> {
    if (this.entry.effect(), other.entry.effect()) != (Effect::Run, Effect::Run) {
        return None;
    }
    let meeting = meeting(this, other)?;
    let covered = is_covered(other, this);
    if !covered && index < other_index {
        return None;
    }
    let covers = is_covered(this, other);
    let (entry, other, number) = (this.entry, other.entry, other_index + 1);
    if covered && (!covers || index > other_index) {
        let message = format!("{entry} is redundant: entry {number}, {other}, covers it");
        return Some((message, "remove it".to_owned()));
    }
    (!covered && !covers).then(|| {
        let from = show(entry.zone(), meeting.begin);
        let until = show(entry.zone(), meeting.end);
        let message =
            format!("{entry} overlaps entry {number}, {other}, first from {from} to {until}");
        let hint = "harmless, since windows add up; write a single window if that is what you mean";
        (message, hint.to_owned())
    })
}

/// The first stretch in which both run.
fn meeting(one: &Ahead<'_>, other: &Ahead<'_>) -> Option<Stretch> {
    let mut others = other.stretches.iter().peekable();
    one.stretches.iter().find_map(|mine| {
        work::step();
        while others.next_if(|theirs| theirs.end <= mine.begin).is_some() {}
        let theirs = others.peek().filter(|theirs| theirs.begin < mine.end)?;
        Some(Stretch { begin: mine.begin.max(theirs.begin), end: mine.end.min(theirs.end) })
    })
}

/// Whether every stretch of `inner` lies in stretches of `outer`.
fn is_covered(outer: &Ahead<'_>, inner: &Ahead<'_>) -> bool {
    let mut outer = outer.stretches.iter().peekable();
    let mut cover: Option<Stretch> = None;
    inner.stretches.iter().all(|mine| {
        work::step();
        while let Some(next) = outer.next_if(|next| next.begin <= mine.end) {
            cover = match cover {
                Some(so_far) if next.begin <= so_far.end => {
                    Some(Stretch { begin: so_far.begin, end: so_far.end.max(next.end) })
                }
                _ => Some(*next),
            };
            if next.end >= mine.end {
                break;
            }
        }
        cover.is_some_and(|cover| cover.begin <= mine.begin && mine.end <= cover.end)
    })
}

/// A message and its hint.
type Finding = (String, String);

fn show(zone: Zone, at: Timestamp) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string()
}
