//! Publishes notices on an SNS topic. Which notices are due is the caller's business; each carries its key as an attribute.

use aws_sdk_sns::Client;
use aws_sdk_sns::types::MessageAttributeValue;
use gpuctl_control::notice::Notice;
use gpuctl_control::ports::PortError;

use crate::config::Aws;
use crate::error::port_error;

/// SNS's limit on a subject, in characters: fewer than 100.
const SUBJECT_CHARS_MAX: usize = 99;

/// The longest text in bytes: SNS's limit is 256 KiB with all attributes.
const TEXT_BYTES_MAX: usize = 250 * 1_024;

/// The topic that notices are published on.
pub struct SnsTopic {
    client: Client,
    arn: String,
}

impl SnsTopic {
    /// The topic of this ARN.
    #[must_use]
    pub fn new(aws: &Aws, arn: &str) -> Self {
        Self { client: aws.sns(), arn: arn.to_owned() }
    }

    /// Publishes a notice; returns SNS's id of the message.
    ///
    /// # Errors
    /// When SNS cannot be reached, or rejects the message.
    pub async fn publish(&self, notice: &Notice) -> Result<String, PortError> {
        let key = MessageAttributeValue::builder().data_type("String").string_value(&notice.key);
        let key = key.build().expect("it has a type");
        let mut call = self
            .client
            .publish()
            .topic_arn(&self.arn)
            .subject(subject(&format!("gpuctl: {}", notice.text)))
            .message(cut(&notice.text, TEXT_BYTES_MAX))
            .message_attributes("key", key);
        if self.arn.ends_with(".fifo") {
            call = call.message_group_id("gpuctl").message_deduplication_id(&notice.key);
        }
        let output = call.send().await.map_err(|error| {
            port_error("sns:Publish", format!("cannot publish to {}", self.arn), error)
        })?;
        Ok(output.message_id().unwrap_or_default().to_owned())
    }
}

/// A subject may hold only printable ASCII; SNS would reject the whole notice for one other character.
fn subject(text: &str) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let text: String = text.chars().take(SUBJECT_CHARS_MAX).map(plain).collect();
    if text.trim().is_empty() { "gpuctl".to_owned() } else { text.trim().to_owned() }
}

/// The beginning of a text, cut between two characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_made_fit_and_a_text_is_cut_at_a_character() {
        assert_eq!(subject("no capacity — Zürich\n"), "no capacity ? Z?rich?");
        assert_eq!(subject(" \t"), "?");
        assert_eq!(subject(""), "gpuctl");
        assert_eq!(subject(&"x".repeat(300)).len(), SUBJECT_CHARS_MAX);
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 9), "aé");
    }
}
