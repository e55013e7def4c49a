//! The definition of the command line, and its help texts.

mod deploy;
mod overview;
mod parse;
mod simulate;

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gpuctl_control::job::JobState;
use gpuctl_control::keys::{KeyName, Scope};
use gpuctl_control::params::{Param, parse_param};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::priority::Priority;
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, Timestamp, parse_duration};

use crate::version::version;
#[cfg(feature = "deploy")]
pub(crate) use deploy::StackArguments;
pub(crate) use deploy::{
    DeployArguments, DestroyArguments, DiffArguments, ParameterValue, StackCostArguments,
};
pub(crate) use overview::{command, overview};
use parse::{
    TaskName, parse_fixed, parse_hours, parse_lines, parse_month, parse_second_box, parse_usd,
};
pub(crate) use simulate::{FaultArguments, SimulateArguments, TuneArguments, WorldArguments};

/// Runs GPU boxes only while there is work for them.
#[derive(Debug, Parser)]
#[command(name = "gpuctl", version = version(), arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Print one JSON document instead of text
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
    /// The configuration file, or s3://BUCKET/KEY [default: ./gpuctl.toml or the nearest above, then ~/.config/gpuctl/config.toml]
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask for confirmation
    #[arg(long, short, global = true, help_heading = "Options of every command")]
    pub(crate) yes: bool,
    /// Show each call to AWS as a command of the AWS CLI
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) show_calls: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the end of `gpuctl --help` says.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 changes pending (plan --exit-code), \
                          4 a start or stop is outranked or cannot happen, or a permission is missing, 5 timed out, \
                          6 a budget or a limit of cost forbids it, 130 interrupted while waiting.";

/// The commands, by what they need.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    WithContext(ContextCommand),
    #[command(flatten)]
    Configured(ConfiguredCommand),
    #[command(flatten)]
    Standalone(StandaloneCommand),
}

impl Command {
    /// Whether it runs workers that are none of this machine.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self, Self::Configured(ConfiguredCommand::Simulate(wanted)) if wanted.faults.faults)
    }
}

/// Commands on the configuration and the ports of its backend.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Show pools, boxes, queues and the next change
    Status {
        /// Only this pool
        pool: Option<PoolId>,
    },
    #[command(flatten)]
    Hold(HoldCommand),
    /// End a pool's hold: schedule and queue decide again
    Release {
        /// The pool
        pool: PoolId,
    },
    /// Show the output of boxes on this machine; on AWS the deployed Lambda function's log, or a box's console
    Logs(LogsArguments),
    /// Stop one box after the jobs that it holds: its worker receives no more
    Drain {
        /// The box
        r#box: BoxId,
    },
    /// Terminate an EC2 box for good: its spot request first, then the box with its disk
    Retire {
        /// The box
        #[arg(required_unless_present = "outdated", conflicts_with = "outdated")]
        r#box: Option<BoxId>,
        /// Every stopped box that differs from what its launch template would make now
        #[arg(long)]
        outdated: bool,
    },
    /// Submit one job per input
    Submit(SubmitArguments),
    /// List jobs, newest first; or delete old ones
    Jobs(JobsArguments),
    /// Show one job with its result, and the results of its earlier generations
    Job {
        /// The job's id, or the beginning or end of it
        id: String,
    },
    /// Send jobs again, each as its next generation; results so far stay readable
    Retry(RetryArguments),
    /// Cancel jobs that wait or run: they end without a result
    ///
    /// A worker stops a running job at its next heartbeat; one that goes on for another minute ends its worker with exit code 13. On AWS a waiting
    /// job is counted until a worker receives it, and a box may start for it: where all that waits was cancelled, `gpuctl purge` removes it
    Cancel {
        /// The jobs: their ids, or the beginnings or ends of them
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<String>,
    },
    /// Show how many jobs each queue holds
    Queue,
    /// Send dead jobs back to their queue
    Redrive {
        /// Only this pool's
        pool: Option<PoolId>,
    },
    /// Delete waiting and running jobs, or the dead ones
    Purge {
        /// The pool whose queue is purged
        pool: PoolId,
        /// Delete dead jobs instead
        #[arg(long)]
        dead: bool,
    },
    /// Show what gpuctl would do now, with every rule's verdict
    Plan(PlanArguments),
    /// Explain why a pool is up or down and what happens next, what a job waits for or failed of, or what an error code means
    Explain {
        /// A pool, a job's id or the beginning or end of it, or a code such as `input.too_long`
        #[arg(value_name = "POOL|JOB|CODE")]
        what: String,
    },
    /// Run the controller: watch queues and schedules, start and stop boxes, until interrupted
    Run,
    /// Run the controller, and serve a page for people and the HTTP API for other programs, until interrupted
    Serve {
        /// Where to listen [default: `address` under [http]: 127.0.0.1:8686]
        #[arg(long, value_name = "IP:PORT")]
        address: Option<std::net::SocketAddr>,
        /// Let the page retry and cancel jobs, keep pools on or off, and send dead letters again; without it the page only shows
        #[arg(long)]
        allow_actions: bool,
    },
    /// Make, list and revoke the keys with which other programs call the HTTP API
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Write this machine's state into one file, while it is in use: queue, jobs, results with their files, holds and runs
    Backup {
        /// The file to write
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Export job history as a trace
    #[command(subcommand)]
    History(HistoryCommand),
}

/// Commands on the keys of the HTTP API.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, and show it: only its digest is kept
    ///
    /// Once there is a key, every call needs one, also on this machine; `gpuctl serve` may then listen on other addresses
    Create {
        /// What the key is called, e.g. after the program that gets it
        name: KeyName,
        /// What it allows
        #[arg(
            long = "scope",
            value_name = "SCOPE",
            value_delimiter = ',',
            default_value = "read,submit"
        )]
        scopes: Vec<Scope>,
    },
    /// List keys: their scopes, and when they were last used
    List,
    /// Revoke a key: within seconds no program may call with it
    Revoke {
        /// The key's name
        name: KeyName,
    },
}

/// Commands that set a hold.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Start every pool and keep it up for a while
    StartAll(HoldArguments),
    /// Start the pool `app` and keep it up for a while
    StartApp(HoldArguments),
    /// Start the pool `gpu` and keep it up for a while
    StartGpu(HoldArguments),
    /// Stop every pool and keep it down for a while
    StopAll(HoldArguments),
    /// Stop the pool `app` and keep it down for a while
    StopApp(HoldArguments),
    /// Stop the pool `gpu` and keep it down for a while
    StopGpu(HoldArguments),
    /// Start a pool and keep it up for a while
    Start {
        /// The pool
        pool: PoolId,
        #[command(flatten)]
        hold: HoldArguments,
    },
    /// Stop a pool and keep it down for a while
    Stop {
        /// The pool
        pool: PoolId,
        #[command(flatten)]
        hold: HoldArguments,
    },
}

/// Commands on the configuration. They open no backend, but for two of `cost`: they need neither credentials nor this machine's state.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfiguredCommand {
    /// Show and check the schedules of pools
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Show, estimate and price the cost of boxes
    #[command(subcommand)]
    Cost(CostCommand),
    /// Replay a demand trace under several policies: the cost of each, and how long jobs wait
    Simulate(Box<SimulateArguments>),
    /// Choose max_wait and idle_stop for a given cost of waiting, by replaying a trace
    Tune(TuneArguments),
}

/// Commands that open no backend, and work without a configuration or report its errors themselves.
#[derive(Debug, Subcommand)]
pub(crate) enum StandaloneCommand {
    /// Ask the deployed Lambda function to start, stop or release pools, or to report their status
    Invoke(InvokeArguments),
    /// List, verify, pull and benchmark models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Write a commented gpuctl.toml
    Init {
        /// The file to write
        #[arg(default_value = "gpuctl.toml")]
        path: PathBuf,
    },
    /// Show which configuration is used and what it sets, and check one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the configuration, queue, worker, models and ONNX Runtime; on AWS the account, permissions, table and boxes
    Doctor {
        /// Create what is missing where gpuctl can, e.g. the ledger's table
        #[arg(long)]
        fix: bool,
    },
    /// Make or change the stack of an AWS account: shows what changes, and what it costs a month, and asks
    Deploy(Box<DeployArguments>),
    /// Show what `deploy` would change, and what it would cost a month; change nothing
    Diff(Box<DiffArguments>),
    /// Remove a stack with its boxes, and list what is left that costs
    Destroy(DestroyArguments),
    /// Put a backup of this machine's state in place, where nothing uses it
    Restore {
        /// The file that `gpuctl backup` wrote
        #[arg(value_name = "FILE")]
        path: PathBuf,
        /// Move aside the state that is there
        #[arg(long)]
        replace: bool,
    },
    /// Print a shell completion script
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write man pages, one file per command
    Man {
        /// The folder to write them to; it is created
        #[arg(default_value = "man")]
        folder: PathBuf,
    },
    /// Show this program's version, commit, and the version of its time zones
    Version,
}

/// Shells with completion scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArguments {
    /// Only this pool
    pub(crate) pool: Option<PoolId>,
    /// Plan for this time, assuming that nothing else happens until then, e.g. 2026-12-24T18:00:00+09:00
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Exit with code 3 if there is something to do
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting as it applies, with the defaults
    Show {
        /// Say where each comes from: its line in the file, an environment variable, or the default
        #[arg(long)]
        origin: bool,
    },
    /// Show which file is used, the folder of this machine's state, and a file further up that is not used
    Path,
    /// Print a JSON Schema of gpuctl.toml, for editors
    Schema,
    /// Check the configuration, or another file: all its errors at once, with their lines; exits with code 2 if there are any
    Validate {
        /// The file to check
        path: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Show what a pool's schedule wants at a given time, why, and when that changes
    At {
        /// The pool
        pool: PoolId,
        /// An RFC 3339 time with its offset, e.g. 2026-11-23T09:00:00+09:00, or `now`
        time: String,
    },
    /// Draw a pool's schedule day by day, in the time zone of its first entry
    Show {
        /// The pool
        pool: PoolId,
        /// Number of days
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
        /// The first day: the one that contains this time
        #[arg(long, value_name = "TIME", default_value = "now")]
        from: String,
    },
    /// Warn about entries that never match, overlap, contradict each other, or fall into a skipped hour
    Lint {
        /// Only this pool
        pool: Option<PoolId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CostCommand {
    /// Report jobs, waits, box time, and its price on EC2 compared with an always-on box
    Report(ReportArguments),
    /// Estimate the monthly cost of a box from its hours of use
    Estimate(EstimateArguments),
    /// Show what a stack costs: a month of doing nothing, part by part, and an hour of each kind of box
    Stack(StackCostArguments),
    /// Show what each pool costs this month so far, and what the whole month comes to at this pace
    Forecast,
    /// Check that the month comes to no more than a limit, e.g. in CI; exits with code 6 if it does
    Check {
        /// The most that the month may cost
        #[arg(long, value_name = "USD", value_parser = parse_usd, allow_hyphen_values = true)]
        max_usd_month: MicroUsd,
    },
    /// List the known prices: those shipped with this program, replaced by those fetched since
    Prices(PricesArguments),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArguments {
    /// Only the last DURATION, until now
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, default_value = "30d", conflicts_with = "month")]
    pub(crate) since: TimeDelta,
    /// Report on a month in UTC, e.g. 2026-11
    #[arg(long, value_name = "MONTH", value_parser = parse_month)]
    pub(crate) month: Option<Timestamp>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PricesArguments {
    /// Fetch today's prices from AWS, and keep them in the state folder
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Only these EC2 instance types [default: all known ones; with --refresh those of [cost], of the pools and of their boxes]
    #[arg(long, value_name = "TYPE", num_args = 1..)]
    pub(crate) instance_type: Vec<String>,
    /// Only this AWS region [default: all known ones; with --refresh that of [cloud], else of [cost]]
    #[arg(long)]
    pub(crate) region: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Write the jobs that have a result as a trace (`t_s,service_s`) for `simulate` and `tune`
    Export {
        /// The file to write
        path: PathBuf,
        /// Only jobs submitted in the last DURATION
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, default_value = "90d")]
        since: TimeDelta,
    },
}

/// What to estimate: hours and prices may have decimals; a month has 30 days.
#[derive(Clone, Debug, Args)]
pub(crate) struct EstimateArguments {
    /// The EC2 instance type [default: [cost] of gpuctl.toml]
    #[arg(long, value_name = "TYPE")]
    pub(crate) instance_type: Option<String>,
    /// The AWS region [default: [cost] of gpuctl.toml]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Purchase option
    #[arg(long, value_name = "spot|on-demand", default_value = "on-demand")]
    pub(crate) capacity: CapacityType,
    /// The price per hour, instead of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd, allow_hyphen_values = true)]
    pub(crate) usd_hour: Option<MicroUsd>,
    /// Hours of use per day
    #[arg(long, value_name = "HOURS", value_parser = parse_hours, allow_hyphen_values = true, default_value = "24")]
    pub(crate) hours_per_day: TimeDelta,
    /// Days of use per month
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=31), default_value = "30")]
    pub(crate) days_per_month: u32,
    /// Size of its disk, which costs while the box is stopped, too
    #[arg(long, value_name = "GIB", default_value_t = 0)]
    pub(crate) disk_gib: u32,
    /// It keeps a public IPv4 address, which costs while the box is stopped, too
    #[arg(long)]
    pub(crate) public_ipv4: bool,
    /// A further on-demand box on the same days, e.g. t3.large:8 or t3.large:8@0.10 (hours per day, USD per hour)
    #[arg(long, value_name = "TYPE:HOURS[@USD]", value_parser = parse_second_box)]
    pub(crate) with_box: Vec<SecondBox>,
    /// A fixed monthly cost, e.g. efs=5
    #[arg(long, value_name = "NAME=USD", value_parser = parse_fixed)]
    pub(crate) with: Vec<FixedCost>,
}

/// `--with-box`: a further box of an estimate.
#[derive(Clone, Debug)]
pub(crate) struct SecondBox {
    pub(crate) instance_type: String,
    pub(crate) hours_per_day: TimeDelta,
    pub(crate) usd_hour: Option<MicroUsd>,
}

/// `--with`: a fixed monthly cost of an estimate.
#[derive(Clone, Debug)]
pub(crate) struct FixedCost {
    pub(crate) name: String,
    pub(crate) usd: MicroUsd,
}

/// A manual start or stop is a hold: it overrides schedule and queue until it expires.
#[derive(Clone, Debug, Args)]
pub(crate) struct HoldArguments {
    /// How long the hold lasts [default: 2h]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, conflicts_with = "until")]
    pub(crate) lasts: Option<TimeDelta>,
    /// When the hold ends: 18:00 (local time) or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The reason, which `status` and `explain` show
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Allow a start to spend this much beyond the pool's budget
    #[arg(long, value_name = "USD", value_parser = parse_usd, allow_hyphen_values = true)]
    pub(crate) over_budget: Option<MicroUsd>,
    /// End a start once its queue has been empty for a minute and no box is busy; --for and --until say when at the latest
    #[arg(long)]
    pub(crate) until_empty: bool,
    /// Wait until a box of each pool is running; after a stop, until all have stopped
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long; the hold stays in force
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, default_value = "10m")]
    pub(crate) timeout: TimeDelta,
}

/// Which lines of which log.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArguments {
    /// Only this box; on AWS its console output
    pub(crate) r#box: Option<BoxId>,
    /// Only lines of the last DURATION [default on AWS: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub(crate) since: Option<TimeDelta>,
    /// Keep printing new lines, until interrupted
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) follow: bool,
    /// Number of lines
    #[arg(long, value_name = "LINES", default_value = "100", value_parser = parse_lines)]
    pub(crate) limit: usize,
    /// The function's name or ARN [default: `function` under [cloud]]
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
}

/// A call of the deployed function.
#[derive(Clone, Debug, Args)]
pub(crate) struct InvokeArguments {
    /// Action
    #[arg(value_parser = ["start", "stop", "release", "status"])]
    pub(crate) action: String,
    /// A pool of the function's policy, or `all`
    #[arg(default_value = "all")]
    pub(crate) target: String,
    /// How long a start or stop lasts [default: 2h]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub(crate) lasts: Option<TimeDelta>,
    /// The function's name or ARN [default: `function` under [cloud]]
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SubmitArguments {
    /// The task, or command.NAME for a command of the configuration
    #[arg(value_parser = TaskName)]
    pub(crate) task: String,
    /// The input files, one job each
    #[arg(required_unless_present_any = ["text", "no_input"], value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// A text as the input, instead of a file
    #[arg(long, value_name = "TEXT", conflicts_with = "inputs")]
    pub(crate) text: Option<String>,
    /// No input, for a command that needs none
    #[arg(long, conflicts_with_all = ["inputs", "text"])]
    pub(crate) no_input: bool,
    /// A param of the task, e.g. speed=1.2; a file as reference=@voice.wav
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param)]
    pub(crate) param: Vec<Param>,
    /// The model [default: the task's]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The pool whose queue receives the jobs [default: the only one with a queue]
    #[arg(long)]
    pub(crate) pool: Option<PoolId>,
    /// Which jobs come first
    #[arg(long, value_parser = Priority::ALL.map(Priority::as_str), default_value = "normal")]
    pub(crate) priority: String,
    /// How long the jobs may wait for a box, where that is less than the pool's max_wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub(crate) max_wait: Option<TimeDelta>,
    /// By when the jobs are to begin, as an RFC 3339 time, e.g. 2026-12-24T18:00:00+09:00
    #[arg(long, value_name = "TIME", conflicts_with = "max_wait")]
    pub(crate) deadline: Option<String>,
    /// Wait for the results and print them
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long; the jobs continue
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, default_value = "1h")]
    pub(crate) timeout: TimeDelta,
}

/// Which jobs to list.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct JobsArguments {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
    /// Only jobs in this state; dead and failed ones are listed with the reason
    #[arg(long, value_parser = JobState::ALL.map(JobState::as_str))]
    pub(crate) state: Option<String>,
    /// Maximum number of jobs
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Copy jobs with their results into a new folder: `jobs.jsonl`, and the files of results below `files/`
    Export {
        /// The folder to make
        folder: PathBuf,
        /// Only jobs submitted in the last DURATION [default: all]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        since: Option<TimeDelta>,
    },
    /// Delete jobs that are over, with their results and files
    Delete {
        /// Only jobs submitted before this: a time with its offset, or a duration until now, e.g. 30d
        #[arg(long, value_name = "TIME")]
        before: String,
    },
}

/// Which jobs to send again: either by their ids, or all of a state.
#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// The jobs: their ids, or the beginnings or ends of them
    #[arg(required_unless_present = "state", value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// Every job in this state
    #[arg(long, value_parser = ["failed", "cancelled", "dead", "purged", "expired"], conflicts_with = "jobs")]
    pub(crate) state: Option<String>,
    /// Only jobs whose error has this code, e.g. model.missing
    #[arg(long, value_name = "CODE", requires = "state")]
    pub(crate) code: Vec<String>,
    /// Only jobs submitted since this: a time with its offset, or a duration until now, e.g. 2h
    #[arg(long, value_name = "TIME", requires = "state")]
    pub(crate) since: Option<String>,
    /// Maximum number of jobs
    #[arg(long, default_value_t = 1_000)]
    pub(crate) limit: u32,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the installed models, and those that can be pulled
    List,
    /// Check every file of models against their manifests
    Verify {
        /// The models [default: all installed ones]
        names: Vec<String>,
    },
    /// Download models from the origins in their manifests, pinned and checked
    Pull {
        /// The models, as listed by `gpuctl models list`
        #[arg(required_unless_present = "manifest")]
        names: Vec<String>,
        /// The manifest of another model; missing hashes are filled in from what is downloaded
        #[arg(long, value_name = "PATH")]
        manifest: Option<PathBuf>,
        /// A folder, or an https:// or s3:// address, with the files as MODEL/PATH
        #[arg(long, value_name = "LOCATION")]
        from: Option<String>,
    },
    /// Measure items per second by batch size, on CPU and GPU
    Bench(BenchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// MODEL, or MODEL/ROLE where it has several graphs [default: every installed graph]
    pub(crate) graphs: Vec<String>,
    /// Items per call, e.g. 1,8,32
    #[arg(long, value_name = "NUMBERS")]
    pub(crate) batch: Option<String>,
    /// cpu, cuda or cpu,cuda [default: both where CUDA is available]
    #[arg(long, value_name = "DEVICES")]
    pub(crate) device: Option<String>,
    /// Seconds of measurement per case [default: 3]
    #[arg(long)]
    pub(crate) seconds: Option<String>,
    /// CPU threads per session [default: the configuration's]
    #[arg(long)]
    pub(crate) threads: Option<String>,
    /// Height and width of images where a graph leaves them open [default: 320]
    #[arg(long)]
    pub(crate) side: Option<String>,
    /// Length of sequences where a graph leaves it open [default: 128]
    #[arg(long)]
    pub(crate) length: Option<String>,
}
