//! Whisper: an encoder over the log-mel spectrogram of 30 s, and a decoder that writes one token a step.
//!
//! The exports of onnx-community, with the merged decoder. Text without its times: finding and cutting the speech is done
//! before, so Whisper's own time marks are not asked for. Sizes are read from the graphs.

mod symbols;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use gpu_tasks::Task;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};
use realfft::num_complex::Complex32;
use serde::Deserialize;

use super::decoder_cache::{self, DecoderCache, Step};
use super::moonshine::is_special;
use super::{Recogniser, TranscribeSettings, USES, transcriber};
use crate::input::audio::SAMPLE_RATE_HZ;
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, Settings, check_settings,
};
use crate::preprocess::spectrum::{MelFilters, MelScale, Spectrum, mirrored};
use crate::run::{Cancel, RunError, failed, run_session};

/// Whisper speech recognition: encoder, merged decoder, `tokenizer.json`.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "whisper",
    task: ModelTask::Job(Task::VoiceTranscribe),
    roles: &["decoder", "encoder", "vocabulary"],
    uses: USES,
    check_settings: check_settings::<WhisperSettings>,
    open: Some(|opener| {
        let settings = opener.settings::<WhisperSettings>()?;
        let recogniser = Whisper::open(opener)?;
        transcriber(opener, Box::new(recogniser), settings.0)
    }),
};

const ENCODE: &str = "speech encoding";
const DECODE: &str = "text decoding";
/// What the encoder takes: 30 s, shorter pieces are filled up with silence.
const PIECE_SAMPLES: usize = 30 * SAMPLE_RATE_HZ as usize;
const FRAME: usize = 400;
const HOP: usize = 160;
const FRAMES: usize = PIECE_SAMPLES / HOP;
/// Half of the decoder's context, as its authors limit a text of 30 s.
const TOKENS_MAX: usize = 224;
/// Models with fewer tokens know English alone, whatever their tokenizer lists.
const MULTILINGUAL_TOKENS_MIN: usize = 51_865;
/// The quietest power, and how far below the loudest anything may lie, in powers of ten.
const FLOOR: f32 = 1e-10;
const RANGE: f32 = 8.0;

/// The encoder takes 30 s, which include the pauses around a piece.
const WHISPER_PIECE_SECONDS_MAX: f32 = 28.0;

/// The same settings as Moonshine's, within what the encoder takes.
#[derive(Deserialize)]
#[serde(transparent)]
struct WhisperSettings(TranscribeSettings);

impl Settings for WhisperSettings {
    fn check(&self) -> Result<(), &'static str> {
        if self.0.piece_seconds_max > WHISPER_PIECE_SECONDS_MAX {
            return Err("piece_seconds_max is from 5 to 28");
        }
        self.0.check()
    }
}

pub(super) struct Whisper {
    encoder: Session,
    decoder: Session,
    cache: DecoderCache,
    spectrum: Spectrum,
    filters: MelFilters,
    mels: usize,
    vocabulary: Vocabulary,
}

/// Tokens as bytes, and the special ones by their meaning.
#[derive(Debug)]
struct Vocabulary {
    bytes: HashMap<u32, Vec<u8>>,
    begin: u32,
    end: u32,
    no_times: u32,
    /// None in models that know English alone.
    transcribe: Option<u32>,
    languages: Vec<(String, u32)>,
    /// A space, which may not be all of a text.
    blank: Option<u32>,
    /// What is not said: marks of music, speakers and remarks.
    not_speech: BTreeSet<u32>,
}

impl Whisper {
    pub(super) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const FEATURES: &[DimSpec] = &[DimSpec::Free, DimSpec::Own, DimSpec::Is(3_000)];
        const STATES: &[DimSpec] = &[DimSpec::Free, DimSpec::Any, DimSpec::Any];
        const TOKENS: &[DimSpec] = &[DimSpec::Free, DimSpec::Free];
        const FLOAT: TensorElementType = TensorElementType::Float32;
        let spec = |name, element, shape| IoSpec { name: IoName::Is(name), element, shape };
        let inputs = [spec("input_features", FLOAT, FEATURES)];
        let encoder =
            opener.session("encoder", &inputs, &[spec("last_hidden_state", FLOAT, STATES)])?;
        let inputs = [
            spec("input_ids", TensorElementType::Int64, TOKENS),
            spec("encoder_hidden_states", FLOAT, STATES),
            spec("use_cache_branch", TensorElementType::Bool, &[DimSpec::Is(1)]),
            decoder_cache::INPUTS,
        ];
        let logits = spec("logits", FLOAT, &[DimSpec::Free, DimSpec::Free, DimSpec::Own]);
        let decoder = opener.session("decoder", &inputs, &[logits, decoder_cache::OUTPUTS])?;
        let cache = DecoderCache::of(&decoder)
            .map_err(|problem| opener.interface_mismatch("decoder", problem))?;
        let mut vocabulary = Vocabulary::read(&opener.bytes("vocabulary")?)
            .map_err(|problem| opener.interface_mismatch("vocabulary", problem))?;
        if size_of(decoder.outputs(), "logits", 2) < MULTILINGUAL_TOKENS_MIN {
            vocabulary.transcribe = None;
        }
        let mels = size_of(encoder.inputs(), "input_features", 1);
        let filters = MelFilters::new(MelScale::Slaney, mels, FRAME, SAMPLE_RATE_HZ);
        let spectrum = Spectrum::new(FRAME, FRAME, HOP);
        Ok(Self { encoder, decoder, cache, spectrum, filters, mels, vocabulary })
    }

    fn encode(&mut self, samples: &[f32], cancel: &Cancel) -> Result<DynValue, RunError> {
        let features = log_mel(&self.spectrum, &self.filters, samples);
        let features = Tensor::from_array(([1, self.mels, FRAMES], features));
        let inputs = ort::inputs!["input_features" => features.map_err(failed(ENCODE))?];
        let mut outputs = run_session(&mut self.encoder, ENCODE, inputs, cancel)?;
        Ok(outputs.remove("last_hidden_state").expect("checked when opened"))
    }

    /// One step: the logits after the last of `tokens`; `cache` is what the steps before left.
    fn step(
        &mut self,
        states: &DynValue,
        tokens: &[u32],
        cache: &mut [DynValue],
        step: Step,
    ) -> Result<Vec<f32>, RunError> {
        let wrong = failed(DECODE);
        let ids: Vec<i64> = tokens.iter().copied().map(i64::from).collect();
        let ids = Tensor::from_array(([1, ids.len()], ids)).map_err(&wrong)?;
        let use_cache = Tensor::from_array(([1], vec![step == Step::Later])).map_err(&wrong)?;
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            ("encoder_hidden_states".into(), states.into()),
            ("input_ids".into(), ids.into()),
            ("use_cache_branch".into(), use_cache.into()),
        ];
        inputs.extend(self.cache.inputs(cache));
        let mut outputs = self.decoder.run(inputs).map_err(&wrong)?;
        let (shape, logits) = outputs["logits"].try_extract_tensor::<f32>().map_err(&wrong)?;
        let width = shape.last().and_then(|&width| usize::try_from(width).ok()).unwrap_or(0);
        let last = logits[logits.len().saturating_sub(width)..].to_vec();
        self.cache.update(cache, &mut outputs, step);
        Ok(last)
    }

    /// The tokens before every text; the language is detected if none is named.
    fn prompt(&mut self, states: &DynValue, named: Option<&str>) -> Result<Vec<u32>, RunError> {
        let Some(transcribe) = self.vocabulary.transcribe else {
            return Ok(vec![self.vocabulary.begin, self.vocabulary.no_times]);
        };
        let language = match named {
            Some(named) => self.vocabulary.language(named)?,
            None => {
                let mut cache = self.cache.empty().map_err(failed(DECODE))?;
                let begin = [self.vocabulary.begin];
                let logits = self.step(states, &begin, &mut cache, Step::First)?;
                self.vocabulary.most_likely_language(&logits)
            }
        };
        Ok(vec![self.vocabulary.begin, language, transcribe, self.vocabulary.no_times])
    }
}

impl Recogniser for Whisper {
    fn supports_language(&self) -> bool {
        self.vocabulary.transcribe.is_some()
    }

    fn recognise(
        &mut self,
        samples: &[f32],
        language: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let states = self.encode(samples, cancel)?;
        let prompt = self.prompt(&states, language)?;
        let mut cache = self.cache.empty().map_err(failed(DECODE))?;
        let mut logits = self.step(&states, &prompt, &mut cache, Step::First)?;
        let mut tokens = Vec::new();
        while tokens.len() < TOKENS_MAX {
            cancel.check()?;
            let token = self.vocabulary.most_likely_text(
                &logits,
                if tokens.is_empty() { Step::First } else { Step::Later },
            );
            if token == self.vocabulary.end {
                break;
            }
            tokens.push(token);
            logits = self.step(&states, &[token], &mut cache, Step::Later)?;
        }
        Ok(self.vocabulary.text(&tokens))
    }
}

/// The features of one piece, filter by filter.
fn log_mel(spectrum: &Spectrum, filters: &MelFilters, samples: &[f32]) -> Vec<f32> {
    let mut filled = samples[..samples.len().min(PIECE_SAMPLES)].to_vec();
    filled.resize(PIECE_SAMPLES, 0.0);
    let mut frames: Vec<Vec<f32>> = Vec::with_capacity(FRAMES + 1);
    spectrum.each(&mirrored(&filled, FRAME / 2), |bins| {
        let power: Vec<f32> = bins.iter().map(Complex32::norm_sqr).collect();
        frames.push(filters.apply(&power).map(|passed| passed.max(FLOOR).log10()).collect());
    });
    // The last frame is one more than the model takes.
    frames.truncate(FRAMES);
    let loudest = frames.iter().flatten().copied().fold(f32::MIN, f32::max);
    let mels = frames.first().map_or(0, Vec::len);
    let scaled = |value: f32| (value.max(loudest - RANGE) + 4.0) / 4.0;
    (0..mels).flat_map(|mel| frames.iter().map(move |frame| scaled(frame[mel]))).collect()
}

/// A size that the graph fixes; 0 if it does not.
fn size_of(ports: &[Outlet], name: &str, axis: usize) -> usize {
    match ports.iter().find(|spec| spec.name() == name).map(Outlet::dtype) {
        Some(ValueType::Tensor { shape, .. }) => usize::try_from(shape[axis]).unwrap_or(0),
        _ => 0,
    }
}

/// `tokenizer.json`, as far as it is used.
#[derive(Deserialize)]
struct Tokenizer {
    model: TokenizerModel,
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct TokenizerModel {
    vocab: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl Vocabulary {
    fn read(json: &[u8]) -> Result<Self, String> {
        let read: Tokenizer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let letters = byte_letters();
        let bytes = |token: &str| token.chars().filter_map(|c| letters.get(&c).copied()).collect();
        let special = |name: &str| {
            let marked = format!("<|{name}|>");
            let mut all = read.added_tokens.iter();
            all.find(|token| token.content == marked).map(|token| token.id)
        };
        let needed = |name: &str| special(name).ok_or_else(|| format!("there is no <|{name}|>"));
        let (begin, transcribe) = (needed("startoftranscript")?, special("transcribe"));
        let after_languages = special("translate").or(transcribe).unwrap_or(begin);
        let languages = read.added_tokens.iter().filter_map(|token| {
            let name = token.content.strip_prefix("<|")?.strip_suffix("|>")?;
            let between = token.id > begin && token.id < after_languages;
            between.then(|| (name.to_owned(), token.id))
        });
        Ok(Self {
            begin,
            end: needed("endoftext")?,
            no_times: needed("notimestamps")?,
            transcribe,
            languages: languages.collect(),
            blank: read.model.vocab.get("\u{120}").copied(),
            not_speech: symbols::not_speech(&read.model.vocab),
            bytes: read
                .model
                .vocab
                .iter()
                .filter(|(token, _)| !is_special(token.as_bytes()))
                .map(|(token, &id)| (id, bytes(token)))
                .collect(),
        })
    }

    fn language(&self, named: &str) -> Result<u32, RunError> {
        let found = self.languages.iter().find(|(name, _)| name == named);
        found.map(|(_, id)| *id).ok_or_else(|| {
            let known: Vec<&str> = self.languages.iter().map(|(name, _)| name.as_str()).collect();
            let wanted = format!("one of {}", known.join(", "));
            RunError::Param { name: "language", found: format!("{named:?}"), wanted }
        })
    }

    fn most_likely_language(&self, logits: &[f32]) -> u32 {
        let logit = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::MIN);
        let ids = self.languages.iter().map(|(_, id)| *id);
        ids.max_by(|&a, &b| logit(a).total_cmp(&logit(b))).unwrap_or(self.begin)
    }

    /// The most likely token that is speech or the end; a text begins with neither the end nor a space.
    fn most_likely_text(&self, logits: &[f32], step: Step) -> u32 {
        let allowed = |id: u32| {
            let is_first = step == Step::First;
            id <= self.end
                && !(is_first && (id == self.end || Some(id) == self.blank))
                && !self.not_speech.contains(&id)
        };
        // NaN is never likely.
        let ranked = (0..).zip(logits).filter(|(id, logit)| allowed(*id) && !logit.is_nan());
        ranked.max_by(|a, b| a.1.total_cmp(b.1)).map_or(self.end, |(id, _)| id)
    }

    /// Joins tokens; a character may be spread over several of them.
    fn text(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> =
            tokens.iter().filter_map(|token| self.bytes.get(token)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// Byte-level vocabularies write each byte as a visible letter: visible bytes as themselves, the rest
/// follow from U+0100 on.
fn byte_letters() -> HashMap<char, u8> {
    let seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let plain = (0..=u8::MAX).filter(seen).map(|byte| (char::from(byte), byte));
    let moved = (0..=u8::MAX).filter(|byte| !seen(byte));
    let letters = ('\u{100}'..).zip(moved);
    plain.chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::spectrum::test_sound;

    /// numpy 2.4.6: the sound filled up to 480,000 samples, `pad(…, 200, mode="reflect")`, frames of 400 every 160 times
    /// `hanning(401)[:-1]`, `mel @ abs(rfft)**2` without the last frame, where mel is librosa's of `spectrum`'s tests, then
    /// `log10(max(x, 1e-10))`, `max(x, max - 8)`, `(x + 4) / 4`.
    #[test]
    fn the_features_are_those_that_the_model_was_trained_on() {
        let filters = MelFilters::new(MelScale::Slaney, 80, FRAME, SAMPLE_RATE_HZ);
        let found = log_mel(&Spectrum::new(FRAME, FRAME, HOP), &filters, &test_sound(4_096));
        assert_eq!(found.len(), 80 * FRAMES);
        let expected = [
            (0, 0, 1.316_944),
            (3, 10, 1.381_191),
            (20, 5, 1.302_422),
            (40, 20, -0.572_282),
            (79, 25, -0.158_59),
            (10, 100, -0.572_282),
            (0, 2_999, -0.572_282),
        ];
        for (mel, frame, value) in expected {
            let found: f32 = found[mel * FRAMES + frame];
            assert!((found - value).abs() < 1e-3, "{mel} {frame}: {found} for {value}");
        }
    }

    #[test]
    fn a_byte_level_vocabulary_is_read_with_its_special_tokens() {
        let json = r#"{"model": {"vocab": {"Hello": 0, "\u0120w": 1, "\u00c3": 2, "\u00a4": 3, "\u0120": 4, "<|nocaptions|>": 12}}, "added_tokens": [
            {"id": 5, "content": "<|endoftext|>"}, {"id": 6, "content": "<|startoftranscript|>"}, {"id": 7, "content": "<|en|>"},
            {"id": 8, "content": "<|de|>"}, {"id": 9, "content": "<|translate|>"}, {"id": 10, "content": "<|transcribe|>"},
            {"id": 11, "content": "<|notimestamps|>"}]}"#;
        let vocabulary = Vocabulary::read(json.as_bytes()).unwrap();
        assert_eq!(vocabulary.text(&[0, 1, 2, 3]), "Hello wä");
        assert_eq!(vocabulary.language("de").unwrap(), 8);
        assert!(vocabulary.language("xx").unwrap_err().to_string().contains("one of en, de"));
        let logits = [0.0, 1.0, 0.0, 0.0, 8.0, 9.0, 20.0, 2.0, 3.0, 30.0, 0.0, 0.0];
        assert_eq!(vocabulary.most_likely_language(&logits), 8);
        assert_eq!(vocabulary.most_likely_text(&logits, Step::First), 1);
        assert_eq!(vocabulary.most_likely_text(&logits, Step::Later), 5);
        let no_numbers = [0.0, f32::NAN, 1.0, f32::NAN];
        assert_eq!(vocabulary.most_likely_text(&no_numbers, Step::Later), 2);
        assert_eq!(vocabulary.text(&[12, 0]), "Hello", "a special token is no text");
        assert!(Vocabulary::read(br#"{"model": {"vocab": {}}, "added_tokens": []}"#).is_err());
    }
    #[test]
    fn the_likeliest_token_is_not_said_if_it_is_a_mark() {
        let json = r#"{"model": {"vocab": {"Hello": 0, "[": 1}}, "added_tokens": [{"id": 2, "content": "<|endoftext|>"},
            {"id": 3, "content": "<|startoftranscript|>"}, {"id": 4, "content": "<|notimestamps|>"}]}"#;
        let vocabulary = Vocabulary::read(json.as_bytes()).unwrap();
        assert_eq!(vocabulary.most_likely_text(&[1.0, 9.0, 0.0], Step::First), 0);
        assert_eq!(vocabulary.most_likely_text(&[1.0, 9.0, 2.0], Step::Later), 2);
    }
}
