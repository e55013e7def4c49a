//! Where there is speech: Silero's probabilities, and the rules that turn them into stretches.
//!
//! The rules and their numbers are those of silero-vad's `get_speech_timestamps`. Joining stretches into pieces for
//! the recogniser is the parent's business.

use std::ops::Range;

use ndarray::{Array2, Array3};
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};

use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, no_settings,
};
use crate::run::{Cancel, RunError, failed};

/// Silero voice activity detection, the export for whole sequences.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "silero-vad",
    task: ModelTask::VoiceActivity,
    roles: &["speech"],
    uses: &[],
    check_settings: no_settings,
    open: None,
};

const STAGE: &str = "speech detection";
/// Samples that one probability stands for: 32 ms.
const FRAME_SAMPLES: usize = 512;
/// Samples of the frame before that the model sees again.
const CONTEXT_SAMPLES: usize = 64;
/// Frames a call: 16 s, the size that silero-vad uses.
const BLOCK_FRAMES: usize = 512;
/// Width of the recurrent state.
const STATE: usize = 128;
/// Speech ends below the threshold less this.
const HYSTERESIS: f32 = 0.15;
/// A shorter stretch is a click: 250 ms.
const SPEECH_SAMPLES_MIN: usize = 4_000;
/// A shorter pause is inside a word: 100 ms.
const SILENCE_SAMPLES_MIN: usize = 1_600;
/// Added on both sides, since words begin quietly: 30 ms.
const PAD_SAMPLES: usize = 480;

/// Silero's whole-sequence export.
pub(super) struct SpeechDetector {
    session: Session,
}

impl SpeechDetector {
    pub(super) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const FRAMES: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(576)];
        const MEMORY: &[DimSpec] = &[DimSpec::Is(1), DimSpec::Is(1), DimSpec::Is(128)];
        let spec = |name, shape| {
            let name = IoName::Is(name);
            IoSpec { name, element: TensorElementType::Float32, shape }
        };
        let inputs = [spec("input", FRAMES), spec("h", MEMORY), spec("c", MEMORY)];
        let outputs =
            [spec("speech_probs", &[DimSpec::Free]), spec("hn", MEMORY), spec("cn", MEMORY)];
        Ok(Self { session: opener.session("speech", &inputs, &outputs)? })
    }

    /// One probability of speech per frame of [`FRAME_SAMPLES`].
    pub(super) fn probabilities(
        &mut self,
        samples: &[f32],
        cancel: &Cancel,
    ) -> Result<Vec<f32>, RunError> {
        let mut probabilities = Vec::with_capacity(samples.len() / FRAME_SAMPLES + 1);
        let mut hidden = Array3::<f32>::zeros((1, 1, STATE));
        let mut cell = hidden.clone();
        for start in (0..samples.len()).step_by(BLOCK_FRAMES * FRAME_SAMPLES) {
            cancel.check()?;
            let frames = frames(samples, start);
            let view = |array| TensorRef::from_array_view(array).map_err(failed(STAGE));
            let frames = TensorRef::from_array_view(&frames).map_err(failed(STAGE))?;
            let inputs =
                ort::inputs!["input" => frames, "h" => view(&hidden)?, "c" => view(&cell)?];
            let outputs = self.session.run(inputs).map_err(failed(STAGE))?;
            let tensor =
                |name: &str| outputs[name].try_extract_tensor::<f32>().map_err(failed(STAGE));
            probabilities.extend_from_slice(tensor("speech_probs")?.1);
            let (next_hidden, next_cell) = (tensor("hn")?.1, tensor("cn")?.1);
            hidden.iter_mut().zip(next_hidden).for_each(|(state, next)| *state = *next);
            cell.iter_mut().zip(next_cell).for_each(|(state, next)| *state = *next);
        }
        Ok(probabilities)
    }
}

/// The block of frames at `start`. Each begins with the end of the frame before, or with silence if there is none.
fn frames(samples: &[f32], start: usize) -> Array2<f32> {
    let count = (samples.len() - start).div_ceil(FRAME_SAMPLES).min(BLOCK_FRAMES);
    let mut frames = Array2::zeros((count, CONTEXT_SAMPLES + FRAME_SAMPLES));
    for (index, mut row) in frames.rows_mut().into_iter().enumerate() {
        let begin = start + index * FRAME_SAMPLES;
        let end = samples.len().min(begin + FRAME_SAMPLES);
        let context = CONTEXT_SAMPLES.min(begin);
        let known = &samples[begin - context..end];
        let target = row.iter_mut().skip(CONTEXT_SAMPLES - context);
        target.zip(known).for_each(|(target, sample)| *target = *sample);
    }
    frames
}

/// The stretches of speech, in samples: begun above `threshold`, ended after [`SILENCE_SAMPLES_MIN`] below it.
pub(super) fn find(probabilities: &[f32], length: usize, threshold: f32) -> Vec<Range<usize>> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    let mut begun: Option<usize> = None;
    let mut quiet_since: Option<usize> = None;
    for (frame, &probability) in probabilities.iter().enumerate() {
        let now = frame * FRAME_SAMPLES;
        if probability >= threshold {
            begun.get_or_insert(now);
            quiet_since = None;
        } else if let Some(start) = begun.filter(|_| probability < threshold - HYSTERESIS) {
            let end = *quiet_since.get_or_insert(now);
            if now - end >= SILENCE_SAMPLES_MIN {
                stretches.push(start..end);
                (begun, quiet_since) = (None, None);
            }
        }
    }
    stretches.extend(begun.map(|start| start..length));
    stretches.retain(|stretch| stretch.len() > SPEECH_SAMPLES_MIN);
    pad(&mut stretches, length);
    stretches
}

/// Widens each stretch by [`PAD_SAMPLES`] a side; neighbours share a gap that is too small for both.
fn pad(stretches: &mut [Range<usize>], length: usize) {
    let Some(first) = stretches.first_mut() else { return };
    first.start = first.start.saturating_sub(PAD_SAMPLES);
    for index in 1..stretches.len() {
        let share = PAD_SAMPLES.min((stretches[index].start - stretches[index - 1].end) / 2);
        stretches[index - 1].end += share;
        stretches[index].start -= share;
    }
    if let Some(last) = stretches.last_mut() {
        last.end = length.min(last.end + PAD_SAMPLES);
    }
}

/// Cuts stretches longer than `limit` samples where speech is least likely.
pub(super) fn cut_long(
    stretches: Vec<Range<usize>>,
    probabilities: &[f32],
    limit: usize,
) -> Vec<Range<usize>> {
    let mut cut = Vec::with_capacity(stretches.len());
    for mut rest in stretches {
        while rest.len() > limit {
            // Not before the middle, so that no piece is tiny.
            let first = (rest.start + limit / 2) / FRAME_SAMPLES;
            let last = ((rest.start + limit) / FRAME_SAMPLES).min(probabilities.len());
            let quietest =
                (first..last).min_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
            let middle = quietest
                .map_or(rest.start + limit, |frame| frame * FRAME_SAMPLES + FRAME_SAMPLES / 2);
            let middle = middle.clamp(rest.start + 1, rest.start + limit);
            cut.push(rest.start..middle);
            rest.start = middle;
        }
        cut.push(rest);
    }
    cut
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use super::*;

    fn probabilities(parts: &[(usize, f32)]) -> Vec<f32> {
        parts.iter().flat_map(|&(frames, value)| std::iter::repeat_n(value, frames)).collect()
    }

    #[test]
    fn a_short_pause_is_bridged_and_a_long_one_divides() {
        let bridged = probabilities(&[(10, 0.0), (20, 0.9), (3, 0.1), (20, 0.9), (10, 0.0)]);
        let length = bridged.len() * FRAME_SAMPLES;
        let found = find(&bridged, length, 0.5);
        assert_eq!(found, [10 * 512 - 480..53 * 512 + 480]);
        let divided = probabilities(&[(10, 0.0), (20, 0.9), (6, 0.1), (20, 0.9), (10, 0.0)]);
        assert_eq!(find(&divided, divided.len() * FRAME_SAMPLES, 0.5).len(), 2);
    }

    #[test]
    fn the_middle_ground_keeps_speech_going_but_does_not_begin_it() {
        let held = probabilities(&[(5, 0.4), (10, 0.9), (50, 0.4), (10, 0.0)]);
        let found = find(&held, held.len() * FRAME_SAMPLES, 0.5);
        assert_eq!(found, [5 * 512 - 480..65 * 512 + 480]);
    }

    #[test]
    fn a_click_is_no_speech_and_speech_may_last_to_the_end() {
        assert!(find(&probabilities(&[(5, 0.0), (7, 0.9), (10, 0.0)]), 22 * 512, 0.5).is_empty());
        let open = probabilities(&[(5, 0.0), (20, 0.9)]);
        assert_eq!(find(&open, 25 * 512 - 100, 0.5), [5 * 512 - 480..25 * 512 - 100]);
    }

    #[test]
    fn speech_without_a_pause_is_cut_at_its_quietest_frame() {
        let mut flow = probabilities(&[(1000, 0.9)]);
        flow[700] = 0.6;
        let limit = 800 * FRAME_SAMPLES;
        let whole = vec![0..1000 * FRAME_SAMPLES];
        let cut = cut_long(whole.clone(), &flow, limit);
        let middle = 700 * FRAME_SAMPLES + 256;
        assert_eq!(cut, [0..middle, middle..1000 * FRAME_SAMPLES]);
        assert_eq!(cut_long(whole.clone(), &flow, 2 * limit), whole);
    }

    #[test]
    fn each_frame_begins_with_the_end_of_the_one_before() {
        let samples: Vec<f32> = (0..1300_u16).map(f32::from).collect();
        let frames = frames(&samples, 0);
        assert_eq!(frames.shape(), [3, 576]);
        assert_eq!((frames[[0, 63]], frames[[0, 64]]), (0.0, 0.0));
        assert_eq!((frames[[1, 0]], frames[[1, 64]]), (448.0, 512.0));
        assert_eq!((frames[[2, 64 + 275]], frames[[2, 64 + 276]]), (1299.0, 0.0));
    }
}
