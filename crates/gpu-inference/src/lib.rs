//! Runs voice and vision models for `gpu-worker`: model manifests, ONNX Runtime, decoding of inputs, pipelines.
//!
//! The worker decodes inputs with [`decode`] on CPU threads, opens a [`Pipeline`] per model with [`open_pipeline`],
//! and hands it batches. Queues, results' JSON and metrics are not here; nothing here prints or ends the process.

mod audio;
mod bench;
mod graph;
mod input;
mod manifest;
mod models;
mod onnx_file;
mod params;
mod picture;
mod pipelines;
mod pixels;
mod runtime;
mod task;
mod tensors;
mod tokens;

pub use audio::{Audio, SAMPLE_RATE_HZ};
pub use bench::{Bench, OpenSides, Speed, catalogue};
pub use input::{
    AUDIO_SECONDS_MAX, Content, FILE_BYTES_MAX, IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX, InputError,
    InputLimits, Prepared, TEXT_CHARS_MAX, decode,
};
pub use manifest::{Family, Manifest, ManifestError, ModelFile, ModelTask, Origin, Precision};
pub use models::{ModelError, ModelStore, open_pipeline, open_raw, verify};
pub use params::{FileKind, Need, ParamKind, ParamSpec, Params};
pub use picture::Picture;
pub use pipelines::classify::text::TextClassifierSettings;
pub use pipelines::classify::{Classification, Label};
pub use pipelines::detect::centerface::CenterFaceSettings;
pub use pipelines::detect::yolo::YoloSettings;
pub use pipelines::detect::{Detection, Detections};
pub use pipelines::ocr::{Line, OcrSettings, OcrShapes, Page};
pub use pipelines::raw::TensorSummary;
pub use pipelines::segment::sam3::Sam3Settings;
pub use pipelines::segment::{Segmented, Segments};
pub use pipelines::sentence::{Embedding, SentenceSettings};
pub use pipelines::siglip::{SiglipFilter, SiglipSettings};
pub use pipelines::transcribe::{Segment, TranscribeSettings, Transcript};
pub use pipelines::{Answer, Cancel, Output, OutputFile, Pipeline, RunError};
pub use runtime::{
    Device, DevicePreference, Runtime, RuntimeError, RuntimeOptions, UnknownDevice, cache_folder,
};
pub use task::{Task, UnknownTask};
pub use tensors::{Elements, RANK_MAX, TENSORS_MAX, Tensor, Tensors};
