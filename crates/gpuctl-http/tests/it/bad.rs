//! Everything that can be wrong with a request: the right status, a code, a sentence and a hint, and no job.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::place::{FORM, POLICY, Place, form, json_request, request};

const WAV: &[u8] = b"RIFF\x24\0\0\0WAVE";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

fn post(body: &Value) -> Request<Body> {
    json_request("POST", "/v1/jobs", &[], body)
}

/// The good job, with one field set otherwise.
fn but(field: &str, value: Value) -> Request<Body> {
    let mut job = json!({ "task": "voice.synthesize", "text": "Hello.", "params": { "speed": 1 } });
    job[field] = value;
    post(&job)
}

fn raw(body: &[u8]) -> Request<Body> {
    request("POST", "/v1/jobs", &[("content-type", "application/json")], body.to_vec())
}

fn upload(fields: &[(&str, &str)], files: &[(&str, &str, &[u8])]) -> Request<Body> {
    request("POST", "/v1/jobs", &[FORM], form(fields, files))
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn cases() -> Vec<(Request<Body>, u16, &'static str)> {
    let asr = &[("task", "voice.transcribe")][..];
    let whole = form(asr, &[("file", "a.wav", b"RIFF\x24\0\0\0WAVE")]);
    let cut = whole[..whole.len() - 20].to_vec();
    let empty_part =
        b"--XX\r\nContent-Disposition: form-data; name=\"task\"\r\n\r\n\xff\xfe\r\n--XX--\r\n";
    let long = "x".repeat(250 << 10);
    let texts = ["a", "b", "c", "d", "e"].map(|name| (name, long.as_str()));
    vec![
        (raw(b""), 400, "request.body"),
        (raw(b"{\"task\": "), 400, "request.body"),
        (raw(b"[]"), 400, "request.body"),
        (raw(b"{\"task\": \"\xff\"}"), 400, "request.body"),
        (raw(&[b' '; (1 << 20) + 1]), 413, "request.too_large"),
        (request("POST", "/v1/jobs", &[], "{}"), 415, "request.media_type"),
        (
            request("POST", "/v1/jobs", &[("content-type", "text/plain")], "{}"),
            415,
            "request.media_type",
        ),
        (post(&json!({})), 422, "task.missing"),
        (but("task", json!(5)), 400, "request.body"),
        (but("task", json!("voice.synthesise")), 422, "task.unknown"),
        (but("model", json!("pipper")), 422, "model.unknown"),
        (but("model", json!("minilm")), 422, "model.task"),
        (but("model", json!([])), 400, "request.body"),
        (but("pool", json!("cpu")), 422, "pool.unknown"),
        (but("params", json!({ "sped": 1 })), 422, "input.param_unknown"),
        (but("params", json!({ "speed": 9 })), 422, "input.param"),
        (but("params", json!("speed=1")), 400, "request.body"),
        (but("priority", json!("urgent")), 422, "job.priority"),
        (but("priority", json!(1)), 400, "request.body"),
        (but("max_wait", json!("soon")), 422, "job.max_wait"),
        (but("max_wait", json!("20d")), 422, "job.max_wait"),
        (but("max_wait", json!(30)), 400, "request.body"),
        (but("text", json!(" \n")), 422, "input.no_text"),
        (but("text", json!(null)), 422, "input.missing"),
        (but("input", json!("data:,twice")), 422, "input.several"),
        (but("modle", json!("piper")), 400, "request.unknown_field"),
        (but("webhook", json!("x")), 400, "request.unknown_field"),
        (
            post(&json!({ "task": "text.embed", "input": "file:///etc/passwd" })),
            422,
            "input.outside",
        ),
        (
            post(&json!({ "task": "text.embed", "input": "https://other.invalid/a" })),
            422,
            "input.uri",
        ),
        (
            post(&json!({ "task": "text.embed", "input": "s3://bucket/key" })),
            422,
            "input.elsewhere",
        ),
        (post(&json!({ "task": "voice.convert", "text": "a" })), 422, "input.param_missing"),
        (
            post(
                &json!({ "task": "voice.convert", "text": "a", "params": { "reference": "file:///a" } }),
            ),
            422,
            "input.outside",
        ),
        (upload(asr, &[("file", "a.png", PNG)]), 415, "input.wrong_kind"),
        (upload(asr, &[("file", "a.wav", b"")]), 422, "input.empty"),
        (upload(asr, &[("fiel", "a.wav", b"RIFF\x24\0\0\0WAVE")]), 400, "request.unknown_field"),
        (upload(asr, &[]), 422, "input.missing"),
        (upload(&[("task", "text.embed"), ("params", "{")], &[]), 400, "request.body"),
        (request("POST", "/v1/jobs", &[FORM], cut), 400, "request.body"),
        (request("POST", "/v1/jobs", &[FORM], ""), 400, "request.body"),
        (request("POST", "/v1/jobs", &[FORM], empty_part.to_vec()), 400, "request.body"),
        (
            request("POST", "/v1/jobs", &[("content-type", "multipart/form-data")], "x"),
            400,
            "request.body",
        ),
        (upload(asr, &[("file", "a.wav", &[b'R'; 2 << 20])]), 413, "request.too_large"),
        (
            json_request("POST", "/v1/jobs", &[("prefer", "wait=soon")], &json!({})),
            400,
            "request.prefer",
        ),
        (
            json_request("POST", "/v1/jobs", &[("idempotency-key", "")], &json!({})),
            400,
            "request.idempotency_key",
        ),
        (request("GET", "/v1/jobs/nothing", &[], ""), 404, "job.unknown"),
        (request("GET", "/v1/jobs/%ff", &[], ""), 400, "request.path"),
        (upload(asr, &[("file", "a.wav", WAV), ("file", "b.wav", WAV)]), 422, "input.several"),
        (upload(&texts, &[]), 413, "request.too_large"),
        (
            request("GET", "/v1/jobs/0192a1b2-0000-7000-8000-000000000001", &[], ""),
            404,
            "job.unknown",
        ),
        (
            request("GET", "/v1/jobs/0192a1b2-0000-7000-8000-000000000001?wait=x", &[], ""),
            400,
            "request.query",
        ),
        (request("GET", "/v1/jobs?state=quued", &[], ""), 400, "request.query"),
        (request("GET", "/v1/jobs?task=text.embedd", &[], ""), 422, "task.unknown"),
        (request("GET", "/v1/jobs?limit=0", &[], ""), 400, "request.query"),
        (request("GET", "/v1/jobs?limit=5000", &[], ""), 400, "request.query"),
        (request("GET", "/v1/jobs?after=eA", &[], ""), 400, "request.query"),
        (request("GET", "/v1/jobs?since=yesterday", &[], ""), 400, "request.query"),
        (request("GET", "/v1/jobs?stat=queued", &[], ""), 400, "request.query"),
        (request("GET", "/v1/job", &[], ""), 404, "request.path"),
        (request("DELETE", "/v1/tasks", &[], ""), 405, "request.method"),
        (request("GET", "/v1/explain/gpo", &[], ""), 404, "pool.unknown"),
        (request("GET", "/v1/jobs", &[("host", "other.invalid")], ""), 403, "request.host"),
        (
            request("GET", "/v1/jobs", &[("origin", "http://other.invalid")], ""),
            403,
            "request.origin",
        ),
    ]
}

#[tokio::test]
async fn each_mistake_has_its_status_a_sentence_and_a_hint_and_makes_no_job() {
    let place = Place::new(&format!("{POLICY}[http]\nupload_mib_max = 1\n"));
    for (request, status, code) in cases() {
        let what = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        let answer = place.send(request).await;
        let text = answer.text();
        assert_eq!(answer.status.as_u16(), status, "{code}: {what}: {text}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{what}: {text}");
        assert_eq!(problem["status"], status, "{what}");
        for part in ["detail", "hint", "title"] {
            assert!(
                problem[part].as_str().is_some_and(|text| text.len() > 2),
                "{part} of {what}: {text}"
            );
        }
    }
    assert_eq!(place.queued().await, 0);
    let near = place.send(but("modle", json!("piper"))).await.json();
    assert_eq!(
        (&near["hint"], &near["pointer"]),
        (&json!("did you mean `model`?"), &json!("/modle"))
    );
    let path = place.get("/v1/job").await.json();
    assert_eq!(path["hint"], "did you mean `/v1/jobs`?");
    // What was begun to be written is gone.
    let left = std::fs::read_dir(place.folder.path().join("state/results")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_part_whose_head_does_not_end_is_cut_off() {
    let place = Place::new(POLICY);
    let begin = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"".to_owned();
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&taken);
    let endless = std::iter::once(begin).chain(std::iter::repeat_with(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        "x".repeat(1 << 10)
    }));
    let body = Body::from_stream(futures_util::stream::iter(endless.map(Ok::<_, std::io::Error>)));
    let answer = place.send(request("POST", "/v1/jobs", &[FORM], body)).await.expect(413).json();
    assert_eq!(answer["code"], "request.too_large");
    let kib = taken.load(std::sync::atomic::Ordering::Relaxed);
    assert!(kib < 200, "{kib} KiB were taken");
}
