//! `text.embed`: a text as a vector, by a sentence encoder (MiniLM, multilingual E5).
//!
//! The encoder returns one vector per token; their mean over the real tokens, scaled to length 1, is the text's. Texts of
//! like length share a call. Comparing vectors is the caller's business: the dot product of two is their cosine.

use gpu_tasks::{AS_PASSAGE, Task};
use ndarray::{ArrayD, Axis, Ix3};
use ort::value::TensorElementType;
use serde::Deserialize;

use crate::input::{Content, Prepared};
use crate::models::{
    DimSpec, FamilySpec, Feed, Graph, IoName, IoSpec, ModelError, ModelTask, Opener, Settings,
    check_settings,
};
use crate::output::{Embedding, Output, TaskResult};
use crate::pipelines::vectors::l2_normalized;
use crate::preparation::{Preparation, Prepare, Stage};
use crate::preprocess::tokens::{self, Encoded, Tokens};
use crate::run::{Cancel, Run, RunError};

/// Sentence encoders: MiniLM, multilingual E5.
pub(crate) static FAMILY: FamilySpec = FamilySpec {
    name: "sentence-encoder",
    task: ModelTask::Job(Task::TextEmbed),
    roles: &["encoder", "tokenizer"],
    uses: &[],
    check_settings: check_settings::<SentenceSettings>,
    open: Some(|opener| Ok(Box::new(SentencePipeline::open(opener)?))),
};

const STAGE: &str = "sentence encoder";
/// Most tokens of a call, padding included: the budget of text-embeddings-inference.
const TOKENS_MAX: usize = 16_384;
/// Longest text of any such encoder, in tokens.
const LENGTH_MAX: usize = 8_192;

/// What a manifest's `[settings]` may change for the family `sentence-encoder`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SentenceSettings {
    /// Longest text in tokens; the rest is cut off.
    pub tokens_max: usize,
    /// What padding is filled with: 0 for BERT, 1 for XLM-R.
    pub pad_id: i64,
    /// Put before a question (E5: `query: `).
    pub query_prefix: String,
    /// Put before a text to be found (E5: `passage: `).
    pub passage_prefix: String,
}

impl Default for SentenceSettings {
    fn default() -> Self {
        let (query_prefix, passage_prefix) = (String::new(), String::new());
        Self { tokens_max: 512, pad_id: 0, query_prefix, passage_prefix }
    }
}

impl Settings for SentenceSettings {
    fn check(&self) -> Result<(), &'static str> {
        if !(3..=LENGTH_MAX).contains(&self.tokens_max) {
            Err("tokens_max is from 3 to 8192")
        } else if self.pad_id < 0 {
            Err("pad_id is a token's number")
        } else {
            Ok(())
        }
    }
}

pub(crate) struct SentencePipeline {
    encoder: Graph,
    stage: Stage<SentenceInputs>,
    pad_id: i64,
    batch_max: usize,
}

/// How texts become tokens.
struct SentenceInputs {
    tokens: Tokens,
    settings: SentenceSettings,
}

impl Prepare for SentenceInputs {
    type Form = Encoded;

    fn prepare(&self, input: &Prepared) -> Result<Encoded, RunError> {
        let Content::Text(text) = input.content() else {
            return Err(RunError::WrongInput { index: 0, wanted: "a text" });
        };
        let text: &str = text;
        let prefix = match input.params().text("as") {
            Some(AS_PASSAGE) => &self.settings.passage_prefix,
            _ => &self.settings.query_prefix,
        };
        let tokens = self.tokens.encode(&format!("{prefix}{text}"));
        tokens.map_err(|problem| RunError::Unfit { problem })
    }

    fn bytes_max(&self) -> u64 {
        Encoded::bytes_max(self.settings.tokens_max)
    }
}

impl SentencePipeline {
    pub(crate) fn open(opener: &mut Opener<'_>) -> Result<Self, ModelError> {
        let settings = opener.settings::<SentenceSettings>()?;
        let outputs = [IoSpec {
            name: IoName::Is("last_hidden_state"),
            element: TensorElementType::Float32,
            shape: &[DimSpec::Free, DimSpec::Free, DimSpec::Own],
        }];
        let encoder = opener.graph("encoder", &token_inputs(), &outputs)?;
        let tokens = Tokens::open(&opener.bytes("tokenizer")?, settings.tokens_max)
            .map_err(|problem| opener.interface_mismatch("tokenizer", problem))?;
        let batch_max = opener.batch_max();
        let pad_id = settings.pad_id;
        let stage = Stage::new(SentenceInputs { tokens, settings });
        Ok(Self { encoder, stage, pad_id, batch_max })
    }

    fn encode(&mut self, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, RunError> {
        let padded = tokens::pad(texts, self.pad_id, 0);
        let [states] = run_tokens(&mut self.encoder, &padded, STAGE, ["last_hidden_state"])?;
        mean(&states, texts)
    }
}

impl Run for SentencePipeline {
    fn run(&mut self, batch: &[Prepared], cancel: &Cancel) -> Result<Vec<Output>, RunError> {
        let encoded = self.stage.forms(batch)?;
        let mut outputs: Vec<Option<Output>> = vec![None; batch.len()];
        for group in tokens::groups(&encoded, self.batch_max, TOKENS_MAX) {
            cancel.check()?;
            let texts: Vec<&Encoded> = group.iter().map(|&index| &*encoded[index]).collect();
            for (&index, values) in group.iter().zip(self.encode(&texts)?) {
                let Encoded { ids, truncated, .. } = &*encoded[index];
                let (tokens, truncated) = (Some(ids.len()), *truncated);
                let embedding = Embedding { values, tokens, truncated };
                let mut output = Output::from(TaskResult::Embedding(embedding));
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

/// The inputs of BERT and its kin; token types and positions only where the exporter kept them.
pub(crate) fn token_inputs() -> [IoSpec; 3] {
    let spec = |name| IoSpec {
        name,
        element: TensorElementType::Int64,
        shape: &[DimSpec::Free, DimSpec::Free],
    };
    [
        spec(IoName::Is("input_ids")),
        spec(IoName::Is("attention_mask")),
        spec(IoName::Maybe("token_type_ids")),
    ]
}

/// Runs a graph of [`token_inputs`].
pub(crate) fn run_tokens<const N: usize>(
    graph: &mut Graph,
    padded: &tokens::Padded,
    stage: &'static str,
    wanted: [&str; N],
) -> Result<[ArrayD<f32>; N], RunError> {
    let types = ndarray::Array2::zeros(padded.ids.dim());
    let mut feeds = vec![
        ("input_ids", Feed::Whole(padded.ids.view().into_dyn())),
        ("attention_mask", Feed::Whole(padded.mask.view().into_dyn())),
    ];
    if graph.takes("token_type_ids") {
        feeds.push(("token_type_ids", Feed::Whole(types.view().into_dyn())));
    }
    graph.run(stage, feeds, wanted)
}

/// The mean over each text's own tokens, of length 1.
fn mean(states: &ArrayD<f32>, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, RunError> {
    let wrong = || RunError::Shape { stage: STAGE, shape: states.shape().to_vec() };
    let states = states.view().into_dimensionality::<Ix3>().map_err(|_| wrong())?;
    let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
    if states.dim().0 != texts.len() || states.dim().1 != longest {
        return Err(wrong());
    }
    let vector = |(row, text): (usize, &&Encoded)| {
        let own = states.index_axis(Axis(0), row);
        let own = own.slice(ndarray::s![..text.ids.len(), ..]);
        l2_normalized(own.mean_axis(Axis(0)).map(|mean| mean.to_vec()).unwrap_or_default())
    };
    Ok(texts.iter().enumerate().map(vector).collect())
}
