//! A service with AWS's JSON protocol whose responses a test provides, for services that no emulator has.
//!
//! It does not validate the responses; tests cite where AWS documents their shape.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};

use super::server::Server;

/// An HTTP server on 127.0.0.1, until it is dropped.
pub struct Canned {
    shared: Arc<Mutex<Shared>>,
    server: Server,
}

/// Makes the response to an input, or an error code.
type Respond = Box<dyn Fn(&Value) -> Result<Value, String> + Send>;

#[derive(Default)]
struct Shared {
    answers: BTreeMap<String, Respond>,
    asked: Vec<(String, Value)>,
}

impl Canned {
    /// Listens on 127.0.0.1, on a free port. Every call is an error until `answer` provides a response.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn open() -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        Ok(Self { shared, server: Server::open(router).await? })
    }

    /// The value of `AWS_ENDPOINT_URL_…`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Sets the response to calls of an operation, e.g. `GetProducts`: a document, or an error code.
    pub fn answer(
        &self,
        operation: &str,
        answer: impl Fn(&Value) -> Result<Value, String> + Send + 'static,
    ) {
        lock(&self.shared).answers.insert(operation.to_owned(), Box::new(answer));
    }

    /// Operations and inputs since the last call of this function, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut lock(&self.shared).asked)
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
    // E.g. `AWSPriceListService.GetProducts`.
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
            (StatusCode::BAD_REQUEST, json!({ "__type": code, "message": "rejected by the test" }))
        }
    };
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
