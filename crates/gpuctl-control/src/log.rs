//! Lines of logs: what people read of a line that a worker, a command, the function or a box's console wrote (`LogLine`), and what
//! gpuctl's own lines may hold of values that come from elsewhere (`shown`).

mod escape;

use gpuctl_core::units::Timestamp;
use serde_json::{Map, Value};

pub use escape::{Escaped, SHOWN_CHARS_MAX, escaped, shown};

/// How the lines that `tracing` writes name their level.
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
/// What the function's lines have besides message and fields; Lambda's own span names only the request.
const BESIDE: [&str; 6] = ["level", "message", "span", "spans", "target", "timestamp"];

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, if it is known.
    pub at: Option<Timestamp>,
    /// Its level, e.g. `INFO`, if it has one.
    pub level: Option<String>,
    pub text: String,
    /// Whether users can leave it out: metrics, and the lines that Lambda puts around a call.
    pub is_noise: bool,
}

impl LogLine {
    /// A line as programs write it: with a time and a level in front, or with neither.
    #[must_use]
    pub fn of_text(line: &str) -> Self {
        let line = clean(line);
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let Ok(at) = first.parse::<Timestamp>() else {
            return Self { at: None, level: None, text: line, is_noise: false };
        };
        let rest = rest.trim_start();
        let (word, words) = rest.split_once(' ').unwrap_or((rest, ""));
        let (level, text) =
            if LEVELS.contains(&word) { (Some(word.to_owned()), words) } else { (None, rest) };
        Self { at: Some(at), level, text: text.to_owned(), is_noise: false }
    }

    /// A line of the function's log group: a JSON document of `tracing`'s, metrics, or a line of Lambda's.
    #[must_use]
    pub fn of_function(at: Option<Timestamp>, line: &str) -> Self {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
            let text = clean(line);
            let is_mark = |word: &&str| text.starts_with(word);
            let is_noise = ["START RequestId", "END RequestId", "INIT_START"].iter().any(is_mark);
            return Self { at, level: None, text, is_noise };
        };
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        let (Some(level), Some(message)) = (text("level"), text("message")) else {
            let is_noise = fields.contains_key("_aws");
            return Self { at, level: None, text: clean(line), is_noise };
        };
        let text = format!("{}{}", clean(message), others(&fields));
        Self { at, level: Some(level.to_owned()), text, is_noise: false }
    }
}

/// The other fields, as `tracing` writes them in text.
fn others(fields: &Map<String, Value>) -> String {
    let fields = fields.iter().filter(|(key, _)| !BESIDE.contains(&key.as_str()));
    let word = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!(" {key}={}", clean(text)),
        other => format!(" {key}={other}"),
    };
    fields.map(word).collect()
}

/// Without colours and other control sequences, which a box's console is full of. Unlike `escaped` it removes them: they are part of
/// the console's display, not of what was said.
fn clean(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.trim_end().chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.as_str().starts_with('[') {
                let is_end = |c: &char| ('\u{40}'..='\u{7e}').contains(c);
                let _ = chars.by_ref().skip(1).find(is_end);
            }
        } else if c == '\t' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_line_has_a_time_and_a_level_and_a_commands_has_neither() {
        let line =
            LogLine::of_text("2026-11-22T09:00:00.123456Z  INFO gpu_worker: ready box=gpu-1");
        assert_eq!(line.at, "2026-11-22T09:00:00.123456Z".parse().ok());
        assert_eq!(
            (line.level.as_deref(), line.text.as_str()),
            (Some("INFO"), "gpu_worker: ready box=gpu-1")
        );
        let line = LogLine::of_text("listening on port 80");
        assert_eq!((line.at, line.level, line.text.as_str()), (None, None, "listening on port 80"));
        let line = LogLine::of_text("2026-11-22T09:00:00Z GET /");
        assert_eq!((line.level, line.text.as_str()), (None, "GET /"));
    }

    #[test]
    fn the_functions_line_is_its_message_and_its_fields() {
        let line = r#"{"level":"WARN","message":"no capacity","notice":"gpu/x","n":2,"spans":[{"name":"x"}]}"#;
        let line = LogLine::of_function(None, line);
        assert_eq!(line.level.as_deref(), Some("WARN"));
        assert!(line.text.starts_with("no capacity ") && !line.text.contains("spans"));
        assert!(line.text.contains(" notice=gpu/x") && line.text.contains(" n=2"), "{}", line.text);
    }

    #[test]
    fn metrics_and_lambdas_marks_are_noise_and_its_reports_are_not() {
        for (line, expected) in [
            (r#"{"Pool":"gpu","BoxesUp":1,"_aws":{}}"#, true),
            ("START RequestId: 1 Version: $LATEST\n", true),
            ("END RequestId: 1\n", true),
            ("REPORT RequestId: 1 Duration: 3 ms\n", false),
            ("2026-11-22T09:00:00Z 1 Task timed out after 30.00 seconds", false),
        ] {
            assert_eq!(LogLine::of_function(None, line).is_noise, expected, "{line}");
        }
    }

    #[test]
    fn control_sequences_are_removed() {
        let line = LogLine::of_text("\u{1b}[0;1;31mfailed\u{1b}[0m to\u{7} boot\u{1b}]0;x\r\n");
        assert_eq!(line.text, "failed to boot]0;x");
    }
}
