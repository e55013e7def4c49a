//! The simulated world: real demand and availability (`trace`), and what the cheapest possible box costs on them (`bounds`).
//!
//! It does no IO and reads no clock. Time is whole milliseconds since the start of a trace, as `i64`; no float decides anything.
//! The same input and seed give the same bytes on every machine.

#![warn(missing_docs)]

pub mod bounds;
pub mod trace;
