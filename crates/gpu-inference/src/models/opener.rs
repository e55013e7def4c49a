//! Opens a model's files as sessions: the bytes are verified, the device is chosen, inputs and outputs are the code's.
//!
//! What a family needs of its graphs is said by the pipelines, as [`IoSpec`]s.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use memchr::memmem;
use ort::editor::Model;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use tracing::{info, warn};

use super::{ModelError, ModelStore, verified_bytes};
use crate::family::Family;
use crate::graph::Graph;
use crate::manifest::Manifest;
use crate::onnx_file::{fix_weights, free_dimensions};
use crate::phonemes::PhonemeError;
use crate::runtime::{Device, DevicePreference, Runtime};

/// Prefix of the operators whose scale is taken over the whole batch, so that one row changes another.
const DYNAMIC_QUANTISATION: &[u8] = b"DynamicQuantize";

/// Opens the files of one model.
pub(crate) struct Opener<'a> {
    runtime: &'a Runtime,
    folder: PathBuf,
    manifest: &'a Manifest,
    device: Device,
    batch_max: NonZeroUsize,
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        store: &ModelStore,
        manifest: &'a Manifest,
        wished: DevicePreference,
    ) -> Result<Self, ModelError> {
        let preference = match (store.devices.get(manifest.name()), manifest.device()) {
            (Some(chosen), _) => *chosen,
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
    pub(super) fn used(
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
        verified_bytes(&self.folder, self.manifest.name(), self.manifest.file(role))
    }

    /// A session for the file of `role`, whose inputs and outputs are the ones described.
    pub(crate) fn session(
        &mut self,
        role: &str,
        inputs: &[IoSpec],
        outputs: &[IoSpec],
    ) -> Result<Session, ModelError> {
        let session = self.raw_session(role)?;
        self.check(role, &session, Signature { inputs, outputs }, Floats::AsNamed)?;
        Ok(session)
    }

    /// A session for the file of `role`, and the first of the known signatures that it has.
    pub(crate) fn session_like(
        &mut self,
        role: &str,
        known: &[Signature<'_>],
    ) -> Result<(Session, usize), ModelError> {
        let session = self.raw_session(role)?;
        let mut problems = Vec::new();
        for (index, signature) in known.iter().enumerate() {
            match signature.fits(&session, Floats::AsNamed) {
                Ok(()) => return Ok((session, index)),
                Err(problem) => problems.push(problem),
            }
        }
        Err(self.interface_mismatch(role, problems.join("; or ")))
    }

    /// As [`Opener::session`], for code that feeds and reads floats of either width.
    pub(crate) fn graph(
        &mut self,
        role: &str,
        inputs: &[IoSpec],
        outputs: &[IoSpec],
    ) -> Result<Graph, ModelError> {
        let session = self.raw_session(role)?;
        self.check(role, &session, Signature { inputs, outputs }, Floats::HalfToo)?;
        Ok(Graph::new(session))
    }

    /// As [`Opener::graph`], where the file fixes dimensions of `input` that the model itself leaves open, and lists weights as inputs.
    pub(crate) fn graph_with_free_dims(
        &mut self,
        role: &str,
        signature: Signature<'_>,
        (input, dimensions): (&str, &[usize]),
    ) -> Result<Graph, ModelError> {
        let mut bytes = self.bytes(role)?;
        free_dimensions(&mut bytes, input, dimensions);
        fix_weights(&mut bytes);
        let session = self.open_bytes(role, &bytes)?;
        self.check(role, &session, signature, Floats::HalfToo)?;
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
        let session = self.runtime.session(bytes, weights, self.device);
        let session = session.map_err(|source| self.not_a_model(role, source))?;
        info!(model = self.manifest.name(), role, device = %self.device, "opened a session");
        Ok(session)
    }

    /// A session for a graph that `make` makes, to go on with what the file of `role` answers.
    pub(crate) fn own_session(
        &self,
        role: &str,
        make: impl FnOnce() -> ort::Result<Model>,
    ) -> Result<Session, ModelError> {
        let session = make().and_then(|model| self.runtime.own_session(model, self.device));
        session.map_err(|source| self.not_a_model(role, source))
    }

    fn not_a_model(&self, role: &str, source: ort::Error) -> ModelError {
        let path = self.folder.join(&self.manifest.file(role).path);
        ModelError::NotAModel { model: self.manifest.name().to_owned(), path, source }
    }

    /// The error for a program that the model needs.
    pub(crate) fn needs(&self, source: PhonemeError) -> ModelError {
        ModelError::Phonemes { model: self.manifest.name().to_owned(), source }
    }

    fn check(
        &self,
        role: &str,
        session: &Session,
        signature: Signature<'_>,
        floats: Floats,
    ) -> Result<(), ModelError> {
        signature.fits(session, floats).map_err(|problem| self.interface_mismatch(role, problem))
    }

    /// The error for a file that is a model, but not one of this family.
    pub(crate) fn interface_mismatch(&self, role: &str, problem: String) -> ModelError {
        let path = self.folder.join(&self.manifest.file(role).path);
        ModelError::Interface { model: self.manifest.name().to_owned(), path, problem }
    }
}

/// An input or output, or a group of them, that a family's code relies on.
pub(crate) struct IoSpec {
    pub(crate) name: IoName,
    pub(crate) element: TensorElementType,
    pub(crate) shape: &'static [DimSpec],
}

/// Inputs and outputs of a graph.
#[derive(Clone, Copy)]
pub(crate) struct Signature<'a> {
    pub(crate) inputs: &'a [IoSpec],
    pub(crate) outputs: &'a [IoSpec],
}

/// Which inputs or outputs a [`IoSpec`] describes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum IoName {
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
pub(crate) enum DimSpec {
    /// The code sends or accepts any number.
    Free,
    /// The code sends or expects this number.
    Is(u32),
    /// Fixed by the model; the code reads it.
    Own,
    /// Whatever it is: the code hands it on, looks for itself, or at the answer.
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

impl Signature<'_> {
    fn fits(self, session: &Session, floats: Floats) -> Result<(), String> {
        check_io("input", session.inputs(), self.inputs, floats)?;
        check_io("output", session.outputs(), self.outputs, floats)
    }
}

fn check_io(kind: &str, found: &[Outlet], needed: &[IoSpec], floats: Floats) -> Result<(), String> {
    let names = || found.iter().map(Outlet::name).collect::<Vec<_>>().join(", ");
    for spec in needed {
        let mut described =
            found.iter().filter(|outlet| spec.name.covers(outlet.name())).peekable();
        let only_of_many = matches!(spec.name, IoName::Only) && found.len() != 1;
        if described.peek().is_none() && matches!(spec.name, IoName::Maybe(_)) {
            continue;
        }
        if described.peek().is_none() || only_of_many {
            return Err(format!("{kind} {}: not what is there: {}", spec.name, names()));
        }
        if let Some(outlet) = described.find(|outlet| !spec.allows(outlet.dtype(), floats)) {
            let needed = format!("{} {:?}", spec.element, spec.shape);
            let (name, found) = (outlet.name(), outlet.dtype());
            return Err(format!("{kind} {name}: is {found}, the code needs {needed}"));
        }
    }
    // An output more does no harm; an input that gets nothing fails deep inside an operator.
    let unknown = |outlet: &&Outlet| !needed.iter().any(|spec| spec.name.covers(outlet.name()));
    match found.iter().find(unknown).filter(|_| kind == "input") {
        Some(outlet) => Err(format!("input {}: the code has nothing to send to it", outlet.name())),
        None => Ok(()),
    }
}

impl IoSpec {
    fn allows(&self, found: &ValueType, floats: Floats) -> bool {
        use TensorElementType::{Float16, Float32};
        let ValueType::Tensor { ty, shape, .. } = found else { return false };
        let half = floats == Floats::HalfToo && (*ty, self.element) == (Float16, Float32);
        (*ty == self.element || half)
            && shape.len() == self.shape.len()
            && shape.iter().zip(self.shape).all(|(&found, needed)| needed.allows(found))
    }
}

impl IoName {
    fn covers(self, name: &str) -> bool {
        match self {
            Self::Only => true,
            Self::Is(own) | Self::Maybe(own) => own == name,
            Self::Every(prefix) => name.starts_with(prefix),
        }
    }
}

impl fmt::Display for IoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("(exactly one)"),
            Self::Is(name) | Self::Maybe(name) => f.write_str(name),
            Self::Every(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl DimSpec {
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
