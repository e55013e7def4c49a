//! The arguments of `simulate` and `tune`.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args;
use gpuctl_core::policy::IdleStop;
use gpuctl_core::units::{MicroUsd, PoolId, parse_duration};

use super::parse::{parse_idle_stop, parse_usd};

/// The world that is simulated.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorldArguments {
    /// Demand traces, `t_s,service_s`, plain or gzip, or the word `example`; with several, the totals are their sums. `tune` takes one
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) demand: Vec<PathBuf>,
    /// The pool whose settings apply where no option is given [default: the first with a queue in gpuctl.toml]
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<PoolId>,
    /// How long a boot takes [default: boot_default of the pool, else 2m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub(crate) boot: Option<TimeDelta>,
    /// How often the controller reconciles
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, default_value = "60s")]
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
    #[arg(long, value_name = "USD", value_parser = parse_usd, allow_hyphen_values = true)]
    pub(crate) on_demand_usd_hour: Option<MicroUsd>,
    /// The spot price per hour, instead of the known one
    #[arg(long, value_name = "USD", value_parser = parse_usd, allow_hyphen_values = true)]
    pub(crate) spot_usd_hour: Option<MicroUsd>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SimulateArguments {
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// When and where spot capacity is available, `t_s,zone,available`; without it every box is on-demand
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) availability: Vec<PathBuf>,
    /// Spot prices over time, instead of one price: `t_s,zone,usd_hour` with the same time origin as the availability trace, or rows
    /// of EC2's price history, `timestamp_utc,az,instance_type,usd_per_hour`, for the instance type
    #[arg(long, value_name = "FILE", requires = "availability", conflicts_with = "spot_usd_hour")]
    pub(crate) prices: Option<PathBuf>,
    /// Number of starting points in the availability trace, evenly spaced; the mean is shown
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) offsets: u32,
    /// The policies to compare
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "all")]
    pub(crate) policy: Vec<String>,
    /// How long a job may wait [default: max_wait of the pool, else 10m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub(crate) max_wait: Option<TimeDelta>,
    /// When gpuctl stops an idle box: a duration, or `auto` [default: idle_stop of the pool, else auto]
    #[arg(long, value_name = "DURATION", value_parser = parse_idle_stop, allow_hyphen_values = true)]
    pub(crate) idle_stop: Option<IdleStop>,
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
    /// With --faults: number of weeks
    #[arg(long, requires = "faults", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: u64,
    /// With --faults: run one week, generated from this seed
    #[arg(long, requires = "faults", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// With --faults: only these kinds of faults, or `none`
    #[arg(long, requires = "faults", value_name = "FAULT", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// With --faults: only the first HOURS hours of each week
    #[arg(long, requires = "faults", value_parser = clap::value_parser!(u32).range(24..=168))]
    pub(crate) hours: Option<u32>,
    /// With --faults: only the first BOXES boxes of each week
    #[arg(long, requires = "faults")]
    pub(crate) boxes: Option<usize>,
    /// With --faults: only the first JOBS jobs of each week
    #[arg(long, requires = "faults")]
    pub(crate) jobs: Option<usize>,
    /// With --faults: leave these fixes out, to see what they prevent
    #[cfg(feature = "without")]
    #[arg(long, requires = "faults", value_name = "FIX", value_delimiter = ',')]
    pub(crate) without: Vec<gpuctl_core::without::Fix>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TuneArguments {
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// The cost of one job waiting for one hour
    #[arg(long, value_name = "USD", value_parser = parse_usd, required = true, num_args = 1..)]
    pub(crate) wait_usd_hour: Vec<MicroUsd>,
}
