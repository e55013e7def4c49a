//! Text for a terminal. Values come from users, files, messages and clouds: here they are escaped, and cut at a limit.

use std::fmt::Write;

use chrono::{DateTime, FixedOffset, Local, TimeDelta};
use gpuctl_core::text::is_unsafe;
use gpuctl_core::units::{Timestamp, show_age, show_time_left};

/// Characters of one line of output; `--json` has everything.
pub(crate) const LINE_CHARS_MAX: usize = 2_000;
/// Characters of one value in an error about the command line.
pub(crate) const VALUE_CHARS_MAX: usize = 200;
/// Characters of a job's text result, all lines together.
pub(crate) const RESULT_CHARS_MAX: usize = 20_000;
/// Lines of a job's text result.
pub(crate) const RESULT_LINES_MAX: usize = 500;
/// Characters of a name in a table.
const NAME_CHARS_MAX: usize = 80;

/// The width of labels, in columns.
const LABEL_WIDTH: usize = 9;

/// A value as it may stand in a line: control characters, line breaks and characters that change the direction of text are
/// escaped, e.g. `\u{1b}`, and what exceeds `VALUE_CHARS_MAX` is cut.
pub(crate) fn shown(value: &str) -> String {
    within(value, VALUE_CHARS_MAX)
}

/// A name in a table, escaped and cut.
pub(super) fn shown_name(name: &str) -> String {
    within(name, NAME_CHARS_MAX)
}

/// A line, escaped and cut.
pub(crate) fn escaped_line(line: &str) -> String {
    within(line.trim_end(), LINE_CHARS_MAX)
}

fn within(text: &str, chars_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(chars_max));
    for c in text.chars().take(chars_max) {
        if is_unsafe(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    match text.chars().skip(chars_max).count() {
        0 => {}
        cut => shown.push_str(&format!("… ({cut} characters cut)")),
    }
    shown
}

/// JSON text in which no control character is raw: JSON itself escapes only those below U+0020.
pub(super) fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // In valid JSON these can only be inside a string. All are in the basic plane: four digits are enough.
        if c != '\n' && is_unsafe(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Output in lines. Each line is escaped and cut as it is added, so that no value can control the terminal or add a line.
#[derive(Debug, Default)]
pub(crate) struct Lines(String);

impl Lines {
    pub(super) fn of(line: impl AsRef<str>) -> Self {
        let mut lines = Self::default();
        lines.add(line);
        lines
    }

    /// Text made by this program alone, e.g. a script: it is not escaped.
    pub(super) fn verbatim(text: String) -> Self {
        Self(text)
    }

    pub(super) fn add(&mut self, line: impl AsRef<str>) {
        self.0.push_str(&escaped_line(line.as_ref()));
        self.0.push('\n');
    }

    /// A line with a label in front, indented.
    pub(super) fn label(&mut self, label: &str, words: impl AsRef<str>) {
        self.add(format!("  {label:<LABEL_WIDTH$} {}", words.as_ref()));
    }

    /// A text of several lines, the first with a label; at most `RESULT_CHARS_MAX` characters in `RESULT_LINES_MAX` lines.
    pub(super) fn labelled_text(&mut self, label: &str, text: &str) {
        let (mut label, mut left) = (label, RESULT_CHARS_MAX);
        for line in text.lines().take(RESULT_LINES_MAX) {
            if left == 0 {
                break;
            }
            let kept: String = line.trim_end().chars().take(left).collect();
            left -= kept.chars().count();
            self.0.push_str(&format!(
                "  {label:<LABEL_WIDTH$} {}\n",
                within(&kept, RESULT_CHARS_MAX)
            ));
            label = "";
        }
        if left == 0 || text.lines().nth(RESULT_LINES_MAX).is_some() {
            self.label("", "… (cut; --json has all of it)");
        }
    }

    pub(super) fn blank(&mut self) {
        self.0.push('\n');
    }

    pub(super) fn text(&self) -> &str {
        self.0.trim_end()
    }
}

pub(super) fn jobs_of(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

pub(super) fn span(seconds: f64) -> String {
    let span = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    show_age(TimeDelta::from_std(span).unwrap_or_default())
}

/// A document's time in the zone of this machine, which it says.
pub(super) fn short(rfc3339: &str) -> String {
    let Ok(at) = rfc3339.parse::<Timestamp>() else { return rfc3339.to_owned() };
    in_zone(at.with_timezone(&Local).fixed_offset(), "%Y-%m-%d %H:%M:%S")
}

/// A time of day in the zone of this machine, which it says.
pub(super) fn clock(at: Timestamp) -> String {
    in_zone(at.with_timezone(&Local).fixed_offset(), "%H:%M:%S")
}

/// How long it is until a document's time, and when that is.
pub(super) fn until(now: &str, then: &str) -> String {
    match (now.parse::<Timestamp>(), then.parse::<Timestamp>()) {
        (Ok(now), Ok(at)) => format!("in {} ({})", show_time_left(at - now), short(then)),
        _ => short(then),
    }
}

fn in_zone(at: DateTime<FixedOffset>, format: &str) -> String {
    let zone = match at.offset().local_minus_utc() {
        0 => "UTC".to_owned(),
        _ => at.format("%:z").to_string(),
    };
    format!("{} {zone}", at.format(format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        let hostile = "a\u{1b}[31mb\nc\u{7}\u{9b}2J\u{202e}d\t\u{7f}ü日";
        assert_eq!(shown(hostile), "a\\u{1b}[31mb\\nc\\u{7}\\u{9b}2J\\u{202e}d\\t\\u{7f}ü日");
        let json = serde_json::to_string(hostile).unwrap();
        let safe = safe_json(&json);
        assert!(!safe.chars().any(is_unsafe), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), hostile);
    }

    #[test]
    fn a_time_says_its_zone() {
        let at = |text: &str| in_zone(DateTime::parse_from_rfc3339(text).unwrap(), "%H:%M");
        assert_eq!(at("2026-11-21T12:00:00Z"), "12:00 UTC");
        assert_eq!(at("2026-11-21T21:00:00+09:00"), "21:00 +09:00");
        let soon = until("2026-11-21T12:00:00Z", "2026-11-21T12:00:29.6Z");
        assert!(soon.starts_with("in 30s (2026-11-21 "), "{soon}");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = "x".repeat(100_000);
        assert_eq!(shown(&long).len(), VALUE_CHARS_MAX + "… (99800 characters cut)".len());
        let mut lines = Lines::of(&long);
        lines.labelled_text("text", &"y\n".repeat(100_000));
        assert!(
            lines.text().len() < 6 * (LINE_CHARS_MAX + RESULT_CHARS_MAX),
            "{}",
            lines.text().len()
        );
        assert!(lines.text().ends_with("(cut; --json has all of it)"));
    }
}
