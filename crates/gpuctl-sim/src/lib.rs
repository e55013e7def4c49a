//! The simulator: traces of jobs and spot capacity (`trace`), replays of policies on them (`replay`, `policies`, `compare`,
//! `tune`), lower bounds (`bounds`), and the fault simulation of the whole control loop (`world`, `faults`, `checks`, `shrink`).
//!
//! It does no IO (but for the HTTP front of feature `wire`) and reads no clock. In traces time is whole milliseconds since their
//! start, as `i64`; no float decides anything. The same input and seed give the same bytes on every machine. What it models and
//! what it does not is in the crate's README.md.

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
