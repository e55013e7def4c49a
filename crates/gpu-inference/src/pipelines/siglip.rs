//! `vision.embed`: pictures and texts as vectors of one space, by SigLIP's two towers.
//!
//! A picture's vector is near the vector of a text that describes it. With labels, the result is how well each fits:
//! SigLIP scores each by itself, so scores need not add up to 1. Variants for other picture shapes (`naflex`) take
//! other inputs and are rejected.

use std::collections::BTreeMap;

use gpu_tasks::Task;
use ndarray::{Array2, ArrayD, Axis, Ix2};
use ort::value::TensorElementType;
use serde::Deserialize;

use crate::input::{Content, Load, Prepared};
use crate::models::{
    DimSpec, FamilySpec, Feed, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Settings,
    Stack, check_settings,
};
use crate::output::{Classification, Embedding, Label, Output, TaskResult};
use crate::pipelines::vectors::{l2_normalized, sigmoid};
use crate::preparation::{Form, Preparation, Prepare, Stage};
use crate::preprocess::pixels::{Filter, FloatWidth, Normalisation, Planes, resize};
use crate::preprocess::tokens::{Encoded, Tokens};
use crate::run::{Cancel, Run, RunError};
use crate::size::Size;

/// SigLIP: pictures and texts in one space.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "siglip",
    task: ModelTask::Job(Task::VisionEmbed),
    roles: &["text", "tokenizer", "vision"],
    uses: &[],
    check_settings: check_settings::<SiglipSettings>,
    open: Some(|opener| Ok(Box::new(SiglipPipeline::open(opener)?))),
};

const PICTURES: &str = "picture tower";
const TEXTS: &str = "text tower";
const PIXELS: &str = "pixel_values";
/// Longest text of any SigLIP, in tokens.
const LENGTH_MAX: usize = 1_024;
/// Largest picture of any SigLIP: so400m at 1,152.
const SIDE_LIMIT: u32 = 2_048;
/// Texts a call.
const TEXTS_MAX: usize = 64;
/// Labels whose vectors are kept: jobs come in series with the same ones.
const KEPT_MAX: usize = 4_096;
/// Stands in the template where the label goes.
const PLACE: &str = "{}";
/// What exporters call the vector.
const VECTOR_NAMES: [&str; 4] = ["pooler_output", "image_embeds", "text_embeds", "pooled_output"];

/// What a manifest's `[settings]` may change for the family `siglip`. The defaults are SigLIP 2's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SiglipSettings {
    /// The picture's side, where the graph leaves it open.
    pub side: u32,
    /// How pictures are scaled: SigLIP 1 is bicubic.
    pub filter: SiglipFilter,
    /// Tokens of a text, padding included.
    pub tokens: usize,
    /// What padding is filled with: SigLIP 1 pads with 1. A wrong one shifts vectors and shows nowhere else.
    pub pad_id: i64,
    /// The token at a text's end.
    pub eos_id: i64,
    /// The token that Gemma's tokenizer may put before a text, which SigLIP does without.
    pub bos_id: i64,
    /// The logarithm of the scale of scores: `logit_scale` of the checkpoint.
    pub logit_scale: Option<f32>,
    /// `logit_bias` of the checkpoint.
    pub logit_bias: Option<f32>,
    /// What a label is put into.
    pub template: String,
}

/// How pictures are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SiglipFilter {
    /// SigLIP 2.
    Bilinear,
    /// SigLIP 1.
    Bicubic,
}

impl From<SiglipFilter> for Filter {
    fn from(filter: SiglipFilter) -> Self {
        match filter {
            SiglipFilter::Bilinear => Self::Bilinear,
            SiglipFilter::Bicubic => Self::Bicubic,
        }
    }
}

impl Default for SiglipSettings {
    fn default() -> Self {
        Self {
            side: 224,
            filter: SiglipFilter::Bilinear,
            tokens: 64,
            pad_id: 0,
            eos_id: 1,
            bos_id: 2,
            logit_scale: None,
            logit_bias: None,
            template: "This is a photo of {}.".to_owned(),
        }
    }
}

impl Settings for SiglipSettings {
    fn check(&self) -> Result<(), &'static str> {
        if !(16..=SIDE_LIMIT).contains(&self.side) {
            Err("side is from 16 to 2048")
        } else if !(2..=LENGTH_MAX).contains(&self.tokens) {
            Err("tokens is from 2 to 1024")
        } else if !self.template.contains(PLACE) {
            Err("template has {} where the label goes")
        } else if ![self.logit_scale, self.logit_bias].iter().flatten().all(|x| x.is_finite()) {
            Err("logit_scale and logit_bias are numbers")
        } else {
            Ok(())
        }
    }
}

pub(crate) struct SiglipPipeline {
    vision: Graph,
    text: Graph,
    stage: Stage<SiglipInputs>,
    stack: Stack,
    /// The vectors of labels seen before.
    labels: BTreeMap<String, Vec<f32>>,
    settings: SiglipSettings,
    batch_max: usize,
}

/// How pictures and texts are prepared for the towers.
struct SiglipInputs {
    tokens: Tokens,
    side: u32,
    width: FloatWidth,
    settings: SiglipSettings,
}

/// What a tower takes.
enum SiglipForm {
    Picture(Planes),
    Text(Encoded),
}

impl Form for SiglipForm {
    fn load(&self) -> Load {
        match self {
            Self::Picture(planes) => planes.load(),
            Self::Text(text) => text.load(),
        }
    }
}

impl Prepare for SiglipInputs {
    type Form = SiglipForm;

    fn prepare(&self, input: &Prepared) -> Result<SiglipForm, RunError> {
        match input.content() {
            Content::Picture(picture) => {
                let square = Size::square(self.side);
                let scaled = resize(picture.rgb(), square, self.settings.filter.into());
                let planes = Planes::of(&scaled, &Normalisation::SIGNED, self.width);
                Ok(SiglipForm::Picture(planes))
            }
            Content::Text(text) => self.encode(text).map(SiglipForm::Text),
            _ => Err(RunError::WrongInput { index: 0, wanted: "a picture or a text" }),
        }
    }

    fn bytes_max(&self) -> u64 {
        Planes::bytes(Size::square(self.side), self.width)
            .max(Encoded::bytes_max(self.settings.tokens))
    }
}

impl SiglipInputs {
    fn encode(&self, text: &str) -> Result<Encoded, RunError> {
        let encoded = self.tokens.encode(&text.to_lowercase());
        let encoded = encoded.map_err(|problem| RunError::Unfit { problem })?;
        Ok(framed(encoded, &self.settings))
    }
}

impl SiglipPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<SiglipSettings>()?;
        // Answers are told apart by name: a tower may give its states beside the vector.
        let pictures = [IoSpec {
            name: IoName::Is(PIXELS),
            element: TensorElementType::Float32,
            shape: &[DimSpec::Free, DimSpec::Is(3), DimSpec::Any, DimSpec::Any],
        }];
        let vision = opener.graph("vision", &pictures, &[])?;
        let texts = [IoSpec {
            name: IoName::Is("input_ids"),
            element: TensorElementType::Int64,
            shape: &[DimSpec::Free, DimSpec::Any],
        }];
        let text = opener.graph("text", &texts, &[])?;
        // Room for the two marks that a tokenizer may put around a text, which `framed` sees to.
        let tokens = Tokens::open(&opener.bytes("tokenizer")?, settings.tokens + 2)
            .map_err(|problem| opener.interface_mismatch("tokenizer", problem))?;
        let own = |graph: &Graph, axis: usize| {
            let shape = graph.session().inputs()[0].dtype().tensor_shape();
            shape.and_then(|shape| shape.get(axis).copied()).filter(|&side| side > 0)
        };
        if own(&vision, 2) != own(&vision, 3) {
            return Err(opener.interface_mismatch("vision", "the input is not a square".to_owned()));
        }
        if own(&text, 1).is_some_and(|length| usize::try_from(length) != Ok(settings.tokens)) {
            let problem =
                format!("the input has not the {} tokens of the settings", settings.tokens);
            return Err(opener.interface_mismatch("text", problem));
        }
        let side = own(&vision, 2).and_then(|side| u32::try_from(side).ok());
        let side = side.unwrap_or(settings.side);
        let width = vision.float_width(PIXELS);
        let stage = Stage::new(SiglipInputs { tokens, side, width, settings: settings.clone() });
        let (batch_max, labels) = (opener.batch_max(), BTreeMap::new());
        Ok(Self { vision, text, stage, stack: Stack::default(), labels, settings, batch_max })
    }

    fn embed_pictures(&mut self, pictures: &[&Planes]) -> Result<Vec<Vec<f32>>, RunError> {
        let name = self.vision.output_among(&VECTOR_NAMES);
        let feeds = vec![(PIXELS, self.stack.of(pictures.iter().copied()))];
        let [vectors] = self.vision.run(PICTURES, feeds, [name.as_str()])?;
        rows(&vectors, pictures.len(), PICTURES)
    }

    fn embed_texts(&mut self, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, RunError> {
        let name = self.text.output_among(&VECTOR_NAMES);
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(TEXTS_MAX) {
            let length = self.settings.tokens;
            let mut ids = Array2::from_elem((texts.len(), length), self.settings.pad_id);
            for (mut row, text) in ids.rows_mut().into_iter().zip(texts) {
                row.iter_mut().zip(&text.ids).for_each(|(target, &id)| *target = id);
            }
            let feeds = vec![("input_ids", Feed::Whole(ids.view().into_dyn()))];
            let [some] = self.text.run(TEXTS, feeds, [name.as_str()])?;
            vectors.extend(rows(&some, texts.len(), TEXTS)?);
        }
        Ok(vectors)
    }

    /// The vectors of a job's labels.
    fn label_vectors(&mut self, labels: &[String]) -> Result<Vec<Vec<f32>>, RunError> {
        if self.labels.len() + labels.len() > KEPT_MAX {
            self.labels.clear();
        }
        let unseen: Vec<&String> =
            labels.iter().filter(|label| !self.labels.contains_key(*label)).collect();
        let encoded: Result<Vec<_>, _> = unseen
            .iter()
            .map(|label| self.stage.own().encode(&self.settings.template.replace(PLACE, label)))
            .collect();
        let encoded = encoded?;
        let vectors = self.embed_texts(&encoded.iter().collect::<Vec<_>>())?;
        self.labels.extend(unseen.into_iter().cloned().zip(vectors));
        Ok(labels.iter().map(|label| self.labels[label].clone()).collect())
    }

    fn judge(&mut self, vector: &[f32], labels: &[String]) -> Result<Classification, RunError> {
        let (Some(scale), Some(bias)) = (self.settings.logit_scale, self.settings.logit_bias)
        else {
            let problem =
                "the model's manifest has no logit_scale and logit_bias, which labels need";
            return Err(RunError::Unfit { problem: problem.to_owned() });
        };
        let vectors = self.label_vectors(labels)?;
        let score = |(name, other): (&String, Vec<f32>)| {
            let cosine: f32 = vector.iter().zip(&other).map(|(a, b)| a * b).sum();
            Label { name: name.clone(), score: sigmoid(scale.exp() * cosine + bias) }
        };
        let mut labels: Vec<Label> = labels.iter().zip(vectors).map(score).collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        let label = labels[0].name.clone();
        Ok(Classification { label, media_type: None, labels, truncated: false })
    }
}

impl Run for SiglipPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let forms = self.stage.forms(batch)?;
        let (mut pictures, mut texts) = (Vec::new(), Vec::new());
        for (index, form) in forms.iter().enumerate() {
            match &**form {
                SiglipForm::Picture(planes) => pictures.push((index, planes)),
                SiglipForm::Text(text) => texts.push((index, text)),
            }
        }
        let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); batch.len()];
        for pictures in pictures.chunks(self.batch_max) {
            cancel.check()?;
            let some: Vec<&Planes> = pictures.iter().map(|(_, planes)| *planes).collect();
            for ((index, _), vector) in pictures.iter().zip(self.embed_pictures(&some)?) {
                vectors[*index] = vector;
            }
        }
        cancel.check()?;
        let encoded: Vec<&Encoded> = texts.iter().map(|(_, text)| *text).collect();
        for ((index, _), vector) in texts.iter().zip(self.embed_texts(&encoded)?) {
            vectors[*index] = vector;
        }
        let mut outputs = Vec::with_capacity(batch.len());
        for (index, (input, values)) in batch.iter().zip(vectors).enumerate() {
            outputs.push(match input.params().texts("labels") {
                Some(labels) => TaskResult::Classification(self.judge(&values, labels)?).into(),
                None => {
                    let text = texts.iter().find(|(text, _)| *text == index);
                    let tokens = text.map(|(_, text)| text.ids.len());
                    let truncated = text.is_some_and(|(_, text)| text.truncated);
                    TaskResult::Embedding(Embedding { values, tokens, truncated }).into()
                }
            });
        }
        Ok(outputs)
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

/// A text's tokens as SigLIP was trained on them: none before it, and one at its end even where it was cut.
fn framed(mut encoded: Encoded, settings: &SiglipSettings) -> Encoded {
    if encoded.ids.first() == Some(&settings.bos_id) {
        encoded.ids.remove(0);
    }
    if encoded.ids.last() == Some(&settings.eos_id) {
        encoded.ids.pop();
    }
    let room = settings.tokens - 1;
    encoded.truncated |= encoded.ids.len() > room;
    encoded.ids.truncate(room);
    encoded.ids.push(settings.eos_id);
    encoded
}

/// One vector of length 1 for each row.
fn rows(
    vectors: &ArrayD<f32>,
    count: usize,
    stage: &'static str,
) -> Result<Vec<Vec<f32>>, RunError> {
    let wrong = || RunError::Shape { stage, shape: vectors.shape().to_vec() };
    let rows = vectors.view().into_dimensionality::<Ix2>().map_err(|_| wrong())?;
    if rows.dim().0 != count || rows.dim().1 == 0 {
        return Err(wrong());
    }
    Ok(rows.axis_iter(Axis(0)).map(|row| l2_normalized(row.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_its_own_mark_also_where_it_was_cut() {
        let settings = SiglipSettings { tokens: 4, ..SiglipSettings::default() };
        let ids = |ids: &[i64]| {
            let framed = framed(
                Encoded { ids: ids.to_vec(), truncated: false, own: 0, unknown: 0 },
                &settings,
            );
            (framed.ids, framed.truncated)
        };
        assert_eq!(ids(&[7, 8, 1]), (vec![7, 8, 1], false));
        assert_eq!(ids(&[2, 7, 8]), (vec![7, 8, 1], false));
        assert_eq!(ids(&[7, 8, 9, 10]), (vec![7, 8, 9, 1], true));
        assert_eq!(ids(&[]), (vec![1], false));
    }

    #[test]
    fn a_template_without_a_place_for_the_label_is_refused() {
        let settings = |template: &str| SiglipSettings {
            template: template.to_owned(),
            ..SiglipSettings::default()
        };
        assert!(settings("a picture").check().is_err());
        assert!(settings("{}").check().is_ok());
    }
}
