//! Drains one queue on one box: receive → lease → decode → batch → infer → commit → ack.
//!
//! The queue delivers at least once and the ledger takes one result a job, so each job has exactly one result. The worker has no
//! rules about boxes of its own: it calls the same `decide` as a controller, and follows what the plan says about its own box.

pub mod check;
pub mod engine;
pub mod failure;
mod job;
mod leases;
pub mod models;
pub mod result;
pub mod worker;

pub use engine::{Engine, EngineSetup};
pub use worker::{Worker, WorkerSetup, serve};
