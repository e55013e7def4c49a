//! Piper's voices: VITS over espeak-ng's phonemes, one graph a voice.
//!
//! The graph draws random noise itself (`RandomNormalLike`), so the same text gives other samples each time, unless `noise`
//! and `noise_w` are 0. It returns no lengths, so a padded batch could not be cut: sentences run alone.

use std::collections::BTreeMap;

use gpu_tasks::{Params, Task};
use ort::session::Session;
use ort::value::{Tensor, TensorElementType};
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use super::{Said, Voice, length, no_voice, number, share, synthesizer};
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, no_settings,
};
use crate::preprocess::phonemes::{self, Spoken, is_sound};
use crate::preprocess::scripts;
use crate::run::{Cancel, RunError, failed, run_session};

/// Piper: one voice a file, or several.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "piper",
    task: ModelTask::Job(Task::VoiceSynthesize),
    roles: &["speak", "voice"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(synthesizer(Piper::open(opener)?, opener))),
};

const STAGE: &str = "speech synthesis";
/// Most phonemes of a run: the attention's memory grows with their square, and a minute of speech has about 1,000.
const PHONEMES_MAX: usize = 2_000;
/// What begins, fills and ends a sentence.
const BEGIN: &str = "^";
const PAD: &str = "_";
const END: &str = "$";

pub(crate) struct Piper {
    session: Session,
    config: Config,
    /// Whether the graph takes a speaker.
    has_speakers: bool,
}

/// The voice's own JSON file, as far as it is used.
#[derive(Debug, Deserialize)]
struct Config {
    audio: AudioConfig,
    #[serde(default)]
    espeak: EspeakConfig,
    #[serde(default)]
    inference: InferenceConfig,
    #[serde(default = "espeak")]
    phoneme_type: String,
    phoneme_id_map: BTreeMap<String, Vec<i64>>,
    #[serde(default)]
    speaker_id_map: BTreeMap<String, i64>,
}

#[derive(Debug, Deserialize)]
struct AudioConfig {
    sample_rate: u32,
}

#[derive(Debug, Default, Deserialize)]
struct EspeakConfig {
    #[serde(default)]
    voice: String,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct InferenceConfig {
    noise_scale: f32,
    length_scale: f32,
    noise_w: f32,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self { noise_scale: 0.667, length_scale: 1.0, noise_w: 0.8 }
    }
}

fn espeak() -> String {
    "espeak".to_owned()
}

impl Piper {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const PHONEMES: &[DimSpec] = &[DimSpec::Free, DimSpec::Free];
        const EACH: &[DimSpec] = &[DimSpec::Free];
        const SOUND: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(1), DimSpec::Is(1), DimSpec::Free];
        const INTEGER: TensorElementType = TensorElementType::Int64;
        const FLOAT: TensorElementType = TensorElementType::Float32;
        let config = opener.bytes("voice")?;
        let config: Config = serde_json::from_slice(&config)
            .map_err(|error| opener.interface_mismatch("voice", error.to_string()))?;
        config.check().map_err(|problem| opener.interface_mismatch("voice", problem))?;
        if config.uses_espeak() {
            phonemes::check().map_err(|source| opener.needs(source))?;
        }
        let spec = |name, element, shape| IoSpec { name: IoName::Is(name), element, shape };
        let mut inputs = vec![
            spec("input", INTEGER, PHONEMES),
            spec("input_lengths", INTEGER, EACH),
            spec("scales", FLOAT, &[DimSpec::Is(3)]),
        ];
        let has_speakers = config.speaker_id_map.len() > 1;
        if has_speakers {
            inputs.push(spec("sid", INTEGER, EACH));
        }
        let session = opener.session("speak", &inputs, &[spec("output", FLOAT, SOUND)])?;
        Ok(Self { session, config, has_speakers })
    }

    fn run(
        &mut self,
        ids: Vec<i64>,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        let wrong = failed(STAGE);
        let defaults = &self.config.inference;
        let scales = vec![
            number(params, "noise", defaults.noise_scale),
            defaults.length_scale / number(params, "speed", 1.0),
            number(params, "noise_w", defaults.noise_w),
        ];
        let lengths = Tensor::from_array(([1], vec![length(ids.len())])).map_err(&wrong)?;
        let ids = Tensor::from_array(([1, ids.len()], ids)).map_err(&wrong)?;
        let scales = Tensor::from_array(([3], scales)).map_err(&wrong)?;
        let mut inputs =
            ort::inputs!["input" => ids, "input_lengths" => lengths, "scales" => scales];
        if self.has_speakers {
            let speaker = self.config.speaker(params.text("voice"))?;
            let speaker = Tensor::from_array(([1], vec![speaker])).map_err(&wrong)?;
            inputs.push(("sid".into(), speaker.into()));
        }
        let outputs = run_session(&mut self.session, STAGE, inputs, cancel)?;
        let sound = outputs["output"].try_extract_tensor::<f32>().map_err(&wrong)?;
        Ok(sound.1.to_vec())
    }
}

impl Voice for Piper {
    fn rate_hz(&self) -> u32 {
        self.config.audio.sample_rate
    }

    fn supported_params(&self) -> &'static [&'static str] {
        &["voice", "speed", "noise", "noise_w"]
    }

    fn language(&self, _: &Params) -> Option<String> {
        self.config.uses_espeak().then(|| self.config.espeak.voice.clone())
    }

    fn say(&mut self, sentence: &str, params: &Params, cancel: &Cancel) -> Result<Said, RunError> {
        if let (false, Some(voice)) = (self.has_speakers, params.text("voice")) {
            return Err(no_voice(voice, self.config.speaker_id_map.keys().map(String::as_str)));
        }
        let spoken = if self.config.uses_espeak() {
            phonemes::of_sentence(sentence, &self.config.espeak.voice, cancel)?
        } else {
            Spoken { phonemes: sentence.nfd().collect(), letters: scripts::letters(sentence) }
        };
        let (mut sound, mut known) = (Vec::new(), 0);
        for part in phonemes::parts(&spoken.phonemes, PHONEMES_MAX) {
            if let Some((ids, count)) = self.config.ids(&part) {
                known += count;
                sound.extend(self.run(ids, params, cancel)?);
            }
        }
        let sounds = spoken.phonemes.chars().filter(|&phoneme| is_sound(phoneme)).count();
        Ok(Said { sound, letters: share(spoken.letters, known, sounds) })
    }
}

impl Config {
    /// Says what the code cannot do with it.
    fn check(&self) -> Result<(), String> {
        let lacks = |symbol: &&&str| !self.phoneme_id_map.contains_key(**symbol);
        if let Some(symbol) = [BEGIN, PAD, END].iter().find(lacks) {
            return Err(format!("phoneme_id_map: has no {symbol:?}"));
        }
        if !["espeak", "text"].contains(&self.phoneme_type.as_str()) {
            return Err(format!("phoneme_type: no code for {:?}", self.phoneme_type));
        }
        if self.uses_espeak() && self.espeak.voice.is_empty() {
            return Err("espeak: has no voice".to_owned());
        }
        Ok(())
    }

    fn uses_espeak(&self) -> bool {
        self.phoneme_type == "espeak"
    }

    /// Begin, then each phoneme with padding after it, then the end, and how many phonemes these are; `None` if none is known.
    fn ids(&self, spoken: &str) -> Option<(Vec<i64>, usize)> {
        let symbol = |symbol: &str| self.phoneme_id_map[symbol].iter().copied();
        let mut ids: Vec<i64> = symbol(BEGIN).chain(symbol(PAD)).collect();
        let mut count = 0;
        let mut buffer = [0; 4];
        for phoneme in spoken.chars() {
            // Phonemes that the voice was not trained on are left out, as Piper does.
            if let Some(known) = self.phoneme_id_map.get(&*phoneme.encode_utf8(&mut buffer)) {
                ids.extend(known.iter().copied().chain(symbol(PAD)));
                count += usize::from(is_sound(phoneme));
            }
        }
        ids.extend(symbol(END));
        (count > 0).then_some((ids, count))
    }

    /// The first speaker, unless one is named, by name or number.
    fn speaker(&self, wanted: Option<&str>) -> Result<i64, RunError> {
        let known = &self.speaker_id_map;
        let Some(wanted) = wanted else { return Ok(known.values().copied().min().unwrap_or(0)) };
        let number = wanted.parse().ok().filter(|id| known.values().any(|known| known == id));
        let found = known.get(wanted).copied().or(number);
        found.ok_or_else(|| no_voice(wanted, known.keys().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"},
        "phoneme_id_map": {"_": [0], "^": [1], "$": [2], "a": [14], "b": [15]}, "speaker_id_map": {"ann": 3, "bob": 7}}"#;

    fn config() -> Config {
        serde_json::from_str(CONFIG).unwrap()
    }

    #[test]
    fn every_phoneme_is_followed_by_filling_and_unknown_ones_are_left_out() {
        assert_eq!(config().ids("a?b"), Some((vec![1, 0, 14, 0, 15, 0, 2], 2)));
        assert_eq!(config().ids("??"), None);
    }

    #[test]
    fn a_speaker_is_named_or_numbered_and_the_first_is_the_default() {
        let config = config();
        assert_eq!(config.speaker(None).unwrap(), 3);
        assert_eq!(config.speaker(Some("bob")).unwrap(), 7);
        assert_eq!(config.speaker(Some("7")).unwrap(), 7);
        let error = config.speaker(Some("eve")).unwrap_err();
        assert_eq!(error.to_string(), "the param voice is \"eve\", not one of ann, bob");
    }

    #[test]
    fn a_voice_that_the_code_cannot_speak_is_refused() {
        assert_eq!(config().check(), Ok(()));
        let wrong = Config { phoneme_type: "pinyin".to_owned(), ..config() };
        assert!(wrong.check().unwrap_err().contains("pinyin"));
        let mut wrong = config();
        wrong.phoneme_id_map.remove("^");
        assert!(wrong.check().unwrap_err().contains("\"^\""));
    }
}
