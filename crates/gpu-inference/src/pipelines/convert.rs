//! `voice.convert`: speech in another voice, by OpenVoice V2's tone colour converter.
//!
//! The speaker's and the reference's voices are each described by a vector; the converter replaces the one by the other and
//! keeps words and melody. There is no official export: `exports` has the three that are in use. The graphs draw random
//! noise, so the same input gives other samples each time, unless `tau` is 0.

mod exports;

use std::ops::Range;

use gpu_tasks::{Params, Task};

use self::exports::Converter;
use crate::input::{CONVERT_RATE_HZ, Content, Prepared};
use crate::models::{FamilySpec, ModelError, ModelTask, Opener, no_settings};
use crate::output::Output;
use crate::pipelines::wav;
use crate::run::{Cancel, Run, RunError};

/// OpenVoice V2's tone colour converter.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "openvoice",
    task: ModelTask::Job(Task::VoiceConvert),
    roles: &["convert", "extract"],
    uses: &[],
    check_settings: no_settings,
    open: Some(|opener| Ok(Box::new(ConvertPipeline::open(opener)?))),
};

/// How much of a recording its speaker's vector is taken of: more makes no audible difference.
const VOICE_SAMPLES_MAX: usize = 60 * CONVERT_RATE_HZ as usize;
/// A voice cannot be recognised in less: half a second.
const VOICE_SAMPLES_MIN: usize = CONVERT_RATE_HZ as usize / 2;
/// Pieces that the converter gets: at most 20 s, cut where it is quietest in their second half.
const PIECE_SAMPLES_MAX: usize = 20 * CONVERT_RATE_HZ as usize;
/// The quietest moment is searched for in steps of 20 ms.
const QUIET_SAMPLES: usize = CONVERT_RATE_HZ as usize / 50;

pub(crate) struct ConvertPipeline {
    converter: Converter,
}

impl ConvertPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        opener.limit_batch(1);
        Ok(Self { converter: Converter::open(opener)? })
    }

    fn convert(
        &mut self,
        speech: &[f32],
        reference: &[f32],
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        let from = self.voice(speech, cancel)?;
        let to = self.voice(reference, cancel)?;
        let tau = self.converter.tau(params)?;
        let mut converted = Vec::with_capacity(speech.len());
        for piece in pieces(speech) {
            cancel.check()?;
            let length = piece.len();
            let mut sound = self.converter.convert(&speech[piece], [&from, &to], tau, cancel)?;
            // The graph works in whole hops: what is left of the last one is silence.
            sound.resize(length, 0.0);
            converted.extend(sound);
        }
        Ok(converted)
    }

    fn voice(&mut self, samples: &[f32], cancel: &Cancel) -> Result<Vec<f32>, RunError> {
        let used = &samples[..samples.len().min(VOICE_SAMPLES_MAX)];
        if used.len() < VOICE_SAMPLES_MIN {
            return Err(RunError::TooShort { seconds_min: 0.5 });
        }
        self.converter.voice(used, cancel)
    }
}

impl Run for ConvertPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            let recordings = (input.content(), input.attached("reference"));
            let (Content::Audio(speech), Some(Content::Audio(reference))) = recordings else {
                return Err(RunError::WrongInput { index, wanted: "two recordings" });
            };
            let converted =
                self.convert(speech.samples(), reference.samples(), input.params(), cancel)?;
            outputs.push(wav::output(&converted, CONVERT_RATE_HZ));
        }
        Ok(outputs)
    }
}

/// Cuts a long recording where it is quietest.
fn pieces(samples: &[f32]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    while samples.len() - begin > PIECE_SAMPLES_MAX {
        let middle = begin + PIECE_SAMPLES_MAX / 2;
        let steps = (middle..begin + PIECE_SAMPLES_MAX - QUIET_SAMPLES).step_by(QUIET_SAMPLES);
        let loudness =
            |start: usize| samples[start..start + QUIET_SAMPLES].iter().map(|x| x * x).sum::<f32>();
        let quietest = steps.min_by(|&a, &b| loudness(a).total_cmp(&loudness(b)));
        let end = quietest.map_or(begin + PIECE_SAMPLES_MAX, |start| start + QUIET_SAMPLES / 2);
        pieces.push(begin..end);
        begin = end;
    }
    pieces.push(begin..samples.len());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_recording_is_cut_at_its_quietest_moment_and_nothing_is_lost() {
        let mut samples = vec![0.5; 2 * PIECE_SAMPLES_MAX];
        let quiet = PIECE_SAMPLES_MAX * 3 / 4;
        samples[quiet..quiet + 2 * QUIET_SAMPLES].fill(0.0);
        let found = pieces(&samples);
        assert_eq!((found[0].start, found.last().unwrap().end), (0, samples.len()));
        assert!((quiet..quiet + 2 * QUIET_SAMPLES).contains(&found[0].end), "{found:?}");
        assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start), "{found:?}");
        assert!(found.iter().all(|piece| piece.len() <= PIECE_SAMPLES_MAX), "{found:?}");
        assert_eq!(pieces(&samples[..9]).len(), 1);
    }
}
