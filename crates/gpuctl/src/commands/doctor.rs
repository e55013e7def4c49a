//! `doctor`: checks everything that a run needs, goes on after failures, and says how to mend each.
//!
//! What needs ONNX Runtime is asked of the worker, which has it; this program never loads it.

use std::path::Path;
use std::process::{Command, Stdio};

use gpuctl_control::config::{Config, ConfigError};
use gpuctl_control::state_folder;
use gpuctl_core::policy::{Pool, Work};
use gpuctl_local::BoxWithoutPool;
use serde::Deserialize;

use crate::context::{Context, worker_program};
use crate::documents::reply::{CheckDocument, DoctorDocument};
use crate::failure::{Exit, Failure};
use crate::render::Answer;

/// `gpuctl doctor`.
pub(crate) async fn check(config: Result<Config, ConfigError>, mend: bool) -> Answer {
    let mut checks = Vec::new();
    // There the worker is on the box.
    let on_aws = config.as_ref().is_ok_and(|config| config.policy.cloud.aws.is_some());
    let file = match config {
        Ok(config) => {
            let file = config
                .file
                .as_ref()
                .map_or("the built-in default".to_owned(), |file| file.display().to_string());
            checks.push(pass("configuration", file));
            let path = config.file.clone();
            match Context::open(config).await {
                Ok(context) => checks.extend(backend(&context, mend).await),
                Err(failure) => checks.push(fail("queue file", &failure)),
            }
            path
        }
        Err(error) => {
            // The worker would stumble over the same file.
            return Answer::Doctor(DoctorDocument {
                checks: vec![fail("configuration", &error.into())],
            })
            .exit(Exit::Failed);
        }
    };
    if !on_aws {
        checks.extend(worker(file.as_deref()));
    }
    let failed = checks.iter().any(|check| check.status == "fail");
    let answer = Answer::Doctor(DoctorDocument { checks });
    if failed { answer.exit(Exit::Failed) } else { answer }
}

/// What the place of boxes and queue needs.
async fn backend(context: &Context, mend: bool) -> Vec<CheckDocument> {
    let mut checks = Vec::new();
    if let Some(store) = &context.backend.store {
        let file = store.folder().join(gpuctl_local::FILE_NAME);
        checks.push(pass("queue file", file.display().to_string()));
        checks.extend(state_folder(store.folder()));
    }
    #[cfg(feature = "aws")]
    if let Some(account) = &context.backend.account {
        checks.extend(super::doctor_aws::check(context, account, mend).await);
        checks.extend(dead_letters(context).await);
        return checks;
    }
    let _ = mend;
    checks.push(daemon(context));
    checks.extend(boxes_without_pool(context));
    checks.extend(elsewhere(context));
    checks.extend(dead_letters(context).await);
    checks
}

fn daemon(context: &Context) -> CheckDocument {
    if context.has_daemon() {
        return pass("daemon", "`gpuctl run` is at work".to_owned());
    }
    CheckDocument {
        name: "daemon",
        status: "warn",
        detail: "`gpuctl run` is not at work: boxes start only with `submit` and `start`"
            .to_owned(),
        fix: Some("run `gpuctl run`, as a service if it should outlive this terminal".to_owned()),
    }
}

/// A state folder that other users may look into: it holds jobs, results and logs.
fn state_folder(folder: &Path) -> Option<CheckDocument> {
    let mode = state_folder::mode_open_to_others(folder).ok().flatten()?;
    let folder = folder.display();
    Some(CheckDocument {
        name: "state folder",
        status: "warn",
        detail: format!("other users can look into {folder}, whose mode is {mode:03o}"),
        fix: Some(format!("chmod 700 {folder}")),
    })
}

/// Boxes that a change of the configuration left behind.
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
            Some(pid) => format!("end process {pid}, or put the pool back and stop it"),
            None => "put the pool back and stop it".to_owned(),
        }),
    };
    boxes.into_iter().map(check).collect()
}

/// Pools of which nothing runs on this machine.
fn elsewhere(context: &Context) -> Vec<CheckDocument> {
    let pools = context.config.policy.pools.iter().filter(|pool| pool.work == Work::BoxOnly);
    let check = |pool: &Pool| CheckDocument {
        name: "boxes",
        status: "warn",
        detail: format!(
            "pool `{}` has a schedule alone: this machine has nothing to run for it",
            pool.id
        ),
        fix: Some("give it a `queue` or a `command` if something should run here".to_owned()),
    };
    pools.map(check).collect()
}

async fn dead_letters(context: &Context) -> Vec<CheckDocument> {
    let mut checks = Vec::new();
    for (pool, queue) in context.config.policy.queue_pools() {
        match context.ports.queue.counts(&queue.name).await {
            Ok(counts) if counts.dead > 0 => checks.push(CheckDocument {
                name: "dead jobs",
                status: "warn",
                detail: format!("{} in queue `{}`", counts.dead, queue.name),
                fix: Some(format!(
                    "`gpuctl jobs --state dead` shows them, `gpuctl redrive {}` tries them again",
                    pool.id
                )),
            }),
            Ok(_) => checks.push(pass("dead jobs", format!("none in queue `{}`", queue.name))),
            Err(error) => checks.push(fail("dead jobs", &error.into())),
        }
    }
    checks
}

/// What the worker says of itself.
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
    command.arg("check").stdin(Stdio::null());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            let failure = Failure::new(format!("cannot run {}", program.display())).because(&error);
            return vec![fail(
                "worker",
                &failure.hint("put gpu-worker beside gpuctl, or into the search path"),
            )];
        }
    };
    let Ok(found) = serde_json::from_slice::<Vec<WorkerCheck>>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return vec![fail(
            "worker",
            &Failure::new(format!("{} broke off: {said}", program.display())),
        )];
    };
    let mut checks = vec![pass("worker", program.display().to_string())];
    checks.extend(found.into_iter().map(|check| CheckDocument {
        name: match check.name.as_str() {
            "runtime" => "ONNX Runtime",
            "device" => "device",
            _ => "model",
        },
        status: if check.ok { "pass" } else { "fail" },
        detail: check.detail,
        fix: check.fix,
    }));
    checks
}

pub(super) fn pass(name: &'static str, detail: String) -> CheckDocument {
    CheckDocument { name, status: "pass", detail, fix: None }
}

pub(super) fn fail(name: &'static str, failure: &Failure) -> CheckDocument {
    let causes = failure.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
    CheckDocument {
        name,
        status: "fail",
        detail: format!("{}{causes}", failure.message),
        fix: failure.hint.clone(),
    }
}
