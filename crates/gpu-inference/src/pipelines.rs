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
mod scaling;
pub(crate) mod segment;
pub(crate) mod sentence;
pub(crate) mod siglip;
pub(crate) mod synthesize;
pub(crate) mod transcribe;
mod vectors;
mod wav;

use crate::input::{Content, Prepared};
use gpu_tasks::Blame;

use crate::models::{Device, Opener, Place, Runtime};
use crate::onnx_error::OnnxError;
use crate::output::Output;
use crate::preparation::Preparation;
use crate::run::{Cancel, Run, RunError};

/// An opened model.
pub struct Pipeline {
    place: Place,
    batch_max: usize,
    run: Box<dyn Run>,
    runtime: Runtime,
}

impl Pipeline {
    pub(crate) fn new(opener: &Opener<'_>, run: Box<dyn Run>) -> Self {
        let (place, runtime) = (opener.place().clone(), opener.runtime().clone());
        Self { place, batch_max: opener.batch_max(), run, runtime }
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> Device {
        self.place.device
    }

    /// Why it runs on the processor though the worker means the GPU; `None` where it runs as it should.
    #[must_use]
    pub fn fallback(&self) -> Option<&OnnxError> {
        self.place.fallback.as_ref()
    }

    /// The most inputs that [`Pipeline::run`] takes at once with profit; at least 1.
    #[must_use]
    pub fn batch_max(&self) -> usize {
        self.batch_max
    }

    /// How inputs are prepared for this model on other threads, before their batch runs; `None` where nothing is to be done before.
    #[must_use]
    pub fn preparation(&self) -> Option<Preparation> {
        self.run.preparation()
    }

    /// Whether it can run this input: not one that was prepared for another model, or for this one before it was opened again.
    #[must_use]
    pub fn takes(&self, input: &Prepared) -> bool {
        let Content::Ready(ready) = input.content() else { return true };
        self.run.preparation().is_some_and(|own| own.made(ready))
    }

    /// Returns one output for each input, in order. An output does not depend on the other inputs.
    ///
    /// # Errors
    /// The work was cancelled, an input is of the wrong kind, or the model failed. Then no input has an output.
    pub fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let outputs = self.run.run(batch, cancel);
        if outputs.as_ref().is_err_and(|error| error.blame() == Blame::Box) {
            self.runtime.doubt_cuda();
        }
        let mut outputs = outputs?;
        for (output, input) in outputs.iter_mut().zip(batch) {
            let own = std::mem::take(&mut output.remarks);
            output.remarks = input.remarks().clone().followed_by(own);
        }
        Ok(outputs)
    }
}
