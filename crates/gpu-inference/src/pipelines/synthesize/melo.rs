//! MeloTTS's voices: VITS over phonemes with tones, from a lexicon beside the graph.
//!
//! The graph also takes BERT's features of the text; they are zeros here, which its authors allow: the melody is plainer, the
//! words are the same. It draws random noise itself. A word that is not in the lexicon is spelled letter by letter.

use std::collections::{BTreeMap, HashMap};

use gpu_tasks::{Params, Task};
use ort::session::Session;
use ort::value::{Tensor, TensorElementType};
use serde::Deserialize;

use super::{Said, Voice, no_voice, number, synthesizer};
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, no_settings,
};
use crate::preprocess::scripts;
use crate::run::{Cancel, RunError, failed, run_session};

/// MeloTTS's voices.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "melo-tts",
    task: ModelTask::Job(Task::VoiceSynthesize),
    roles: &["config", "lexicon", "speak"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(synthesizer(Melo::open(opener)?, opener))),
};

const STAGE: &str = "speech synthesis";
/// Most symbols of a run, before the filling between them.
const SYMBOLS_MAX: usize = 1_000;
/// Widths of the two features.
const BERT: usize = 1_024;
const JA_BERT: usize = 768;
/// MeloTTS's own defaults.
const NOISE: f32 = 0.6;
const NOISE_W: f32 = 0.8;
/// Between the two predictors of durations.
const SDP_RATIO: f32 = 0.2;
/// Begins and ends a sentence.
const EDGE: &str = "_";

pub(crate) struct Melo {
    session: Session,
    config: Config,
    symbols: HashMap<String, i64>,
    lexicon: HashMap<String, Word>,
    language: Language,
}

/// A word's symbols and their tones, as the graph takes them.
#[derive(Debug, Clone, PartialEq)]
struct Word {
    symbols: Vec<String>,
    tones: Vec<i64>,
}

/// `config.json`, as far as it is used.
#[derive(Debug, Deserialize)]
struct Config {
    data: DataConfig,
    symbols: Vec<String>,
    #[serde(default = "english")]
    language: String,
}

#[derive(Debug, Deserialize)]
struct DataConfig {
    sampling_rate: u32,
    #[serde(default)]
    add_blank: bool,
    #[serde(default)]
    spk2id: BTreeMap<String, i64>,
}

fn english() -> String {
    "EN".to_owned()
}

/// A language's number in the graph, the first of its tones, and what espeak-ng calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Language {
    id: i64,
    first_tone: i64,
    name: &'static str,
}

/// As MeloTTS numbers them.
const LANGUAGES: &[(&str, Language)] = &[
    ("ZH", Language { id: 0, first_tone: 0, name: "cmn" }),
    ("JP", Language { id: 1, first_tone: 6, name: "ja" }),
    ("EN", Language { id: 2, first_tone: 7, name: "en" }),
    ("ZH_MIX_EN", Language { id: 3, first_tone: 0, name: "cmn" }),
    ("KR", Language { id: 4, first_tone: 11, name: "ko" }),
    ("ES", Language { id: 5, first_tone: 12, name: "es" }),
    ("FR", Language { id: 6, first_tone: 13, name: "fr" }),
];

/// What the graph takes of a sentence.
#[derive(Debug, PartialEq)]
struct Sentence {
    symbols: Vec<i64>,
    tones: Vec<i64>,
    languages: Vec<i64>,
}

impl Melo {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const ROW: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Free];
        const ONE: &[DimSpec] = &[DimSpec::Is(1)];
        const SOUND: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(1), DimSpec::Free];
        const INTEGER: TensorElementType = TensorElementType::Int64;
        const FLOAT: TensorElementType = TensorElementType::Float32;
        let config: Config = serde_json::from_slice(&opener.bytes("config")?)
            .map_err(|error| opener.interface_mismatch("config", error.to_string()))?;
        let language = LANGUAGES.iter().find(|(name, _)| *name == config.language);
        let Some((_, language)) = language.copied() else {
            let problem = format!("language: no code for {:?}", config.language);
            return Err(opener.interface_mismatch("config", problem));
        };
        let symbols: HashMap<String, i64> = config.symbols.iter().cloned().zip(0..).collect();
        let lexicon = lexicon(&opener.bytes("lexicon")?, &symbols)
            .map_err(|problem| opener.interface_mismatch("lexicon", problem))?;
        let spec = |name, element, shape| IoSpec { name: IoName::Is(name), element, shape };
        let mut inputs = vec![
            spec("bert", FLOAT, &[DimSpec::Is(1), DimSpec::Is(1_024), DimSpec::Free][..]),
            spec("ja_bert", FLOAT, &[DimSpec::Is(1), DimSpec::Is(768), DimSpec::Free]),
            spec("x_lengths", INTEGER, ONE),
            spec("sid", INTEGER, ONE),
        ];
        inputs.extend(["x", "tone", "language"].map(|name| spec(name, INTEGER, ROW)));
        let scales = ["noise_scale", "length_scale", "noise_scale_w", "sdp_ratio"];
        inputs.extend(scales.map(|name| spec(name, FLOAT, &[])));
        let sound = IoSpec { name: IoName::Only, element: FLOAT, shape: SOUND };
        let session = opener.session("speak", &inputs, &[sound])?;
        Ok(Self { session, config, symbols, lexicon, language })
    }

    fn run(
        &mut self,
        sentence: Sentence,
        speaker: i64,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        let wrong = failed(STAGE);
        let length = sentence.symbols.len();
        let row = |values| Tensor::from_array(([1, length], values)).map_err(&wrong);
        let one = |value: i64| Tensor::from_array(([1], vec![value])).map_err(&wrong);
        let scalar =
            |value: f32| Tensor::from_array((Vec::<i64>::new(), vec![value])).map_err(&wrong);
        let zeros = |width: usize| {
            Tensor::from_array(([1, width, length], vec![0.0_f32; width * length])).map_err(&wrong)
        };
        let inputs = ort::inputs![
            "x" => row(sentence.symbols)?,
            "x_lengths" => one(super::length(length))?,
            "sid" => one(speaker)?,
            "tone" => row(sentence.tones)?,
            "language" => row(sentence.languages)?,
            "bert" => zeros(BERT)?,
            "ja_bert" => zeros(JA_BERT)?,
            "noise_scale" => scalar(number(params, "noise", NOISE))?,
            "length_scale" => scalar(1.0 / number(params, "speed", 1.0))?,
            "noise_scale_w" => scalar(number(params, "noise_w", NOISE_W))?,
            "sdp_ratio" => scalar(SDP_RATIO)?,
        ];
        let outputs = run_session(&mut self.session, STAGE, inputs, cancel)?;
        Ok(outputs[0].try_extract_tensor::<f32>().map_err(&wrong)?.1.to_vec())
    }

    /// The words and signs of a text that can be said, and how many of its letters they have.
    fn words(&self, text: &str) -> (Vec<Word>, usize) {
        let (mut said, mut known) = (Vec::new(), 0);
        for token in tokens(text) {
            match self.lexicon.get(&token) {
                Some(word) => {
                    known += scripts::letters(&token);
                    said.push(word.clone());
                }
                None if self.symbols.contains_key(&token)
                    && !token.chars().any(char::is_alphanumeric) =>
                {
                    said.push(Word { symbols: vec![token], tones: vec![self.language.first_tone] });
                }
                None => {
                    let letters = token.chars().map(|letter| letter.to_string());
                    let before = said.len();
                    said.extend(letters.filter_map(|letter| self.lexicon.get(&letter).cloned()));
                    known += said.len() - before;
                }
            }
        }
        (said, known)
    }

    /// What the graph takes of some words; nothing where they are signs alone.
    fn sentence(&self, words: &[Word]) -> Option<Sentence> {
        let speaks = words.iter().any(|word| word.symbols.len() > 1);
        let blanks = if self.config.data.add_blank { Blanks::Between } else { Blanks::None };
        speaks.then(|| arranged(words, &self.symbols, self.language, blanks))
    }

    fn speaker(&self, wanted: Option<&str>) -> Result<i64, RunError> {
        let known = &self.config.data.spk2id;
        match wanted {
            None => Ok(known.values().copied().min().unwrap_or(0)),
            Some(name) => known
                .get(name)
                .copied()
                .ok_or_else(|| no_voice(name, known.keys().map(String::as_str))),
        }
    }
}

impl Voice for Melo {
    fn rate_hz(&self) -> u32 {
        self.config.data.sampling_rate
    }

    fn supported_params(&self) -> &'static [&'static str] {
        &["voice", "speed", "noise", "noise_w"]
    }

    fn language(&self, _: &Params) -> Option<String> {
        Some(self.language.name.to_owned())
    }

    fn say(&mut self, sentence: &str, params: &Params, cancel: &Cancel) -> Result<Said, RunError> {
        let speaker = self.speaker(params.text("voice"))?;
        let (words, letters) = self.words(sentence);
        let mut sound = Vec::new();
        for part in parts(&words) {
            if let Some(sentence) = self.sentence(part) {
                sound.extend(self.run(sentence, speaker, params, cancel)?);
            }
        }
        Ok(Said { sound, letters })
    }
}

/// One word a line: the word, its symbols, and as many tones.
fn lexicon(bytes: &[u8], symbols: &HashMap<String, i64>) -> Result<HashMap<String, Word>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut words = HashMap::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong = |problem: &str| format!("line {number}: {problem}");
        let mut fields = line.split_whitespace();
        let Some(word) = fields.next() else { continue };
        let fields: Vec<&str> = fields.collect();
        if fields.is_empty() || !fields.len().is_multiple_of(2) {
            return Err(wrong("not as many tones as symbols"));
        }
        let (spoken, tones) = fields.split_at(fields.len() / 2);
        if let Some(unknown) = spoken.iter().find(|symbol| !symbols.contains_key(**symbol)) {
            return Err(wrong(&format!("the voice has no symbol {unknown:?}")));
        }
        let tones: Result<Vec<i64>, _> = tones.iter().map(|tone| tone.parse()).collect();
        let tones = tones.map_err(|_| wrong("a tone is not a number"))?;
        let symbols = spoken.iter().map(|symbol| (*symbol).to_owned()).collect();
        words.insert(word.to_lowercase(), Word { symbols, tones });
    }
    Ok(words)
}

/// Parts of at most [`SYMBOLS_MAX`] symbols, cut after a word.
fn parts(words: &[Word]) -> Vec<&[Word]> {
    let (mut parts, mut start, mut filled) = (Vec::new(), 0, 0);
    for (at, word) in words.iter().enumerate() {
        if filled + word.symbols.len() > SYMBOLS_MAX && at > start {
            parts.push(&words[start..at]);
            (start, filled) = (at, 0);
        }
        filled += word.symbols.len();
    }
    parts.push(&words[start..]);
    parts
}

/// Words in lower case, and each mark by itself.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in text.to_lowercase().chars() {
        let of_word = c.is_alphanumeric() || c == '\'';
        match tokens.last_mut() {
            Some(word) if of_word && in_word => word.push(c),
            _ if c.is_whitespace() => {}
            _ => tokens.push(c.to_string()),
        }
        in_word = of_word;
    }
    tokens
}

/// Whether a voice was trained with a blank symbol around every other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blanks {
    None,
    Between,
}

/// A sentence with the edge symbol at both ends, and with blanks if the voice was trained so.
fn arranged(
    words: &[Word],
    symbols: &HashMap<String, i64>,
    language: Language,
    blanks: Blanks,
) -> Sentence {
    let edge = symbols.get(EDGE).copied().unwrap_or(0);
    let ids = words.iter().flat_map(|word| &word.symbols).filter_map(|symbol| symbols.get(symbol));
    let tones = words.iter().flat_map(|word| &word.tones).copied();
    let around = |values: Vec<i64>, edge: i64| [vec![edge], values, vec![edge]].concat();
    let ids = around(ids.copied().collect(), edge);
    let tones = around(tones.collect(), 0);
    let languages = vec![language.id; ids.len()];
    let filled = |values: Vec<i64>| -> Vec<i64> {
        if blanks == Blanks::None {
            return values;
        }
        std::iter::once(0).chain(values.into_iter().flat_map(|value| [value, 0])).collect()
    };
    Sentence { symbols: filled(ids), tones: filled(tones), languages: filled(languages) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> HashMap<String, i64> {
        ["_", "hh", "ah", "l", "ow", "."].map(str::to_owned).into_iter().zip(0..).collect()
    }

    #[test]
    fn a_sentence_has_edges_and_filling_and_each_symbol_its_tone() {
        let words = lexicon(b"Hello hh ah l ow 7 7 7 8\n\n", &symbols()).unwrap();
        let english = Language { id: 2, first_tone: 7, name: "en" };
        let dot = Word { symbols: vec![".".to_owned()], tones: vec![7] };
        let said = [words["hello"].clone(), dot];
        let plain = arranged(&said, &symbols(), english, Blanks::None);
        assert_eq!(plain.symbols, [0, 1, 2, 3, 4, 5, 0]);
        assert_eq!(plain.tones, [0, 7, 7, 7, 8, 7, 0]);
        assert_eq!(plain.languages, [2; 7]);
        let filled = arranged(&said, &symbols(), english, Blanks::Between);
        assert_eq!(filled.symbols, [0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0, 0]);
        assert_eq!(filled.languages[..4], [0, 2, 0, 2]);
    }

    #[test]
    fn a_lexicon_that_does_not_fit_the_voice_is_refused_with_its_line() {
        for (text, problem) in [
            ("a ah 7\nhello hh ah l ow 7 7 7", "line 2: not as many tones"),
            ("hello hh zz 7 7", "line 1: the voice has no symbol \"zz\""),
            ("hello hh x", "line 1: a tone is not a number"),
        ] {
            let error = lexicon(text.as_bytes(), &symbols()).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn a_sentence_beyond_the_limit_is_cut_after_a_word() {
        let word = Word { symbols: vec!["ah".to_owned(); 300], tones: vec![7; 300] };
        let words = vec![word; 7];
        assert_eq!(parts(&words).iter().map(|part| part.len()).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(parts(&[]).len(), 1);
    }

    #[test]
    fn words_and_marks_are_told_apart() {
        assert_eq!(tokens("Don't stop, 2 o'clock."), ["don't", "stop", ",", "2", "o'clock", "."]);
    }
}
