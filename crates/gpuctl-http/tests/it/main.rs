//! The API on a real queue and ledger: what clients send right and wrong, and what they get.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod bad;
mod jobs;
mod keys;
mod openai;
mod openapi;
mod page;
mod place;
