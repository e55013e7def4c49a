//! The document `gpuctl.explain`: one pool's plan, with its boxes, its queue and its latest run.

use gpuctl_core::observation::SeenPool;
use gpuctl_core::plan::PoolPlan;
use gpuctl_core::units::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{PoolPlanDocument, RunDocument};
use super::status::{BoxDocument, QueueDocument, box_documents, state};
use super::{Versioned, time};

/// `gpuctl.explain`: one pool, with its boxes, its queue and its latest run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
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

impl ExplainDocument {
    /// The document of what was seen of a pool, and of its plan.
    #[must_use]
    pub fn of(seen: &SeenPool, plan: &PoolPlan, at: Timestamp, errors: Vec<String>) -> Self {
        let queue = seen.queue.as_ref().and_then(|queue| queue.value.as_ref());
        let boxes = seen.boxes.value.as_deref();
        Self {
            at: time(at),
            plan: PoolPlanDocument::of(plan),
            state: boxes.map_or("unknown", state),
            boxes: box_documents(boxes.unwrap_or_default(), plan, at),
            queue: queue.map(|queue| QueueDocument::of(queue, at)),
            last_run: seen.runs.first().map(|run| RunDocument::of(run, at)),
            errors,
        }
    }

    /// The document under its name.
    #[must_use]
    pub fn versioned(self) -> Versioned<Self> {
        Versioned { schema: "gpuctl.explain", version: 1, document: self }
    }
}
