//! `model.toml`: what a model is, which files it has, and where they come from.
//!
//! Here is what holds for every family; `family` checks the rest against the family's record. Whether the files exist and
//! are the right ones is checked when a model is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use gpu_tasks::Task;
use serde::Deserialize;

use super::origin::Origin;
use super::runtime::DevicePreference;

/// A role's name with this behind it is the file of that graph's weights.
const WEIGHTS_SUFFIX: &str = ".weights";

/// Endings of files that ONNX Runtime loads.
const GRAPH_ENDINGS: [&str; 2] = ["onnx", "ort"];

/// A checked `model.toml`.
#[derive(Debug, Clone)]
pub struct Manifest {
    name: String,
    /// Where it was read from.
    path: PathBuf,
    family: String,
    settings: toml::Table,
    task: ModelTask,
    default: bool,
    licence: String,
    device: Option<DevicePreference>,
    precision: Precision,
    max_batch: NonZeroUsize,
    memory_mib: u32,
    uses: BTreeMap<String, String>,
    files: Vec<ModelFile>,
}

/// What a model is for: a job's task, or a part of another model's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// Does jobs of this task.
    Job(Task),
    /// `voice.activity`: finds speech for another model.
    VoiceActivity,
    /// `voice.speaker`: tells speakers apart for another model.
    VoiceSpeaker,
}

impl ModelTask {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let parts = [Self::VoiceActivity, Self::VoiceSpeaker];
        match parts.into_iter().find(|part| part.to_string() == text) {
            Some(part) => Ok(part),
            None => text.parse().map(Self::Job).map_err(|error| format!("task: {error}")),
        }
    }
}

impl fmt::Display for ModelTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(task) => task.fmt(f),
            Self::VoiceActivity => f.write_str("voice.activity"),
            Self::VoiceSpeaker => f.write_str("voice.speaker"),
        }
    }
}

/// The number format of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 16-bit floating point.
    Fp16,
    /// 8-bit integers.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// One file of a model.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// What the family uses it for, e.g. `encoder`.
    pub role: String,
    /// Path inside the model's folder; never leads out of it.
    pub path: PathBuf,
    /// The content's SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// The content's size.
    pub size_bytes: u64,
    /// Where it can be fetched; `None` for a file that its owner puts into the folder.
    pub origin: Option<Origin>,
}

/// Why a `model.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, lacks a field, or has an unknown one.
    #[error("the manifest {} is malformed", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    /// A field's value is not valid.
    #[error("the manifest {} is wrong: {problem}", path.display())]
    Wrong {
        path: PathBuf,
        /// The field and what is wrong with it.
        problem: String,
    },
}

impl ManifestError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "run scripts/fetch-models.py",
            Self::Malformed { .. } | Self::Wrong { .. } => {
                "compare with the manifests in crates/gpu-inference/models, or run scripts/fetch-models.py"
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    name: String,
    family: String,
    task: String,
    #[serde(default)]
    default: bool,
    licence: String,
    device: Option<String>,
    precision: Precision,
    max_batch: NonZeroUsize,
    memory_mib: u32,
    #[serde(default)]
    uses: BTreeMap<String, String>,
    #[serde(default)]
    settings: toml::Table,
    #[serde(rename = "file")]
    files: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    role: String,
    path: PathBuf,
    sha256: String,
    size_bytes: u64,
    origin: Option<Origin>,
}

impl Manifest {
    /// Checks a manifest's text without knowing its family; `path` is only named in errors.
    pub(crate) fn from_toml(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let malformed = |source| ManifestError::Malformed { path: path.to_owned(), source };
        let wrong = |problem| ManifestError::Wrong { path: path.to_owned(), problem };
        let raw: RawManifest = toml::from_str(text).map_err(malformed)?;
        check_name(&raw.name).map_err(wrong)?;
        let device = raw.device.map(|device| device.parse()).transpose();
        let files = raw.files.into_iter().map(check_file).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            name: raw.name,
            path: path.to_owned(),
            family: raw.family,
            settings: raw.settings,
            task: ModelTask::read(&raw.task).map_err(wrong)?,
            default: raw.default,
            licence: raw.licence,
            device: device.map_err(|error| wrong(format!("device: {error}")))?,
            precision: raw.precision,
            max_batch: raw.max_batch,
            memory_mib: raw.memory_mib,
            uses: raw.uses,
            files: files.map_err(wrong)?,
        })
    }

    /// The name of the model and of its folder, as in `--model`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the family whose code runs it.
    #[must_use]
    pub fn family_name(&self) -> &str {
        &self.family
    }

    pub(crate) fn settings(&self) -> &toml::Table {
        &self.settings
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The error for a value that is not valid.
    pub(crate) fn wrong(&self, problem: String) -> ManifestError {
        ManifestError::Wrong { path: self.path.clone(), problem }
    }

    /// What it is for.
    #[must_use]
    pub fn task(&self) -> ModelTask {
        self.task
    }

    /// Whether jobs of its task use it when they name no model.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// The licence of the weights.
    #[must_use]
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// The device it asks for; `None` means the worker's.
    #[must_use]
    pub fn device(&self) -> Option<DevicePreference> {
        self.device
    }

    /// The number format of its weights.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Most jobs in one batch.
    #[must_use]
    pub fn max_batch(&self) -> NonZeroUsize {
        self.max_batch
    }

    /// Estimated memory while it runs; where it was measured on a GPU, that of the card, with what CUDA itself takes.
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    /// The models that it uses, by role.
    #[must_use]
    pub fn uses(&self) -> &BTreeMap<String, String> {
        &self.uses
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// Its files that are graphs.
    pub fn graphs(&self) -> impl Iterator<Item = &ModelFile> {
        let is_graph = |ending: &std::ffi::OsStr| GRAPH_ENDINGS.iter().any(|own| ending == *own);
        self.files.iter().filter(move |file| file.path.extension().is_some_and(is_graph))
    }

    /// The file of a role that the family needs.
    pub(crate) fn file(&self, role: &str) -> &ModelFile {
        let file = self.files.iter().find(|file| file.role == role);
        file.expect("the manifest was checked to have every role of the family")
    }

    /// The file with the weights of the graph of a role, if the exporter put them beside it.
    pub(crate) fn weights(&self, role: &str) -> Option<&ModelFile> {
        let own = |file: &&ModelFile| file.role.strip_suffix(WEIGHTS_SUFFIX) == Some(role);
        self.files.iter().find(own)
    }

    /// The sorted roles of the files, except of the weights that lie beside a graph: `encoder.weights` belongs to `encoder`.
    pub(crate) fn roles_without_weights(&self) -> Result<Vec<&str>, String> {
        let roles = self.files.iter().map(|file| file.role.as_str());
        let (weights, mut found): (Vec<&str>, Vec<&str>) =
            roles.partition(|role| role.ends_with(WEIGHTS_SUFFIX));
        found.sort_unstable();
        let has_graph = |role: &str| {
            role.strip_suffix(WEIGHTS_SUFFIX).is_some_and(|graph| found.contains(&graph))
        };
        match weights.iter().find(|role| !has_graph(role)) {
            Some(stray) => Err(format!("file: there is no graph for the weights {stray}")),
            None => Ok(found),
        }
    }
}

/// The manifests that this program was built with, as text, by name.
///
/// # Panics
/// Never: the tests read each.
#[must_use]
pub fn catalogue() -> BTreeMap<String, &'static str> {
    const MANIFESTS: &[&str] = &include!(concat!(env!("OUT_DIR"), "/manifests.rs"));
    let name = |text: &&'static str| {
        let manifest: toml::Table = toml::from_str(text).expect("the tests read each");
        manifest["name"].as_str().expect("the tests read each").to_owned()
    };
    MANIFESTS.iter().map(|text| (name(text), *text)).collect()
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(format!("name: {name:?} is not made of a-z, 0-9, '-', '.', '_'"));
    }
    Ok(())
}

/// VOICEVOX's voices: no ONNX Runtime but VOICEVOX's own has their key.
const ENCRYPTED_EXTENSION: &str = "vvm";

fn check_file(raw: RawFile) -> Result<ModelFile, String> {
    let RawFile { role, path, sha256, size_bytes, origin } = raw;
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || path.as_os_str().is_empty() {
        return Err(format!("file {role}: the path {} leads out of the folder", path.display()));
    }
    if path.extension().is_some_and(|extension| extension == ENCRYPTED_EXTENSION) {
        let name = path.display();
        return Err(format!(
            "file {role}: {name} is encrypted: VOICEVOX's voices open in its own runtime alone"
        ));
    }
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if sha256.len() != 64 || !sha256.bytes().all(hexadecimal) {
        return Err(format!("file {role}: sha256 is not 64 lower-case hexadecimal digits"));
    }
    Ok(ModelFile { role, path, sha256, size_bytes, origin })
}
