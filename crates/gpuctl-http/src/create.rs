//! New jobs: read from JSON or multipart, checked by the checks of `gpuctl submit`, and sent once, however often the request comes.

use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::TimeDelta;
use gpu_tasks::{ParamKind, Task};
use gpuctl_control::job::{InputLocation, InputUri, InputUriError, Job, JobId, JobState, Urgency};
use gpuctl_control::media;
use gpuctl_control::pools;
use gpuctl_control::ports::{JobEntry, Upload};
use gpuctl_control::submit::{SubmitError, check_priority, submit};
use gpuctl_control::wire::job::{job_from_json, job_to_json};
use gpuctl_core::policy::QueuePolicy;
use gpuctl_core::priority::Priority;
use gpuctl_core::units::{QueueName, parse_duration};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::access::Caller;
use crate::body::{self, Parts, UploadedFile};
use crate::limits::uploads_bytes_max;
use crate::problem::Problem;
use crate::request::Identity;
use crate::{Api, Shared};

/// A job to submit. Of `input`, `text` and, in a multipart body, the part `file`, it has exactly one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CreateJob {
    /// The task, e.g. `voice.transcribe`; `GET /v1/tasks` lists them.
    pub(crate) task: String,
    /// The model; without one the task's default is used.
    pub(crate) model: Option<String>,
    /// The input's URI: `s3://BUCKET/KEY`, or `data:,TEXT`.
    pub(crate) input: Option<String>,
    /// The input, where it is a text.
    pub(crate) text: Option<String>,
    /// The task's params.
    pub(crate) params: Map<String, Value>,
    /// The pool whose queue gets the job; needed only where several have one.
    pub(crate) pool: Option<String>,
    /// `high`, `normal` (without it, too) or `low`: which jobs of the queue come first.
    pub(crate) priority: Option<String>,
    /// How long it may wait for a box, e.g. `10min`, where that is less than `max_wait` of its pool; `0s` for a client that waits.
    pub(crate) max_wait: Option<String>,
}

/// A job to submit, with the files that came with it.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) job: CreateJob,
    /// The part `file`, and parts that are params, by name.
    pub(crate) files: Vec<(String, UploadedFile)>,
    /// Whether the client waits for it: then it is not to wait for others, as `max_wait` of its pool may let it.
    pub(crate) is_waited_for: bool,
}

/// Which job a request is for.
pub(crate) enum Named {
    /// One of its own.
    New,
    /// The one of the id that the client chose, or that its call has.
    ById(JobId),
    /// The one of the key that the client chose.
    ByKey(Identity),
}

/// A job that is in the ledger.
pub(crate) struct Accepted {
    pub(crate) entry: JobEntry,
    /// Whether it was there before.
    pub(crate) is_replay: bool,
}

/// `POST /v1/jobs`.
pub(crate) async fn create(
    State(api): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let wait = api.preferred_wait(&headers)?;
    let identity = Identity::of_header(&headers, &caller.name)?;
    let wanted = Wanted { is_waited_for: wait.is_some(), ..read(&api, request).await? };
    let accepted = api.accept(wanted, identity.map_or(Named::New, Named::ByKey)).await?;
    api.answer_created(accepted, wait).await
}

/// `PUT /v1/jobs/{id}`.
pub(crate) async fn put(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let wait = api.preferred_wait(&headers)?;
    let id: JobId = id.parse().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "job.id", "the job's id is not a UUID")
            .hint("use a new UUID for each job, best of version 7")
    })?;
    let wanted = Wanted { is_waited_for: wait.is_some(), ..read(&api, request).await? };
    let accepted = api.accept(wanted, Named::ById(id)).await?;
    api.answer_created(accepted, wait).await
}

async fn read(api: &Api, request: Request) -> Result<Wanted, Problem> {
    if !body::is_of_type(&request, "multipart/form-data") {
        return Ok(Wanted { job: body::json(request).await?, ..Wanted::default() });
    }
    let Parts { fields, files } = Parts::read(api, request).await?;
    let mut json = Map::new();
    for (name, text) in fields {
        let value = match name.as_str() {
            "params" => serde_json::from_str(&text).map_err(|error| {
                Problem::form(format!("`params` is not JSON: {error}"))
                    .hint("e.g. `{\"speed\": 1.2}`")
                    .at("/params")
            })?,
            _ => Value::String(text),
        };
        json.insert(name, value);
    }
    let json = Value::Object(json).to_string();
    Ok(Wanted { job: body::read_json(json.as_bytes())?, files, is_waited_for: false })
}

impl Api {
    /// Checks the job and sends it, unless it is there. A request that is refused leaves nothing behind.
    pub(crate) async fn accept(&self, wanted: Wanted, named: Named) -> Result<Accepted, Problem> {
        self.accept_checked(self.check(wanted)?, named).await
    }

    pub(crate) async fn accept_checked(
        &self,
        checked: Checked,
        named: Named,
    ) -> Result<Accepted, Problem> {
        let (id, is_new) = match &named {
            Named::New => (JobId::new(self.ports.clock.now()), true),
            Named::ById(id) => (id.clone(), false),
            Named::ByKey(identity) => (identity.job(self).await?, false),
        };
        let (_alone, before) = if is_new {
            (None, None)
        } else {
            let alone = self.requests.alone(&id).await;
            (Some(alone), self.ports.ledger.job(&id).await?)
        };
        if before.is_none() {
            self.check_room(&checked.queue, 1).await?;
            self.check_uploads(checked.uploaded_bytes()).await?;
        }
        if let Some(entry) = &before
            && !checked.has_files_of(&entry.job)
        {
            return Err(differs(&entry.job, &named));
        }
        let has_own_wait = checked.has_own_wait;
        let job = self.job(id, checked, before.as_ref()).await?;
        match before {
            Some(entry) if is_same(&entry.job, &job, has_own_wait) => {
                Ok(Accepted { entry, is_replay: true })
            }
            Some(entry) => Err(differs(&entry.job, &named)),
            None => {
                submit(&self.ports, std::slice::from_ref(&job))
                    .await
                    .map_err(|error| perhaps_sent(error, &job))?;
                self.changed.notify_one();
                let entry = JobEntry { job, state: JobState::Queued, result: None, problem: None };
                Ok(Accepted { entry, is_replay: false })
            }
        }
    }

    pub(crate) fn check(&self, wanted: Wanted) -> Result<Checked, Problem> {
        let Wanted { job, files, is_waited_for } = wanted;
        if job.task.is_empty() {
            let detail = "the job has no `task`";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "task.missing", detail)
                .hint("`GET /v1/tasks` lists the tasks")
                .at("/task"));
        }
        let task: Task = job.task.parse().map_err(gpu_tasks::TaskError::from)?;
        let (_, queue) = pools::for_job(&self.policy, job.pool.as_deref())?;
        if let Some(model) = &job.model {
            self.models.check(task, model)?;
        }
        let mut params = job.params;
        let (mut input, mut attached) = (None, Vec::new());
        for (name, file) in files {
            media_of(task, &name, &file)?;
            if name == "file" {
                if input.replace(file).is_some() {
                    return Err(several_inputs());
                }
            } else {
                let name = file_param(task, &name)?;
                // Its URI is known when it is kept; until then any will do.
                params.insert(name.to_owned(), Value::from("data:,"));
                attached.push((name, file));
            }
        }
        for (name, uri) in gpu_tasks::check(task.name(), &params)?.uris() {
            if attached.iter().all(|(attached, _)| *attached != name) {
                self.admit(uri).map_err(|problem| problem.at(format!("/params/{name}")))?;
            }
        }
        let input = self.one_input(input, job.input, job.text)?;
        let urgency = self.urgency(queue, job.priority.as_deref(), job.max_wait.as_deref())?;
        let has_own_wait = urgency.max_wait.is_some();
        let max_wait = urgency.max_wait.or(is_waited_for.then(TimeDelta::zero));
        let urgency = Urgency { max_wait, ..urgency };
        let queue = queue.name.clone();
        Ok(Checked {
            task,
            model: job.model,
            params,
            queue,
            input,
            attached,
            urgency,
            has_own_wait,
        })
    }

    /// How soon the job is to be done, by what its client says.
    fn urgency(
        &self,
        queue: &QueuePolicy,
        priority: Option<&str>,
        max_wait: Option<&str>,
    ) -> Result<Urgency, Problem> {
        let refused =
            |code, detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        let priority = priority.unwrap_or("normal").parse::<Priority>().map_err(|error| {
            refused("job.priority", error.to_string())
                .hint("use high, normal or low")
                .at("/priority")
        })?;
        check_priority(&self.policy, queue, priority).map_err(|error| {
            let hint = error.hint.clone().unwrap_or_default();
            refused("priority.unserved", error.what).hint(hint).at("/priority")
        })?;
        let urgency = Urgency { priority, max_wait: None };
        let Some(text) = max_wait else { return Ok(urgency) };
        let hint = "write it as `30s` or `10min`, or leave it out for the pool's `max_wait`";
        let wrong = |detail: String| refused("job.max_wait", detail).hint(hint).at("/max_wait");
        let wait = parse_duration(text).map_err(|error| wrong(error.to_string()))?;
        urgency.waiting(wait).map_err(|error| wrong(error.to_string()))
    }

    fn one_input(
        &self,
        file: Option<UploadedFile>,
        uri: Option<String>,
        text: Option<String>,
    ) -> Result<GivenInput, Problem> {
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        match (file, uri, text) {
            (Some(file), None, None) => Ok(GivenInput::File(file)),
            (None, Some(uri), None) => self.admit(&uri).map(GivenInput::Uri),
            (None, None, Some(text)) if text.trim().is_empty() => {
                Err(Problem::new(unprocessable, "input.no_text", "the text is empty")
                    .hint("send a text with at least one letter")
                    .at("/text"))
            }
            (None, None, Some(text)) => Ok(match InputUri::of_text(&text) {
                Ok(uri) => GivenInput::Uri(uri),
                Err(_) => GivenInput::LongText(text),
            }),
            (None, None, None) => {
                Err(Problem::new(unprocessable, "input.missing", "the job has no input")
                    .hint(ONE_INPUT))
            }
            _ => {
                Err(Problem::new(unprocessable, "input.several", "the job has more than one input")
                    .hint(ONE_INPUT))
            }
        }
    }

    /// A URI that a client may name: never a file of this machine.
    fn admit(&self, text: &str) -> Result<InputUri, Problem> {
        let uri: InputUri = text.parse().map_err(|error: InputUriError| Problem::from(error))?;
        if matches!(uri.location(), InputLocation::File(_)) {
            let detail =
                "`file:` inputs are refused: the files of the server are none of its clients'";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "input.outside", detail)
                .hint("send the file as the part `file` of a multipart body")
                .at("/input"));
        }
        self.ports.files.admit(&uri)?;
        Ok(uri)
    }

    /// Refuses jobs for a queue that would hold more than it may.
    pub(crate) async fn check_room(&self, queue: &QueueName, new: usize) -> Result<(), Problem> {
        let queued_max = u64::from(self.policy.http.queued_max.get());
        let waiting = self.queued(queue).await?;
        if waiting.saturating_add(new as u64) <= queued_max {
            return Ok(());
        }
        let detail =
            format!("the queue `{queue}` holds {waiting} jobs, at most {queued_max} may wait");
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue.full", detail)
            .hint("send it again later, or raise `queued_max` under [http]")
            .retry_after(60))
    }

    /// Refuses files where clients have sent as many as may lie on the disk.
    async fn check_uploads(&self, bytes: u64) -> Result<(), Problem> {
        let bytes_max = uploads_bytes_max(&self.policy);
        if bytes == 0 || self.uploaded().await?.saturating_add(bytes) <= bytes_max {
            return Ok(());
        }
        let detail = format!("files that clients sent may take {bytes_max} bytes on the server");
        Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "uploads.full", detail)
            .hint("wait for jobs, delete old ones (`gpuctl jobs delete`), or raise `results_mib_max` under [cloud]")
            .retry_after(60))
    }

    /// The job, with its files kept. One whose bytes were kept before is not written again.
    async fn job(
        &self,
        id: JobId,
        checked: Checked,
        before: Option<&JobEntry>,
    ) -> Result<Job, Problem> {
        let Checked { task, model, mut params, queue, input, attached, urgency, .. } = checked;
        for (name, file) in attached {
            let kept = before.and_then(|entry| entry.job.params.get(name)?.as_str()?.parse().ok());
            let uri = self.keep(&id, file, kept).await?;
            params.insert(name.to_owned(), Value::from(uri.as_str()));
        }
        let kept = before.map(|entry| entry.job.input.clone());
        let input = match input {
            GivenInput::Uri(uri) => uri,
            GivenInput::File(file) => self.keep(&id, file, kept).await?,
            GivenInput::LongText(text) => {
                self.keep(&id, body::file_of_text(self, text).await?, kept).await?
            }
        };
        Ok(Job {
            id,
            queue,
            task: task.name().to_owned(),
            model,
            input,
            params,
            submitted_at: self.ports.clock.now(),
            generation: 0,
            urgency,
        })
    }

    async fn keep(
        &self,
        id: &JobId,
        file: UploadedFile,
        kept: Option<InputUri>,
    ) -> Result<InputUri, Problem> {
        let UploadedFile { name, digest, file, .. } = file;
        if let Some(kept) = kept.filter(|uri| uri.as_str().contains(&digest)) {
            return Ok(kept);
        }
        let upload = Upload { job: id, name: &name, digest: &digest, file };
        Ok(self.ports.files.take_in(upload).await?)
    }
}

/// A job that may be sent.
pub(crate) struct Checked {
    task: Task,
    model: Option<String>,
    params: Map<String, Value>,
    pub(crate) queue: QueueName,
    input: GivenInput,
    /// Files that are params.
    attached: Vec<(&'static str, UploadedFile)>,
    urgency: Urgency,
    /// Whether the client says itself how long the job may wait.
    has_own_wait: bool,
}

impl Checked {
    fn uploaded_bytes(&self) -> u64 {
        let input = match &self.input {
            GivenInput::File(file) => file.bytes,
            GivenInput::LongText(text) => text.len() as u64,
            GivenInput::Uri(_) => 0,
        };
        self.attached.iter().map(|(_, file)| file.bytes).sum::<u64>() + input
    }

    /// Whether the files are those that a job has: told by their digests, before they are kept.
    fn has_files_of(&self, job: &Job) -> bool {
        let input = match &self.input {
            GivenInput::File(file) => job.input.as_str().contains(&file.digest),
            GivenInput::Uri(_) | GivenInput::LongText(_) => true,
        };
        let is_kept = |(name, file): &(&str, UploadedFile)| {
            let kept = job.params.get(*name).and_then(Value::as_str);
            kept.is_some_and(|uri| uri.contains(&file.digest))
        };
        input && self.attached.iter().all(is_kept)
    }
}

const ONE_INPUT: &str =
    "send one of `text`, `input` (a URI), and the part `file` of a multipart body";

fn several_inputs() -> Problem {
    let detail = "the job has more than one input";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "input.several", detail).hint(ONE_INPUT)
}

/// A job is sent before it is noted: where that fails, it may run all the same.
fn perhaps_sent(error: SubmitError, job: &Job) -> Problem {
    let is_port = matches!(error, SubmitError::Port(_));
    let problem = Problem::from(error);
    if !is_port {
        return problem;
    }
    let hint = format!(
        "it may be in the queue all the same: look at `GET /v1/jobs/{}`, or use `PUT` or an `Idempotency-Key`; {}",
        job.id, problem.hint
    );
    Problem { job_id: Some(job.id.to_string()), ..problem }.hint(hint)
}

enum GivenInput {
    Uri(InputUri),
    File(UploadedFile),
    /// Too long for a URI.
    LongText(String),
}

fn media_of(task: Task, part: &str, file: &UploadedFile) -> Result<(), Problem> {
    media::check(task, &file.name, &file.head)
        .map_err(|error| Problem::from(error).at(format!("/{part}")))
}

/// The param of this name, if it is a file.
fn file_param(task: Task, name: &str) -> Result<&'static str, Problem> {
    let of_kind = |kind: &ParamKind| matches!(kind, ParamKind::File);
    let found = task.params().iter().find(|spec| spec.name == name && of_kind(&spec.kind));
    found.map(|spec| spec.name).ok_or_else(|| {
        let files = task.params().iter().filter(|spec| of_kind(&spec.kind)).map(|spec| spec.name);
        let known: Vec<String> = std::iter::once("file").chain(files).map(str::to_owned).collect();
        body::unknown_field(name, &known)
    })
}

/// Whether a request for the second job asks for the first, which was stored: numbers may change their last digit by that.
fn is_same(a: &Job, b: &Job, has_own_wait: bool) -> bool {
    job_from_json(&job_to_json(b)).is_ok_and(|b| {
        a.queue == b.queue
            && a.task == b.task
            && a.model == b.model
            && a.params == b.params
            && a.input == b.input
            && a.urgency.priority == b.urgency.priority
            && (!has_own_wait || a.urgency.max_wait == b.urgency.max_wait)
    })
}

fn differs(job: &Job, named: &Named) -> Problem {
    let (status, what) = match named {
        Named::ByKey(_) => (StatusCode::UNPROCESSABLE_ENTITY, "this `Idempotency-Key`"),
        _ => (StatusCode::CONFLICT, "this id"),
    };
    let detail = format!("there is another job of {what}");
    Problem { job_id: Some(job.id.to_string()), ..Problem::new(status, "job.differs", detail) }
        .hint("use a new one for a new job; the first one goes on")
}
