//! The documents of the simulator: how policies did on a trace, and what tuning chose.

use std::collections::BTreeMap;

use serde::Serialize;

/// `gpuctl.simulation`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SimulationDocument {
    /// The traces of demand.
    pub(crate) demand: Vec<String>,
    /// Jobs in them.
    pub(crate) jobs: usize,
    /// Their total length.
    pub(crate) days: f64,
    /// The pool whose settings apply where there is no option.
    pub(crate) pool: Option<String>,
    /// How long a job may wait.
    pub(crate) max_wait_seconds: f64,
    /// When the policy `gpuctl` stops an idle box, as in the configuration.
    pub(crate) idle_stop: String,
    /// How long a boot takes.
    pub(crate) boot_seconds: f64,
    /// How often the controller reconciles.
    pub(crate) tick_seconds: f64,
    /// The on-demand price per hour.
    pub(crate) on_demand_usd_hour: f64,
    /// Where that is from: `as given`, or a table and its date.
    pub(crate) on_demand_usd_hour_from: String,
    /// The spot price per hour, if an availability was given without prices over time.
    pub(crate) spot_usd_hour: Option<f64>,
    /// The file of spot prices, if they change over time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spot_prices: Option<String>,
    /// The minimum box time with which every job keeps the limit.
    pub(crate) bound_box_seconds: f64,
    /// The minimum with knowledge of the future, if boxes start when a job arrives.
    pub(crate) bound_same_start_box_seconds: f64,
    /// The minimum with knowledge of the future, if no job waits for a boot.
    pub(crate) bound_prewarm_box_seconds: f64,
    pub(crate) service_seconds: f64,
    pub(crate) policies: Vec<PolicyScoreDocument>,
}

/// How one policy did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PolicyScoreDocument {
    pub(crate) policy: &'static str,
    pub(crate) what: &'static str,
    /// Time that boxes were up.
    pub(crate) box_seconds: f64,
    /// … of it on spot.
    pub(crate) spot_seconds: f64,
    /// Box time over the bound: the geometric mean over the traces. Below 1 where jobs wait longer than the limit.
    pub(crate) ratio_to_bound: f64,
    pub(crate) usd: f64,
    /// What a month of such days costs; none for less than a day.
    pub(crate) usd_month: Option<f64>,
    pub(crate) starts: f64,
    /// The median wait.
    pub wait_seconds_p50: f64,
    /// 95 of 100 waited no longer.
    pub wait_seconds_p95: f64,
    pub(crate) wait_seconds_max: f64,
    /// Jobs that waited longer than the limit more than on a box that is always on.
    pub(crate) late_jobs: f64,
    /// Jobs that were never done.
    pub(crate) jobs_lost: f64,
    /// How often a spot box was interrupted.
    pub(crate) interruptions: f64,
}

impl PolicyScoreDocument {
    /// The mean of a number of runs over the same traces: sums are divided by it.
    pub(crate) fn divided_by(mut self, runs: usize) -> Self {
        let by = runs.max(1) as f64;
        for sum in [&mut self.box_seconds, &mut self.spot_seconds, &mut self.usd, &mut self.starts]
        {
            *sum /= by;
        }
        for sum in [&mut self.late_jobs, &mut self.jobs_lost, &mut self.interruptions] {
            *sum /= by;
        }
        self
    }
}

/// `gpuctl.tuning`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TuningDocument {
    pub(crate) demand: Vec<String>,
    /// Choices that no other beats in both dollars and waiting, on the whole trace.
    pub(crate) frontier: Vec<ChoiceDocument>,
    /// What was chosen for each price of waiting.
    pub(crate) tuned: Vec<TunedDocument>,
}

/// A choice and what it costs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChoiceDocument {
    pub(crate) max_wait: String,
    pub(crate) idle_stop: String,
    /// What its boxes cost.
    pub(crate) usd: f64,
    /// How long all jobs together waited for want of a box.
    pub(crate) wait_hours: f64,
}

/// What was chosen for one price of waiting.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TunedDocument {
    /// The price of a job waiting for an hour.
    pub(crate) wait_usd_hour: f64,
    /// Chosen on the first half.
    pub(crate) max_wait: String,
    /// Chosen on the first half.
    pub(crate) idle_stop: String,
    /// What that costs on the second half, waiting included.
    pub(crate) tested_usd: f64,
    /// What the best choice there would have cost.
    pub(crate) hindsight_usd: f64,
    /// The one over the other.
    pub(crate) ratio_to_hindsight: f64,
}

/// `gpuctl.history-export`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExportedDocument {
    /// The file that was written.
    pub(crate) path: String,
    /// Jobs in it.
    pub(crate) jobs: usize,
}

/// `gpuctl.fault-simulation`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FaultSimulationDocument {
    /// Weeks that were run.
    pub(crate) weeks: usize,
    /// How often each kind of fault happened.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) jobs: u64,
    /// … of them with a result; the others lie in the dead letters, or wait for a new budget.
    pub(crate) jobs_committed: u64,
    /// Starts of boxes, EC2's own included.
    pub(crate) starts: u64,
    /// How often a spot box was interrupted.
    pub(crate) interruptions: u64,
    /// Starts that were refused.
    pub(crate) refusals: u64,
    /// What EC2 bills.
    pub(crate) usd: f64,
    /// Recorded reconciles.
    pub(crate) reconciles: u64,
    /// Checks of guarantees.
    pub(crate) checks: u64,
    /// The seed of the week that took longest, and how long.
    pub(crate) slowest_seed: u64,
    /// In seconds of this machine.
    pub(crate) slowest_seconds: f64,
    /// The first violation, by seed.
    pub(crate) failure: Option<ViolationDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ViolationDocument {
    pub(crate) seed: u64,
    pub(crate) guarantee: &'static str,
    pub(crate) sentence: &'static str,
    pub(crate) at: String,
    /// What happened.
    pub(crate) what: String,
    /// The events before it, in the smallest week in which it breaks.
    pub(crate) events: Vec<String>,
    /// Shows it again.
    pub(crate) replay: String,
    /// Shows it again in the smallest week in which it breaks.
    pub(crate) smallest: String,
}
