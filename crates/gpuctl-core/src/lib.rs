//! The decision core: what the user wants (`policy`), what was seen (`observation`), and what follows (`decide` → `plan`).
//!
//! It does no IO, reads no clock and holds no state, so that the CLI, the Lambda, the local daemon, the worker and the
//! simulator all call the same `decide`. Everything here is total: bad input is a list of errors, never a panic.

pub mod batch;
pub mod cost;
pub mod decide;
mod named;
pub mod observation;
pub mod offering;
pub mod period;
pub mod plan;
pub mod policy;
pub mod priority;
pub mod refusals;
pub mod schedule;
pub mod sentence;
pub mod suggest;
pub mod text;
pub mod units;
pub mod without;
pub mod zone;

pub use decide::decide;
