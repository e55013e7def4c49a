//! `model.toml`: what a model is, which files it has, and where they come from.
//!
//! Parsed once into checked types, so that the rest of the crate trusts them. It reads text only: whether the files
//! are there and are the right ones is the business of `models`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::family::{Family, ModelTask};
use crate::origin::Origin;
use crate::runtime::DevicePreference;

/// A role's name with this behind it is the file of that graph's weights.
const WEIGHTS_SUFFIX: &str = ".weights";

/// Endings of files that ONNX Runtime loads.
const GRAPH_ENDINGS: [&str; 2] = ["onnx", "ort"];

/// A checked `model.toml`.
#[derive(Debug, Clone)]
pub struct Manifest {
    name: String,
    family: Family,
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
    /// Where it can be fetched; nowhere, for a file that its owner puts there.
    pub origin: Option<Origin>,
}

/// Why a `model.toml` is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, lacks a field, or has an unknown one.
    #[error("the manifest {} is malformed", path.display())]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A field's value makes no sense.
    #[error("the manifest {} is wrong: {problem}", path.display())]
    Wrong {
        /// The manifest.
        path: PathBuf,
        /// The field and what is wrong with it.
        problem: String,
    },
}

impl ManifestError {
    /// What a person can do about it.
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
    /// Reads and checks the manifest at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is malformed, or a value makes no sense.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a manifest's text; `path` is named in errors.
    ///
    /// # Errors
    /// The text is malformed, or a value makes no sense.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let malformed = |source| ManifestError::Malformed { path: path.to_owned(), source };
        let wrong = |problem| ManifestError::Wrong { path: path.to_owned(), problem };
        let raw: RawManifest = toml::from_str(text).map_err(malformed)?;
        check_name(&raw.name).map_err(wrong)?;
        let family = Family::read(&raw.family, raw.settings, path)?;
        family.check_settings().map_err(|problem| wrong(format!("settings: {problem}")))?;
        let task = ModelTask::read(&raw.task).map_err(wrong)?;
        if task != family.task() {
            let problem = format!("task: {task}, but the family {} does {}", family, family.task());
            return Err(wrong(problem));
        }
        let device = raw.device.map(|device| device.parse()).transpose();
        let files = raw.files.into_iter().map(check_file).collect::<Result<Vec<_>, _>>();
        let manifest = Self {
            name: raw.name,
            task,
            default: raw.default,
            licence: raw.licence,
            device: device.map_err(|error| wrong(format!("device: {error}")))?,
            precision: raw.precision,
            max_batch: raw.max_batch,
            memory_mib: raw.memory_mib,
            uses: raw.uses,
            files: files.map_err(wrong)?,
            family,
        };
        manifest.check_roles().map_err(wrong)?;
        Ok(manifest)
    }

    /// The model's name: its folder's name, and what a job says.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the architecture whose code runs it.
    #[must_use]
    pub fn family_name(&self) -> &'static str {
        self.family.name()
    }

    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// What it is for.
    #[must_use]
    pub fn task(&self) -> ModelTask {
        self.task
    }

    /// Whether jobs of its task get it when they name no model.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// The licence of the weights.
    #[must_use]
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// The device it asks for; none means the worker's.
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

    /// Estimate of the memory that it needs while it runs.
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
        file.expect("check_roles saw every role of the family")
    }

    /// The file with the weights of the graph of a role, if the exporter put them beside it.
    pub(crate) fn weights(&self, role: &str) -> Option<&ModelFile> {
        let own = |file: &&ModelFile| file.role.strip_suffix(WEIGHTS_SUFFIX) == Some(role);
        self.files.iter().find(own)
    }

    fn check_roles(&self) -> Result<(), String> {
        let roles = self.files.iter().map(|file| file.role.as_str());
        // Weights beside a graph belong to it: `encoder.weights` to `encoder`.
        let graph_of = |role: &&str| role.strip_suffix(WEIGHTS_SUFFIX).map(str::to_owned);
        let (weights, mut found): (Vec<&str>, Vec<&str>) =
            roles.partition(|role| graph_of(role).is_some());
        found.sort_unstable();
        if let Some(stray) =
            weights.iter().find(|role| !found.contains(&&*graph_of(role).unwrap_or_default()))
        {
            return Err(format!("file: there is no graph for the weights {stray}"));
        }
        if found != self.family.roles() {
            let needed = self.family.roles().join(", ");
            let found = found.join(", ");
            return Err(format!("file: the family {} needs {needed}, found {found}", self.family));
        }
        let found: Vec<&str> = self.uses.keys().map(String::as_str).collect();
        let (needed, allowed) = (self.family.uses(), self.family.may_use());
        let known = |role: &&str| needed.contains(role) || allowed.contains(role);
        if !needed.iter().all(|role| found.contains(role)) || !found.iter().all(known) {
            let needed = self.family.uses().join(", ");
            let found = found.join(", ");
            return Err(format!(
                "uses: the family {} needs {needed:?}, found {found:?}",
                self.family
            ));
        }
        Ok(())
    }
}

/// The manifests that this program was built with, by name.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::ocr::OcrSettings;
    use gpu_tasks::Task;

    const OCR: &str = include_str!("../models/pp-ocr-v4-mobile/model.toml");
    const SPEECH: &str = include_str!("../models/moonshine-tiny-en/model.toml");

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text, Path::new("model.toml")).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", cause.unwrap_or_default())
        })
    }

    #[test]
    fn every_manifest_in_the_program_is_sound_and_each_task_has_at_most_one_default() {
        let mut defaults = BTreeMap::new();
        let catalogue = catalogue();
        assert!(catalogue.contains_key("pp-ocr-v6-small"));
        for (name, text) in catalogue {
            let manifest = Manifest::parse(text, Path::new(&name)).unwrap();
            assert_eq!(manifest.name(), name);
            if manifest.is_default() {
                let task = manifest.task().to_string();
                assert_eq!(defaults.insert(task, name), None);
            }
        }
    }

    #[test]
    fn the_committed_manifests_are_sound() {
        let ocr = parse(OCR).unwrap();
        assert_eq!(ocr.task(), ModelTask::Job(Task::VisionOcr));
        assert!(!ocr.is_default());
        let speech = parse(SPEECH).unwrap();
        assert_eq!(speech.uses()["vad"], "silero-vad-v6");
        assert_eq!(speech.max_batch().get(), 1);
        assert_eq!(speech.file("encoder").path, Path::new("encoder_model.ort"));
    }

    #[test]
    fn settings_override_the_defaults_of_the_code() {
        let text = OCR.replacen("[[file]]", "[settings]\nline_score_min = 0.7\n[[file]]", 1);
        let Family::PpOcr(settings) = parse(&text).unwrap().family().clone() else { panic!() };
        assert!((settings.line_score_min - 0.7).abs() < 1e-6);
        assert!((settings.box_score_min - OcrSettings::default().box_score_min).abs() < 1e-6);
    }

    #[test]
    fn each_wrong_value_is_named() {
        let cases = [
            ("precision = \"fp32\"", "precision = \"fp12\"", "unknown variant"),
            ("precision = \"fp32\"", "presicion = \"fp32\"", "unknown field `presicion`"),
            ("max_batch = 8", "max_batch = 0", "nonzero"),
            ("family = \"pp-ocr\"", "family = \"vgg\"", "no code for \"vgg\""),
            ("task = \"vision.ocr\"", "task = \"vision.ocrr\"", "unknown task"),
            ("task = \"vision.ocr\"", "task = \"voice.transcribe\"", "does vision.ocr"),
            ("name = \"pp-ocr-v4-mobile\"", "name = \"../x\"", "name: \"../x\""),
            ("role = \"angle\"", "role = \"detect\"", "needs angle, detect, recognise"),
            ("path = \"ch_PP-OCRv4_det_infer.onnx\"", "path = \"../det.onnx\"", "leads out"),
            ("path = \"ch_PP-OCRv4_det_infer.onnx\"", "path = \"0.vvm\"", "0.vvm is encrypted"),
            ("sha256 = \"d2a7", "sha256 = \"D2A7", "64 lower-case"),
            (
                "member = \"rapidocr_onnxruntime/models/ch_PP-OCRv4_det",
                "url = \"x/det",
                "an origin is {",
            ),
            ("precision", "device = \"tpu\"\nprecision", "unknown device \"tpu\""),
            ("[[file]]", "[settings]\nline_skore_min = 1\n[[file]]", "line_skore_min"),
            ("[[file]]", "[settings]\nline_score_min = 1.5\n[[file]]", "a probability"),
            ("[[file]]", "[settings]\nbox_growth = nan\n[[file]]", "from 0 to 5"),
        ];
        for (good, bad, expected) in cases {
            assert!(OCR.contains(good), "{good} is not in the manifest");
            let problem = parse(&OCR.replacen(good, bad, 1)).unwrap_err();
            assert!(problem.contains(expected), "{bad}: {problem}");
        }
        for setting in ["piece_seconds_max = 0", "pause_seconds_max = nan", "speech_threshold = -1"]
        {
            let text = SPEECH.replacen("[[file]]", &format!("[settings]\n{setting}\n[[file]]"), 1);
            assert!(parse(&text).unwrap_err().contains(&setting[..16]), "{setting}");
        }
        let problem = parse(&SPEECH.replace("uses =", "# uses =")).unwrap_err();
        assert!(problem.contains("needs \"vad\""), "{problem}");
    }
}
