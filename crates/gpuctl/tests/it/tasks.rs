//! The vision and text tasks and `onnx.run` as jobs: answers in the result, files beside it.

use std::fs;

use serde_json::Value;

use crate::support::{Sandbox, sample};

const ONE_POOL: &str = "[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"2s\"\n";

/// The output of one job.
fn output(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let mut all = vec!["submit"];
    all.extend(arguments);
    all.extend(["--wait", "--timeout", "110s", "--json"]);
    let job = sandbox.run(&all).json()["jobs"][0].clone();
    assert_eq!(job["state"], "succeeded", "{job}");
    job["output"].clone()
}

#[test]
fn faces_masks_vectors_and_types_come_back_as_results_and_files() {
    let sandbox = Sandbox::new(ONE_POOL);
    let photograph = sample("astronaut.png").display().to_string();
    let found = output(&sandbox, &["vision.detect", &photograph, "--param", "score_min=0.9"]);
    let face = &found["objects"][0];
    assert_eq!(
        (&face["label"], face["points_pixels"].as_array().unwrap().len()),
        (&"face".into(), 5)
    );
    let left = face["edges_pixels"][0].as_f64().unwrap();
    assert!((180.0..184.0).contains(&left), "{face}");

    let found = output(&sandbox, &["vision.segment", &photograph]);
    let file = &found["files"][0];
    assert_eq!((&file["name"], &file["media_type"]), (&"mask.png".into(), &"image/png".into()));
    let mask = file["uri"].as_str().unwrap().strip_prefix("file://").unwrap();
    assert!(fs::read(mask).unwrap().starts_with(b"\x89PNG"));

    let found = output(&sandbox, &["text.embed", "--text", "Hello, world."]);
    assert_eq!(found["vector"].as_array().unwrap().len(), 384);

    let found = output(&sandbox, &["text.classify", &photograph, "--param", "top=1"]);
    assert_eq!((&found["label"], &found["media_type"]), (&"png".into(), &"image/png".into()));
}

#[test]
fn tensors_go_through_any_graph_and_what_does_not_fit_fails_with_its_reason() {
    let sandbox = Sandbox::new(ONE_POOL);
    let given = sandbox.path("ids.json");
    let row = r#"{"dtype": "int64", "shape": [1, 3], "data": [101, 7592, 102]}"#;
    let ones = row.replace("[101, 7592, 102]", "[1, 1, 1]");
    let write = |named: &[(&str, &str)]| {
        let parts: Vec<String> =
            named.iter().map(|(name, row)| format!("\"{name}\": {row}")).collect();
        fs::write(&given, format!("{{{}}}", parts.join(", "))).unwrap();
    };
    write(&[("input_ids", row), ("attention_mask", &ones), ("token_type_ids", &ones)]);
    let graph = ["onnx.run", given.to_str().unwrap(), "--model", "minilm-l6-v2-int8"];
    let found = output(&sandbox, &graph);
    let states = &found["tensors"][0];
    assert_eq!(states["shape"], serde_json::json!([1, 3, 384]));
    assert_eq!(found["files"][0]["name"], "last_hidden_state.npy");
    write(&[("input_ids", row)]);
    let arguments = [&["submit"], &graph[..], &["--wait", "--timeout", "60s", "--json"]].concat();
    let job = &sandbox.run(&arguments).json()["jobs"][0];
    assert_eq!(job["error"]["code"], "input.unfit", "{job}");
    assert!(job["error"]["message"].as_str().unwrap().contains("attention_mask"), "{job}");
}
