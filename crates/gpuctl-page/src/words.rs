//! Times, spans and amounts as people read them.

use chrono::{Offset, TimeDelta, TimeZone};
use gpuctl_core::policy::Policy;
use gpuctl_core::text::is_unsafe;
use gpuctl_core::units::{MicroUsd, Timestamp, show_duration};
use gpuctl_core::zone::Zone;

/// The local clock of the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) zone: Zone,
    pub(crate) now: Timestamp,
}

/// A time as it is shown, and as a program reads it.
#[derive(Clone, Debug)]
pub(crate) struct Time {
    pub(crate) text: String,
    pub(crate) machine: String,
}

impl Clock {
    /// The zone of the first schedule there is, else UTC.
    pub(crate) fn of(policy: &Policy, now: Timestamp) -> Self {
        let scheduled = policy.pools.iter().find(|pool| !pool.schedule.is_empty());
        Self { zone: scheduled.map_or(Zone::UTC, |pool| pool.schedule.zone()), now }
    }

    /// E.g. `09:00`, or `24 Nov 09:00` of another day.
    pub(crate) fn time(&self, at: Timestamp) -> Time {
        let is_today = at.with_timezone(&self.zone).date_naive()
            == self.now.with_timezone(&self.zone).date_naive();
        let form = if is_today { "%H:%M" } else { "%-d %b %H:%M" };
        Time { text: self.shown(at, form), machine: at.format("%Y-%m-%dT%H:%M:%SZ").to_string() }
    }

    pub(crate) fn shown(&self, at: Timestamp, form: &str) -> String {
        at.with_timezone(&self.zone).naive_local().format(form).to_string()
    }

    /// The end of the local day.
    pub(crate) fn midnight(&self) -> Timestamp {
        let offset = self.zone.offset_from_utc_datetime(&self.now.naive_utc()).fix();
        let local = self.now.with_timezone(&offset);
        let next = local.date_naive().succ_opt().unwrap_or(local.date_naive());
        let midnight = next.and_time(chrono::NaiveTime::MIN).and_local_timezone(offset).single();
        midnight.map_or(self.now, |midnight| midnight.to_utc())
    }

    /// How long ago, never negative.
    pub(crate) fn since(&self, at: Timestamp) -> String {
        span(self.now - at)
    }
}

/// E.g. `2h30m`; a negative one is `0s`.
pub(crate) fn span(lasted: TimeDelta) -> String {
    show_duration(whole(lasted.max(TimeDelta::zero())))
}

/// Without milliseconds, from a second on.
fn whole(span: TimeDelta) -> TimeDelta {
    if span.num_seconds() > 0 { TimeDelta::seconds(span.num_seconds()) } else { span }
}

/// To the cent from a dollar on; of no amount two decimals, too.
pub(crate) fn money(amount: MicroUsd) -> String {
    if amount.0 == 0 { "$0.00".to_owned() } else { amount.to_string() }
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(number: u64, one: &str) -> String {
    let plural = match one {
        "box" => "boxes".to_owned(),
        _ => format!("{one}s"),
    };
    if number == 1 { format!("1 {one}") } else { format!("{number} {plural}") }
}

/// The first letter as a capital.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A text of several lines with nothing in it that reorders text, cut after this number of characters.
pub(crate) fn readable(text: &str, chars_max: usize) -> String {
    let is_shown = |letter: &char| matches!(letter, '\n' | '\t') || !is_unsafe(*letter);
    let mut shown: String = text.chars().filter(is_shown).take(chars_max).collect();
    if text.chars().filter(is_shown).nth(chars_max).is_some() {
        shown.push('…');
    }
    shown
}
