//! `GET /v1/jobs/{id}/events`: what becomes of a job, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gpuctl_control::ports::JobEntry;
use gpuctl_control::waiting::Waiting;
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use crate::Shared;
use crate::limits::{EVENTS_MAX, EVENTS_TIME_MAX};
use crate::problem::Problem;

/// How often a comment is sent, so that no proxy takes the connection for dead.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// `GET /v1/jobs/{id}/events`.
pub(crate) async fn events(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entry = api.job_of(&id).await?;
    let place = Arc::clone(&api.following).try_acquire_owned().map_err(|_| {
        let detail = format!("{EVENTS_MAX} clients follow jobs already");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "request.events", detail)
            .hint("poll with `GET /v1/jobs/{id}?wait=30`, or try again")
            .retry_after(COMMENT_EVERY.as_secs())
    })?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let follow = Follow {
        api,
        id,
        seen,
        waiting: None,
        pending: VecDeque::new(),
        first: Some(entry),
        end: Instant::now() + EVENTS_TIME_MAX,
        is_over: false,
        _place: place,
    };
    let events = stream::unfold(follow, |mut follow| async {
        let event = follow.next().await?;
        Some((Ok::<_, Infallible>(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)).into_response())
}

/// A job that a client follows.
struct Follow {
    api: Shared,
    id: String,
    /// The last event of a state that the client has.
    seen: Option<String>,
    /// What the client knows that it waits for.
    waiting: Option<Waiting>,
    pending: VecDeque<Event>,
    first: Option<JobEntry>,
    end: Instant,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.is_over || Instant::now() > self.end || self.api.is_closing() {
                return None;
            }
            let entry = match self.first.take() {
                Some(entry) => Ok(entry),
                None => {
                    sleep(self.api.poll_every).await;
                    self.api.job_of(&self.id).await
                }
            };
            match entry {
                Ok(entry) => self.note(&entry).await,
                // The job is gone, or the ledger cannot be read: the client may connect again.
                Err(problem) => {
                    self.pending.push_back(event(
                        "error",
                        &json!({ "code": problem.code, "detail": problem.detail }),
                    ));
                    self.is_over = true;
                }
            }
        }
    }

    async fn note(&mut self, entry: &JobEntry) {
        let name = format!("{}.{}", entry.job.generation, entry.state.as_str());
        let snapshot = self.api.snapshot().await;
        if self.seen.as_ref() != Some(&name) {
            let state =
                json!({ "state": entry.state.as_str(), "generation": entry.job.generation });
            self.pending.push_back(event("state", &state).id(&name));
            self.seen = Some(name);
        }
        let waiting = Waiting::of(entry, &self.api.policy, &snapshot);
        // The figures of a reason change all the time; what it waits for does not.
        let kind =
            |waiting: &Waiting| (waiting.rule, waiting.blocked, waiting.box_expected_at.is_some());
        if waiting.as_ref().map(kind) != self.waiting.as_ref().map(kind) {
            if let Some(waiting) = &waiting {
                self.pending.push_back(event("waiting", waiting));
            }
            self.waiting = waiting;
        }
        if entry.state.is_final() {
            self.pending.push_back(event("result", &self.api.document(entry, &snapshot)));
            self.is_over = true;
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).expect("a document of texts and numbers is always JSON");
    Event::default().event(name).data(data)
}
