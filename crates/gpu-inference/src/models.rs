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

use crate::graph::Graph;
use crate::manifest::{Family, GRAPH, Manifest, ManifestError, ModelFile, ModelTask};
use crate::onnx_file::{fix_weights, free_dimensions};
use crate::pipelines::Pipeline;
use crate::pipelines::classify::file_type::FileTypePipeline;
use crate::pipelines::classify::text::TextClassifierPipeline;
use crate::pipelines::detect::centerface::CenterFacePipeline;
use crate::pipelines::detect::yolo::YoloPipeline;
use crate::pipelines::ocr::OcrPipeline;
use crate::pipelines::raw::RawPipeline;
use crate::pipelines::segment::saliency::SaliencyPipeline;
use crate::pipelines::segment::sam2::Sam2Pipeline;
use crate::pipelines::segment::sam3::Sam3Pipeline;
use crate::pipelines::sentence::SentencePipeline;
use crate::pipelines::siglip::SiglipPipeline;
use crate::pipelines::transcribe::TranscribePipeline;
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
            Self::Device { .. } => "model.device",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Device { source, .. } => source.hint(),
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
        Family::Moonshine(settings) => {
            let used = store.require(manifest.used("vad"))?;
            if *used.family() != Family::SileroVad {
                let (model, family) = (model.to_owned(), used.family().to_string());
                let used = used.name().to_owned();
                return Err(ModelError::WrongUse { model, used, role: "vad", family });
            }
            let mut vad = Opener::new(runtime, store, used, device)?;
            Ok(Box::new(TranscribePipeline::open(&mut opener, &mut vad, *settings)?))
        }
        Family::PpOcr(settings) => Ok(Box::new(OcrPipeline::open(&mut opener, *settings)?)),
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
        Family::SileroVad => {
            Err(ModelError::NoJob { model: model.to_owned(), task: manifest.task() })
        }
    }
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
        verified_bytes(&self.folder, self.manifest.name(), self.manifest.file(role))
    }

    /// A session for the file of `role`, whose inputs and outputs are the ones described.
    pub(crate) fn session(
        &mut self,
        role: &str,
        inputs: &[Port],
        outputs: &[Port],
    ) -> Result<Session, ModelError> {
        let bytes = self.bytes(role)?;
        let session = self.open_bytes(role, &bytes)?;
        self.check(role, &session, (inputs, outputs), Floats::AsNamed)?;
        Ok(session)
    }

    /// As [`Opener::session`], for code that feeds and reads floats of either width.
    pub(crate) fn graph(
        &mut self,
        role: &str,
        inputs: &[Port],
        outputs: &[Port],
    ) -> Result<Graph, ModelError> {
        let bytes = self.bytes(role)?;
        let session = self.open_bytes(role, &bytes)?;
        self.check(role, &session, (inputs, outputs), Floats::HalfToo)?;
        Ok(Graph::new(session))
    }

    /// As [`Opener::graph`], where the file fixes dimensions of `input` that the model itself leaves open, and lists weights as inputs.
    pub(crate) fn freed_graph(
        &mut self,
        role: &str,
        (inputs, outputs): (&[Port], &[Port]),
        (input, dimensions): (&str, &[usize]),
    ) -> Result<Graph, ModelError> {
        let mut bytes = self.bytes(role)?;
        free_dimensions(&mut bytes, input, dimensions);
        fix_weights(&mut bytes);
        let session = self.open_bytes(role, &bytes)?;
        self.check(role, &session, (inputs, outputs), Floats::HalfToo)?;
        Ok(Graph::new(session))
    }

    /// A session for the file of `role`, whatever its inputs and outputs are.
    pub(crate) fn raw_session(&mut self, role: &str) -> Result<Session, ModelError> {
        let bytes = self.bytes(role)?;
        self.open_bytes(role, &bytes)
    }

    fn open_bytes(&mut self, role: &str, bytes: &[u8]) -> Result<Session, ModelError> {
        let quantised = memmem::find(bytes, DYNAMIC_QUANTISATION).is_some();
        if quantised && self.batch_max.get() > 1 {
            warn!(
                model = self.manifest.name(),
                role,
                max_batch = self.batch_max,
                "dynamically quantised: rows of a batch would change each other, using batches of 1"
            );
            self.batch_max = NonZeroUsize::MIN;
        }
        // Weights beside the graph: the runtime looks for them by the name that the graph has for them.
        let weights = self.manifest.weights(role);
        let weights = match weights {
            Some(file) => Some((file.path.clone(), self.bytes(&file.role)?)),
            None => None,
        };
        let session = self.runtime.session(bytes, weights, self.device).map_err(|source| {
            let path = self.folder.join(&self.manifest.file(role).path);
            ModelError::NotAModel { model: self.manifest.name().to_owned(), path, source }
        })?;
        info!(model = self.manifest.name(), role, device = %self.device, "opened a session");
        Ok(session)
    }

    fn check(
        &self,
        role: &str,
        session: &Session,
        (inputs, outputs): (&[Port], &[Port]),
        floats: Floats,
    ) -> Result<(), ModelError> {
        check_ports("input", session.inputs(), inputs, floats)
            .and_then(|()| check_ports("output", session.outputs(), outputs, floats))
            .map_err(|problem| self.misfit(role, problem))
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

/// Which inputs or outputs a [`Port`] describes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PortName {
    /// The only one: exporters differ in its name.
    Only,
    /// The one of this name.
    Is(&'static str),
    /// The one of this name, if there is one: exporters leave it out where the model ignores it.
    Maybe(&'static str),
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
    /// Whatever it is: the code looks for itself, or at the answer.
    Any,
}

/// Which floats a family's code can feed and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floats {
    /// Those that its ports name.
    AsNamed,
    /// 16 bits in place of 32, too.
    HalfToo,
}

fn check_ports(
    kind: &str,
    found: &[Outlet],
    needed: &[Port],
    floats: Floats,
) -> Result<(), String> {
    let names = || found.iter().map(Outlet::name).collect::<Vec<_>>().join(", ");
    for port in needed {
        let mut described =
            found.iter().filter(|outlet| port.name.covers(outlet.name())).peekable();
        let only_of_many = matches!(port.name, PortName::Only) && found.len() != 1;
        if described.peek().is_none() && matches!(port.name, PortName::Maybe(_)) {
            continue;
        }
        if described.peek().is_none() || only_of_many {
            return Err(format!("{kind} {}: not what is there: {}", port.name, names()));
        }
        if let Some(outlet) = described.find(|outlet| !port.allows(outlet.dtype(), floats)) {
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
    fn allows(&self, found: &ValueType, floats: Floats) -> bool {
        use TensorElementType::{Float16, Float32};
        let ValueType::Tensor { ty, shape, .. } = found else { return false };
        let half = floats == Floats::HalfToo && (*ty, self.element) == (Float16, Float32);
        (*ty == self.element || half)
            && shape.len() == self.shape.len()
            && shape.iter().zip(self.shape).all(|(&found, needed)| needed.allows(found))
    }
}

impl PortName {
    fn covers(self, name: &str) -> bool {
        match self {
            Self::Only => true,
            Self::Is(own) | Self::Maybe(own) => own == name,
            Self::Every(prefix) => name.starts_with(prefix),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("(exactly one)"),
            Self::Is(name) | Self::Maybe(name) => f.write_str(name),
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
