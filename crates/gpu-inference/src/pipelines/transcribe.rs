//! `voice.transcribe`: speech found by Silero, cut at pauses, written down by Moonshine or Whisper.
//!
//! A recogniser takes some seconds of speech, not an hour with silence in it, so the speech is found first and cut into
//! pieces. Speakers are told apart if a job asks for it. Words have no times.

mod decoder_cache;
pub(crate) mod moonshine;
pub(crate) mod speakers;
pub(crate) mod speech;
pub(crate) mod whisper;

use std::ops::{Range, RangeInclusive};

use gpu_tasks::Params;
use serde::Deserialize;

use self::speakers::{SpeakerEmbedder, Speakers};
use self::speech::SpeechDetector;
use crate::input::audio::{Audio, SAMPLE_RATE_HZ, duration_of};
use crate::input::{Content, Prepared};
use crate::models::{ModelError, Need, Opener, Settings, Use};
use crate::output::{Output, Segment, TaskResult, Transcript};
use crate::run::{Cancel, Run, RunError};

/// Pause kept around a piece: 0.6 s. Without it the first and last words suffer: in the two test recordings 2 to 5
/// words of 134 were wrong without and 2 or 3 with it, for pieces of 10 to 29 s.
const CONTEXT_SAMPLES: usize = 9_600;
/// Shorter pieces are not even a sentence; longer ones the models have never seen.
const PIECE_SECONDS: RangeInclusive<f32> = 5.0..=60.0;

/// What a manifest's `[settings]` may change for the families `moonshine` and `whisper`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TranscribeSettings {
    /// Probability above which speech begins (silero-vad's own default).
    pub speech_threshold: f32,
    /// Longest piece that the recogniser gets; it was trained on clips of up to 30 s.
    pub piece_seconds_max: f32,
    /// A pause this long always ends a piece.
    pub pause_seconds_max: f32,
}

impl Default for TranscribeSettings {
    fn default() -> Self {
        Self { speech_threshold: 0.5, piece_seconds_max: 20.0, pause_seconds_max: 2.0 }
    }
}

impl Settings for TranscribeSettings {
    fn check(&self) -> Result<(), &'static str> {
        if !(0.0..=1.0).contains(&self.speech_threshold) {
            Err("speech_threshold is a probability")
        } else if !PIECE_SECONDS.contains(&self.piece_seconds_max) {
            Err("piece_seconds_max is from 5 to 60")
        } else if !(0.0..).contains(&self.pause_seconds_max) {
            Err("pause_seconds_max is 0 or more")
        } else {
            Ok(())
        }
    }
}

/// The models that both families use.
const USES: &[Use] = &[
    Use { role: "vad", family: "silero-vad", need: Need::Required },
    Use { role: "speaker", family: "d-vector", need: Need::Optional },
];

/// The model that turns speech into text.
trait Recogniser: Send {
    /// Whether the job may name the language.
    fn supports_language(&self) -> bool;

    /// The text of a piece of speech at 16 kHz.
    fn recognise(
        &mut self,
        samples: &[f32],
        language: Option<&str>,
        cancel: &Cancel,
    ) -> Result<String, RunError>;
}

pub(crate) struct TranscribePipeline {
    speech: SpeechDetector,
    recogniser: Box<dyn Recogniser>,
    speakers: Option<SpeakerEmbedder>,
    settings: TranscribeSettings,
}

/// The pipeline of an opened recogniser, with the models that it uses.
fn transcriber(
    opener: &mut Opener<'_>,
    recogniser: Box<dyn Recogniser>,
    settings: TranscribeSettings,
) -> Result<Box<dyn Run>, ModelError> {
    let vad = opener.used("vad").expect("the manifest was checked to name it");
    let speech = SpeechDetector::open(vad)?;
    let speakers = opener.used("speaker").map(SpeakerEmbedder::open).transpose()?;
    Ok(Box::new(TranscribePipeline { speech, recogniser, speakers, settings }))
}

impl TranscribePipeline {
    fn transcribe(
        &mut self,
        audio: &Audio,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Transcript, RunError> {
        let language = params.text("language");
        if language.is_some() && !self.recogniser.supports_language() {
            let reason = "it knows one language".to_owned();
            return Err(RunError::UnsupportedParam { name: "language", reason });
        }
        let samples = audio.samples();
        let probabilities = self.speech.probabilities(samples, cancel)?;
        let limit = samples_in(self.settings.piece_seconds_max);
        let found = speech::find(&probabilities, samples.len(), self.settings.speech_threshold);
        let found = speech::cut_long(found, &probabilities, limit);
        let (pieces, owners) = match Speakers::of(params) {
            None => (self.merge(&found), None),
            Some(wanted) => {
                let (pieces, owners) = self.merge_by_speaker(samples, &found, wanted, cancel)?;
                (pieces, Some(owners))
            }
        };
        let mut segments = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            cancel.check()?;
            let range = with_context(&pieces, index, samples.len());
            let text = self.recogniser.recognise(&samples[range], language, cancel)?;
            if !text.is_empty() {
                let (start, end) = (duration_of(piece.start), duration_of(piece.end));
                let speaker = owners.as_ref().map(|owners| owners[index]);
                segments.push(Segment { start, end, text, speaker });
            }
        }
        let texts: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
        Ok(Transcript { text: texts.join(" "), segments, audio: audio.duration() })
    }
}

impl TranscribePipeline {
    fn merge(&self, speech: &[Range<usize>]) -> Vec<Range<usize>> {
        let settings = &self.settings;
        let limit = samples_in(settings.piece_seconds_max);
        merge(speech, limit, samples_in(settings.pause_seconds_max))
    }

    /// Pieces that hold one speaker each, and their speakers.
    fn merge_by_speaker(
        &mut self,
        samples: &[f32],
        speech: &[Range<usize>],
        wanted: Speakers,
        cancel: &Cancel,
    ) -> Result<(Vec<Range<usize>>, Vec<usize>), RunError> {
        let embedder = self.speakers.as_mut().ok_or_else(|| RunError::UnsupportedParam {
            name: "speakers",
            reason: "its manifest names no `speaker` model under `uses`".to_owned(),
        })?;
        let owners = embedder.tell_apart(samples, speech, wanted, cancel)?;
        let (mut pieces, mut owned) = (Vec::new(), Vec::new());
        let mut begin = 0;
        for run in owners.chunk_by(|a, b| a == b) {
            let merged = self.merge(&speech[begin..begin + run.len()]);
            owned.resize(owned.len() + merged.len(), run[0]);
            pieces.extend(merged);
            begin += run.len();
        }
        Ok((pieces, owned))
    }
}

impl Run for TranscribePipeline {
    /// One recording after the other: pieces differ in length, and the quantised model may not mix them.
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            let Content::Audio(audio) = input.content() else {
                return Err(RunError::WrongInput { index, wanted: "a recording" });
            };
            let transcript = self.transcribe(audio, input.params(), cancel)?;
            outputs.push(TaskResult::Transcript(transcript).into());
        }
        Ok(outputs)
    }
}

/// Joins neighbouring stretches of speech into pieces of at most `limit` samples, so that the recogniser sees whole
/// sentences. Where a piece is full it is cut at the longest pause of its later half.
fn merge(speech: &[Range<usize>], limit: usize, pause_max: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut open: &[Range<usize>] = &[];
    let mut begin = 0;
    for (next, stretch) in speech.iter().enumerate() {
        while let (Some(first), Some(last)) = (open.first(), open.last()) {
            let paused = stretch.start - last.end >= pause_max;
            if !paused && stretch.end - first.start <= limit {
                break;
            }
            let taken = if paused { open.len() } else { best_cut(open, stretch, limit) };
            pieces.push(first.start..open[taken - 1].end);
            begin += taken;
            open = &speech[begin..next];
        }
        open = &speech[begin..=next];
    }
    if let (Some(first), Some(last)) = (open.first(), open.last()) {
        pieces.push(first.start..last.end);
    }
    pieces
}

/// How many of the `open` stretches to take before a cut; `next` is the one that no longer fits.
fn best_cut(open: &[Range<usize>], next: &Range<usize>, limit: usize) -> usize {
    let following = open.iter().skip(1).chain([next]);
    let pauses = open.iter().zip(following).enumerate().map(|(index, (stretch, following))| {
        let late = stretch.end - open[0].start >= limit / 2;
        (late, following.start - stretch.end, index + 1)
    });
    pauses.max().map_or(open.len(), |(_, _, taken)| taken)
}

/// A piece with up to [`CONTEXT_SAMPLES`] of the pauses around it, at most half of what parts it from the next.
fn with_context(pieces: &[Range<usize>], index: usize, length: usize) -> Range<usize> {
    let piece = &pieces[index];
    let before =
        index.checked_sub(1).map_or(0, |previous| pieces[previous].end.midpoint(piece.start));
    let after = pieces.get(index + 1).map_or(length, |next| piece.end.midpoint(next.start));
    before.max(piece.start.saturating_sub(CONTEXT_SAMPLES))..after.min(piece.end + CONTEXT_SAMPLES)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
fn samples_in(seconds: f32) -> usize {
    (seconds * SAMPLE_RATE_HZ as f32) as usize
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_up_to_the_limit_and_cut_at_the_longest_late_pause() {
        let speech = [0..30, 32..50, 55..70, 71..95, 96..110];
        assert_eq!(merge(&speech, 100, 1000), [0..50, 55..110]);
        assert_eq!(merge(&speech, 200, 1000), [0..110]);
        assert_eq!(merge(&speech, 200, 5), [0..50, 55..110]);
        assert_eq!(merge(&speech, 10, 1000), speech);
        assert!(merge(&[], 100, 10).is_empty());
    }

    #[test]
    fn neighbours_share_the_pause_between_them_within_the_recording() {
        let pieces = [500..20_000, 20_100..30_000, 60_000..90_000];
        assert_eq!(with_context(&pieces, 0, 95_000), 0..20_050);
        assert_eq!(with_context(&pieces, 1, 95_000), 20_050..39_600);
        assert_eq!(with_context(&pieces, 2, 95_000), 50_400..95_000);
    }
}
