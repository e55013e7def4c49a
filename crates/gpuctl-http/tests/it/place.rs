//! A router on a queue and ledger in a file, with a worker that is played by the test.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobResult};
use gpuctl_control::models::KnownModels;
use gpuctl_control::ports::{AttemptName, Ports, ReceiveRequest, ResultFile};
use gpuctl_control::wire::job::job_from_json;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::QueueName;
use gpuctl_http::{Api, Settings, router};
use gpuctl_local::{Store, StoreOptions};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const POLICY: &str = "[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"\n";

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) ports: Ports,
    pub(crate) router: Router,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{body}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Place {
    pub(crate) fn new(policy: &str) -> Self {
        Self::of(policy, gpuctl_http::ABANDONED_TIME_MAX, (false, false))
    }

    pub(crate) fn with(policy: &str, abandoned_after: Duration) -> Self {
        Self::of(policy, abandoned_after, (false, false))
    }

    /// With a page whose buttons do something.
    pub(crate) fn acting(policy: &str) -> Self {
        Self::of(policy, gpuctl_http::ABANDONED_TIME_MAX, (true, false))
    }

    /// One that other machines can reach.
    pub(crate) fn public(policy: &str) -> Self {
        Self::of(policy, gpuctl_http::ABANDONED_TIME_MAX, (false, true))
    }

    fn of(
        policy: &str,
        abandoned_after: Duration,
        (allow_actions, is_public): (bool, bool),
    ) -> Self {
        let folder = TempDir::new().unwrap();
        let options = StoreOptions { folder: folder.path().join("state"), file_mib_max: 64 };
        let store = Store::open(&options).unwrap();
        let policy = Policy::parse(policy).unwrap();
        store.configure(&policy).unwrap();
        let ports = gpuctl_local::ports(&store, None, Vec::new());
        let models = KnownModels::of_names("minilm=text.embed piper=voice.synthesize");
        let poll_every = Duration::from_millis(20);
        let settings =
            Settings { policy, models, poll_every, abandoned_after, allow_actions, is_public };
        let router = router(Arc::new(Api::new(ports.clone(), settings)));
        Self { folder, ports, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// An answer that is read as it comes.
    pub(crate) async fn open(&self, request: Request<Body>) -> Opened {
        Opened(self.router.clone().oneshot(request).await.unwrap().into_body())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, &[], "")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(json_request("POST", path, &[], body)).await
    }

    /// The jobs in the queue, each message once; they stay there.
    pub(crate) async fn queued(&self) -> u64 {
        let counts = self.ports.queue.counts(&queue()).await.unwrap();
        counts.visible + counts.in_flight
    }

    /// Does the next job as a worker does: receives it, keeps its files, commits its result and acks it.
    pub(crate) async fn work(&self, output: Value, files: &[(&str, &[u8])]) -> Job {
        let request = ReceiveRequest {
            max: 1,
            visibility: TimeDelta::minutes(1),
            wait: TimeDelta::seconds(20),
        };
        let held = self.ports.queue.receive(&queue(), request).await.unwrap().remove(0);
        let job = job_from_json(&held.body).unwrap();
        let now = self.ports.clock.now();
        let box_id = "gpu-1".parse().unwrap();
        let attempt = AttemptName::new(0, &box_id, now);
        let mut output = output;
        let mut listed = Vec::new();
        for (name, bytes) in files {
            let file = ResultFile { job: &job.id, attempt: &attempt, name, bytes };
            let uri = self.ports.files.keep(&file).await.unwrap();
            listed.push(json!({ "name": name, "uri": uri, "bytes": bytes.len(), "sha256": "ab12", "media_type": "audio/wav" }));
        }
        if !listed.is_empty() {
            output["files"] = Value::from(listed);
        }
        let result = JobResult {
            job: job.clone(),
            outcome: Ok(output),
            model: Some("minilm".to_owned()),
            device: Some("cpu".to_owned()),
            box_id,
            attempt: 1,
            received_at: now,
            finished_at: now,
            inference: TimeDelta::milliseconds(1),
            worked: None,
        };
        self.ports.ledger.commit_one(&result).await.unwrap();
        self.ports.queue.ack_one(&held.receipt).await.unwrap();
        job
    }
}

/// A body that is read as it comes.
pub(crate) struct Opened(Body);

impl Opened {
    /// The next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let part = self.0.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(part.to_vec()).unwrap())
    }
}

pub(crate) fn queue() -> QueueName {
    "jobs".parse().unwrap()
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder()
        .method(method.parse::<Method>().unwrap())
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        if *name == "host" {
            request.headers_mut().unwrap().remove("host");
        }
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

pub(crate) fn json_request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Request<Body> {
    let headers = [&[("content-type", "application/json")], headers].concat();
    request(method, path, &headers, body.to_string())
}

pub(crate) const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

/// A multipart body with these fields, and these files: name of the part, file name, bytes.
pub(crate) fn form(fields: &[(&str, &str)], files: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    for (part, name, bytes) in files {
        let head = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}
