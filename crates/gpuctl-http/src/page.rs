//! The page for people: `gpuctl-page` makes its HTML, here it is read for, answered, followed and acted on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Router, routing};
use futures_util::stream;
use gpuctl_control::hold::{self, HoldRequest};
use gpuctl_control::job::JobState;
use gpuctl_control::overview::Overview;
use gpuctl_control::ports::{JobEntry, QueueChange};
use gpuctl_control::{cancel, media};
use gpuctl_core::units::PoolId;
use gpuctl_page::{ACTED_MAX, Action, ActionForm, HEADERS, Page, Refusal, asset, check_sender};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::body;
use crate::limits::EVENTS_TIME_MAX;
use crate::problem::Problem;
use crate::{Api, Shared};

/// How often a page that is followed is made anew, at most.
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// The same on AWS, where each time reads the month's jobs, which DynamoDB bills.
const RENEWED_EVERY_AWS: Duration = Duration::from_secs(300);

/// Who acts, as holds and cancelled jobs name it.
const WHO: &str = "someone on the page";

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", routing::get(overview))
        .route("/jobs/{id}", routing::get(job))
        .route("/jobs/{id}/input", routing::get(input))
        .route("/assets/{name}", routing::get(file))
        .route("/live", routing::get(live))
        .route("/act", routing::post(act))
        .layer(from_fn(framed))
}

/// What is shown: a view of all, or a job.
#[derive(Debug, Deserialize)]
struct Shown {
    #[serde(default)]
    job: String,
    #[serde(flatten)]
    query: gpuctl_page::Query,
}

async fn overview(
    State(api): State<Shared>,
    Query(query): Query<gpuctl_page::Query>,
) -> Html<String> {
    Html(api.overview(&query).await)
}

async fn job(State(api): State<Shared>, Path(id): Path<String>) -> Result<Html<String>, Problem> {
    api.job_page(&id).await.map(Html)
}

async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    let unknown =
        || Problem::new(StatusCode::NOT_FOUND, "request.path", "the page has no such file");
    let (media_type, text) = asset(&name).ok_or_else(unknown)?;
    Ok(([(CONTENT_TYPE, media_type)], text).into_response())
}

/// The input of a job, if a browser shows or plays it.
async fn input(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entry = api.job_of(&id).await?;
    let opened = api.open_uri(&entry.job.input).await?;
    let head = opened.head(media::HEAD_BYTES_MAX)?;
    let media_type = media::browsable(&head).ok_or_else(|| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "input.wrong_kind", "no browser shows it")
    })?;
    let response = opened.answer(headers.get("range"))?;
    let kind = [(CONTENT_TYPE, media_type), (CONTENT_DISPOSITION, "inline")];
    Ok((kind, response).into_response())
}

/// The same page again, whenever it is another.
async fn live(State(api): State<Shared>, Query(shown): Query<Shown>) -> Result<Response, Problem> {
    let place = Arc::clone(&api.following).try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "request.events", "too many pages are open")
    })?;
    let end = Instant::now() + EVENTS_TIME_MAX;
    let follow = (api, shown, String::new(), place);
    let pages = stream::unfold(follow, move |(api, shown, last, place)| async move {
        loop {
            let next = Instant::now() + api.renewed_every();
            while Instant::now() < next {
                sleep(RENEWED_EVERY).await;
                if Instant::now() > end || api.is_closing() {
                    return None;
                }
            }
            let page = match shown.job.as_str() {
                "" => api.overview(&shown.query).await,
                id => api.job_page(id).await.ok()?,
            };
            if page != last {
                let event = Event::default().event("page").data(&page);
                return Some((Ok::<_, Infallible>(event), (api, shown, page, place)));
            }
        }
    });
    Ok(Sse::new(pages).keep_alive(KeepAlive::default()).into_response())
}

/// Does what a button asks for, and shows the page where that is seen.
async fn act(State(api): State<Shared>, request: Request) -> Result<Redirect, Problem> {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    check_sender(text(HOST), text(ORIGIN), site).map_err(refused)?;
    let form: ActionForm = body::form(request).await?;
    let action = form.action(api.page_token.as_deref()).map_err(refused)?;
    let place = api.act(action).await?;
    api.changed.notify_one();
    Ok(Redirect::to(&place))
}

fn refused(refusal: Refusal) -> Problem {
    let (detail, hint) = refusal.words();
    Problem::new(StatusCode::FORBIDDEN, "page.refused", detail).hint(hint)
}

impl Api {
    fn renewed_every(&self) -> Duration {
        if self.policy.cloud.aws.is_some() { RENEWED_EVERY_AWS } else { RENEWED_EVERY }
    }

    async fn overview(&self, query: &gpuctl_page::Query) -> String {
        let snapshot = self.new_snapshot().await;
        let since = query.since(snapshot.observation.at);
        let (ports, policy) = (&self.ports, &self.policy);
        let overview = Overview::read(ports, policy, &snapshot, since, &query.jobs()).await;
        let token = self.page_token.as_deref();
        Page { policy, snapshot: &snapshot, token }.overview(&overview, query)
    }

    async fn job_page(&self, id: &str) -> Result<String, Problem> {
        let entry = self.job_of(id).await?;
        let results = self.ports.ledger.results(&entry.job.id).await?;
        let snapshot = self.new_snapshot().await;
        let token = self.page_token.as_deref();
        Ok(Page { policy: &self.policy, snapshot: &snapshot, token }.job(&entry, &results))
    }

    /// Does it, and says where to look.
    async fn act(&self, action: Action) -> Result<String, Problem> {
        let now = self.ports.clock.now();
        match action {
            Action::Retry(id) => {
                self.retry(id.as_str()).await?;
                return Ok(format!("/jobs/{id}"));
            }
            Action::Cancel(id) => {
                let entry = self.job_of(id.as_str()).await?;
                cancel::cancel(&self.ports, &entry, WHO, now).await?;
                return Ok(format!("/jobs/{id}"));
            }
            Action::RetryAll(view) => {
                // One whose input is gone keeps none of the others.
                let mut refused = Ok(());
                let failed = |state: JobState| state.is_final() && state != JobState::Succeeded;
                for entry in self.listed(&view, failed).await? {
                    refused = self.retry(entry.job.id.as_str()).await.and(refused);
                }
                refused?;
                return Ok(format!("{}#jobs", view.link()));
            }
            Action::CancelAll(view) => {
                for entry in self.listed(&view, |state| !state.is_final()).await? {
                    cancel::cancel(&self.ports, &entry, WHO, now).await?;
                }
                return Ok(format!("{}#jobs", view.link()));
            }
            Action::Hold { pool, wants, lasts, why } => {
                let request = HoldRequest {
                    wants,
                    since: now,
                    until: now + lasts,
                    by: WHO.to_owned(),
                    why,
                    over_budget: None,
                    until_empty: false,
                };
                let pools = [self.known_pool(&pool)?.id.clone()];
                hold::set(&*self.ports.ledger, &pools, &request).await?;
            }
            Action::Release(pool) => {
                let pools = [self.known_pool(&pool)?.id.clone()];
                hold::release(&*self.ports.ledger, &pools, WHO, now).await?;
            }
            Action::Redrive(pool) => {
                if let Some(queue) = self.known_pool(&pool)?.queue() {
                    self.ports.queue.redrive(&queue.name).await?;
                    let ledger = &self.ports.ledger;
                    ledger.queue_changed(&queue.name, QueueChange::Redriven).await?;
                }
            }
        }
        Ok("/".to_owned())
    }

    /// The jobs of a view that are in such a state.
    async fn listed(
        &self,
        view: &gpuctl_page::Query,
        is_wanted: fn(JobState) -> bool,
    ) -> Result<Vec<JobEntry>, Problem> {
        let mut listed = self.ports.ledger.jobs_page(&view.first_jobs(ACTED_MAX)).await?;
        listed.retain(|entry| is_wanted(entry.state));
        Ok(listed)
    }

    fn known_pool(&self, id: &PoolId) -> Result<&gpuctl_core::policy::Pool, Problem> {
        self.policy.pool(id).ok_or_else(|| {
            let detail = format!("there is no pool `{id}`");
            Problem::new(StatusCode::NOT_FOUND, "pool.unknown", detail)
        })
    }
}

/// What a browser may do with the page; and an error as a page, too.
async fn framed(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions().get::<Problem>() {
        let title = problem.status.canonical_reason().unwrap_or("Error");
        let page = gpuctl_page::problem(title, &problem.detail, &problem.hint);
        response = (problem.status, Html(page)).into_response();
    }
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}
