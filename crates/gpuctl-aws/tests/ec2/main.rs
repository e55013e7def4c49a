//! The real adapter, with the real SDK, against the simulated EC2 over HTTP: what no emulator has. Test names carry the traps' ids.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod contract;
mod launched;
mod spot;
mod stable;
mod support;
