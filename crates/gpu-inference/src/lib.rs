//! Runs voice and vision models for `gpu-worker`: model manifests, ONNX Runtime, decoding of inputs, pipelines.
//!
//! The worker decodes inputs with [`decode`] on CPU threads, opens a [`Pipeline`] per model with [`open_pipeline`],
//! and hands it batches. Queues, results' JSON and metrics are not here; nothing here prints or ends the process.

mod audio;
mod bench;
mod family;
mod graph;
mod input;
mod manifest;
mod models;
mod onnx_file;
mod origin;
mod phonemes;
mod picture;
mod pipelines;
mod pixels;
mod runtime;
mod spectrum;
mod tensors;
mod tokens;
mod wav;

pub use gpu_tasks::{ParamError, Params, Task, TaskError, UnknownTask};

pub use audio::Audio;
pub use bench::{Bench, OpenSides, Speed};
pub use family::ModelTask;
pub use input::{Content, InputError, InputLimits, Prepared, decode};
pub use manifest::{Manifest, ManifestError, ModelFile, Precision, catalogue};
pub use models::{ModelError, ModelStore, open_pipeline, open_raw, verify};
pub use origin::{Origin, WheelFile};
pub use phonemes::PhonemeError;
pub use picture::Picture;
pub use pipelines::classify::{Classification, Label};
pub use pipelines::detect::{Detection, Detections};
pub use pipelines::ocr::{Line, Page};
pub use pipelines::raw::TensorSummary;
pub use pipelines::segment::{Segmented, Segments};
pub use pipelines::sentence::Embedding;
pub use pipelines::transcribe::{Segment, Transcript};
pub use pipelines::{Cancel, Output, OutputFile, Pipeline, RunError, TaskResult};
pub use runtime::{
    Device, DevicePreference, Runtime, RuntimeError, RuntimeOptions, UnknownDevice, cache_folder,
};
pub use tensors::{Elements, Tensor, Tensors};
pub use wav::Sound;
