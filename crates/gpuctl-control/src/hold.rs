//! Setting and releasing holds, for the CLI and the function alike: how long, on which pools, by whom.
//!
//! What a hold does to a pool is a rule of `gpuctl-core` (`decide/hold.rs`).

use chrono::TimeDelta;
use gpuctl_core::observation::{Hold, HoldWants};
use gpuctl_core::units::{MicroUsd, PoolId, Timestamp, show_duration};

use crate::clock::CLOCKS_APART_MAX;
use crate::ports::{Ledger, PortError, PortErrorClass};

/// How long a manual start or stop holds unless said otherwise: long enough to work with, too short to be forgotten overnight.
pub const HOLD_DEFAULT: TimeDelta = TimeDelta::hours(2);

/// The longest hold; a schedule is for longer.
pub const HOLD_MAX: TimeDelta = TimeDelta::days(7);

/// What a user asks for, the same for every pool that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRequest {
    /// Whether the pools are to run or to be stopped.
    pub wants: HoldWants,
    /// When it was asked for.
    pub since: Timestamp,
    /// When schedule and queue decide again.
    pub until: Timestamp,
    /// The user's name, for `status` and the record.
    pub by: String,
    /// The reason that the user gave.
    pub why: Option<String>,
    /// How much the hold may spend beyond each pool's budget.
    pub over_budget: Option<MicroUsd>,
    /// Whether a start ends once the queue is empty and no box is busy.
    pub until_empty: bool,
}

/// Why a hold cannot be of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldLengthError {
    /// Zero, or negative.
    #[error("the hold would end before it begins")]
    Empty,
    /// Longer than [`HOLD_MAX`].
    #[error("a hold lasts at most {}", show_duration(HOLD_MAX))]
    TooLong,
}

impl HoldLengthError {
    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Empty => "give an end in the future",
            Self::TooLong => {
                "for longer, write a schedule, or take the pool out of the configuration"
            }
        }
    }
}

/// Checks that a hold of this length may be set: longer than zero, and at most [`HOLD_MAX`].
///
/// # Errors
/// When it may not.
pub fn check_length(length: TimeDelta) -> Result<(), HoldLengthError> {
    if length <= TimeDelta::zero() {
        Err(HoldLengthError::Empty)
    } else if length > HOLD_MAX {
        Err(HoldLengthError::TooLong)
    } else {
        Ok(())
    }
}

/// The error of a ledger that keeps a newer hold than this one.
#[must_use]
pub fn outdated(hold: &Hold) -> PortError {
    let what = format!("pool `{}` has a hold that is newer than this one: it stays", hold.pool);
    PortError::new(PortErrorClass::Conflict, what).hint("give the command again to replace it")
}

/// The hold as a ledger returns it. One that was set in the future was set by a clock that is far off: what a user does from now on is newer.
#[must_use]
pub fn not_ahead(hold: Hold, now: Timestamp) -> Hold {
    let is_ahead = hold.since > now + CLOCKS_APART_MAX;
    Hold { since: if is_ahead { now } else { hold.since }, ..hold }
}

/// Sets the hold on each of the pools, in place of an older one. The caller has checked that the pools exist.
///
/// # Errors
/// When the ledger cannot be written, or a pool has a newer hold (`Conflict`); the other pools have their hold all the same.
pub async fn set(
    ledger: &dyn Ledger,
    pools: &[PoolId],
    request: &HoldRequest,
) -> Result<(), PortError> {
    let mut failed = None;
    for pool in pools {
        let hold = Hold {
            pool: pool.clone(),
            wants: request.wants,
            since: request.since,
            until: request.until,
            by: request.by.clone(),
            why: request.why.clone(),
            over_budget: request.over_budget,
            until_empty: request.until_empty,
        };
        if let Err(error) = ledger.set_hold(&hold).await {
            // A newer hold is final; a failed write must be told, so that the command is tried again.
            if failed
                .as_ref()
                .is_none_or(|failed: &PortError| failed.class == PortErrorClass::Conflict)
            {
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Ends the holds of the pools, and with them what was started or stopped outside gpuctl before `at`: an ended hold of `at` is what
/// `decide` compares those with. What such a hold wanted is never looked at, so the old one need not be read.
///
/// # Errors
/// As [`set`].
pub async fn release(
    ledger: &dyn Ledger,
    pools: &[PoolId],
    by: &str,
    at: Timestamp,
) -> Result<(), PortError> {
    let ended = HoldRequest {
        wants: HoldWants::Running,
        since: at,
        until: at,
        by: by.to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    };
    set(ledger, pools, &ended).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_longer_than_nothing_and_at_most_a_week() {
        for (length, expected) in [
            (TimeDelta::seconds(-1), Err(HoldLengthError::Empty)),
            (TimeDelta::zero(), Err(HoldLengthError::Empty)),
            (TimeDelta::seconds(1), Ok(())),
            (HOLD_MAX, Ok(())),
            (HOLD_MAX + TimeDelta::seconds(1), Err(HoldLengthError::TooLong)),
        ] {
            assert_eq!(check_length(length), expected, "{length}");
        }
        assert_eq!(HoldLengthError::TooLong.to_string(), "a hold lasts at most 7d");
    }
}
