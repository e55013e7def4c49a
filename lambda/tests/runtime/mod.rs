//! Lambda's runtime API, as the real `bootstrap` calls it: the next event, and the response to it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

/// How long one response may take, on a busy machine.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(60);
/// The time that a function has for an event, where the test does not say.
const TIMEOUT_MS: u64 = 30_000;

/// A running function.
pub(crate) struct Function {
    events: mpsc::Sender<Invocation>,
    responses: mpsc::Receiver<Value>,
    invocations: u32,
    lines: mpsc::UnboundedReceiver<String>,
    _process: Child,
}

/// One delivery of an event.
struct Invocation {
    event: Value,
    /// The same for each delivery of one request.
    request: String,
    milliseconds: u64,
}

struct Api {
    events: Mutex<mpsc::Receiver<Invocation>>,
    responses: mpsc::Sender<Value>,
}

impl Function {
    pub(crate) async fn start(environment: &[(&str, String)]) -> Self {
        let (events, next) = mpsc::channel(1);
        let (respond, responses) = mpsc::channel(1);
        let api = Arc::new(Api { events: Mutex::new(next), responses: respond });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(self::next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(response))
            .with_state(api);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut process = Command::new(env!("CARGO_BIN_EXE_bootstrap"))
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "gpuctl")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "g")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "s")
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut written = BufReader::new(process.stdout.take().unwrap()).lines();
        let (line, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(text)) = written.next_line().await {
                let _ = line.send(text);
            }
        });
        Self { events, responses, invocations: 0, lines, _process: process }
    }

    /// The lines that it has written since the last of these calls, up to one with `last` in it.
    pub(crate) async fn lines_to(&mut self, last: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        while !all.last().is_some_and(|line| line.contains(last)) {
            let next = tokio::time::timeout(RESPONSE_TIME_MAX, self.lines.recv()).await;
            all.push(next.unwrap_or_else(|_| panic!("no line has {last}: {all:?}")).unwrap());
        }
        all
    }

    /// Calls it with a request of its own.
    pub(crate) async fn call(&mut self, event: &Value) -> Value {
        self.call_within(event, TIMEOUT_MS).await
    }

    /// Calls it, with `milliseconds` until Lambda would end the call.
    pub(crate) async fn call_within(&mut self, event: &Value, milliseconds: u64) -> Value {
        self.invocations += 1;
        let request = format!("request-{}", self.invocations);
        self.deliver(Invocation { event: event.clone(), request, milliseconds }).await
    }

    /// Delivers a request, for the first time or again.
    pub(crate) async fn call_as(&mut self, request: &str, event: &Value) -> Value {
        let (event, request) = (event.clone(), request.to_owned());
        self.deliver(Invocation { event, request, milliseconds: TIMEOUT_MS }).await
    }

    async fn deliver(&mut self, invocation: Invocation) -> Value {
        self.events.send(invocation).await.unwrap();
        tokio::time::timeout(RESPONSE_TIME_MAX, self.responses.recv()).await.unwrap().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "Lambda's deadline is a time of day")]
async fn next(State(api): State<Arc<Api>>) -> Result<(HeaderMap, Json<Value>), StatusCode> {
    let next = api.events.lock().await.recv().await;
    let Invocation { event, request, milliseconds } = next.ok_or(StatusCode::GONE)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let deadline = now + u128::from(milliseconds);
    let mut headers = HeaderMap::new();
    let mut header =
        |name, value: &str| headers.insert(name, HeaderValue::from_str(value).unwrap());
    header("lambda-runtime-aws-request-id", &request);
    header("lambda-runtime-deadline-ms", &deadline.to_string());
    header(
        "lambda-runtime-invoked-function-arn",
        "arn:aws:lambda:eu-west-1:123456789012:function:gpuctl",
    );
    header("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700");
    Ok((headers, Json(event)))
}

async fn response(State(api): State<Arc<Api>>, body: Bytes) -> StatusCode {
    api.responses.send(serde_json::from_slice(&body).unwrap()).await.unwrap();
    StatusCode::ACCEPTED
}
