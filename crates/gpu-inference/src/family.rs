//! The architectures that the crate has code for: their names, files and settings in manifests.
//!
//! A family is one line in each of these lists. How it is opened and run is in `models` and `pipelines`.

use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::manifest::ManifestError;
use crate::pipelines::classify::text::TextClassifierSettings;
use crate::pipelines::detect::centerface::CenterFaceSettings;
use crate::pipelines::detect::yolo::YoloSettings;
use crate::pipelines::ocr::OcrSettings;
use crate::pipelines::segment::sam3::Sam3Settings;
use crate::pipelines::sentence::SentenceSettings;
use crate::pipelines::siglip::SiglipSettings;
use crate::pipelines::transcribe::TranscribeSettings;
use gpu_tasks::Task;

/// The role of the only graph of the family `onnx`.
pub(crate) const GRAPH: &str = "graph";

/// The architectures that the crate has code for, with their settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Family {
    /// Moonshine speech recognition: encoder, merged decoder, vocabulary.
    Moonshine(TranscribeSettings),
    /// Whisper speech recognition: encoder, merged decoder, `tokenizer.json`.
    Whisper(TranscribeSettings),
    /// Silero voice activity detection, whole-sequence export.
    SileroVad,
    /// GE2E vectors of speakers.
    DVector,
    /// Piper: one voice a file, or several.
    Piper,
    /// Kokoro's voices.
    Kokoro,
    /// MeloTTS's voices.
    MeloTts,
    /// OpenVoice V2's tone colour converter.
    OpenVoice,
    /// DTLN noise removal: a mask on the spectrum, then the samples.
    Dtln,
    /// PP-OCR: text detection, angle, recognition.
    PpOcr(OcrSettings),
    /// CenterFace: faces.
    CenterFace(CenterFaceSettings),
    /// Detectors of the YOLO kind.
    Yolo(YoloSettings),
    /// U²-Net: what stands out.
    U2Net,
    /// SAM 2: masks from points and boxes.
    Sam2,
    /// SAM 3: masks from words and boxes.
    Sam3(Sam3Settings),
    /// SigLIP: pictures and texts in one space.
    Siglip(SiglipSettings),
    /// Sentence encoders: MiniLM, multilingual E5.
    SentenceEncoder(SentenceSettings),
    /// Sequence classifiers: DistilBERT and its kin.
    TextClassifier(TextClassifierSettings),
    /// Magika: the types of files.
    Magika,
    /// Any graph, for `onnx.run`.
    Onnx,
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

impl Family {
    /// The families whose manifests change nothing.
    const WITHOUT_SETTINGS: &[Self] = &[
        Self::SileroVad,
        Self::DVector,
        Self::Piper,
        Self::Kokoro,
        Self::MeloTts,
        Self::OpenVoice,
        Self::Dtln,
        Self::U2Net,
        Self::Sam2,
        Self::Magika,
        Self::Onnx,
    ];
    /// The names of the others.
    const WITH_SETTINGS: &[&str] = &[
        "moonshine",
        "whisper",
        "pp-ocr",
        "centerface",
        "yolo",
        "sam3",
        "siglip",
        "sentence-encoder",
        "text-classifier",
    ];

    /// The family of this name; `path` is the manifest's, for errors.
    pub(crate) fn read(
        name: &str,
        settings: toml::Table,
        path: &Path,
    ) -> Result<Self, ManifestError> {
        fn read<T: DeserializeOwned>(
            settings: toml::Table,
            path: &Path,
        ) -> Result<T, ManifestError> {
            let malformed = |source| ManifestError::Malformed { path: path.to_owned(), source };
            settings.try_into().map_err(malformed)
        }
        Ok(match name {
            "moonshine" => Self::Moonshine(read(settings, path)?),
            "whisper" => Self::Whisper(read(settings, path)?),
            "pp-ocr" => Self::PpOcr(read(settings, path)?),
            "centerface" => Self::CenterFace(read(settings, path)?),
            "yolo" => Self::Yolo(read(settings, path)?),
            "sam3" => Self::Sam3(read(settings, path)?),
            "siglip" => Self::Siglip(read(settings, path)?),
            "sentence-encoder" => Self::SentenceEncoder(read(settings, path)?),
            "text-classifier" => Self::TextClassifier(read(settings, path)?),
            other => {
                let wrong = |problem| ManifestError::Wrong { path: path.to_owned(), problem };
                let found = Self::WITHOUT_SETTINGS.iter().find(|family| family.name() == other);
                let family = found.ok_or_else(|| {
                    let known = Self::known().join(", ");
                    wrong(format!("family: no code for {other:?}, known are {known}"))
                })?;
                if !settings.is_empty() {
                    return Err(wrong(format!("settings: the family {other} has none")));
                }
                family.clone()
            }
        })
    }

    fn known() -> Vec<&'static str> {
        let plain = Self::WITHOUT_SETTINGS.iter().map(Self::name);
        let mut known: Vec<&str> = Self::WITH_SETTINGS.iter().copied().chain(plain).collect();
        known.sort_unstable();
        known
    }

    pub(crate) fn task(&self) -> ModelTask {
        ModelTask::Job(match self {
            Self::SileroVad => return ModelTask::VoiceActivity,
            Self::DVector => return ModelTask::VoiceSpeaker,
            Self::Moonshine(_) | Self::Whisper(_) => Task::VoiceTranscribe,
            Self::Piper | Self::Kokoro | Self::MeloTts => Task::VoiceSynthesize,
            Self::OpenVoice => Task::VoiceConvert,
            Self::Dtln => Task::VoiceDenoise,
            Self::PpOcr(_) => Task::VisionOcr,
            Self::CenterFace(_) | Self::Yolo(_) => Task::VisionDetect,
            Self::U2Net | Self::Sam2 | Self::Sam3(_) => Task::VisionSegment,
            Self::Siglip(_) => Task::VisionEmbed,
            Self::SentenceEncoder(_) => Task::TextEmbed,
            Self::TextClassifier(_) | Self::Magika => Task::TextClassify,
            Self::Onnx => Task::OnnxRun,
        })
    }

    pub(crate) fn check_settings(&self) -> Result<(), &'static str> {
        match self {
            Self::Moonshine(settings) => settings.check(),
            Self::Whisper(settings) => settings.check_whisper(),
            Self::PpOcr(settings) => settings.check(),
            Self::CenterFace(settings) => settings.check(),
            Self::Yolo(settings) => settings.check(),
            Self::Sam3(settings) => settings.check(),
            Self::Siglip(settings) => settings.check(),
            Self::SentenceEncoder(settings) => settings.check(),
            Self::TextClassifier(settings) => settings.check(),
            _ => Ok(()),
        }
    }

    /// Roles of the files, in alphabetical order.
    pub(crate) fn roles(&self) -> &'static [&'static str] {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => &["decoder", "encoder", "vocabulary"],
            Self::SileroVad => &["speech"],
            Self::DVector => &["embed"],
            Self::Piper => &["speak", "voice"],
            Self::Kokoro => &["speak", "vocabulary", "voices"],
            Self::MeloTts => &["config", "lexicon", "speak"],
            Self::OpenVoice => &["convert", "extract"],
            Self::Dtln => &["mask", "mend"],
            Self::PpOcr(_) => &["angle", "detect", "recognise"],
            Self::CenterFace(_) | Self::Yolo(_) => &["detect"],
            Self::U2Net => &["segment"],
            Self::Sam2 => &["decoder", "encoder"],
            Self::Sam3(_) => &["decoder", "encoder", "text", "tokenizer"],
            Self::Siglip(_) => &["text", "tokenizer", "vision"],
            Self::SentenceEncoder(_) => &["encoder", "tokenizer"],
            Self::TextClassifier(_) => &["classifier", "config", "tokenizer"],
            Self::Magika => &["classifier", "config", "kinds"],
            Self::Onnx => &[GRAPH],
        }
    }

    /// Roles of the other models that it needs.
    pub(crate) fn uses(&self) -> &'static [&'static str] {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => &["vad"],
            _ => &[],
        }
    }

    /// Roles of other models that it uses where the manifest names them.
    pub(crate) fn may_use(&self) -> &'static [&'static str] {
        match self {
            Self::Moonshine(_) | Self::Whisper(_) => &["speaker"],
            _ => &[],
        }
    }

    /// The name in manifests.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Moonshine(_) => "moonshine",
            Self::Whisper(_) => "whisper",
            Self::SileroVad => "silero-vad",
            Self::DVector => "d-vector",
            Self::Piper => "piper",
            Self::Kokoro => "kokoro",
            Self::MeloTts => "melo-tts",
            Self::OpenVoice => "openvoice",
            Self::Dtln => "dtln",
            Self::PpOcr(_) => "pp-ocr",
            Self::CenterFace(_) => "centerface",
            Self::Yolo(_) => "yolo",
            Self::U2Net => "u2net",
            Self::Sam2 => "sam2",
            Self::Sam3(_) => "sam3",
            Self::Siglip(_) => "siglip",
            Self::SentenceEncoder(_) => "sentence-encoder",
            Self::TextClassifier(_) => "text-classifier",
            Self::Magika => "magika",
            Self::Onnx => "onnx",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_that_an_error_names_is_read() {
        let path = Path::new("model.toml");
        for name in Family::known() {
            match Family::read(name, toml::Table::new(), path) {
                Ok(family) => {
                    assert_eq!(family.to_string(), name);
                    assert!(family.roles().is_sorted(), "{name}");
                }
                // Settings without which it makes no sense are missing.
                Err(error) => assert!(matches!(error, ManifestError::Malformed { .. }), "{name}"),
            }
        }
    }
}
