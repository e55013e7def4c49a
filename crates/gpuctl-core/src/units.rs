//! Small types that carry their unit: money, names, durations.
//!
//! They are parsed once, where text comes in, and are valid from there on. Nothing here computes with floats.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

/// An instant, always in UTC. Time zones appear only in schedules and in what people read.
pub type Timestamp = DateTime<Utc>;

/// The longest name of a pool, box or queue: SQS's limit for the name of a queue.
pub const NAME_CHARS_MAX: usize = 80;

/// The longest duration in a setting: ten years, so that no sum of durations can overflow.
pub const DURATION_SECONDS_MAX: i64 = 10 * 366 * 86_400;

/// Money in millionths of a US dollar. A year of the most expensive EC2 box is about 10^12 of them: far from the limits of `i64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub i64);

impl MicroUsd {
    /// What `seconds` cost at `self` an hour, rounded up to the next micro-dollar.
    #[must_use]
    pub fn per_hour_for(self, seconds: i64) -> Self {
        self.per(3_600, seconds)
    }

    /// `count` times this amount; saturates.
    #[must_use]
    pub fn times(self, count: i64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// What `seconds` cost if `whole` seconds cost `self`, rounded up to the next micro-dollar.
    #[must_use]
    pub fn per(self, whole: i64, seconds: i64) -> Self {
        let micro = i128::from(self.0) * i128::from(seconds);
        let whole = i128::from(whole.max(1));
        Self(i64::try_from((micro + whole - 1).div_euclid(whole)).unwrap_or(i64::MAX))
    }

    /// US dollars as a float, for JSON and charts; no decision uses it.
    #[must_use]
    pub fn as_usd(self) -> f64 {
        // Exact below 2^53 micro-dollars, nine billion dollars.
        self.0 as f64 / 1e6
    }

    /// Reads an amount of US dollars with at most six decimals and without a sign, e.g. `0.526`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // Digits only: `-0.5` would be read as 0.5.
        let whole: i64 =
            whole.parse().ok().filter(|_| whole.bytes().all(|b| b.is_ascii_digit()))?;
        let micro: i64 = format!("{fraction:0<6}").parse().ok()?;
        whole.checked_mul(1_000_000)?.checked_add(micro).map(Self)
    }
}

impl std::ops::Add for MicroUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self(0), |sum, part| sum + part)
    }
}

/// Two decimals from one dollar on, four below: a minute of a GPU box costs less than a cent.
impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (unit, digits) = if self.0.abs() >= 1_000_000 { (10_000, 2) } else { (100, 4) };
        let rounded = (self.0.unsigned_abs() + unit / 2) / unit;
        let scale = 10_u64.pow(digits);
        let width = digits as usize;
        write!(f, "{sign}${}.{:0width$}", rounded / scale, rounded % scale)
    }
}

/// `first`, doubled `times` times, but no more than `most`.
#[must_use]
pub fn doubled(first: TimeDelta, times: usize, most: TimeDelta) -> TimeDelta {
    // Sixteen doublings of a second are most of a day: more than any limit here.
    let times = u32::try_from(times.min(16)).unwrap_or(16);
    (first * 2_i32.pow(times)).min(most)
}

/// The percentile of sorted values by the nearest-rank method; `None` if there are none.
#[must_use]
pub fn nearest_rank<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Names are shared, not copied: observations, runs and plans are full of them.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check($what, text).map(|()| Self(text.into()))
            }
        }
    };
}

name!(
    /// A pool's name, as in `[pool.gpu]`.
    PoolId,
    "pool",
    check_name
);
name!(
    /// A box's name: `gpu-1` for a local worker.
    BoxId,
    "box",
    check_name
);
name!(
    /// A queue's name, or the URL of one in SQS.
    QueueName,
    "queue",
    check_queue
);

impl QueueName {
    /// Whether this is the URL of a queue in SQS.
    #[must_use]
    pub fn is_url(&self) -> bool {
        self.0.starts_with("http") && self.0.contains("://")
    }
}

impl BoxId {
    /// `POOL-INDEX`, the box number `index` of a pool, counted from 1.
    #[must_use]
    pub fn of_pool(pool: &PoolId, index: u32) -> Self {
        Self(format!("{pool}-{index}").into())
    }
}

/// A name that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what} name: use 1 to {NAME_CHARS_MAX} of a-z A-Z 0-9 - _")]
pub struct NameError {
    what: &'static str,
    text: String,
}

fn check_name(what: &'static str, text: &str) -> Result<(), NameError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(()) } else { Err(NameError { what, text: text.to_owned() }) }
}

/// The longest URL of a queue: more than the longest region, account and name need.
const URL_CHARS_MAX: usize = 256;

fn check_queue(what: &'static str, text: &str) -> Result<(), NameError> {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return check_name(what, text);
    };
    let named = rest.rsplit_once('/').is_some_and(|(_, name)| !name.is_empty());
    let fits = text.len() <= URL_CHARS_MAX && rest.bytes().all(|b| b.is_ascii_graphic());
    if named && fits { Ok(()) } else { Err(NameError { what, text: text.to_owned() }) }
}

/// A duration that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("`{0}` is not a valid duration: write it as `45s`, `10m`, `2h30m` or `7d`")]
    Form(String),
    /// More than `DURATION_SECONDS_MAX`.
    #[error("`{0}` is longer than ten years")]
    TooLong(String),
}

/// Reads a duration such as `45s`, `10m`, `2h30m`, `7d` or `500ms`: whole numbers with their units, the largest unit first.
///
/// # Errors
/// If the text has another form, or is more than ten years.
pub fn parse_duration(text: &str) -> Result<TimeDelta, DurationError> {
    let form = || DurationError::Form(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    let mut rest = text.trim();
    let mut sum_ms: i64 = 0;
    let mut last_unit_ms = i64::MAX;
    if rest.is_empty() {
        return Err(form());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        let unit_ms = unit_milliseconds(unit).filter(|ms| *ms < last_unit_ms).ok_or_else(form)?;
        if number.is_empty() {
            return Err(form());
        }
        let number: i64 = number.parse().map_err(|_| too_long())?;
        let part_ms = number.checked_mul(unit_ms).ok_or_else(too_long)?;
        sum_ms = sum_ms.checked_add(part_ms).ok_or_else(too_long)?;
        last_unit_ms = unit_ms;
        rest = rest[digits + letters..].trim_start();
    }
    if sum_ms > DURATION_SECONDS_MAX * 1_000 {
        return Err(too_long());
    }
    Ok(TimeDelta::milliseconds(sum_ms))
}

fn unit_milliseconds(unit: &str) -> Option<i64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

/// Shows a duration by its two largest units, e.g. `2h30m`, `45s` or `3d4h`. `parse_duration` reads it back, without the lesser units.
#[must_use]
pub fn show_duration(duration: TimeDelta) -> String {
    let sign = if duration < TimeDelta::zero() { "-" } else { "" };
    let ms = duration.num_milliseconds().unsigned_abs();
    let s = ms / 1_000;
    let (d, h, m) = (s / 86_400, s / 3_600 % 24, s / 60 % 60);
    let two = |a: u64, unit_a: &str, b: u64, unit_b: &str| {
        if b == 0 { format!("{sign}{a}{unit_a}") } else { format!("{sign}{a}{unit_a}{b}{unit_b}") }
    };
    match (d, h, m, s) {
        (1.., ..) => two(d, "d", h, "h"),
        (_, 1.., ..) => two(h, "h", m, "m"),
        (_, _, 1.., _) => two(m, "m", s % 60, "s"),
        (_, _, _, 1..) => format!("{sign}{s}s"),
        _ if ms == 0 => "0s".to_owned(),
        _ => format!("{sign}{ms}ms"),
    }
}

/// How long something has lasted, in whole seconds, e.g. `0s`. What the clock of another machine says of the future has lasted no time.
#[must_use]
pub fn show_age(age: TimeDelta) -> String {
    show_duration(TimeDelta::seconds(age.num_seconds().max(0)))
}

/// How long it is until something, to the nearest second.
#[must_use]
pub fn show_time_left(left: TimeDelta) -> String {
    show_age(left + TimeDelta::milliseconds(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_times_left_are_whole_seconds() {
        for (ms, age, left) in [
            (-500, "0s", "0s"),
            (0, "0s", "0s"),
            (42, "0s", "0s"),
            (500, "0s", "1s"),
            (1_000, "1s", "1s"),
            (61_900, "1m1s", "1m2s"),
        ] {
            let span = TimeDelta::milliseconds(ms);
            assert_eq!(
                (show_age(span), show_time_left(span)),
                (age.to_owned(), left.to_owned()),
                "{ms} ms"
            );
        }
    }

    #[test]
    fn money_is_read_and_shown() {
        for (text, micro) in
            [("0.526", 526_000), ("511", 511_000_000), ("0.000001", 1), ("1.10", 1_100_000)]
        {
            assert_eq!(MicroUsd::parse(text), Some(MicroUsd(micro)), "{text}");
        }
        for text in ["", "-1", "-0.5", "+1", "0.1234567", "1.2.3", "1e3", "x"] {
            assert_eq!(MicroUsd::parse(text), None, "{text}");
        }
        assert_eq!(MicroUsd(511_200_000).to_string(), "$511.20");
        assert_eq!(MicroUsd(11_833).to_string(), "$0.0118");
        assert_eq!(MicroUsd(710_000).per_hour_for(60), MicroUsd(11_834));
    }

    #[test]
    fn durations_are_read_back_as_shown() {
        for text in ["45s", "10m", "2h30m", "7d", "500ms", "3d4h", "0s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn bad_durations_are_rejected() {
        for text in ["", "10", "m", "5x", "-5m", "10m2h", "1m1m", "1.5h", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("11000d"), Err(DurationError::TooLong("11000d".into())));
    }

    #[test]
    fn names_hold_only_what_every_cloud_accepts() {
        assert!("gpu-1_a".parse::<PoolId>().is_ok());
        for text in ["", "a b", "ü", "a/b", &"x".repeat(81)] {
            assert!(text.parse::<PoolId>().is_err(), "{text}");
        }
    }
}
