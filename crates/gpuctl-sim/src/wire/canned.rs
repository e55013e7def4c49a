//! A service of AWS's JSON protocol with answers that a test writes itself: for what is in no emulator.
//!
//! It knows no shapes. Whether they are AWS's own is for the tests to say, which name where they have them from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server on a port of this machine, until it is dropped.
pub struct Canned {
    shared: Arc<Mutex<Shared>>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// Makes the answer to an input, or the code of a refusal.
type Answer = Box<dyn Fn(&Value) -> Result<Value, String> + Send>;

#[derive(Default)]
struct Shared {
    answers: BTreeMap<String, Answer>,
    asked: Vec<(String, Value)>,
}

impl Canned {
    /// Opens one on 127.0.0.1, on a port that the kernel picks; it refuses every call until it is told what to answer.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends with the task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { shared, address, server })
    }

    /// What `AWS_ENDPOINT_URL_…` must be.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on calls of this operation, as `GetProducts`, are answered so: with a document, or refused with a code.
    pub fn answer(
        &self,
        operation: &str,
        answer: impl Fn(&Value) -> Result<Value, String> + Send + 'static,
    ) {
        lock(&self.shared).answers.insert(operation.to_owned(), Box::new(answer));
    }

    /// What was asked since this was last called, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut lock(&self.shared).asked)
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    // As `AWSPriceListService.GetProducts`.
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default();
    let input: Value = serde_json::from_slice(&body).unwrap_or_default();
    let outcome = {
        let mut shared = lock(&shared);
        shared.asked.push((operation.to_owned(), input.clone()));
        match shared.answers.get(operation) {
            Some(answer) => answer(&input),
            None => Err("UnknownOperationException".to_owned()),
        }
    };
    let (status, document) = match outcome {
        Ok(document) => (StatusCode::OK, document),
        Err(code) => {
            (StatusCode::BAD_REQUEST, json!({ "__type": code, "message": "refused by the test" }))
        }
    };
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
