//! `doctor`: checks everything that a run needs, continues after failures, and says how to fix each.
//!
//! Checks that need ONNX Runtime are made by the worker; this program never loads it.

use std::path::Path;
use std::process::{Command, Stdio};

use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::{Config, ConfigError};
use gpuctl_control::ports::Clock;
use gpuctl_control::state_folder;
use gpuctl_core::policy::{Pool, Work};
use gpuctl_core::zone;
use gpuctl_local::BoxWithoutPool;
use serde::Deserialize;

use super::finding::{fail, pass, warn};
use crate::context::Context;
use crate::documents::reply::{CheckDocument, DoctorDocument};
use crate::failure::{Code, Exit, Failure};
use crate::render::Output;
use crate::worker_program::worker_program;

/// What to do with what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Report it.
    No,
    /// `--fix`: create it where gpuctl can.
    Yes,
}

/// `gpuctl doctor`.
pub(super) async fn check(config: Result<Config, ConfigError>, repair: Repair) -> Output {
    let mut checks = match config {
        Ok(config) => Box::pin(checks(config, repair)).await,
        // The worker would fail on the same file.
        Err(error) => vec![fail("configuration", &error.into())],
    };
    checks.push(time_zones());
    let failed = checks.iter().any(|check| check.status == "fail");
    let output = Output::Doctor(DoctorDocument { checks });
    if failed { output.exit(Exit::Failed) } else { output }
}

async fn checks(config: Config, repair: Repair) -> Vec<CheckDocument> {
    let file = config.file.clone();
    let mut checks = vec![pass("configuration", config.source())];
    // On AWS the worker runs on the box.
    let has_worker = config.policy.cloud.aws.is_none();
    match Context::open(config).await {
        Ok(context) => checks.extend(backend(&context, repair).await),
        Err(failure) => checks.push(fail("queue file", &failure)),
    }
    if has_worker {
        checks.extend(worker(file.as_deref()));
    }
    checks
}

/// The zones of schedules, whose rules change a few times a year.
fn time_zones() -> CheckDocument {
    match zone::aged(SystemClock.now()) {
        Some((detail, fix)) => warn("time zones", detail, fix),
        None => pass("time zones", format!("{}, published on {}", zone::VERSION, zone::RELEASED)),
    }
}

/// What boxes and queue need.
async fn backend(context: &Context, repair: Repair) -> Vec<CheckDocument> {
    let mut checks = Vec::new();
    if let Some(store) = &context.backend.store {
        let file = store.folder().join(gpuctl_local::FILE_NAME);
        checks.push(pass("queue file", file.display().to_string()));
        checks.extend(state_folder(store.folder()));
    }
    #[cfg(feature = "aws")]
    if let Some(account) = &context.backend.account {
        checks.extend(super::doctor_aws::check(context, account, repair).await);
        checks.extend(dead_letters(context).await);
        return checks;
    }
    let _ = repair;
    checks.push(daemon(context));
    checks.extend(boxes_without_pool(context));
    checks.extend(nothing_to_run(context));
    checks.extend(dead_letters(context).await);
    checks
}

fn daemon(context: &Context) -> CheckDocument {
    if context.has_daemon() {
        return pass("daemon", "`gpuctl run` is running".to_owned());
    }
    warn(
        "daemon",
        "`gpuctl run` is not running: boxes start only with `submit` and `start`",
        "start `gpuctl run`, as a service if it should keep running without this terminal",
    )
}

/// A state folder that other users may look into: it holds jobs, results and logs.
fn state_folder(folder: &Path) -> Option<CheckDocument> {
    let mode = state_folder::mode_open_to_others(folder).ok().flatten()?;
    let folder = folder.display();
    Some(warn(
        "state folder",
        format!("other users can look into {folder}, whose mode is {mode:03o}"),
        format!("chmod 700 {folder}"),
    ))
}

/// Boxes that run although their pool was removed from the configuration.
fn boxes_without_pool(context: &Context) -> Vec<CheckDocument> {
    let Some(store) = &context.backend.store else { return Vec::new() };
    let boxes = match store.boxes_without_pool(&context.config.policy) {
        Ok(boxes) => boxes,
        Err(error) => return vec![fail("boxes", &error.into())],
    };
    let check = |found: BoxWithoutPool| CheckDocument {
        name: "boxes",
        status: "fail",
        detail: format!(
            "`{}` is running, but its pool is not in the configuration: nothing will stop it",
            found.name
        ),
        fix: Some(match found.pid {
            Some(pid) => format!("kill process {pid}, or restore the pool and stop it"),
            None => "restore the pool and stop it".to_owned(),
        }),
    };
    boxes.into_iter().map(check).collect()
}

/// Pools that have nothing to run on this machine.
fn nothing_to_run(context: &Context) -> Vec<CheckDocument> {
    let pools = context.config.policy.pools.iter().filter(|pool| pool.work == Work::BoxOnly);
    let check = |pool: &Pool| {
        warn(
            "boxes",
            format!(
                "pool `{}` has only a schedule: there is nothing to run on this machine",
                pool.id
            ),
            "give it a `queue` or a `command` to run something here",
        )
    };
    pools.map(check).collect()
}

async fn dead_letters(context: &Context) -> Vec<CheckDocument> {
    let mut checks = Vec::new();
    for (pool, queue) in context.config.policy.queue_pools() {
        match context.ports.queue.counts(&queue.name).await {
            Ok(counts) if counts.dead > 0 => checks.push(warn(
                "dead jobs",
                format!("{} in queue `{}`", counts.dead, queue.name),
                format!(
                    "`gpuctl jobs --state dead` lists them, `gpuctl redrive {}` sends them back to the queue",
                    pool.id
                ),
            )),
            Ok(_) => checks.push(pass("dead jobs", format!("none in queue `{}`", queue.name))),
            Err(error) => checks.push(fail("dead jobs", &error.into())),
        }
    }
    checks
}

/// A check as `gpu-worker check --json` prints it.
#[derive(Deserialize)]
struct WorkerCheck {
    name: String,
    ok: bool,
    detail: String,
    fix: Option<String>,
}

fn worker(config: Option<&std::path::Path>) -> Vec<CheckDocument> {
    let program = worker_program();
    let mut command = Command::new(&program);
    command.args(["check", "--json"]).stdin(Stdio::null());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            let failure =
                Failure::new(Code::WorkerMissing, format!("cannot run {}", program.display()))
                    .because(&error);
            return vec![fail(
                "worker",
                &failure.hint("put gpu-worker next to gpuctl, or on the PATH"),
            )];
        }
    };
    let Ok(found) = serde_json::from_slice::<Vec<WorkerCheck>>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return vec![fail(
            "worker",
            &Failure::new(Code::WorkerFailed, format!("{} failed: {said}", program.display())),
        )];
    };
    let mut checks = vec![pass("worker", program.display().to_string())];
    checks.extend(found.into_iter().map(|check| CheckDocument {
        name: match check.name.as_str() {
            "runtime" => "ONNX Runtime",
            "device" => "device",
            "formats" => "formats",
            _ => "model",
        },
        status: if check.ok { "pass" } else { "fail" },
        detail: check.detail,
        fix: check.fix,
    }));
    checks
}
