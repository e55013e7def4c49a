//! The adapter, with the AWS SDK, against the simulated EC2 over HTTP, which behaves as no emulator does. Names of tests begin with
//! the ids of traps.
//!
//! `moto`, `faults` and `limits` run against moto instead, so that the shape of calls and responses is checked by something that
//! this project did not write.

#![expect(clippy::unwrap_used, reason = "a test ends at the first error")]

mod account;
mod contract;
mod day;
#[path = "../emulators/mod.rs"]
mod emulators;
mod faults;
mod launched;
mod limits;
mod logs;
mod moto;
mod outdated;
mod self_instance;
mod spot;
mod stable;
mod support;
mod trips;
