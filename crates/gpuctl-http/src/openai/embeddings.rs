//! `POST /v1/embeddings`: one job for each text, all at once.

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gpu_tasks::Task;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ignored, unsupported, usage, wanted};
use crate::Shared;
use crate::access::Caller;
use crate::body;
use crate::limits::EMBEDDED_TEXTS_MAX;
use crate::problem::Problem;

/// Texts to be embedded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    /// `text-embedding-3-small` and the like stand for the default model; else one of `GET /v1/models`.
    model: String,
    /// One text, or several.
    input: Texts,
    /// `float` (without it, too) or `base64`: 32-bit floats, the low byte first.
    encoding_format: Option<String>,
    /// Only the number that the model gives.
    dimensions: Option<usize>,
    /// Ignored.
    user: Option<String>,
}

/// One text or several. Tokens are not taken: they would be those of another model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
}

/// `POST /v1/embeddings`.
pub(crate) async fn embeddings(
    State(api): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let asked: EmbeddingsRequest = body::json(request).await?;
    let is_base64 = match asked.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let shown = gpuctl_core::text::excerpt(other);
            let detail = format!("vectors are not written as `{shown}`");
            return Err(unsupported("unsupported_format", "encoding_format", detail)
                .hint("ask for float or base64"));
        }
    };
    let texts = match asked.input {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    };
    if texts.is_empty() || texts.len() > EMBEDDED_TEXTS_MAX {
        let detail = format!("there are {} texts", texts.len());
        return Err(unsupported("input.count", "input", detail)
            .hint(format!("send 1 to {EMBEDDED_TEXTS_MAX} a call")));
    }
    let job = |text| {
        let mut job = wanted(Task::TextEmbed, &asked.model);
        job.job.text = Some(text);
        job
    };
    let joined = api.join(&caller, texts.into_iter().map(job).collect()).await?;
    let (mut data, mut tokens) = (Vec::new(), 0);
    for (index, (_, output)) in api.outputs(joined).await?.into_iter().enumerate() {
        let vector = output["vector"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(wanted) = asked.dimensions.filter(|wanted| *wanted != vector.len()) {
            let detail = format!("the model gives {} numbers, not {wanted}", vector.len());
            return Err(unsupported("unsupported_dimensions", "dimensions", detail)
                .hint("leave `dimensions` out"));
        }
        tokens += output["tokens"].as_u64().unwrap_or_default();
        let embedding = if is_base64 { in_base64(vector) } else { output["vector"].clone() };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    let list =
        json!({ "object": "list", "model": asked.model, "data": data, "usage": usage(tokens) });
    let unused = asked.user.map(|_| "user");
    Ok(ignored(Json(list).into_response(), unused.as_slice()))
}

fn in_base64(vector: &[Value]) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "the model's numbers have 32 bits")]
    let bytes = |number: &Value| (number.as_f64().unwrap_or_default() as f32).to_le_bytes();
    let bytes: Vec<u8> = vector.iter().flat_map(bytes).collect();
    Value::from(BASE64_STANDARD.encode(bytes))
}
