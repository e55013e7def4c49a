//! The moving mean of a job's time, for each box.

use std::collections::HashMap;

use gpuctl_control::job::JobResult;
use gpuctl_control::ports::SERVICE_WEIGHT;
use gpuctl_core::units::BoxId;

use super::DynamoLedger;
use super::items::{Key, Reader, Writer};

impl DynamoLedger {
    /// Moves the box's mean towards this job's time. It is an estimate, so a failed write is only logged.
    pub(super) async fn note_service(&self, result: &JobResult) {
        if result.outcome.is_err() {
            return;
        }
        let took = result.inference.num_microseconds().unwrap_or(i64::MAX);
        let known = self.known_mean(&result.box_id).await;
        let mean = known.map_or(took, |mean| mean + (took - mean) / i64::from(SERVICE_WEIGHT));
        self.means().insert(result.box_id.clone(), mean);
        let item = Writer::new(&Key::service(&result.box_id)).number("mean", mean).done();
        if let Err(error) = self.table.put(item, "store a job's mean time").await {
            tracing::debug!(%error, "a job's mean time was not stored");
        }
    }

    /// Read from the table once; from then on only this process changes it.
    async fn known_mean(&self, box_id: &BoxId) -> Option<i64> {
        let here = self.means().get(box_id).copied();
        match here {
            Some(mean) => Some(mean),
            None => {
                let item = self.table.get(&Key::service(box_id)).await.ok()??;
                Reader(&item).number_if("mean")
            }
        }
    }

    fn means(&self) -> std::sync::MutexGuard<'_, HashMap<BoxId, i64>> {
        self.service.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
