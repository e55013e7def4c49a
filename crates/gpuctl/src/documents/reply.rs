//! The short answers of single commands: lists, counts, checks, costs and errors.

use std::path::Path;

use gpuctl_core::cost::Price;
use serde::Serialize;

use gpuctl_control::keys::ApiKey;
use gpuctl_control::wire::job::JobDocument;
use gpuctl_control::wire::status::{QueueDocument, SpendingDocument};
use gpuctl_control::wire::{Versioned, time};

/// `gpuctl.submitted`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubmittedDocument {
    /// The pool whose boxes process the jobs.
    pub(crate) pool: String,
    pub(crate) queue: String,
    /// The ids of the jobs, in the order of the inputs.
    pub(crate) job_ids: Vec<String>,
}

/// `gpuctl.jobs`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobsDocument {
    pub(crate) jobs: Vec<JobDocument>,
}

/// `gpuctl.retried`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RetriedDocument {
    /// How many jobs were sent again, or would be.
    pub(crate) sent: usize,
    pub(crate) jobs: Vec<RetriedJob>,
    /// How many more there are than `--limit` allows.
    pub(crate) beyond_limit: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RetriedJob {
    pub(crate) job_id: String,
    /// Its newest generation.
    pub(crate) generation: u32,
    /// Its state before.
    pub(crate) state: &'static str,
    /// `sent`, `would be sent` or `left alone`.
    pub(crate) outcome: &'static str,
}

/// `gpuctl.cancelled`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CancelledDocument {
    pub(crate) jobs: Vec<CancelledJob>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CancelledJob {
    pub(crate) job_id: String,
    /// Its newest generation.
    pub(crate) generation: u32,
    /// Its state now.
    pub(crate) state: &'static str,
    /// `cancelled`, `left alone` where it had ended before, or `failed`: it was as `state` says, and may be cancelled.
    pub(crate) outcome: &'static str,
}

/// `gpuctl.deleted`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeletedDocument {
    /// How many jobs were deleted.
    pub(crate) jobs: usize,
    /// All of them were submitted before this.
    pub(crate) before: String,
}

/// `gpuctl.copied`: what `backup`, `restore` and `jobs export` did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CopiedDocument {
    /// `backup`, `restore` or `export`.
    pub(crate) action: &'static str,
    /// The file or folder that was written.
    pub(crate) path: String,
    pub(crate) jobs: u64,
    /// Files of results.
    pub(crate) files: u64,
    /// Where the state lies that was there before a restore.
    pub(crate) replaced: Option<String>,
    /// Files that could not be read, each with the reason.
    pub(crate) missing: Vec<String>,
}

impl CopiedDocument {
    pub(crate) fn of(action: &'static str, path: &Path, jobs: u64) -> Self {
        let path = path.display().to_string();
        Self { action, path, jobs, files: 0, replaced: None, missing: Vec::new() }
    }
}

/// `gpuctl.queues`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct QueuesDocument {
    /// One entry per pool with a queue.
    pub(crate) queues: Vec<PoolQueueDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolQueueDocument {
    pub(crate) pool: String,
    pub(crate) queue: String,
    /// Its counts.
    #[serde(flatten)]
    pub(crate) counts: QueueDocument,
}

/// `gpuctl.key-created`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeyCreatedDocument {
    /// The key itself, which is shown only now.
    pub(crate) key: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub(crate) about: KeyDocument,
}

/// `gpuctl.keys`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeysDocument {
    pub(crate) keys: Vec<KeyDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeyDocument {
    pub(crate) name: String,
    /// `read` and `submit`.
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) created_at: String,
    /// When it was last used, to the minute.
    pub(crate) used_at: Option<String>,
    pub(crate) revoked_at: Option<String>,
}

impl KeyDocument {
    pub(crate) fn of(key: &ApiKey) -> Self {
        Self {
            name: key.name.to_string(),
            scopes: key.scopes.iter().map(|scope| scope.as_str()).collect(),
            created_at: time(key.created_at),
            used_at: key.used_at.map(time),
            revoked_at: key.revoked_at.map(time),
        }
    }
}

/// `gpuctl.moved`: what `redrive` and `purge` did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MovedDocument {
    /// `redrive` or `purge`.
    pub(crate) action: &'static str,
    pub(crate) queue: String,
    pub(crate) messages: u64,
}

/// `gpuctl.version`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VersionDocument {
    /// This program's version.
    pub(crate) gpuctl: &'static str,
    /// The commit that it was built from.
    pub(crate) commit: &'static str,
    /// Whether it was built with AWS.
    pub(crate) aws: bool,
    /// The version of the time zone database.
    pub(crate) time_zones: &'static str,
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
    pub(crate) checks: Vec<CheckDocument>,
}

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
    /// The start of the period.
    pub(crate) since: String,
    /// Its end.
    pub(crate) until: String,
    /// Jobs submitted in it, by state.
    pub(crate) jobs: JobCounts,
    /// From submission to receipt by a worker: the median over jobs with a result.
    pub wait_seconds_p50: Option<f64>,
    /// … the 95th percentile.
    pub wait_seconds_p95: Option<f64>,
    /// … the longest.
    pub(crate) wait_seconds_max: Option<f64>,
    pub(crate) starts: u32,
    /// Seconds that boxes were up.
    pub(crate) box_seconds: i64,
    /// Seconds that EC2 would bill: at least 60 per start.
    pub(crate) billed_seconds: i64,
    /// The cost of these, by purchase option; boxes on this machine as on-demand.
    pub(crate) box_usd: f64,
    /// Disks and addresses, which also cost while boxes are stopped.
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
    /// What such a box would have cost more than the boxes did; negative if less.
    pub(crate) saved_usd: f64,
    /// The on-demand cost of 30 days like those of the period; a part of a day counts as a day. None for less than a day.
    pub(crate) on_demand_usd_month: Option<f64>,
    /// … on spot.
    pub(crate) spot_usd_month: Option<f64>,
    /// One box up for a month of 30 days, on demand.
    pub(crate) always_on_usd_month: f64,
}

/// `gpuctl.cost-forecast`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CostForecastDocument {
    pub(crate) at: String,
    /// The end of the month in UTC.
    pub(crate) month_ends_at: String,
    /// All pools together, since the first of the month.
    pub(crate) usd_month: f64,
    /// … in the whole month at this pace.
    pub(crate) usd_month_forecast: f64,
    /// The limit that was to be checked.
    pub(crate) max_usd_month: Option<f64>,
    /// The pools whose boxes have a price.
    pub(crate) pools: Vec<PoolForecastDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolForecastDocument {
    pub(crate) pool: String,
    #[serde(flatten)]
    pub(crate) cost: SpendingDocument,
}

/// `gpuctl.cost-estimate`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EstimateDocument {
    pub(crate) instance_type: String,
    pub(crate) region: String,
    /// `spot` or `on-demand`.
    pub(crate) capacity: &'static str,
    /// The price of an hour.
    pub(crate) usd_hour: f64,
    /// Where it comes from: `as given`, or a table and its date.
    pub(crate) usd_hour_from: String,
    /// Hours of use per month.
    pub(crate) hours_month: f64,
    /// Everything together.
    pub(crate) usd_month: f64,
    pub(crate) components: Vec<ComponentDocument>,
    /// The same box up for 30 days, without the other components.
    pub(crate) always_on_usd_month: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ComponentDocument {
    pub(crate) name: String,
    /// How it was counted.
    pub(crate) detail: String,
    /// Its cost per month.
    pub(crate) usd_month: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct JobCounts {
    pub(crate) submitted: u32,
    pub(crate) succeeded: u32,
    /// With an error result.
    pub(crate) failed: u32,
    /// Moved to the dead letters after too many tries.
    pub(crate) dead: u32,
    /// Ended by a user before they had a result.
    pub(crate) cancelled: u32,
    /// Deleted before they had a result.
    pub(crate) purged: u32,
    pub(crate) expired: u32,
    /// Waiting or running.
    pub(crate) open: u32,
}

/// `gpuctl.prices`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PricesDocument {
    /// The known prices; after a refresh the fetched ones.
    pub(crate) prices: Vec<PriceDocument>,
    /// The file that a refresh wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept_in: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PriceDocument {
    pub(crate) instance_type: String,
    pub(crate) region: String,
    pub(crate) on_demand_usd_hour: f64,
    /// Spot in the cheapest zone.
    pub(crate) spot_usd_hour: Option<f64>,
    /// When the price was taken.
    pub(crate) as_of: String,
    /// Which table it is from: `shipped`, `fetched`, or `gpuctl.toml` for a price that is configured.
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

/// `gpuctl.explain-job`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExplainedJobDocument {
    pub(crate) job: JobDocument,
    /// The pool whose boxes do such jobs.
    pub(crate) pool: Option<String>,
    /// The pool's sentence, as in its status.
    pub(crate) sentence: Option<String>,
    /// What the job waits for, if it waits.
    pub(crate) waits_for: Option<String>,
    /// What its error means, if it has one.
    pub(crate) error: Option<ExplainedCodeDocument>,
}

/// `gpuctl.explain-code`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExplainedCodeDocument {
    pub(crate) code: String,
    pub(crate) meaning: String,
    /// Of an error of a job: what is to blame, e.g. `the input`.
    pub(crate) blamed_on: Option<String>,
    /// Of an error of a command: its exit code.
    pub(crate) exit: Option<u8>,
}

/// `gpuctl.error`: on standard error under `--json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorDocument {
    pub(crate) error: ErrorBody,
}

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
