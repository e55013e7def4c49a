//! Jobs and queues as text.

use gpuctl_control::job::{InputLocation, InputUri};
use gpuctl_control::wire::job::{JobDocument, ResultDocument};
use gpuctl_core::priority::Priority;
use serde_json::Value;

use super::answer;
use super::status::counts;
use super::words::{Lines, short, shown, shown_name};
use crate::documents::reply::{
    CancelledDocument, ExplainedCodeDocument, ExplainedJobDocument, JobsDocument, QueuesDocument,
    RetriedDocument,
};

/// A finished job in one line.
pub(super) fn job_line(job: &JobDocument) -> String {
    let took = match (job.wait_seconds, job.run_seconds) {
        (Some(wait), Some(run)) => format!(", waited {wait:.1} s, ran {run:.1} s"),
        _ => String::new(),
    };
    format!("{} {} ({}{took})", job.state, file_name(job), shown_name(&job.task))
}

pub(super) fn results(document: &JobsDocument) -> Lines {
    let mut lines = Lines::default();
    for (index, job) in document.jobs.iter().enumerate() {
        if index > 0 {
            lines.blank();
        }
        add_job(&mut lines, job);
    }
    lines
}

pub(super) fn list(document: &JobsDocument) -> Lines {
    if document.jobs.is_empty() {
        return Lines::of("no jobs");
    }
    let mut lines = Lines::of(format!(
        "{:<36}  {:<9}  {:>3}  {:<16}  {:>7}  {:>7}  INPUT",
        "JOB", "STATE", "GEN", "TASK", "WAITED", "RAN"
    ));
    for job in &document.jobs {
        let seconds =
            |value: Option<f64>| value.map(|value| format!("{value:.1} s")).unwrap_or_default();
        let (waited, ran) = (seconds(job.wait_seconds), seconds(job.run_seconds));
        let why = why(job).map(|why| format!("  ({why})")).unwrap_or_default();
        lines.add(format!(
            "{}  {:<9}  {:>3}  {:<16}  {waited:>7}  {ran:>7}  {}{why}",
            job.job_id,
            job.state,
            job.generation,
            shown_name(&job.task),
            file_name(job)
        ));
    }
    lines
}

/// Why the job has no output, if that is known.
fn why(job: &JobDocument) -> Option<String> {
    let failure = job.error.as_ref()?;
    Some(format!("{} [{}]", shown(&failure.message), shown_name(&failure.code)))
}

pub(super) fn retried(document: &RetriedDocument) -> Lines {
    let mut lines = Lines::default();
    if document.jobs.is_empty() {
        lines.add("no jobs to send again");
    }
    for job in &document.jobs {
        let generation = job.generation;
        lines.add(format!(
            "{}  {}, generation {generation} (was {})",
            job.job_id, job.outcome, job.state
        ));
    }
    if document.beyond_limit > 0 {
        lines.add(format!("and {} more: give a higher --limit", document.beyond_limit));
    }
    lines
}

pub(super) fn cancelled(document: &CancelledDocument) -> Lines {
    let mut lines = Lines::default();
    for job in &document.jobs {
        lines.add(match job.outcome == job.state {
            true => format!("{}  {}", job.job_id, job.state),
            false => format!("{}  {} ({})", job.job_id, job.outcome, job.state),
        });
    }
    lines
}

pub(super) fn job(job: &JobDocument) -> Lines {
    let mut lines = Lines::default();
    add_job(&mut lines, job);
    lines
}

/// A job, and what it waits for or failed of.
pub(super) fn explained(document: &ExplainedJobDocument) -> Lines {
    let mut lines = job(&document.job);
    if let Some(error) = &document.error {
        lines.label("meaning", meaning(error));
    }
    if let Some(waits_for) = &document.waits_for {
        lines.label("waits for", waits_for);
    }
    if let (Some(pool), Some(sentence)) = (&document.pool, &document.sentence) {
        lines.label("pool", format!("{pool}: {sentence}"));
    }
    lines
}

pub(super) fn code(document: &ExplainedCodeDocument) -> Lines {
    Lines::of(format!("{}: {}", document.code, meaning(document)))
}

fn meaning(document: &ExplainedCodeDocument) -> String {
    let blamed = document.blamed_on.as_ref().map(|what| format!("; blamed on {what}"));
    let exit = document.exit.map(|exit| format!(" Exit code {exit}."));
    format!("{}{}{}", document.meaning, blamed.unwrap_or_default(), exit.unwrap_or_default())
}

fn add_job(lines: &mut Lines, job: &JobDocument) {
    lines.add(job_line(job));
    match job.generation {
        0 => lines.label("job", &job.job_id),
        generation => lines.label("job", format!("{}, generation {generation}", job.job_id)),
    }
    if job.priority != Priority::Normal.as_str() {
        lines.label("priority", job.priority);
    }
    if let Some(wait) = job.max_wait_seconds {
        lines.label("max_wait", format!("{wait:.0} s, its own"));
    }
    if let (Some(model), Some(device), Some(name)) = (&job.model, &job.device, &job.r#box) {
        let inference = job.inference_seconds.unwrap_or_default();
        lines.label("model", format!("{model} on {device}, {inference:.2} s on {name}"));
    }
    if let Some(error) = &job.error {
        lines.label("error", format!("{} [{}]", error.message, error.code));
        if let Some(hint) = &error.hint {
            lines.label("hint", hint);
        }
    }
    let field = |name: &str| job.output.as_ref().and_then(|output| output.get(name));
    job.output.iter().for_each(|output| answer::add(lines, output));
    for warning in field("warnings").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| warning.get(field).and_then(Value::as_str).unwrap_or_default();
        lines.label("warning", format!("{} [{}]", text("message"), text("code")));
    }
    for (index, file) in field("files").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        lines.label(if index == 0 { "files" } else { "" }, file_line(file));
    }
    for earlier in &job.earlier {
        add_earlier(lines, earlier);
    }
}

/// A result of an earlier generation, in a line; `--json` has its output.
fn add_earlier(lines: &mut Lines, result: &ResultDocument) {
    let why = result.error.as_ref().map(|error| format!(": {} [{}]", error.message, error.code));
    let (generation, state, at) = (result.generation, result.state, short(&result.finished_at));
    let why = why.unwrap_or_default();
    let on = result.r#box.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    lines.label("earlier", format!("generation {generation} {state} at {at}{on}{why}"));
}

/// A file by its path if it is on this machine, else by its URI.
fn file_line(file: &Value) -> String {
    let text = |field: &str| file.get(field).and_then(Value::as_str).unwrap_or_default();
    let shown = match text("uri").parse::<InputUri>().map(|uri| uri.location()) {
        Ok(InputLocation::File(path)) => path.display().to_string(),
        _ => text("uri").to_owned(),
    };
    let bytes = file.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    format!("{shown} ({}, {bytes} bytes)", text("media_type"))
}

pub(super) fn queues(document: &QueuesDocument) -> Lines {
    let mut lines = Lines::default();
    for queue in &document.queues {
        lines.add(format!("{} (pool {}): {}", queue.queue, queue.pool, counts(&queue.counts)));
    }
    if document.queues.iter().any(|queue| queue.counts.dead > 0) {
        lines.add("`gpuctl jobs --state dead` shows why jobs are dead; `gpuctl redrive` or `gpuctl retry` sends them again");
    }
    lines
}

fn file_name(job: &JobDocument) -> String {
    let name = job.input.parse::<InputUri>().map(|uri| uri.file_name());
    shown_name(name.as_ref().unwrap_or(&job.input))
}
