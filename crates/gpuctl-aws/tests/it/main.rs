//! SQS, DynamoDB, S3 and SNS over HTTP, against emulators: `scripts/install-emulators.sh` installs them.
//!
//! What no emulator does as AWS does, and is therefore not seen here: moving dead letters back, and SQS's lag.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod contract;
mod faults;
mod files;
mod ledger;
mod notify;
mod queue;
mod support;
