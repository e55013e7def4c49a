//! Kokoro's voices: one graph for all of them, and a style for each voice and length of sentence.
//!
//! The letters are misaki's: the international phonetic alphabet with a few letters of its own; espeak-ng's phonemes are
//! rewritten to them. The first letter of a voice's name is its language, unless a job names another one. Japanese must be
//! in kana, since espeak-ng cannot read kanji. The graph draws no random noise: the same text gives the same samples.

use std::collections::BTreeMap;
use std::path::Path;

use gpu_tasks::{Params, Task};
use ort::session::Session;
use ort::value::{Tensor, TensorElementType};
use serde::Deserialize;

use super::{Said, Voice, no_voice, number, share, synthesizer};
use crate::input::InputLimits;
use crate::input::tensors::{self, Elements};
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, Signature, no_settings,
};
use crate::preprocess::phonemes::{self, is_sound};
use crate::run::{Cancel, RunError, failed, run_session};

/// Kokoro's voices.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "kokoro",
    task: ModelTask::Job(Task::VoiceSynthesize),
    roles: &["speak", "vocabulary", "voices"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(synthesizer(Kokoro::open(opener)?, opener))),
};

const STAGE: &str = "speech synthesis";
const RATE_HZ: u32 = 24_000;
/// Letters that one run takes; there is a style for each number of them.
const LETTERS_MAX: usize = 510;
/// Width of a style.
const STYLE: usize = 256;
/// Around the letters.
const EDGE: i64 = 0;
/// Quieter than this is silence, which is cut off at both ends but for 30 ms.
const SILENCE: f32 = 0.01;
const SILENCE_KEPT: usize = RATE_HZ as usize * 3 / 100;

/// Names of inputs and output in the two exports.
const NAMES: [[&str; 2]; 2] = [["tokens", "audio"], ["input_ids", "waveform"]];

const LETTERS: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Free];
const STYLES: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(256)];
const ONE: &[DimSpec] = &[DimSpec::Is(1)];

const fn spec(name: &'static str, element: TensorElementType, shape: &'static [DimSpec]) -> IoSpec {
    IoSpec { name: IoName::Is(name), element, shape }
}

const FLOAT: TensorElementType = TensorElementType::Float32;
const INTEGER: TensorElementType = TensorElementType::Int64;

const EXPORTS: &[Signature<'_>] = &[
    Signature {
        inputs: &[
            spec("tokens", INTEGER, LETTERS),
            spec("style", FLOAT, STYLES),
            spec("speed", FLOAT, ONE),
        ],
        outputs: &[spec("audio", FLOAT, &[DimSpec::Free])],
    },
    Signature {
        inputs: &[
            spec("input_ids", INTEGER, LETTERS),
            spec("style", FLOAT, STYLES),
            spec("speed", FLOAT, ONE),
        ],
        outputs: &[spec("waveform", FLOAT, &[DimSpec::Is(1), DimSpec::Free])],
    },
];

pub(crate) struct Kokoro {
    session: Session,
    names: [&'static str; 2],
    letters: BTreeMap<char, i64>,
    voices: BTreeMap<String, Vec<f32>>,
}

/// The vocabulary's file, or a configuration that holds it.
#[derive(Deserialize)]
struct Vocabulary {
    vocab: BTreeMap<char, i64>,
}

impl Kokoro {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        phonemes::check().map_err(|source| opener.needs(source))?;
        let vocabulary: Vocabulary = serde_json::from_slice(&opener.bytes("vocabulary")?)
            .map_err(|error| opener.interface_mismatch("vocabulary", error.to_string()))?;
        let voices = styles(&opener.bytes("voices")?)
            .map_err(|problem| opener.interface_mismatch("voices", problem))?;
        let (session, index) = opener.session_like("speak", EXPORTS)?;
        Ok(Self { session, names: NAMES[index], letters: vocabulary.vocab, voices })
    }

    fn run(
        &mut self,
        letters: &[i64],
        voice: &str,
        speed: f32,
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        let wrong = failed(STAGE);
        let styles = &self.voices[voice];
        let row = letters.len().min(styles.len() / STYLE) - 1;
        let style = styles[row * STYLE..][..STYLE].to_vec();
        let mut ids = vec![EDGE];
        ids.extend_from_slice(letters);
        ids.push(EDGE);
        let ids = Tensor::from_array(([1, ids.len()], ids)).map_err(&wrong)?;
        let style = Tensor::from_array(([1, STYLE], style)).map_err(&wrong)?;
        let speed = Tensor::from_array(([1], vec![speed])).map_err(&wrong)?;
        let [input, output] = self.names;
        let inputs = ort::inputs![input => ids, "style" => style, "speed" => speed];
        let outputs = run_session(&mut self.session, STAGE, inputs, cancel)?;
        let sound = outputs[output].try_extract_tensor::<f32>().map_err(&wrong)?;
        Ok(without_silence(sound.1).to_vec())
    }
}

impl Kokoro {
    /// The voice that a job names, or the first.
    fn voice_of<'a>(&'a self, params: &'a Params) -> &'a str {
        let first = || self.voices.keys().next().expect("checked when opened").as_str();
        params.text("voice").unwrap_or_else(first)
    }
}

impl Voice for Kokoro {
    fn rate_hz(&self) -> u32 {
        RATE_HZ
    }

    fn supported_params(&self) -> &'static [&'static str] {
        &["voice", "speed", "language"]
    }

    fn language(&self, params: &Params) -> Option<String> {
        let own = || language(self.voice_of(params));
        Some(params.text("language").unwrap_or_else(own).to_owned())
    }

    fn say(&mut self, sentence: &str, params: &Params, cancel: &Cancel) -> Result<Said, RunError> {
        let voice = self.voice_of(params).to_owned();
        if !self.voices.contains_key(&voice) {
            return Err(no_voice(&voice, self.voices.keys().map(String::as_str)));
        }
        let language = params.text("language").unwrap_or_else(|| language(&voice));
        if language.starts_with("ja") && sentence.chars().any(is_kanji) {
            return Err(RunError::Unreadable { what: "kanji" });
        }
        let spoken = phonemes::of_sentence(sentence, language, cancel)?;
        let phonemes = spelled(&spoken.phonemes, language);
        let speed = number(params, "speed", 1.0);
        let (mut sound, mut known) = (Vec::new(), 0);
        for part in phonemes::parts(&phonemes, LETTERS_MAX) {
            let letters = part.chars().filter_map(|letter| self.letters.get(&letter).copied());
            let letters: Vec<i64> = letters.collect();
            let is_known = |letter: &char| is_sound(*letter) && self.letters.contains_key(letter);
            known += part.chars().filter(is_known).count();
            if !letters.is_empty() {
                sound.extend(self.run(&letters, &voice, speed, cancel)?);
            }
        }
        let sounds = phonemes.chars().filter(|&letter| is_sound(letter)).count();
        Ok(Said { sound, letters: share(spoken.letters, known, sounds) })
    }
}

/// The voices' styles, one array of 510 rows each, in numpy's archive of arrays.
fn styles(bytes: &[u8]) -> Result<BTreeMap<String, Vec<f32>>, String> {
    let arrays = tensors::decode(bytes, Path::new("the voices"), &InputLimits::default());
    let style = |(name, array): (String, tensors::Tensor)| {
        let rows = array.shape().first().copied().unwrap_or(0);
        match array.into_elements() {
            Elements::F32(style) if rows > 0 && style.len() == rows * STYLE => Ok((name, style)),
            _ => Err(format!("the voice {name} has no rows of {STYLE} 32-bit numbers")),
        }
    };
    arrays.map_err(|error| error.to_string())?.into_iter().map(style).collect()
}

/// espeak-ng's name for the language of a voice, which is the first letter of the voice's name.
fn language(voice: &str) -> &'static str {
    match voice.chars().next() {
        Some('b') => "en-gb",
        Some('e') => "es",
        Some('f') => "fr-fr",
        Some('h') => "hi",
        Some('i') => "it",
        Some('j') => "ja",
        Some('p') => "pt-br",
        Some('z') => "cmn",
        _ => "en-us",
    }
}

/// From espeak-ng's English to misaki's: diphthongs and affricates are one letter, length is not written.
const ENGLISH: &[(&str, &str)] = &[
    ("aɪ", "I"),
    ("aʊ", "W"),
    ("eɪ", "A"),
    ("oʊ", "O"),
    ("əʊ", "Q"),
    ("ɔɪ", "Y"),
    ("dʒ", "ʤ"),
    ("tʃ", "ʧ"),
    ("ɜː", "ɜɹ"),
    ("ɚ", "əɹ"),
    ("ɐ", "ə"),
    ("ɾ", "T"),
    ("ʔ", "t"),
    ("r", "ɹ"),
    ("ː", ""),
];

fn spelled(phonemes: &str, language: &str) -> String {
    let mut spelled = phonemes.to_owned();
    if language.starts_with("en") {
        for (from, to) in ENGLISH {
            spelled = spelled.replace(from, to);
        }
    }
    spelled
}

fn is_kanji(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

fn without_silence(sound: &[f32]) -> &[f32] {
    let loud = |sample: &f32| sample.abs() > SILENCE;
    let Some(first) = sound.iter().position(loud) else { return sound };
    let last = sound.iter().rposition(loud).unwrap_or(first);
    &sound[first.saturating_sub(SILENCE_KEPT)..sound.len().min(last + SILENCE_KEPT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_is_spelled_with_the_letters_that_the_voices_know() {
        assert_eq!(
            spelled("dʒˈɔɪ, tʃˈɛɹ bˈɜːd wˈɔːɾɚ nˈaʊ", "en-us"),
            "ʤˈY, ʧˈɛɹ bˈɜɹd wˈɔTəɹ nˈW"
        );
        assert_eq!(spelled("dʒaː", "ja"), "dʒaː");
        assert_eq!(
            (language("bf_emma"), language("jf_alpha"), language("x")),
            ("en-gb", "ja", "en-us")
        );
    }

    #[test]
    fn silence_at_the_ends_goes() {
        let mut sound = vec![0.0; 5_000];
        sound[2_000..3_000].fill(0.5);
        assert_eq!(without_silence(&sound).len(), 1_000 + 2 * SILENCE_KEPT - 1);
        assert_eq!(without_silence(&[0.0; 7]).len(), 7);
    }
}
