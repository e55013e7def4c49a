//! What `gpu-worker models` prints and `gpuctl models` reads and shows: models, and how fast they are.

use serde::{Deserialize, Serialize};

/// `models list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelsDocument {
    /// The folder of models.
    pub folder: String,
    /// The models, by name.
    pub models: Vec<ModelDocument>,
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelDocument {
    pub name: String,
    pub task: String,
    /// Whether jobs get it that name no model.
    pub default: bool,
    /// Which code runs it.
    pub family: String,
    /// The number format of its weights.
    pub precision: String,
    /// The device that it asks for.
    pub device: Option<String>,
    /// The weights' licence.
    pub licence: String,
    /// The size of its files.
    pub bytes: u64,
    /// `here`, `incomplete`, or `known`: can be pulled.
    pub state: String,
}

/// `models verify`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerifiedDocument {
    /// The models that were looked at.
    pub models: Vec<VerifiedModelDocument>,
}

/// Whether a model is as its manifest says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerifiedModelDocument {
    pub name: String,
    /// Whether every file is there and right.
    pub ok: bool,
    pub problem: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
}

/// `models pull`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PulledDocument {
    /// The files of the models that were asked for.
    pub files: Vec<PulledFileDocument>,
}

/// One file of a pulled model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PulledFileDocument {
    pub model: String,
    /// Its path in the model's folder.
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
    /// Where it came from; `None`: it was there already.
    pub from: Option<String>,
}

/// `models bench`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BenchDocument {
    /// Threads of a session on the processor.
    pub threads: usize,
    pub rows: Vec<BenchRowDocument>,
    /// The cases that could not be measured.
    pub skipped: Vec<BenchSkippedDocument>,
}

/// One case: a graph on a device with a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BenchRowDocument {
    /// The model, or `MODEL/ROLE`.
    pub graph: String,
    /// The number format of its weights.
    pub precision: String,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Items a call.
    pub batch: usize,
    /// Calls measured.
    pub calls: usize,
    /// The median call.
    pub call_ms_p50: f64,
    /// Items a second over all calls.
    pub items_per_second: f64,
    /// Opening the session.
    pub load_seconds: f64,
}

/// A case that could not be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BenchSkippedDocument {
    /// The model, or `MODEL/ROLE`.
    pub graph: String,
    /// `cpu` or `cuda`.
    pub device: String,
    pub why: String,
}
