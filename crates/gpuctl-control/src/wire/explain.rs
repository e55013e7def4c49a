//! The document `gpuctl.explain`: one pool's plan, with its boxes, its queue and its latest run.

use serde::Serialize;

use super::plan::{PoolPlanDocument, RunDocument};
use super::status::{BoxDocument, QueueDocument};

/// `gpuctl.explain`: one pool, with its boxes, its queue and its latest run.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainDocument {
    /// The instant that it holds for.
    pub at: String,
    /// The plan of the pool.
    #[serde(flatten)]
    pub plan: PoolPlanDocument,
    /// The state of its busiest box: `running`, `pending`, `stopping`, `stopped` or `unknown`.
    pub state: &'static str,
    pub boxes: Vec<BoxDocument>,
    pub queue: Option<QueueDocument>,
    /// The latest run, or the one under way.
    pub last_run: Option<RunDocument>,
    /// The parts that could not be read.
    pub errors: Vec<String>,
}
