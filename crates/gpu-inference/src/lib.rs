//! Runs voice, vision and text models for `gpu-worker`: decoding of inputs, model manifests, ONNX Runtime, pipelines.
//!
//! The worker decodes inputs with [`decode`] on CPU threads, opens a [`Pipeline`] per model with [`open_pipeline`], and
//! hands it batches. Queues, JSON results and metrics are not here; nothing here prints or ends the process.
//!
//! The modules are layers, each of which uses only those below it: `bench`, `open`, `families`, `pipelines`, `models`,
//! `run`, then `output`, `preprocess` and `input`, and `size`.

mod bench;
mod families;
mod input;
mod models;
mod open;
mod output;
mod pipelines;
mod preprocess;
mod run;
mod size;

pub use gpu_tasks::{ParamError, Params, Task, TaskError, UnknownTask};

pub use bench::{Bench, OpenSides, Speed};
pub use input::audio::Audio;
pub use input::picture::Picture;
pub use input::tensors::{Elements, Tensor, Tensors};
pub use input::{Content, InputError, InputLimits, Prepared, decode};
pub use models::{
    Device, DevicePreference, Manifest, ManifestError, ModelError, ModelFile, ModelStore,
    ModelTask, Origin, Precision, Runtime, RuntimeError, RuntimeOptions, UnknownDevice, WheelFile,
    cache_folder, catalogue,
};
pub use open::{open_pipeline, open_raw, verify};
pub use output::{
    Classification, Detection, Detections, Embedding, Label, Line, Output, OutputFile, Page,
    Segment, Segmented, Segments, Sound, TaskResult, TensorSummary, Transcript,
};
pub use pipelines::Pipeline;
pub use preprocess::phonemes::PhonemeError;
pub use run::{Cancel, RunError};
