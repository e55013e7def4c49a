//! OpenAI's subset: clients of OpenAI work after a change of their base URL alone, also while the box is off.
//!
//! Each call is a job. One that is repeated, as OpenAI's clients do without saying so, joins the job of the call before.

mod embeddings;
mod sound;
mod speech;
mod transcriptions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, stream};
use gpu_tasks::Task;
use gpuctl_control::job::{JobFailure, JobId, JobState, without_folder};
use gpuctl_control::ports::JobEntry;
use gpuctl_control::waiting::Waiting;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Api;
use crate::access::Caller;
use crate::callers::Waiter;
use crate::create::{Accepted, Checked, CreateJob, Named, Wanted};
use crate::jobs::Patience;
use crate::limits::{
    FAILURE_JOINED_TIME_MAX, JOINED_TIME_MAX, RETRY_SECONDS_MAX, SUBMITTED_AT_ONCE_MAX,
};
use crate::problem::Problem;
use crate::request::Identity;
use crate::waiting::retry_after;

pub(crate) use embeddings::{EmbeddingsRequest, embeddings};
pub(crate) use speech::{SpeechRequest, speech};
pub(crate) use transcriptions::transcriptions;

/// OpenAI's names of models, which stand for the task's default.
const ALIASES: [&str; 9] = [
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "tts-1",
    "tts-1-hd",
    "gpt-4o-mini-tts",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "text-embedding-ada-002",
];

/// The model of a job for one of OpenAI's names, or of gpuctl's.
fn model_of(name: &str) -> Option<String> {
    (!ALIASES.contains(&name)).then(|| name.to_owned())
}

/// A request that these clients can make, and this server does not do.
fn unsupported(code: &'static str, field: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail).at(format!("/{field}"))
}

/// The jobs of a call, for which its client waits until then.
pub(crate) struct Joined {
    entries: Vec<JobEntry>,
    waiter: Waiter,
    end: Instant,
}

impl Api {
    /// Submits the jobs of a call, or finds those of an equal call a short time ago. None is sent before all are checked; equal ones are one.
    async fn join(
        self: &Arc<Self>,
        caller: &Caller,
        wanted: Vec<Wanted>,
    ) -> Result<Joined, Problem> {
        let end = Instant::now() + self.wait_max();
        let each: Vec<Vec<u8>> = wanted.iter().map(described).collect();
        let checked: Result<Vec<Checked>, Problem> =
            wanted.into_iter().map(|wanted| self.check(wanted)).collect();
        let checked = checked?;
        let parts = std::iter::once(caller.name.as_bytes()).chain(each.iter().map(Vec::as_slice));
        let ids = Identity::of(parts, JOINED_TIME_MAX).jobs(self, &each).await?;
        let different: BTreeSet<JobId> = ids.iter().cloned().collect();
        if let ([first, _, ..], [id, ..]) = (&*checked, &*ids)
            && self.ports.ledger.job(id).await?.is_none()
        {
            self.check_room(&first.queue, different.len()).await?;
        }
        let waiter = Waiter::new(self, different, caller.is_async);
        let each = checked.into_iter().zip(ids).map(|(checked, id)| self.join_one(checked, id));
        let entries = stream::iter(each).buffered(SUBMITTED_AT_ONCE_MAX).try_collect().await?;
        Ok(Joined { entries, waiter, end })
    }

    async fn join_one(&self, checked: Checked, id: JobId) -> Result<JobEntry, Problem> {
        let Accepted { entry, is_replay } = self.accept_checked(checked, Named::ById(id)).await?;
        if !is_replay {
            return Ok(entry);
        }
        // Two at once must not send it twice, nor one join it while it is cancelled.
        let _alone = self.requests.alone(&entry.job.id).await;
        let entry = self.job_of(entry.job.id.as_str()).await?;
        if self.answers(&entry) {
            return Ok(entry);
        }
        self.send_again(&entry).await?;
        self.job_of(entry.job.id.as_str()).await
    }

    /// Whether the job of an equal call before is this call's, as it is. A failure is for the client's own retries alone, since its cause may
    /// be repaired; a dead job is not tried again by a program that knows nothing of it.
    fn answers(&self, entry: &JobEntry) -> bool {
        match (entry.state, &entry.result) {
            (JobState::Succeeded | JobState::Dead, _) => true,
            (JobState::Failed, Some(result)) => {
                let age = self.ports.clock.now() - result.finished_at;
                age.to_std().is_ok_and(|age| age < FAILURE_JOINED_TIME_MAX)
            }
            (state, _) => !state.is_final(),
        }
    }

    /// The outputs of the jobs, once they are over; before their end, or an error with which clients try again.
    async fn outputs(&self, joined: Joined) -> Result<Vec<(JobEntry, Value)>, Problem> {
        let Joined { entries, waiter, end } = joined;
        let each = entries.into_iter().map(|entry| self.output(entry, end));
        let done = stream::iter(each).then(|output| output).try_collect().await;
        let goes_on = |problem: &Problem| problem.status == StatusCode::SERVICE_UNAVAILABLE;
        waiter.answered(done.as_ref().is_err_and(goes_on));
        done
    }

    async fn output(&self, entry: JobEntry, end: Instant) -> Result<(JobEntry, Value), Problem> {
        // As it is now: of many texts most are done while the first is waited for.
        let entry = self.job_of(entry.job.id.as_str()).await?;
        let left = end.saturating_duration_since(Instant::now());
        let entry = self.wait_for(entry, left, Patience::UntilBlocked).await?;
        let problem = match entry.result.as_ref().map(|result| &result.outcome) {
            Some(Ok(output)) => {
                let output = output.clone();
                return Ok((entry, output));
            }
            Some(Err(failure)) => failed(&entry, failure),
            None if entry.state.is_final() => unfinished(&entry),
            None => self.not_yet(&entry).await,
        };
        Err(Problem { job_id: Some(entry.job.id.to_string()), ..problem })
    }

    /// Why there is no output yet, and when to try again: the client's next try joins the same job.
    async fn not_yet(&self, entry: &JobEntry) -> Problem {
        let waiting = Waiting::of(entry, &self.policy, &*self.snapshot().await);
        let hint = format!("the same call joins this job: GET /v1/jobs/{} shows it", entry.job.id);
        let problem = |code, detail: String| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).hint(hint.clone())
        };
        let seconds = retry_after(waiting.as_ref(), self.ports.clock.now());
        match waiting {
            None => problem("job.running", "the job runs".to_owned()).retry_after(seconds),
            Some(Waiting { blocked: Some(code), reason, .. }) => {
                problem(code, format!("no box may start: {reason}")).retry_after(RETRY_SECONDS_MAX)
            }
            Some(waiting) => {
                let detail = format!("the box is not ready yet: {}", waiting.reason);
                problem("box_starting", detail).retry_after(seconds)
            }
        }
    }

    /// Submits the job of a call, and waits for its output.
    async fn call(
        self: &Arc<Self>,
        caller: &Caller,
        wanted: Wanted,
    ) -> Result<(JobEntry, Value), Problem> {
        let joined = self.join(caller, vec![wanted]).await?;
        Ok(self.outputs(joined).await?.remove(0))
    }
}

/// What a job is, for telling it from others.
fn described(wanted: &Wanted) -> Vec<u8> {
    let (job, files) = (&wanted.job, &wanted.files);
    let digests: Vec<&str> = files.iter().map(|(_, file)| file.digest.as_str()).collect();
    json!([job.task, job.model, job.input, job.text, job.params, digests]).to_string().into_bytes()
}

fn failed(entry: &JobEntry, failure: &JobFailure) -> Problem {
    let is_cancelled = entry.state == JobState::Cancelled;
    let code = if is_cancelled { "job.cancelled" } else { "job.failed" };
    let detail = without_folder(&failure.message, &entry.job.input);
    let (id, own) =
        (&entry.job.id, failure.hint.as_deref().unwrap_or("`gpuctl retry` sends it again"));
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
        .hint(format!("{own} (job {id}, {})", failure.code))
}

fn unfinished(entry: &JobEntry) -> Problem {
    let (id, detail) = (&entry.job.id, format!("the job is {}", entry.state.as_str()));
    match entry.state {
        // Clients would try again by themselves.
        JobState::Dead => Problem::new(StatusCode::BAD_REQUEST, "job.dead", detail)
            .hint(format!("`gpuctl job {id}` says why, `gpuctl retry {id}` sends it again")),
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "job.unfinished", detail)
            .hint(format!("`gpuctl job {id}` says why; the same call sends it again")),
    }
}

fn wanted(task: Task, model: &str) -> Wanted {
    let job =
        CreateJob { task: task.name().to_owned(), model: model_of(model), ..CreateJob::default() };
    Wanted { job, files: Vec::new(), is_waited_for: true }
}

/// Whether OpenAI's clients call this path, and read its errors.
pub(crate) fn is_theirs(path: &str) -> bool {
    path.starts_with("/v1/audio/")
        || path == "/v1/embeddings"
        || path == "/v1/models"
        || path.starts_with("/v1/models/")
}

/// Writes problems as OpenAI's clients read errors, on the paths that they call.
pub(crate) async fn errors(request: Request, next: Next) -> Response {
    let is_theirs = is_theirs(request.uri().path());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) if is_theirs => error(&problem),
        _ => response,
    }
}

/// An error as OpenAI's clients read it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OpenAiError {
    error: ErrorParts,
}

#[derive(Serialize, JsonSchema)]
struct ErrorParts {
    /// What is wrong, and what to do about it.
    message: String,
    /// e.g. `invalid_request_error`.
    r#type: &'static str,
    /// The field that is wrong.
    param: Option<String>,
    /// A short, stable code such as `model_not_found`.
    code: &'static str,
}

fn error(problem: &Problem) -> Response {
    let (status, body) = error_value(problem);
    let mut response = (status, Json(body)).into_response();
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn error_value(problem: &Problem) -> (StatusCode, OpenAiError) {
    let (status, code) = match (problem.status, problem.code) {
        (_, "model.unknown") => (StatusCode::NOT_FOUND, "model_not_found"),
        (StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT, code) => {
            (StatusCode::BAD_REQUEST, code)
        }
        (status, code) => (status, code),
    };
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let message = match problem.hint.as_str() {
        "" => problem.detail.clone(),
        hint => format!("{}; {hint}", problem.detail),
    };
    let param =
        problem.pointer.as_deref().map(|pointer| pointer.trim_start_matches('/').to_owned());
    (status, OpenAiError { error: ErrorParts { message, r#type: kind, param, code } })
}

/// Fields of a call that change nothing here, and that its client sent all the same.
fn ignored(mut response: Response, fields: &[&str]) -> Response {
    if let Ok(names) = HeaderValue::from_str(&fields.join(", "))
        && !fields.is_empty()
    {
        response.headers_mut().insert("gpuctl-ignored", names);
    }
    response
}

/// What a part of an answer counts as for clients that bill by it: nothing here is billed by tokens.
fn usage(tokens: u64) -> Value {
    json!({ "prompt_tokens": tokens, "total_tokens": tokens })
}

/// How often the client of a stream is told that it is alive.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
