//! Who speaks when: a vector for each stretch of speech, and stretches with like vectors are one speaker's.
//!
//! The vectors are GE2E d-vectors; what goes into them is as the embedder's own metadata says. Two people who speak at once
//! are not told apart, a stretch too short for a vector is taken for its neighbour's, and like voices may be mistaken for
//! one another where they speak in short pieces.

use std::ops::Range;

use gpu_tasks::Params;
use ndarray::{Array3, Axis};
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};

use crate::models::{
    DimSpec, FamilySpec, IoName, IoSpec, ModelError, ModelTask, Opener, no_settings,
};
use crate::pipelines::vectors::l2_normalized;
use crate::preprocess::spectrum::{MelFilters, MelScale, Spectrum};
use crate::run::{Cancel, RunError, failed};

/// GE2E vectors of speakers.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "d-vector",
    task: ModelTask::VoiceSpeaker,
    roles: &["embed"],
    uses: &[],
    check_settings: no_settings,
    open: None,
};

const STAGE: &str = "speaker embedding";
const FRAME: usize = 512;
const WINDOW: usize = 400;
const HOP: usize = 160;
const MELS: usize = 40;
const FLOOR: f32 = 1e-6;
/// Frames that the embedder sees at once, and how far it then moves on: 0.8 s and 0.4 s.
const VIEW: usize = 80;
const STRIDE: usize = 40;
/// A stretch shorter than this has no vector: a quarter of a second.
const SAMPLES_MIN: usize = 4_000;
/// Two groups whose vectors are more alike than this are one speaker. In the recordings of the tests, cut into stretches of a
/// second, the groups of one voice come together at 0.54 and above, those of two voices would at 0.41.
const LIKENESS_MIN: f32 = 0.48;
/// Stretches that are compared each with each; beyond, each joins the group that it is most like.
const STRETCHES_MAX: usize = 300;

/// How many speakers a job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speakers {
    /// As many as the voices that are told apart.
    Any,
    /// This number, or fewer if there are fewer stretches.
    Count(usize),
}

impl Speakers {
    /// What the job asks for, if it does.
    pub(super) fn of(params: &Params) -> Option<Self> {
        match (params.flag("speakers"), params.integer("speakers")) {
            (Some(true), _) => Some(Self::Any),
            (_, Some(count)) => usize::try_from(count).ok().map(Self::Count),
            _ => None,
        }
    }
}

pub(super) struct SpeakerEmbedder {
    session: Session,
    spectrum: Spectrum,
    filters: MelFilters,
}

impl SpeakerEmbedder {
    pub(super) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        const VIEWS: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(80), DimSpec::Is(40)];
        const VECTORS: &[DimSpec] = &[DimSpec::Free, DimSpec::Own];
        let spec = |name, shape| {
            [IoSpec { name: IoName::Is(name), element: TensorElementType::Float32, shape }]
        };
        let (inputs, outputs) = (spec("mel_window", VIEWS), spec("embedding", VECTORS));
        Ok(Self {
            session: opener.session("embed", &inputs, &outputs)?,
            spectrum: Spectrum::new(FRAME, WINDOW, HOP),
            filters: MelFilters::new(
                MelScale::Htk,
                MELS,
                FRAME,
                crate::input::audio::SAMPLE_RATE_HZ,
            ),
        })
    }

    /// The speaker of each stretch, numbered from 0 in the order in which they first speak.
    pub(super) fn tell_apart(
        &mut self,
        samples: &[f32],
        stretches: &[Range<usize>],
        wanted: Speakers,
        cancel: &Cancel,
    ) -> Result<Vec<usize>, RunError> {
        let mut vectors = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            cancel.check()?;
            let known = stretch.len() >= SAMPLES_MIN;
            let vector = known.then(|| self.embed(&samples[stretch.clone()])).transpose()?;
            // A long stretch says more than a short one.
            let weight = stretch.len() as f32;
            vectors.push(vector.map(|vector| vector.iter().map(|x| x * weight).collect()));
        }
        Ok(in_order_of_speaking(&group(&vectors, wanted)))
    }

    /// One vector of length 1. Windows of one recording share a call: the embedder is quantised dynamically, and another
    /// recording beside it would change the result.
    fn embed(&mut self, samples: &[f32]) -> Result<Vec<f32>, RunError> {
        let mut mel = self.log_mel(samples);
        // What is shorter than one view is repeated until the view is full.
        let own = mel.len();
        while mel.len() < VIEW * MELS {
            mel.extend_from_within(..own.min(VIEW * MELS - mel.len()));
        }
        let frames = mel.len() / MELS;
        let views = (frames - VIEW) / STRIDE + 1;
        let seen = |view: usize| &mel[view * STRIDE * MELS..][..VIEW * MELS];
        let input: Vec<f32> = (0..views).flat_map(seen).copied().collect();
        let input =
            Array3::from_shape_vec((views, VIEW, MELS), input).expect("the sizes are its own");
        let input = TensorRef::from_array_view(&input).map_err(failed(STAGE))?;
        let outputs =
            self.session.run(ort::inputs!["mel_window" => input]).map_err(failed(STAGE))?;
        let found = outputs["embedding"].try_extract_array::<f32>().map_err(failed(STAGE))?;
        let width = found.len() / views;
        let mut mean = vec![0.0; width];
        for vector in found.axis_iter(Axis(0)) {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            mean.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x / length);
        }
        Ok(l2_normalized(mean))
    }

    fn log_mel(&self, samples: &[f32]) -> Vec<f32> {
        let mut mel = Vec::with_capacity(self.spectrum.count(samples.len()) * MELS);
        let mut power = vec![0.0; self.spectrum.bins()];
        self.spectrum.each(samples, |bins| {
            power.iter_mut().zip(bins).for_each(|(power, bin)| *power = bin.norm_sqr());
            mel.extend(self.filters.apply(&power).map(|passed| (passed + FLOOR).log10()));
        });
        mel
    }
}

/// Stretches of one speaker.
struct Group {
    members: Vec<usize>,
    /// Their vectors together, each as long as its stretch.
    sum: Vec<f32>,
}

/// The group of each stretch: the two groups that are most alike become one, again and again.
fn group(vectors: &[Option<Vec<f32>>], wanted: Speakers) -> Vec<usize> {
    let known = vectors.iter().enumerate().filter_map(|(at, vector)| Some((at, vector.as_ref()?)));
    let mut groups: Vec<Group> = Vec::new();
    for (at, vector) in known {
        if at < STRETCHES_MAX {
            groups.push(Group { members: vec![at], sum: vector.clone() });
        } else if let Some(best) = most_similar(&groups, vector) {
            groups[best].members.push(at);
        }
    }
    while let Some((one, other, likeness)) = nearest_pair(&groups) {
        let enough = match wanted {
            Speakers::Any => likeness < LIKENESS_MIN,
            Speakers::Count(count) => groups.len() <= count.max(1),
        };
        if enough {
            break;
        }
        let Group { members, sum } = groups.swap_remove(other);
        groups[one].members.extend(members);
        groups[one].sum.iter_mut().zip(sum).for_each(|(mine, its)| *mine += its);
    }
    let mut labels = vec![None; vectors.len()];
    for (label, group) in groups.iter().enumerate() {
        group.members.iter().for_each(|&at| labels[at] = Some(label));
    }
    fill(&labels)
}

fn most_similar(groups: &[Group], vector: &[f32]) -> Option<usize> {
    let likeness = |group: usize| cosine(&groups[group].sum, vector);
    (0..groups.len()).max_by(|&a, &b| likeness(a).total_cmp(&likeness(b)))
}

/// `other` is the later of the two.
fn nearest_pair(groups: &[Group]) -> Option<(usize, usize, f32)> {
    let each = 0..groups.len();
    let pairs = each.flat_map(|one| (one + 1..groups.len()).map(move |other| (one, other)));
    let likeness = |one: usize, other: usize| cosine(&groups[one].sum, &groups[other].sum);
    pairs.map(|(one, other)| (one, other, likeness(one, other))).max_by(|a, b| a.2.total_cmp(&b.2))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A stretch without a label has that of the one before it, or after it at the beginning.
fn fill(labels: &[Option<usize>]) -> Vec<usize> {
    let mut last = labels.iter().flatten().next().copied().unwrap_or(0);
    let mut next = |label: &Option<usize>| {
        last = label.unwrap_or(last);
        last
    };
    labels.iter().map(&mut next).collect()
}

fn in_order_of_speaking(labels: &[usize]) -> Vec<usize> {
    let mut seen = Vec::new();
    let mut number = |label: &usize| {
        seen.iter().position(|seen| seen == label).unwrap_or_else(|| {
            seen.push(*label);
            seen.len() - 1
        })
    };
    labels.iter().map(&mut number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::spectrum::test_sound;

    #[test]
    fn like_voices_are_one_speaker_and_a_short_word_is_its_neighbours() {
        let voice = |x: f32, y: f32| Some(l2_normalized(vec![x, y]));
        let vectors =
            [None, voice(0.1, 1.0), voice(1.0, 0.1), None, voice(0.2, 1.0), voice(1.0, 0.0)];
        let told = |wanted| in_order_of_speaking(&group(&vectors, wanted));
        assert_eq!(told(Speakers::Any), [0, 0, 1, 1, 0, 1]);
        assert_eq!(told(Speakers::Count(1)), [0; 6]);
        assert_eq!(told(Speakers::Count(9)), [0, 0, 1, 1, 2, 3]);
        assert_eq!(group(&[None, None], Speakers::Any), [0, 0]);
        assert!(group(&[], Speakers::Any).is_empty());
    }

    /// numpy 2.4.6: frames of 512 of the sound, times `hanning(401)[:-1]` in the middle, `abs(rfft)**2 @ mel.T`, where mel is
    /// librosa's of `spectrum`'s tests, then `log10(x + 1e-6)`.
    #[test]
    fn the_embedder_gets_what_it_was_trained_on() {
        let spectrum = Spectrum::new(FRAME, WINDOW, HOP);
        let filters = MelFilters::new(MelScale::Htk, MELS, FRAME, 16_000);
        let mut mel = Vec::new();
        spectrum.each(&test_sound(4_096), |bins| {
            let power: Vec<f32> =
                bins.iter().map(realfft::num_complex::Complex32::norm_sqr).collect();
            mel.extend(filters.apply(&power).map(|passed| (passed + FLOOR).log10()));
        });
        assert_eq!(mel.len(), 23 * MELS);
        let expected =
            [(0, 0, 1.329_683), (0, 4, -0.158_387), (5, 12, 2.713_607), (22, 30, -0.013_495)];
        for (frame, filter, value) in expected {
            let found: f32 = mel[frame * MELS + filter];
            assert!((found - value).abs() < 1e-3, "{frame} {filter}: {found}");
        }
    }
}
