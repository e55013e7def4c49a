//! What OpenAI's clients send, byte by byte as they were recorded, and what they get.

use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::ports::ReceiveRequest;
use serde_json::{Value, json};

use crate::place::{Answer, FORM, POLICY, Place, form, json_request, queue, request};

const WAV: &[u8] = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0";
/// As their clients send it.
const KEY: (&str, &str) = ("authorization", "Bearer sk-anything");

fn transcription(more: &[(&str, &str)]) -> axum::http::Request<axum::body::Body> {
    let fields = [&[("model", "whisper-1")], more].concat();
    let body = form(&fields, &[("file", "a.wav", WAV)]);
    request("POST", "/v1/audio/transcriptions", &[FORM, KEY], body)
}

fn transcript() -> Value {
    let segment = json!({ "start_seconds": 0.0, "end_seconds": 1.25, "text": "Ever tried." });
    json!({ "text": "Ever tried.", "audio_seconds": 1.25, "segments": [segment] })
}

async fn call(
    place: &Place,
    request: axum::http::Request<axum::body::Body>,
    output: Value,
) -> Answer {
    let files: [(&str, &[u8]); 1] = [("speech.wav", WAV)];
    let files = if output["sample_rate_hz"].is_null() { &[][..] } else { &files[..] };
    tokio::join!(place.send(request), place.work(output, files)).0
}

#[tokio::test]
async fn a_recording_is_written_down_in_each_format_and_only_once() {
    let place = Place::new(POLICY);
    let first = call(&place, transcription(&[]), transcript()).await.expect(200);
    assert_eq!(first.json(), json!({ "text": "Ever tried." }));
    // The same recording again is the same job, whatever the format.
    let text = place.send(transcription(&[("response_format", "text")])).await.expect(200);
    assert_eq!(text.text(), "Ever tried.\n");
    let verbose = transcription(&[
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "segment"),
    ]);
    let verbose = place.send(verbose).await.expect(200).json();
    assert_eq!(
        (&verbose["duration"], &verbose["segments"][0]["end"]),
        (&json!(1.25), &json!(1.25))
    );
    let srt = place.send(transcription(&[("response_format", "srt")])).await.expect(200).text();
    assert_eq!(srt, "1\n00:00:00,000 --> 00:00:01,250\nEver tried.\n\n");
    let vtt = place.send(transcription(&[("response_format", "vtt")])).await.expect(200).text();
    assert!(vtt.starts_with("WEBVTT\n\n1\n00:00:00.000 --> "), "{vtt}");
    let stream = place.send(transcription(&[("stream", "true")])).await.expect(200).text();
    assert!(stream.contains("\"type\":\"transcript.text.done\""), "{stream}");
    assert_eq!(place.queued().await, 0);
}

#[tokio::test]
async fn texts_are_embedded_as_floats_and_in_base64() {
    let place = Place::new(POLICY);
    let ask = |more: Value| {
        let mut body = json!({ "model": "text-embedding-3-small", "input": ["a", "b", "a"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json_request("POST", "/v1/embeddings", &[KEY], &body)
    };
    let vector = |n: f64| json!({ "vector": [n, 0.5], "tokens": 3 });
    let both = async {
        place.work(vector(1.0), &[]).await;
        place.work(vector(1.0), &[]).await;
    };
    let answer = tokio::join!(place.send(ask(json!({}))), both).0.expect(200).json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 3);
    assert_eq!(
        answer["data"][2],
        json!({ "object": "embedding", "index": 2, "embedding": [1.0, 0.5] })
    );
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 9, "total_tokens": 9 }));
    let coded = place.send(ask(json!({ "encoding_format": "base64" }))).await.expect(200).json();
    assert_eq!(coded["data"][0]["embedding"], "AACAPwAAAD8=");
    let bad = place.send(ask(json!({ "dimensions": 3 }))).await.expect(400).json();
    assert_eq!(bad["error"]["code"], "unsupported_dimensions");
    let none = place.send(ask(json!({ "input": [] }))).await.expect(400).json();
    assert_eq!(none["error"]["code"], "input.count");
}

/// A tenth of a second of silence.
fn silence() -> Vec<u8> {
    let mut wav = b"RIFF\xa4\x0c\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\x80\x0c\0\0".to_vec();
    wav.resize(wav.len() + 3_200, 0);
    wav
}

#[tokio::test]
async fn a_text_is_spoken_once_in_every_format_of_which_mp3_is_the_usual_one() {
    let place = Place::new(POLICY);
    let ask = |format: Option<&str>| {
        let mut body = json!({ "model": "tts-1", "voice": "alloy", "input": "Hello." });
        if let Some(format) = format {
            body["response_format"] = json!(format);
        }
        json_request("POST", "/v1/audio/speech", &[KEY], &body)
    };
    // Refused before there is a job.
    for format in ["aac", "ogg", ""] {
        let error = place.send(ask(Some(format))).await.expect(400).json();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["param"]),
            (&json!("unsupported_format"), &json!("response_format"))
        );
        assert!(error["error"]["message"].as_str().unwrap().contains(format), "{error}");
    }
    assert_eq!(place.queued().await, 0);
    let wav = silence();
    let sound = json!({ "audio_seconds": 0.1, "sample_rate_hz": 16_000 });
    let files: [(&str, &[u8]); 1] = [("speech.wav", &wav)];
    let plain = tokio::join!(place.send(ask(None)), place.work(sound, &files)).0.expect(200);
    assert_eq!((&plain.body[..1], plain.header("content-type")), (&b"\xff"[..], "audio/mpeg"));
    for (format, begin, media_type) in [
        ("mp3", &b"\xff"[..], "audio/mpeg"),
        ("opus", b"OggS", "audio/ogg; codecs=opus"),
        ("flac", b"fLaC", "audio/flac"),
        ("wav", &wav, "audio/wav"),
        ("pcm", &[0; 4_800], "audio/pcm"),
    ] {
        let spoken = place.send(ask(Some(format))).await.expect(200);
        assert_eq!(spoken.header("content-type"), media_type);
        assert!(spoken.body.starts_with(begin), "{format}: {:?}", &spoken.body[..4]);
    }
    assert_eq!(place.queued().await, 0);
}

#[tokio::test]
async fn a_box_that_is_off_is_said_to_start_and_a_blind_retry_joins_the_job() {
    let place = Place::new(&format!("{POLICY}[http]\nwait_max = \"1s\"\n"));
    for _ in 0..3 {
        let answer = place.send(transcription(&[])).await.expect(503);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() <= 90);
        let error = answer.json()["error"].clone();
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("box_starting"), &json!("server_error"))
        );
        assert!(error["message"].as_str().unwrap().contains("/v1/jobs/"), "{error}");
    }
    assert_eq!(place.queued().await, 1);
    place.work(transcript(), &[]).await;
    assert_eq!(place.send(transcription(&[])).await.expect(200).json()["text"], "Ever tried.");
}

/// Waits until as many jobs are in the queue.
async fn until_queued(place: &Place, count: u64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while place.queued().await != count {
        assert!(std::time::Instant::now() < deadline, "{} jobs", place.queued().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn newest(place: &Place) -> Value {
    place.get("/v1/jobs?limit=1").await.expect(200).json()["jobs"][0].clone()
}

#[tokio::test]
async fn the_job_of_clients_that_hung_up_is_cancelled_and_sent_again_for_who_comes_later() {
    let place = Place::with(POLICY, Duration::from_millis(20));
    for generation in 0..2 {
        let two =
            async { tokio::join!(place.send(transcription(&[])), place.send(transcription(&[]))) };
        tokio::select! {
            _ = two => panic!("nobody did the job"),
            () = until_queued(&place, 1) => {}
        }
        until_queued(&place, 0).await;
        let job = newest(&place).await;
        assert_eq!((&job["state"], &job["generation"]), (&json!("cancelled"), &json!(generation)));
    }
    let done = call(&place, transcription(&[]), transcript()).await.expect(200);
    assert_eq!(done.json()["text"], "Ever tried.");
}

#[tokio::test]
async fn a_job_goes_on_while_one_client_waits_or_was_told_so_or_wants_no_answer() {
    let waits = "[http]\nwait_max = \"1s\"\n";
    let place = Place::with(&format!("{POLICY}{waits}"), Duration::ZERO);
    place.send(transcription(&[])).await.expect(503);
    // Of two that wait one hangs up; the other is told that the job goes on.
    let hung_up = async {
        tokio::select! {
            _ = place.send(transcription(&[])) => panic!("it waits as long as the other"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    };
    let (_, answer) = tokio::join!(hung_up, place.send(transcription(&[])));
    answer.expect(503);
    assert_eq!((newest(&place).await["state"].as_str(), place.queued().await), (Some("queued"), 1));
    let place = Place::with(POLICY, Duration::ZERO);
    let mut request = transcription(&[]);
    request.headers_mut().insert("prefer", "respond-async".parse().unwrap());
    tokio::select! {
        _ = place.send(request) => panic!("nobody did the job"),
        () = until_queued(&place, 1) => {}
    }
    // What would cancel it has run before a client that comes later hangs up.
    let other =
        json_request("POST", "/v1/embeddings", &[KEY], &json!({ "model": "minilm", "input": "a" }));
    tokio::select! {
        _ = place.send(other) => panic!("nobody did the job"),
        () = until_queued(&place, 2) => {}
    }
    until_queued(&place, 1).await;
    let states = place.get("/v1/jobs").await.expect(200).json();
    let states: Vec<&Value> =
        states["jobs"].as_array().unwrap().iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["cancelled", "queued"]);
}

/// Cancels the newest job once it is in the queue.
async fn cancelled(place: &Place) -> Answer {
    until_queued(place, 1).await;
    let own = newest(place).await["urls"]["cancel"].as_str().unwrap().to_owned();
    place.post(&own, &json!({})).await
}

#[tokio::test]
async fn a_client_cancels_its_own_job_and_not_one_for_which_others_wait() {
    let place = Place::new(POLICY);
    let (call, answer) = tokio::join!(place.send(transcription(&[])), cancelled(&place));
    answer.expect(200);
    assert_eq!(call.expect(400).json()["error"]["code"], "job.cancelled");
    // In most rounds both wait when the job is cancelled.
    for _ in 0..100 {
        let place = Place::new(POLICY);
        let two =
            async { tokio::join!(place.send(transcription(&[])), place.send(transcription(&[]))) };
        tokio::select! {
            _ = two => {}
            answer = cancelled(&place) => {
                if answer.status.as_u16() == 409 {
                    assert_eq!(answer.json()["code"], "job.shared");
                    return;
                }
            }
        }
    }
    panic!("it was always cancelled");
}

#[tokio::test]
async fn of_a_call_that_is_many_jobs_none_is_sent_before_all_may_be() {
    let place = Place::new(&format!("{POLICY}[http]\nqueued_max = 2\n"));
    let ask = |texts: Value| {
        json_request(
            "POST",
            "/v1/embeddings",
            &[KEY],
            &json!({ "model": "minilm", "input": texts }),
        )
    };
    let full = place.send(ask(json!(["a", "b", "c"]))).await.expect(429).json();
    assert_eq!(full["error"]["code"], "queue.full");
    let empty = place.send(ask(json!(["a", " "]))).await.expect(400).json();
    assert_eq!((&empty["error"]["code"], place.queued().await), (&json!("input.no_text"), 0));
    // Equal texts are one job: of these there is room for both.
    let both = async {
        place.work(json!({ "vector": [1.0] }), &[]).await;
        place.work(json!({ "vector": [1.0] }), &[]).await;
    };
    let answer = tokio::join!(place.send(ask(json!(["a", "b", "a", "b"]))), both).0;
    assert_eq!(answer.expect(200).json()["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_changes_nothing_is_named_and_what_newer_clients_send_is_understood() {
    let place = Place::new(POLICY);
    let more = [
        ("prompt", "a play"),
        ("known_speaker_names[]", "a"),
        ("known_speaker_names[]", "b"),
        ("languages[]", "en"),
    ];
    let answer = call(&place, transcription(&more), transcript()).await.expect(200);
    assert_eq!(answer.header("gpuctl-ignored"), "prompt, known_speaker_names");
    let verbose = [("response_format", "verbose_json"), ("languages[]", "en")];
    let verbose = place.send(transcription(&verbose)).await.expect(200);
    assert_eq!((&verbose.json()["language"], verbose.header("gpuctl-ignored")), (&json!("en"), ""));
    let body = json!({ "model": "tts-1", "voice": { "id": "alloy" }, "input": "Hello.", "instructions": "whisper", "response_format": "wav" });
    let sound = json!({ "audio_seconds": 1.0, "sample_rate_hz": 16_000 });
    let spoken = call(&place, json_request("POST", "/v1/audio/speech", &[KEY], &body), sound)
        .await
        .expect(200);
    assert_eq!(spoken.header("gpuctl-ignored"), "instructions");
    let body = json!({ "model": "minilm", "input": "a", "user": "ada" });
    let text = json_request("POST", "/v1/embeddings", &[KEY], &body);
    let embedded = call(&place, text, json!({ "vector": [1.0] })).await.expect(200);
    assert_eq!(embedded.header("gpuctl-ignored"), "user");
}

#[tokio::test]
async fn clients_that_try_again_by_themselves_do_not_send_a_dead_job_again() {
    let place = Place::new(&format!("{POLICY}[http]\nwait_max = \"1s\"\n"));
    place.send(transcription(&[])).await.expect(503);
    let request =
        ReceiveRequest { max: 1, visibility: TimeDelta::minutes(1), wait: TimeDelta::zero() };
    let received = place.ports.queue.receive(&queue(), request).await.unwrap();
    place.ports.queue.bury(&queue(), &received[0], "it crashed its worker").await.unwrap();
    for _ in 0..2 {
        let answer = place.send(transcription(&[])).await.expect(400).json();
        assert_eq!(answer["error"]["code"], "job.dead", "{answer}");
    }
    assert_eq!(place.queued().await, 0);
}

#[tokio::test]
async fn a_thousand_equal_calls_are_one_job() {
    let place = std::sync::Arc::new(Place::new(POLICY));
    let calls: Vec<_> = (0..1_000)
        .map(|_| {
            let place = std::sync::Arc::clone(&place);
            tokio::spawn(async move { place.send(transcription(&[])).await })
        })
        .collect();
    let job = place.work(transcript(), &[]).await;
    // Those beyond `waiting_max` are told to come again.
    for call in calls {
        let answer = call.await.unwrap();
        assert!([200, 503].contains(&answer.status.as_u16()), "{}", answer.text());
    }
    assert_eq!(place.queued().await, 0);
    let own = place.get(&format!("/v1/jobs/{}", job.id)).await.expect(200).json();
    assert_eq!(own["state"], "succeeded");
    let listed = place.get("/v1/jobs").await.expect(200).json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn mistakes_have_the_shape_that_their_clients_read() {
    let place = Place::new(POLICY);
    let speech = |body: Value| json_request("POST", "/v1/audio/speech", &[KEY], &body);
    let cases = [
        (transcription(&[("response_format", "yaml")]), 400, "unsupported_format"),
        (transcription(&[("timestamp_granularities[]", "word")]), 400, "unsupported_granularity"),
        (transcription(&[("modle", "x")]), 400, "request.unknown_field"),
        (
            request("POST", "/v1/audio/transcriptions", &[FORM], form(&[], &[("file", "a", WAV)])),
            400,
            "model_missing",
        ),
        (
            request(
                "POST",
                "/v1/audio/transcriptions",
                &[FORM],
                form(&[("model", "whisper-1")], &[]),
            ),
            400,
            "input.missing",
        ),
        (
            request(
                "POST",
                "/v1/audio/transcriptions",
                &[FORM],
                form(&[("model", "whisper-9")], &[("file", "a", WAV)]),
            ),
            404,
            "model_not_found",
        ),
        (
            request(
                "POST",
                "/v1/audio/transcriptions",
                &[FORM],
                form(&[("model", "whisper-1")], &[("file", "a", b"plain words")]),
            ),
            415,
            "input.wrong_kind",
        ),
        (speech(json!({ "model": "tts-1", "input": " " })), 400, "input.no_text"),
        (speech(json!({ "model": "tts-1" })), 400, "request.body"),
        (speech(json!({ "model": "tts-1", "input": "a", "speed": 9 })), 400, "input.param"),
        (
            speech(json!({ "model": "tts-1", "input": "a", "stream_format": "sse" })),
            400,
            "unsupported_format",
        ),
        (
            json_request("POST", "/v1/embeddings", &[], &json!({ "model": "m", "input": [1, 2] })),
            400,
            "request.body",
        ),
        (request("GET", "/v1/models/nothing", &[], ""), 404, "model_not_found"),
        (request("GET", "/v1/models", &[("host", "other.invalid")], ""), 403, "request.host"),
    ];
    for (request, status, code) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = place.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {code}: {}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(error["code"], code, "{what}: {error}");
        for part in ["message", "type"] {
            assert!(
                error[part].as_str().is_some_and(|text| text.len() > 5),
                "{part} of {what}: {error}"
            );
        }
    }
    assert_eq!(place.queued().await, 0);
}
