//! What an event asks for. Any JSON may come in: an event that is not understood is logged, and is a reason to reconcile all the same.
//!
//! Nothing here decides: an event is a user's command, or says only that something may have changed. Who may invoke the function may
//! command it. Who may send to a queue or topic may only wake it, unless that queue or topic is opted in.

use gpuctl_control::Trigger;
use gpuctl_core::units::Timestamp;
use serde_json::Value;

use crate::command::{Command, CommandError, Delivery};

/// The variable with the ARNs of the queues and topics whose messages may be commands, separated by commas.
pub(crate) const COMMANDS_FROM: &str = "GPUCTL_COMMANDS_FROM";

/// The queues and topics whose messages may be commands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CommandSources(Vec<String>);

impl CommandSources {
    pub(crate) fn from_environment() -> Self {
        Self::of(&std::env::var(COMMANDS_FROM).unwrap_or_default())
    }

    fn of(text: &str) -> Self {
        let arns = text.split(',').map(str::trim).filter(|arn| !arn.is_empty());
        Self(arns.map(str::to_owned).collect())
    }

    fn include(&self, arn: &str) -> bool {
        self.0.iter().any(|known| known == arn)
    }
}

/// What an event asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Why this reconcile runs, for the record.
    pub(crate) trigger: Trigger,
    /// The command, if the event is one.
    pub(crate) command: Option<Command>,
    /// The messages of a batch. Those that failed are named in the response, and the queue delivers them again (L2, L5).
    pub(crate) messages: Vec<Message>,
    /// One line for the log.
    pub(crate) text: String,
}

/// A message of SQS or SNS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// Its id in the batch; empty for SNS, which has no batches.
    pub(crate) id: String,
    /// `None` where it has none and only asks for a reconcile, and where it is invalid: delivered again it would be as invalid (L3).
    pub(crate) command: Option<Command>,
}

impl Event {
    /// Reads any event. `request` is the id of the invocation, which Lambda repeats when it delivers the event again.
    ///
    /// # Errors
    /// An invalid command that was sent directly, whose sender sees the response. In a batch it is in the log's line.
    pub(crate) fn read(
        value: &Value,
        request: &str,
        commands_from: &CommandSources,
    ) -> Result<Self, CommandError> {
        if value.get("action").is_some() {
            let delivery = Delivery { id: request.to_owned(), sent_at: None };
            let command = Command::read(value, delivery)?;
            return Ok(Self::without_command(Trigger::Command, "a command").with(command));
        }
        if let Some(records) = value.get("Records").and_then(Value::as_array) {
            return Ok(batch(records, commands_from));
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

/// A batch of SNS or SQS: each message only asks for a reconcile, or is a command where its source is opted in.
fn batch(records: &[Value], commands_from: &CommandSources) -> Event {
    let mut event = Event::without_command(Trigger::Wakeup, format!("{} messages", records.len()));
    for record in records {
        let sent = Sent::of(record);
        let command = match serde_json::from_str::<Value>(sent.body) {
            Ok(value) if value.get("action").is_some() => {
                if commands_from.include(sent.source) {
                    Command::read(&value, sent.delivery).map_err(|error| error.to_string())
                } else {
                    Err(format!("it is not carried out: {COMMANDS_FROM} does not name its source"))
                }
            }
            _ => {
                event.messages.push(Message { id: sent.id, command: None });
                continue;
            }
        };
        if let Err(error) = &command {
            event.text.push_str(&format!("; one has a command: {error}"));
        }
        event.messages.push(Message { id: sent.id, command: command.ok() });
    }
    event
}

/// What a record of SQS or SNS says of its message.
struct Sent<'r> {
    id: String,
    body: &'r str,
    /// The ARN of its queue or topic, which AWS writes and no sender can.
    source: &'r str,
    delivery: Delivery,
}

impl<'r> Sent<'r> {
    fn of(record: &'r Value) -> Self {
        let text = |path: &str| record.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if record.get("Sns").is_some() {
            let delivery = Delivery {
                id: text("/Sns/MessageId").to_owned(),
                sent_at: text("/Sns/Timestamp").parse().ok(),
            };
            let (body, source) = (text("/Sns/Message"), text("/Sns/TopicArn"));
            return Self { id: String::new(), body, source, delivery };
        }
        let id = text("/messageId").to_owned();
        let sent_ms = text("/attributes/SentTimestamp").parse().ok();
        let sent_at = sent_ms.and_then(Timestamp::from_timestamp_millis);
        let delivery = Delivery { id: id.clone(), sent_at };
        Self { id, body: text("/body"), source: text("/eventSourceARN"), delivery }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use gpuctl_core::observation::HoldWants;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::command::Action;

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:orders";
    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:orders";

    fn read(value: &Value) -> Event {
        read_from(value, "")
    }

    fn read_from(value: &Value, sources: &str) -> Event {
        Event::read(value, "r-1", &CommandSources::of(sources)).unwrap()
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

    fn messages() -> Value {
        let (action, sent) = ("{\"action\":\"start\",\"target\":\"gpu\"}", "1763740800000");
        json!({"Records": [
            {"messageId": "a", "body": action, "eventSourceARN": QUEUE, "attributes": {"SentTimestamp": sent}},
            {"messageId": "b", "body": "no json", "eventSourceARN": QUEUE},
            {"messageId": "c", "body": "{\"action\":\"boot\"}", "eventSourceARN": QUEUE},
            {"Sns": {"Message": action, "TopicArn": TOPIC, "MessageId": "d", "Timestamp": "2025-11-21T16:00:00Z"}},
        ]})
    }

    #[test]
    fn l16_messages_are_wake_ups_unless_their_queue_or_topic_is_opted_in() {
        let obeyed = |sources: &str| {
            let event = read_from(&messages(), sources);
            assert_eq!((event.trigger, event.messages.len()), (Trigger::Wakeup, 4));
            let commands: Vec<Option<Command>> =
                event.messages.into_iter().map(|one| one.command).collect();
            (commands, event.text)
        };
        let (none, text) = obeyed("");
        assert_eq!(none, [const { None }; 4]);
        assert!(text.contains("GPUCTL_COMMANDS_FROM does not name its source"), "{text}");
        let (all, text) = obeyed(&format!("{TOPIC}, {QUEUE}"));
        let is_command: Vec<bool> = all.iter().map(Option::is_some).collect();
        assert_eq!(is_command, [true, false, false, true]);
        assert!(text.contains("one has a command: `action` is \"boot\""), "{text}");
        let sent_at = "2025-11-21T16:00:00Z".parse().ok();
        for (command, id) in [(&all[0], "a"), (&all[3], "d")] {
            let delivery = &command.as_ref().unwrap().delivery;
            assert_eq!((delivery.id.as_str(), delivery.sent_at), (id, sent_at));
        }
        let (of_topic, _) = obeyed(TOPIC);
        assert!(of_topic[0].is_none() && of_topic[3].is_some());
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
            let _ = Event::read(&value, "r-1", &CommandSources::of(QUEUE));
        }
    }
}
