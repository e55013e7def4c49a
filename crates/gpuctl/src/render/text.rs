//! Output as text. Everything shown comes from the same documents as the JSON.

use std::fmt::Write;

use chrono::{Local, TimeDelta};
use gpuctl_control::job::{InputLocation, InputUri};
use gpuctl_control::wire::ReasonDocument;
use gpuctl_control::wire::explain::ExplainDocument;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_control::wire::plan::{
    NextChangeDocument, PlanDocument, PoolPlanDocument, RunDocument, VerdictDocument,
};
use gpuctl_control::wire::status::{BoxDocument, PoolDocument, QueueDocument, StatusDocument};
use gpuctl_core::units::{Timestamp, show_span};
use serde_json::Value;

#[cfg(feature = "aws")]
use super::function;
use super::{Output, logs, models, schedule, simulate};
use crate::documents::reply::{
    CostReportDocument, DoctorDocument, EstimateDocument, JobsDocument, PricesDocument,
    QueuesDocument,
};
use crate::failure::Failure;

/// The width of labels, in columns.
const LABEL_WIDTH: usize = 9;

/// The output's text, if it has one.
pub(super) fn output(output: &Output) -> Option<String> {
    match output {
        Output::Status(status) => Some(self::status(&status.document)),
        #[cfg(feature = "aws")]
        Output::Invoked(document) => Some(function::invoked(document)),
        Output::Logs(document) => Some(logs::logs(document)),
        Output::Plan(plan) => Some(self::plan(&plan.document)),
        Output::Explain(document) => Some(explain(document)),
        Output::Submitted(document) => Some(format!(
            "{} sent to queue `{}`\n{}",
            jobs_of(document.job_ids.len() as u64),
            document.queue,
            document.job_ids.join("\n")
        )),
        Output::Results(document) => {
            Some(document.jobs.iter().map(job).collect::<Vec<_>>().join("\n"))
        }
        Output::Jobs(document) => Some(jobs(document)),
        Output::Job(document) => Some(job(document)),
        Output::Queues(document) => Some(queues(document)),
        Output::Moved(moved) => Some(format!(
            "{}: {} of queue `{}`",
            moved.action,
            jobs_of(moved.messages),
            moved.queue
        )),
        Output::ScheduleAt(document) => Some(schedule::at(document)),
        Output::ScheduleShow(document) => Some(schedule::show(document)),
        Output::ScheduleLint(document) => Some(schedule::lint(document)),
        Output::CostReport(document) => Some(cost_report(document)),
        Output::Estimate(document) => Some(estimate(document)),
        Output::Simulation(document) => Some(simulate::simulation(document)),
        Output::FaultSimulation(document) => Some(simulate::faults(document)),
        Output::Tuning(document) => Some(simulate::tuning(document)),
        Output::Exported { path, jobs } => {
            Some(format!("wrote {jobs} jobs to {path}; next: `gpuctl simulate --demand {path}`"))
        }
        Output::Prices(document) => Some(prices(document)),
        Output::Init(document) => Some(format!(
            "wrote {}; next: `gpuctl submit voice.transcribe FILE --wait`",
            document.path
        )),
        Output::Doctor(document) => Some(doctor(document)),
        Output::Models(document) => Some(models::list(document)),
        Output::ModelsVerified(document) => Some(models::verified(document)),
        Output::ModelsPulled(document) => Some(models::pulled(document)),
        Output::ModelsBench(document) => Some(models::bench(document)),
        Output::Nothing => None,
        Output::WithExit(inner, _) => self::output(inner),
    }
}

/// `error: …`, its causes, and after a blank line the hint.
pub(super) fn failure(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", failure.message);
    for cause in &failure.causes {
        let _ = writeln!(text, "  caused by: {cause}");
    }
    if let Some(hint) = &failure.hint {
        let _ = write!(text, "\nhint: {hint}");
    }
    text
}

/// A time of day in local time.
pub(super) fn clock(at: Timestamp) -> String {
    at.with_timezone(&Local).format("%H:%M:%S").to_string()
}

/// A finished job in one line.
pub(super) fn job_line(job: &JobDocument) -> String {
    let took = match (job.wait_seconds, job.run_seconds) {
        (Some(wait), Some(run)) => format!(", waited {wait:.1} s, ran {run:.1} s"),
        _ => String::new(),
    };
    format!("{} {} ({}{took})", job.state, file_name(job), job.task)
}

fn status(document: &StatusDocument) -> String {
    let mut text = String::new();
    for pool in &document.pools {
        let _ = writeln!(text, "{}: {}", pool.pool, pool.state);
        self::pool(&mut text, pool);
    }
    errors(&mut text, &document.errors);
    text
}

fn errors(text: &mut String, errors: &[String]) {
    for error in errors {
        let _ = writeln!(text, "not read: {error}");
    }
}

fn jobs_of(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

pub(super) fn pool(text: &mut String, pool: &PoolDocument) {
    boxes(text, &pool.boxes);
    queue_line(text, pool.queue.as_ref());
    if let Some(hold) = &pool.hold {
        line(text, "hold", &format!("{} until {}, by {}", hold.wants, short(&hold.until), hold.by));
    }
    if let Some(run) = &pool.last_run {
        last_run(text, run);
    }
    reasons(text, "blocked", &pool.blocked);
    next(text, pool.next_change.as_ref());
}

fn boxes(text: &mut String, boxes: &[BoxDocument]) {
    for one in boxes {
        let since = match &one.since {
            Some(_) => format!(" for {}", span(one.seconds_in_state.unwrap_or_default())),
            None => ", never ran".to_owned(),
        };
        let held = one
            .jobs_held
            .map(|jobs| format!(", holds {}", jobs_of(u64::from(jobs))))
            .unwrap_or_default();
        line(text, "box", &format!("{} {}{since}{held}", one.r#box, one.state));
    }
}

fn queue_line(text: &mut String, queue: Option<&QueueDocument>) {
    if let Some(queue) = queue {
        line(text, "queue", &counts(queue));
    }
}

fn counts(queue: &QueueDocument) -> String {
    let oldest =
        queue.oldest_age_seconds.map(|age| format!(" (oldest {})", span(age))).unwrap_or_default();
    format!(
        "{} waiting{oldest}, {} in flight, {} delayed, {} dead",
        queue.visible, queue.in_flight, queue.delayed, queue.dead
    )
}

fn last_run(text: &mut String, run: &RunDocument) {
    let reason = |reason: &ReasonDocument| format!("{}: {}", reason.rule, reason.text);
    line(text, "started", &format!("{} by {}", short(&run.started_at), reason(&run.started_by)));
    match (&run.stopped_by, &run.stopped_at) {
        (Some(by), at) => line(
            text,
            "stopped",
            &format!(
                "{} by {}",
                at.as_deref().map(short).unwrap_or("in progress".to_owned()),
                reason(by)
            ),
        ),
        (None, Some(at)) => {
            let why =
                run.error.as_deref().unwrap_or("not stopped by gpuctl: it was killed or crashed");
            line(text, "ended", &format!("{}: {why}", short(at)));
        }
        (None, None) => {}
    }
}

fn next(text: &mut String, next: Option<&NextChangeDocument>) {
    if let Some(next) = next {
        let (at, reason) = (short(&next.at), &next.reason);
        line(text, "next", &format!("{at} {}: {}", reason.rule, reason.text));
    }
}

fn reasons(text: &mut String, label: &str, reasons: &[ReasonDocument]) {
    for reason in reasons {
        line(text, label, &format!("{}: {}", reason.rule, reason.text));
    }
}

fn plan(document: &PlanDocument) -> String {
    let mut text = String::new();
    for pool in &document.pools {
        let boxes = pool.boxes_wanted;
        let s = if boxes == 1 { "box" } else { "boxes" };
        let _ = writeln!(text, "{}: wants {boxes} {s} at {}", pool.pool, short(&document.at));
        pool_plan(&mut text, pool);
        rules(&mut text, pool);
    }
    errors(&mut text, &document.errors);
    text
}

fn pool_plan(text: &mut String, pool: &PoolPlanDocument) {
    for action in &pool.actions {
        line(
            text,
            action.action,
            &format!("{} because {}: {}", action.r#box, action.reason.rule, action.reason.text),
        );
    }
    if pool.actions.is_empty() {
        line(text, "now", "nothing to do");
    }
    reasons(text, "blocked", &pool.blocked);
    match &pool.next_change {
        Some(change) => next(text, Some(change)),
        None => line(text, "next", "nothing scheduled: a job, a schedule or a command changes it"),
    }
}

fn rules(text: &mut String, pool: &PoolPlanDocument) {
    text.push_str("  rules, in order:\n");
    for verdict in &pool.verdicts {
        let _ = writeln!(text, "    {:<13}{:<12}{}", verdict.rule, verdict.effect, verdict.text);
    }
}

fn explain(document: &ExplainDocument) -> String {
    let plan = &document.plan;
    let mut text = format!("{} is {} at {}\n", plan.pool, document.state, short(&document.at));
    boxes(&mut text, &document.boxes);
    queue_line(&mut text, document.queue.as_ref());
    if let Some(run) = &document.last_run {
        last_run(&mut text, run);
    }
    let up = matches!(document.state, "running" | "pending");
    let holds_it = |verdict: &&VerdictDocument| {
        verdict.effect.starts_with("at least") || verdict.effect == "keep"
    };
    for verdict in plan.verdicts.iter().filter(holds_it).filter(|_| up) {
        line(&mut text, "stays up", &format!("{}: {}", verdict.rule, verdict.text));
    }
    pool_plan(&mut text, plan);
    rules(&mut text, plan);
    errors(&mut text, &document.errors);
    text
}

fn jobs(document: &JobsDocument) -> String {
    if document.jobs.is_empty() {
        return "no jobs".to_owned();
    }
    let mut text = format!(
        "{:<36}  {:<9}  {:<16}  {:>7}  {:>7}  INPUT\n",
        "JOB", "STATE", "TASK", "WAITED", "RAN"
    );
    for job in &document.jobs {
        let seconds =
            |value: Option<f64>| value.map(|value| format!("{value:.1} s")).unwrap_or_default();
        let (waited, ran) = (seconds(job.wait_seconds), seconds(job.run_seconds));
        let _ = writeln!(
            text,
            "{}  {:<9}  {:<16}  {waited:>7}  {ran:>7}  {}",
            job.job_id,
            job.state,
            job.task,
            file_name(job)
        );
    }
    text
}

fn job(job: &JobDocument) -> String {
    let mut text = format!("{}\n", job_line(job));
    line(&mut text, "job", &job.job_id);
    if let (Some(model), Some(device), Some(name)) = (&job.model, &job.device, &job.r#box) {
        let inference = job.inference_seconds.unwrap_or_default();
        line(&mut text, "model", &format!("{model} on {device}, {inference:.2} s on {name}"));
    }
    if let Some(error) = &job.error {
        line(&mut text, "error", &format!("{} [{}]", error.message, error.code));
        if let Some(hint) = &error.hint {
            line(&mut text, "hint", hint);
        }
    }
    let result =
        job.output.as_ref().and_then(|output| output.get("text")).and_then(|text| text.as_str());
    for (index, words) in result.unwrap_or_default().lines().enumerate() {
        line(&mut text, if index == 0 { "text" } else { "" }, words);
    }
    let files = job.output.as_ref().and_then(|output| output.get("files"));
    for (index, file) in files.and_then(Value::as_array).into_iter().flatten().enumerate() {
        line(&mut text, if index == 0 { "files" } else { "" }, &file_line(file));
    }
    text
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

fn queues(document: &QueuesDocument) -> String {
    let mut text = String::new();
    for queue in &document.queues {
        let _ = writeln!(text, "{} (pool {}): {}", queue.queue, queue.pool, counts(&queue.counts));
    }
    text
}

fn cost_report(document: &CostReportDocument) -> String {
    let mut text = format!("from {} until {}\n", short(&document.since), short(&document.until));
    let jobs = document.jobs;
    line(
        &mut text,
        "jobs",
        &format!(
            "{} submitted: {} succeeded, {} failed, {} dead, {} purged, {} open",
            jobs.submitted, jobs.succeeded, jobs.failed, jobs.dead, jobs.purged, jobs.open
        ),
    );
    if let (Some(p50), Some(p95), Some(max)) =
        (document.wait_seconds_p50, document.wait_seconds_p95, document.wait_seconds_max)
    {
        line(&mut text, "waits", &format!("p50 {p50:.1} s, p95 {p95:.1} s, longest {max:.1} s"));
    }
    let starts = if document.starts == 1 {
        "1 start".to_owned()
    } else {
        format!("{} starts", document.starts)
    };
    line(
        &mut text,
        "box time",
        &format!(
            "{} s in {starts}; EC2 bills at least 60 s per start: {} s",
            document.box_seconds, document.billed_seconds
        ),
    );
    line(
        &mut text,
        "cost",
        &format!(
            "${:.4} for boxes, by purchase option (on this machine: as on-demand)",
            document.box_usd
        ),
    );
    if document.standing_usd > 0.0 {
        let words = format!(
            "${:.4} for disks and addresses, which also cost while boxes are stopped",
            document.standing_usd
        );
        line(&mut text, "standing", &words);
    }
    let price = &document.priced_as;
    let _ = writeln!(
        text,
        "the same on {} in {} ({}):",
        price.instance_type, price.region, price.origin
    );
    let month = |usd: f64| format!("${usd:.2} per month of such days");
    if let (Some(spot), Some(hour), Some(spot_month)) =
        (document.spot_usd, price.spot_usd_hour, document.spot_usd_month)
    {
        line(&mut text, "spot", &format!("${spot:.4} at ${hour:.4}/h; {}", month(spot_month)));
    }
    let (usd, hour) = (document.on_demand_usd, price.on_demand_usd_hour);
    line(
        &mut text,
        "on-demand",
        &format!("${usd:.4} at ${hour:.4}/h; {}", month(document.on_demand_usd_month)),
    );
    let (usd, usd_month) = (document.always_on_usd, document.always_on_usd_month);
    line(&mut text, "always on", &format!("${usd:.4} on-demand; ${usd_month:.2} per month"));
    text
}

fn estimate(document: &EstimateDocument) -> String {
    let mut text = format!(
        "{} {} in {}, ${:.4} an hour ({})\n",
        document.capacity,
        document.instance_type,
        document.region,
        document.usd_hour,
        document.usd_hour_from
    );
    let width = document
        .components
        .iter()
        .map(|part| part.name.len())
        .max()
        .unwrap_or(0)
        .max("always on".len());
    for part in &document.components {
        let _ = writeln!(
            text,
            "  {:<width$} {:>9}  {}",
            part.name,
            format!("${:.2}", part.usd_month),
            part.detail
        );
    }
    let _ = writeln!(
        text,
        "  {:<width$} {:>9}  per month",
        "total",
        format!("${:.2}", document.usd_month)
    );
    let always = format!("${:.2}", document.always_on_usd_month);
    let _ = writeln!(
        text,
        "  {:<width$} {always:>9}  the same box running for 30 days, nothing else",
        "always on"
    );
    text
}

fn prices(document: &PricesDocument) -> String {
    let mut text = format!(
        "{:<14}{:<18}{:>12}{:>10}  {:<12}TABLE\n",
        "TYPE", "REGION", "ON-DEMAND/H", "SPOT/H", "AS OF"
    );
    for price in &document.prices {
        let spot = price.spot_usd_hour.map_or("n/a".to_owned(), |spot| format!("${spot:.4}"));
        let _ = writeln!(
            text,
            "{:<14}{:<18}{:>12}{spot:>10}  {:<12}{}",
            price.instance_type,
            price.region,
            format!("${:.4}", price.on_demand_usd_hour),
            price.as_of,
            price.table
        );
    }
    if let Some(path) = &document.kept_in {
        let _ = writeln!(text, "saved to {path}; they replace the shipped prices");
    }
    text
}

fn doctor(document: &DoctorDocument) -> String {
    let mut text = String::new();
    for check in &document.checks {
        let _ = writeln!(text, "{:<5}{:<14}{}", check.status, check.name, check.detail);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:<19}fix: {fix}", "");
        }
    }
    text
}

pub(super) fn line(text: &mut String, label: &str, words: &str) {
    let _ = writeln!(text, "  {label:<LABEL_WIDTH$} {words}");
}

fn file_name(job: &JobDocument) -> String {
    job.input.parse::<InputUri>().map(|uri| uri.file_name()).unwrap_or_else(|_| job.input.clone())
}

fn span(seconds: f64) -> String {
    let ms = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    show_span(TimeDelta::from_std(ms).unwrap_or_default())
}

/// A document's time in local time.
pub(super) fn short(rfc3339: &str) -> String {
    let Ok(at) = rfc3339.parse::<Timestamp>() else { return rfc3339.to_owned() };
    let local = at.with_timezone(&Local);
    local.format("%Y-%m-%d %H:%M:%S").to_string()
}
