//! The programs as a user runs them: real binaries, real models, a folder of their own each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and prints its seed"
)]

#[cfg(feature = "aws")]
mod aws;
mod backup;
mod chaos;
mod cli;
mod commands;
#[cfg(feature = "aws")]
mod deployment;
mod doctor;
#[cfg(feature = "aws")]
#[path = "../../../gpuctl-aws/tests/emulators/mod.rs"]
mod emulators;
#[cfg(feature = "aws")]
mod function;
mod generated;
mod gpus;
mod hostile;
mod jobs;
mod kills;
mod logs;
mod money;
#[cfg(feature = "aws")]
mod outside;
mod people;
#[cfg(feature = "deploy")]
mod preflight;
#[cfg(feature = "aws")]
mod prices;
mod random;
mod retry;
#[cfg(feature = "deploy")]
mod rivals;
mod serve;
mod snapshots;
#[cfg(feature = "deploy")]
mod stacks;
mod support;
mod tasks;
mod traces;
mod used;
#[cfg(feature = "deploy")]
mod whole;
