//! The models on this machine: found, verified, and opened as sessions.
//!
//! ONNX Runtime itself notices neither a swapped file nor a renamed input before the first run fails deep inside an
//! operator, so each file's hash and each session's inputs and outputs are checked here. It fetches nothing.

mod opener;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ort::session::Session;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::family::{Family, GRAPH, ModelTask};
use crate::manifest::{Manifest, ManifestError, ModelFile};
use crate::phonemes::PhonemeError;
use crate::pipelines::Pipeline;
use crate::pipelines::classify::file_type::FileTypePipeline;
use crate::pipelines::classify::text::TextClassifierPipeline;
use crate::pipelines::convert::ConvertPipeline;
use crate::pipelines::denoise::DenoisePipeline;
use crate::pipelines::detect::centerface::CenterFacePipeline;
use crate::pipelines::detect::yolo::YoloPipeline;
use crate::pipelines::ocr::OcrPipeline;
use crate::pipelines::raw::RawPipeline;
use crate::pipelines::segment::saliency::SaliencyPipeline;
use crate::pipelines::segment::sam2::Sam2Pipeline;
use crate::pipelines::segment::sam3::Sam3Pipeline;
use crate::pipelines::sentence::SentencePipeline;
use crate::pipelines::siglip::SiglipPipeline;
use crate::pipelines::synthesize::kokoro::Kokoro;
use crate::pipelines::synthesize::melo::Melo;
use crate::pipelines::synthesize::piper::Piper;
use crate::pipelines::synthesize::{SynthesizePipeline, Voice};
use crate::pipelines::transcribe::{RecogniserKind, TranscribePipeline};
use crate::runtime::{DevicePreference, Runtime, RuntimeError};
use gpu_tasks::Task;
pub(crate) use opener::{DimSpec, IoName, IoSpec, Opener, Signature};

/// The models in one folder.
#[derive(Debug, Clone)]
pub struct ModelStore {
    folder: PathBuf,
    manifests: BTreeMap<String, Manifest>,
    /// Devices that the user chose for single models.
    devices: BTreeMap<String, DevicePreference>,
}

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The folder of models cannot be read.
    #[error("cannot read the models in {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A manifest is malformed or wrong.
    #[error("a model's manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// No model has this name.
    #[error("no model {model:?} in {}: known are {known}", folder.display())]
    Unknown {
        /// The name that was asked for.
        model: String,
        /// The folder of models.
        folder: PathBuf,
        /// The names that there are.
        known: String,
    },
    /// The model serves other models and no job.
    #[error("the model {model} does {task}, which is no job's task")]
    NoJob {
        /// The model.
        model: String,
        /// What it does.
        task: ModelTask,
    },
    /// The model used in a role is of another family.
    #[error("the model {model} uses {used} as {role}, which is of the family {family}")]
    WrongUse {
        /// The model.
        model: String,
        /// The model that it uses.
        used: String,
        /// As what.
        role: &'static str,
        /// The family of the used model.
        family: String,
    },
    /// The model has several graphs, or none of this role.
    #[error("{graph} names no single graph: there are {known}")]
    WhichGraph {
        /// What was asked for.
        graph: String,
        /// What there is.
        known: String,
    },
    /// A file is not there, or cannot be read.
    #[error("the model {model} lacks {}", path.display())]
    FileMissing {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file has another size than its manifest says.
    #[error("{} of the model {model} has {found} bytes, expected {expected}", path.display())]
    FileSize {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// The manifest's size.
        expected: u64,
        /// The file's size.
        found: u64,
    },
    /// A file has other content than its manifest says.
    #[error("{} of the model {model} has SHA-256 {found}, expected {expected}", path.display())]
    FileHash {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// The manifest's hash.
        expected: String,
        /// The file's hash.
        found: String,
    },
    /// ONNX Runtime cannot load the file.
    #[error("{} of the model {model} cannot be loaded as an ONNX model", path.display())]
    NotAModel {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// Inputs, outputs or vocabulary are not the ones that the family's code needs.
    #[error("{} of the model {model} does not fit its family: {problem}", path.display())]
    Interface {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// The input or output, and what is wrong with it.
        problem: String,
    },
    /// A program that the model needs does not work.
    #[error("the model {model} cannot read texts aloud")]
    Phonemes {
        /// The model.
        model: String,
        /// Why not.
        #[source]
        source: PhonemeError,
    },
    /// The device that the model needs does not work.
    #[error("the model {model} has no device")]
    Device {
        /// The model.
        model: String,
        /// Why not.
        #[source]
        source: RuntimeError,
    },
}

impl ModelError {
    /// A short, stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "model.folder",
            Self::Manifest(_) => "model.manifest",
            Self::Unknown { .. } => "model.unknown",
            Self::NoJob { .. } | Self::WrongUse { .. } => "model.task",
            Self::WhichGraph { .. } => "model.graph",
            Self::FileMissing { .. } => "model.missing",
            Self::FileSize { .. } | Self::FileHash { .. } => "model.hash",
            Self::NotAModel { .. } => "model.not_onnx",
            Self::Interface { .. } => "model.interface",
            Self::Phonemes { source, .. } => source.code(),
            Self::Device { .. } => "model.device",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Device { source, .. } => source.hint(),
            Self::Phonemes { source, .. } => source.hint(),
            Self::Folder { .. } | Self::FileMissing { .. } => "run scripts/fetch-models.py",
            Self::FileSize { .. } | Self::FileHash { .. } => {
                "run scripts/fetch-models.py: it replaces damaged files"
            }
            Self::Unknown { .. } => {
                "name one of these, or add a manifest and run scripts/fetch-models.py"
            }
            Self::WhichGraph { .. } => "name one of these as the model",
            Self::NoJob { .. } | Self::WrongUse { .. } => {
                "correct `task`, `family` or `uses` in the model's model.toml"
            }
            Self::NotAModel { .. } | Self::Interface { .. } => {
                "the manifest names a file of another model: correct its family, role or origin"
            }
        }
    }
}

/// The manifest's file name.
const MANIFEST_NAME: &str = "model.toml";

impl ModelStore {
    /// Reads every `*/model.toml` in `folder`. The models' files are checked when one is opened.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let unreadable = |source| ModelError::Folder { folder: folder.to_owned(), source };
        let mut manifests = BTreeMap::new();
        for entry in folder.read_dir().map_err(unreadable)? {
            let model_folder = entry.map_err(unreadable)?.path();
            if !model_folder.join(MANIFEST_NAME).is_file() {
                continue;
            }
            // A bad manifest is its own model's trouble: it is reported when that model is asked for.
            match read_manifest(&model_folder) {
                Ok(manifest) => drop(manifests.insert(manifest.name().to_owned(), manifest)),
                Err(error) => warn!(%error, "a model is left out"),
            }
        }
        Ok(Self { folder: folder.to_owned(), manifests, devices: BTreeMap::new() })
    }

    /// Puts models on devices of the user's choice, whatever their manifests say.
    #[must_use]
    pub fn with_devices(mut self, devices: &BTreeMap<String, DevicePreference>) -> Self {
        self.devices.clone_from(devices);
        self
    }

    /// The manifest of one model.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Manifest> {
        self.manifests.get(name)
    }

    /// The model for jobs of `task` that name none: the one marked `default`, else the first by name.
    #[must_use]
    pub fn default_for(&self, task: Task) -> Option<&Manifest> {
        let fitting = || self.list().filter(|manifest| manifest.task() == ModelTask::Job(task));
        fitting().find(|manifest| manifest.is_default()).or_else(|| fitting().next())
    }

    /// All models, by name.
    pub fn list(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.values()
    }

    fn require(&self, name: &str) -> Result<&Manifest, ModelError> {
        self.get(name).ok_or_else(|| {
            let folder = self.folder.join(name);
            match read_manifest(&folder) {
                Err(error) if folder.join(MANIFEST_NAME).is_file() => error.into(),
                _ => ModelError::Unknown {
                    model: name.to_owned(),
                    folder: self.folder.clone(),
                    known: self.manifests.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                },
            }
        })
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest, ManifestError> {
    let path = folder.join(MANIFEST_NAME);
    let manifest = Manifest::read(&path)?;
    if folder.file_name() == Some(manifest.name().as_ref()) {
        return Ok(manifest);
    }
    let problem = format!("name: {:?} is not the folder's name", manifest.name());
    Err(ManifestError::Wrong { path, problem })
}

/// Verifies the model's files, makes its sessions, and gives the pipeline that runs it.
///
/// A device chosen with [`ModelStore::with_devices`] goes before the manifest's, and that before `device`, except that
/// `DEVICE=cpu` keeps every model off the GPU that was not put there by name.
///
/// # Errors
/// The model is unknown, a file is missing, damaged or of another model, or the device does not work.
pub fn open_pipeline(
    runtime: &Runtime,
    store: &ModelStore,
    model: &str,
    device: DevicePreference,
) -> Result<Box<dyn Pipeline>, ModelError> {
    let manifest = store.require(model)?;
    let mut opener = Opener::new(runtime, store, manifest, device)?;
    match manifest.family() {
        Family::Moonshine(settings) | Family::Whisper(settings) => {
            let kind = match manifest.family() {
                Family::Whisper(_) => RecogniserKind::Whisper,
                _ => RecogniserKind::Moonshine,
            };
            let used = [opener.used(store, "vad", device)?, opener.used(store, "speaker", device)?];
            Ok(Box::new(TranscribePipeline::open(&mut opener, kind, used, *settings)?))
        }
        Family::PpOcr(settings) => Ok(Box::new(OcrPipeline::open(&mut opener, *settings)?)),
        Family::Dtln => Ok(Box::new(DenoisePipeline::open(&mut opener)?)),
        Family::Piper => Ok(synthesizer(Piper::open(&mut opener)?, &opener)),
        Family::Kokoro => Ok(synthesizer(Kokoro::open(&mut opener)?, &opener)),
        Family::MeloTts => Ok(synthesizer(Melo::open(&mut opener)?, &opener)),
        Family::OpenVoice => Ok(Box::new(ConvertPipeline::open(&mut opener)?)),
        Family::SentenceEncoder(settings) => {
            Ok(Box::new(SentencePipeline::open(&mut opener, settings.clone())?))
        }
        Family::TextClassifier(settings) => {
            Ok(Box::new(TextClassifierPipeline::open(&mut opener, *settings)?))
        }
        Family::Magika => Ok(Box::new(FileTypePipeline::open(&mut opener)?)),
        Family::CenterFace(settings) => {
            Ok(Box::new(CenterFacePipeline::open(&mut opener, *settings)?))
        }
        Family::Yolo(settings) => Ok(Box::new(YoloPipeline::open(&mut opener, *settings)?)),
        Family::U2Net => Ok(Box::new(SaliencyPipeline::open(&mut opener)?)),
        Family::Sam2 => Ok(Box::new(Sam2Pipeline::open(&mut opener)?)),
        Family::Sam3(settings) => Ok(Box::new(Sam3Pipeline::open(&mut opener, *settings)?)),
        Family::Siglip(settings) => {
            Ok(Box::new(SiglipPipeline::open(&mut opener, settings.clone())?))
        }
        Family::Onnx => Ok(Box::new(RawPipeline::open(&mut opener, GRAPH)?)),
        Family::SileroVad | Family::DVector => {
            Err(ModelError::NoJob { model: model.to_owned(), task: manifest.task() })
        }
    }
}

fn synthesizer(voice: impl Voice + 'static, opener: &Opener<'_>) -> Box<dyn Pipeline> {
    Box::new(SynthesizePipeline::new(Box::new(voice), opener.device()))
}

/// Says whether every file of a model is there and the one that its manifest means.
///
/// # Errors
/// The model is unknown, or a file is missing or another.
pub fn verify(store: &ModelStore, model: &str) -> Result<(), ModelError> {
    let manifest = store.require(model)?;
    for file in manifest.files() {
        verified_bytes(&store.folder.join(manifest.name()), manifest.name(), file)?;
    }
    Ok(())
}

/// Opens one graph of any model for `onnx.run`: `MODEL`, or `MODEL/ROLE` where the model has several.
///
/// # Errors
/// As [`open_pipeline`], and where the role is unknown or missing.
pub fn open_raw(
    runtime: &Runtime,
    store: &ModelStore,
    graph: &str,
    device: DevicePreference,
) -> Result<Box<dyn Pipeline>, ModelError> {
    let (mut opener, role) = raw_opener(runtime, store, graph, device)?;
    Ok(Box::new(RawPipeline::open(&mut opener, role)?))
}

/// The session of a graph that is named as for [`open_raw`].
pub(crate) fn open_session(
    runtime: &Runtime,
    store: &ModelStore,
    graph: &str,
    device: DevicePreference,
) -> Result<Session, ModelError> {
    let (mut opener, role) = raw_opener(runtime, store, graph, device)?;
    opener.raw_session(role)
}

fn raw_opener<'a>(
    runtime: &'a Runtime,
    store: &'a ModelStore,
    graph: &'a str,
    device: DevicePreference,
) -> Result<(Opener<'a>, &'a str), ModelError> {
    let (model, role) = match graph.split_once('/') {
        Some((model, role)) => (model, Some(role)),
        None => (graph, None),
    };
    let manifest = store.require(model)?;
    let graphs: Vec<&str> = manifest.graphs().map(|file| file.role.as_str()).collect();
    let role = match (role, graphs.as_slice()) {
        (Some(role), roles) if roles.contains(&role) => role,
        (None, [only]) => only,
        _ => {
            let known = graphs.iter().map(|role| format!("{model}/{role}"));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(ModelError::WhichGraph { graph: graph.to_owned(), known });
        }
    };
    Ok((Opener::new(runtime, store, manifest, device)?, role))
}

fn verified_bytes(folder: &Path, model: &str, file: &ModelFile) -> Result<Vec<u8>, ModelError> {
    let model = || model.to_owned();
    let path = folder.join(&file.path);
    let missing = |source| ModelError::FileMissing { model: model(), path: path.clone(), source };
    // The size first: a wrong file may be too large to read.
    let found = std::fs::metadata(&path).map_err(missing)?.len();
    if found != file.size_bytes {
        let expected = file.size_bytes;
        return Err(ModelError::FileSize { model: model(), path, expected, found });
    }
    let bytes = std::fs::read(&path).map_err(missing)?;
    let found = hexadecimal(&Sha256::digest(&bytes));
    if found != file.sha256 {
        let expected = file.sha256.clone();
        return Err(ModelError::FileHash { model: model(), path, expected, found });
    }
    Ok(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
