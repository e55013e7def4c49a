//! Why a model cannot be opened.

use std::path::PathBuf;

use super::manifest::{ManifestError, ModelTask};
use super::runtime::RuntimeError;
use crate::preprocess::phonemes::PhonemeError;

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The folder of models cannot be read.
    #[error("cannot read the models in {}", folder.display())]
    Folder {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A model's manifest cannot be used.
    #[error("a model's manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// No model has this name.
    #[error("there is no model {model:?} in {}: known are {known}", folder.display())]
    Unknown { model: String, folder: PathBuf, known: String },
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
    #[error("the model {model} cannot be used without {}", path.display())]
    FileMissing {
        model: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file has another size than its manifest says.
    #[error("{} of the model {model} has {found} bytes, expected {expected}", path.display())]
    FileSize { model: String, path: PathBuf, expected: u64, found: u64 },
    /// A file has other content than its manifest says.
    #[error("{} of the model {model} has SHA-256 {found}, expected {expected}", path.display())]
    FileHash { model: String, path: PathBuf, expected: String, found: String },
    /// ONNX Runtime cannot load the file.
    #[error("{} of the model {model} cannot be loaded as an ONNX model", path.display())]
    NotAModel {
        model: String,
        path: PathBuf,
        #[source]
        source: ort::Error,
    },
    /// Inputs, outputs or vocabulary are not the ones that the family's code needs.
    #[error("{} of the model {model} does not fit its family: {problem}", path.display())]
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
            Self::Manifest(_) => "model.manifest",
            Self::Unknown { .. } => "model.unknown",
            Self::NotForJobs { .. } | Self::WrongUse { .. } => "model.task",
            Self::WhichGraph { .. } => "model.graph",
            Self::FileMissing { .. } => "model.missing",
            Self::FileSize { .. } | Self::FileHash { .. } => "model.hash",
            Self::NotAModel { .. } => "model.not_onnx",
            Self::Interface { .. } => "model.interface",
            Self::Phonemes { source, .. } => source.code(),
            Self::Device { .. } => "model.device",
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
