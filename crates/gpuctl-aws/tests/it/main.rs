//! SQS, DynamoDB, S3 and SNS over HTTP, against emulators: `scripts/install-emulators.sh` installs them.
//!
//! Two things that no emulator does as AWS does are not tested here: moving dead letters back, and SQS's lag.

#![expect(clippy::unwrap_used, reason = "a test ends at the first error")]

mod contract;
mod faults;
mod files;
mod hindered;
mod jobs;
mod ledger;
mod notify;
mod queue;
mod recorder;
mod support;
