//! Moonshine: an encoder over raw samples, and a decoder that writes one token a step.
//!
//! Greedy decoding with the key/value cache kept inside ONNX Runtime. Sizes (layers, heads, width) are read from the
//! model, so that larger Moonshines need a manifest only. It takes a few seconds of speech and finds no pauses.

use std::borrow::Cow;

use gpu_tasks::Task;
use ndarray::Array2;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};

use super::decoder_cache::{self, DecoderCache, Step};
use super::{Recogniser, TranscribeSettings, USES, transcriber};
use crate::input::audio::SAMPLE_RATE_HZ;
use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, check_settings,
};
use crate::run::{Cancel, RunError, failed, run_session};

/// Moonshine speech recognition: encoder, merged decoder, vocabulary.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "moonshine",
    task: ModelTask::Job(Task::VoiceTranscribe),
    roles: &["decoder", "encoder", "vocabulary"],
    uses: USES,
    check_settings: check_settings::<TranscribeSettings>,
    open: Some(|opener| {
        let settings = opener.settings::<TranscribeSettings>()?;
        let recogniser = Moonshine::open(opener)?;
        transcriber(opener, Box::new(recogniser), settings)
    }),
};

const ENCODE: &str = "speech encoding";
const DECODE: &str = "text decoding";
/// First and last token of a text.
const BEGIN: u32 = 1;
const END: u32 = 2;
/// `<unk>`, `<s>`, `</s>`: the tokens up to here are no text.
const SPECIAL_TOKENS: usize = 3;
/// English has fewer tokens a second; past this the decoder is repeating itself (the model's authors use 6.5).
const TOKENS_PER_SECOND_MAX: f32 = 6.5;
/// So that a very short piece may still hold a word.
const TOKENS_MARGIN: usize = 8;
/// The encoder's three convolutions need this much; shorter pieces are filled up with silence.
const SAMPLES_MIN: usize = 4_000;

pub(super) struct Moonshine {
    encoder: Session,
    decoder: Session,
    vocabulary: Vec<Vec<u8>>,
    cache: DecoderCache,
}

/// A piece of speech as the decoder takes it.
struct Encoded {
    states: DynValue,
    /// One number per sample of the piece: the decoder wants it in samples too, not in frames.
    mask: Tensor<i64>,
    tokens_max: usize,
}

impl Moonshine {
    pub(super) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const PLANE: &[DimSpec] = &[DimSpec::Free, DimSpec::Free];
        const STATES: &[DimSpec] = &[DimSpec::Free, DimSpec::Free, DimSpec::Own];
        const INTEGER: TensorElementType = TensorElementType::Int64;
        const FLOAT: TensorElementType = TensorElementType::Float32;
        let spec = |name, element, shape| IoSpec { name: IoName::Is(name), element, shape };
        let inputs = [spec("input_values", FLOAT, PLANE), spec("attention_mask", INTEGER, PLANE)];
        let outputs = [spec("last_hidden_state", FLOAT, STATES)];
        let encoder = opener.session("encoder", &inputs, &outputs)?;
        let inputs = [
            spec("encoder_attention_mask", INTEGER, PLANE),
            spec("input_ids", INTEGER, PLANE),
            spec("encoder_hidden_states", FLOAT, STATES),
            spec("use_cache_branch", TensorElementType::Bool, &[DimSpec::Is(1)]),
            decoder_cache::INPUTS,
        ];
        let outputs = [spec("logits", FLOAT, STATES), decoder_cache::OUTPUTS];
        let decoder = opener.session("decoder", &inputs, &outputs)?;
        let cache = DecoderCache::of(&decoder)
            .map_err(|problem| opener.interface_mismatch("decoder", problem))?;
        let vocabulary = parse_vocabulary(&opener.bytes("vocabulary")?);
        let mut vocabulary = vocabulary
            .filter(|tokens| i64::try_from(tokens.len()).ok() == logits_width(&decoder))
            .ok_or_else(|| {
                opener.interface_mismatch("vocabulary", "not one entry per logit".to_owned())
            })?;
        // Special tokens are left out of texts.
        vocabulary.iter_mut().filter(|token| is_special(token)).for_each(Vec::clear);
        Ok(Self { encoder, decoder, vocabulary, cache })
    }

    fn encode(&mut self, samples: &[f32], cancel: &Cancel) -> Result<Encoded, RunError> {
        let mut padded = samples.to_vec();
        padded.resize(samples.len().max(SAMPLES_MIN), 0.0);
        let tokens_max = tokens_max(padded.len());
        let waveform = Array2::from_shape_vec((1, padded.len()), padded).expect("one row");
        // All ones, since the piece is alone in its batch.
        let mask = Array2::<i64>::ones(waveform.dim());
        let mask = Tensor::from_array(mask).map_err(failed(ENCODE))?;
        let waveform = Tensor::from_array(waveform).map_err(failed(ENCODE))?;
        let inputs = ort::inputs!["input_values" => waveform, "attention_mask" => &mask];
        let mut outputs = run_session(&mut self.encoder, ENCODE, inputs, cancel)?;
        let states = outputs.remove("last_hidden_state").expect("checked when opened");
        Ok(Encoded { states, mask, tokens_max })
    }

    fn decode(&mut self, speech: &Encoded, cancel: &Cancel) -> Result<Vec<u32>, RunError> {
        let mut cache = self.cache.empty().map_err(failed(DECODE))?;
        let mut tokens = vec![BEGIN];
        while tokens.len() <= speech.tokens_max {
            cancel.check()?;
            let step = if tokens.len() == 1 { Step::First } else { Step::Later };
            let last = tokens.last().copied().map_or(i64::from(BEGIN), i64::from);
            let ids = Tensor::from_array(([1, 1], vec![last])).map_err(failed(DECODE))?;
            let use_cache =
                Tensor::from_array(([1], vec![step == Step::Later])).map_err(failed(DECODE))?;
            let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
                ("encoder_attention_mask".into(), (&speech.mask).into()),
                ("encoder_hidden_states".into(), (&speech.states).into()),
                ("input_ids".into(), ids.into()),
                ("use_cache_branch".into(), use_cache.into()),
            ];
            inputs.extend(self.cache.inputs(&cache));
            let mut outputs = self.decoder.run(inputs).map_err(failed(DECODE))?;
            let logits = outputs["logits"].try_extract_tensor::<f32>().map_err(failed(DECODE))?;
            match most_likely(logits.1) {
                END => break,
                token => tokens.push(token),
            }
            self.cache.update(&mut cache, &mut outputs, step);
        }
        Ok(tokens)
    }

    /// Joins tokens; a character may be spread over several of them.
    fn text(&self, tokens: &[u32]) -> String {
        let texts =
            tokens.iter().map(|&token| token as usize).filter(|&token| token >= SPECIAL_TOKENS);
        let bytes: Vec<u8> =
            texts.flat_map(|token| self.vocabulary[token].iter().copied()).collect();
        String::from_utf8_lossy(&bytes).replace('\u{2581}', " ").trim().to_owned()
    }
}

impl Recogniser for Moonshine {
    fn supports_language(&self) -> bool {
        false
    }

    fn recognise(
        &mut self,
        samples: &[f32],
        _language: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let speech = self.encode(samples, cancel)?;
        let tokens = self.decode(&speech, cancel)?;
        Ok(self.text(&tokens))
    }
}

fn logits_width(decoder: &Session) -> Option<i64> {
    let logits = decoder.outputs().iter().find(|output| output.name() == "logits")?;
    match logits.dtype() {
        ValueType::Tensor { shape, .. } => shape.last().copied(),
        _ => None,
    }
}

/// Per token its length (one byte, or two of which the first is marked by its top bit) and its bytes.
fn parse_vocabulary(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const MARK: u8 = 0x80;
    let mut tokens = Vec::new();
    while let Some((&low, rest)) = bytes.split_first() {
        let (length, rest) = if low < MARK {
            (usize::from(low), rest)
        } else {
            let (&high, rest) = rest.split_first()?;
            (usize::from(low - MARK) + usize::from(high) * usize::from(MARK), rest)
        };
        let (token, rest) = rest.split_at_checked(length)?;
        tokens.push(token.to_vec());
        bytes = rest;
    }
    Some(tokens)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundreds")]
fn tokens_max(samples: usize) -> usize {
    let seconds = samples as f32 / SAMPLE_RATE_HZ as f32;
    (seconds * TOKENS_PER_SECOND_MAX).ceil() as usize + TOKENS_MARGIN
}

/// Whether a token is a mark of the model's, e.g. `<<ST_767>>` or `<|en|>`.
pub(super) fn is_special(token: &[u8]) -> bool {
    let is_between = |begin: &[u8], end: &[u8]| {
        token.len() > begin.len() + end.len() && token.starts_with(begin) && token.ends_with(end)
    };
    is_between(b"<<", b">>")
        || is_between(b"<|", b"|>")
        || [&b"<unk>"[..], b"<s>", b"</s>", b"<pad>"].contains(&token)
}

/// NaN is never likely.
fn most_likely(logits: &[f32]) -> u32 {
    let numbers = (0..).zip(logits).filter(|(_, logit)| !logit.is_nan());
    let best = numbers.max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(END, |(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_has_lengths_of_one_or_two_bytes() {
        let mut bytes = vec![1, b'a', 0, 0x82, 1];
        bytes.extend([b'x'; 130]);
        let tokens = parse_vocabulary(&bytes).unwrap();
        assert_eq!(tokens, [b"a".to_vec(), Vec::new(), vec![b'x'; 130]]);
        assert_eq!(parse_vocabulary(&[3, b'a']), None);
        assert_eq!(parse_vocabulary(&[0x82]), None);
    }

    #[test]
    fn marks_of_the_model_are_no_text_and_what_is_no_number_is_not_likely() {
        for token in ["<<ST_767>>", "<|endoftext|>", "<s>", "</s>", "<unk>"] {
            assert!(is_special(token.as_bytes()), "{token}");
        }
        for token in ["<", ">>", "<<", "<>", "a<b>", "<b>", "\u{2581}<|"] {
            assert!(!is_special(token.as_bytes()), "{token}");
        }
        assert_eq!(most_likely(&[0.5, f32::NAN, 0.75, f32::NAN]), 2);
        assert_eq!(most_likely(&[f32::NAN; 3]), END);
    }

    #[test]
    fn the_number_of_tokens_grows_with_the_speech_and_is_never_zero() {
        assert_eq!(tokens_max(0), TOKENS_MARGIN);
        assert_eq!(tokens_max(160_000), 65 + TOKENS_MARGIN);
    }
}
