//! A worker on ports in memory, in paused time: each promise of the crate's README has a test here that fails without its fix.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod devices;
mod ends;
mod faults;
mod leases;
mod limits;
mod outages;
mod suspects;
mod world;
