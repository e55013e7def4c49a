//! A user's command: its keys, checked, and what tells it from a repeated delivery of the same one.

use chrono::TimeDelta;
use gpuctl_control::hold::{HOLD_DEFAULT, check_length};
use gpuctl_control::log::escaped;
use gpuctl_core::observation::HoldWants;
use gpuctl_core::units::{Timestamp, parse_duration};
use serde_json::Value;

/// Most characters of the sender's name, which the ledger keeps and `status` shows.
const BY_CHARS_MAX: usize = 64;
/// Most characters of a reason.
const REASON_CHARS_MAX: usize = 200;
/// Most bytes of a request's id; AWS's own ids have 36.
const ID_BYTES_MAX: usize = 200;

/// The keys of a command.
const KEYS: [&str; 7] = ["action", "target", "for", "by", "reason", "time", "id"];

/// A user's command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) action: Action,
    /// A pool's name, or `all`, which is also meant if an event names none.
    pub(crate) target: String,
    /// How long a hold is to last.
    pub(crate) length: TimeDelta,
    pub(crate) by: String,
    pub(crate) why: Option<String>,
    pub(crate) delivery: Delivery,
}

/// How a command came. Lambda, SNS and SQS deliver at least once, and late (L2).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delivery {
    /// Equal for each delivery of the same request.
    pub(crate) id: String,
    /// When it was sent; `None` where the sender does not tell.
    pub(crate) sent_at: Option<Timestamp>,
}

/// What a command can ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Hold(HoldWants),
    Release,
    Status,
}

/// Why a command cannot be carried out.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("`action` is {0}: it must be \"start\", \"stop\", \"release\" or \"status\"")]
    Action(Value),
    #[error("`target` is {0}: it must be a pool's name or \"all\"")]
    Target(Value),
    #[error("`for` is {0}: it must be a duration of up to 7 days, e.g. \"2h\" or \"45m\"")]
    For(Value),
    #[error("`time` is {0}: it must be an RFC 3339 time, e.g. \"2026-11-21T18:00:00Z\"")]
    Time(Value),
    #[error("`id` is {0}: it must be a text of 1 to {ID_BYTES_MAX} bytes")]
    Id(Value),
    #[error("`{key}` is not a key of a command: the keys are {keys}", keys = KEYS.join(", "))]
    Key { key: String },
}

impl Command {
    /// Reads a command; its own `id` and `time` replace those of the delivery.
    ///
    /// # Errors
    /// When a key is unknown or its value invalid: delivered again it would be as invalid (L3).
    pub(crate) fn read(value: &Value, delivery: Delivery) -> Result<Self, CommandError> {
        let unknown =
            value.as_object().into_iter().flatten().find(|(key, _)| !KEYS.contains(&key.as_str()));
        if let Some((key, _)) = unknown {
            return Err(CommandError::Key { key: key.clone() });
        }
        let given = |key: &str| value.get(key).filter(|value| !value.is_null());
        let text = |key: &str| given(key).and_then(Value::as_str);
        let target = match given("target") {
            None => "all".to_owned(),
            Some(Value::String(target)) => target.clone(),
            Some(other) => return Err(CommandError::Target(other.clone())),
        };
        Ok(Self {
            action: action(&value["action"])?,
            target,
            length: given("for").map_or(Ok(HOLD_DEFAULT), length)?,
            by: kept(text("by").unwrap_or("an event"), BY_CHARS_MAX),
            why: text("reason").map(|reason| kept(reason, REASON_CHARS_MAX)),
            delivery: Delivery {
                id: given("id").map(id).transpose()?.unwrap_or(delivery.id),
                sent_at: given("time").map(time).transpose()?.or(delivery.sent_at),
            },
        })
    }
}

/// A text as the ledger keeps it: a sender's own characters must not act on the terminal on which it is shown.
fn kept(text: &str, chars_max: usize) -> String {
    escaped(text, chars_max).to_string()
}

fn action(value: &Value) -> Result<Action, CommandError> {
    match value.as_str() {
        Some("start") => Ok(Action::Hold(HoldWants::Running)),
        Some("stop") => Ok(Action::Hold(HoldWants::Stopped)),
        Some("release") => Ok(Action::Release),
        Some("status") => Ok(Action::Status),
        _ => Err(CommandError::Action(value.clone())),
    }
}

fn length(value: &Value) -> Result<TimeDelta, CommandError> {
    let length = value.as_str().and_then(|text| parse_duration(text).ok());
    length
        .filter(|length| check_length(*length).is_ok())
        .ok_or_else(|| CommandError::For(value.clone()))
}

fn time(value: &Value) -> Result<Timestamp, CommandError> {
    let time = value.as_str().and_then(|text| text.parse().ok());
    time.ok_or_else(|| CommandError::Time(value.clone()))
}

fn id(value: &Value) -> Result<String, CommandError> {
    let id = value.as_str().filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()));
    id.map(str::to_owned).ok_or_else(|| CommandError::Id(value.clone()))
}

#[cfg(test)]
mod tests {
    use gpuctl_control::wire::function::EventDocument;
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Command, CommandError> {
        Command::read(value, Delivery { id: "r-1".to_owned(), sent_at: None })
    }

    #[test]
    fn what_gpuctl_invoke_sends_is_understood() {
        let document = EventDocument {
            action: "start",
            target: "gpu".to_owned(),
            length: Some("45m".to_owned()),
            by: "ada".to_owned(),
        };
        let command = read(&serde_json::to_value(&document).unwrap()).unwrap();
        assert_eq!((command.target.as_str(), command.by.as_str()), ("gpu", "ada"));
        assert_eq!(command.length, TimeDelta::minutes(45));
        for (action, length) in [("stop", None), ("release", None), ("status", None)] {
            let document = EventDocument { action, length, ..document.clone() };
            read(&serde_json::to_value(&document).unwrap()).unwrap();
        }
    }

    #[test]
    fn an_invalid_command_says_what_it_must_be() {
        for (value, expected) in [
            (json!({"action": "boot"}), "\"boot\""),
            (json!({"action": 1}), "`action` is 1"),
            (json!({"action": "start", "target": 7}), "`target` is 7"),
            (json!({"action": "start", "for": "8d"}), "of up to 7 days"),
            (json!({"action": "start", "for": "0s"}), "`for` is \"0s\""),
            (json!({"action": "start", "taget": "gpu"}), "`taget` is not a key"),
            (json!({"action": "start", "time": "noon"}), "`time` is \"noon\""),
            (json!({"action": "start", "id": ""}), "`id` is \"\""),
        ] {
            let error = read(&value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_sender_s_name_and_reason_are_short_and_have_no_control_characters() {
        let hostile = format!("a\u{1b}[2J\n\u{202e}{}", "x".repeat(10_000));
        let event = json!({"action": "stop", "by": hostile, "reason": hostile});
        let command = read(&event).unwrap();
        let why = command.why.unwrap();
        for (text, most) in [(&command.by, BY_CHARS_MAX), (&why, REASON_CHARS_MAX)] {
            assert!(text.starts_with("a\\x1b[2J\\n"), "{text}");
            assert!(text.chars().count() <= most + 1, "{}", text.len());
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text}");
        }
    }

    #[test]
    fn the_event_s_own_id_and_time_replace_those_of_its_delivery() {
        let plain = read(&json!({"action": "start"})).unwrap();
        assert_eq!((plain.delivery.id.as_str(), plain.delivery.sent_at), ("r-1", None));
        let event = json!({"action": "start", "id": "e-7", "time": "2026-11-21T18:00:00Z"});
        let told = read(&event).unwrap();
        assert_eq!(told.delivery.id, "e-7");
        assert_eq!(told.delivery.sent_at, "2026-11-21T18:00:00Z".parse().ok());
    }
}
