//! The commands. Each returns its output; none prints, except for progress through the printer.

mod backup;
mod cancel;
mod config;
mod cost;
#[cfg(feature = "deploy")]
mod deploy;
mod doctor;
#[cfg(feature = "aws")]
mod doctor_aws;
mod explain;
mod faults;
mod finding;
mod generate;
mod hold;
mod init;
#[cfg(feature = "aws")]
mod invoke;
mod jobs;
mod keys;
mod logs;
mod models;
mod prices;
mod queue;
mod retry;
mod run;
mod schedule;
mod serve;
mod simulate;
mod status;
mod submit;
#[cfg(feature = "aws")]
mod upload;

use std::path::Path;

use gpuctl_control::config::{Config, ConfigError};
use gpuctl_control::ports::Purge;

use crate::arguments::{
    Arguments, Command, ConfiguredCommand, ContextCommand, HistoryCommand, InvokeArguments,
    StandaloneCommand,
};
use crate::context::{Configured, Context};
use crate::failure::Failure;
use crate::render::{Output, Printer};

/// Runs the command.
pub(crate) async fn run(arguments: Arguments, printer: &Printer) -> Result<Output, Failure> {
    // What a code means does not depend on a configuration, which may be what is wrong.
    if let Command::WithContext(ContextCommand::Explain { what }) = &arguments.command
        && let Some(meaning) = explain::code(what)
    {
        return Ok(meaning);
    }
    let config = configuration(arguments.config.as_deref()).await;
    match arguments.command {
        Command::Standalone(command) => standalone(command, config, printer).await,
        Command::Configured(command) => Box::pin(configured(command, config?, printer)).await,
        Command::WithContext(command) => {
            let context = Context::open(config?).await?;
            with_context(command, &context, printer).await
        }
    }
}

/// The configuration in the file that is named or found; on AWS also one in S3.
async fn configuration(flag: Option<&Path>) -> Result<Config, ConfigError> {
    let named = Config::named(flag);
    match named.as_ref().and_then(|named| named.to_str()).filter(|uri| uri.starts_with("s3://")) {
        Some(uri) => Box::pin(in_s3(uri)).await,
        None => Config::load(flag),
    }
}

#[cfg(feature = "aws")]
async fn in_s3(uri: &str) -> Result<Config, ConfigError> {
    let text = gpuctl_aws::policy_in_s3(uri).await.map_err(|error| ConfigError::NotFetched {
        uri: uri.to_owned(),
        source: Box::new(error),
    })?;
    Config::of_stored(uri, &text)
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it fetches the object")]
async fn in_s3(uri: &str) -> Result<Config, ConfigError> {
    Config::load(Some(Path::new(uri)))
}

async fn standalone(
    command: StandaloneCommand,
    config: Result<Config, ConfigError>,
    printer: &Printer,
) -> Result<Output, Failure> {
    match command {
        StandaloneCommand::Init { path } => init::init(&path),
        StandaloneCommand::Doctor { fix } => {
            let repair = if fix { doctor::Repair::Yes } else { doctor::Repair::No };
            Ok(Box::pin(doctor::check(config, repair)).await)
        }
        StandaloneCommand::Config(command) => config::run(config, command),
        StandaloneCommand::Models(command) => models::run(config?.file.as_deref(), &command),
        StandaloneCommand::Invoke(wanted) => invoke(&config?, &wanted).await,
        StandaloneCommand::Deploy(_)
        | StandaloneCommand::Diff(_)
        | StandaloneCommand::Destroy(_) => deploy(command, config?, printer).await,
        StandaloneCommand::Restore { path, replace } => backup::restore(&config?, &path, replace),
        StandaloneCommand::Completions { shell } => generate::completions(shell),
        StandaloneCommand::Man { folder } => generate::man(&folder),
        StandaloneCommand::Version => Ok(Output::Version(crate::version::document())),
    }
}

async fn configured(
    command: ConfiguredCommand,
    config: Config,
    printer: &Printer,
) -> Result<Output, Failure> {
    match command {
        ConfiguredCommand::Cost(command) => Box::pin(cost::run(config, command)).await,
        ConfiguredCommand::Schedule(command) => schedule::run(&Configured::new(config), &command),
        ConfiguredCommand::Simulate(wanted) => {
            simulate::run(&Configured::new(config), &wanted, printer)
        }
        ConfiguredCommand::Tune(wanted) => simulate::tune(&Configured::new(config), &wanted),
    }
}

async fn with_context(
    command: ContextCommand,
    context: &Context,
    printer: &Printer,
) -> Result<Output, Failure> {
    match command {
        ContextCommand::Status { pool } => status::status(context, pool.as_ref()).await,
        ContextCommand::Hold(command) => hold::hold(context, printer, command).await,
        ContextCommand::Release { pool } => hold::release(context, printer, &pool).await,
        ContextCommand::Logs(wanted) => Box::pin(logs::logs(context, printer, &wanted)).await,
        ContextCommand::Drain { r#box } => hold::drain(context, printer, &r#box).await,
        ContextCommand::Retire { r#box, .. } => {
            hold::retire(context, printer, r#box.as_ref()).await
        }
        ContextCommand::Submit(wanted) => submit::submit(context, printer, &wanted).await,
        ContextCommand::Jobs(wanted) => jobs::run(context, printer, &wanted).await,
        ContextCommand::Retry(wanted) => retry::retry(context, printer, &wanted).await,
        ContextCommand::Cancel { jobs } => cancel::cancel(context, printer, &jobs).await,
        ContextCommand::Job { id } => jobs::show(context, &id).await,
        ContextCommand::Keys(command) => keys::run(context, &command).await,
        ContextCommand::Queue => queue::counts(context).await,
        ContextCommand::Redrive { pool } => queue::redrive(context, printer, pool.as_ref()).await,
        ContextCommand::Purge { pool, dead } => {
            let which = if dead { Purge::Dead } else { Purge::Live };
            queue::purge(context, printer, &pool, which).await
        }
        ContextCommand::Plan(wanted) => status::plan(context, &wanted).await,
        ContextCommand::Explain { what } => explain::explain(context, &what).await,
        ContextCommand::Run => run::watch(context, printer).await,
        ContextCommand::Serve { address, allow_actions } => {
            Box::pin(serve::serve(context, printer, address, allow_actions)).await
        }
        ContextCommand::Backup { path } => backup::backup(context, &path),
        ContextCommand::History(HistoryCommand::Export { path, since }) => {
            simulate::export(context, &path, since).await
        }
    }
}

#[cfg(feature = "aws")]
async fn invoke(config: &Config, wanted: &InvokeArguments) -> Result<Output, Failure> {
    Box::pin(invoke::invoke(config, wanted)).await
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it calls the function")]
async fn invoke(_: &Config, _: &InvokeArguments) -> Result<Output, Failure> {
    Err(crate::backend::without_aws())
}

#[cfg(feature = "deploy")]
async fn deploy(
    command: StandaloneCommand,
    config: Config,
    printer: &Printer,
) -> Result<Output, Failure> {
    Box::pin(deploy::run(command, config, printer)).await
}

#[cfg(not(feature = "deploy"))]
#[expect(clippy::unused_async, reason = "with CloudFormation it deploys")]
async fn deploy(_: StandaloneCommand, _: Config, _: &Printer) -> Result<Output, Failure> {
    Err(crate::backend::without_deploy())
}
