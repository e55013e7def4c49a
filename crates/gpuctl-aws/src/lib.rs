//! AWS behind the ports of `gpuctl-control`: calls and their errors, no decisions.
//!
//! `queue` is what a worker needs; `control` adds what starts and stops boxes, and with it the build of `aws-sdk-ec2`. Without
//! either feature the crate is empty. No other crate names an AWS SDK crate.
#![cfg(feature = "queue")]
#![warn(missing_docs)]

pub mod config;
pub mod error;

pub use config::Aws;
