//! What a worker says of itself to the ledger.

use gpuctl_core::observation::{BootPhase, WorkerFault};
use gpuctl_core::units::{BoxId, Timestamp};

/// A worker's report on itself: a sign of life, and whether it is idle.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerReport {
    pub box_id: BoxId,
    /// Which of the box's devices it works on, where several workers share the box; with the box, the key of its report.
    pub device: Option<String>,
    /// When its run started: with the box, the key of the run.
    pub run_started_at: Timestamp,
    pub at: Timestamp,
    pub pid: u32,
    /// Since when it is ready for work.
    pub ready_at: Option<Timestamp>,
    /// Number of messages that it holds.
    pub leases: u32,
    /// Since when it has held none.
    pub idle_since: Option<Timestamp>,
    /// Number of results that it has committed in this run.
    pub jobs_done: u32,
    /// The error that it is about to end with.
    pub last_error: Option<String>,
    /// Why it receives no jobs now, although it is up.
    pub fault: Option<WorkerFault>,
    /// Until when a user on the box wants it kept up: the file `keep-until` in its state folder.
    pub keep_until: Option<Timestamp>,
    /// When EC2 recommended to replace the box, which only the box itself is told.
    pub rebalance: Option<Timestamp>,
    /// How long the parts of the box's boot took; a ledger on this machine keeps none.
    pub boot_phases: Vec<BootPhase>,
}

impl WorkerReport {
    /// The first report of a worker, the only one of its box: it is not ready, and holds nothing.
    #[must_use]
    pub fn begin(box_id: BoxId, run_started_at: Timestamp, at: Timestamp, pid: u32) -> Self {
        Self {
            box_id,
            device: None,
            run_started_at,
            at,
            pid,
            ready_at: None,
            leases: 0,
            idle_since: None,
            jobs_done: 0,
            last_error: None,
            fault: None,
            keep_until: None,
            rebalance: None,
            boot_phases: Vec::new(),
        }
    }
}
