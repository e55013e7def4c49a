//! `GET /v1/tasks` and `GET /v1/models`: what jobs can ask for.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use gpu_tasks::{Need, ParamKind, ParamSpec, Task};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::Shared;
use crate::problem::Problem;

/// `GET /v1/tasks`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TasksDocument {
    tasks: Vec<TaskDocument>,
}

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TaskDocument {
    task: &'static str,
    /// The JSON Schema of its params.
    params: Value,
    /// The JSON Schema of a job's `output`.
    output: Value,
    /// The models that do it, by name.
    models: Vec<String>,
}

/// `GET /v1/models`, as OpenAI's clients read it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelsDocument {
    object: &'static str,
    data: Vec<ModelDocument>,
}

/// A model.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelDocument {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// `null` for a model that only boxes have.
    task: Option<&'static str>,
    /// Whether it is installed where the server runs; boxes elsewhere may have others.
    installed: bool,
}

/// `GET /v1/tasks`.
pub(crate) async fn tasks(State(api): State<Shared>) -> Json<TasksDocument> {
    let task = |task: Task| TaskDocument {
        task: task.name(),
        params: params_schema(task),
        output: gpuctl_control::wire::output::schema(task),
        models: api
            .models
            .iter()
            .filter(|(_, known)| known.task == Some(task))
            .map(|(name, _)| name.to_owned())
            .collect(),
    };
    Json(TasksDocument { tasks: Task::ALL.map(task).into() })
}

/// `GET /v1/models`.
pub(crate) async fn models(State(api): State<Shared>) -> Json<ModelsDocument> {
    let data = api.models.iter().map(|(name, known)| model(name, known)).collect();
    Json(ModelsDocument { object: "list", data })
}

/// `GET /v1/models/{name}`.
pub(crate) async fn one_model(
    State(api): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<ModelDocument>, Problem> {
    let found = api.models.iter().find(|(known, _)| *known == name);
    found.map(|(name, known)| Json(model(name, known))).ok_or_else(|| {
        let detail = format!("there is no model `{}`", gpuctl_core::text::excerpt(&name));
        Problem::new(StatusCode::NOT_FOUND, "model.unknown", detail)
            .hint("`GET /v1/models` lists them")
    })
}

fn model(name: &str, known: gpuctl_control::models::KnownModel) -> ModelDocument {
    ModelDocument {
        id: name.to_owned(),
        object: "model",
        created: 0,
        owned_by: "gpuctl",
        task: known.task.map(Task::name),
        installed: known.is_here,
    }
}

/// The JSON Schema of a task's params.
pub(crate) fn params_schema(task: Task) -> Value {
    let property = |spec: &ParamSpec| {
        let mut schema = kind_schema(spec.kind);
        schema.insert("description".to_owned(), describe(spec).into());
        (spec.name.to_owned(), Value::Object(schema))
    };
    let properties: Map<String, Value> = task.params().iter().map(property).collect();
    let required = task.params().iter().filter(|spec| spec.need == Need::Required);
    json!({
        "type": "object",
        "properties": properties,
        "required": required.map(|spec| spec.name).collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn describe(spec: &ParamSpec) -> String {
    match spec.need {
        Need::Optional { default } => format!("{} (default: {default})", spec.meaning),
        Need::Required => spec.meaning.to_owned(),
    }
}

fn kind_schema(kind: ParamKind) -> Map<String, Value> {
    let schema = match kind {
        ParamKind::Number { min, max } => {
            json!({ "type": "number", "minimum": min, "maximum": max })
        }
        ParamKind::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        ParamKind::FlagOrInteger { min, max } => json!({
            "oneOf": [{ "type": "boolean" }, { "type": "integer", "minimum": min, "maximum": max }]
        }),
        ParamKind::Text { chars_max } => {
            json!({ "type": ["string", "number"], "minLength": 1, "maxLength": chars_max })
        }
        ParamKind::Choice(known) => json!({ "type": "string", "enum": known }),
        ParamKind::Texts { count_max, chars_max } => json!({
            "type": ["array", "string"], "minItems": 1, "maxItems": count_max, "minLength": 1, "maxLength": chars_max,
            "items": { "type": ["string", "number"], "minLength": 1, "maxLength": chars_max },
        }),
        ParamKind::Rows { count_max, .. } => {
            json!({ "type": "array", "minItems": 1, "maxItems": count_max })
        }
        ParamKind::File => json!({
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "$comment": "the URI of a file (s3://…), or the part of this name in a multipart body",
        }),
    };
    schema.as_object().cloned().unwrap_or_default()
}
