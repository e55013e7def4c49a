//! How a job is stopped while it runs: between two stages, and inside a run of ONNX Runtime.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ort::session::RunOptions;

/// A flag that stops a job's decoding and inference, e.g. when the job's lease is lost. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    /// Given to each run under this flag, once there is one: they let it end between two nodes of the graph.
    options: OnceLock<RunOptions>,
}

/// [`Cancel`] was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub(crate) struct Cancelled;

impl Cancel {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks what runs to stop: it returns an error for it after the current stage or node.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some(options) = self.0.options.get() {
            // It fails only for a null pointer.
            let _ = options.terminate();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// The options for a run under this flag. [`Cancel::check`] comes after this and before the run, so that no `cancel` is missed.
    pub(crate) fn run_options(&self) -> ort::Result<&RunOptions> {
        if let Some(options) = self.0.options.get() {
            return Ok(options);
        }
        let options = RunOptions::new()?;
        Ok(self.0.options.get_or_init(|| options))
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}
