//! The page of one job: what it waits for or waited for, and what came of it.

use gpuctl_control::job::{InputLocation, InputUri, Job, JobResult, without_folder};
use gpuctl_control::ports::JobEntry;
use gpuctl_control::snapshot::Snapshot;
use gpuctl_control::waiting::{Waiting, cost};
use gpuctl_control::wire::job::{JobDocument, ResultDocument};
use gpuctl_core::policy::Policy;
use serde_json::Value;

use crate::jobs::{input_name, seconds};
use crate::result::Shown;
use crate::words::{Clock, money, readable};

/// The longest JSON that is shown, in characters.
const JSON_CHARS_MAX: usize = 20_000;

/// A job.
pub(crate) struct JobView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) task: String,
    pub(crate) facts: Vec<(&'static str, String)>,
    /// Message, code and hint.
    pub(crate) failure: Option<(String, String, String)>,
    pub(crate) shown: Shown,
    pub(crate) json: Option<String>,
    /// The text that is the input.
    pub(crate) text: Option<String>,
    /// `audio`, `image` or empty.
    pub(crate) input_kind: &'static str,
    pub(crate) earlier: Vec<String>,
    pub(crate) can_retry: bool,
    pub(crate) can_cancel: bool,
}

impl JobView {
    pub(crate) fn of(
        policy: &Policy,
        snapshot: &Snapshot,
        entry: &JobEntry,
        results: &[JobResult],
        clock: Clock,
    ) -> Self {
        let job = &entry.job;
        let document = JobDocument::of(entry).with_earlier(results);
        let output = document.output.as_ref();
        let address = format!("/jobs/{}", job.id);
        let shown = output.map(|output| Shown::of(&address, output)).unwrap_or_default();
        let failure = document.error.as_ref().map(|error| {
            let message = without_folder(&error.message, &job.input);
            (message, error.code.clone(), error.hint.clone().unwrap_or_default())
        });
        let input_kind = match (&shown, job.input.location()) {
            (_, InputLocation::Text(_)) => "",
            (shown, _) if shown.picture.is_some() => "image",
            (shown, _) if shown.has_recording => "audio",
            _ => "",
        };
        Self {
            id: job.id.to_string(),
            name: input_name(job),
            state: entry.state.as_str(),
            task: job.task.clone(),
            facts: facts(policy, snapshot, entry, &document, clock),
            failure,
            json: output.map(json),
            shown,
            text: match job.input.location() {
                InputLocation::Text(text) => Some(readable(&text, JSON_CHARS_MAX)),
                InputLocation::File(_) | InputLocation::S3 { .. } => None,
            },
            input_kind,
            earlier: document.earlier.iter().map(|result| earlier(result, clock)).collect(),
            can_retry: entry.state.is_final(),
            can_cancel: !entry.state.is_final(),
        }
    }
}

/// The output as JSON, without the places of files on the server.
fn json(output: &Value) -> String {
    let mut output = output.clone();
    for file in output["files"].as_array_mut().into_iter().flatten() {
        if let Some(file) = file.as_object_mut() {
            file.remove("uri");
        }
    }
    readable(&serde_json::to_string_pretty(&output).unwrap_or_default(), JSON_CHARS_MAX)
}

fn facts(
    policy: &Policy,
    snapshot: &Snapshot,
    entry: &JobEntry,
    document: &JobDocument,
    clock: Clock,
) -> Vec<(&'static str, String)> {
    let job = &entry.job;
    let mut facts = vec![("Submitted", clock.time(job.submitted_at).text)];
    if let Some(waiting) = Waiting::of(entry, policy, snapshot) {
        facts.push(("Waits for", waiting.reason));
        let expected = waiting.box_expected_at.and_then(|at| at.parse().ok());
        facts.extend(expected.map(|at| ("Box expected", clock.time(at).text)));
        facts.extend(waiting.queue_length.map(|jobs| ("Jobs in the queue", jobs.to_string())));
    }
    if let Some(result) = &entry.result {
        facts.push(("Ended", clock.time(result.finished_at).text));
    }
    let timed = [("Waited", document.wait_seconds), ("Ran", document.run_seconds)];
    facts.extend(timed.map(|(label, time)| (label, seconds(time))));
    facts.push(("Cost", cost(entry, policy, snapshot).map(money).unwrap_or_default()));
    facts.push(("Model", document.model.clone().unwrap_or_default()));
    facts.push((
        "Box",
        match (&document.r#box, &document.device) {
            (Some(name), Some(device)) => format!("{name}, on {device}"),
            (name, _) => name.clone().unwrap_or_default(),
        },
    ));
    if let Some(attempts) = document.attempts.filter(|attempts| *attempts > 1) {
        facts.push(("Attempt", attempts.to_string()));
    }
    if document.generation > 0 {
        facts.push(("Sent again", format!("generation {}", document.generation)));
    }
    if !job.params.is_empty() {
        facts.push(("Params", params(job)));
    }
    facts.push(("Queue", job.queue.to_string()));
    facts.retain(|(_, text)| !text.is_empty());
    facts
}

/// The params, with the names of files alone.
fn params(job: &Job) -> String {
    let shown = |value: &Value| match value.as_str().map(str::parse::<InputUri>) {
        Some(Ok(uri)) => uri.file_name(),
        _ => value.to_string(),
    };
    job.params
        .iter()
        .map(|(name, value)| format!("{name} = {}", shown(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn earlier(result: &ResultDocument, clock: Clock) -> String {
    let at = result.finished_at.parse().map_or_else(|_| String::new(), |at| clock.time(at).text);
    let why = result.error.as_ref().map(|error| format!(": {} [{}]", error.message, error.code));
    format!("generation {} {} at {at}{}", result.generation, result.state, why.unwrap_or_default())
}
