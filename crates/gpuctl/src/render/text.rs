//! Output as text. Everything shown comes from the same documents as the JSON.

#[cfg(feature = "aws")]
use super::function;
#[cfg(feature = "deploy")]
use super::stack;
use super::words::{Lines, jobs_of};
use super::{Output, config, cost, jobs, keys, logs, models, schedule, simulate, status};
use crate::documents::reply::{CopiedDocument, DoctorDocument, MovedDocument, SubmittedDocument};
use crate::documents::simulate::ExportedDocument;
use crate::failure::Failure;

/// The most causes of an error that are shown: a configuration can have hundreds.
const CAUSES_MAX: usize = 50;

/// The output's text, if it has one.
pub(super) fn output(output: &Output) -> Option<Lines> {
    Some(match output {
        Output::Status(document) => status::status(&document.document),
        #[cfg(feature = "aws")]
        Output::Invoked(document) => function::invoked(document),
        Output::Logs(document) => logs::logs(document),
        Output::Plan(document) => status::plan(&document.document),
        Output::Explain(document) => status::explain(document),
        Output::Submitted(document) => submitted(document),
        Output::Results(document) => jobs::results(document),
        Output::Jobs(document) => jobs::list(document),
        Output::Job(document) => jobs::job(document),
        Output::Retried(document) => jobs::retried(document),
        Output::Cancelled(document) => jobs::cancelled(document),
        Output::Deleted(document) => {
            Lines::of(format!("{} deleted, with results and files", jobs_of(document.jobs as u64)))
        }
        Output::Queues(document) => jobs::queues(document),
        Output::KeyCreated(document) => keys::created(document),
        Output::Keys(document) => keys::list(document),
        Output::Moved(document) => moved(document),
        Output::Copied(document) => copied(document),
        Output::ScheduleAt(document) => schedule::at(document),
        Output::ScheduleShow(document) => schedule::show(document),
        Output::ScheduleLint(document) => schedule::lint(document),
        Output::CostReport(document) => cost::report(document),
        Output::CostForecast(document) => cost::forecast(document),
        Output::Estimate(document) => cost::estimate(document),
        Output::Prices(document) => cost::prices(document),
        #[cfg(feature = "deploy")]
        Output::StackCost(document) => stack::cost(document),
        #[cfg(feature = "deploy")]
        Output::Difference(document) => stack::difference(document),
        #[cfg(feature = "deploy")]
        Output::Deployed(document) => stack::deployed(document),
        #[cfg(feature = "deploy")]
        Output::StackExport(document) => stack::export(document),
        #[cfg(feature = "deploy")]
        Output::Destroyed(document) => stack::destroyed(document),
        Output::Simulation(document) => simulate::simulation(document),
        Output::FaultSimulation(document) => simulate::faults(document),
        Output::Tuning(document) => simulate::tuning(document),
        Output::Exported(document) => exported(document),
        Output::ConfigPath(document) => config::path(document),
        Output::ConfigShow(document) => config::show(document),
        Output::ConfigValid(document) => config::valid(document),
        Output::ConfigSchema(schema) => Lines::verbatim(super::json(schema)),
        Output::ExplainedJob(document) => jobs::explained(document),
        Output::ExplainedCode(document) => jobs::code(document),
        Output::Init(document) => Lines::of(format!(
            "wrote {}; next: `gpuctl submit voice.transcribe FILE --wait`",
            document.path
        )),
        Output::Doctor(document) => doctor(document),
        Output::Models(document) => models::list(document),
        Output::ModelsVerified(document) => models::verified(document),
        Output::ModelsPulled(document) => models::pulled(document),
        Output::ModelsBench(document) => models::bench(document),
        Output::Script(script) => Lines::verbatim(script.script.clone()),
        Output::ManPages(document) => Lines::of(format!(
            "wrote man pages to {folder}; next: `man -l {folder}/gpuctl.1`",
            folder = document.folder
        )),
        Output::Version(_) => Lines::of(format!("gpuctl {}", crate::version::version())),
        Output::Overview => Lines::verbatim(crate::arguments::overview()),
        Output::Nothing => return None,
        Output::WithExit(inner, _) => return self::output(inner),
    })
}

fn exported(document: &ExportedDocument) -> Lines {
    Lines::of(format!(
        "wrote {} to {path}; next: `gpuctl simulate --demand {path}`",
        jobs_of(document.jobs as u64),
        path = document.path
    ))
}

/// `error: …`, its causes, and after a blank line the hint.
pub(super) fn failure(failure: &Failure) -> Lines {
    let mut lines = Lines::of(format!("error: {}", failure.message));
    for cause in failure.causes.iter().take(CAUSES_MAX) {
        lines.add(format!("  caused by: {cause}"));
    }
    let more = failure.causes.len().saturating_sub(CAUSES_MAX);
    if more > 0 {
        lines.add(format!("  and {more} more; --json shows all"));
    }
    if let Some(hint) = &failure.hint {
        lines.blank();
        lines.add(format!("hint: {hint}"));
    }
    lines
}

fn submitted(document: &SubmittedDocument) -> Lines {
    let jobs = jobs_of(document.job_ids.len() as u64);
    let mut lines = Lines::of(format!("{jobs} sent to queue `{}`", document.queue));
    document.job_ids.iter().for_each(|id| lines.add(id));
    lines
}

fn moved(document: &MovedDocument) -> Lines {
    let jobs = jobs_of(document.messages);
    let mut lines = Lines::of(format!("{}: {jobs} of queue `{}`", document.action, document.queue));
    if document.action == "purge" {
        lines.add("finished jobs stay; `gpuctl jobs delete --before TIME` deletes those");
    }
    lines
}

fn copied(document: &CopiedDocument) -> Lines {
    let CopiedDocument { action, path, jobs, files, .. } = document;
    let mut lines =
        Lines::of(format!("{action}: {} and {files} files of results in {path}", jobs_of(*jobs)));
    if let Some(folder) = &document.replaced {
        lines.add(format!("what was there is in {folder}"));
    }
    document.missing.iter().for_each(|one| lines.add(format!("not copied: {one}")));
    lines
}

fn doctor(document: &DoctorDocument) -> Lines {
    let mut lines = Lines::default();
    for check in &document.checks {
        lines.add(format!("{:<5}{:<14}{}", check.status, check.name, check.detail));
        if let Some(fix) = &check.fix {
            lines.add(format!("{:<19}fix: {fix}", ""));
        }
    }
    lines
}
