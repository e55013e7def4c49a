//! The programs as a user runs them: real binaries, real models, a folder of their own each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and prints its seed"
)]

mod chaos;
mod cli;
mod jobs;
mod money;
mod support;
mod tasks;
mod traces;
