//! Why a model cannot be opened.

use std::path::PathBuf;

use gpu_tasks::{Blame, Task};

use super::manifest::{ManifestError, ModelTask};
use super::runtime::RuntimeError;
use crate::onnx_error::OnnxError;
use crate::preprocess::phonemes::PhonemeError;
use crate::text;

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The folder of models cannot be read.
    #[error("cannot read the models in {}", text::path(folder))]
    Folder {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A model's manifest cannot be used.
    #[error("a model's manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// No model has this name.
    #[error("there is no model {model:?} in {}: known are {known}", text::path(folder))]
    Unknown { model: String, folder: PathBuf, known: String },
    /// No model here does the task.
    #[error("no model in {} does {task}", text::path(folder))]
    NoneForTask { task: Task, folder: PathBuf },
    /// The model does another task than the job asks for.
    #[error("the model {model} does {does}, not {wanted}")]
    WrongTask { model: String, does: ModelTask, wanted: Task },
    /// The model only serves other models.
    #[error("the model {model} does {task}, which only other models use")]
    NotForJobs { model: String, task: ModelTask },
    /// The model used in a role is of another family.
    #[error("the model {model} uses {used} as {role}, which is of the family {family}")]
    WrongUse { model: String, used: String, role: &'static str, family: &'static str },
    /// The model has several graphs, or none of this role.
    #[error("{graph} does not name one graph: there are {known}")]
    WhichGraph { graph: String, known: String },
    /// A file is missing or cannot be read.
    #[error("the model {model} cannot be used without {}", text::path(path))]
    FileMissing {
        model: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file has another size than its manifest says.
    #[error("{} of the model {model} has {found} bytes, expected {expected}", text::path(path))]
    FileSize { model: String, path: PathBuf, expected: u64, found: u64 },
    /// A file has other content than its manifest says.
    #[error("{} of the model {model} has SHA-256 {found}, expected {expected}", text::path(path))]
    FileHash { model: String, path: PathBuf, expected: String, found: String },
    /// ONNX Runtime cannot load the file.
    #[error("{} of the model {model} cannot be loaded as an ONNX model", text::path(path))]
    NotAModel {
        model: String,
        path: PathBuf,
        #[source]
        source: OnnxError,
    },
    /// The device has no memory for the model, or does not work.
    #[error("the model {model} cannot be opened on this box")]
    Session {
        model: String,
        #[source]
        source: OnnxError,
    },
    /// Inputs, outputs or vocabulary are not the ones that the family's code needs.
    #[error("{} of the model {model} does not fit its family: {problem}", text::path(path))]
    Interface {
        model: String,
        path: PathBuf,
        /// The input or output, and what is wrong with it.
        problem: String,
    },
    /// A program that the model needs does not work.
    #[error("the model {model} cannot read texts aloud")]
    Phonemes {
        model: String,
        #[source]
        source: PhonemeError,
    },
    /// The device that the model needs does not work.
    #[error("the model {model} has no device")]
    Device {
        model: String,
        #[source]
        source: RuntimeError,
    },
}

impl ModelError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "model.folder",
            Self::Manifest(_) | Self::WrongUse { .. } => "model.manifest",
            Self::Unknown { .. } | Self::NoneForTask { .. } => "model.unknown",
            Self::NotForJobs { .. } | Self::WrongTask { .. } => "model.task",
            Self::WhichGraph { .. } => "model.graph",
            Self::FileMissing { .. } => "model.missing",
            Self::FileSize { .. } | Self::FileHash { .. } => "model.hash",
            Self::NotAModel { .. } => "model.not_onnx",
            Self::Interface { .. } => "model.interface",
            Self::Phonemes { source, .. } => source.code(),
            Self::Session { source, .. } => source.about().code().unwrap_or("device.memory"),
            Self::Device { source, .. } => source.device_code().unwrap_or("model.device"),
        }
    }

    /// Whose fault it is. Of what a box lacks, another box may have it: only a model that is here and does something else is a job's.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::WrongTask { .. } | Self::NotForJobs { .. } | Self::WhichGraph { .. } => {
                Blame::Input
            }
            Self::Folder { .. }
            | Self::Manifest(_)
            | Self::Unknown { .. }
            | Self::NoneForTask { .. }
            | Self::WrongUse { .. }
            | Self::FileMissing { .. }
            | Self::FileSize { .. }
            | Self::FileHash { .. }
            | Self::NotAModel { .. }
            | Self::Session { .. }
            | Self::Interface { .. }
            | Self::Phonemes { .. }
            | Self::Device { .. } => Blame::Box,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Device { source, .. } => source.hint(),
            Self::Phonemes { source, .. } => source.hint(),
            Self::Folder { .. } | Self::FileMissing { .. } => {
                "fetch it with `gpuctl models pull NAME`"
            }
            Self::FileSize { .. } | Self::FileHash { .. } => {
                "fetch it again with `gpuctl models pull NAME`, which replaces damaged files"
            }
            Self::NoneForTask { .. } => {
                "fetch one with `gpuctl models pull NAME`, or name its folder with GPUCTL_MODELS"
            }
            Self::WrongTask { .. } => "leave --model out for the task's default",
            Self::Session { source, .. } => source.hint(),
            Self::Unknown { .. } => "name one of these, or fetch it with `gpuctl models pull NAME`",
            Self::WhichGraph { .. } => "name one of these as the model",
            Self::NotForJobs { .. } | Self::WrongUse { .. } => {
                "correct `task`, `family` or `uses` in the model's model.toml"
            }
            Self::NotAModel { .. } | Self::Interface { .. } => {
                "the manifest names a file of another model: correct its family, role or origin"
            }
        }
    }
}
