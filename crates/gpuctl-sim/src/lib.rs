//! The simulated world: real demand and availability (`trace`), policies on them (`replay`, `policies`, `compare`, `tune`), and
//! what the cheapest possible box costs on them (`bounds`). Faults, and the loop under them, are still to come.
//!
//! It does no IO and reads no clock. Time is whole milliseconds since the start of a trace, as `i64`; no float decides anything.
//! The same input and seed give the same bytes on every machine.

#![warn(missing_docs)]

pub mod bounds;
pub mod compare;
pub mod policies;
pub mod replay;
pub mod trace;
pub mod tune;
