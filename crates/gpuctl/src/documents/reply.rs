//! The short answers of single commands: lists, counts, checks, costs and errors.

use gpuctl_core::cost::Price;
use serde::Serialize;

use gpuctl_control::wire::Versioned;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_control::wire::status::QueueDocument;

/// `gpuctl.submitted`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubmittedDocument {
    /// The pool whose boxes will do it.
    pub(crate) pool: String,
    /// The queue.
    pub(crate) queue: String,
    /// The jobs' names, in the inputs' order.
    pub(crate) job_ids: Vec<String>,
}

/// `gpuctl.jobs`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobsDocument {
    /// The jobs.
    pub(crate) jobs: Vec<JobDocument>,
}

/// `gpuctl.queues`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct QueuesDocument {
    /// One entry a pool with a queue.
    pub(crate) queues: Vec<PoolQueueDocument>,
}

/// One pool's queue.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolQueueDocument {
    /// The pool.
    pub(crate) pool: String,
    /// The queue.
    pub(crate) queue: String,
    /// Its counts.
    #[serde(flatten)]
    pub(crate) counts: QueueDocument,
}

/// `gpuctl.moved`: what `redrive` and `purge` did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MovedDocument {
    /// `redrive` or `purge`.
    pub(crate) action: &'static str,
    /// The queue.
    pub(crate) queue: String,
    /// How many messages.
    pub(crate) messages: u64,
}

/// `gpuctl.init`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InitDocument {
    /// The file that was written.
    pub(crate) path: String,
}

/// `gpuctl.completions`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScriptDocument {
    pub(crate) script: String,
}

/// `gpuctl.man`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ManPagesDocument {
    pub(crate) folder: String,
}

/// `gpuctl.doctor`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DoctorDocument {
    /// The checks, in order.
    pub(crate) checks: Vec<CheckDocument>,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckDocument {
    /// What was checked.
    pub(crate) name: &'static str,
    /// `pass`, `warn` or `fail`.
    pub(crate) status: &'static str,
    /// What was found.
    pub(crate) detail: String,
    /// What to do about it.
    pub(crate) fix: Option<String>,
}

/// `gpuctl.cost-report`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CostReportDocument {
    /// The period's begin.
    pub(crate) since: String,
    /// Its end.
    pub(crate) until: String,
    /// Jobs submitted in it, by state.
    pub(crate) jobs: JobCounts,
    /// From submission until a worker had it: the median, over jobs with a result.
    pub wait_seconds_p50: Option<f64>,
    /// … 95 of 100.
    pub wait_seconds_p95: Option<f64>,
    /// … the longest.
    pub(crate) wait_seconds_max: Option<f64>,
    /// Starts of boxes.
    pub(crate) starts: u32,
    /// Seconds that boxes were up.
    pub(crate) box_seconds: i64,
    /// Seconds that EC2 would bill: at least 60 a start.
    pub(crate) billed_seconds: i64,
    /// What they cost, each as what it was bought as; boxes on this machine as if they were on demand.
    pub(crate) box_usd: f64,
    /// Disks and addresses, which cost also while boxes are stopped.
    pub(crate) standing_usd: f64,
    /// Both together.
    pub(crate) usd: f64,
    /// What the figures below compare with.
    pub(crate) priced_as: PriceDocument,
    /// The billed seconds on demand.
    pub(crate) on_demand_usd: f64,
    /// The billed seconds on spot.
    pub(crate) spot_usd: Option<f64>,
    /// One box up for the whole period, on demand.
    pub(crate) always_on_usd: f64,
    /// A month of 30 days of which each is like the period (its cost over its days, a begun day counting whole), on demand.
    pub(crate) on_demand_usd_month: f64,
    /// … on spot.
    pub(crate) spot_usd_month: Option<f64>,
    /// One box up for a month of 30 days, on demand.
    pub(crate) always_on_usd_month: f64,
}

/// `gpuctl.cost-estimate`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EstimateDocument {
    /// The instance type.
    pub(crate) instance_type: String,
    /// The region.
    pub(crate) region: String,
    /// `spot` or `on-demand`.
    pub(crate) capacity: &'static str,
    /// The price of an hour.
    pub(crate) usd_hour: f64,
    /// Where it comes from: `as given`, or a table and its date.
    pub(crate) usd_hour_from: String,
    /// Hours that it runs a month.
    pub(crate) hours_month: f64,
    /// Everything together.
    pub(crate) usd_month: f64,
    /// Its parts.
    pub(crate) components: Vec<ComponentDocument>,
    /// The same box up for 30 days, without the other components.
    pub(crate) always_on_usd_month: f64,
}

/// A part of an estimate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ComponentDocument {
    /// What.
    pub(crate) name: String,
    /// How it was counted.
    pub(crate) detail: String,
    /// What it costs a month.
    pub(crate) usd_month: f64,
}

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct JobCounts {
    /// All of them.
    pub(crate) submitted: u32,
    /// Done.
    pub(crate) succeeded: u32,
    /// With an error result.
    pub(crate) failed: u32,
    /// Given up.
    pub(crate) dead: u32,
    /// Deleted before they had a result.
    pub(crate) purged: u32,
    /// Waiting or running.
    pub(crate) open: u32,
}

/// `gpuctl.prices`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PricesDocument {
    /// The known ones; after a refresh those that were fetched.
    pub(crate) prices: Vec<PriceDocument>,
    /// Where a refresh kept them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept_in: Option<String>,
}

/// A price.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PriceDocument {
    /// The EC2 instance type.
    pub(crate) instance_type: String,
    /// The AWS region.
    pub(crate) region: String,
    /// On demand.
    pub(crate) on_demand_usd_hour: f64,
    /// Spot in the cheapest zone.
    pub(crate) spot_usd_hour: Option<f64>,
    /// When the price was taken.
    pub(crate) as_of: String,
    /// Which table it is from: `shipped`, `fetched`, or `gpuctl.toml` for a figure of one's own.
    pub(crate) table: &'static str,
    /// Table and date in words.
    #[serde(skip)]
    pub(crate) origin: String,
}

impl PriceDocument {
    /// The document of a price.
    pub(crate) fn of(price: &Price) -> Self {
        Self {
            instance_type: price.instance_type.clone(),
            region: price.region.clone(),
            on_demand_usd_hour: price.on_demand.as_usd(),
            spot_usd_hour: price.spot.map(gpuctl_core::units::MicroUsd::as_usd),
            as_of: price.as_of.clone(),
            table: price.source.as_str(),
            origin: price.origin(),
        }
    }
}

/// `gpuctl.error`: what stands on standard error under `--json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorDocument {
    /// The error.
    pub(crate) error: ErrorBody,
}

/// An error.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorBody {
    /// Stable, e.g. `pool.unknown`: see `COMMANDS.md`.
    pub(crate) code: &'static str,
    /// What failed.
    pub(crate) message: String,
    /// Why, from the nearest cause to the first.
    pub(crate) causes: Vec<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) exit: u8,
}

/// A document under its name, at version 1.
pub(crate) fn versioned<D>(schema: &'static str, document: D) -> Versioned<D> {
    Versioned { schema, version: 1, document }
}
