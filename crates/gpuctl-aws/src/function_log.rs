//! `gpuctl logs` on AWS: the newest lines of the deployed function's log group.

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use chrono::DateTime;
use gpuctl_control::log::LogLine;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::units::Timestamp;

use crate::Aws;
use crate::calls::show;
use crate::error::{code, port_error};

/// Pages in one read: each has up to 10,000 events or 1 MiB, and a tick writes about five events.
const PAGES_MAX: usize = 20;

/// The log group of a function.
pub struct FunctionLog {
    client: Client,
    group: String,
    region: String,
}

/// Which lines to read.
#[derive(Clone, Copy, Debug)]
pub struct WantedLines {
    /// The oldest time.
    pub since: Timestamp,
    /// The number of lines; older ones are left out.
    pub lines_max: usize,
    /// Whether metrics and Lambda's own lines (`START`, `REPORT` …) are wanted as well.
    pub with_noise: bool,
}

/// The end of a log.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// Each line with the id of its event, the oldest first.
    pub lines: Vec<(String, LogLine)>,
    /// Whether older ones were left out.
    pub is_cut: bool,
}

impl FunctionLog {
    /// The log of the function of this name or ARN.
    #[must_use]
    pub fn new(aws: &Aws, function: &str) -> Self {
        Self {
            client: Client::from_conf(Builder::from(aws.sdk()).interceptor(aws.follow()).build()),
            group: format!("/aws/lambda/{}", name(function)),
            region: aws.region().to_owned(),
        }
    }

    /// Reads the newest lines.
    ///
    /// # Errors
    /// When there is no such group, or it cannot be read.
    pub async fn read(&self, wanted: WantedLines) -> Result<Tail, PortError> {
        let since = wanted.since.timestamp_millis();
        show(format_args!(
            "logs filter-log-events --log-group-name {} --start-time {since} --no-start-from-head",
            self.group
        ));
        let call = self.client.filter_log_events().log_group_name(&self.group).start_time(since);
        let mut pages = call.start_from_head(false).into_paginator().send();
        let mut found: Vec<(String, LogLine)> = Vec::new();
        let (mut read, mut is_cut) = (0, false);
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed(error))?;
            let is_newest_first = newest_first(page.events());
            let is_last = page.next_token().is_none();
            let mut lines: Vec<(String, LogLine)> =
                page.events.into_iter().flatten().map(line).collect();
            lines.retain(|(_, line)| wanted.with_noise || !line.is_noise);
            if is_newest_first {
                lines.reverse();
            }
            // Lines of the same millisecond must stay in the order in which they were written.
            let after = if is_newest_first { 0 } else { found.len() };
            found.splice(after..after, lines);
            read += 1;
            let is_enough = is_newest_first && found.len() > wanted.lines_max;
            if !is_last && (is_enough || read == PAGES_MAX) {
                is_cut = true;
                break;
            }
        }
        found.sort_by_key(|(_, line)| line.at);
        let older = found.len().saturating_sub(wanted.lines_max);
        found.drain(..older);
        Ok(Tail { lines: found, is_cut: is_cut || older > 0 })
    }

    fn failed<E>(&self, error: aws_sdk_cloudwatchlogs::error::SdkError<E>) -> PortError
    where
        E: aws_sdk_cloudwatchlogs::error::ProvideErrorMetadata
            + std::error::Error
            + Send
            + Sync
            + 'static,
    {
        if code(&error) == Some("ResourceNotFoundException") {
            let what = format!("there is no log group {} in {}", self.group, self.region);
            return PortError::new(PortErrorClass::NotFound, what).hint(
                "the function has not run yet, has another name, may not write logs, or is in another account or region",
            );
        }
        let what = format!("the log group {} cannot be read", self.group);
        port_error("logs:FilterLogEvents", what, error)
    }
}

/// Whether later pages have older events; a page with one event does not tell.
fn newest_first(events: &[FilteredLogEvent]) -> bool {
    let at = |event: Option<&FilteredLogEvent>| event.and_then(|event| event.timestamp);
    at(events.first()) > at(events.last())
}

fn line(event: FilteredLogEvent) -> (String, LogLine) {
    let at = event.timestamp.and_then(DateTime::from_timestamp_millis);
    let message = event.message.unwrap_or_default();
    let line = LogLine::of_function(at, &message);
    let id = event.event_id;
    let fallback = (event.log_stream_name, event.timestamp, message);
    (id.unwrap_or_else(|| format!("{fallback:?}")), line)
}

/// The function's name out of a name or ARN, without a version or alias.
fn name(function: &str) -> &str {
    let from = function.rsplit_once("function:").map_or(function, |(_, name)| name);
    from.split(':').next().unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_and_a_version_have_the_same_log_group() {
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:gpuctl";
        for function in ["gpuctl", "gpuctl:live", arn, &format!("{arn}:7")] {
            assert_eq!(name(function), "gpuctl");
        }
    }
}
