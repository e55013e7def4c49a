//! One `[[pool.NAME.schedule]]`: parsed from its texts; all problems are reported at once, each with its key.

use std::fmt;

use super::calendar::Turn;
use super::clocks::DAY_MINUTES;
use super::cron;
use super::days::{Days, Monthdays, Months, Weekdays};
use super::field::Field;
use super::fires::{Fires, FixedTimes, Times};
use super::window::Window;
use crate::suggest::nearest;
use crate::text::excerpt;
use crate::zone::{self, Zone};

/// A window, or a start and a stop, or one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) kind: Kind,
    /// As it was written, with what is left out filled in.
    text: String,
}

/// What an entry does while one of its stretches lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Run,
    /// Only a stop without a start does this.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Window(Window),
    /// A start without a stop or a stop without a start, also as a window with one side.
    Lone(Fires),
    Pair(Fires, Fires),
}

/// The texts of an entry; `None` where a key is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntrySpec {
    /// An IANA time zone.
    pub zone: Option<String>,
    /// The time of day at which the window begins.
    pub begin: Option<String>,
    /// The time of day at which it ends.
    pub end: Option<String>,
    /// The days of the week on which it begins.
    pub weekdays: Option<String>,
    /// The days of the month on which it begins.
    pub monthdays: Option<String>,
    /// The months in which it begins.
    pub months: Option<String>,
    /// When to start, in EventBridge's grammar.
    pub start: Option<String>,
    /// When to stop, in the same grammar.
    pub stop: Option<String>,
}

/// What is wrong with an entry, and at which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryProblem {
    /// E.g. `begin`.
    pub key: &'static str,
    pub error: EntryError,
}

/// Why a text of an entry is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("is missing")]
    ZoneMissing,
    /// Not in the IANA database.
    #[error("`{0}` is not a known time zone")]
    Zone(String),
    #[error("`{0}` is not a valid weekday, nor a list or range of weekdays")]
    Weekdays(String),
    #[error("`{0}` is a number, and weekdays are names")]
    WeekdayNumber(String),
    #[error("`L` alone is not a valid weekday")]
    BareL,
    #[error("`{0}` is not a valid day of the month, nor a list or range of days")]
    Monthdays(String),
    #[error("`{0}` is not a valid month, nor a list or range of months")]
    Months(String),
    #[error("`{0}` is not a valid time of day")]
    Time(String),
    /// It could mean an empty window or a whole day (T9).
    #[error("begin and end are both {0}")]
    Empty(String),
    /// A window and a cron expression in one entry.
    #[error("cannot be used together with `{0}`")]
    Mixed(&'static str),
    #[error("`{0}` is neither `cron(…)`, `rate(…)` nor `at(…)`")]
    Expression(String),
    #[error("`at({0})` is not a valid date and time")]
    At(String),
    /// Unix has five fields, Quartz seven.
    #[error("needs 6 fields, and has {0}")]
    CronFields(usize),
    #[error("`{text}` is not valid as the {} field", field.as_str())]
    CronField { field: Field, text: String },
    /// EventBridge can neither AND nor OR the two (T11).
    #[error("exactly one of day-of-month and day-of-week must be `?`")]
    CronDays,
    #[error("`{text}` has numbers, and weekdays are names")]
    CronWeekdayNumber {
        text: String,
        /// The same with names, counted as EventBridge counts.
        names: String,
    },
    #[error("`rate({0})` is not a valid rate")]
    Rate(String),
    /// `1 minutes` or `5 minute`.
    #[error("`rate({text})` needs its unit in the {}", if right.ends_with('s') { "plural" } else { "singular" })]
    RateUnit {
        text: String,
        /// What EventBridge accepts.
        right: String,
    },
    #[error("`{0}` is not a valid date, nor a range of dates")]
    Dates(String),
    #[error("has more than {} dates", super::CALENDAR_DATES_MAX)]
    TooManyDates,
}

impl EntryError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::ZoneMissing => "write it as `zone = \"Asia/Tokyo\"`".to_owned(),
            Self::Zone(text) => zone::hint(text),
            Self::Weekdays(text) => day_meant(text).unwrap_or_else(|| "use names, e.g. `mon-fri`, `sat,sun`, `mon#1` (the first of the month) or `fri#L` (the last)".to_owned()),
            // T10: 0, 1 and 7 each mean different days in cron, EventBridge and ISO.
            Self::WeekdayNumber(_) => "write `mon-fri` or `sat,sun`; numbers mean different days to different tools".to_owned(),
            // The AWS Instance Scheduler reads it as Sunday, EventBridge as Saturday.
            Self::BareL => "write `sat` or `sun`, or `fri#L` for the last Friday of the month; tools differ on `L`".to_owned(),
            Self::Monthdays(text) if Monthdays::without_wrap(text).is_some() => {
                format!("write `{}`", Monthdays::without_wrap(text).unwrap_or_default())
            }
            Self::Monthdays(_) => "use 1 to 31, e.g. `1-15`, `1,15`, `1/10`, `L` (the last), `15W` (the nearest working day) or `LW`".to_owned(),
            Self::Months(text) => month_meant(text).unwrap_or_else(|| {
                "use names or 1 to 12, e.g. `jan-mar`, `nov-feb` or `1,7`".to_owned()
            }),
            Self::Time(_) => "write it as `09:00`; an end can be `24:00`".to_owned(),
            Self::Empty(time) => format!(
                "leave both out for 00:00 to 24:00; for 24 hours from {time} write cron expressions as `start` and `stop`"
            ),
            Self::Mixed(_) => "an entry is a window (begin, end, days) or cron expressions (start, stop): write two entries".to_owned(),
            Self::Expression(_) => "write `cron(0 9 ? * MON-FRI *)`, `rate(12 hours)` or `at(2026-12-01T13:00:00)`, as in EventBridge".to_owned(),
            Self::At(_) => "write `at(2026-12-01T13:00:00)`: local time of `zone`, without an offset, in whole minutes from 1970 to 2199".to_owned(),
            Self::CronFields(_) => "they are: minutes hours day-of-month month day-of-week year, e.g. `cron(0 9 ? * MON-FRI *)`".to_owned(),
            Self::CronField { field, .. } => field.grammar().to_owned(),
            Self::CronDays => "write `cron(0 9 ? * MON-FRI *)` or `cron(0 9 1 * ? *)`".to_owned(),
            Self::CronWeekdayNumber { names, .. } if names.contains('?') => "write names, e.g. `MON-FRI`; EventBridge counts from SUN as 1".to_owned(),
            Self::CronWeekdayNumber { text, names } => format!("`{text}` is `{names}` in EventBridge: write `{names}`"),
            Self::Rate(_) => "write `rate(1 hour)` or `rate(12 hours)`: minutes, hours or days, up to ten years".to_owned(),
            Self::RateUnit { right, .. } => format!("write `rate({right})`"),
            Self::Dates(_) => "write `2026-12-25` or `2026-12-24..2026-12-31`".to_owned(),
            Self::TooManyDates => "leave the schedule out instead".to_owned(),
        }
    }
}

/// The days that a word means which is none of a weekday: `tues`, `weekend`, `mondays`.
fn day_meant(text: &str) -> Option<String> {
    let range = match text.trim().to_lowercase().as_str() {
        "weekday" | "weekdays" | "workdays" | "business" => "mon-fri",
        "weekend" | "weekends" => "sat,sun",
        "daily" | "everyday" | "every day" | "all" | "*" => {
            return Some("leave `weekdays` out for every day".to_owned());
        }
        _ => return name_meant(text, "monday,tuesday,wednesday,thursday,friday,saturday,sunday"),
    };
    Some(format!("did you mean `{range}`?"))
}

fn month_meant(text: &str) -> Option<String> {
    let months =
        "january,february,march,april,may,june,july,august,september,october,november,december";
    name_meant(text, months)
}

/// The three letters of the first part of `text` that is a mistyped or half a name: `tues`, `sept`, `wensday`.
fn name_meant(text: &str, names: &str) -> Option<String> {
    let is_name = |part: &str| names.split(',').any(|name| name == part || name[..3] == *part);
    let parts = text.split([',', '-', '/', '#']).map(|part| part.trim().to_lowercase());
    let wrong = parts.into_iter().find(|part| part.len() >= 3 && !is_name(part))?;
    let begins = |name: &&str| name.starts_with(&wrong) || wrong.starts_with(*name);
    let name = names.split(',').find(begins).or_else(|| nearest(&wrong, names.split(',')))?;
    Some(format!("did you mean `{}`?", &name[..3]))
}

impl Entry {
    /// Parses an entry.
    ///
    /// # Errors
    /// All problems of the texts.
    pub fn new(spec: &EntrySpec) -> Result<Self, Vec<EntryProblem>> {
        let mut reader = Reader { problems: Vec::new() };
        let kind = if spec.start.is_some() || spec.stop.is_some() {
            reader.expressions(spec)
        } else {
            reader.window(spec)
        };
        match kind {
            Some(kind) if reader.problems.is_empty() => Ok(Self { kind, text: spec.to_string() }),
            _ => Err(reader.problems),
        }
    }

    /// The zone of its days and times.
    #[must_use]
    pub fn zone(&self) -> Zone {
        match &self.kind {
            Kind::Window(window) => window.zone,
            Kind::Lone(fires) | Kind::Pair(fires, _) => fires.zone,
        }
    }

    /// When it fires, if it is a start without a stop.
    pub(super) fn starts(&self) -> Option<&Fires> {
        match &self.kind {
            Kind::Lone(fires) if fires.turn == Turn::Begin => Some(fires),
            _ => None,
        }
    }

    pub(super) fn effect(&self) -> Effect {
        match &self.kind {
            Kind::Lone(fires) if fires.turn == Turn::End => Effect::Stop,
            Kind::Lone(_) | Kind::Window(_) | Kind::Pair(..) => Effect::Run,
        }
    }

    /// Whether it has a begin and an end.
    pub(crate) fn is_two_sided(&self) -> bool {
        !matches!(self.kind, Kind::Lone(_))
    }

    /// What is probably not meant by its zone, and what to write.
    pub(super) fn zone_lint(&self) -> Option<(String, String)> {
        zone::lint(self.zone())
    }

    /// Whether it is a window that never ends: whole days, every day.
    pub(super) fn is_always(&self) -> bool {
        matches!(&self.kind, Kind::Window(window) if window.begin % DAY_MINUTES == window.end % DAY_MINUTES && window.days == Days::EVERY)
    }
}

/// Shows e.g. `mon-fri 09:00-19:00 Asia/Tokyo`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for EntrySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.monthdays.as_ref().map(|days| format!("days {days}"));
        let times = match (&self.begin, &self.end) {
            (Some(begin), Some(end)) => Some(format!("{begin}-{end}")),
            (Some(begin), None) => Some(format!("from {begin}")),
            (None, Some(end)) => Some(format!("stop at {end}")),
            (None, None) if self.start.is_some() || self.stop.is_some() => None,
            (None, None) => Some("all day".to_owned()),
        };
        let start = self.start.as_ref().map(|start| format!("start {start}"));
        let stop = self.stop.as_ref().map(|stop| format!("stop {stop}"));
        let zone = self.zone.clone().unwrap_or_else(|| "UTC".to_owned());
        let parts = [self.weekdays.clone(), days, self.months.clone(), times, start, stop];
        let parts: Vec<String> = parts.into_iter().flatten().chain([zone]).collect();
        write!(f, "`{}`", parts.join(" "))
    }
}

/// Parses texts and collects their problems.
struct Reader {
    problems: Vec<EntryProblem>,
}

impl Reader {
    fn window(&mut self, spec: &EntrySpec) -> Option<Kind> {
        let zone = self.zone(spec).or_else(|| {
            if spec.zone.is_none() {
                self.problem("zone", EntryError::ZoneMissing);
            }
            None
        });
        let weekdays = self.read("weekdays", spec.weekdays.as_deref(), Weekdays::parse);
        let monthdays =
            self.read("monthdays", spec.monthdays.as_deref(), Monthdays::parse_of_window);
        let months = self.read("months", spec.months.as_deref(), Months::parse);
        let begin = self.read("begin", spec.begin.as_deref(), |text| parse_time(text, Turn::Begin));
        let end = self.read("end", spec.end.as_deref(), |text| parse_time(text, Turn::End));
        if begin.is_some() && begin == end {
            let text = spec.begin.clone().unwrap_or_default();
            self.problem("end", EntryError::Empty(text));
        }
        let zone = zone?;
        let days = Days::new(
            weekdays.unwrap_or(Weekdays::EVERY),
            monthdays.unwrap_or(Monthdays::EVERY),
            months.unwrap_or(Months::EVERY),
            None,
        );
        let lone = |turn, days, time| {
            let times = Times::Fixed(FixedTimes { days, minutes: vec![time] });
            Kind::Lone(Fires { zone, turn, times })
        };
        Some(match (begin, end) {
            (Some(begin), None) => lone(Turn::Begin, days, begin),
            (None, Some(end)) => lone(Turn::End, days, end),
            (begin, end) => Kind::Window(Window {
                zone,
                days,
                begin: begin.unwrap_or(0),
                end: end.unwrap_or(DAY_MINUTES),
            }),
        })
    }

    fn expressions(&mut self, spec: &EntrySpec) -> Option<Kind> {
        let beside = if spec.start.is_some() { "start" } else { "stop" };
        for (key, text) in [
            ("begin", &spec.begin),
            ("end", &spec.end),
            ("weekdays", &spec.weekdays),
            ("monthdays", &spec.monthdays),
            ("months", &spec.months),
        ] {
            if text.is_some() {
                self.problem(key, EntryError::Mixed(beside));
            }
        }
        let zone = if spec.zone.is_some() { self.zone(spec)? } else { Zone::UTC };
        let start =
            self.read("start", spec.start.as_deref(), |text| cron::parse(text, zone, Turn::Begin));
        let stop =
            self.read("stop", spec.stop.as_deref(), |text| cron::parse(text, zone, Turn::End));
        match (start, stop) {
            (Some(start), Some(stop)) => Some(Kind::Pair(start, stop)),
            (Some(lone), None) | (None, Some(lone)) => Some(Kind::Lone(lone)),
            (None, None) => None,
        }
    }

    fn zone(&mut self, spec: &EntrySpec) -> Option<Zone> {
        self.read("zone", spec.zone.as_deref(), |text| {
            text.parse().map_err(|_| EntryError::Zone(excerpt(text)))
        })
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, EntryError>,
    ) -> Option<T> {
        parse(text?).map_err(|error| self.problem(key, error)).ok()
    }

    fn problem(&mut self, key: &'static str, error: EntryError) {
        self.problems.push(EntryProblem { key, error });
    }
}

/// The minute of the day. `4:35` is accepted for `04:35`.
fn parse_time(text: &str, turn: Turn) -> Result<u16, EntryError> {
    let bad = || EntryError::Time(excerpt(text));
    let (hour, minute) = text.trim().split_once(':').ok_or_else(bad)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 || !digits(hour) || !digits(minute) {
        return Err(bad());
    }
    let hour: u16 = hour.parse().map_err(|_| bad())?;
    let minute: u16 = minute.parse().map_err(|_| bad())?;
    let time = hour * 60 + minute;
    let fits = minute < 60 && (hour < 24 || time == DAY_MINUTES && turn == Turn::End);
    fits.then_some(time).ok_or_else(bad)
}
