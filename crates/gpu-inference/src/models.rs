//! The models on this machine: found, verified, and opened as sessions.
//!
//! ONNX Runtime itself notices neither a swapped file nor a renamed input before the first run fails deep inside an
//! operator, so each file's hash and each session's inputs and outputs are checked here. It fetches nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use memchr::memmem;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::manifest::{Family, Manifest, ManifestError, ModelTask};
use crate::phonemes::PhonemeError;
use crate::pipelines::Pipeline;
use crate::pipelines::convert::ConvertPipeline;
use crate::pipelines::denoise::DenoisePipeline;
use crate::pipelines::ocr::OcrPipeline;
use crate::pipelines::synthesize::SynthesizePipeline;
use crate::pipelines::synthesize::kokoro::Kokoro;
use crate::pipelines::synthesize::melo::Melo;
use crate::pipelines::synthesize::piper::Piper;
use crate::pipelines::transcribe::{RecogniserKind, TranscribePipeline};
use crate::runtime::{Device, DevicePreference, Runtime, RuntimeError};
use crate::task::Task;

/// Prefix of the operators whose scale is taken over the whole batch, so that one row changes another.
const DYNAMIC_QUANTISATION: &[u8] = b"DynamicQuantize";

/// The models in one folder.
#[derive(Debug, Clone)]
pub struct ModelStore {
    folder: PathBuf,
    manifests: BTreeMap<String, Manifest>,
    /// Devices that the user chose for single models.
    placed: BTreeMap<String, DevicePreference>,
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
        Ok(Self { folder: folder.to_owned(), manifests, placed: BTreeMap::new() })
    }

    /// Puts models on devices of the user's choice, whatever their manifests say.
    #[must_use]
    pub fn placing(mut self, devices: &BTreeMap<String, DevicePreference>) -> Self {
        self.placed.clone_from(devices);
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
/// A device chosen with [`ModelStore::placing`] goes before the manifest's, and that before `device`, except that
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
        Family::Piper => {
            let voice = Piper::open(&mut opener)?;
            Ok(Box::new(SynthesizePipeline::new(Box::new(voice), opener.device())))
        }
        Family::Kokoro => {
            let voice = Kokoro::open(&mut opener)?;
            Ok(Box::new(SynthesizePipeline::new(Box::new(voice), opener.device())))
        }
        Family::MeloTts => {
            let voice = Melo::open(&mut opener)?;
            Ok(Box::new(SynthesizePipeline::new(Box::new(voice), opener.device())))
        }
        Family::OpenVoice => Ok(Box::new(ConvertPipeline::open(&mut opener)?)),
        Family::SileroVad | Family::DVector => {
            Err(ModelError::NoJob { model: model.to_owned(), task: manifest.task() })
        }
    }
}

/// Opens the files of one model.
pub(crate) struct Opener<'a> {
    runtime: &'a Runtime,
    folder: PathBuf,
    manifest: &'a Manifest,
    device: Device,
    batch_max: NonZeroUsize,
}

impl<'a> Opener<'a> {
    fn new(
        runtime: &'a Runtime,
        store: &ModelStore,
        manifest: &'a Manifest,
        wished: DevicePreference,
    ) -> Result<Self, ModelError> {
        let preference = match (store.placed.get(manifest.name()), manifest.device()) {
            (Some(placed), _) => *placed,
            (None, Some(own)) if wished != DevicePreference::Cpu => own,
            (None, _) => wished,
        };
        let device = runtime
            .device(preference)
            .map_err(|source| ModelError::Device { model: manifest.name().to_owned(), source })?;
        let folder = store.folder.join(manifest.name());
        Ok(Self { runtime, folder, manifest, device, batch_max: manifest.max_batch() })
    }

    /// The model that this one uses in a role, which must be of the role's own family; `None` if it uses none.
    fn used(
        &self,
        store: &'a ModelStore,
        role: &'static str,
        device: DevicePreference,
    ) -> Result<Option<Self>, ModelError> {
        let Some(name) = self.manifest.uses().get(role) else { return Ok(None) };
        let used = store.require(name)?;
        let fits = match role {
            "vad" => *used.family() == Family::SileroVad,
            "speaker" => *used.family() == Family::DVector,
            _ => false,
        };
        if !fits {
            let model = self.manifest.name().to_owned();
            let (used, family) = (used.name().to_owned(), used.family().to_string());
            return Err(ModelError::WrongUse { model, used, role, family });
        }
        Self::new(self.runtime, store, used, device).map(Some)
    }

    /// Where the sessions run.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Most jobs in one batch; final once all sessions are open.
    pub(crate) fn batch_max(&self) -> usize {
        self.batch_max.get()
    }

    /// The verified content of a file that is no model.
    pub(crate) fn bytes(&self, role: &str) -> Result<Vec<u8>, ModelError> {
        let file = self.manifest.file(role);
        let model = || self.manifest.name().to_owned();
        let path = self.folder.join(&file.path);
        let missing =
            |source| ModelError::FileMissing { model: model(), path: path.clone(), source };
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

    /// A session for the file of `role`, whose inputs and outputs are the ones described.
    pub(crate) fn session(
        &mut self,
        role: &str,
        inputs: &[Port],
        outputs: &[Port],
    ) -> Result<Session, ModelError> {
        let session = self.unchecked(role)?;
        check_ports("input", session.inputs(), inputs)
            .and_then(|()| check_ports("output", session.outputs(), outputs))
            .map_err(|problem| self.misfit(role, problem))?;
        Ok(session)
    }

    /// A session for the file of `role`, and the first of the known signatures that it has.
    pub(crate) fn session_like(
        &mut self,
        role: &str,
        known: &[Signature],
    ) -> Result<(Session, usize), ModelError> {
        let session = self.unchecked(role)?;
        let mut problems = Vec::new();
        for (index, signature) in known.iter().enumerate() {
            let fits = check_ports("input", session.inputs(), signature.inputs)
                .and_then(|()| check_ports("output", session.outputs(), signature.outputs));
            match fits {
                Ok(()) => return Ok((session, index)),
                Err(problem) => problems.push(problem),
            }
        }
        Err(self.misfit(role, problems.join("; or ")))
    }

    fn unchecked(&mut self, role: &str) -> Result<Session, ModelError> {
        let bytes = self.bytes(role)?;
        let quantised = memmem::find(&bytes, DYNAMIC_QUANTISATION).is_some();
        if quantised && self.batch_max.get() > 1 {
            warn!(
                model = self.manifest.name(),
                role,
                max_batch = self.batch_max,
                "dynamically quantised: rows of a batch would change each other, using batches of 1"
            );
            self.batch_max = NonZeroUsize::MIN;
        }
        let session = self.runtime.session(&bytes, self.device).map_err(|source| {
            let path = self.folder.join(&self.manifest.file(role).path);
            ModelError::NotAModel { model: self.manifest.name().to_owned(), path, source }
        })?;
        info!(model = self.manifest.name(), role, device = %self.device, "opened a session");
        Ok(session)
    }

    /// The error for a program that the model needs.
    pub(crate) fn needs(&self, source: PhonemeError) -> ModelError {
        ModelError::Phonemes { model: self.manifest.name().to_owned(), source }
    }

    /// The error for a file that is a model, but not one of this family.
    pub(crate) fn misfit(&self, role: &str, problem: String) -> ModelError {
        let path = self.folder.join(&self.manifest.file(role).path);
        ModelError::Interface { model: self.manifest.name().to_owned(), path, problem }
    }
}

/// An input or output, or a group of them, that a family's code relies on.
pub(crate) struct Port {
    pub(crate) name: PortName,
    pub(crate) element: TensorElementType,
    pub(crate) shape: &'static [Size],
}

/// Inputs and outputs of one of several exports of the same model.
pub(crate) struct Signature {
    pub(crate) inputs: &'static [Port],
    pub(crate) outputs: &'static [Port],
}

/// Which inputs or outputs a [`Port`] describes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PortName {
    /// The only one: exporters differ in its name.
    Only,
    /// The one of this name.
    Is(&'static str),
    /// All whose names begin so, at least one.
    Every(&'static str),
}

/// What the code relies on in one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// The code sends or accepts any number.
    Free,
    /// The code sends or expects this number.
    Is(u32),
    /// Fixed by the model; the code reads it.
    Own,
    /// The code hands it on from one graph to the next.
    Any,
}

fn check_ports(kind: &str, found: &[Outlet], needed: &[Port]) -> Result<(), String> {
    let names = || found.iter().map(Outlet::name).collect::<Vec<_>>().join(", ");
    for port in needed {
        let mut described =
            found.iter().filter(|outlet| port.name.covers(outlet.name())).peekable();
        let only_of_many = matches!(port.name, PortName::Only) && found.len() != 1;
        if described.peek().is_none() || only_of_many {
            return Err(format!("{kind} {}: not what is there: {}", port.name, names()));
        }
        if let Some(outlet) = described.find(|outlet| !port.allows(outlet.dtype())) {
            let needed = format!("{} {:?}", port.element, port.shape);
            let (name, found) = (outlet.name(), outlet.dtype());
            return Err(format!("{kind} {name}: is {found}, the code needs {needed}"));
        }
    }
    // An output more does no harm; an input that gets nothing fails deep inside an operator.
    let unknown = |outlet: &&Outlet| !needed.iter().any(|port| port.name.covers(outlet.name()));
    match found.iter().find(unknown).filter(|_| kind == "input") {
        Some(outlet) => Err(format!("input {}: the code has nothing to send to it", outlet.name())),
        None => Ok(()),
    }
}

impl Port {
    fn allows(&self, found: &ValueType) -> bool {
        let ValueType::Tensor { ty, shape, .. } = found else { return false };
        *ty == self.element
            && shape.len() == self.shape.len()
            && shape.iter().zip(self.shape).all(|(&found, needed)| needed.allows(found))
    }
}

impl PortName {
    fn covers(self, name: &str) -> bool {
        match self {
            Self::Only => true,
            Self::Is(own) => own == name,
            Self::Every(prefix) => name.starts_with(prefix),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("(exactly one)"),
            Self::Is(name) => f.write_str(name),
            Self::Every(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Size {
    /// `found` is a dimension of the model; -1 means that it takes any number.
    fn allows(self, found: i64) -> bool {
        match self {
            Self::Free => found == -1,
            Self::Is(number) => found == -1 || found == i64::from(number),
            Self::Own => found > 0,
            Self::Any => true,
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
