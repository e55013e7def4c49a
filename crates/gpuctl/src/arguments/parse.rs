//! Parsers of values on the command line. Each error is a sentence with the value and the expected form.

use chrono::TimeDelta;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use gpu_tasks::Task;
use gpuctl_control::commands::is_command;
use gpuctl_core::policy::IdleStop;
use gpuctl_core::units::{MicroUsd, Timestamp, parse_duration};

use super::{FixedCost, ParameterValue, SecondBox};

/// The most decimals of a number of hours: a millionth of an hour is 3.6 ms.
const HOURS_DECIMALS_MAX: usize = 6;

/// The name of a task, or of a command, which the configuration has to know.
#[derive(Clone)]
pub(super) struct TaskName;

impl TaskName {
    fn tasks() -> PossibleValuesParser {
        PossibleValuesParser::new(Task::ALL.map(Task::name))
    }
}

impl TypedValueParser for TaskName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        match value.to_str().filter(|text| is_command(text)) {
            Some(text) => Ok(text.to_owned()),
            None => Self::tasks().parse_ref(command, argument, value),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = Task::ALL.map(|task| PossibleValue::new(task.name()));
        Some(Box::new(names.into_iter()))
    }
}

pub(super) fn parse_usd(text: &str) -> Result<MicroUsd, String> {
    MicroUsd::parse(text.trim_start_matches('$'))
        .ok_or_else(|| format!("`{text}` is not a valid amount of US dollars: write e.g. `0.71`"))
}

pub(super) fn parse_idle_stop(text: &str) -> Result<IdleStop, String> {
    if text == "auto" {
        return Ok(IdleStop::Auto);
    }
    let span = parse_duration(text).map_err(|error| format!("{error}, or `auto`"))?;
    Ok(IdleStop::After(span))
}

/// Reads a decimal number of hours per day, e.g. `1.97`, to the millionth.
pub(super) fn parse_hours(text: &str) -> Result<TimeDelta, String> {
    hours(text).ok_or_else(|| format!("`{text}` is not a number of hours from 0 to 24"))
}

fn hours(text: &str) -> Option<TimeDelta> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = !whole.is_empty() || !decimals.is_empty();
    if !has_digits
        || !is_digits(whole)
        || !is_digits(decimals)
        || decimals.len() > HOURS_DECIMALS_MAX
    {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let millionths: i64 = format!("{decimals:0<HOURS_DECIMALS_MAX$}").parse().ok()?;
    let microseconds = whole.checked_mul(3_600_000_000)?.checked_add(millionths * 3_600)?;
    Some(TimeDelta::microseconds(microseconds)).filter(|hours| *hours <= TimeDelta::hours(24))
}

pub(super) fn parse_second_box(text: &str) -> Result<SecondBox, String> {
    let form = || {
        format!("`{text}` is not of the form TYPE:HOURS or TYPE:HOURS@USD, e.g. t3.large:8@0.10")
    };
    let (instance_type, rest) = text.split_once(':').ok_or_else(form)?;
    let (hours, usd) = rest.split_once('@').map_or((rest, None), |(hours, usd)| (hours, Some(usd)));
    Ok(SecondBox {
        instance_type: instance_type.to_owned(),
        hours_per_day: parse_hours(hours)?,
        usd_hour: usd.map(parse_usd).transpose()?,
    })
}

pub(super) fn parse_fixed(text: &str) -> Result<FixedCost, String> {
    let (name, usd) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{text}` is not of the form NAME=USD, e.g. efs=5"))?;
    Ok(FixedCost { name: name.to_owned(), usd: parse_usd(usd)? })
}

pub(super) fn parse_parameter(text: &str) -> Result<ParameterValue, String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{text}` is not of the form NAME=VALUE, e.g. GpuMarket=spot"))?;
    Ok(ParameterValue { name: name.to_owned(), value: value.to_owned() })
}

/// A name of a stack, as CloudFormation takes it; what the stack names after it has further limits.
pub(super) fn parse_stack(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(fits);
    if is_name && text.len() <= STACK_CHARS_MAX {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is not a valid stack name: up to {STACK_CHARS_MAX} lower-case letters, digits and hyphens"
    ))
}

/// So that `STACK-bucket-…`, which CloudFormation names, is not cut short.
const STACK_CHARS_MAX: usize = 32;

/// The most lines that `gpuctl logs` prints: what is read of a log is not much more.
const LINES_MAX: usize = 10_000;

pub(super) fn parse_lines(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| (1..=LINES_MAX).contains(lines));
    lines.ok_or_else(|| format!("`{text}` is not a number from 1 to {LINES_MAX}"))
}

pub(super) fn parse_month(text: &str) -> Result<Timestamp, String> {
    let month = |text: &str| format!("{text}-01T00:00:00Z").parse().ok();
    // Four digits and two: chrono would read years that no calendar reaches.
    Some(text)
        .filter(|text| text.len() == "2026-11".len())
        .and_then(month)
        .ok_or_else(|| format!("`{text}` is not a valid month: write e.g. 2026-11"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_decimal_numbers_up_to_a_day() {
        for (text, milliseconds) in [
            ("0", 0),
            ("8", 28_800_000),
            ("1.97", 7_092_000),
            (".5", 1_800_000),
            ("24", 86_400_000),
            ("0.000001", 3),
        ] {
            assert_eq!(
                parse_hours(text).map(|hours| hours.num_milliseconds()),
                Ok(milliseconds),
                "{text}"
            );
        }
        for text in [
            "",
            ".",
            "24.1",
            "-1",
            "1e1",
            "1.2.3",
            "0.0000001",
            "99999999999999999999",
            "eight",
            "+1",
        ] {
            assert!(parse_hours(text).is_err(), "{text}");
        }
    }
}
