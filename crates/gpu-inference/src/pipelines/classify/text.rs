//! A text's labels by a sequence classifier: DistilBERT, BERT, RoBERTa as Hugging Face exports them.
//!
//! The model's `config.json` says which labels there are, and whether exactly one of them applies or any number.

use std::collections::BTreeMap;

use gpu_tasks::Task;
use ort::value::TensorElementType;
use serde::Deserialize;

use super::{ranking, top};
use crate::input::text::{self, Text};
use crate::input::{Content, FileEnds, Prepared, kind};
use crate::models::{
    DimSpec, FamilySpec, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Settings,
    check_settings,
};
use crate::output::{Classification, Output, TaskResult};
use crate::pipelines::sentence::{run_tokens, token_inputs};
use crate::preparation::{Preparation, Prepare, Stage};
use crate::preprocess::tokens::{self, Encoded, Tokens};
use crate::run::{Cancel, Run, RunError};

/// Sequence classifiers: DistilBERT, BERT, RoBERTa.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "text-classifier",
    task: ModelTask::Job(Task::TextClassify),
    roles: &["classifier", "config", "tokenizer"],
    uses: &[],
    check_settings: check_settings::<TextClassifierSettings>,
    open: Some(|opener| Ok(Box::new(TextClassifierPipeline::open(opener)?))),
};

const STAGE: &str = "text classifier";
/// Most tokens of a call, padding included.
const TOKENS_MAX: usize = 16_384;
/// Most bytes of a text that are turned into tokens: 100 for each token of the longest that a model takes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What a manifest's `[settings]` may change for the family `text-classifier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TextClassifierSettings {
    /// Longest text in tokens; the rest is cut off.
    pub tokens_max: usize,
    /// What padding is filled with: 0 for BERT, 1 for RoBERTa.
    pub pad_id: i64,
}

impl Default for TextClassifierSettings {
    fn default() -> Self {
        Self { tokens_max: 512, pad_id: 0 }
    }
}

impl Settings for TextClassifierSettings {
    fn check(&self) -> Result<(), &'static str> {
        let fits = (3..=8_192).contains(&self.tokens_max) && self.pad_id >= 0;
        if fits { Ok(()) } else { Err("tokens_max is from 3 to 8192, and pad_id a token's number") }
    }
}

/// `config.json`, as far as it says what the outputs mean.
#[derive(Debug, Deserialize)]
struct Config {
    id2label: BTreeMap<String, String>,
    problem_type: Option<String>,
}

pub(crate) struct TextClassifierPipeline {
    classifier: Graph,
    stage: Stage<ClassifierInputs>,
    labels: Vec<String>,
    scale: Scale,
    settings: TextClassifierSettings,
    batch_max: usize,
}

/// How files and texts become tokens.
struct ClassifierInputs {
    tokens: Tokens,
    settings: TextClassifierSettings,
}

/// How the model's numbers become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// Exactly one label applies: softmax.
    One,
    /// Each label applies or not: sigmoid.
    Any,
}

impl TextClassifierPipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<TextClassifierSettings>()?;
        let config: Config = serde_json::from_slice(&opener.bytes("config")?)
            .map_err(|error| opener.interface_mismatch("config", error.to_string()))?;
        let labels =
            labels(&config).map_err(|problem| opener.interface_mismatch("config", problem))?;
        let scale = match config.problem_type.as_deref() {
            Some("multi_label_classification") => Scale::Any,
            _ => Scale::One,
        };
        let outputs = [IoSpec {
            name: IoName::Is("logits"),
            element: TensorElementType::Float32,
            shape: &[DimSpec::Free, DimSpec::Own],
        }];
        let classifier = opener.graph("classifier", &token_inputs(), &outputs)?;
        let tokens = Tokens::open(&opener.bytes("tokenizer")?, settings.tokens_max)
            .map_err(|problem| opener.interface_mismatch("tokenizer", problem))?;
        let batch_max = opener.batch_max();
        let stage = Stage::new(ClassifierInputs { tokens, settings });
        Ok(Self { classifier, stage, labels, scale, settings, batch_max })
    }

    fn classify(&mut self, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, RunError> {
        let padded = tokens::pad(texts, self.settings.pad_id, 0);
        let [logits] = run_tokens(&mut self.classifier, &padded, STAGE, ["logits"])?;
        if logits.shape() != [texts.len(), self.labels.len()] {
            return Err(RunError::Shape { stage: STAGE, shape: logits.shape().to_vec() });
        }
        let row = |row: ndarray::ArrayViewD<'_, f32>| {
            scores(&row.to_owned().into_raw_vec_and_offset().0, self.scale)
        };
        Ok(logits.outer_iter().map(row).collect())
    }
}

impl Prepare for ClassifierInputs {
    type Form = Encoded;

    fn prepare(&self, input: &Prepared) -> Result<Encoded, RunError> {
        match input.content() {
            Content::Bytes(file) => self.encode_file(file),
            Content::Text(text) => self.encode(text),
            _ => Err(RunError::WrongInput { index: 0, wanted: "a text" }),
        }
    }

    fn bytes_max(&self) -> u64 {
        Encoded::bytes_max(self.settings.tokens_max)
    }
}

impl ClassifierInputs {
    fn encode_file(&self, file: &FileEnds) -> Result<Encoded, RunError> {
        let bytes = file.beginning();
        if kind::is_no_text(bytes) {
            return Err(RunError::NotText);
        }
        let found = if file.goes_on() { text::beginning(bytes) } else { text::decode(bytes) };
        let text = Text::from(found.ok_or(RunError::NotText)?);
        let encoded = self.encode(&text)?;
        Ok(Encoded { truncated: encoded.truncated || file.goes_on(), ..encoded })
    }

    /// The tokens of a text, which are few whatever its length: only its beginning is turned into tokens.
    fn encode(&self, text: &str) -> Result<Encoded, RunError> {
        if text.is_empty() {
            return Err(RunError::NoText);
        }
        let beginning = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        let encoded = self.tokens.encode(beginning);
        let encoded = encoded.map_err(|problem| RunError::Unfit { problem })?;
        let truncated = encoded.truncated || beginning.len() < text.len();
        Ok(Encoded { truncated, ..encoded })
    }
}

impl Run for TextClassifierPipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let encoded = self.stage.forms(batch)?;
        let mut outputs: Vec<Option<Output>> = vec![None; batch.len()];
        for group in tokens::groups(&encoded, self.batch_max, TOKENS_MAX) {
            cancel.check()?;
            let texts: Vec<&Encoded> = group.iter().map(|&index| &*encoded[index]).collect();
            for (&index, scores) in group.iter().zip(self.classify(&texts)?) {
                let labels = ranking(&scores, &self.labels, top(batch[index].params()));
                let label = labels[0].name.clone();
                let truncated = encoded[index].truncated;
                let found = Classification { label, media_type: None, labels, truncated };
                let mut output = Output::from(TaskResult::Classification(found));
                encoded[index].remark(&mut output.remarks);
                outputs[index] = Some(output);
            }
        }
        Ok(outputs.into_iter().flatten().collect())
    }

    fn preparation(&self) -> Option<Preparation> {
        Some(self.stage.preparation())
    }
}

/// The labels by number, which the file has as text and in any order.
fn labels(config: &Config) -> Result<Vec<String>, String> {
    let count = config.id2label.len();
    let label = |index: usize| {
        let label = config.id2label.get(&index.to_string());
        label.cloned().ok_or_else(|| format!("id2label: has {count} labels, but none for {index}"))
    };
    if count == 0 {
        return Err("id2label: is empty".to_owned());
    }
    (0..count).map(label).collect()
}

fn scores(logits: &[f32], scale: Scale) -> Vec<f32> {
    match scale {
        Scale::Any => {
            logits.iter().map(|&logit| crate::pipelines::vectors::sigmoid(logit)).collect()
        }
        Scale::One => {
            // Less the largest, so that no power overflows.
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_by_number_and_not_by_letter_and_none_is_missing() {
        let of = |pairs: &[(&str, &str)]| {
            let pair = |(id, label): &(&str, &str)| ((*id).to_owned(), (*label).to_owned());
            Config { id2label: pairs.iter().map(pair).collect(), problem_type: None }
        };
        assert_eq!(labels(&of(&[("1", "B"), ("0", "A")])).unwrap(), ["A", "B"]);
        assert!(labels(&of(&[("0", "A"), ("2", "C")])).unwrap_err().contains("none for 1"));
        assert!(labels(&of(&[])).is_err());
    }

    #[test]
    fn scores_add_up_to_one_or_stand_for_themselves() {
        let one = scores(&[100.0, 102.0, 101.0], Scale::One);
        assert!((one.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((one[1] - 0.665_240_94).abs() < 1e-6, "{one:?}");
        assert_eq!(scores(&[0.0, 200.0], Scale::Any), [0.5, 1.0]);
    }
}
