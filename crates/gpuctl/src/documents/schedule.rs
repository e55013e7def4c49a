//! The documents of `gpuctl schedule`: the state at an instant, the days ahead, and what is hardly meant.

use chrono::Datelike;
use gpuctl_core::schedule::{Day, Desired, Schedule, Warning};
use gpuctl_core::units::{PoolId, Timestamp};
use serde::Serialize;

use gpuctl_control::wire::time;

/// `gpuctl.schedule-at`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScheduleAtDocument {
    /// The pool.
    pub(crate) pool: String,
    /// The instant.
    pub(crate) at: String,
    /// The zone of the schedule's first entry.
    pub(crate) zone: String,
    /// The instant on local clocks there, as `2026-11-23 09:00`.
    pub(crate) at_local: String,
    /// `running`, `stopped` or `any`.
    pub(crate) desired: &'static str,
    /// Why.
    pub(crate) reason: String,
    /// When that changes.
    pub(crate) next_change: Option<EdgeDocument>,
}

/// When a schedule changes its mind.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EdgeDocument {
    /// When.
    pub(crate) at: String,
    /// The same on local clocks, as above.
    pub(crate) at_local: String,
    /// What it wants from then on.
    pub(crate) desired: &'static str,
    /// Why.
    pub(crate) reason: String,
}

impl ScheduleAtDocument {
    /// The document of a schedule at an instant.
    pub(crate) fn of(pool: &PoolId, schedule: &Schedule, at: Timestamp) -> Self {
        let state = schedule.at(at);
        let local =
            |at: Timestamp| at.with_timezone(&schedule.zone()).format("%Y-%m-%d %H:%M").to_string();
        let next_change = schedule.next_change(at).map(|edge| EdgeDocument {
            at: time(edge.at),
            at_local: local(edge.at),
            desired: edge.desired.as_str(),
            reason: edge.reason,
        });
        Self {
            pool: pool.to_string(),
            at: time(at),
            zone: schedule.zone().to_string(),
            at_local: local(at),
            desired: state.desired.as_str(),
            reason: state.reason,
            next_change,
        }
    }
}

/// `gpuctl.schedule-show`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScheduleShowDocument {
    /// The pool.
    pub(crate) pool: String,
    /// The zone of its first entry: days and local times are of this zone.
    pub(crate) zone: String,
    /// The entries, as people wrote them.
    pub(crate) entries: Vec<String>,
    /// The days.
    pub(crate) days: Vec<DayDocument>,
    /// The hours of all these days in which at least one box is wanted.
    pub(crate) running_hours: f64,
}

/// One local day.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DayDocument {
    /// Its date.
    pub(crate) date: String,
    /// `Mon` to `Sun`.
    pub(crate) weekday: String,
    /// `skip` or `extra`, if the calendar names it.
    pub(crate) calendar: Option<&'static str>,
    /// How long it is: 24, but where clocks are changed.
    pub(crate) hours: f64,
    /// The hours in which at least one box is wanted.
    pub(crate) running_hours: f64,
    /// What is wanted from when to when, without a hole.
    pub(crate) parts: Vec<PartDocument>,
}

/// A part of a day.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PartDocument {
    /// `running`, `stopped` or `any`.
    pub(crate) desired: &'static str,
    /// From when.
    pub(crate) begin: String,
    /// Until when.
    pub(crate) end: String,
    /// The begin on local clocks, as `09:00`.
    pub(crate) begin_local: String,
    /// The end on local clocks; `24:00` for the end of the day.
    pub(crate) end_local: String,
    /// How long.
    pub(crate) minutes: i64,
}

impl ScheduleShowDocument {
    /// The document of a number of days, from the one that contains `from`.
    pub(crate) fn of(pool: &PoolId, schedule: &Schedule, from: Timestamp, days: usize) -> Self {
        let days: Vec<_> =
            schedule.days(from, days).map(|day| DayDocument::of(schedule, &day)).collect();
        Self {
            pool: pool.to_string(),
            zone: schedule.zone().to_string(),
            entries: schedule.entries.iter().map(ToString::to_string).collect(),
            running_hours: days.iter().map(|day| day.running_hours).sum(),
            days,
        }
    }
}

impl DayDocument {
    fn of(schedule: &Schedule, day: &Day) -> Self {
        let local = |at: Timestamp| at.with_timezone(&schedule.zone()).format("%H:%M").to_string();
        let part = |(desired, begin, end): &(Desired, Timestamp, Timestamp)| PartDocument {
            desired: desired.as_str(),
            begin: time(*begin),
            end: time(*end),
            begin_local: local(*begin),
            end_local: if *end == day.end { "24:00".to_owned() } else { local(*end) },
            minutes: (*end - *begin).num_minutes(),
        };
        let parts: Vec<_> = day.parts.iter().map(part).collect();
        let running = parts.iter().filter(|part| part.desired == Desired::Running.as_str());
        let named =
            |dates: &std::collections::BTreeSet<_>, name| dates.contains(&day.date).then_some(name);
        let calendar = &schedule.calendar;
        Self {
            date: day.date.to_string(),
            weekday: day.date.weekday().to_string(),
            calendar: named(&calendar.skip, "skip").or(named(&calendar.extra, "extra")),
            hours: hours((day.end - day.begin).num_minutes()),
            running_hours: hours(running.map(|part| part.minutes).sum()),
            parts,
        }
    }
}

/// `gpuctl.schedule-lint`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScheduleLintDocument {
    /// The pools that were looked at.
    pub(crate) pools: Vec<String>,
    /// What is hardly meant.
    pub(crate) warnings: Vec<WarningDocument>,
}

/// Something that is hardly meant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WarningDocument {
    /// The pool.
    pub(crate) pool: String,
    /// Which of its entries, counted from 1.
    pub(crate) entry: usize,
    /// What is odd about it.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: String,
}

impl WarningDocument {
    /// The document of a pool's warning.
    pub(crate) fn of(pool: &PoolId, warning: Warning) -> Self {
        let Warning { entry, message, hint } = warning;
        Self { pool: pool.to_string(), entry, message, hint }
    }
}

/// Exact: no day has more minutes than a fraction has bits.
fn hours(minutes: i64) -> f64 {
    f64::from(i32::try_from(minutes).unwrap_or(i32::MAX)) / 60.0
}
