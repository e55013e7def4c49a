//! The commands. Each returns a document; none prints, but for progress through the printer.

mod cost;
mod doctor;
#[cfg(feature = "aws")]
mod doctor_aws;
mod faults;
mod hold;
#[cfg(feature = "aws")]
mod invoke;
mod jobs;
mod logs;
mod models;
mod prices;
mod queue;
mod run;
mod schedule;
mod simulate;
mod status;
mod submit;
#[cfg(feature = "aws")]
mod upload;

use std::path::Path;

use gpuctl_control::config::Config;
use gpuctl_core::observation::HoldWants;
use gpuctl_core::policy::DEFAULT_TEXT;
use gpuctl_core::units::PoolId;

use crate::arguments::{Arguments, Command, HistoryCommand, InvokeArguments};
use crate::context::Context;
use crate::documents::reply::InitDocument;
use crate::failure::{Exit, Failure};
use crate::render::{Output, Printer};

/// Runs the command.
pub(crate) async fn run(arguments: Arguments, printer: &Printer) -> Result<Output, Failure> {
    let config = Config::load(arguments.config.as_deref());
    let context = match &arguments.command {
        Command::Init { path } => return init(path),
        Command::Doctor { fix } => return Ok(Box::pin(doctor::check(config, *fix)).await),
        Command::Models(command) => return models::run(config?.file.as_deref(), command),
        Command::Invoke(wanted) => return invoke(&config?, wanted).await,
        _ => Context::open(config?).await?,
    };
    let named = |name: &str| name.parse::<PoolId>().expect("the seeds' pool names are names");
    let all = || context.config.policy.pools.iter().map(|pool| pool.id.clone()).collect();
    match arguments.command {
        Command::Status { pool } => status::status(&context, pool.as_ref()).await,
        Command::StartAll(hold) => {
            hold::hold(&context, printer, all(), HoldWants::Running, &hold).await
        }
        Command::StartApp(hold) => {
            hold::hold(&context, printer, vec![named("app")], HoldWants::Running, &hold).await
        }
        Command::StartGpu(hold) => {
            hold::hold(&context, printer, vec![named("gpu")], HoldWants::Running, &hold).await
        }
        Command::StopAll(hold) => {
            hold::hold(&context, printer, all(), HoldWants::Stopped, &hold).await
        }
        Command::StopApp(hold) => {
            hold::hold(&context, printer, vec![named("app")], HoldWants::Stopped, &hold).await
        }
        Command::StopGpu(hold) => {
            hold::hold(&context, printer, vec![named("gpu")], HoldWants::Stopped, &hold).await
        }
        Command::Start { pool, hold } => {
            hold::hold(&context, printer, vec![pool], HoldWants::Running, &hold).await
        }
        Command::Stop { pool, hold } => {
            hold::hold(&context, printer, vec![pool], HoldWants::Stopped, &hold).await
        }
        Command::Logs(wanted) => Box::pin(logs::logs(&context, printer, &wanted)).await,
        Command::Release { pool } => hold::release(&context, printer, &pool).await,
        Command::Retire { r#box } => hold::retire(&context, printer, &r#box, arguments.yes).await,
        Command::Submit(submit) => submit::submit(&context, printer, &submit).await,
        Command::Jobs { state, limit } => jobs::list(&context, state.as_deref(), limit).await,
        Command::Job { id } => jobs::show(&context, &id).await,
        Command::Queue => queue::counts(&context).await,
        Command::Redrive { pool } => queue::redrive(&context, printer, pool.as_ref()).await,
        Command::Purge { pool, dead } => {
            queue::purge(&context, printer, &pool, dead, arguments.yes).await
        }
        Command::Plan { pool, at, exit_code } => {
            let at = at.map(|at| context.time(&at)).transpose()?;
            let answer = status::plan(&context, pool.as_ref(), at).await?;
            let pending = exit_code && answer.changes_pending();
            Ok(if pending { answer.exit(Exit::ChangesPending) } else { answer })
        }
        Command::Explain { pool } => status::explain(&context, &pool).await,
        Command::Schedule(command) => schedule::run(&context, &command),
        Command::Simulate(wanted) => simulate::run(&context.config.policy.cost, &wanted, printer),
        Command::Tune(wanted) => simulate::tune(&context.config.policy.cost, &wanted),
        Command::History(HistoryCommand::Export { path, since }) => {
            simulate::export(&context, &path, since).await
        }
        Command::Run => run::watch(&context, printer).await,
        Command::Cost(command) => cost::run(&context, command).await,
        Command::Init { .. } | Command::Doctor { .. } | Command::Models(_) | Command::Invoke(_) => {
            unreachable!("answered above")
        }
    }
}

#[cfg(feature = "aws")]
async fn invoke(config: &Config, wanted: &InvokeArguments) -> Result<Output, Failure> {
    Box::pin(invoke::invoke(config, wanted)).await
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it asks")]
async fn invoke(_: &Config, _: &InvokeArguments) -> Result<Output, Failure> {
    Err(Failure::usage("this gpuctl was built without AWS")
        .hint("build it with the feature `aws`, which is on by default"))
}

fn init(path: &Path) -> Result<Output, Failure> {
    use std::io::Write;
    let shown = path.display().to_string();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(DEFAULT_TEXT.as_bytes())).map_err(|error| {
        let failure = Failure::new(format!("cannot write {shown}")).because(&error);
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            failure.hint("it is there already; name another path")
        } else {
            failure
        }
    })?;
    Ok(Output::Init(InitDocument { path: shown }))
}
