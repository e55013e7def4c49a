//! The documents of `gpuctl schedule`: the state at a time, the days ahead, and warnings.

use chrono::Datelike;
use gpuctl_control::wire::plan::SubmitDocument;
use gpuctl_core::policy::Pool;
use gpuctl_core::schedule::{Day, Desired, Schedule, Source, Warning};
use gpuctl_core::units::{PoolId, Timestamp};
use gpuctl_core::zone;
use serde::Serialize;

use gpuctl_control::wire::time;

/// `gpuctl.schedule-at`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScheduleAtDocument {
    pub(crate) pool: String,
    pub(crate) at: String,
    /// The zone of the schedule's first entry.
    pub(crate) zone: String,
    /// The local time in that zone, e.g. `2026-11-23 09:00`.
    pub(crate) at_local: String,
    /// `running`, `stopped` or `any`.
    pub(crate) desired: &'static str,
    pub(crate) reason: String,
    /// When that changes.
    pub(crate) next_change: Option<EdgeDocument>,
}

/// The next change of what a schedule wants.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EdgeDocument {
    pub(crate) at: String,
    /// The local time, as above.
    pub(crate) at_local: String,
    /// What it wants from then on.
    pub(crate) desired: &'static str,
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
    pub(crate) pool: String,
    /// The zone of its first entry: days and local times are of this zone.
    pub(crate) zone: String,
    /// The entries, in short form.
    pub(crate) entries: Vec<String>,
    pub(crate) days: Vec<DayDocument>,
    /// The hours in which at least one box is wanted, of all days.
    pub(crate) running_hours: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct DayDocument {
    pub(crate) date: String,
    /// `Mon` to `Sun`.
    pub(crate) weekday: String,
    /// `skip` or `extra`, if the calendar names it.
    pub(crate) calendar: Option<&'static str>,
    /// Its length: 24, except where clocks change.
    pub(crate) hours: f64,
    /// The hours in which at least one box is wanted.
    pub(crate) running_hours: f64,
    /// What is wanted over the day, without gaps.
    pub(crate) parts: Vec<PartDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PartDocument {
    /// `running`, `stopped` or `any`.
    pub(crate) desired: &'static str,
    pub(crate) begin: String,
    pub(crate) end: String,
    /// The start in local time, e.g. `09:00`.
    pub(crate) begin_local: String,
    /// The end in local time; `24:00` for the end of the day.
    pub(crate) end_local: String,
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
    /// The pools that were checked.
    pub(crate) pools: Vec<String>,
    pub(crate) warnings: Vec<WarningDocument>,
    /// What the pools' calendars hold.
    pub(crate) calendars: Vec<CalendarDocument>,
    /// What is submitted at certain times.
    pub(crate) submits: Vec<SubmitDocument>,
    pub(crate) time_zones: TimeZonesDocument,
}

/// A list of dates, or a calendar file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CalendarDocument {
    pub(crate) pool: String,
    /// `skip`, `skip_file`, `extra` or `extra_file`.
    pub(crate) setting: &'static str,
    /// The file, as it is named in the configuration.
    pub(crate) file: Option<String>,
    /// The number of its dates, past ones included.
    pub(crate) dates: usize,
    /// The next few of them.
    pub(crate) next: Vec<String>,
    /// How many events of the file do not count, since they have a time of day.
    pub(crate) left_out: usize,
}

impl CalendarDocument {
    /// The next dates that are listed.
    const NEXT_MAX: usize = 3;

    /// The documents of a pool's calendar at `now`, in the zone of its schedule.
    pub(crate) fn of_pool(pool: &Pool, now: Timestamp) -> Vec<Self> {
        let today = now.with_timezone(&pool.schedule.zone()).date_naive();
        let document = |source: &Source| Self {
            pool: pool.id.to_string(),
            setting: source.key,
            file: source.file.clone(),
            dates: source.dates.len(),
            next: source
                .dates
                .range(today..)
                .take(Self::NEXT_MAX)
                .map(ToString::to_string)
                .collect(),
            left_out: source.left_out,
        };
        pool.schedule.calendar.sources.iter().map(document).collect()
    }
}

/// The data of the time zones, which is part of the program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TimeZonesDocument {
    /// The release of the IANA database.
    pub(crate) version: &'static str,
    /// The day on which it was published.
    pub(crate) published: String,
    /// What to know and to do, if it is more than a year old.
    pub(crate) warning: Option<String>,
}

impl TimeZonesDocument {
    /// The document of the data in use.
    pub(crate) fn of(now: Timestamp) -> Self {
        let warning = zone::aged(now).map(|(message, hint)| format!("{message}; {hint}"));
        Self { version: zone::VERSION, published: zone::RELEASED.to_string(), warning }
    }
}

/// An entry that probably does not mean what it says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WarningDocument {
    pub(crate) pool: String,
    /// Which of its entries, counted from 1.
    pub(crate) entry: usize,
    /// The problem.
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
