//! What the API says of itself.

use serde_json::Value;

use crate::place::{POLICY, Place};

#[tokio::test]
async fn the_description_names_every_route_and_limit_and_nothing_that_it_does_not_have() {
    let place = Place::new(POLICY);
    let document = place.get("/openapi.json").await.expect(200).json();
    let paths = document["paths"].as_object().unwrap();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let route = format!("{} {path}", method.to_uppercase());
            assert!(page.contains(&format!("`{route}`")), "README.md does not name {route}");
            assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 5), "{route}");
            let in_path = path.matches('{').count();
            let parameters = operation["parameters"].as_array().unwrap();
            assert_eq!(
                parameters.iter().filter(|one| one["in"] == "path").count(),
                in_path,
                "{route}"
            );
        }
    }
    assert!(paths.len() > 10);
    let error_of = |path: &str| {
        let content = &paths[path].as_object().unwrap().values().next().unwrap()["responses"]["default"]
            ["content"];
        content.as_object().unwrap().keys().next().unwrap().clone()
    };
    assert_eq!(error_of("/v1/audio/speech"), "application/json");
    assert_eq!(error_of("/v1/jobs"), "application/problem+json");
    let limits = document["x-limits"].as_object().unwrap();
    assert!(limits.len() > 10 && limits.keys().all(|name| name.ends_with("_max")), "{limits:?}");
    let mut missing = Vec::new();
    references(&document, &mut |reference| {
        let pointer = reference.strip_prefix('#').unwrap_or_default();
        if document.pointer(pointer).is_none() {
            missing.push(reference.to_owned());
        }
    });
    assert!(missing.is_empty(), "{missing:?}");
}

fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(reference) if name == "$ref" => found(reference),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn tasks_have_the_schemas_of_params_and_outputs() {
    let place = Place::new(POLICY);
    let tasks = place.get("/v1/tasks").await.expect(200).json();
    let tasks = tasks["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), gpu_tasks::Task::ALL.len());
    for task in tasks {
        let named: gpu_tasks::Task = task["task"].as_str().unwrap().parse().unwrap();
        for param in named.params() {
            assert!(task["params"]["properties"][param.name]["description"].is_string(), "{task}");
        }
        assert!(task["output"].is_object(), "{task}");
    }
    let synthesis = tasks.iter().find(|task| task["task"] == "voice.synthesize").unwrap();
    assert_eq!(synthesis["models"][0], "piper");
    assert_eq!(synthesis["params"]["properties"]["speed"]["maximum"], 4.0);
    assert!(synthesis["output"]["properties"]["audio_seconds"].is_object());
}

#[tokio::test]
async fn status_explain_health_and_gpus_are_there_and_what_is_unknown_is_null() {
    let place = Place::new(POLICY);
    let status = place.get("/v1/status").await.expect(200).json();
    assert_eq!(
        (&status["schema"], &status["pools"][0]["pool"]),
        (&"gpuctl.status".into(), &"gpu".into())
    );
    let explain = place.get("/v1/explain/gpu").await.expect(200).json();
    assert_eq!(
        (&explain["schema"], &explain["state"]),
        (&"gpuctl.explain".into(), &"stopped".into())
    );
    let health = place.get("/healthz").await.expect(200).json();
    assert_eq!((&health["status"], &health["last_reconcile_at"]), (&"ok".into(), &Value::Null));
    let gpus = place.get("/api/v1/monitoring/gpu").await.expect(200).json();
    assert_eq!((&gpus["gpus"], &gpus["health"]["healthy"]), (&Value::Array(vec![]), &true.into()));
    let models = place.get("/v1/models").await.expect(200).json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&"list".into(), &"minilm".into()));
}
