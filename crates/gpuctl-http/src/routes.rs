//! Every route of the API in one table, from which the router and `/openapi.json` are made.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{self, MethodRouter};
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::text::excerpt;
use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::catalog::{self, ModelDocument, ModelsDocument, TasksDocument};
use crate::create::{self, CreateJob};
use crate::jobs::{self, ApiJob, JobsPage};
use crate::limits::upload_bytes_max;
use crate::openai::{self, EmbeddingsRequest, SpeechRequest};
use crate::problem::Problem;
use crate::status::{self, GpusDocument, HealthDocument};
use crate::{Shared, access, events, files, openapi, page};
use gpuctl_control::wire::Versioned;
use gpuctl_control::wire::explain::ExplainDocument;
use gpuctl_control::wire::status::StatusDocument;

/// A route, and what `/openapi.json` says of it.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// Names and meanings of what may be in its query or headers.
    pub(crate) takes: &'static [(&'static str, &'static str, &'static str)],
    pub(crate) body: Option<Body>,
    /// Statuses of success, with what they mean.
    pub(crate) answers: &'static [(u16, &'static str)],
    pub(crate) answer: Option<SchemaOf>,
    handler: MethodRouter<Shared>,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A body that a route takes.
#[derive(Clone, Copy)]
pub(crate) struct Body {
    pub(crate) schema: SchemaOf,
    /// Whether it may also be multipart, with files.
    pub(crate) is_multipart: bool,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    fn new(
        method: &'static str,
        path: &'static str,
        summary: &'static str,
        handler: MethodRouter<Shared>,
    ) -> Self {
        let answers = &[(200, "done")];
        Self { method, path, summary, takes: &[], body: None, answers, answer: None, handler }
    }

    fn takes(self, takes: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        Self { takes, ..self }
    }

    fn body<T: JsonSchema>(self, is_multipart: bool) -> Self {
        Self { body: Some(Body { schema: schema::<T>, is_multipart }), ..self }
    }

    fn answers<T: JsonSchema>(self, answers: &'static [(u16, &'static str)]) -> Self {
        Self { answers, ..self }.gives::<T>()
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Some(schema::<T>), ..self }
    }
}

const WAIT: (&str, &str, &str) = (
    "header",
    "Prefer",
    "`wait=SECONDS`: wait that long for the job, and answer as soon as it is over",
);
const CREATED: &[(u16, &str)] = &[
    (200, "the job is over"),
    (202, "the job waits or runs; `Retry-After` says when to ask again"),
];

/// All routes.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = job_routes();
    routes.extend(openai_routes());
    routes.extend(other_routes());
    routes
}

fn job_routes() -> Vec<Route> {
    vec![
        Route::new("post", "/v1/jobs", "Submit a job", routing::post(create::create))
            .takes(&[
                WAIT,
                ("header", "Idempotency-Key", "the same key names the same job for 24 hours"),
            ])
            .body::<CreateJob>(true)
            .answers::<ApiJob>(CREATED),
        Route::new("get", "/v1/jobs", "List jobs, newest first", routing::get(jobs::list))
            .takes(&[
                ("query", "state", "only jobs in this state"),
                ("query", "task", "only jobs of this task"),
                ("query", "since", "only jobs submitted at or after this time"),
                ("query", "limit", "the most jobs of a page; 20 without it"),
                ("query", "after", "the `next` of the page before"),
            ])
            .gives::<JobsPage>(),
        Route::new(
            "put",
            "/v1/jobs/{id}",
            "Submit a job under an id of yours",
            routing::put(create::put),
        )
        .takes(&[WAIT])
        .body::<CreateJob>(true)
        .answers::<ApiJob>(CREATED),
        Route::new("get", "/v1/jobs/{id}", "Read a job", routing::get(jobs::get))
            .takes(&[("query", "wait", "seconds to wait for the job, unless it is over before")])
            .gives::<ApiJob>(),
        Route::new(
            "post",
            "/v1/jobs/{id}/cancel",
            "Cancel a job that waits or runs",
            routing::post(jobs::cancel),
        )
        .gives::<ApiJob>(),
        Route::new("delete", "/v1/jobs/{id}", "Cancel a job", routing::delete(jobs::cancel))
            .gives::<ApiJob>(),
        Route::new(
            "post",
            "/v1/jobs/{id}/retry",
            "Send a job again that is over",
            routing::post(jobs::retry),
        )
        .answers::<ApiJob>(CREATED),
        Route::new("get", "/v1/jobs/{id}/events", "Follow a job", routing::get(events::events))
            .takes(&[("header", "Last-Event-ID", "the last `state` that you have")]),
        Route::new(
            "get",
            "/v1/jobs/{id}/files/{name}",
            "Read a file of a result",
            routing::get(files::get),
        )
        .takes(&[("header", "Range", "one part of the file")]),
    ]
}

/// What clients of OpenAI call.
fn openai_routes() -> Vec<Route> {
    vec![
        Route::new(
            "post",
            "/v1/audio/transcriptions",
            "Write down a recording, as OpenAI's clients ask for it",
            routing::post(openai::transcriptions),
        ),
        Route::new(
            "post",
            "/v1/audio/speech",
            "Speak a text, as OpenAI's clients ask for it",
            routing::post(openai::speech),
        )
        .body::<SpeechRequest>(false),
        Route::new(
            "post",
            "/v1/embeddings",
            "Embed texts, as OpenAI's clients ask for it",
            routing::post(openai::embeddings),
        )
        .body::<EmbeddingsRequest>(false),
    ]
}

fn other_routes() -> Vec<Route> {
    vec![
        Route::new(
            "get",
            "/v1/tasks",
            "List tasks, their params and outputs",
            routing::get(catalog::tasks),
        )
        .gives::<TasksDocument>(),
        Route::new("get", "/v1/models", "List models", routing::get(catalog::models))
            .gives::<ModelsDocument>(),
        Route::new("get", "/v1/models/{name}", "Read a model", routing::get(catalog::one_model))
            .gives::<ModelDocument>(),
        Route::new(
            "get",
            "/v1/status",
            "Show pools, boxes and queues",
            routing::get(status::status),
        )
        .gives::<Versioned<StatusDocument>>(),
        Route::new(
            "get",
            "/v1/explain/{pool}",
            "Explain why a pool is up or down",
            routing::get(status::explain),
        )
        .gives::<Versioned<ExplainDocument>>(),
        Route::new("get", "/api/v1/monitoring/gpu", "Show the GPUs", routing::get(status::gpus))
            .gives::<GpusDocument>(),
        Route::new("get", "/healthz", "Check the server", routing::get(status::health))
            .gives::<HealthDocument>(),
        Route::new("get", "/openapi.json", "This description", routing::get(openapi::serve)),
    ]
}

/// The API as a service.
pub fn router(api: Shared) -> Router {
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    let bytes_max = usize::try_from(upload_bytes_max(&api.policy.http)).unwrap_or(usize::MAX);
    router
        .merge(page::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Beside the file an upload has some text.
        .layer(DefaultBodyLimit::max(bytes_max.saturating_add(crate::JSON_BYTES_MAX)))
        .layer(from_fn(readable_path))
        .layer(from_fn_with_state(api.clone(), access::check))
        .layer(from_fn(openai::errors))
        .layer(from_fn(safe_headers))
        .with_state(api)
}

/// Refuses a path that is not UTF-8, before it is taken apart.
async fn readable_path(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Result<Response, Problem> {
    if percent_decode_str(request.uri().path()).decode_utf8().is_err() {
        let detail = "the path is not UTF-8";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "request.path", detail)
            .hint("escape the bytes of UTF-8 in it"));
    }
    Ok(next.run(request).await)
}

/// What a browser must not do with an answer.
async fn safe_headers(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [("x-content-type-options", "nosniff"), ("cache-control", "no-store")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

async fn unknown_path(method: Method, uri: Uri) -> Problem {
    let routes = routes();
    let paths = routes.iter().map(|route| route.path);
    let hint = did_you_mean(uri.path(), paths)
        .unwrap_or_else(|| "`GET /openapi.json` describes every path".to_owned());
    let detail = format!("there is nothing at {method} {}", excerpt(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, "request.path", detail).hint(hint)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", excerpt(uri.path()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "request.method", detail)
        .hint("`GET /openapi.json` describes every path")
}
