//! Arguments of the commands on stacks.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args;
use gpuctl_core::units::parse_duration;

use super::parse::{parse_parameter, parse_stack};

/// `--set`: a parameter of the template.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "deploy"),
    expect(dead_code, reason = "the command line is the same in every build")
)]
pub(crate) struct ParameterValue {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Which stack, and where.
#[derive(Clone, Debug, Args)]
pub(crate) struct StackArguments {
    /// The stack's name
    #[arg(long, value_name = "NAME", default_value = "gpuctl", value_parser = parse_stack)]
    pub(crate) stack: String,
    /// The AWS region [default: `region` under [cloud], else that of the environment]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Another address than AWS's for every service, for emulators [default: AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
}

/// What to deploy.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    pub(crate) of: StackArguments,
    /// A parameter of the template, e.g. GpuMarket=on-demand; others keep the stack's value
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub(crate) set: Vec<ParameterValue>,
    /// The function's zip [default: gpuctl-lambda.zip beside this program, else the stack's]
    #[arg(long, value_name = "ZIP")]
    pub(crate) function: Option<PathBuf>,
    /// The folder with the worker's archives [default: worker beside this program, else the stack's]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) worker: Option<PathBuf>,
    /// The folder with the boot files [default: those in this program]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) boot: Option<PathBuf>,
    /// The template [default: the one in this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// The bucket for function, worker and boot files; it is made [default: gpuctl-ACCOUNT-REGION]
    #[arg(long, value_name = "BUCKET")]
    pub(crate) code_bucket: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DeployArguments {
    #[command(flatten)]
    pub(crate) what: DiffArguments,
    /// Let this resource be replaced, or removed with what is in it
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) allow_replace: Vec<String>,
    /// The role that CloudFormation acts as [default: yours]
    #[arg(long, value_name = "ARN")]
    pub(crate) role_arn: Option<String>,
    /// Upload the models of this folder first, e.g. those of `gpuctl models pull` [default: the bucket's stay]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) models: Option<PathBuf>,
    /// How long a new kept box may take to boot and stop before it is told to stop
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, default_value = "20m")]
    pub(crate) boot_timeout: TimeDelta,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write template, parameters and commands for someone else to run; change nothing
    #[arg(long, value_name = "FOLDER", conflicts_with = "dry_run")]
    pub(crate) export: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DestroyArguments {
    #[command(flatten)]
    pub(crate) of: StackArguments,
    /// Also delete what is kept otherwise: results, shared files, and the code bucket if no other stack uses it
    #[arg(long)]
    pub(crate) everything: bool,
    /// First wait until the queue is empty, at most this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub(crate) drain: Option<TimeDelta>,
    /// Delete jobs that wait or run
    #[arg(long, conflicts_with = "drain")]
    pub(crate) lose_jobs: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StackCostArguments {
    /// A parameter of the template, e.g. Layout=gpu-and-app; others are the template's defaults
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub(crate) set: Vec<ParameterValue>,
    /// The AWS region [default: `region` under [cloud], else us-east-1]
    #[arg(long)]
    pub(crate) region: Option<String>,
}
