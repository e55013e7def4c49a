//! `/openapi.json`: made from the table of routes, the types of bodies and answers, and the limits.

use axum::Json;
use axum::extract::State;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::Shared;
use crate::limits::Limits;
use crate::openai::{self, OpenAiError};
use crate::problem::ProblemDocument;
use crate::routes::{Route, routes};

/// `GET /openapi.json`.
pub(crate) async fn serve(State(api): State<Shared>) -> Json<Value> {
    Json(document(&Limits::of(&api.policy)))
}

fn document(limits: &Limits) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(&route, &mut generator);
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gpuctl",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs for GPU boxes that exist only while there is work.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
        // Without keys this machine's programs need none.
        "security": [{ "key": [] }, {}],
        "x-limits": limits,
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let in_path =
        route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } })
    });
    let others = route.takes.iter().map(|(place, name, meaning)| {
        json!({ "in": place, "name": name, "description": meaning, "schema": { "type": "string" } })
    });
    let mut responses = Map::new();
    for (status, meaning) in route.answers {
        let mut answer = json!({ "description": meaning });
        if let Some(schema) = route.answer {
            answer["content"] = json!({ "application/json": { "schema": schema(generator) } });
        }
        responses.insert(status.to_string(), answer);
    }
    let (kind, problem) = match openai::is_theirs(route.path) {
        true => ("application/json", generator.subschema_for::<OpenAiError>()),
        false => ("application/problem+json", generator.subschema_for::<ProblemDocument>()),
    };
    let content = json!({ kind: { "schema": problem } });
    let failure = json!({ "description": "it was not done", "content": content });
    responses.insert("default".to_owned(), failure);
    let mut operation = json!({
        "summary": route.summary,
        "parameters": in_path.chain(others).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(body) = route.body {
        let schema = (body.schema)(generator);
        let mut content = json!({ "application/json": { "schema": schema } });
        if body.is_multipart {
            let file = json!({ "type": "string", "contentMediaType": "application/octet-stream" });
            content["multipart/form-data"] = json!({
                "schema": { "allOf": [schema, { "type": "object", "properties": { "file": file } }] }
            });
        }
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}
