//! The embedded default: everything that gpuctl needs of a cloud, on one machine, without an account.
//!
//! Queue and ledger are one SQLite file that several processes use at once; a box is a child process. It fills the ports
//! of `gpuctl-control`, and decides nothing.

mod backup;
mod boxes;
mod files;
mod group;
mod jobs;
mod keys;
mod ledger;
mod log;
mod logs;
mod queue;
mod retention;
#[cfg(test)]
mod scale_tests;
mod schema;
mod store;
mod time;
mod totals;

use std::path::PathBuf;
use std::sync::Arc;

use gpuctl_control::ports::Ports;

pub use backup::{Contents, Restored, restore};
pub use boxes::{BoxWithoutPool, Launcher, LocalCloud};
pub use files::LocalFiles;
pub use gpuctl_control::clock::SystemClock;
pub use logs::{BoxLine, BoxLogs};
pub use store::{FILE_NAME, Store, StoreOptions};
pub use time::{KernelClocks, MachineClocks};

/// The ports on a store. Boxes are started by `launcher`; a worker starts none and has no launcher. Inputs must be below one of the
/// `input_roots`; without any they may be anywhere.
#[must_use]
pub fn ports(store: &Store, launcher: Option<Launcher>, input_roots: Vec<PathBuf>) -> Ports {
    Ports {
        cloud: Arc::new(LocalCloud::new(store.clone(), launcher)),
        queue: Arc::new(store.clone()),
        ledger: Arc::new(store.clone()),
        clock: Arc::new(SystemClock),
        files: Arc::new(LocalFiles::new(store.folder(), input_roots)),
    }
}
