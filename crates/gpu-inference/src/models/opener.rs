//! Opens a model's files as sessions: the bytes are verified, the device is chosen, inputs and outputs are the code's.
//!
//! The pipelines say what they need of their graphs, as [`IoSpec`]s.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use memchr::memmem;
use ort::editor::Model;
use ort::session::Session;
use tracing::{info, warn};

use super::error::ModelError;
use super::files::verified_bytes;
use super::graph::Graph;
use super::io_spec::{Floats, IoSpec, Signature};
use super::manifest::Manifest;
use super::onnx_file::{fix_weights, free_dimensions};
use super::runtime::{Device, Runtime};
use super::settings::Settings;
use crate::onnx_error::{About, OnnxError};
use crate::preprocess::phonemes::PhonemeError;
use crate::text;

/// Prefix of the operators whose scale is taken over the whole batch, so that one row changes another.
const DYNAMIC_QUANTISATION: &[u8] = b"DynamicQuantize";

/// Where a model's sessions run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) device: Device,
    /// Why not on the GPU that is meant to be used.
    pub(crate) fallback: Option<OnnxError>,
}

impl From<Device> for Place {
    fn from(device: Device) -> Self {
        Self { device, fallback: None }
    }
}

/// A graph, of which sessions are made while its model is used.
pub(crate) struct SessionSource {
    role: &'static str,
    runtime: Runtime,
    device: Device,
    bytes: Vec<u8>,
    weights: Option<(PathBuf, Vec<u8>)>,
}

impl SessionSource {
    pub(crate) fn session(&self) -> Result<Session, OnnxError> {
        let session = self.runtime.session(&self.bytes, self.weights.clone(), self.device)?;
        info!(role = self.role, device = %self.device, "opened one more session");
        Ok(session)
    }
}

/// Opens the files of one model.
pub(crate) struct Opener<'a> {
    runtime: &'a Runtime,
    folder: PathBuf,
    manifest: &'a Manifest,
    place: Place,
    batch_max: NonZeroUsize,
    used: BTreeMap<&'static str, Self>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(
        runtime: &'a Runtime,
        folder: PathBuf,
        manifest: &'a Manifest,
        place: Place,
    ) -> Self {
        let (batch_max, used) = (manifest.max_batch(), BTreeMap::new());
        Self { runtime, folder, manifest, place, batch_max, used }
    }

    /// Adds a model that this one uses.
    pub(crate) fn add_used(&mut self, role: &'static str, opener: Self) {
        self.used.insert(role, opener);
    }

    /// The model that this one uses in a role, if its manifest names one.
    pub(crate) fn used(&mut self, role: &str) -> Option<&mut Self> {
        self.used.get_mut(role)
    }

    /// The manifest's settings for its family.
    pub(crate) fn settings<S: Settings>(&self) -> Result<S, ModelError> {
        Ok(S::read(self.manifest.settings()).map_err(|error| error.of(self.manifest))?)
    }

    /// Where the sessions run.
    pub(crate) fn device(&self) -> Device {
        self.place.device
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime
    }

    /// The most jobs in one batch; final once all sessions are open.
    pub(crate) fn batch_max(&self) -> usize {
        self.batch_max.get()
    }

    /// Lowers the most jobs in one batch to what the family's code can use, at least 1.
    pub(crate) fn limit_batch(&mut self, max: usize) {
        self.batch_max = self.batch_max.min(NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN));
    }

    /// The verified content of a file that is not a graph.
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
        input: &str,
        dimensions: &[usize],
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
        let weights = self.weights(role)?;
        let session = self.runtime.session(bytes, weights, self.device());
        let session = session.map_err(|source| self.no_session(role, source))?;
        info!(model = self.manifest.name(), role, device = %self.device(), "opened a session");
        Ok(session)
    }

    /// Weights beside the graph: the runtime looks for them by the name that the graph has for them.
    fn weights(&self, role: &str) -> Result<Option<(PathBuf, Vec<u8>)>, ModelError> {
        let weights = self.manifest.weights(role);
        weights.map(|file| Ok((file.path.clone(), self.bytes(&file.role)?))).transpose()
    }

    /// What more sessions for the file of `role` are made from, while the model is used.
    pub(crate) fn source(&self, role: &'static str) -> Result<SessionSource, ModelError> {
        Ok(SessionSource {
            role,
            runtime: self.runtime.clone(),
            device: self.device(),
            bytes: self.bytes(role)?,
            weights: self.weights(role)?,
        })
    }

    /// A session for a graph that `make` makes, which processes the outputs of the graph of `role`.
    pub(crate) fn own_session(
        &self,
        role: &str,
        make: impl FnOnce() -> ort::Result<Model>,
    ) -> Result<Session, ModelError> {
        let model = make().map_err(|error| self.no_session(role, error.into()))?;
        let session = self.runtime.own_session(model, self.device());
        session.map_err(|source| self.no_session(role, source))
    }

    /// The error for a session that cannot be made. A device that has failed once is tried before it is used again.
    fn no_session(&self, role: &str, source: OnnxError) -> ModelError {
        let model = self.manifest.name().to_owned();
        match source.about() {
            About::Memory | About::Device => {
                self.runtime.doubt_cuda();
                ModelError::Session { model, source }
            }
            About::TooMuchMemory => ModelError::Session { model, source },
            About::Stopped | About::Graph => {
                let path = self.folder.join(&self.manifest.file(role).path);
                ModelError::NotAModel { model, path, source }
            }
        }
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
        let (model, problem) = (self.manifest.name().to_owned(), text::cut(problem));
        ModelError::Interface { model, path, problem }
    }
}
