//! The decision core: what the user wants (`policy`), what was seen (`observation`), and what follows (`decide` → `plan`).
//!
//! It does no IO, reads no clock and holds no state, so that the CLI, the Lambda, the local daemon, the worker and the
//! simulator can all call the very same `decide`. Everything here is total: bad input ends in a list of errors, never in a panic.

#![warn(missing_docs)]

pub mod batch;
pub mod cost;
pub mod decide;
pub mod observation;
pub mod offering;
pub mod period;
pub mod plan;
pub mod policy;
pub mod refusals;
pub mod schedule;
pub mod suggest;
pub mod units;

pub use decide::decide;
