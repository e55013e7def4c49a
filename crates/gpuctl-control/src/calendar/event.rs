//! What one event of an iCalendar file means in whole days.
//!
//! A property whose effect on dates is not known is a fault: a holiday that is lost in silence costs a day of box time, and one too
//! many a working day.

use std::collections::BTreeSet;

use chrono::{NaiveDate, NaiveTime, TimeDelta};
use gpuctl_core::text::excerpt;
use gpuctl_core::zone::{self, Zone};

use super::lines::{Property, RawEvent};
use super::recurrence::{self, Steps};
use super::values::{Value, day_from, duration, value};

/// The longest single event.
pub(super) const EVENT_DAYS_MAX: i64 = 366;

/// The properties of an event that say nothing about its days, beside those that begin with `X-`.
const WITHOUT_EFFECT: [&str; 30] = [
    "ATTACH",
    "ATTENDEE",
    "CATEGORIES",
    "CLASS",
    "COLOR",
    "COMMENT",
    "CONFERENCE",
    "CONTACT",
    "CREATED",
    "DESCRIPTION",
    "DTSTAMP",
    "GEO",
    "IMAGE",
    "LAST-MODIFIED",
    "LOCATION",
    "NAME",
    "ORGANIZER",
    "PRIORITY",
    "PARTICIPANT",
    "RELATED-TO",
    "REQUEST-STATUS",
    "RESOURCES",
    "REFRESH-INTERVAL",
    "SEQUENCE",
    "SOURCE",
    "STRUCTURED-DATA",
    "STYLED-DESCRIPTION",
    "SUMMARY",
    "TRANSP",
    "URL",
];

/// Those that say something, and are read below.
const WITH_EFFECT: [&str; 10] = [
    "DTSTART",
    "DTEND",
    "DURATION",
    "RRULE",
    "EXRULE",
    "RDATE",
    "EXDATE",
    "RECURRENCE-ID",
    "STATUS",
    "UID",
];

/// What Outlook, Exchange and Funambol write beside an event of whole days.
const ALL_DAY: [&str; 3] =
    ["X-MICROSOFT-CDO-ALLDAYEVENT", "X-MICROSOFT-MSNCALENDAR-ALLDAYEVENT", "X-FUNAMBOL-ALLDAY"];

/// What is wrong with an event.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("has no {0}")]
    Missing(&'static str),
    #[error("has {0} more than once")]
    Twice(&'static str),
    #[error("has a {0} that cannot be read: `{text}`", text = excerpt(.1))]
    Value(&'static str, String),
    #[error("has a {0} that is not the start of one of its days: `{text}`", text = excerpt(.1))]
    NotADay(&'static str, String),
    /// Longer than `EVENT_DAYS_MAX`, or backwards.
    #[error("does not last from 1 to {EVENT_DAYS_MAX} days")]
    Length,
    /// An invalid recurrence, or one more often than daily.
    #[error("has a recurrence that cannot be read: `{text}`", text = excerpt(.0))]
    Recurrence(String),
    #[error("has the property {name}, whose effect on its dates is not known", name = excerpt(.0))]
    Unknown(String),
    #[error(
        "changes all later occurrences (RANGE=THISANDFUTURE), which is not supported: end the series there and begin another"
    )]
    Range,
    #[error("has recurrences that take too long to follow, together with those before it")]
    Work,
}

/// How messages name an event: `line 12, "Christmas", 20261224`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(String);

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event, as far as it concerns dates.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) label: Label,
    pub(super) uid: Option<String>,
    /// Of two versions the later one counts.
    pub(super) sequence: i64,
    pub(super) replaces: Replaces,
    pub(super) is_cancelled: bool,
    pub(super) days: EventDays,
}

/// Which occurrence of a series the event replaces.
#[derive(Debug, PartialEq)]
pub(super) enum Replaces {
    /// It is a series, or alone.
    Nothing,
    Day(NaiveDate),
    /// With a time of day, as in a series of meetings.
    Time(String),
}

#[derive(Debug)]
pub(super) enum EventDays {
    /// Begins on each of `begins` and lasts `length` days.
    Whole { begins: BTreeSet<NaiveDate>, length: i64 },
    /// Has a time of day.
    Timed,
}

impl Event {
    /// `calendar_zone` is that of an event that names none.
    pub(super) fn read(
        raw: &RawEvent,
        calendar_zone: Option<Zone>,
        steps: &mut Steps,
    ) -> Result<Self, (Label, Fault)> {
        let reader = Reader { raw };
        let label = reader.label();
        let event = reader.event(&label, calendar_zone, steps);
        event.map_err(|fault| (label, fault))
    }
}

/// The zone that `TZID` names: as in the IANA database or on Windows; some write a path or an own name before it.
pub(super) fn zone_of(name: &str) -> Option<Zone> {
    let name = name.trim().trim_matches('"');
    let ends = name.match_indices('/').map(|(at, _)| &name[at + 1..]);
    let iana = std::iter::once(name).chain(ends).find_map(|end| end.parse().ok());
    iana.or_else(|| zone::of_windows(name)?.parse().ok()).filter(|zone| *zone != Zone::UTC)
}

struct Reader<'r> {
    raw: &'r RawEvent,
}

impl<'r> Reader<'r> {
    fn label(&self) -> Label {
        let text = |name| self.all(name).next().map(|property| excerpt(&property.value));
        let summary = text("SUMMARY").map(|summary| format!(", \"{summary}\""));
        let start = text("DTSTART").map(|start| format!(", {start}"));
        let line = self.raw.line;
        Label(format!("line {line}{}{}", summary.unwrap_or_default(), start.unwrap_or_default()))
    }

    fn event(
        &self,
        label: &Label,
        calendar_zone: Option<Zone>,
        steps: &mut Steps,
    ) -> Result<Event, Fault> {
        self.check_names()?;
        let start = self.one("DTSTART")?.ok_or(Fault::Missing("DTSTART"))?;
        let home = start.parameter("TZID").map_or(calendar_zone, zone_of);
        let status = self.one("STATUS")?;
        let sequence = self.all("SEQUENCE").next().and_then(|found| found.value.parse().ok());
        Ok(Event {
            label: label.clone(),
            uid: self.one("UID")?.map(|uid| uid.value.clone()),
            sequence: sequence.unwrap_or(0),
            replaces: self.replaces(home)?,
            is_cancelled: status
                .is_some_and(|status| status.value.eq_ignore_ascii_case("CANCELLED")),
            days: self.days(start, home, steps)?,
        })
    }

    fn check_names(&self) -> Result<(), Fault> {
        let known = |name: &str| {
            name.starts_with("X-") || WITHOUT_EFFECT.contains(&name) || WITH_EFFECT.contains(&name)
        };
        match self.raw.properties.iter().find(|property| !known(&property.name)) {
            Some(unknown) => Err(Fault::Unknown(unknown.name.clone())),
            None => Ok(()),
        }
    }

    fn replaces(&self, home: Option<Zone>) -> Result<Replaces, Fault> {
        let Some(property) = self.one("RECURRENCE-ID")? else { return Ok(Replaces::Nothing) };
        if property.parameter("RANGE").is_some() {
            return Err(Fault::Range);
        }
        if self.all("UID").next().is_none() {
            return Err(Fault::Missing("UID"));
        }
        let value = read(property, "RECURRENCE-ID", &property.value)?;
        let own = property.parameter("TZID").and_then(zone_of);
        let day = day_from(value, own, home).map(Replaces::Day);
        Ok(day.unwrap_or_else(|| Replaces::Time(property.value.clone())))
    }

    fn days(
        &self,
        start: &Property,
        home: Option<Zone>,
        steps: &mut Steps,
    ) -> Result<EventDays, Fault> {
        let Some((first, length)) = self.span(start, home)? else { return Ok(EventDays::Timed) };
        // A start that its rules do not match is an occurrence, too.
        let mut begins = BTreeSet::from([first]);
        for rule in self.all("RRULE") {
            match recurrence::days(&rule.value, first, home, steps)? {
                Some(days) => begins.extend(days),
                // A series that was cut off before its first occurrence.
                None => {
                    begins.remove(&first);
                }
            }
        }
        begins.extend(self.listed("RDATE", home)?);
        for rule in self.all("EXRULE") {
            for day in recurrence::days(&rule.value, first, home, steps)?.unwrap_or_default() {
                begins.remove(&day);
            }
        }
        for day in self.listed("EXDATE", home)? {
            begins.remove(&day);
        }
        Ok(EventDays::Whole { begins, length })
    }

    /// The first day and the number of days; `None` if it has a time of day.
    fn span(
        &self,
        start: &Property,
        home: Option<Zone>,
    ) -> Result<Option<(NaiveDate, i64)>, Fault> {
        let from = read(start, "DTSTART", &start.value)?;
        let is_marked = self.raw.properties.iter().any(|property| {
            ALL_DAY.contains(&property.name.as_str())
                && ["TRUE", "1"].iter().any(|yes| property.value.eq_ignore_ascii_case(yes))
        });
        let own = start.parameter("TZID").and_then(zone_of);
        // Without a mark, an event from 23:00 to 23:00 in UTC is a night shift as likely as a day of Berlin.
        let first = match from {
            Value::Utc(at) if !is_marked && home.is_none() => {
                (at.time() == NaiveTime::MIN).then_some(at.date())
            }
            from => day_from(from, own, home),
        };
        let Some(first) = first else {
            let bad = || Fault::NotADay("DTSTART", start.value.clone());
            return if is_marked { Err(bad()) } else { Ok(None) };
        };
        let is_whole = is_marked || matches!(from, Value::Date(_));
        match self.length(first, home)? {
            // An end that is the start: RFC 5545 forbids it, and many write it for one day.
            Some(0) if is_whole => Ok(Some((first, 1))),
            Some(days) if (1..=EVENT_DAYS_MAX).contains(&days) => Ok(Some((first, days))),
            None | Some(0) if !is_whole => Ok(None),
            _ => Err(Fault::Length),
        }
    }

    /// How many days it lasts; `None` if these are not whole.
    fn length(&self, first: NaiveDate, home: Option<Zone>) -> Result<Option<i64>, Fault> {
        let Some(end) = self.one("DTEND")? else { return self.length_by_duration() };
        let own = end.parameter("TZID").and_then(zone_of);
        let mut until = read(end, "DTEND", &end.value)?;
        // The last minute or second of a day is its end.
        if let Value::Local(at) | Value::Utc(at) = &mut until
            && [(23, 59, 0), (23, 59, 59)].map(clock).contains(&Some(at.time()))
        {
            *at = at.date().and_time(NaiveTime::MIN) + TimeDelta::days(1);
        }
        Ok(day_from(until, own, home).map(|end| (end - first).num_days()))
    }

    fn length_by_duration(&self) -> Result<Option<i64>, Fault> {
        let Some(lasts) = self.one("DURATION")? else { return Ok(Some(0)) };
        let bad = || Fault::Value("DURATION", lasts.value.clone());
        let span = duration(&lasts.value).ok_or_else(bad)?;
        let days = span.num_days();
        Ok((span == TimeDelta::days(days)).then_some(days))
    }

    fn listed(&self, name: &'static str, home: Option<Zone>) -> Result<Vec<NaiveDate>, Fault> {
        let mut days = Vec::new();
        for list in self.all(name) {
            let own = list.parameter("TZID").and_then(zone_of);
            for text in list.value.split(',') {
                let day = day_from(read(list, name, text)?, own, home);
                days.push(day.ok_or_else(|| Fault::NotADay(name, text.to_owned()))?);
            }
        }
        Ok(days)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'r Property> {
        self.raw.properties.iter().filter(move |property| property.name == name)
    }

    /// A property that an event has once at most.
    fn one(&self, name: &'static str) -> Result<Option<&'r Property>, Fault> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(Fault::Twice(name)),
            (first, None) => Ok(first),
        }
    }
}

fn clock((hour, minute, second): (u32, u32, u32)) -> Option<NaiveTime> {
    NaiveTime::from_hms_opt(hour, minute, second)
}

/// The value of a property. `PERIOD`, which `RDATE` may have, is not one of whole days.
fn read(property: &Property, name: &'static str, text: &str) -> Result<Value, Fault> {
    let kind = property.parameter("VALUE").unwrap_or("DATE").to_ascii_uppercase();
    let known = ["DATE", "DATE-TIME"].contains(&kind.as_str());
    let found = known.then(|| value(text)).flatten();
    found.ok_or_else(|| Fault::Value(name, text.to_owned()))
}
