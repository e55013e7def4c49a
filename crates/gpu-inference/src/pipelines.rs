//! An opened model, and the code of each family.
//!
//! One pipeline is one set of sessions and runs on one thread at a time.

pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod denoise;
pub(crate) mod detect;
mod load;
pub(crate) mod ocr;
pub(crate) mod raw;
pub(crate) mod segment;
pub(crate) mod sentence;
pub(crate) mod siglip;
pub(crate) mod synthesize;
pub(crate) mod transcribe;
mod vectors;
mod wav;

use crate::input::Prepared;
use crate::models::Device;
use crate::output::Output;
use crate::run::{Cancel, Run, RunError};

/// An opened model.
pub struct Pipeline {
    device: Device,
    batch_max: usize,
    run: Box<dyn Run>,
}

impl Pipeline {
    pub(crate) fn new(device: Device, batch_max: usize, run: Box<dyn Run>) -> Self {
        Self { device, batch_max, run }
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The most inputs that [`Pipeline::run`] takes at once with profit; at least 1.
    #[must_use]
    pub fn batch_max(&self) -> usize {
        self.batch_max
    }

    /// Returns one output for each input, in order. An output does not depend on the other inputs.
    ///
    /// # Errors
    /// The work was cancelled, an input is of the wrong kind, or the model failed. Then no input has an output.
    pub fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        self.run.run(batch, cancel)
    }
}
