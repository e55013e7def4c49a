//! What an event asks for. Any JSON may come in: an event that is not understood is logged, and is a reason to reconcile all the same.
//!
//! Nothing here decides: an event is a user's command, or says only that something may have changed.

use chrono::TimeDelta;
use gpuctl_control::Trigger;
use gpuctl_control::hold::{HOLD_DEFAULT, check_length};
use gpuctl_core::observation::HoldWants;
use gpuctl_core::units::parse_duration;
use serde_json::Value;

/// What an event asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Why this reconcile runs, for the record.
    pub(crate) trigger: Trigger,
    /// The command, if the event is one.
    pub(crate) command: Option<Command>,
    /// The messages of a batch. If the reconcile fails, the response names them, and the queue delivers them again (L2, L5).
    pub(crate) messages: Vec<Message>,
    /// One line for the log.
    pub(crate) text: String,
}

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
}

/// What a command can ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Hold(HoldWants),
    Release,
    Status,
}

/// A message of an SQS batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// `None` where it has none and only asks for a reconcile, and where it is invalid: delivered again it would be as invalid (L3).
    pub(crate) command: Option<Command>,
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
    #[error("`{0}` is not a key of a command: the keys are action, target, for, by, reason")]
    Key(String),
}

impl Event {
    /// Reads any event.
    ///
    /// # Errors
    /// An invalid command that was sent directly, whose sender sees the response. In a batch it is in the log's line.
    pub(crate) fn read(value: &Value) -> Result<Self, CommandError> {
        if value.get("action").is_some() {
            return Ok(Self::without_command(Trigger::Command, "a command").with(command(value)?));
        }
        if let Some(records) = value.get("Records").and_then(Value::as_array) {
            return Ok(batch(records));
        }
        if value.get("alarmData").is_some() {
            return Ok(Self::without_command(Trigger::Wakeup, "a CloudWatch alarm"));
        }
        Ok(bridge(value))
    }

    /// In place of a command that is invalid: a reason to reconcile all the same.
    pub(crate) fn of_invalid_command() -> Self {
        Self::without_command(Trigger::Command, "an invalid command")
    }

    fn without_command(trigger: Trigger, text: impl Into<String>) -> Self {
        Self { trigger, command: None, messages: Vec::new(), text: text.into() }
    }

    fn with(self, command: Command) -> Self {
        Self { command: Some(command), ..self }
    }
}

/// An event of EventBridge: from a rule, from the Scheduler, or from an AWS service.
fn bridge(value: &Value) -> Event {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let detail = |key: &str| {
        value
            .get("detail")
            .and_then(|detail| detail.get(key))
            .and_then(Value::as_str)
            .unwrap_or("?")
    };
    let id = detail("instance-id");
    match (text("source"), text("detail-type")) {
        (_, "Scheduled Event") => Event::without_command(Trigger::Tick, "a tick"),
        (_, "EC2 Instance State-change Notification") => {
            Event::without_command(Trigger::Box, format!("{id} is {}", detail("state")))
        }
        (_, "EC2 Spot Instance Interruption Warning") => Event::without_command(
            Trigger::Box,
            format!("{id} will be interrupted: {}", detail("instance-action")),
        ),
        // P13: most boxes with a rebalance recommendation are never interrupted.
        (_, "EC2 Instance Rebalance Recommendation") => {
            Event::without_command(Trigger::Box, format!("{id} may be interrupted"))
        }
        (_, "CloudWatch Alarm State Change") => {
            Event::without_command(Trigger::Wakeup, "a CloudWatch alarm")
        }
        // EventBridge Scheduler sends what its target's input says: `{}` or `{"tick":true}`.
        ("", "")
            if value.as_object().is_some_and(|map| map.is_empty() || map.contains_key("tick")) =>
        {
            Event::without_command(Trigger::Tick, "a tick")
        }
        // L4: an unknown event is a reason to reconcile, too.
        (source, kind) => Event::without_command(
            Trigger::Unknown,
            format!("an event that gpuctl does not know: source {source:?}, detail-type {kind:?}"),
        ),
    }
}

/// A batch of SNS or SQS: each message has a command as its body, or only asks for a reconcile.
fn batch(records: &[Value]) -> Event {
    let mut event = Event::without_command(Trigger::Wakeup, format!("{} messages", records.len()));
    for record in records {
        let sns = record.pointer("/Sns/Message").and_then(Value::as_str);
        let body = record.get("body").and_then(Value::as_str).or(sns).unwrap_or_default();
        let id = record.get("messageId").and_then(Value::as_str).unwrap_or_default().to_owned();
        let command = match serde_json::from_str::<Value>(body) {
            Ok(value) if value.get("action").is_some() => match self::command(&value) {
                Ok(command) => Some(command),
                Err(error) => {
                    event.text.push_str(&format!("; one has an invalid command: {error}"));
                    None
                }
            },
            _ => None,
        };
        event.messages.push(Message { id, command });
    }
    event
}

fn command(value: &Value) -> Result<Command, CommandError> {
    const KEYS: [&str; 5] = ["action", "target", "for", "by", "reason"];
    let unknown =
        value.as_object().into_iter().flatten().find(|(key, _)| !KEYS.contains(&key.as_str()));
    if let Some((key, _)) = unknown {
        return Err(CommandError::Key(key.clone()));
    }
    let asked = &value["action"];
    let action = match asked.as_str() {
        Some("start") => Action::Hold(HoldWants::Running),
        Some("stop") => Action::Hold(HoldWants::Stopped),
        Some("release") => Action::Release,
        Some("status") => Action::Status,
        _ => return Err(CommandError::Action(asked.clone())),
    };
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let target = match value.get("target") {
        None | Some(Value::Null) => "all".to_owned(),
        Some(Value::String(target)) => target.clone(),
        Some(other) => return Err(CommandError::Target(other.clone())),
    };
    let length = match value.get("for") {
        None | Some(Value::Null) => HOLD_DEFAULT,
        Some(given) => given
            .as_str()
            .and_then(|text| parse_duration(text).ok())
            .filter(|length| check_length(*length).is_ok())
            .ok_or_else(|| CommandError::For(given.clone()))?,
    };
    let by = text("by").unwrap_or_else(|| "an event".to_owned());
    Ok(Command { action, target, length, by, why: text("reason") })
}

#[cfg(test)]
mod tests {
    use gpuctl_control::wire::function::EventDocument;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Event {
        Event::read(value).unwrap()
    }

    #[test]
    fn a_command_is_a_hold_on_one_pool_or_all() {
        let event = read(&json!({"action": "start", "target": "gpu"}));
        let command = event.command.unwrap();
        assert_eq!(event.trigger, Trigger::Command);
        assert_eq!(
            (command.action, command.target.as_str()),
            (Action::Hold(HoldWants::Running), "gpu")
        );
        assert_eq!(command.length, TimeDelta::hours(2));
        let command = read(&json!({"action": "stop", "for": "45m", "by": "ada"})).command.unwrap();
        assert_eq!((command.target.as_str(), command.length), ("all", TimeDelta::minutes(45)));
    }

    #[test]
    fn what_gpuctl_invoke_sends_is_understood() {
        let document = EventDocument {
            action: "start",
            target: "gpu".to_owned(),
            length: Some("45m".to_owned()),
            by: "ada".to_owned(),
        };
        let command = read(&serde_json::to_value(&document).unwrap()).command.unwrap();
        assert_eq!((command.target.as_str(), command.by.as_str()), ("gpu", "ada"));
        assert_eq!(command.length, TimeDelta::minutes(45));
        for (action, length) in [("stop", None), ("release", None), ("status", None)] {
            let document = EventDocument { action, length, ..document.clone() };
            assert!(read(&serde_json::to_value(&document).unwrap()).command.is_some());
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
        ] {
            let error = Event::read(&value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn events_of_aws_have_no_command() {
        let event = |kind: &str, detail: Value| {
            read(&json!({"source": "aws.ec2", "detail-type": kind, "detail": detail}))
        };
        let id = json!({"instance-id": "i-1", "instance-action": "stop", "state": "stopped"});
        for (kind, trigger, text) in [
            ("Scheduled Event", Trigger::Tick, "a tick"),
            ("EC2 Instance State-change Notification", Trigger::Box, "i-1 is stopped"),
            (
                "EC2 Spot Instance Interruption Warning",
                Trigger::Box,
                "i-1 will be interrupted: stop",
            ),
            ("EC2 Instance Rebalance Recommendation", Trigger::Box, "i-1 may be interrupted"),
            ("CloudWatch Alarm State Change", Trigger::Wakeup, "a CloudWatch alarm"),
        ] {
            let event = event(kind, id.clone());
            assert_eq!((event.trigger, event.text.as_str(), event.command), (trigger, text, None));
        }
        assert_eq!(read(&json!({})).trigger, Trigger::Tick);
        assert_eq!(read(&json!({"alarmData": {}})).trigger, Trigger::Wakeup);
    }

    #[test]
    fn l4_an_unknown_event_is_named_and_a_reason_to_reconcile() {
        let event = read(&json!({"source": "aws.s3", "detail-type": "Object Created"}));
        assert_eq!(event.trigger, Trigger::Unknown);
        assert!(event.text.contains("aws.s3"), "{}", event.text);
    }

    #[test]
    fn l3_a_message_that_cannot_be_read_is_counted_and_asks_for_a_reconcile() {
        let event = read(&json!({"Records": [
            {"messageId": "a", "body": "{\"action\":\"start\",\"target\":\"gpu\"}"},
            {"messageId": "b", "body": "no json"},
            {"messageId": "c", "body": "{\"action\":\"boot\"}"},
            {"Sns": {"Message": "{\"action\":\"status\"}"}},
        ]}));
        let commands: Vec<bool> = event.messages.iter().map(|one| one.command.is_some()).collect();
        assert_eq!(commands, [true, false, false, true]);
        assert!(event.text.contains("one has an invalid command"), "{}", event.text);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("action".to_owned()),
            Just("target".to_owned()),
            Just("for".to_owned()),
            Just("Records".to_owned()),
            Just("body".to_owned()),
            Just("Sns".to_owned()),
            Just("detail".to_owned()),
            Just("source".to_owned()),
            Just("detail-type".to_owned()),
            "[a-z]{0,4}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(Value::from("start")),
            Just(Value::from("EC2 Instance State-change Notification")),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_event_can_be_read(value in any_value()) {
            let _ = Event::read(&value);
        }
    }
}
