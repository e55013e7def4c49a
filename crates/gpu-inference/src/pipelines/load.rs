//! How much work an input is, and which inputs go well into one batch: what the worker forms batches by.

use gpu_tasks::Task;

use super::ocr;
use crate::input::{Content, Prepared};

/// Shape buckets of audio: pieces are cut from it anyway, so this only keeps long files from short ones.
const AUDIO_BUCKET_SECONDS: u64 = 30;

impl Prepared {
    /// Inputs of one bucket can share a batch without one waiting for or padding the other.
    #[must_use]
    pub fn shape_bucket(&self) -> u64 {
        match self.content() {
            // These models scale every picture to one size, or sort them out themselves.
            Content::Picture(_) if self.task().is_some_and(|task| task != Task::VisionOcr) => 0,
            Content::Audio(audio) => audio.duration().as_secs() / AUDIO_BUCKET_SECONDS,
            Content::Picture(picture) => {
                let canvas = ocr::detection_size(picture.rgb().dimensions().into());
                u64::from(canvas.width) << 32 | u64::from(canvas.height)
            }
            Content::Text(text) => u64::from(text.len().next_power_of_two().ilog2()),
            Content::Bytes(_) | Content::Tensors(_) => 0,
            Content::Ready(ready) => ready.load.shape_bucket,
        }
    }

    /// How much work it is: samples, pixels, or bytes.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self.content() {
            Content::Audio(audio) => audio.samples().len() as u64,
            Content::Picture(picture) => {
                let pixels = picture.pages().iter().map(|page| page.as_raw().len() as u64 / 3);
                pixels.sum()
            }
            Content::Text(text) => text.len() as u64,
            Content::Bytes(ends) => ends.held_bytes(),
            Content::Tensors(tensors) => {
                tensors.values().map(|tensor| tensor.elements().len() as u64).sum()
            }
            Content::Ready(ready) => ready.load.cost,
        }
    }
}
