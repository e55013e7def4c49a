//! Messages that are no jobs: what can be read of one, so that it can be listed among the dead.

use chrono::TimeDelta;
use gpuctl_control::job::{InputUri, Job, JobId, Urgency};
use gpuctl_control::ports::Received;
use gpuctl_core::units::QueueName;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The code of such a message's problem.
pub(crate) const UNREADABLE: &str = "message.unreadable";
/// How much of the message is kept as the input of the job that is listed for it.
const BODY_BYTES_MAX: usize = 1_024;
/// How much of a field that may be a task is kept.
const TASK_CHARS_MAX: usize = 80;

/// A job to list for a message that cannot be read. Its id is the message's if that can be read, else the same at each receive.
pub(crate) fn job_of(message: &Received, queue: &QueueName) -> Job {
    let fields: Value = serde_json::from_str(&message.body).unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let task = text("task").unwrap_or("unreadable").chars().take(TASK_CHARS_MAX).collect();
    Job {
        id: text("job_id").and_then(|id| id.parse().ok()).unwrap_or_else(|| derived_id(message)),
        queue: queue.clone(),
        task,
        model: None,
        input: beginning(&message.body),
        params: serde_json::Map::new(),
        submitted_at: message.sent_at,
        generation: generation(&fields),
        urgency: Urgency::default(),
    }
}

fn generation(fields: &Value) -> u32 {
    let number = fields.get("generation").and_then(Value::as_u64).unwrap_or_default();
    u32::try_from(number).unwrap_or_default()
}

fn beginning(body: &str) -> InputUri {
    let mut end = body.len().min(BODY_BYTES_MAX);
    while !body.is_char_boundary(end) {
        end -= 1;
    }
    InputUri::of_text(&body[..end]).expect("it is shorter than the longest text")
}

/// An id in the form of a version 7 UUID, which sorts by the time when the message was sent.
fn derived_id(message: &Received) -> JobId {
    let millis = (message.sent_at - chrono::DateTime::UNIX_EPOCH).max(TimeDelta::zero());
    let millis = millis.num_milliseconds().to_be_bytes();
    let digest =
        Sha256::digest(format!("{}\n{}", message.sent_at.timestamp_micros(), message.body));
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis[2..]);
    bytes[6..].copy_from_slice(&digest[..10]);
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = gpuctl_control::text::hexadecimal(&bytes);
    text.parse().expect("32 hexadecimal digits are a UUID")
}

#[cfg(test)]
mod tests {
    use gpuctl_control::ports::Receipt;

    use super::*;

    fn message(body: &str) -> Received {
        Received {
            receipt: Receipt("r".to_owned()),
            body: body.to_owned(),
            attributes: Vec::new(),
            receive_count: 1,
            sent_at: "2026-11-22T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_message_has_the_same_id_at_each_receive_and_another_than_other_messages() {
        let queue = "jobs".parse().unwrap();
        let id = |body: &str| job_of(&message(body), &queue).id;
        assert_eq!(id("not json"), id("not json"));
        assert_ne!(id("not json"), id("no json"));
        assert!(id("not json").as_str().starts_with("01a2008d-7400-7"), "{}", id("not json"));
        let known = "01a200ab-52ac-72da-a503-1913f00238c3";
        assert_eq!(id(&format!(r#"{{"job_id":"{known}","task":7}}"#)).as_str(), known);
        assert_ne!(id(r#"{"job_id":"../../x"}"#).as_str(), "../../x");
    }

    #[test]
    fn of_a_long_message_the_beginning_is_kept() {
        let job = job_of(&message(&"ä".repeat(4_000)), &"jobs".parse().unwrap());
        assert_eq!(job.task, "unreadable");
        assert!(job.input.as_str().len() < 4 * BODY_BYTES_MAX);
    }
}
