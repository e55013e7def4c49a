//! Runs voice, vision and text models for `gpu-worker`: decoding of inputs, model manifests, ONNX Runtime, pipelines.
//!
//! The worker decodes inputs with [`Decoder::decode`] on CPU threads, opens a [`Pipeline`] per model with [`open_pipeline`], and
//! hands it batches. Queues, JSON results and metrics are not here; nothing here prints or ends the process.
//!
//! The modules are layers, each of which uses only those below it: `bench`, `open`, `families`, `pipelines`, `models`,
//! `run` and `preparation`, then `output`, `preprocess` and `input`, and `cancel`, `cards`, `onnx_error`, `size` and `text`.

mod bench;
mod cancel;
mod cards;
mod families;
mod input;
mod models;
mod onnx_error;
mod open;
mod output;
mod pipelines;
mod preparation;
mod preprocess;
mod run;
mod size;
mod text;

pub use gpu_tasks::{Blame, ParamError, Params, Task, TaskError, UnknownTask, WarningCode};

pub use bench::{Bench, OpenSides, Speed};
pub use cancel::Cancel;
pub use cards::{Card, CardError, CardMemory, VISIBLE, card, cards, names_in};
pub use input::audio::Audio;
pub use input::audio::external::ffmpeg_version;
pub use input::picture::Picture;
pub use input::picture::programs::picture_programs;
pub use input::tensors::{Elements, Tensor, Tensors};
pub use input::{
    Content, Decoder, FileEnds, FileKind, InputError, InputLimits, Prepared, Ready, Text, decode,
};
pub use models::{
    Device, DevicePreference, Gpu, Manifest, ManifestError, ModelError, ModelFile, ModelStore,
    ModelTask, Origin, Precision, Resolved, Runtime, RuntimeError, RuntimeOptions, UnknownDevice,
    WheelFile, cache_folder, catalogue,
};
pub use onnx_error::OnnxError;
pub use open::{open, open_pipeline, open_raw, verify};
pub use output::{
    AudioBasis, Basis, Classification, Detection, Detections, Embedding, Label, Line, Output,
    OutputFile, Page, PageSize, PictureBasis, Reading, Remarks, Segment, Segmented, Segments,
    Sound, TaskResult, TensorSummary, TextBasis, Transcript, Warning,
};
pub use pipelines::Pipeline;
pub use preparation::Preparation;
pub use preprocess::phonemes::PhonemeError;
pub use run::RunError;
