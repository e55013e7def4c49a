//! The short answers of single commands: lists, counts, checks, costs and errors.

use gpuctl_core::cost::Price;
use serde::Serialize;

use super::Versioned;
use super::job::JobDocument;
use super::status::QueueDocument;

/// `gpuctl.submitted`.
#[derive(Clone, Debug, Serialize)]
pub struct SubmittedDocument {
    /// The pool whose boxes will do it.
    pub pool: String,
    /// The queue.
    pub queue: String,
    /// The jobs' names, in the inputs' order.
    pub job_ids: Vec<String>,
}

/// `gpuctl.jobs`.
#[derive(Clone, Debug, Serialize)]
pub struct JobsDocument {
    /// The jobs.
    pub jobs: Vec<JobDocument>,
}

/// `gpuctl.queues`.
#[derive(Clone, Debug, Serialize)]
pub struct QueuesDocument {
    /// One entry a pool with a queue.
    pub queues: Vec<PoolQueueDocument>,
}

/// One pool's queue.
#[derive(Clone, Debug, Serialize)]
pub struct PoolQueueDocument {
    /// The pool.
    pub pool: String,
    /// The queue.
    pub queue: String,
    /// Its counts.
    #[serde(flatten)]
    pub counts: QueueDocument,
}

/// `gpuctl.moved`: what `redrive` and `purge` did.
#[derive(Clone, Debug, Serialize)]
pub struct MovedDocument {
    /// `redrive` or `purge`.
    pub action: &'static str,
    /// The queue.
    pub queue: String,
    /// How many messages.
    pub messages: u64,
}

/// `gpuctl.init`.
#[derive(Clone, Debug, Serialize)]
pub struct InitDocument {
    /// The file that was written.
    pub path: String,
}

/// `gpuctl.doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorDocument {
    /// The checks, in order.
    pub checks: Vec<CheckDocument>,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckDocument {
    /// What was checked.
    pub name: &'static str,
    /// `pass`, `warn` or `fail`.
    pub status: &'static str,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// `gpuctl.cost-report`.
#[derive(Clone, Debug, Serialize)]
pub struct CostReportDocument {
    /// The period's begin.
    pub since: String,
    /// Its end.
    pub until: String,
    /// Jobs submitted in it, by state.
    pub jobs: JobCounts,
    /// From submission until a worker had it: the median, over jobs with a result.
    pub wait_seconds_p50: Option<f64>,
    /// … 95 of 100.
    pub wait_seconds_p95: Option<f64>,
    /// … the longest.
    pub wait_seconds_max: Option<f64>,
    /// Starts of boxes.
    pub starts: u32,
    /// Seconds that boxes were up.
    pub box_seconds: i64,
    /// Seconds that EC2 would bill: at least 60 a start.
    pub billed_seconds: i64,
    /// What they cost, each as what it was bought as; boxes on this machine as if they were on demand.
    pub box_usd: f64,
    /// Disks and addresses, which cost also while boxes are stopped.
    pub standing_usd: f64,
    /// Both together.
    pub usd: f64,
    /// What the figures below compare with.
    pub priced_as: PriceDocument,
    /// The billed seconds on demand.
    pub on_demand_usd: f64,
    /// The billed seconds on spot.
    pub spot_usd: Option<f64>,
    /// One box up for the whole period, on demand.
    pub always_on_usd: f64,
    /// A month of 30 days of which each is like the period (its cost over its days, a begun day counting whole), on demand.
    pub on_demand_usd_month: f64,
    /// … on spot.
    pub spot_usd_month: Option<f64>,
    /// One box up for a month of 30 days, on demand.
    pub always_on_usd_month: f64,
}

/// `gpuctl.cost-estimate`.
#[derive(Clone, Debug, Serialize)]
pub struct EstimateDocument {
    /// The instance type.
    pub instance_type: String,
    /// The region.
    pub region: String,
    /// `spot` or `on-demand`.
    pub capacity: &'static str,
    /// The price of an hour.
    pub usd_hour: f64,
    /// Where it comes from: `as given`, or a table and its date.
    pub usd_hour_from: String,
    /// Hours that it runs a month.
    pub hours_month: f64,
    /// Everything together.
    pub usd_month: f64,
    /// Its parts.
    pub components: Vec<ComponentDocument>,
    /// The same box up for 30 days, without the other components.
    pub always_on_usd_month: f64,
}

/// A part of an estimate.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentDocument {
    /// What.
    pub name: String,
    /// How it was counted.
    pub detail: String,
    /// What it costs a month.
    pub usd_month: f64,
}

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct JobCounts {
    /// All of them.
    pub submitted: u32,
    /// Done.
    pub succeeded: u32,
    /// With an error result.
    pub failed: u32,
    /// Given up.
    pub dead: u32,
    /// Deleted before they had a result.
    pub purged: u32,
    /// Waiting or running.
    pub open: u32,
}

/// `gpuctl.prices`.
#[derive(Clone, Debug, Serialize)]
pub struct PricesDocument {
    /// The known ones; after a refresh those that were fetched.
    pub prices: Vec<PriceDocument>,
    /// Where a refresh kept them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_in: Option<String>,
}

/// A price.
#[derive(Clone, Debug, Serialize)]
pub struct PriceDocument {
    /// The EC2 instance type.
    pub instance_type: String,
    /// The AWS region.
    pub region: String,
    /// On demand.
    pub on_demand_usd_hour: f64,
    /// Spot in the cheapest zone.
    pub spot_usd_hour: Option<f64>,
    /// When the price was taken.
    pub as_of: String,
    /// Which table it is from: `shipped`, `fetched`, or `gpuctl.toml` for a figure of one's own.
    pub table: &'static str,
    /// Table and date in words.
    #[serde(skip)]
    pub origin: String,
}

impl PriceDocument {
    /// The document of a price.
    #[must_use]
    pub fn of(price: &Price) -> Self {
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
pub struct ErrorDocument {
    /// The error.
    pub error: ErrorBody,
}

/// An error.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody {
    /// What failed.
    pub message: String,
    /// Why, from the nearest cause to the first.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The exit code.
    pub exit: u8,
}

/// A document under its name, at version 1.
#[must_use]
pub fn versioned<D>(schema: &'static str, document: D) -> Versioned<D> {
    Versioned { schema, version: 1, document }
}
