//! `voice.synthesize`: text to speech, sentence by sentence, by whichever family of voices the manifest names.
//!
//! Here is what the families share: what of a text is said, cutting it into sentences, reading a job's params, and joining the
//! sound. Each sentence is a run of its own: none of the graphs says how long each sentence of a batch became.

pub(crate) mod kokoro;
pub(crate) mod melo;
pub(crate) mod piper;

use gpu_tasks::{Params, WarningCode};

use crate::input::{Content, Prepared};
use crate::models::Opener;
use crate::output::{Basis, Output, Remarks, TextBasis};
use crate::pipelines::wav;
use crate::preprocess::phonemes;
use crate::preprocess::scripts::{self, Foreign};
use crate::preprocess::spoken;
use crate::run::{Cancel, Run, RunError, reject_unsupported_params};

/// Silence between two sentences.
const PAUSE_SECONDS: f32 = 0.2;
/// Of a text less than this share of its letters said is worth a warning.
const SAID_PERCENT_MIN: usize = 90;

/// A family of voices.
pub(crate) trait Voice: Send {
    /// Samples per second.
    fn rate_hz(&self) -> u32;

    /// The params that have an effect on this voice.
    fn supported_params(&self) -> &'static [&'static str];

    /// The language that a job's text is read in, as espeak-ng calls it; `None` where only the voice's training knows.
    fn language(&self, params: &Params) -> Option<String>;

    /// Says one sentence.
    fn say(&mut self, sentence: &str, params: &Params, cancel: &Cancel) -> Result<Said, RunError>;
}

/// A sentence as sound.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) sound: Vec<f32>,
    /// How many of its letters are in it.
    pub(crate) letters: usize,
}

/// The pipeline of any family of voices.
struct Synthesizer {
    voice: Box<dyn Voice>,
}

impl Synthesizer {
    fn speak(
        &mut self,
        text: &str,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<(Vec<f32>, Remarks), RunError> {
        reject_unsupported_params(params, self.voice.supported_params())?;
        let mut remarks = Remarks::default();
        let cleaned = spoken::cleaned(text);
        if let Some(left_out) = cleaned.left_out.said() {
            let message = format!("not said: {left_out}");
            remarks.warn(WarningCode::SpeechLeftOut, message);
        }
        let letters = scripts::letters(&cleaned.text);
        let text = self.readable(cleaned.text, letters, params, &mut remarks)?;
        let (sound, said) = self.speak_sentences(&text, params, cancel)?;
        let said = said.min(letters);
        if said * 100 < letters * SAID_PERCENT_MIN {
            let message = format!("{said} of {letters} letters of the text were said");
            remarks.warn(WarningCode::SpeechIncomplete, message);
        }
        remarks.basis = Some(Basis::Text(TextBasis { letters, said }));
        Ok((sound, remarks))
    }

    /// The text without the words that the voice's language has no letters for; an error if that is most of it.
    fn readable(
        &self,
        text: String,
        letters: usize,
        params: &Params,
        remarks: &mut Remarks,
    ) -> Result<String, RunError> {
        let Some(language) = self.voice.language(params) else { return Ok(text) };
        let Foreign { text: own, words, letters: foreign, script } =
            scripts::foreign(&text, &language);
        let Some(script) = script else { return Ok(text) };
        if foreign * 2 > letters {
            return Err(RunError::WrongScript { script, language });
        }
        let message = format!(
            "not said: {words} words in letters that {language} is not written with ({script})"
        );
        remarks.warn(WarningCode::SpeechScript, message);
        Ok(own)
    }

    /// The sound, and how many letters are in it.
    fn speak_sentences(
        &mut self,
        text: &str,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<(Vec<f32>, usize), RunError> {
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
        let pause = self.voice.rate_hz() as f32 * PAUSE_SECONDS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
        let pause = vec![0.0; pause as usize];
        let (mut spoken, mut letters) = (Vec::new(), 0);
        for sentence in phonemes::sentences(text) {
            cancel.check()?;
            let said = self.voice.say(&sentence, params, cancel)?;
            if !spoken.is_empty() && !said.sound.is_empty() {
                spoken.extend_from_slice(&pause);
            }
            spoken.extend(said.sound);
            letters += said.letters;
        }
        if spoken.is_empty() { Err(RunError::NothingToSay) } else { Ok((spoken, letters)) }
    }
}

impl Run for Synthesizer {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            let Content::Text(text) = input.content() else {
                return Err(RunError::WrongInput { index, wanted: "a text" });
            };
            let (spoken, remarks) = self.speak(text, input.params(), cancel)?;
            outputs.push(Output { remarks, ..wav::output(&spoken, self.voice.rate_hz()) });
        }
        Ok(outputs)
    }
}

/// The pipeline of an opened voice.
fn synthesizer(voice: impl Voice + 'static, opener: &mut Opener<'_>) -> Box<dyn Run> {
    opener.limit_batch(1);
    Box::new(Synthesizer { voice: Box::new(voice) })
}

/// A param as the number that graphs take.
#[expect(clippy::cast_possible_truncation, reason = "graphs take f32")]
pub(crate) fn number(params: &Params, name: &str, default: f32) -> f32 {
    params.number(name).map_or(default, |number| number as f32)
}

/// How many of a text's letters are said where a voice knows only some of its phonemes.
pub(crate) fn share(letters: usize, known: usize, sounds: usize) -> usize {
    letters * known / sounds.max(1)
}

/// A length as graphs take it.
pub(crate) fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The error for a voice that the model does not have.
pub(crate) fn no_voice<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> RunError {
    /// As many names as one line takes.
    const SHOWN_MAX: usize = 20;
    let known: Vec<&str> = known.take(SHOWN_MAX).collect();
    if known.is_empty() {
        let reason = "it has one voice".to_owned();
        return RunError::UnsupportedParam { name: "voice", reason };
    }
    let wanted = format!("one of {}", known.join(", "));
    RunError::Param { name: "voice", found: format!("{found:?}"), wanted }
}
