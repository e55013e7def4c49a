//! The command line's grammar: daily verbs at the top. What users read as help is written here.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use gpu_tasks::Task;
use gpuctl_control::params::{Param, parse_param};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, Timestamp, parse_span};

/// Runs GPU boxes only while there is work for them.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = FIRST_STEPS)]
pub(crate) struct Arguments {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The configuration file [default: ./gpuctl.toml or the nearest above, then ~/.config/gpuctl/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask for confirmation
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Show each call to AWS as a command of the AWS CLI
    #[arg(long, global = true)]
    pub(crate) show_calls: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const FIRST_STEPS: &str = "First steps: `gpuctl init`, `gpuctl submit voice.transcribe FILE --wait`, `gpuctl status`.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 changes pending (plan --exit-code), 5 timed out.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show pools, boxes, queues and the next change
    Status {
        /// Only this pool
        pool: Option<PoolId>,
    },
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
    /// End a pool's hold: schedule and queue decide again
    Release {
        /// The pool
        pool: PoolId,
    },
    /// Ask the deployed Lambda function to start, stop or release pools, or to report their status
    Invoke(InvokeArguments),
    /// Show the output of boxes on this machine; on AWS the deployed Lambda function's log, or a box's console
    Logs(LogsArguments),
    /// Terminate an EC2 box for good: its spot request first, then the box with its disk
    Retire {
        /// The box
        r#box: BoxId,
    },
    /// Submit one job per input
    Submit(SubmitArguments),
    /// List jobs, newest first
    Jobs {
        /// Only jobs in this state
        #[arg(long, value_parser = ["queued", "running", "succeeded", "failed", "dead", "purged"])]
        state: Option<String>,
        /// Maximum number of jobs
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one job with its result
    Job {
        /// The job's id, or the beginning or end of it
        id: String,
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
    Plan {
        /// Only this pool
        pool: Option<PoolId>,
        /// Plan for this time, assuming that nothing else happens until then, e.g. 2026-12-24T18:00:00+09:00
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Exit with code 3 if there is something to do
        #[arg(long)]
        exit_code: bool,
    },
    /// Explain why a pool is up or down, and what happens next
    Explain {
        /// The pool
        pool: PoolId,
    },
    /// Show and check the schedules of pools
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Run the controller: watch queues and schedules, start and stop boxes, until interrupted
    Run,
    /// Show, estimate and price the cost of boxes
    #[command(subcommand)]
    Cost(CostCommand),
    /// Replay a demand trace under several policies: the cost of each, and how long jobs wait
    Simulate(SimulateArguments),
    /// Choose max_wait and idle_stop for a given cost of waiting, by replaying a trace
    Tune(TuneArguments),
    /// Export job history as a trace
    #[command(subcommand)]
    History(HistoryCommand),
    /// List, verify, pull and benchmark models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Write a commented gpuctl.toml
    Init {
        /// The file to write
        #[arg(default_value = "gpuctl.toml")]
        path: PathBuf,
    },
    /// Check the configuration, queue, worker, models and ONNX Runtime; on AWS the account, permissions, table and boxes
    Doctor {
        /// Create what is missing where gpuctl can, e.g. the ledger's table
        #[arg(long)]
        fix: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Show what a pool's schedule wants at a given time, why, and when that changes
    At {
        /// The pool
        pool: PoolId,
        /// An RFC 3339 time with its offset, e.g. 2026-11-23T09:00:00+09:00, or `now`
        instant: String,
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
    Report {
        /// Report on this much time until now
        #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "30d", conflicts_with = "month")]
        since: TimeDelta,
        /// Report on a month in UTC, e.g. 2026-11
        #[arg(long, value_name = "MONTH", value_parser = parse_month)]
        month: Option<Timestamp>,
    },
    /// Estimate the monthly cost of a box from its hours of use
    Estimate(EstimateArguments),
    /// List the known prices: those shipped with this program, replaced by those fetched since
    Prices(PricesArguments),
}

/// Which prices.
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
        /// Only jobs submitted in this much time until now
        #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "90d")]
        since: TimeDelta,
    },
}

/// The world that is simulated.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorldArguments {
    /// Demand traces, `t_s,service_s`, plain or gzip; the totals add up several
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) demand: Vec<PathBuf>,
    /// How long a boot takes
    #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "120s")]
    pub(crate) boot: TimeDelta,
    /// How often the controller reconciles
    #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "60s")]
    pub(crate) tick: TimeDelta,
    /// Maximum number of boxes at once
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) boxes_max: u32,
    /// The EC2 instance type [default: [cost] of gpuctl.toml]
    #[arg(long, value_name = "TYPE")]
    pub(crate) instance_type: Option<String>,
    /// The AWS region [default: [cost] of gpuctl.toml]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// The on-demand price per hour, instead of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) on_demand_usd_hour: Option<MicroUsd>,
    /// The spot price per hour, instead of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) spot_usd_hour: Option<MicroUsd>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SimulateArguments {
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// When and where spot capacity is available, `t_s,zone,available`; without it every box is on-demand
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) availability: Vec<PathBuf>,
    /// Spot prices over time, instead of one price: `t_s,zone,usd_hour` with the same time origin as the availability, or rows
    /// of EC2's price history, `timestamp_utc,az,instance_type,usd_per_hour`, for the instance type
    #[arg(long, value_name = "FILE", requires = "availability", conflicts_with = "spot_usd_hour")]
    pub(crate) prices: Option<PathBuf>,
    /// Number of starting points in the availability, evenly spaced; the mean is shown
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) offsets: u32,
    /// The policies to compare
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "all")]
    pub(crate) policy: Vec<String>,
    /// How long a job may wait
    #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "10m")]
    pub(crate) max_wait: TimeDelta,
    /// Also write an HTML page with charts
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArguments,
}

/// The fault simulation, instead of traces.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultArguments {
    /// Run the whole loop through generated weeks with injected faults, and check its guarantees
    #[arg(long, conflicts_with_all = ["demand", "availability", "prices", "html"])]
    pub(crate) faults: bool,
    /// Number of weeks
    #[arg(long, requires = "faults", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: u64,
    /// Only the week of this seed of the random number generator
    #[arg(long, requires = "faults", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Only these kinds of faults, or `none`
    #[arg(long, requires = "faults", value_name = "FAULT", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only the first hours of each week
    #[arg(long, requires = "faults", value_parser = clap::value_parser!(u32).range(24..=168))]
    pub(crate) hours: Option<u32>,
    /// Only the first boxes of each week
    #[arg(long, requires = "faults")]
    pub(crate) boxes: Option<usize>,
    /// Only the first jobs of each week
    #[arg(long, requires = "faults")]
    pub(crate) jobs: Option<usize>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TuneArguments {
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// The cost of one job waiting for one hour
    #[arg(long, value_name = "USD", value_parser = parse_usd, required = true, num_args = 1..)]
    pub(crate) wait_usd_hour: Vec<MicroUsd>,
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
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) usd_hour: Option<MicroUsd>,
    /// Hours of use per day
    #[arg(long, value_name = "HOURS", value_parser = parse_hours, default_value = "24")]
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
    pub(crate) with: Vec<(String, MicroUsd)>,
}

/// A box beside the one that is estimated.
#[derive(Clone, Debug)]
pub(crate) struct SecondBox {
    pub(crate) instance_type: String,
    pub(crate) hours_per_day: TimeDelta,
    pub(crate) usd_hour: Option<MicroUsd>,
}

fn parse_usd(text: &str) -> Result<MicroUsd, String> {
    MicroUsd::parse(text.trim_start_matches('$'))
        .ok_or_else(|| format!("`{text}` is not a valid amount of US dollars: write e.g. `0.71`"))
}

fn parse_hours(text: &str) -> Result<TimeDelta, String> {
    // A decimal number of hours is read as money is: to the millionth, without floats.
    MicroUsd::parse(text)
        .map(|hours| TimeDelta::microseconds(hours.0.saturating_mul(3_600)))
        .filter(|hours| *hours <= TimeDelta::hours(24))
        .ok_or_else(|| format!("`{text}` is not a number of hours from 0 to 24"))
}

fn parse_second_box(text: &str) -> Result<SecondBox, String> {
    let form = || {
        format!("`{text}` is not of the form TYPE:HOURS or TYPE:HOURS@USD, e.g. t3.large:8@0.10")
    };
    let (instance_type, rest) = text.split_once(':').ok_or_else(form)?;
    let (hours, usd) = rest.split_once('@').map_or((rest, None), |(hours, usd)| (hours, Some(usd)));
    Ok(SecondBox {
        instance_type: instance_type.to_owned(),
        hours_per_day: parse_hours(hours)?,
        usd_hour: usd.map(parse_usd).transpose()?,
    })
}

fn parse_fixed(text: &str) -> Result<(String, MicroUsd), String> {
    let (name, usd) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{text}` is not of the form NAME=USD, e.g. efs=5"))?;
    Ok((name.to_owned(), parse_usd(usd)?))
}

/// The most lines that `gpuctl logs` prints: what is read of a log is not much more.
const LINES_MAX: usize = 10_000;

fn parse_lines(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| (1..=LINES_MAX).contains(lines));
    lines.ok_or_else(|| format!("`{text}` is not a number from 1 to {LINES_MAX}"))
}

fn parse_month(text: &str) -> Result<Timestamp, String> {
    let month = |text: &str| format!("{text}-01T00:00:00Z").parse().ok();
    // Four digits and two: chrono would read years that no calendar reaches.
    Some(text)
        .filter(|text| text.len() == "2026-11".len())
        .and_then(month)
        .ok_or_else(|| format!("`{text}` is not a valid month: write e.g. 2026-11"))
}

/// A manual start or stop is a hold: it overrides schedule and queue until it expires.
#[derive(Clone, Debug, Args)]
pub(crate) struct HoldArguments {
    /// How long the hold lasts [default: 2h]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span, conflicts_with = "until")]
    pub(crate) lasts: Option<TimeDelta>,
    /// When the hold ends: 18:00 (local time) or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The reason, which `status` and `explain` show
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Allow the hold to spend this much beyond the pool's budget
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) over_budget: Option<MicroUsd>,
    /// Wait until the boxes are running, or stopped
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long; the hold stays in force
    #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "10m")]
    pub(crate) timeout: TimeDelta,
}

/// Which lines of which log.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArguments {
    /// Only this box; on AWS its console output
    pub(crate) r#box: Option<BoxId>,
    /// Only lines of this much time until now [default on AWS: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
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
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
    pub(crate) lasts: Option<TimeDelta>,
    /// The function's name or ARN [default: `function` under [cloud]]
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SubmitArguments {
    /// The task
    #[arg(value_parser = Task::ALL.map(Task::name))]
    pub(crate) task: String,
    /// The input files, one job each
    #[arg(required_unless_present = "text", value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// A text as the input, instead of a file
    #[arg(long, value_name = "TEXT", conflicts_with = "inputs")]
    pub(crate) text: Option<String>,
    /// A parameter of the task, e.g. speed=1.2; a file as reference=@voice.wav
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param)]
    pub(crate) param: Vec<Param>,
    /// The model [default: the task's]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The pool whose queue receives the jobs [default: the only one with a queue]
    #[arg(long)]
    pub(crate) pool: Option<PoolId>,
    /// Wait for the results and print them
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long; the jobs continue
    #[arg(long, value_name = "DURATION", value_parser = parse_span, default_value = "1h")]
    pub(crate) timeout: TimeDelta,
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
