//! The list of model families, and what is checked against it: manifests, and the folder of models.
//!
//! A new family is a file with its record under `pipelines/`, and a line here.

use std::path::Path;

use crate::models::{Families, Manifest, ManifestError, ModelError, ModelStore};
use crate::pipelines::{
    classify, convert, denoise, detect, ocr, raw, segment, sentence, siglip, synthesize, transcribe,
};

/// Every family that this crate has code for.
const FAMILIES: Families = Families(&[
    &classify::file_type::FAMILY,
    &classify::text::FAMILY,
    &convert::FAMILY,
    &denoise::FAMILY,
    &detect::centerface::FAMILY,
    &detect::yolo::FAMILY,
    &ocr::FAMILY,
    &raw::FAMILY,
    &segment::saliency::FAMILY,
    &segment::sam2::FAMILY,
    &segment::sam3::FAMILY,
    &sentence::FAMILY,
    &siglip::FAMILY,
    &synthesize::kokoro::FAMILY,
    &synthesize::melo::FAMILY,
    &synthesize::piper::FAMILY,
    &transcribe::moonshine::FAMILY,
    &transcribe::speakers::FAMILY,
    &transcribe::speech::FAMILY,
    &transcribe::whisper::FAMILY,
]);

impl Manifest {
    /// Reads and checks the manifest at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is malformed, or a value is not valid.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a manifest's text; `path` is only named in errors.
    ///
    /// # Errors
    /// The text is malformed, or a value is not valid.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let manifest = Self::from_toml(text, path)?;
        FAMILIES.check(&manifest)?;
        Ok(manifest)
    }
}

impl ModelStore {
    /// Reads every `*/model.toml` in `folder`. The models' files are checked when one is opened.
    ///
    /// A model whose manifest cannot be used is left out, with a warning in the log; the error is returned when that
    /// model is asked for.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        Self::read(folder, FAMILIES)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gpu_tasks::Task;

    use super::*;
    use crate::models::{ModelTask, Settings, catalogue};
    use crate::pipelines::ocr::OcrSettings;

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
        let settings = OcrSettings::read(parse(&text).unwrap().settings()).unwrap();
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
            ("task = \"vision.ocr\"", "task = \"vision.ocrr\"", "there is no task `vision.ocrr`"),
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

    #[test]
    fn families_have_names_of_their_own_and_sorted_roles() {
        let mut names: Vec<&str> = FAMILIES.0.iter().map(|family| family.name).collect();
        for family in FAMILIES.0 {
            assert!(family.roles.is_sorted(), "{}", family.name);
            let for_jobs = matches!(family.task, ModelTask::Job(_));
            assert_eq!(family.open.is_some(), for_jobs, "{}", family.name);
            for used in family.uses {
                assert!(names.contains(&used.family), "{} uses {}", family.name, used.family);
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.0.len());
    }
}
