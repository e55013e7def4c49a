//! AWS behind the ports of `gpuctl-control`: calls and their errors, no decisions.
//!
//! `queue` is what a worker needs; `control` adds what starts and stops boxes, and with it the build of `aws-sdk-ec2`. Without
//! either feature the crate is empty. No other crate names an AWS SDK crate.
#![cfg(feature = "queue")]
#![warn(missing_docs)]

#[cfg(feature = "control")]
mod account;
pub mod calls;
pub mod config;
#[cfg(feature = "control")]
mod ec2;
pub mod error;

pub use config::Aws;
#[cfg(feature = "control")]
pub use ec2::{Ec2Cloud, Finding};
