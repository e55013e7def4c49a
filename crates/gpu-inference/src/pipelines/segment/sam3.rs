//! All objects that a name fits, or that look like the objects in boxes, by SAM 3.
//!
//! There is no official export; this takes the one in four files: picture encoder, text encoder, and a decoder that
//! knows boxes. The latest encoded name is kept, since jobs come in series with one name.

use gpu_tasks::Task;
use ndarray::{Array2, Array3, ArrayD, Axis, Ix2, Ix3, Ix4};
use ort::value::TensorElementType;
use serde::Deserialize;

use super::{MASKS_MAX, Mask, above_zero, boxes, output};
use crate::input::Prepared;
use crate::models::{
    DimSpec, FamilySpec, Feed, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Settings,
    Stack, check_settings,
};
use crate::output::Output;
use crate::pipelines::detect::score_min;
use crate::pipelines::scaling::{Scaled, Scaling};
use crate::pipelines::vectors::sigmoid;
use crate::preparation::{Preparation, Stage};
use crate::preprocess::pixels::{Filter, Normalisation, Planes};
use crate::preprocess::tokens::{self, Tokens};
use crate::run::{Cancel, Run, RunError, reject_unsupported_params};
use crate::size::Size;

/// SAM 3: masks from words and boxes.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "sam3",
    task: ModelTask::Job(Task::VisionSegment),
    roles: &["decoder", "encoder", "text", "tokenizer"],
    uses: &[],
    check_settings: check_settings::<Sam3Settings>,
    open: Some(|opener| Ok(Box::new(Sam3Pipeline::open(opener)?))),
};

const ENCODE: &str = "picture encoder";
/// What the encoder calls its input.
const PICTURES: &str = "images";
const TEXT: &str = "text encoder";
const DECODE: &str = "mask decoder";
/// The side of the square that the encoder takes.
const SIDE: u32 = 1_008;
/// Tokens of a word or phrase, padding included.
const TOKENS: usize = 32;
/// The text that SAM 3 was trained with where only boxes are given.
const BOXES_ALONE: &str = "visual";
const FEATURES: [&str; 4] = ["fpn_feat_0", "fpn_feat_1", "fpn_feat_2", "fpn_pos_2"];
/// What the decoder calls a box on an object, and the absence of one.
const ON: i64 = 1;
const NO_BOX: i64 = -10;

/// What a manifest's `[settings]` may change for the family `sam3`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sam3Settings {
    /// The lowest score of an object.
    pub score_min: f32,
    /// What a short phrase is padded with: CLIP's end of text.
    pub pad_id: i64,
}

impl Default for Sam3Settings {
    fn default() -> Self {
        Self { score_min: 0.5, pad_id: 49_407 }
    }
}

impl Settings for Sam3Settings {
    fn check(&self) -> Result<(), &'static str> {
        let fits = (0.0..=1.0).contains(&self.score_min) && self.pad_id >= 0;
        if fits { Ok(()) } else { Err("score_min is from 0 to 1, and pad_id a token's number") }
    }
}

pub(crate) struct Sam3Pipeline {
    encoder: Graph,
    text: Graph,
    decoder: Graph,
    tokens: Tokens,
    stage: Stage<Scaling>,
    stack: Stack,
    /// The latest phrase, and what the text encoder made of it: features and mask.
    latest: Option<(String, [ArrayD<f32>; 2])>,
    settings: Sam3Settings,
}

impl Sam3Pipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<Sam3Settings>()?;
        let float = |name, shape| IoSpec { name, element: TensorElementType::Float32, shape };
        let other = |name, element, shape| IoSpec { name: IoName::Is(name), element, shape };
        let feature = |name| float(IoName::Is(name), &[DimSpec::Any; 4]);
        let whole = TensorElementType::Int64;
        let pictures = [float(
            IoName::Is(PICTURES),
            &[DimSpec::Any, DimSpec::Is(3), DimSpec::Is(SIDE), DimSpec::Is(SIDE)],
        )];
        let encoder = opener.graph("encoder", &pictures, &FEATURES.map(feature))?;
        const PHRASE: &[DimSpec] = &[DimSpec::Any, DimSpec::Is(32)];
        let phrases = [other("input_ids", whole, PHRASE), other("attention_mask", whole, PHRASE)];
        let phrase = || {
            [
                float(IoName::Is("text_features"), &[DimSpec::Any; 3]),
                other("text_mask", TensorElementType::Bool, PHRASE),
            ]
        };
        let text = opener.graph("text", &phrases, &phrase())?;
        let boxes = [
            float(IoName::Is("input_boxes"), &[DimSpec::Any, DimSpec::Any, DimSpec::Is(4)]),
            other("input_boxes_labels", whole, &[DimSpec::Any, DimSpec::Any]),
        ];
        let inputs: Vec<IoSpec> =
            FEATURES.map(feature).into_iter().chain(phrase()).chain(boxes).collect();
        let outputs = [
            float(IoName::Is("pred_masks"), &[DimSpec::Any; 4]),
            float(IoName::Is("pred_boxes"), &[DimSpec::Any; 3]),
            float(IoName::Is("pred_logits"), &[DimSpec::Any; 2]),
            float(IoName::Is("presence_logits"), &[DimSpec::Any; 2]),
        ];
        let decoder = opener.graph("decoder", &inputs, &outputs)?;
        let tokens = Tokens::open(&opener.bytes("tokenizer")?, TOKENS)
            .map_err(|problem| opener.interface_mismatch("tokenizer", problem))?;
        opener.limit_batch(1);
        let width = encoder.float_width(PICTURES);
        let scaling = Scaling::to_square(SIDE, Filter::Bilinear, Normalisation::SIGNED, width);
        let (stage, stack) = (Stage::new(scaling), Stack::default());
        Ok(Self { encoder, text, decoder, tokens, stage, stack, latest: None, settings })
    }

    fn encode(&mut self, picture: &Planes) -> Result<[ArrayD<f32>; 4], RunError> {
        let feeds = vec![(PICTURES, self.stack.of([picture]))];
        self.encoder.run(ENCODE, feeds, FEATURES)
    }

    fn encode_phrase(&mut self, phrase: &str) -> Result<[ArrayD<f32>; 2], RunError> {
        if let Some((_, encoded)) = self.latest.as_ref().filter(|(latest, _)| latest == phrase) {
            return Ok(encoded.clone());
        }
        let encoded = self.tokens.encode(phrase).map_err(|problem| RunError::Unfit { problem })?;
        if encoded.truncated {
            let problem = format!("the text has more than {TOKENS} tokens: a word or two will do");
            return Err(RunError::Unfit { problem });
        }
        let padded = tokens::pad(&[&encoded], self.settings.pad_id, TOKENS);
        let feeds = vec![
            ("input_ids", Feed::Whole(padded.ids.view().into_dyn())),
            ("attention_mask", Feed::Whole(padded.mask.view().into_dyn())),
        ];
        let encoded = self.text.run(TEXT, feeds, ["text_features", "text_mask"])?;
        self.latest = Some((phrase.to_owned(), encoded.clone()));
        Ok(encoded)
    }

    fn segment(
        &mut self,
        picture: &Scaled,
        input: &Prepared,
        cancel: &Cancel,
    ) -> Result<Vec<Mask>, RunError> {
        let size = picture.picture;
        let boxes = boxes(input, size)?;
        let word = input.params().text("text");
        let phrase = match (word, boxes.is_empty()) {
            (Some(word), _) => word,
            (None, false) => BOXES_ALONE,
            (None, true) => {
                let problem = "SAM 3 needs a text or boxes: --param text=\"a dog\"".to_owned();
                return Err(RunError::Unfit { problem });
            }
        };
        let [features, mask] = self.encode_phrase(phrase)?;
        let pictures = self.encode(&picture.planes)?;
        cancel.check()?;
        let (boxes_in_shares, meanings) = prompt(&boxes, size);
        let mut feeds = vec![
            ("text_features", Feed::Floats(features.view())),
            ("text_mask", Feed::Floats(mask.view())),
            ("input_boxes", Feed::Floats(boxes_in_shares.view().into_dyn())),
            ("input_boxes_labels", Feed::Whole(meanings.view().into_dyn())),
        ];
        for (name, feature) in FEATURES.into_iter().zip(&pictures) {
            feeds.push((name, Feed::Floats(feature.view())));
        }
        let wanted = ["pred_masks", "pred_boxes", "pred_logits", "presence_logits"];
        let outputs = self.decoder.run(DECODE, feeds, wanted)?;
        let least = score_min(input, self.settings.score_min);
        masks(outputs, least, size, word)
    }
}

impl Run for Sam3Pipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for (picture, input) in self.stage.forms(batch)?.into_iter().zip(batch) {
            cancel.check()?;
            reject_unsupported_params(input.params(), &["boxes", "text", "score_min"])?;
            let masks = self.segment(&picture, input, cancel)?;
            outputs.push(output(masks, picture.picture));
        }
        Ok(outputs)
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

/// Boxes as centres and sides, in shares of the picture; without boxes, one that the decoder ignores.
fn prompt(boxes: &[[f32; 4]], size: Size) -> (Array3<f32>, Array2<i64>) {
    if boxes.is_empty() {
        return (Array3::zeros((1, 1, 4)), Array2::from_elem((1, 1), NO_BOX));
    }
    let (width, height) = (size.width as f32, size.height as f32);
    let share = |[left, top, right, bottom]: [f32; 4]| {
        let middle = [(left + right) / 2.0 / width, (top + bottom) / 2.0 / height];
        [middle[0], middle[1], (right - left) / width, (bottom - top) / height]
    };
    let shares: Vec<[f32; 4]> = boxes.iter().copied().map(share).collect();
    let boxes_in_shares =
        Array3::from_shape_fn((1, boxes.len(), 4), |(_, index, number)| shares[index][number]);
    (boxes_in_shares, Array2::from_elem((1, boxes.len()), ON))
}

/// The objects of a high enough score, highest first.
fn masks(
    [maps, edges, logits, presence]: [ArrayD<f32>; 4],
    least: f32,
    size: Size,
    word: Option<&str>,
) -> Result<Vec<Mask>, RunError> {
    let wrong = || RunError::Shape { stage: DECODE, shape: maps.shape().to_vec() };
    let shaped = maps.view().into_dimensionality::<Ix4>().map_err(|_| wrong())?;
    let edges = edges.into_dimensionality::<Ix3>().map_err(|_| wrong())?;
    let logits = logits.into_dimensionality::<Ix2>().map_err(|_| wrong())?;
    let (one, count, height, width) = shaped.dim();
    let presence = presence.first().copied().ok_or_else(wrong)?;
    let fits = one == 1 && logits.dim() == (1, count) && edges.dim() == (1, count, 4);
    let from = (u32::try_from(width), u32::try_from(height));
    let (true, (Ok(width), Ok(height))) = (fits && width > 0 && height > 0, from) else {
        return Err(wrong());
    };
    let score = |logit: &f32| sigmoid(*logit) * sigmoid(presence);
    let mut found: Vec<(usize, f32)> =
        logits.row(0).iter().map(score).enumerate().filter(|(_, score)| *score >= least).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mask = |(index, score): (usize, f32)| {
        let map = shaped.index_axis(Axis(0), 0);
        let map: Vec<f32> = map.index_axis(Axis(0), index).iter().copied().collect();
        let picture = above_zero(&map, Size { width, height }, size);
        Mask::new(&picture, word.map(str::to_owned), Some(score))
    };
    Ok(found.into_iter().take(MASKS_MAX).map(mask).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_become_shares_of_the_picture_and_none_becomes_a_mark() {
        let (boxes_in_shares, meanings) = prompt(&[[10.0, 20.0, 30.0, 80.0]], (100, 200).into());
        assert_eq!(boxes_in_shares.iter().copied().collect::<Vec<_>>(), [0.2, 0.25, 0.2, 0.3]);
        assert_eq!(meanings.iter().copied().collect::<Vec<_>>(), [1]);
        let (boxes_in_shares, meanings) = prompt(&[], (100, 200).into());
        assert_eq!((boxes_in_shares.len(), meanings[[0, 0]]), (4, -10));
    }

    #[test]
    fn an_object_s_score_includes_whether_it_is_present() {
        let scores = |presence| {
            let shape = ndarray::IxDyn(&[1, 3, 2, 2]);
            let maps = ArrayD::from_elem(shape, 1.0);
            let edges = ArrayD::zeros(ndarray::IxDyn(&[1, 3, 4]));
            let logits = ArrayD::from_shape_vec(ndarray::IxDyn(&[1, 3]), vec![0.5, -9.0, 3.0]);
            let presence = ArrayD::from_elem(ndarray::IxDyn(&[1, 1]), presence);
            let found =
                masks([maps, edges, logits.unwrap(), presence], 0.5, Size::square(4), Some("cat"));
            found.unwrap().into_iter().map(|mask| mask.score.unwrap()).collect::<Vec<_>>()
        };
        let sure = scores(9.0);
        assert_eq!(sure.len(), 2);
        assert!((sure[0] - 0.952_456_6).abs() < 1e-4 && sure[0] > sure[1], "{sure:?}");
        assert!(scores(-3.0).is_empty());
    }
}
