//! The real adapter, with the real SDK, against the simulated EC2 over HTTP: what no emulator has. Test names carry the traps' ids.
//!
//! And against moto, so that the shape of calls and answers is not only our own idea of EC2 (`moto`, `faults`, `limits`).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod contract;
mod day;
#[path = "../emulators/mod.rs"]
mod emulators;
mod faults;
mod launched;
mod limits;
mod logs;
mod moto;
mod own_box;
mod spot;
mod stable;
mod support;
