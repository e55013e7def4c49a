//! `voice.synthesize`: text to speech, sentence by sentence, by whichever family of voices the manifest names.
//!
//! Here is what the families share: cutting a text into sentences, reading a job's params, and joining the sound. Each
//! sentence is a run of its own: none of the graphs says how long each sentence of a batch became.

pub(crate) mod kokoro;
pub(crate) mod melo;
pub(crate) mod piper;

use gpu_tasks::Params;

use crate::input::{Content, Prepared};
use crate::models::Opener;
use crate::output::Output;
use crate::pipelines::wav;
use crate::preprocess::phonemes;
use crate::run::{Cancel, Run, RunError, reject_unsupported_params};

/// Silence between two sentences.
const PAUSE_SECONDS: f32 = 0.2;

/// A family of voices.
pub(crate) trait Voice: Send {
    /// Samples per second.
    fn rate_hz(&self) -> u32;

    /// The params that have an effect on this voice.
    fn supported_params(&self) -> &'static [&'static str];

    /// Says one sentence.
    fn say(
        &mut self,
        sentence: &str,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError>;
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
    ) -> Result<Vec<f32>, RunError> {
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
        let pause = self.voice.rate_hz() as f32 * PAUSE_SECONDS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
        let pause = vec![0.0; pause as usize];
        reject_unsupported_params(params, self.voice.supported_params())?;
        let mut spoken = Vec::new();
        for sentence in phonemes::sentences(text) {
            cancel.check()?;
            let sound = self.voice.say(&sentence, params, cancel)?;
            if !spoken.is_empty() && !sound.is_empty() {
                spoken.extend_from_slice(&pause);
            }
            spoken.extend(sound);
        }
        if spoken.is_empty() { Err(RunError::NothingToSay) } else { Ok(spoken) }
    }
}

impl Run for Synthesizer {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            let Content::Text(text) = input.content() else {
                return Err(RunError::WrongInput { index, wanted: "a text" });
            };
            let spoken = self.speak(text, input.params(), cancel)?;
            outputs.push(wav::output(&spoken, self.voice.rate_hz()));
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
