//! The lines of an iCalendar file (RFC 5545): calendars, their events, and the properties of each, with the numbers of their lines.
//!
//! Names are compared without regard to case. What lies inside an event (its alarms) and beside events (tasks) is passed over.

use icalendar::parser::Property as Parsed;

use super::{CalendarError, NESTING_MAX};

/// One `NAME;PARAMETER=value:value`.
#[derive(Clone, Debug)]
pub(super) struct Property {
    /// In capitals.
    pub(super) name: String,
    /// The names in capitals.
    parameters: Vec<(String, String)>,
    pub(super) value: String,
}

impl Property {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The properties of one event.
#[derive(Debug)]
pub(super) struct RawEvent {
    /// Where it begins in the file, from 1.
    pub(super) line: usize,
    pub(super) properties: Vec<Property>,
}

/// One of the file's calendars.
#[derive(Debug, Default)]
pub(super) struct RawCalendar {
    pub(super) properties: Vec<Property>,
    pub(super) events: Vec<RawEvent>,
    /// The names of its own time zones.
    pub(super) zones: Vec<String>,
}

/// The calendars of the file, in order.
pub(super) fn read(text: &str) -> Result<Vec<RawCalendar>, CalendarError> {
    let mut calendars: Vec<RawCalendar> = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for (number, line) in unfolded(text) {
        let form = CalendarError::Form(number);
        if line.trim().is_empty() {
            continue;
        }
        if let Some(name) = after(&line, "BEGIN:") {
            match open.len() {
                0 if name == "VCALENDAR" => calendars.push(RawCalendar::default()),
                0 | NESTING_MAX => return Err(form),
                1 if name == "VEVENT" => {
                    let event = RawEvent { line: number, properties: Vec::new() };
                    if let Some(calendar) = calendars.last_mut() {
                        calendar.events.push(event);
                    }
                }
                _ => {}
            }
            open.push(name);
        } else if let Some(name) = after(&line, "END:") {
            if open.pop() != Some(name) {
                return Err(form);
            }
        } else {
            let calendar = calendars.last_mut().filter(|_| !open.is_empty());
            keep(calendar.ok_or(form)?, &open, number, &line)?;
        }
    }
    if calendars.is_empty() || !open.is_empty() {
        return Err(CalendarError::Form(text.lines().count().max(1)));
    }
    Ok(calendars)
}

/// Adds a property to what it belongs to, if that matters.
fn keep(
    calendar: &mut RawCalendar,
    open: &[String],
    number: usize,
    line: &str,
) -> Result<(), CalendarError> {
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    match open[..] {
        ["VCALENDAR"] => calendar.properties.push(property(number, line)?),
        ["VCALENDAR", "VEVENT"] => {
            let property = property(number, line)?;
            if let Some(event) = calendar.events.last_mut() {
                event.properties.push(property);
            }
        }
        ["VCALENDAR", "VTIMEZONE"] => {
            let property = property(number, line)?;
            if property.name == "TZID" {
                calendar.zones.push(property.value);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The rest of a line that begins with `word`, in capitals.
fn after(line: &str, word: &str) -> Option<String> {
    let begins = line.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    begins.then(|| line[word.len()..].trim().to_ascii_uppercase())
}

fn property(number: usize, line: &str) -> Result<Property, CalendarError> {
    let form = |_| CalendarError::Form(number);
    // The parser wants the end of the line.
    let line = format!("{line}\n");
    let parsed = Parsed::try_from(line.as_str()).map_err(form)?;
    let parameters = parsed.params.iter().map(|parameter| {
        let value = parameter.val.as_ref().map_or("", |value| value.as_str());
        (parameter.key.as_str().to_ascii_uppercase(), value.trim_matches('"').to_owned())
    });
    Ok(Property {
        name: parsed.name.as_str().to_ascii_uppercase(),
        parameters: parameters.collect(),
        value: parsed.val.as_str().trim().to_owned(),
    })
}

/// The lines with those joined that were folded, each with the number of its first.
fn unfolded(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(rest), Some((_, whole))) => whole.push_str(rest),
            _ => lines.push((number, line.to_owned())),
        }
    }
    lines
}
