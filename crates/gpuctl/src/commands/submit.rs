//! `submit`: checks the inputs, sends the jobs, reconciles, and waits for the results if asked to.

pub(super) mod model;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gpu_tasks::{Task, TaskError, UnknownTask};
use gpuctl_control::commands;
use gpuctl_control::input::{InputRejected, admit};
use gpuctl_control::job::{
    InputLocation, InputUri, InputUriError, Job, JobId, JobState, Urgency, UrgencyError,
};
use gpuctl_control::params::{Param, params_of};
use gpuctl_control::ports::{JobEntry, JobFilter, PortError};
use gpuctl_control::submit::{check_priority, submit_with_commands as send};
use gpuctl_control::wire::job::JobDocument;
use gpuctl_control::{Reconciled, Trigger};
use gpuctl_core::policy::QueuePolicy;
use gpuctl_core::sentence;
use gpuctl_core::suggest::nearest;
use gpuctl_core::units::{QueueName, show_duration};
use serde_json::{Map, Value};

use super::jobs::LIST_MAX;
use crate::arguments::SubmitArguments;
use crate::context::Context;
use crate::documents::reply::{JobsDocument, SubmittedDocument};
use crate::failure::{Code, Exit, Failure};
use crate::render::{Output, Printer, Progress};

/// From this number of open jobs on a wait lists those that are open, and reads only the others.
const LISTED_FROM: usize = 20;

/// `gpuctl submit TASK INPUT…`.
pub(crate) async fn submit(
    context: &Context,
    printer: &Printer,
    arguments: &SubmitArguments,
) -> Result<Output, Failure> {
    let (pool, queue) = context.queue_pool(arguments.pool.as_ref())?;
    if let Some(model) = &arguments.model {
        model::check(context, printer, task(arguments)?, model)?;
    }
    let urgency = urgency(context, queue, arguments)?;
    let jobs = jobs(context, &queue.name, urgency, arguments)?;
    #[cfg(feature = "aws")]
    let jobs = super::upload::to_s3(context, jobs).await?;
    send(&context.ports, &context.config.policy, &jobs).await?;
    context.reconcile_until_free(printer).await;
    if arguments.wait {
        return wait(context, printer, &jobs, arguments).await;
    }
    if !context.has_daemon() && queue.max_wait > chrono::TimeDelta::zero() {
        printer.warning(
            "no controller is running: `gpuctl run` starts a box when max_wait requires one",
        );
    }
    Ok(Output::Submitted(SubmittedDocument {
        pool: pool.id.to_string(),
        queue: queue.name.to_string(),
        job_ids: jobs.iter().map(|job| job.id.to_string()).collect(),
    }))
}

fn task(arguments: &SubmitArguments) -> Result<Task, Failure> {
    arguments.task.parse().map_err(|error: UnknownTask| TaskError::from(error).into())
}

/// How soon the jobs are to be done, if the pool can serve that.
fn urgency(
    context: &Context,
    queue: &QueuePolicy,
    arguments: &SubmitArguments,
) -> Result<Urgency, Failure> {
    // The command line takes no other names.
    let priority = arguments.priority.parse().unwrap_or_default();
    check_priority(&context.config.policy, queue, priority)
        .map_err(|error| Failure { code: Code::PriorityUnserved, ..Failure::from(&error) })?;
    let urgency = Urgency { priority, max_wait: None };
    let of_wait = match (&arguments.max_wait, &arguments.deadline) {
        (Some(max_wait), _) => urgency.waiting(*max_wait),
        (None, Some(deadline)) => urgency.until(context.time(deadline)?, context.now()),
        (None, None) => Ok(urgency),
    };
    of_wait.map_err(|error| {
        let code = match error {
            UrgencyError::DeadlinePassed(_) => Code::DeadlinePassed,
            UrgencyError::WaitOutside => Code::UsageInvalidValue,
        };
        Failure::new(code, error.to_string()).hint(error.hint())
    })
}

/// Every input is checked before any is sent: a typo in the last of a hundred sends nothing.
fn jobs(
    context: &Context,
    queue: &QueueName,
    urgency: Urgency,
    arguments: &SubmitArguments,
) -> Result<Vec<Job>, Failure> {
    let params = params(context, &arguments.task, &arguments.param)?;
    let mut jobs = Vec::with_capacity(arguments.inputs.len());
    for input in inputs(context, arguments)? {
        let submitted_at = context.now();
        jobs.push(Job {
            id: JobId::new(submitted_at),
            queue: queue.clone(),
            task: arguments.task.clone(),
            model: arguments.model.clone(),
            input,
            params: params.clone(),
            submitted_at,
            generation: 0,
            urgency,
        });
    }
    Ok(jobs)
}

fn inputs(context: &Context, arguments: &SubmitArguments) -> Result<Vec<InputUri>, Failure> {
    if arguments.no_input && !commands::is_command(&arguments.task) {
        let message = format!("{} needs an input", arguments.task);
        return Err(Failure::new(Code::UsageMissingArgument, message)
            .hint("name a file, or give a text with `--text`; only commands may go without"));
    }
    let text = if arguments.no_input { Some("") } else { arguments.text.as_deref() };
    if let Some(text) = text {
        let uri = InputUri::of_text(text).map_err(|error| {
            Failure::new(Code::InputTooLarge, error.to_string()).hint(error.hint())
        })?;
        return Ok(vec![uri]);
    }
    let roots = context.config.input_roots();
    arguments.inputs.iter().map(|input| input_uri(context, input, &roots)).collect()
}

/// The URI of a file, or of an object in S3 that a worker may fetch.
fn input_uri(context: &Context, input: &Path, roots: &[PathBuf]) -> Result<InputUri, Failure> {
    let Some(text) = input.to_str().filter(|text| text.starts_with("s3://")) else {
        return Ok(InputUri::of_path(
            &admit(input, roots).map_err(|error| rejected(error, input))?,
        ));
    };
    admit_uri(context, text, roots)
}

/// Why a file of this machine is not an input; the name of one that is missing may be mistyped.
fn rejected(error: InputRejected, input: &Path) -> Failure {
    let is_missing = matches!(&error, InputRejected::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    let failure = Failure::from(error);
    if !is_missing {
        return failure;
    }
    failure.hint(match near_file(input) {
        Some(path) => format!("did you mean `{}`?", path.display()),
        None => "check the path; it is read here, before the job is sent".to_owned(),
    })
}

/// The most files of a folder that are compared with a name.
const NEAR_FILES_MAX: usize = 10_000;

/// A file of the same folder whose name is nearly the same.
fn near_file(input: &Path) -> Option<PathBuf> {
    let folder = input.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let files = entries.filter_map(Result::ok).take(NEAR_FILES_MAX);
    let names: Vec<String> =
        files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(input.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(input.with_file_name(near))
}

/// The URI, if it is one of a file or an object that a worker may fetch.
fn admit_uri(context: &Context, text: &str, roots: &[PathBuf]) -> Result<InputUri, Failure> {
    let uri: InputUri = text.parse().map_err(|error: InputUriError| {
        Failure::new(Code::UsageInvalidValue, error.to_string()).hint(error.hint())
    })?;
    match uri.location() {
        InputLocation::S3 { .. } => context.ports.files.admit(&uri)?,
        InputLocation::File(path) => drop(admit(&path, roots)?),
        InputLocation::Text(_) => {}
    }
    Ok(uri)
}

/// The params, checked here too and not only by [`send`], so that nothing is uploaded for a job that is rejected.
fn params(context: &Context, task: &str, given: &[Param]) -> Result<Map<String, Value>, Failure> {
    let here = std::env::current_dir().map_err(|error| {
        Failure::new(Code::FileUnreadable, "cannot read the current folder").because(&error)
    })?;
    let params = params_of(given, &here);
    // The files among them are checked like inputs.
    let roots = context.config.input_roots();
    for (_, uri) in commands::check(&context.config.policy, task, &params)?.uris() {
        admit_uri(context, uri, &roots)?;
    }
    Ok(params)
}

async fn wait(
    context: &Context,
    printer: &Printer,
    jobs: &[Job],
    arguments: &SubmitArguments,
) -> Result<Output, Failure> {
    let progress = printer.progress(jobs.len());
    let mut waiting = Waiting { open: jobs.to_vec(), done: Vec::new() };
    let all = async {
        while !waiting.poll(context, &progress).await {
            match context.reconcile(Trigger::Tick).await {
                Ok(reconciled) => {
                    if let Some(reconciled) = reconciled {
                        progress.reconciled(&reconciled);
                        progress.waits_for(&waits_for(context, &jobs[0].queue, &reconciled));
                    }
                }
                // The next reconcile is the retry.
                Err(failure) => printer.report_failure(&failure),
            }
            // With `--wait` no daemon is needed: each poll reconciles.
            tokio::time::sleep(context.poll_every()).await;
        }
    };
    let ended = tokio::select! {
        () = all => None,
        () = tokio::time::sleep(arguments.timeout.to_std().unwrap_or_default()) => Some(Exit::TimedOut),
        _ = tokio::signal::ctrl_c() => Some(Exit::Interrupted),
    };
    progress.finish();
    if let Some(exit) = ended {
        printer.warning(&waiting.unfinished(exit, &show_duration(arguments.timeout)));
    }
    Ok(waiting.output(ended))
}

/// What the jobs of a queue wait for.
fn waits_for(context: &Context, queue: &QueueName, reconciled: &Reconciled) -> String {
    let mut pools = context.config.policy.queue_pools();
    let told = pools.find(|(_, of_pool)| of_pool.name == *queue).and_then(|(pool, _)| {
        let plan = reconciled.plan.pools.iter().find(|plan| plan.pool == pool.id)?;
        let seen = reconciled.observation.pools.get(&pool.id)?;
        Some(sentence::waits_for(pool, seen, plan, reconciled.observation.at))
    });
    told.unwrap_or_else(|| "its pool could not be read".to_owned())
}

/// The jobs that `--wait` waits for.
struct Waiting {
    open: Vec<Job>,
    done: Vec<JobEntry>,
}

impl Waiting {
    /// What is said of the open jobs when the wait ends.
    fn unfinished(&self, exit: Exit, timeout: &str) -> String {
        let (open, all) = (self.open.len(), self.open.len() + self.done.len());
        let when =
            if exit == Exit::TimedOut { format!("after {timeout}") } else { "yet".to_owned() };
        let have = if all == 1 {
            "the job has no result".to_owned()
        } else {
            format!("{open} of {all} jobs have no result")
        };
        let goes_on = if open == 1 { "it continues" } else { "they continue" };
        format!(
            "{have} {when}; {goes_on}: `gpuctl jobs` lists jobs, `gpuctl explain` shows what they wait for"
        )
    }

    /// The finished jobs, in the order of the inputs: ids sort by creation.
    fn output(mut self, ended: Option<Exit>) -> Output {
        self.done.sort_by(|a, b| a.job.id.cmp(&b.job.id));
        let is_failed = self.done.iter().any(|entry| entry.state != JobState::Succeeded);
        let jobs = self.done.iter().map(JobDocument::of).collect();
        let output = Output::Results(JobsDocument { jobs });
        match ended.or(is_failed.then_some(Exit::Failed)) {
            Some(exit) => output.exit(exit),
            None => output,
        }
    }

    /// Moves the finished jobs from `open` to `done`; returns whether all are finished.
    async fn poll(&mut self, context: &Context, progress: &Progress) -> bool {
        // A listing that fails is repeated at the next poll.
        let Ok(known_open) = self.still_open(context).await else { return false };
        let mut still_open = Vec::new();
        for job in std::mem::take(&mut self.open) {
            if known_open.as_ref().is_some_and(|ids| ids.contains(&job.id)) {
                still_open.push(job);
                continue;
            }
            match context.ports.ledger.job(&job.id).await {
                Ok(Some(entry)) if entry.state.is_final() => self.done.push(entry),
                // A poll that fails is repeated: the job continues meanwhile.
                _ => still_open.push(job),
            }
        }
        self.open = still_open;
        progress.done(self.done.len());
        self.open.is_empty()
    }

    /// The jobs that still wait or run, from two listings instead of one read each; `None` where reading each is as cheap. Listings of
    /// these states have no results in them.
    async fn still_open(&self, context: &Context) -> Result<Option<BTreeSet<JobId>>, PortError> {
        let oldest = self.open.iter().map(|job| job.submitted_at).min();
        if self.open.len() < LISTED_FROM {
            return Ok(None);
        }
        let mut ids = BTreeSet::new();
        for state in [JobState::Queued, JobState::Running] {
            let filter = JobFilter { state: Some(state), limit: LIST_MAX, since: oldest };
            let listed = context.ports.ledger.jobs(filter).await?;
            // Others' jobs may have filled the listing.
            if listed.len() >= LIST_MAX as usize {
                return Ok(None);
            }
            ids.extend(listed.into_iter().map(|entry| entry.job.id));
        }
        Ok(Some(ids))
    }
}
