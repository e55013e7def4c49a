//! Runs models for a worker: `gpuctl-worker` receives, leases, commits and ends; here is what needs ONNX Runtime.

pub mod cancel;
pub mod check;
pub mod command;
pub mod engine;
pub mod failure;
mod inference;
pub mod locks;
pub mod models;
pub mod result;
pub mod scratch;
pub mod trial;

pub use command::{Commands, Tasks};
pub use engine::{Engine, EngineSetup};
pub use inference::output_files;
