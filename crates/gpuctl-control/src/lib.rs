//! The loop: observe → decide → act → record, through ports that a cloud, an embedded store or a simulator fill.
//!
//! It holds no rule (those are `gpuctl-core`'s) and knows no cloud (those are behind `ports`). What is stored or printed
//! as JSON is in `wire` and nowhere else.

pub mod act;
pub mod calendar;
pub mod cancel;
pub mod clock;
pub mod commands;
pub mod config;
#[cfg(feature = "contract")]
pub mod contract;
pub mod hold;
pub mod input;
pub mod job;
pub mod keys;
pub mod lanes;
pub mod log;
pub mod media;
pub mod models;
pub mod notice;
pub mod observe;
pub mod outcome;
pub mod overview;
pub mod params;
pub mod pools;
pub mod ports;
pub mod prices;
pub mod reconcile;
pub mod reconciled;
pub mod scheduled;
pub mod snapshot;
pub mod spending;
pub mod state_folder;
pub mod submit;
pub mod text;
pub mod waiting;
pub mod wire;
pub mod worker_timing;

pub use reconcile::{plan, reconcile};
pub use reconciled::{Reconciled, Trigger};
