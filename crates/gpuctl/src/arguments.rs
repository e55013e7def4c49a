//! The command line's grammar: daily verbs at the top. What users read as help is written here.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use gpu_tasks::Task;
use gpuctl_control::params::{Param, parse_param};
use gpuctl_core::capacity::CapacityType;
use gpuctl_core::units::{BoxId, MicroUsd, PoolId, Timestamp, parse_span};

/// A GPU box that exists only while there is work for it.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = FIRST_STEPS)]
pub(crate) struct Arguments {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The configuration's file; default: ./gpuctl.toml or the nearest above, then ~/.config/gpuctl/config.toml
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask before something that cannot be undone
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Show the calls to AWS, as lines of the AWS CLI
    #[arg(long, global = true)]
    pub(crate) show_calls: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const FIRST_STEPS: &str = "First steps: `gpuctl init`, `gpuctl submit voice.transcribe FILE --wait`, `gpuctl status`.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 changes pending (plan --exit-code), 5 timed out.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show pools, boxes, queues and what happens next
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
    /// Ask the deployed Lambda to start, stop or release pools, or how they stand
    Invoke(InvokeArguments),
    /// Show what boxes of this machine wrote; on AWS what the deployed Lambda wrote, or a box's console
    Logs(LogsArguments),
    /// End an EC2 box for good: its spot request first, then the box with its disk
    Retire {
        /// The box
        r#box: BoxId,
    },
    /// Submit one job for each input
    Submit(SubmitArguments),
    /// List jobs, newest first
    Jobs {
        /// Only jobs in this state
        #[arg(long, value_parser = ["queued", "running", "succeeded", "failed", "dead", "purged"])]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one job with its answer
    Job {
        /// The job's name, or its first characters
        id: String,
    },
    /// Show the queues' counts
    Queue,
    /// Give dead jobs another chance
    Redrive {
        /// Only this pool's
        pool: Option<PoolId>,
    },
    /// Delete jobs that wait or run, or the dead ones
    Purge {
        /// The pool whose queue it is
        pool: PoolId,
        /// Delete the dead ones instead
        #[arg(long)]
        dead: bool,
    },
    /// Show what would be done, and every rule's verdict
    Plan {
        /// Only this pool
        pool: Option<PoolId>,
        /// What would be done at this instant if nothing else happened until then, as 2026-12-24T18:00:00+09:00
        #[arg(long, value_name = "INSTANT")]
        at: Option<String>,
        /// Exit with 3 if there is something to do
        #[arg(long)]
        exit_code: bool,
    },
    /// Say why a pool is up or down, and what happens next
    Explain {
        /// The pool
        pool: PoolId,
    },
    /// Show and check when schedules want pools up
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Watch queue and schedule, and start and stop boxes, until interrupted
    Run,
    /// Show what box time cost
    #[command(subcommand)]
    Cost(CostCommand),
    /// Replay a trace of demand against policies: what would each cost, and how long would jobs wait?
    Simulate(SimulateArguments),
    /// Choose max_wait and idle_stop for a price of waiting, by replaying a trace
    Tune(TuneArguments),
    /// Write one's own history as a trace
    #[command(subcommand)]
    History(HistoryCommand),
    /// List, verify, fetch and measure models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Write a commented gpuctl.toml
    Init {
        /// Where
        #[arg(default_value = "gpuctl.toml")]
        path: PathBuf,
    },
    /// Check configuration, queue, worker, models and ONNX Runtime; on AWS account, permissions, table and boxes
    Doctor {
        /// Make what is missing and can be made, as the ledger's table
        #[arg(long)]
        fix: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Say what a pool's schedule wants at an instant, why, and when that changes
    At {
        /// The pool
        pool: PoolId,
        /// An RFC 3339 time with its offset, as 2026-11-23T09:00:00+09:00, or `now`
        instant: String,
    },
    /// Draw the days of a pool's schedule, in the zone of its first entry
    Show {
        /// The pool
        pool: PoolId,
        /// How many days
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
        /// The first day: the one in which this instant lies
        #[arg(long, value_name = "INSTANT", default_value = "now")]
        from: String,
    },
    /// Warn about entries that never match, overlap, fight, or fall into the skipped hour
    Lint {
        /// Only this pool
        pool: Option<PoolId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CostCommand {
    /// Jobs, waits, box time, and its price on EC2 against an always-on box
    Report {
        /// The period: this long until now
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "30d", conflicts_with = "month")]
        since: TimeDelta,
        /// The period: a month in UTC, as 2026-11
        #[arg(long, value_name = "MONTH", value_parser = parse_month)]
        month: Option<Timestamp>,
    },
    /// What a box costs a month when it runs so many hours
    Estimate(EstimateArguments),
    /// The known prices: those that ship with this program, and in their place those fetched since
    Prices(PricesArguments),
}

/// Which prices.
#[derive(Clone, Debug, Args)]
pub(crate) struct PricesArguments {
    /// Ask AWS for the prices of today, and keep them in the state folder
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Only these EC2 instance types [default: every known one; with --refresh those of [cost], of the pools and of their boxes]
    #[arg(long, value_name = "TYPE", num_args = 1..)]
    pub(crate) instance_type: Vec<String>,
    /// Only this AWS region [default: every known one; with --refresh that of [cloud], else of [cost]]
    #[arg(long)]
    pub(crate) region: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Write the jobs that have a result as `t_s,service_s`, for `simulate` and `tune`
    Export {
        /// Where
        path: PathBuf,
        /// Only jobs submitted within this time
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "90d")]
        since: TimeDelta,
    },
}

/// The world that is simulated.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorldArguments {
    /// A trace of demand, `t_s,service_s`, plain or gzip; several are put together in the totals
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) demand: Vec<PathBuf>,
    /// What a boot takes
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "120s")]
    pub(crate) boot: TimeDelta,
    /// How often the controller looks
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "60s")]
    pub(crate) tick: TimeDelta,
    /// The most boxes at once
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) boxes_max: u32,
    /// The EC2 instance type [default: [cost] of gpuctl.toml]
    #[arg(long, value_name = "TYPE")]
    pub(crate) instance_type: Option<String>,
    /// The AWS region [default: [cost] of gpuctl.toml]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// The on-demand price of an hour, in place of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) on_demand_usd_hour: Option<MicroUsd>,
    /// The spot price of an hour, in place of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) spot_usd_hour: Option<MicroUsd>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SimulateArguments {
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// Where spot can be had and when, `t_s,zone,available`; without it every box is on demand
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) availability: Vec<PathBuf>,
    /// What spot costs as it changes, in place of one price: `t_s,zone,usd_hour`, on the clock of the availability, or the rows of
    /// EC2's price history, `timestamp_utc,az,instance_type,usd_per_hour`, of the instance type
    #[arg(long, value_name = "FILE", requires = "availability", conflicts_with = "spot_usd_hour")]
    pub(crate) prices: Option<PathBuf>,
    /// Begin at so many places of the availability, evenly apart, and show the mean
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) offsets: u32,
    /// The policies to compare
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "all")]
    pub(crate) policy: Vec<String>,
    /// How long a job may wait
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "10m")]
    pub(crate) max_wait: TimeDelta,
    /// Write a page with pictures
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArguments,
}

/// Weeks with faults, in place of traces.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultArguments {
    /// Run the whole loop through made-up weeks in which things go wrong, and check what it promises
    #[arg(long, conflicts_with_all = ["demand", "availability", "prices", "html"])]
    pub(crate) faults: bool,
    /// So many weeks
    #[arg(long, requires = "faults", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: u64,
    /// Only the week of this seed
    #[arg(long, requires = "faults", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Only these kinds of faults, or `none`
    #[arg(long, requires = "faults", value_name = "FAULT", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only the first so many hours
    #[arg(long, requires = "faults", value_parser = clap::value_parser!(u32).range(24..=168))]
    pub(crate) hours: Option<u32>,
    /// Only the first so many boxes
    #[arg(long, requires = "faults")]
    pub(crate) boxes: Option<usize>,
    /// Only the first so many jobs
    #[arg(long, requires = "faults")]
    pub(crate) jobs: Option<usize>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TuneArguments {
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// What an hour of a waiting job is worth
    #[arg(long, value_name = "USD", value_parser = parse_usd, required = true, num_args = 1..)]
    pub(crate) wait_usd_hour: Vec<MicroUsd>,
}

/// What to estimate. Hours and prices may have decimals; a month of 24 hours a day has 30 days.
#[derive(Clone, Debug, Args)]
pub(crate) struct EstimateArguments {
    /// The EC2 instance type [default: [cost] of gpuctl.toml]
    #[arg(long, value_name = "TYPE")]
    pub(crate) instance_type: Option<String>,
    /// The AWS region [default: [cost] of gpuctl.toml]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// How it is bought
    #[arg(long, value_name = "spot|on-demand", default_value = "on-demand")]
    pub(crate) capacity: CapacityType,
    /// Its price an hour, in place of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) usd_hour: Option<MicroUsd>,
    /// Hours that it runs a day
    #[arg(long, value_name = "HOURS", value_parser = parse_hours, default_value = "24")]
    pub(crate) hours_per_day: TimeDelta,
    /// Days that it runs a month
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=31), default_value = "30")]
    pub(crate) days_per_month: u32,
    /// Its disk, which costs also while it is stopped
    #[arg(long, value_name = "GIB", default_value_t = 0)]
    pub(crate) disk_gib: u32,
    /// It keeps a public IPv4 address, which costs all the time
    #[arg(long)]
    pub(crate) public_ipv4: bool,
    /// A second box beside it, on demand on the same days, as t3.large:8 or t3.large:8@0.10 (hours a day, USD an hour)
    #[arg(long, value_name = "TYPE:HOURS[@USD]", value_parser = parse_second_box)]
    pub(crate) with_box: Vec<SecondBox>,
    /// A fixed cost a month, as efs=5
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
        .ok_or_else(|| format!("`{text}` is no amount of US dollars: write it as `0.71`"))
}

fn parse_hours(text: &str) -> Result<TimeDelta, String> {
    // A decimal number of hours is read as money is: to the millionth, without floats.
    MicroUsd::parse(text)
        .map(|hours| TimeDelta::microseconds(hours.0.saturating_mul(3_600)))
        .filter(|hours| *hours <= TimeDelta::hours(24))
        .ok_or_else(|| format!("`{text}` is no number of hours from 0 to 24"))
}

fn parse_second_box(text: &str) -> Result<SecondBox, String> {
    let form =
        || format!("`{text}` is not of the form TYPE:HOURS or TYPE:HOURS@USD, as t3.large:8@0.10");
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
        .ok_or_else(|| format!("`{text}` is not of the form NAME=USD, as efs=5"))?;
    Ok((name.to_owned(), parse_usd(usd)?))
}

/// Lines that one answer may have: what is read of a log is not much more.
const LINES_MAX: usize = 10_000;

fn parse_lines(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| (1..=LINES_MAX).contains(lines));
    lines.ok_or_else(|| format!("`{text}` is no number from 1 to {LINES_MAX}"))
}

fn parse_month(text: &str) -> Result<Timestamp, String> {
    let month = |text: &str| format!("{text}-01T00:00:00Z").parse().ok();
    // Four digits and two: chrono would read years that no calendar reaches.
    Some(text)
        .filter(|text| text.len() == "2026-11".len())
        .and_then(month)
        .ok_or_else(|| format!("`{text}` is no month: write it as 2026-11"))
}

/// A manual start or stop is a hold: it wins over schedule and queue until it expires.
#[derive(Clone, Debug, Args)]
pub(crate) struct HoldArguments {
    /// How long it holds [default: 2h]
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span, conflicts_with = "until")]
    pub(crate) lasts: Option<TimeDelta>,
    /// Until when it holds: 18:00 (local time) or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Why, for whoever asks `explain`
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Let it spend so much beyond the pool's budget
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) over_budget: Option<MicroUsd>,
    /// Wait until the boxes are running, or stopped
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "10m")]
    pub(crate) timeout: TimeDelta,
}

/// Which lines of which log.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArguments {
    /// Only this box; on AWS its console
    pub(crate) r#box: Option<BoxId>,
    /// Only lines of this time until now [default on AWS: 1h]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) since: Option<TimeDelta>,
    /// Go on with what is written from now on, until interrupted
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) follow: bool,
    /// The newest so many lines
    #[arg(long, value_name = "LINES", default_value = "100", value_parser = parse_lines)]
    pub(crate) limit: usize,
    /// The function's name or ARN [default: `function` under [cloud]]
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
}

/// What the deployed function is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct InvokeArguments {
    /// What it shall do
    #[arg(value_parser = ["start", "stop", "release", "status"])]
    pub(crate) action: String,
    /// A pool of the function's policy, or all of them
    #[arg(default_value = "all")]
    pub(crate) target: String,
    /// How long a start or stop holds [default: 2h]
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span)]
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
    /// The files, one job each
    #[arg(required_unless_present = "text", value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// A text as input, in place of a file
    #[arg(long, value_name = "TEXT", conflicts_with = "inputs")]
    pub(crate) text: Option<String>,
    /// What the task shall do differently, as speed=1.2; a file as reference=@voice.wav
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param)]
    pub(crate) param: Vec<Param>,
    /// The model; default: the task's
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The pool whose queue gets it; default: the only one with a queue
    #[arg(long)]
    pub(crate) pool: Option<PoolId>,
    /// Wait for the answers and print them
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long; the jobs go on
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "1h")]
    pub(crate) timeout: TimeDelta,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Show the models that are here, and those that can be pulled
    List,
    /// Compare every file of models with their manifests
    Verify {
        /// The models; default: all that are here
        names: Vec<String>,
    },
    /// Fetch models, pinned and checked, from where their manifests say
    Pull {
        /// The models, as `gpuctl models list` shows them
        #[arg(required_unless_present = "manifest")]
        names: Vec<String>,
        /// The manifest of another model; without hashes it gets them from what is fetched now
        #[arg(long, value_name = "PATH")]
        manifest: Option<PathBuf>,
        /// A folder, https:// or s3:// address that has the files as MODEL/PATH
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
    },
    /// Measure items a second over batch sizes, on the processor and the GPU
    Bench(BenchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// MODEL, or MODEL/ROLE where it has several graphs; default: every graph that is here
    pub(crate) graphs: Vec<String>,
    /// Items a call, as 1,8,32
    #[arg(long, value_name = "NUMBERS")]
    pub(crate) batch: Option<String>,
    /// cpu, cuda or cpu,cuda; default: both, where there is CUDA
    #[arg(long, value_name = "DEVICES")]
    pub(crate) device: Option<String>,
    /// How long each case is measured; default: 3
    #[arg(long)]
    pub(crate) seconds: Option<String>,
    /// Threads of a session on the processor; default: the configuration's
    #[arg(long)]
    pub(crate) threads: Option<String>,
    /// Height and width of pictures where a graph leaves them open; default: 320
    #[arg(long)]
    pub(crate) side: Option<String>,
    /// Length of texts and the like where a graph leaves it open; default: 128
    #[arg(long)]
    pub(crate) length: Option<String>,
}
