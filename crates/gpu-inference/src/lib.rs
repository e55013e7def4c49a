//! Runs voice and vision models for `gpu-worker`: model manifests, ONNX Runtime, decoding of inputs, pipelines.
//!
//! The worker decodes inputs with [`decode`] on CPU threads, opens a [`Pipeline`] per model with [`open_pipeline`],
//! and hands it batches. Queues, results' JSON and metrics are not here; nothing here prints or ends the process.

mod audio;
mod input;
mod manifest;
mod models;
mod params;
mod phonemes;
mod picture;
mod pipelines;
mod runtime;
mod spectrum;
mod task;
mod wav;

pub use audio::{Audio, SAMPLE_RATE_HZ};
pub use input::{
    AUDIO_SECONDS_MAX, Content, FILE_BYTES_MAX, IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX, InputError,
    InputLimits, Prepared, TEXT_CHARS_MAX, decode,
};
pub use manifest::{Family, Manifest, ManifestError, ModelFile, ModelTask, Origin, Precision};
pub use models::{ModelError, ModelStore, open_pipeline};
pub use params::{FileKind, Need, ParamKind, ParamSpec, Params};
pub use phonemes::PhonemeError;
pub use picture::Picture;
pub use pipelines::ocr::{Line, OcrSettings, Page};
pub use pipelines::transcribe::{Segment, TranscribeSettings, Transcript};
pub use pipelines::{Answer, Cancel, Output, OutputFile, Pipeline, RunError};
pub use runtime::{
    Device, DevicePreference, Runtime, RuntimeError, RuntimeOptions, UnknownDevice, cache_folder,
};
pub use task::{Task, UnknownTask};
pub use wav::Sound;
