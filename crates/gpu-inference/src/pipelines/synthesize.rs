//! `voice.synthesize`: text to speech, sentence by sentence, by whichever family of voices the manifest names.
//!
//! Here is what the families share: cutting a text into sentences, the wishes of a job, and putting the sound together. A
//! sentence is a run of its own: none of the graphs says how long each sentence of a batch became.

pub(crate) mod kokoro;
pub(crate) mod melo;
pub(crate) mod piper;

use super::{Cancel, Output, Pipeline, RunError, reject_unsupported_params};
use crate::input::{Content, Prepared};
use crate::phonemes;
use crate::runtime::Device;
use crate::wav;
use gpu_tasks::Params;

/// Silence between two sentences.
const PAUSE_SECONDS: f32 = 0.2;

/// A family of voices.
pub(crate) trait Voice: Send {
    /// Samples a second of what it says.
    fn rate_hz(&self) -> u32;

    /// The params that it minds.
    fn supported_params(&self) -> &'static [&'static str];

    /// Says one sentence.
    fn say(&mut self, sentence: &str, params: &Params) -> Result<Vec<f32>, RunError>;
}

/// A voice at work.
pub(crate) struct SynthesizePipeline {
    voice: Box<dyn Voice>,
    device: Device,
}

impl SynthesizePipeline {
    pub(crate) fn new(voice: Box<dyn Voice>, device: Device) -> Self {
        Self { voice, device }
    }

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
            let sound = self.voice.say(&sentence, params)?;
            if !spoken.is_empty() && !sound.is_empty() {
                spoken.extend_from_slice(&pause);
            }
            spoken.extend(sound);
        }
        if spoken.is_empty() { Err(RunError::NothingToSay) } else { Ok(spoken) }
    }
}

impl Pipeline for SynthesizePipeline {
    fn device(&self) -> Device {
        self.device
    }

    fn batch_max(&self) -> usize {
        1
    }

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
    let wanted = match known.as_slice() {
        [] => "absent: the model has one voice".to_owned(),
        known => format!("one of {}", known.join(", ")),
    };
    RunError::Param { name: "voice", found: format!("{found:?}"), wanted }
}
