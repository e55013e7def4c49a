//! Reading jobs: one, also by a long poll; many, page by page; and sending one again.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::{LINK, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gpuctl_control::cancel::{self, Cancelled};
use gpuctl_control::commands::is_command;
use gpuctl_control::job::{InputLocation, InputUri, JobId, JobState, without_folder};
use gpuctl_control::ports::{JobEntry, JobFilter, JobPage, JobPlace};
use gpuctl_control::snapshot::Snapshot;
use gpuctl_control::submit::{next_generation, resubmit};
use gpuctl_control::waiting::{Waiting, cost};
use gpuctl_control::wire::Versioned;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::units::{MicroUsd, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::create::Accepted;
use crate::limits::{LISTED_BYTES_MAX, PAGE_JOBS_MAX};
use crate::problem::Problem;
use crate::waiting::retry_after;
use crate::{Api, Shared};

/// A job as clients see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ApiJob {
    #[serde(flatten)]
    pub(crate) job: Versioned<JobDocument>,
    /// What it waits for; `null` unless it is queued.
    pub(crate) waiting: Option<Waiting>,
    /// What its time on the box cost; `null` where the box has no price, or its run is no longer remembered.
    pub(crate) cost_usd: Option<f64>,
    pub(crate) urls: Urls,
}

/// What ends a wait before its time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nothing: who asks again and again must not be answered at once each time.
    Any,
    /// That no box may start.
    UntilBlocked,
}

/// Where more of a job is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Urls {
    /// The job itself.
    #[serde(rename = "self")]
    own: String,
    /// Its events, as server-sent events.
    events: String,
    /// Cancels it.
    cancel: String,
    /// Sends it again, once it is over.
    retry: String,
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JobsPage {
    jobs: Vec<ApiJob>,
    /// What `after` is for the next page; `null` on the last.
    next: Option<String>,
}

/// The query of a single job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobQuery {
    wait: Option<u64>,
}

/// The query of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    state: Option<String>,
    task: Option<String>,
    after: Option<String>,
    since: Option<String>,
    limit: Option<u32>,
}

/// `GET /v1/jobs/{id}`.
pub(crate) async fn get(
    State(api): State<Shared>,
    Path(id): Path<String>,
    query: Result<Query<JobQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| bad_query(&error.body_text(), "wait"))?;
    let mut entry = api.job_of(&id).await?;
    if let Some(wait) = query.wait {
        entry = api.wait_for(entry, Duration::from_secs(wait), Patience::Any).await?;
    }
    let results = api.ports.ledger.results(&entry.job.id).await?;
    let snapshot = api.snapshot().await;
    let mut job = api.document(&entry, &snapshot);
    job.job.document = hidden(job.job.document.with_earlier(&results), &entry);
    let mut response = Json(&job).into_response();
    if !entry.state.is_final() {
        let seconds = retry_after(job.waiting.as_ref(), api.ports.clock.now());
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// `GET /v1/jobs`.
pub(crate) async fn list(
    State(api): State<Shared>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let known = "state, task, after, since, limit";
    let Query(query) = query.map_err(|error| bad_query(&error.body_text(), known))?;
    let limit = query.limit.unwrap_or(20);
    if !(1..=PAGE_JOBS_MAX).contains(&limit) {
        return Err(bad_query(&format!("`limit` is {limit}"), known)
            .hint(format!("a page has 1 to {PAGE_JOBS_MAX} jobs")));
    }
    let filter = JobFilter {
        state: query.state.as_deref().map(state).transpose()?,
        limit,
        since: query.since.as_deref().map(time).transpose()?,
    };
    if let Some(task) = query.task.as_ref().filter(|task| !is_command(task)) {
        task.parse::<gpu_tasks::Task>().map_err(gpu_tasks::TaskError::from)?;
    }
    let after = query.after.as_deref().map(place).transpose()?;
    let page = JobPage { filter, task: query.task.clone(), text: None, after };
    let entries = api.ports.ledger.jobs_page(&page).await?;
    let full = entries.len() == limit as usize;
    let next = entries.last().filter(|_| full).map(|last| cursor(&last.job));
    let snapshot = api.snapshot().await;
    let jobs = entries.iter().map(|entry| short(api.document(entry, &snapshot))).collect();
    let mut response = Json(JobsPage { jobs, next: next.clone() }).into_response();
    if let Some(link) = next.and_then(|next| link(&query, limit, &next)) {
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}

/// `POST /v1/jobs/{id}/retry`.
pub(crate) async fn retry(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    api.retry(&id).await?;
    let entry = api.job_of(&id).await?;
    api.answer_created(Accepted { entry, is_replay: false }, None).await
}

/// `POST /v1/jobs/{id}/cancel`, and `DELETE /v1/jobs/{id}`: a job that was cancelled before stays so.
pub(crate) async fn cancel(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let entry = api.job_of(&id).await?;
    let callers = api.callers.waiting(&entry.job.id);
    if callers > 1 && !entry.state.is_final() {
        let detail = format!("{callers} calls of OpenAI's clients wait for the job");
        return Err(Problem {
            job_id: Some(entry.job.id.to_string()),
            ..Problem::new(StatusCode::CONFLICT, "job.shared", detail)
        }
        .hint("let them hang up, or end it for all of them with `gpuctl cancel`"));
    }
    let by = "a client of the HTTP API";
    match cancel::cancel(&api.ports, &entry, by, api.ports.clock.now()).await? {
        Cancelled::Done(entry) => {
            let snapshot = api.snapshot().await;
            Ok(Json(api.document(&entry, &snapshot)).into_response())
        }
        Cancelled::AlreadyEnded(entry) => {
            let detail = format!("the job has already ended: it is {}", entry.state.as_str());
            Err(Problem {
                job_id: Some(entry.job.id.to_string()),
                ..Problem::new(StatusCode::CONFLICT, "job.ended", detail)
            }
            .hint("`GET /v1/jobs/{id}` shows what came of it"))
        }
    }
}

impl Api {
    /// Sends a job again, if it is over.
    pub(crate) async fn retry(&self, id: &str) -> Result<(), Problem> {
        let entry = self.job_of(id).await?;
        // Two at once would send the same generation twice.
        let _alone = self.requests.alone(&entry.job.id).await;
        let entry = self.job_of(entry.job.id.as_str()).await?;
        if !entry.state.is_final() {
            let detail = format!("the job is {}: it is not over", entry.state.as_str());
            return Err(Problem {
                job_id: Some(entry.job.id.to_string()),
                ..Problem::new(StatusCode::CONFLICT, "job.open", detail)
            }
            .hint("wait for it: `GET /v1/jobs/{id}?wait=60`"));
        }
        self.send_again(&entry).await
    }

    /// Sends a job that is over as its next generation.
    pub(crate) async fn send_again(&self, entry: &JobEntry) -> Result<(), Problem> {
        self.check_room(&entry.job.queue, 1).await?;
        self.check_inputs(entry)?;
        resubmit(&self.ports, &next_generation(std::slice::from_ref(entry))).await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Refuses to send a job again whose input is no longer there: a box would start for nothing.
    fn check_inputs(&self, entry: &JobEntry) -> Result<(), Problem> {
        let params = entry.job.params.values().filter_map(Value::as_str);
        let files = params.filter(|text| text.starts_with("file:///"));
        let files = files.filter_map(|uri| uri.parse::<InputUri>().ok());
        for uri in files.chain([entry.job.input.clone()]) {
            if let Err(refused) = self.ports.files.admit(&uri) {
                let problem = Problem::from(refused);
                let detail = without_folder(&problem.detail, &uri);
                return Err(Problem { status: StatusCode::GONE, detail, ..problem }
                    .hint("send the input again, as a new job"));
            }
        }
        Ok(())
    }

    /// The job of this id.
    pub(crate) async fn job_of(&self, id: &str) -> Result<JobEntry, Problem> {
        let unknown = || {
            let detail = format!("there is no job `{}`", gpuctl_core::text::excerpt(id));
            Problem::new(StatusCode::NOT_FOUND, "job.unknown", detail)
                .hint("`GET /v1/jobs` lists them; old ones are deleted after `jobs_kept`")
        };
        let id: JobId = id.parse().map_err(|_| unknown())?;
        self.ports.ledger.job(&id).await?.ok_or_else(unknown)
    }

    /// How long the client wants to wait, by its header `Prefer`.
    pub(crate) fn preferred_wait(&self, headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
        for value in headers.get_all("prefer") {
            for preference in value.to_str().unwrap_or_default().split(',') {
                let Some(wait) = preference.trim().strip_prefix("wait") else { continue };
                let seconds = match wait.trim_start().strip_prefix('=') {
                    Some(given) => given.trim().parse().ok(),
                    None if wait.is_empty() => return Ok(Some(self.wait_max())),
                    // Another preference, which is not known.
                    None => continue,
                };
                return seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(
                    || {
                        let detail = "the header `Prefer` is not `wait=SECONDS`";
                        Problem::new(StatusCode::BAD_REQUEST, "request.prefer", detail)
                            .hint("e.g. `Prefer: wait=30`")
                    },
                );
            }
        }
        Ok(None)
    }

    pub(crate) fn wait_max(&self) -> Duration {
        self.policy.http.wait_max.to_std().unwrap_or_default()
    }

    /// Waits until the job is over, at most this long. Where too many wait already it does not wait.
    pub(crate) async fn wait_for(
        &self,
        mut entry: JobEntry,
        wait: Duration,
        patience: Patience,
    ) -> Result<JobEntry, Problem> {
        let Ok(_place) = self.waiting.try_acquire() else { return Ok(entry) };
        let end = Instant::now() + wait.min(self.wait_max());
        while !entry.state.is_final() && Instant::now() < end && !self.is_closing() {
            if patience == Patience::UntilBlocked && self.is_blocked(&entry).await {
                break;
            }
            sleep_until((Instant::now() + self.poll_every).min(end)).await;
            entry = self.job_of(entry.job.id.as_str()).await?;
        }
        Ok(entry)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether no box may start for the job.
    async fn is_blocked(&self, entry: &JobEntry) -> bool {
        let snapshot = self.snapshot().await;
        let waiting = Waiting::of(entry, &self.policy, &snapshot);
        waiting.is_some_and(|waiting| waiting.blocked.is_some())
    }

    /// Waits as long as the client wants, unless no box may start, which it should know at once.
    pub(crate) async fn answer_created(
        &self,
        accepted: Accepted,
        wait: Option<Duration>,
    ) -> Result<Response, Problem> {
        let Accepted { mut entry, is_replay } = accepted;
        let mut snapshot = self.new_snapshot().await;
        if let Some(wait) = wait {
            entry = self.wait_for(entry, wait, Patience::UntilBlocked).await?;
            snapshot = self.snapshot().await;
        }
        let job = self.document(&entry, &snapshot);
        let status = if entry.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut response = (status, Json(&job)).into_response();
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::from_str(&job.urls.own) {
            headers.insert(LOCATION, location);
        }
        if is_replay {
            headers.insert("idempotent-replay", HeaderValue::from_static("true"));
        }
        if status == StatusCode::ACCEPTED {
            let seconds = retry_after(job.waiting.as_ref(), self.ports.clock.now());
            headers.insert(RETRY_AFTER, seconds.into());
        }
        Ok(response)
    }

    pub(crate) fn document(&self, entry: &JobEntry, snapshot: &Snapshot) -> ApiJob {
        let own = format!("/v1/jobs/{}", entry.job.id);
        ApiJob {
            waiting: Waiting::of(entry, &self.policy, snapshot),
            cost_usd: cost(entry, &self.policy, snapshot).map(MicroUsd::as_usd),
            urls: Urls {
                events: format!("{own}/events"),
                retry: format!("{own}/retry"),
                cancel: format!("{own}/cancel"),
                own,
            },
            job: hidden(JobDocument::of(entry), entry).versioned(),
        }
    }
}

/// A job as a listing shows it: what is long about it is left out, and is in the job itself.
fn short(mut job: ApiJob) -> ApiJob {
    let document = &mut job.job.document;
    let is_long = |value: &Value| value.to_string().len() > LISTED_BYTES_MAX;
    document.output = document.output.take().filter(|output| !is_long(output));
    if document.input.len() > LISTED_BYTES_MAX {
        document.input.truncate(LISTED_BYTES_MAX);
        document.input.push('…');
    }
    document.params.retain(|_, value| !is_long(value));
    job
}

/// The document without the server's paths: files have their names, and those of results the path at which they are read.
fn hidden(mut document: JobDocument, entry: &JobEntry) -> JobDocument {
    let job = &entry.job;
    let shown = |uri: &InputUri| match uri.location() {
        InputLocation::File(_) => uri.file_name(),
        InputLocation::S3 { .. } | InputLocation::Text(_) => uri.as_str().to_owned(),
    };
    document.input = shown(&job.input);
    for value in document.params.values_mut() {
        if let Some(uri) = value.as_str().filter(|text| text.starts_with("file:///"))
            && let Ok(uri) = uri.parse()
        {
            *value = Value::from(shown(&uri));
        }
    }
    let files = document.output.as_mut().and_then(|output| output["files"].as_array_mut());
    for file in files.into_iter().flatten() {
        let name = file["name"].as_str().unwrap_or_default();
        file["uri"] = Value::from(format!("/v1/jobs/{}/files/{name}", job.id));
    }
    for earlier in document.earlier.iter_mut().filter_map(|earlier| earlier.output.as_mut()) {
        for file in earlier["files"].as_array_mut().into_iter().flatten() {
            file["uri"] = Value::Null;
        }
    }
    let earlier = document.earlier.iter_mut().filter_map(|earlier| earlier.error.as_mut());
    for error in document.error.iter_mut().chain(earlier) {
        error.message = without_folder(&error.message, &job.input);
    }
    document
}

fn bad_query(detail: &str, known: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "request.query", detail)
        .hint(format!("the query may have {known}"))
}

fn state(name: &str) -> Result<JobState, Problem> {
    let found = JobState::ALL.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| {
        let names = JobState::ALL.map(JobState::as_str);
        let hint = did_you_mean(name, names)
            .unwrap_or_else(|| format!("the states are {}", names.join(", ")));
        let detail = format!("there is no state `{}`", gpuctl_core::text::excerpt(name));
        Problem::new(StatusCode::BAD_REQUEST, "request.query", detail).hint(hint)
    })
}

fn time(text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "request.query", "`since` is not a time")
            .hint("write it as RFC 3339, e.g. 2026-11-23T00:00:00Z")
    })
}

/// Where the next page begins: opaque to clients.
fn cursor(job: &gpuctl_control::job::Job) -> String {
    let micros = job.submitted_at.timestamp_micros();
    BASE64_URL_SAFE_NO_PAD.encode(format!("{micros} {}", job.id))
}

fn place(cursor: &str) -> Result<JobPlace, Problem> {
    let read = || {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (micros, id) = text.split_once(' ')?;
        let submitted_at = Timestamp::from_timestamp_micros(micros.parse().ok()?)?;
        Some(JobPlace { submitted_at, id: id.parse().ok()? })
    };
    read().ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "request.query", "`after` is not a page's `next`")
            .hint("begin without it, and pass on what each page has as `next`")
    })
}

/// The address of the next page. `None` where a part of it cannot be in a header.
fn link(query: &ListQuery, limit: u32, next: &str) -> Option<HeaderValue> {
    let mut link = format!("</v1/jobs?limit={limit}&after={next}");
    for (name, value) in [("state", &query.state), ("task", &query.task), ("since", &query.since)] {
        if let Some(value) = value {
            link.push_str(&format!("&{name}={}", value.replace('+', "%2B")));
        }
    }
    HeaderValue::from_str(&format!("{link}>; rel=\"next\"")).ok()
}
