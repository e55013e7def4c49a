//! Drains one queue on one box: receive → lease → decode → batch → infer → commit → ack.
//!
//! At-least-once delivery and one result a job make each job's answer exactly once. It decides nothing about boxes: it asks
//! the same `decide` as everyone and follows what that says of its own box.

pub mod answer;
pub mod check;
pub mod engine;
pub mod failure;
mod job;
mod leases;
pub mod models;
pub mod worker;

pub use engine::{Engine, EngineSetup};
pub use worker::{Worker, WorkerSetup, serve};
