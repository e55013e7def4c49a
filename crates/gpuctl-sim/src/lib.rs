//! The simulated world: real demand and availability (`trace`), policies on them (`replay`, `policies`, `compare`, `tune`),
//! what the cheapest possible box costs on them (`bounds`), and the whole loop among faults (`world`, `faults`, `checks`).
//!
//! It does no IO and reads no clock. In traces time is whole milliseconds since their start, as `i64`; no float decides anything.
//! The same input and seed give the same bytes on every machine.

#![warn(missing_docs)]

pub mod bounds;
mod chance;
pub mod checks;
pub mod compare;
pub mod faults;
pub mod policies;
pub mod replay;
pub mod shrink;
pub mod trace;
pub mod tune;
#[cfg(feature = "wire")]
pub mod wire;
pub mod world;
